import { execFileSync, spawn } from "node:child_process";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { appendFile, readFile, rename, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import fc from "fast-check";
import { FileError, UsageError } from "../../../src/errors.js";
import { writeFileAtomic } from "../../../src/run/atomic.js";
import { EventLog, readEvents } from "../../../src/run/events.js";
import { findRun, listRuns, Run, RunFolder } from "../../../src/run/folder.js";
import { acquireLock, lockHolder } from "../../../src/run/lock.js";
import { isAlive } from "../../../src/setup/lock.mjs";

const SPEC = {
  experiment: "pde",
  seed: 3,
  config: { task: "discover", epochs: 2 },
  worker: { address: "local", device: "cpu" },
  versions: { atlas: "0.1.0" },
};
const epoch = (n: number) => ({ epoch: n, totalEpochs: 9, metrics: { loss: 1 / n }, seconds: n });

/** What a promise is rejected with. */
async function rejection(promise: Promise<unknown>): Promise<Error> {
  try {
    await promise;
  } catch (error) {
    return error as Error;
  }
  throw new Error("expected a rejection");
}

describe("run folder", () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-runs-"));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  describe("atomic writes", () => {
    it("leave the former contents and no debris when the write fails half-way", async () => {
      const path = join(dir, "f");
      await writeFileAtomic(path, "old");
      await rejection(writeFileAtomic(path, "new", () => Promise.reject(new Error("killed"))));
      expect(readFileSync(path, "utf8")).to.equal("old");
      expect(readdirSync(dir)).to.deep.equal(["f"]);
    });

    it("name the folder, the reason and the remedy when it cannot be written to", async () => {
      writeFileSync(join(dir, "file"), "");
      const error = await rejection(RunFolder.create(join(dir, "file"), SPEC));
      expect(error).to.be.instanceOf(FileError);
      expect(error.message).to.match(
        /cannot create .*file.*: (a part of its path is a file|something that is not a folder)/,
      );
      expect((error as FileError).elsewhere).to.equal(true);
      expect((error as FileError).remedy).to.match(/another folder$/);
    });

    it("keep to the mode that was asked for", async () => {
      const path = join(dir, "secret");
      await writeFileAtomic(path, "x", undefined, 0o600);
      expect(statSync(path).mode & 0o777).to.equal(0o600);
    });

    it("say that there is a folder in the file's place", async () => {
      const error = await rejection(writeFileAtomic(dir, "x"));
      expect(error).to.be.instanceOf(FileError).and.include({ elsewhere: false });
      expect(error.message).to.contain(dir);
    });

    it("explain a read-only file system", async () => {
      const error = await rejection(RunFolder.create("/proc/atlas-runs", SPEC));
      expect(error).to.be.instanceOf(FileError);
      expect(error.message).to.contain("/proc/atlas-runs");
    });
  });

  describe("when the disk is full", () => {
    it("keeps the last checkpoint and leaves no half line in the log", async function () {
      this.timeout(20_000);
      // A real limit on file size in a real process: 4 blocks of 1 KiB, so that the second checkpoint does not fit.
      const script = `
        import { RunFolder } from ${JSON.stringify(new URL("../../../src/run/folder.ts", import.meta.url).href)};
        process.on("SIGXFSZ", () => {});
        const run = await RunFolder.create(${JSON.stringify(dir)}, ${JSON.stringify(SPEC)});
        await run.saveCheckpoint("predictor", new Uint8Array(1000).fill(1), ${JSON.stringify(epoch(1))});
        await run.saveCheckpoint("predictor", new Uint8Array(9000).fill(2), ${JSON.stringify(epoch(2))})
          .catch((e) => console.log(e.name + ": " + e.message + "; " + e.remedy));
        await run.close();`;
      const file = join(dir, "full.mts");
      writeFileSync(file, script);
      const cwd = new URL("../../..", import.meta.url);
      const out = execFileSync("bash", ["-c", `ulimit -f 4; exec node --import tsx ${file}`], {
        cwd,
        encoding: "utf8",
        env: { ...process.env, TSX_DISABLE_CACHE: "1" },
      });
      expect(out).to.match(
        /^NoSpaceError: cannot write .*predictor\.safetensors: .*limit.*; raise/,
      );
      const run = await findRun(dir, "latest");
      expect((await run.checkpoint("predictor"))?.epoch).to.equal(1);
      expect((await readEvents(run.eventsPath)).damaged).to.equal(0);
    });
  });

  describe("events", () => {
    it("survive a line torn at any byte: all whole lines are read, and the next append follows them", async () => {
      const path = join(dir, "events.jsonl");
      const log = await EventLog.open(path);
      for (let i = 1; i <= 4; i++) await log.append({ type: "warning", message: `é${i}` });
      await log.close();
      const whole = await readFile(path);
      const ends = [...whole.keys()].filter((i) => whole[i] === 0x0a).map((i) => i + 1);
      await fc.assert(
        fc.asyncProperty(fc.integer({ min: 0, max: whole.length }), async (cut) => {
          await writeFile(path, whole.subarray(0, cut));
          const survivors = ends.filter((end) => end <= cut).length;
          expect((await readEvents(path)).events).to.have.length(survivors);
          const again = await EventLog.open(path);
          await again.append({ type: "finished" });
          await again.close();
          const { events, damaged } = await readEvents(path);
          expect(events.map((e) => e.type)).to.deep.equal([
            ...Array(survivors).fill("warning"),
            "finished",
          ]);
          expect(damaged).to.equal(0);
        }),
        { numRuns: 40 },
      );
    });

    it("skip and count a damaged line in the middle", async () => {
      const path = join(dir, "events.jsonl");
      const log = await EventLog.open(path);
      await log.append({ type: "finished" });
      await log.close();
      await appendFile(path, 'not json\n{"type":"no such event"}\n');
      const { events, damaged } = await readEvents(path);
      expect([events.length, damaged]).to.deep.equal([1, 2]);
    });
  });

  describe("checkpoints", () => {
    const saved = async (...epochs: number[]) => {
      const run = await RunFolder.create(dir, SPEC);
      for (const n of epochs)
        await run.saveCheckpoint("algebra", Buffer.from(`state ${n}`), epoch(n));
      return run;
    };
    const read = async (run: Run, max?: number) => {
      const warnings: string[] = [];
      const found = await run.checkpoint("algebra", (w) => warnings.push(w), max);
      return { found, warnings, text: found && Buffer.from(found.bytes).toString() };
    };

    it("give back the newest, its metrics, and the time of all its epochs", async () => {
      const run = await saved(1, 2, 3);
      const { found, warnings, text } = await read(run);
      expect([text, found?.epoch, found?.metrics.loss, found?.seconds]).to.deep.equal([
        "state 3",
        3,
        1 / 3,
        6,
      ]);
      expect(warnings).to.deep.equal([]);
      await run.close();
    });

    it("fall back to the one before, and say so, when the newest is damaged or missing", async () => {
      const run = await saved(1, 2);
      await writeFile(run.checkpointPath("algebra"), "stat");
      const { text, warnings } = await read(run);
      expect(text).to.equal("state 1");
      expect(warnings).to.have.length(1);
      expect(warnings[0]).to.contain(run.checkpointPath("algebra")).and.contain("damaged");
      rmSync(run.checkpointPath("algebra"));
      expect((await read(run)).text).to.equal("state 1");
      await run.close();
    });

    it("never let a damaged file take the place of the good one before it", async () => {
      const run = await saved(1, 2);
      await run.close();
      await writeFile(run.checkpointPath("algebra"), "damaged");
      const again = await RunFolder.resume(run.path);
      await read(again);
      await again.saveCheckpoint("algebra", Buffer.from("state 2 again"), epoch(2));
      expect(readFileSync(again.checkpointPath("algebra", true), "utf8")).to.equal("state 1");
      expect((await read(again)).text).to.equal("state 2 again");
      await again.close();
    });

    it("are none when both are damaged", async () => {
      const run = await saved(1, 2);
      for (const previous of [false, true])
        await writeFile(run.checkpointPath("algebra", previous), "x");
      const { found, warnings } = await read(run);
      expect(found).to.equal(undefined);
      expect(warnings).to.have.length(2);
      await run.close();
    });

    it("can be asked for up to an epoch", async () => {
      const run = await saved(1, 2, 3);
      expect((await read(run, 2)).text).to.equal("state 2");
      expect((await read(run, 1)).text).to.equal(undefined);
      await run.close();
    });

    it("are good at every moment of a save: killed between any two steps, a good one is found", async () => {
      const run = await saved(1, 2);
      // Killed after the rotation, before the new file took its place.
      await rename(run.checkpointPath("algebra"), run.checkpointPath("algebra", true));
      expect((await read(run)).text).to.equal("state 2");
      // Killed after the log had the new checksum, before the rotation.
      await run.append({
        type: "epoch",
        stage: "algebra",
        ...epoch(3),
        checkpoint: { sha256: "0".repeat(64), bytes: 1 },
      });
      expect((await read(run)).found?.epoch).to.equal(2);
      await run.close();
    });

    it("leave no partial files after a resume", async () => {
      const run = await saved(1);
      await run.close();
      await writeFile(join(run.path, "checkpoints", ".algebra.safetensors.12ab.partial"), "half");
      await (await RunFolder.resume(run.path)).close();
      expect(readdirSync(join(run.path, "checkpoints"))).to.deep.equal(["algebra.safetensors"]);
    });
  });

  describe("lock", () => {
    it("lets one process in, names it to the others, and opens again on release", async () => {
      const run = await RunFolder.create(dir, SPEC);
      expect(await run.status()).to.equal("running");
      const error = await rejection(RunFolder.resume(run.path));
      expect(error).to.be.instanceOf(UsageError);
      expect(error.message).to.contain(`process ${process.pid}`);
      await run.close();
      expect(await run.status()).to.equal("interrupted");
      await (await RunFolder.resume(run.path)).close();
    });

    it("takes over from a dead process, and from a later one with the same pid", async () => {
      const dead = Number(execFileSync("bash", ["-c", "echo $$"], { encoding: "utf8" }));
      for (const stale of [
        { pid: dead, host: hostname() },
        { pid: process.pid, host: hostname(), birth: "1" },
      ]) {
        writeFileSync(join(dir, "lock"), JSON.stringify(stale));
        expect(await lockHolder(dir)).to.equal(undefined);
        const lock = await acquireLock(dir);
        expect((await lockHolder(dir))?.pid).to.equal(process.pid);
        await lock.release();
      }
      expect(existsSync(join(dir, "lock"))).to.equal(false);
    });

    it("does not take over from another machine, and says what to do", async () => {
      writeFileSync(join(dir, "lock"), JSON.stringify({ pid: 1, host: "elsewhere" }));
      const error = await rejection(acquireLock(dir));
      expect(error.message).to.contain("process 1 on elsewhere");
      expect((error as UsageError).remedy).to.contain(join(dir, "lock"));
    });

    it("takes over a stale lock whose takeover somebody died in, even where the clock was set back since", async () => {
      const guard = join(dir, "lock.takeover.partial");
      for (const hours of [-1, 24]) {
        writeFileSync(join(dir, "lock"), JSON.stringify({ pid: 2 ** 22 + 1, host: hostname() }));
        writeFileSync(guard, "");
        const then = Date.now() / 1000 + 3600 * hours;
        utimesSync(guard, then, then);
        await (await acquireLock(dir)).release();
        expect(existsSync(guard)).to.equal(false);
      }
    });

    it("takes a damaged one for a dead process's", async () => {
      for (const text of ["", "{", "null", '{"pid":0,"host":"elsewhere"}', '{"pid":1}']) {
        writeFileSync(join(dir, "lock"), text);
        expect(await lockHolder(dir)).to.equal(undefined);
        await (await acquireLock(dir)).release();
      }
    });

    it("does not end what a dead process's lock names: a run may be a stranger's", async () => {
      const innocent = spawn("sleep", ["60"]);
      try {
        const child = { pid: innocent.pid };
        const stale = { pid: 2 ** 22 + 1, host: hostname(), child };
        writeFileSync(join(dir, "lock"), JSON.stringify(stale));
        await (await acquireLock(dir)).release();
        expect(isAlive({ pid: innocent.pid! })).to.equal(true);
      } finally {
        innocent.kill();
      }
    });

    it("lets exactly one of many through at once, over a stale lock", async () => {
      writeFileSync(join(dir, "lock"), JSON.stringify({ pid: 2 ** 22 + 1, host: hostname() }));
      const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => acquireLock(dir)));
      expect(outcomes.filter((o) => o.status === "fulfilled")).to.have.length(1);
    });
  });

  describe("finding runs", () => {
    const make = async () => {
      const run = await RunFolder.create(dir, SPEC);
      await run.close();
      return run;
    };

    it("by id, beginning, latest and path; never by a beginning of two", async () => {
      const first = await make();
      await new Promise((done) => setTimeout(done, 5));
      const second = await make();
      expect((await findRun(dir, first.id)).id).to.equal(first.id);
      expect((await findRun(dir, first.path)).id).to.equal(first.id);
      expect((await findRun(dir, "latest")).id).to.equal(second.id);
      const own = second.id.slice(0, [...second.id].findIndex((c, i) => c !== first.id[i]) + 1);
      expect((await findRun(dir, own)).id).to.equal(second.id);
      const error = await rejection(findRun(dir, first.id.slice(0, 4)));
      expect(error.message).to.contain("the beginning of 2 runs").and.contain(first.id);
    });

    it("says where it looked when there is none", async () => {
      const error = await rejection(findRun(dir, "nope"));
      expect(error).to.be.instanceOf(UsageError);
      expect(error.message).to.contain('no run "nope"').and.contain(dir);
      expect((error as UsageError).elsewhere).to.equal(true);
      expect((await rejection(findRun(dir, "latest"))).message).to.contain("no runs");
    });

    it("lists the others beside a torn config.json, and names the torn one", async () => {
      const good = await make();
      const torn = await make();
      const config = join(torn.path, "config.json");
      writeFileSync(config, readFileSync(config, "utf8").slice(0, 40));
      const { runs, damaged } = await listRuns(dir);
      expect(runs.map((run) => run.id)).to.deep.equal([good.id]);
      expect(damaged).to.have.length(1);
      expect(damaged[0]).to.contain(config).and.contain("damaged");
      expect(await rejection(Run.open(torn.path)))
        .to.be.instanceOf(FileError)
        .and.include({ reason: "damaged_config" });
    });

    it("names the field of a config.json that is not one", async () => {
      const run = await make();
      const config = join(run.path, "config.json");
      writeFileSync(config, JSON.stringify({ ...run.config, seed: "three" }));
      expect((await rejection(Run.open(run.path))).message).to.contain("seed");
    });
  });

  it("goes from interrupted to failed to finished", async () => {
    const run = await RunFolder.create(dir, SPEC);
    await run.close();
    const again = await RunFolder.resume(run.path);
    await again.append({ type: "failed", message: "the worker died" });
    await again.close();
    expect((await again.summary()).status).to.equal("failed");
    expect((await again.summary()).detail).to.contain("the worker died");
    const last = await RunFolder.resume(run.path);
    await last.writeResult({ answer: 42 });
    await last.close();
    expect(await last.status()).to.equal("finished");
    expect(await last.result()).to.deep.equal({ answer: 42 });
  });
});
