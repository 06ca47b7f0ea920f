/** What a sweep itself costs: many runs that compute nothing, on simulated slots. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { z } from "zod";
import { defineExperiment, task } from "../../src/experiment/define.js";
import type { Pool, Slot } from "../../src/pool/pool.js";
import { sweep } from "../../src/pool/sweep.js";
import type { Worker } from "../../src/worker/index.js";

export interface SweepCost {
  runs: number;
  slots: number;
  /** Seconds that a run sleeps. */
  each: number;
  /** Seconds from the plan to the report. */
  wall: number;
  /** Seconds that the runs alone take on the slots. */
  ideal: number;
  /** Milliseconds of this process's CPU for each run. */
  cpuPerRun: number;
  /** Milliseconds beyond the ideal time for each run. */
  overheadPerRun: number;
  /** Cores that this process used. */
  cores: number;
  /** Largest memory of this process, in bytes. */
  memory: number;
}

const sleeper = defineExperiment({
  name: "sleeper",
  summary: "Sleeps.",
  tasks: {
    only: task({
      summary: "Sleep.",
      config: { milliseconds: z.int().default(0), index: z.int().default(0) },
      async run(context, { milliseconds }) {
        await context.timed("sleep", () => sleep(milliseconds));
        const predictor = { loss: null, epochs: 0, source: "none" };
        return { task: "only", predictor, downstream: { metrics: { accuracy: context.seed } } };
      },
    }),
  },
});

/** A slot's worker, as far as a run without objects needs one. */
const worker = {
  info: { threads: 1, workerVersion: "simulated", versions: {}, devices: [] },
  address: "grpc://simulated:1",
  isPersistent: false,
  openSession: async () => ({ id: "s", device: "cpu" }),
  close: async () => {},
} as unknown as Worker;

/** Slots without workers. They check that no more than there are are taken. */
class SimulatedPool implements Pool {
  readonly place = "spawned";
  readonly name: string;
  private out = 0;
  constructor(readonly size: number) {
    this.name = `simulated:${size}`;
  }

  async acquire(): Promise<Slot> {
    expect(++this.out).to.be.at.most(this.size);
    const name = String(this.out);
    const run = { pool: this.name, name, connect: async () => worker };
    return { name, about: "", run, release: async () => void this.out-- };
  }

  async close(): Promise<void> {}
}

/**
 * Measure what a sweep costs.
 *
 * @throws if a run is lost or done twice
 */
export async function measureSweep(runs: number, slots: number, each = 0.2): Promise<SweepCost> {
  const folder = mkdtempSync(join(tmpdir(), "atlas-bench-sweep-"));
  let memory = 0;
  const watch = setInterval(() => {
    memory = Math.max(memory, process.memoryUsage.rss());
  }, 50);
  try {
    const seeds = Math.min(runs, 10);
    const grid = {
      milliseconds: Math.round(each * 1000),
      index: Array.from({ length: Math.ceil(runs / seeds) }, (_, i) => i),
      seed: Array.from({ length: seeds }, (_, i) => i),
    };
    const start = performance.now();
    const before = process.cpuUsage();
    const pool = new SimulatedPool(slots);
    const done = await sweep(sleeper, grid, { pool, runs: folder });
    const wall = (performance.now() - start) / 1000;
    const { user, system } = process.cpuUsage(before);
    const cpu = (user + system) / 1e6;
    expect(done.failed).to.equal(0);
    expect(new Set(done.runs.map(({ id }) => id)).size).to.equal(done.runs.length);
    for (const { path } of done.runs) {
      expect(existsSync(join(path, "result.json"))).to.equal(true);
      const log = readFileSync(join(path, "events.jsonl"), "utf8");
      expect(log.match(/"type":"(started|resumed)"/g)).to.have.length(1);
    }
    const ideal = (Math.ceil(done.runs.length / slots) * Math.round(each * 1000)) / 1000;
    return {
      ...{ runs: done.runs.length, slots, each, wall, ideal, memory, cores: cpu / wall },
      cpuPerRun: (cpu * 1000) / done.runs.length,
      overheadPerRun: ((wall - ideal) * 1000) / done.runs.length,
    };
  } finally {
    clearInterval(watch);
    rmSync(folder, { recursive: true, force: true });
  }
}
