/** Runs whose worker or orchestrator is killed, or that are interrupted, go on and end as if nothing had been. */
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
import { atlas, complaint, ends, json, start, until, workersOf } from "./atlas.js";

const COMMON = ["--atlas", "2", "--N", "8", "--fixed_seed", "--device", "cpu", "--threads", "1"];
/** Seconds long, with an epoch many times a second. */
const PAPER = [
  "pde",
  "--task=discover_algebra",
  "--solver=paper",
  "--predictor=wide",
  "--predictor_lr=0.01",
  "--epochs=48",
  ...COMMON,
];
const GRASSMANN = ["pde", "--task=discover_algebra", "--epochs=40", "--algebra_epochs=2", ...COMMON];

/** A result without what differs from run to run. */
function essence(text: string): string {
  const { timings, ...rest } = JSON.parse(text) as Record<string, unknown>;
  expect(timings).to.be.an("object");
  return JSON.stringify(rest, null, 2);
}

describe("resuming a run", function () {
  this.timeout(120_000);
  let dir: string;
  let undisturbed: { paper: string; grassmann: string };
  let count = 0;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-resume-"));
    const run = async (args: string[]) => {
      const runs = newRuns();
      const { code, stdout, stderr } = await atlas([...args, "--runs", runs, "--json"]);
      expect(code, stderr).to.equal(0);
      const file = readFileSync(join(only(runs), "result.json"), "utf8");
      expect(stdout).to.equal(file);
      return essence(file);
    };
    undisturbed = { paper: await run(PAPER), grassmann: await run(GRASSMANN) };
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const newRuns = () => join(dir, `runs-${++count}`);
  const only = (runs: string) => {
    const names = readdirSync(runs);
    expect(names).to.have.length(1);
    return join(runs, names[0]!);
  };
  const begin = (args: string[]) => {
    const runs = newRuns();
    return { runs, process: start([...args, "--runs", runs]) };
  };
  /** Finish a run and compare its result with an undisturbed one's. */
  async function finishes(run: string, kind: keyof typeof undisturbed): Promise<string> {
    const { code, stderr } = await atlas(["resume", run]);
    expect(code, stderr).to.equal(0);
    expect(essence(readFileSync(join(run, "result.json"), "utf8"))).to.equal(undisturbed[kind]);
    expect(readdirSync(run).sort()).to.deep.equal([
      "checkpoints",
      "config.json",
      "events.jsonl",
      "report.html",
      "result.json",
    ]);
    return stderr;
  }

  for (const [stage, args, kind] of [
    [/^predictor +5\/40/m, GRASSMANN, "grassmann"],
    [/^algebra +1\/2/m, GRASSMANN, "grassmann"],
    [/^predictor +5\/48/m, PAPER, "paper"],
  ] as const)
    it(`after kill -9 of the worker, once ${stage.source.replaceAll(/[^\w/]+/g, " ").trim()} is done (${kind})`, async () => {
      const { runs, process } = begin([...args]);
      await process.says(stage);
      // Epochs may follow one another faster than their checkpoints can be fetched; one has to be there.
      const events = join(only(runs), "events.jsonl");
      await until(() => readFileSync(events, "utf8").includes('"checkpoint"'), "a checkpoint");
      const [worker, ...others] = workersOf(process.pid);
      expect(others).to.deep.equal([]);
      globalThis.process.kill(worker!, "SIGKILL");
      const run = only(runs);
      expect(complaint(await process.done, 1)).to.match(
        /^error: the local worker ended \(killed by SIGKILL\).*memory.*; go on with: atlas resume \S+$/,
      );
      const { stdout } = await atlas(["show", run]);
      expect(stdout).to.match(/^status +failed \((predictor|algebra) \d+\/\d+: the local worker ended/m);
      const said = await finishes(run, kind);
      expect(said).to.match(/^predictor +restored at epoch \d+\/\d+$/m);
    });

  it("after kill -9 of the orchestrator, whose worker ends with it", async () => {
    const { runs, process } = begin(PAPER);
    await process.says(/^algebra +6\/48/m);
    const [worker] = workersOf(process.pid);
    process.kill("SIGKILL");
    await process.done;
    await ends(worker!, 5_000);
    const { stdout } = await atlas(["runs", "--runs", runs]);
    expect(stdout).to.match(/^\S+ +interrupted +seed 0 +(algebra|predictor) \d+\/48\n$/);
    await finishes(only(runs), "paper");
  });

  it("after Ctrl-C, which keeps the last checkpoint; and no two processes at once work in it", async () => {
    const { runs, process } = begin(PAPER);
    await process.says(/^predictor +3\/48/m);
    const run = only(runs);
    expect(complaint(await atlas(["resume", run]), 2)).to.match(
      /^error: process \d+ is working in .*; wait until it is done, or stop it$/,
    );
    const [worker] = workersOf(process.pid);
    process.kill("SIGINT");
    const done = await process.done;
    expect(complaint(done, 130)).to.match(
      /^error: interrupted; what was finished is kept in .*; go on with: atlas resume \S+$/,
    );
    expect(done.stderr).to.contain("stopping after the current step");
    await ends(worker!, 5_000);
    expect(readdirSync(join(run, "checkpoints"))).to.include("predictor.safetensors");
    await finishes(run, "paper");
  });

  it("after Ctrl-C twice, which does not wait", async () => {
    const { runs, process } = begin(PAPER);
    await process.says(/^algebra +2\/48/m);
    const [worker] = workersOf(process.pid);
    process.kill("SIGINT");
    await process.says(/Ctrl-C again/);
    process.kill("SIGINT");
    expect((await process.done).code).to.equal(130);
    await ends(worker!, 5_000);
    await finishes(only(runs), "paper");
  });

  describe("with damage", () => {
    let stopped: string;
    before(async () => {
      const { runs, process } = begin(PAPER);
      await process.says(/^algebra +8\/48/m);
      process.kill("SIGKILL");
      await process.done;
      stopped = only(runs);
    });
    const copy = () => {
      const run = join(newRuns(), "copy");
      cpSync(stopped, run, { recursive: true });
      return run;
    };

    it("to the log's last line and to checkpoints goes further back, says so, and ends the same", async () => {
      const run = copy();
      writeFileSync(join(run, "events.jsonl"), '{"type":"epoch","stage":"algebra","ep', { flag: "a" });
      const checkpoint = join(run, "checkpoints/algebra.safetensors");
      truncateSync(checkpoint, statSync(checkpoint).size - 7);
      const said = await finishes(run, "paper");
      expect(said).to.match(/^warning: checkpoint .*algebra\.safetensors is damaged .*: going back/m);
    });

    it("to all checkpoints begins anew, says so, and ends the same", async () => {
      const run = copy();
      for (const name of readdirSync(join(run, "checkpoints")))
        writeFileSync(join(run, "checkpoints", name), "junk");
      const said = await finishes(run, "paper");
      expect(said.match(/^warning: checkpoint .* is damaged/gm)).to.have.length(4);
    });

    it("to config.json is refused, and nothing is lost", async () => {
      const run = copy();
      for (const [config, why] of [
        ['{"schema": "atlas.config/1", ', /JSON/],
        ["{}", /schema/],
      ] as const) {
        writeFileSync(join(run, "config.json"), config);
        const before = readdirSync(run, { recursive: true });
        const line = complaint(await atlas(["resume", run]), 2);
        expect(line).to.match(
          /^error: .*config\.json is damaged: .*; start the run anew; .*--reuse_predictor/,
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
    const run = only(join(dir, "runs-1"));
    const file = join(run, "result.json");
    const before = {
      result: readFileSync(file, "utf8"),
      events: readFileSync(join(run, "events.jsonl"), "utf8"),
    };
    const { code, stdout, stderr } = await atlas(["resume", run, "--json"]);
    expect({ code, stdout }).to.deep.equal({ code: 0, stdout: before.result });
    expect(stderr).to.match(/^run \S+ is finished already; nothing to do\n$/);
    expect(readFileSync(join(run, "events.jsonl"), "utf8")).to.equal(before.events);
    expect(await json(["show", run])).to.deep.equal(JSON.parse(before.result));
    writeFileSync(file, before.result.slice(0, 100));
    expect(complaint(await atlas(["show", run]), 2)).to.match(/result\.json is damaged: .*; delete it, then/);
    rmSync(file);
    await finishes(run, "paper");
  });
});
