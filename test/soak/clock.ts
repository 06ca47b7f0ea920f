/**
 * The clock on the wall of both a run and its worker is set, by libfaketime, in the middle of it.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import type { Result } from "../../src/result.js";
import { writeFileAtomic } from "../../src/run/atomic.js";
import { connectWorker } from "../../src/worker/index.js";
import { epochs, logged, until } from "../e2e/atlas.js";
import type { Trials } from "./faults.js";
import { did, type Ground, LONG_RUN, repeated, said } from "./runs.js";

const LIBRARY = [
  "/usr/lib",
  "/usr/lib64",
  "/usr/local/lib",
  `/usr/lib/${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux-gnu`,
]
  .map((folder) => join(folder, "faketime/libfaketimeMT.so.1"))
  .find(existsSync);
const DAY_MS = 86_400_000;
/** Longer than it takes a worker to look for leases that have ended. */
const LEASES_MS = 6_000;

export function measureClock(ground: Ground): Trials {
  return {
    "clock of run and worker set forward by a day": () => jump(ground, 1),
    "clock of run and worker set back by a day": () => jump(ground, -1),
  };
}

async function jump(ground: Ground, days: number): Promise<{ backAfter?: number; lost: string }> {
  if (LIBRARY === undefined) return { lost: "not tried: no libfaketime" };
  const clock = join(ground.dir, "clock");
  await writeFileAtomic(clock, "+0d");
  const env = {
    LD_PRELOAD: LIBRARY,
    FAKETIME_TIMESTAMP_FILE: clock,
    FAKETIME_NO_CACHE: "1",
    DONT_FAKE_MONOTONIC: "1",
    NO_FAKE_STAT: "1", // the times of files are what they are
  };
  const worker = await ground.startWorker([], env);
  const args = [...LONG_RUN, "--worker", worker.address];
  const wanted = await ground.undisturbed(args);
  const other = await connectWorker({ worker: worker.address });
  try {
    const leased = await other.openSession({ device: "cpu" });
    const begun = performance.now();
    const { process, run } = await ground.begin(args, did("predictor 5"), { env });
    const known = epochs(run).length;
    await writeFileAtomic(clock, `${days > 0 ? "+" : ""}${days}d`);
    const since = performance.now();
    await until(() => epochs(run).length > known, "the run goes on");
    const backAfter = (performance.now() - since) / 1000;
    const { code, stderr } = await process.done;
    expect(code, stderr.trimEnd().split("\n").at(-1)).to.equal(0);
    const took = (performance.now() - begun) / 1000;

    expect(epochs(run)).to.deep.equal(epochs(wanted));
    expect(repeated(run, wanted)).to.equal(0);
    const { timings } = JSON.parse(readFileSync(join(run, "result.json"), "utf8")) as Result;
    for (const seconds of [
      ...logged(run, "epoch").map((e) => e.seconds as number),
      ...Object.values(timings),
    ])
      expect(seconds).to.be.within(0, took);
    // Both have seen it.
    const logs = [
      logged(run, "epoch").map(({ time }) => Date.parse(time as string)),
      said(worker, /^(running|succeeded): predictor-/)
        .slice(-2)
        .map(({ time }) => time),
    ];
    for (const times of logs)
      expect(times.slice(1).map((time, i) => Math.round((time - times[i]!) / DAY_MS))).to.include(
        days,
      );

    await sleep(LEASES_MS);
    expect((await other.attachSession(leased.id)).id).to.equal(leased.id);
    return {
      backAfter,
      lost: "nothing; the session that another client had leased is still there",
    };
  } finally {
    await other.close();
  }
}
