/**
 * Runs whose worker or orchestrator is killed, or that are interrupted, go on and end as if nothing
 * had been.
 */
import {
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import {
  apart,
  atlas,
  complaint,
  ends,
  essence,
  finish,
  json,
  LONG,
  only,
  sharedWorker,
  start,
  until,
  workersOf,
} from "./atlas.js";

const COMMON = ["--layout", "2", "--N", "8", "--fixed_seed", "--device", "cpu", "--threads", "1"];
/** Seconds long, with an epoch many times a second. */
const BY_TURNS = [
  "pde",
  "--task=discover_algebra",
  "--solver=atlasd",
  "--architecture=strided_cnn",
  "--predictor_lr=0.01",
  "--epochs=32",
  "--evidence=none", // the others have it
  ...COMMON,
];
const ONE_AFTER_THE_OTHER = [
  "pde",
  "--task=discover_algebra",
  "--epochs=40",
  "--algebra_epochs=8",
  ..."--solver.starts=2 --solver.steps=8 --solver.evaluation=2".split(" "),
  ...COMMON,
];

describe("resuming a run", function () {
  this.timeout(LONG);
  let dir: string;
  /** Folders of runs that nothing disturbed. */
  let undisturbed: { turns: string; stages: string };
  let count = 0;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-resume-"));
    const worker = ["--worker", await sharedWorker()];
    const run = async (args: string[]) => (await finish([...args, ...worker], newRuns())).path;
    undisturbed = { turns: await run(BY_TURNS), stages: await run(ONE_AFTER_THE_OTHER) };
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const said = (stage: RegExp) => stage.source.replaceAll(/[^\w/]+/g, " ").trim();
  const newRuns = () => join(dir, `runs-${++count}`);
  /** Start it with a worker of its own. */
  const begin = (args: string[]) => {
    const runs = newRuns();
    return { runs, process: start([...args, "--runs", runs]) };
  };
  /** Finish a run and compare its result with an undisturbed one's. */
  async function finishes(run: string, kind: keyof typeof undisturbed): Promise<string> {
    const { code, stderr } = await atlas(["resume", run, "--worker", await sharedWorker()]);
    isFinished(run, kind, { code, stderr });
    return stderr;
  }
  function isFinished(
    run: string,
    kind: keyof typeof undisturbed,
    { code, stderr }: { code: number | undefined; stderr: string },
  ): void {
    expect(code, stderr).to.equal(0);
    expect(essence(run)).to.equal(essence(undisturbed[kind]));
    expect(readdirSync(run).sort()).to.deep.equal([
      "checkpoints",
      "config.json",
      "events.jsonl",
      "report.html",
      "result.json",
    ]);
  }
  const copyOf = (run: string) => {
    const copy = join(newRuns(), "copy");
    cpSync(run, copy, { recursive: true });
    return copy;
  };

  for (const [stage, args, kind] of [
    [/^predictor +5\/40/m, ONE_AFTER_THE_OTHER, "stages"],
    [/^algebra +1\/8/m, ONE_AFTER_THE_OTHER, "stages"],
    [/^predictor +5\/32/m, BY_TURNS, "turns"],
  ] as const)
    it(`after kill -9 of the worker, once ${said(stage)} is done (${kind})`, async () => {
      const { runs, process } = begin([...args]);
      await process.says(stage);
      // Epochs may follow one another faster than their checkpoints can be fetched; one has to be
      // there.
      const events = join(only(runs), "events.jsonl");
      await until(() => readFileSync(events, "utf8").includes('"checkpoint"'), "a checkpoint");
      const [worker, ...others] = workersOf(process.pid);
      expect(others).to.deep.equal([]);
      globalThis.process.kill(worker!, "SIGKILL");
      const run = only(runs);
      expect(complaint(await process.done, 1)).to.match(
        /^error: the local worker ended \(killed by SIGKILL\).*memory.*: atlas resume \S+$/,
      );
      const { stdout } = await atlas(["show", run]);
      expect(stdout).to.match(
        /^status +failed \((predictor|algebra) \d+\/\d+: the local worker ended/m,
      );
      const said = await finishes(run, kind);
      expect(said).to.match(/^predictor +restored at epoch \d+\/\d+$/m);
    });

  it("after Ctrl-C, which keeps the last checkpoint; one process at a time works", async () => {
    const { runs, process } = begin(BY_TURNS);
    await process.says(/^predictor +3\/32/m);
    const run = only(runs);
    expect(complaint(await atlas(["resume", run]), 2)).to.match(
      /^error: process \d+ is working in .*; wait until it is done, or stop it$/,
    );
    const [worker] = workersOf(process.pid);
    process.kill("SIGINT");
    const done = await process.done;
    expect(complaint(done, 130)).to.match(
      /^error: interrupted; finished work is kept in .*; continue with: atlas resume \S+$/,
    );
    expect(done.stderr).to.contain("stopping after the current step");
    await ends(worker!);
    expect(readdirSync(join(run, "checkpoints"))).to.include("predictor.safetensors");
    await finishes(run, "turns");
  });

  it("after Ctrl-C twice, which does not wait", async () => {
    const { runs, process } = begin(BY_TURNS);
    await process.says(/^algebra +2\/32/m);
    const [worker] = workersOf(process.pid);
    process.kill("SIGINT");
    await process.says(/Ctrl-C again/);
    process.kill("SIGINT");
    expect((await process.done).code).to.equal(130);
    await ends(worker!);
    await finishes(only(runs), "turns");
  });

  describe("whose orchestrator is killed with -9", () => {
    let stopped: string;
    const checkpointsOf = (run: string) =>
      readdirSync(join(run, "checkpoints")).filter((name) => name.endsWith(".safetensors"));
    before(async () => {
      do {
        const { runs, process } = begin(BY_TURNS);
        await process.says(/^algebra +8\/32/m);
        const [worker] = workersOf(process.pid);
        process.kill("SIGKILL");
        await process.done;
        await ends(worker!); // with it
        stopped = only(runs);
        // One is missing if the kill came between the two renames of a save. The tests damage them
        // all, and so need one that came at another time.
      } while (checkpointsOf(stopped).length < 4);
    });

    it("between the renames of a save goes on from the checkpoint before", async () => {
      const run = copyOf(stopped);
      rmSync(join(run, "checkpoints/algebra.safetensors"));
      await finishes(run, "turns");
    });

    it("goes on where it was, with a worker of its own again", async () => {
      const run = copyOf(stopped);
      const { stdout } = await atlas(["runs", "--runs", join(run, "..")]);
      expect(stdout).to.match(/^\S+ +interrupted +seed 0 +(algebra|predictor) \d+\/32\n$/);
      const done = await apart(["resume", run]);
      isFinished(run, "turns", done);
      expect(done.stderr).to.match(/^predictor +restored at epoch \d+\/32$/m);
    });

    it("with damage to log and checkpoints goes further back, and ends the same", async () => {
      const run = copyOf(stopped);
      writeFileSync(join(run, "events.jsonl"), '{"type":"epoch","stage":"algebra","ep', {
        flag: "a",
      });
      const checkpoint = join(run, "checkpoints/algebra.safetensors");
      truncateSync(checkpoint, statSync(checkpoint).size - 7);
      const said = await finishes(run, "turns");
      expect(said).to.match(
        /^warning: checkpoint .*algebra\.safetensors is damaged .*: going back/m,
      );
    });

    it("with damage to all checkpoints begins anew, says so, and ends the same", async () => {
      const run = copyOf(stopped);
      for (const name of checkpointsOf(run)) writeFileSync(join(run, "checkpoints", name), "junk");
      const said = await finishes(run, "turns");
      expect(said.match(/^warning: checkpoint .* is damaged/gm)).to.have.length(4);
    });

    it("with damage to config.json is refused, and nothing is lost", async () => {
      const run = copyOf(stopped);
      for (const [config, why] of [
        ['{"schema": "atlas.config/1", ', /JSON/],
        ["{}", /schema/],
      ] as const) {
        writeFileSync(join(run, "config.json"), config);
        const before = readdirSync(run, { recursive: true });
        const line = complaint(await atlas(["resume", run]), 2);
        expect(line).to.match(
          /^error: .*config\.json is damaged: .*; start the run anew; .*--reuse-predictor FILE$/,
        );
        expect(line).to.match(why);
        expect(readdirSync(run, { recursive: true })).to.deep.equal(before);
      }
      const { stdout, stderr } = await atlas(["runs", "--runs", join(run, "..")]);
      expect(stdout).to.match(/^no runs in /);
      expect(stderr).to.match(/^warning: .*config\.json is damaged/);
    });
  });

  it("that is finished prints its result again, and changes nothing", async () => {
    const run = copyOf(undisturbed.turns);
    const file = join(run, "result.json");
    const before = {
      result: readFileSync(file, "utf8"),
      events: readFileSync(join(run, "events.jsonl"), "utf8"),
    };
    const { code, stdout, stderr } = await atlas(["resume", run, "--json"]);
    expect({ code, stdout }).to.deep.equal({ code: 0, stdout: before.result });
    expect(stderr).to.match(/^run \S+ is finished; nothing to do\n$/);
    expect(readFileSync(join(run, "events.jsonl"), "utf8")).to.equal(before.events);
    expect(await json(["show", run])).to.deep.equal(JSON.parse(before.result));
    writeFileSync(file, before.result.slice(0, 100));
    expect(complaint(await atlas(["show", run]), 2)).to.match(
      /result\.json is damaged: .*; delete it, then/,
    );
    rmSync(file);
    await finishes(run, "turns");
  });
});
