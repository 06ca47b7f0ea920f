/**
 * What can befall a run, one after the other, by real processes: how long until it goes on, and
 * what is lost. Linux; disks that are full want root, clocks that jump want libfaketime, and where
 * these are not there the row says so.
 */
import {
  appendFileSync,
  cpSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { execaSync } from "execa";
import { errorCode } from "../../src/run/atomic.js";
import { n, type Row } from "../benchmark-parts.js";
import {
  apart,
  complaint,
  type Done,
  ends,
  epochs,
  logged,
  mountTmpfs,
  workersOf,
} from "../e2e/atlas.js";
import { measureClock } from "./clock.js";
import { did, type GoneOn, Ground, goOn, LONG_RUN, repeated } from "./runs.js";
import { measureSlow } from "./slow.js";

/** Every stage has epochs to be killed between; the dataset takes long enough to be killed in. */
const RUN = [
  ..."pde --task=discover --layout=2 --N=300 --batch_size=50 --epochs=10 --algebra_epochs=3".split(
    " ",
  ),
  ..."--coset_epochs=3 --candidates=2 --fixed-seed --device=cpu --threads=1".split(" "),
];
/** When a stage is killed in the middle of it. */
const MIDST: Readonly<Record<string, (run: string) => boolean>> = {
  dataset: (run) => logged(run, "worker").length > 0,
  predictor: did("predictor 5"),
  algebra: did("algebra 1"),
  cosets: did("cosets 1"),
};

export interface Fault {
  fault: string;
  /** Seconds from the fault's end until it goes on; undefined where it was not stopped. */
  backAfter?: number;
  /** What is lost, and how it goes on; or why it was not tried. */
  lost: string;
  failed?: boolean;
}

/** What befalls it, by name. */
export type Trials = Readonly<Record<string, () => Promise<Omit<Fault, "fault">>>>;

/** @param only some of "killed", "damaged", "full", "slow", "clock" (default: all) */
export function measureFaults(only?: readonly string[]): Promise<Fault[]> {
  return Ground.lend(async (ground) => {
    const kinds: Record<string, (undisturbed: () => Promise<string>) => Trials> = {
      killed: (undisturbed) => killed(ground, undisturbed),
      damaged: (undisturbed) => damaged(ground, undisturbed),
      full: (undisturbed) => full(ground, undisturbed),
      slow: () => measureSlow(ground),
      clock: () => measureClock(ground),
    };
    const unknown = only?.find((kind) => !(kind in kinds));
    if (unknown !== undefined)
      throw new Error(
        `there are no faults ${unknown}; choose from ${Object.keys(kinds).join(", ")}`,
      );
    let finished: Promise<string> | undefined;
    const undisturbed = () => {
      finished ??= ground.undisturbed(RUN);
      return finished;
    };
    const found: Fault[] = [];
    for (const [kind, trials] of Object.entries(kinds)) {
      if (only && !only.includes(kind)) continue;
      for (const [fault, trial] of Object.entries(trials(undisturbed))) {
        process.stderr.write(`soak: ${fault}\n`);
        found.push({ fault, ...(await trial().catch(failure)) });
        await ground.clear();
      }
    }
    return found;
  });
}

export const faultRows = (faults: readonly Fault[]): Row[] =>
  faults.map(({ fault, backAfter, lost, failed }) => [
    fault,
    failed ? "failed" : backAfter === undefined ? "" : `${n(backAfter)} s`,
    lost,
  ]);

function failure(error: unknown): Omit<Fault, "fault"> {
  return { lost: String(error).replaceAll(/\s+/g, " ").slice(0, 500), failed: true };
}

/** A run that has gone on, as a row tells of it. */
function recovered({ backAfter, by }: GoneOn, again: number): Omit<Fault, "fault"> {
  const redone = again === 0 ? "" : `; ${again} epoch${again === 1 ? "" : "s"} computed again`;
  return { backAfter, lost: `nothing${redone} (atlas ${by.join(", then ")})` };
}

/** What a run says that was ended by a fault of its surroundings. */
const stopped = (done: Done) => ({ stderr: done.stderr, hint: complaint(done, 1) });

function killed(ground: Ground, undisturbed: () => Promise<string>): Trials {
  const inStage = ([stage, there]: [string, (typeof MIDST)[string]]) => [
    `local worker killed (-9) in ${stage}`,
    async () => {
      const wanted = await undisturbed();
      const { process, run } = await ground.begin(RUN, there);
      globalThis.process.kill(workersOf(process.pid)[0]!, "SIGKILL");
      const since = performance.now();
      const done = await process.done;
      if (stage === "dataset") expect(epochs(run)).to.deep.equal([]);
      const gone = await goOn(ground, run, stopped(done), since);
      return recovered(gone, repeated(run, wanted));
    },
  ];
  return {
    ...Object.fromEntries(Object.entries(MIDST).map(inStage)),

    "worker of one's own killed (-9), and started again": async () => {
      const wanted = await undisturbed();
      const { address, port, pid } = await ground.startWorker();
      const { process, run } = await ground.begin([...RUN, "--worker", address], MIDST.predictor!);
      globalThis.process.kill(pid, "SIGKILL");
      await ends(pid);
      await ground.restartWorker(port);
      const since = performance.now();
      const gone = await goOn(ground, run, stopped(await process.done), since);
      return recovered(gone, repeated(run, wanted));
    },

    "worker of one's own killed (-9) that a checkpoint is asked of": async () => {
      const first = await ground.startWorker();
      const args = [...LONG_RUN, "--worker", first.address];
      const wanted = await ground.undisturbed(args);
      const { process, run } = await ground.begin(args, MIDST.predictor!);
      // It falls behind, then asks a worker that does not answer any more.
      process.kill("SIGSTOP");
      await sleep(300);
      globalThis.process.kill(first.pid, "SIGSTOP");
      process.kill("SIGCONT");
      await sleep(300);
      globalThis.process.kill(first.pid, "SIGKILL");
      await ends(first.pid);
      await ground.restartWorker(first.port);
      const since = performance.now();
      const gone = await goOn(ground, run, stopped(await process.done), since);
      return recovered(gone, repeated(run, wanted));
    },

    "orchestrator killed (-9), worker local": async () => {
      const wanted = await undisturbed();
      const { process, run } = await ground.begin(RUN, MIDST.predictor!);
      const [worker] = workersOf(process.pid);
      process.kill("SIGKILL");
      const since = performance.now();
      const { stderr } = await process.done;
      const gone = await goOn(ground, run, { stderr, hint: `atlas resume ${run}` }, since);
      await ends(worker!);
      return recovered(gone, repeated(run, wanted));
    },

    "orchestrator killed (-9), worker of one's own": async () => {
      const wanted = await undisturbed();
      const { address } = await ground.startWorker();
      const { process, run } = await ground.begin([...RUN, "--worker", address], MIDST.predictor!);
      process.kill("SIGKILL");
      const since = performance.now();
      const { stderr } = await process.done;
      const gone = await goOn(ground, run, { stderr, hint: `atlas attach ${run}` }, since);
      expect(epochs(run)).to.deep.equal(epochs(wanted));
      return recovered(gone, repeated(run, wanted));
    },
  };
}

/** A run whose process was killed in the middle of its predictor. */
async function interrupted(ground: Ground): Promise<{ run: string; stderr: string }> {
  const { process, run } = await ground.begin(RUN, MIDST.predictor!);
  process.kill("SIGKILL");
  const { stderr } = await process.done;
  return { run, stderr };
}

function damaged(ground: Ground, undisturbed: () => Promise<string>): Trials {
  return {
    "byte of a checkpoint changed": async () => {
      const wanted = await undisturbed();
      const { run, stderr } = await interrupted(ground);
      const path = join(run, "checkpoints/predictor.safetensors");
      const bytes = readFileSync(path);
      bytes[bytes.length >> 1]! ^= 1;
      writeFileSync(path, bytes);
      const gone = await goOn(
        ground,
        run,
        { stderr, hint: `atlas resume ${run}` },
        performance.now(),
      );
      expect(gone.said).to.match(/^warning: checkpoint \S+ is damaged .*: going back before it$/m);
      const again = repeated(run, wanted);
      expect(again).to.be.above(0);
      return recovered(gone, again);
    },
  };
}

function full(ground: Ground, undisturbed: () => Promise<string>): Trials {
  const NO_SPACE =
    /no space is left on its disk; free some space; continue with: atlas resume \S+$/;
  return {
    "disk full under the runs": () =>
      mounted(join(ground.dir, "disk"), "16m", async (disk) => {
        const wanted = await undisturbed();
        const { process, run } = await ground.begin(RUN, MIDST.predictor!, { runs: disk });
        const filler = join(disk, ".filler");
        fill(filler);
        const end = stopped(await process.done);
        expect(end.hint).to.match(NO_SPACE);
        rmSync(filler);
        const gone = await goOn(ground, run, end, performance.now());
        return recovered(gone, repeated(run, wanted));
      }),

    "disk full under the checkpoints": async () => {
      const wanted = await undisturbed();
      const { run } = await interrupted(ground);
      const checkpoints = join(run, "checkpoints");
      const kept = join(ground.dir, "kept");
      cpSync(checkpoints, kept, { recursive: true });
      // Room for the two that are there, and for half of another.
      const size = statSync(join(kept, "predictor.safetensors")).size * 2.5;
      return mounted(checkpoints, String(Math.round(size)), async () => {
        cpSync(kept, checkpoints, { recursive: true });
        const end = stopped(await apart(["resume", run], ground.where));
        expect(end.hint).to.match(NO_SPACE);
        execaSync("mount", ["-o", "remount,size=16m", checkpoints]);
        const gone = await goOn(ground, run, end, performance.now());
        return recovered(gone, repeated(run, wanted));
      });
    },
  };
}

/** On a small disk of its own, where that may be mounted. */
async function mounted(
  path: string,
  size: string,
  work: (path: string) => Promise<Omit<Fault, "fault">>,
): Promise<Omit<Fault, "fault">> {
  mkdirSync(path, { recursive: true });
  const unmount = mountTmpfs(path, `size=${size}`);
  if (!unmount) return { lost: "not tried: only root may mount a small disk" };
  try {
    return await work(path);
  } finally {
    unmount();
  }
}

/** Take all the room that a disk has. */
function fill(path: string): void {
  try {
    for (;;) appendFileSync(path, Buffer.alloc(2 ** 16));
  } catch (error) {
    if (errorCode(error) !== "ENOSPC") throw error;
  }
}
