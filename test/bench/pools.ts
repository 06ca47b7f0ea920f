/**
 * `npm run bench -- pools [POOL …]`: what a slot of a pool costs beside one of `local:1`. Measured
 * are the time until its worker serves, and what a run takes in it. Slots are acquired, and runs
 * made, in turns. Without a pool, a Ray cluster of this machine is started and measured.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import probe from "../../experiments/probe.js";
import { Progress, runExperiment } from "../../src/index.js";
import { openPool, type Pool, type Slot } from "../../src/pool/pool.js";
import { n, type Part, part, type Row } from "../benchmark-parts.js";
import { ensureRay, startRayHead } from "../ray.js";
import { median } from "./statistics.js";

/** What was measured of a pool. */
export interface PoolCost {
  pool: string;
  /** Seconds from asking for a slot until its worker answers, in the order of the turns. */
  acquire: number[];
  /** Seconds of a run in a slot that serves: the median of some, for each turn. */
  runs: number[];
  /** Median of the differences to the first pool's runs, within a turn. */
  addedSeconds: number;
}

/** The parts of the benchmark: one. */
export function poolParts(names: readonly string[]): Record<string, Part> {
  const rows = (found: PoolCost[]): Row[] =>
    found.flatMap(({ pool, acquire, runs, addedSeconds }, i): Row[] => [
      [`${pool}: from asking for a slot until it serves`, `${n(median(acquire))} s`, list(acquire)],
      [
        `${pool}: a run in the slot`,
        `${n(median(runs))} s`,
        `${list(runs)}${i === 0 ? "" : `; beside ${found[0]!.pool} ${n(1000 * addedSeconds)} ms more`}`,
      ],
    ]);
  return {
    pools: part(
      () => (names.length > 0 ? measurePools(["local:1", ...names]) : measureWithRay()),
      rows,
    ),
  };
}

const list = (seconds: readonly number[]) => seconds.map((s) => n(s)).join(", ");

/** Measure a Ray cluster of this machine. */
async function measureWithRay(): Promise<PoolCost[]> {
  const ray = await ensureRay();
  if (ray === undefined) throw new Error("Ray cannot be had (pip install ray)");
  const head = await startRayHead(ray);
  try {
    return await measurePools(["local:1", `ray:${head.url}`]);
  } finally {
    await head.stop();
  }
}

/** A run that computes for a fraction of a second. */
const GIVEN = { name: "d4", samples: 64, coset_epochs: 1, "coset_solver.candidates": 1 } as const;

/**
 * Measure pools beside each other.
 *
 * @param names of the pools; the others are compared with the first
 * @throws AtlasError if a pool cannot serve; Error if runs differ
 */
export async function measurePools(
  names: readonly string[],
  { turns = 5, runs = 5 }: { turns?: number; runs?: number } = {},
): Promise<PoolCost[]> {
  const folder = await mkdtemp(join(tmpdir(), "atlas-bench-pools-"));
  process.env.ATLAS_POOL_FOLDER ??= join(folder, "tokens");
  const { signal } = new AbortController();
  const worker = { device: "cpu", threads: 1 };
  const pools: Pool[] = [];
  const found = names.map((pool): PoolCost => ({ pool, acquire: [], runs: [], addedSeconds: 0 }));
  const answers = new Set<string>();
  const timed = async (work: () => Promise<unknown>) => {
    const start = performance.now();
    await work();
    return (performance.now() - start) / 1000;
  };
  const oneRun = async (slot: Slot) => {
    const { result } = await runExperiment(probe, GIVEN, {
      ...{ runs: join(folder, "runs"), seed: 0, slot: slot.run, worker },
      progress: new Progress({ quiet: true }),
    });
    answers.add(JSON.stringify(result.cosets));
  };
  try {
    for (const name of names) pools.push(await openPool(name, { worker, wanted: 1 }));
    for (let turn = 0; turn < turns; turn++)
      for (const i of order(names.length, turn)) {
        let slot: Slot | undefined;
        const seconds = await timed(async () => {
          slot = await pools[i]!.acquire(signal);
          await (await slot.run!.connect({ signal })).close();
        });
        found[i]!.acquire.push(seconds);
        await oneRun(slot!); // a warm-up
        const own: number[] = [];
        for (let run = 0; run < runs; run++) own.push(await timed(() => oneRun(slot!)));
        found[i]!.runs.push(median(own));
        await slot!.release(); // an idle worker of a job would end by itself
      }
    if (answers.size !== 1) throw new Error("the pools gave different results");
    for (const cost of found)
      cost.addedSeconds = median(cost.runs.map((seconds, turn) => seconds - found[0]!.runs[turn]!));
    return found;
  } finally {
    await Promise.all(pools.map((pool) => pool.close()));
    await rm(folder, { recursive: true, force: true });
  }
}

/** The indices of a turn: every second turn backwards, so that no pool is always the first. */
function order(count: number, turn: number): number[] {
  const indices = Array.from({ length: count }, (_, i) => i);
  return turn % 2 === 0 ? indices : indices.reverse();
}
