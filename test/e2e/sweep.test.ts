/** Sweeps: many runs of an experiment on a pool of workers, killed half-way and resumed. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import type { SweepSummary } from "../../src/pool/index.js";
import {
  apart,
  atlas,
  complaint,
  ends,
  essence,
  runs as isRunning,
  json,
  LONG,
  logged,
  refuses,
  sharedWorker,
  start,
  until,
  workersOf,
} from "./atlas.js";

/** A run of about a second. */
const SMALL = ["--samples", "512", "--candidates", "16", "--coset-epochs", "2"];
/** A run that lasts long enough to be killed, on any machine. */
const LONGER = ["--samples", "1024", "--candidates", "24", "--coset-epochs", "4"];

describe("atlas sweep", function () {
  this.timeout(LONG);
  let cwd = "";
  before(() => {
    cwd = mkdtempSync(join(tmpdir(), "atlas-sweep-"));
  });
  after(() => rmSync(cwd, { recursive: true, force: true }));

  const sweepsIn = (folder: string) => {
    const path = join(cwd, folder, "sweeps");
    return existsSync(path) ? readdirSync(path) : [];
  };
  const runsIn = (folder: string) =>
    readdirSync(join(cwd, folder))
      .filter((name) => name !== "sweeps")
      .sort()
      .map((name) => join(cwd, folder, name));
  /** Whether a run has a checkpoint. */
  const began = (run: string) =>
    existsSync(join(run, "events.jsonl")) && logged(run, "epoch").length > 0;

  it("survives kill -9 of a worker and of itself, and gives the bits of the runs alone", async () => {
    const given = ["probe", "rotation", "d4", ...LONGER, "--seed", "0..2", "--runs", "killed"];
    const sweep = start(["sweep", ...given, "--pool", "local:2", "--threads", "1"], { cwd });
    const checkpoints = () =>
      sweepsIn("killed").length === 0 ? 0 : runsIn("killed").filter(began).length;
    await until(() => checkpoints() >= 2, "both slots have a run with a checkpoint");
    const [id] = sweepsIn("killed") as [string];
    const first = workersOf(sweep.pid);
    expect(first).to.have.length(2);
    process.kill(first[0]!, "SIGKILL");
    await sweep.says(/slot \d is lost, run \S+ goes on in another/);
    await until(
      () => workersOf(sweep.pid).some((pid) => !first.includes(pid)),
      "the slot is replaced",
    );
    const workers = [...first, ...workersOf(sweep.pid)];
    sweep.kill("SIGKILL");
    await sweep.done;
    for (const pid of workers) await ends(pid);

    const states = await json<SweepSummary>(["show", id, "--runs", "killed"], { cwd });
    expect(states.running).to.equal(false);
    expect(states.runs.map(({ status }) => status)).to.include("pending");
    const done = runsIn("killed").filter((run) => existsSync(join(run, "result.json")));
    const before = done.map((run) => readFileSync(join(run, "events.jsonl"), "utf8"));

    const resume = ["resume", id, "--runs", "killed", "--pool", "local:1"];
    const resuming = start(resume, { cwd });
    await until(() => workersOf(resuming.pid).length > 0, "the sweep goes on");
    complaint(await atlas(resume, { cwd }), 2); // another process works in it
    const { code, stdout, stderr } = await resuming.done;
    expect(code, stderr).to.equal(0);
    expect(stdout)
      .to.match(/^rotation +3\/3 +so\(3\)/m)
      .and.match(/^d4 +3\/3 +no generator/m);
    expect(done.map((run) => readFileSync(join(run, "events.jsonl"), "utf8"))).to.deep.equal(
      before,
    );

    const all = runsIn("killed");
    expect(all).to.have.length(6);
    for (const run of all) {
      expect(logged(run, "started"), run).to.have.length(1);
      expect(logged(run, "finished"), run).to.have.length(1);
      for (const { pool, slot } of logged(run, "worker"))
        expect([pool, slot].join(" ")).to.match(/^local:[12] [12]$/);
    }
    const again = await atlas(["resume", id, "--runs", "killed"], { cwd });
    expect(again.code, again.stderr).to.equal(0);

    const worker = ["--worker", await sharedWorker(), "--runs", "alone", "--quiet"];
    for (const [index, name] of [
      [0, "rotation"],
      [5, "d4"],
    ] as const) {
      const seed = String(index % 3);
      await atlas(["probe", name, ...LONGER, "--seed", seed, ...worker], { cwd });
      const alone = runsIn("alone").at(-1)!;
      expect(essence(all[index]!)).to.equal(essence(alone));
    }
    const report = readFileSync(join(cwd, "killed/sweeps", id, "report.html"), "utf8");
    expect(report).to.contain("mean generator 3").and.contain("seed 2");
  });

  it("goes on after a failure, tells it at once, and exits with 1", async () => {
    const file = join(cwd, "fails.ts");
    writeFileSync(
      file,
      `import { AtlasError, defineExperiment, task } from "atlas-symmetry";
       import { z } from "zod";
       const predictor = { loss: null, epochs: 0, source: "none" };
       export default defineExperiment({ name: "fails", summary: "Fails.", tasks: { only: task({
         summary: "Fails for an odd size.",
         config: { size: z.int().default(1), text: z.string().default("a") },
         async run(ctx, { size, text }) {
           if (size % 2 === 1 && text === "a") throw new AtlasError("odd size " + size);
           return { task: "only", predictor, downstream: { metrics: { accuracy: ctx.seed / 10 } } };
         } }) } });`,
    );
    const worker = ["--worker", await sharedWorker(), "--max-parallel", "2", "--runs", "failing"];
    const given = ["--size", "1..3", "--text", "a", "--text", "b,c", "--seed", "4,6"];
    const { code, stdout, stderr } = await atlas(["sweep", file, ...given, ...worker], { cwd });
    expect(code, stderr).to.equal(1);
    expect(stderr).to.match(/warning: run \S+ failed: odd size 1\n/);
    expect(stderr.trimEnd().split("\n").at(-1)).to.match(/^error: 4 of 12 runs failed; .*resume/);
    expect(stdout)
      .to.match(/^1 +a +0\/2 \(2 failed\)/m)
      .and.match(/^2 +b,c +2\/2 .* 0\.5 /m);

    const [id] = sweepsIn("failing") as [string];
    const csv = await atlas(["show", id, "--csv", "--runs", "failing"], { cwd });
    const [head, ...lines] = csv.stdout.trim().split("\n");
    expect(head).to.match(/^size,text,runs,finished,failed,.*accuracy_median/);
    expect(lines).to.have.length(6);
    expect(lines[1]).to.match(/^1,"b,c",2,2,0,/);
    const trusted = ["resume", id, "--trust-code", "--runs", "failing"];
    expect((await atlas(trusted, { cwd })).code).to.equal(1); // still odd
    for (const run of runsIn("failing"))
      expect(logged(run, "finished").length + logged(run, "failed").length).to.be.within(1, 2);

    const fast = ["sweep", file, "--size", "1", "--seed", "0..9", "--fail-fast"];
    const runs = ["--worker", await sharedWorker(), "--runs", "fast"];
    expect((await atlas([...fast, ...runs], { cwd })).code).to.equal(1);
    expect(runsIn("fast")).to.have.length(1);
  });

  it("plans without running, draws at random, and repeats", async () => {
    const { code, stdout } = await atlas(
      ["sweep", "probe", "d4", "lorentz", "--seed", "0..9", "--sample", "5", "--dry-run"],
      { cwd },
    );
    expect(code).to.equal(0);
    expect(stdout.trim().split("\n")).to.have.length(8);
    expect(stdout).to.match(/^5 runs, 1 at a time; no finished run/m);
    expect(existsSync(join(cwd, "runs"))).to.equal(false);

    const given = ["probe", "rotation", ...SMALL, "--seed", "7", "--repeat", "2"];
    const worker = ["--worker", await sharedWorker(), "--runs", "repeated"];
    const { runs, cells } = await json<SweepSummary>([...given, ...worker], { cwd });
    expect(runs.map(({ seed }) => seed)).to.deep.equal([7, 8]);
    expect(cells[0]!.agree).to.equal(2);
    expect(cells[0]!.mean!.name).to.equal("so(3)");
    const plan = await atlas([...["sweep", ...given, ...worker], "--dry-run"], { cwd });
    expect(plan.stdout).to.match(/about .* s, by 2 finished runs of the same settings/);
  });

  it("is stopped in order by a signal, and left in the background", async () => {
    const given = ["probe", "rotation", ...LONGER, "--seed", "0..3", "--pool", "local:1"];
    const left = await apart(["sweep", ...given, "--runs", "left", "--detach"], { cwd });
    expect(left.code, left.stderr).to.equal(0);
    const pid = Number(/^process +(\d+)/m.exec(left.stdout)![1]);
    await until(() => runsIn("left").some(began) || !isRunning(pid), "a run has a checkpoint");
    const workers = workersOf(pid);
    process.kill(pid, "SIGTERM");
    await ends(pid);
    for (const worker of workers) await ends(worker);
    const [id] = sweepsIn("left") as [string];
    const log = readFileSync(join(cwd, "left/sweeps", id, "log"), "utf8");
    expect(log).to.match(/^error: interrupted; .*atlas resume/m);
    const { runs } = await json<SweepSummary>(["show", id, "--runs", "left"], { cwd });
    for (const { status } of runs)
      expect(status).to.be.oneOf(["interrupted", "pending", "finished"]);
  });

  it("refuses in one line what it cannot run, and writes nothing", async () => {
    const probe = (...more: string[]) => ["sweep", "probe", "d4", ...more];
    await refuses(
      [
        [["sweep", "prob"], /no experiment "prob" \(did you mean probe\?\)/],
        [probe("--sed", "0..3"), /unknown option '--sed'/],
        [probe("--seed", "5..3"), /range is empty/],
        [probe("--seed", "0..9999999"), /10,000,000 runs/],
        [probe("--seed", "0,0"), /value 0 twice/],
        [["sweep", "probe", "d4", "zz"], /no probe "zz" \(in the cell name zz\)/],
        [probe("--pool", "moon:2"), /no pool "moon:2".*local:N.*--pool/],
        [probe("--pool", "local:0"), /slots is missing/],
        [probe("--pool", "local:100000"), /no room for 100000 workers/],
        [probe("--pool", "local:2", "--worker", "grpc://h:1"), /give one of them/],
        [probe("--seed", "0,1", "--repeat", "2"), /--repeat makes the seeds itself/],
        [probe("--sample", "0"), /--sample 0: expected a whole number/],
        [probe("--retries", "x"), /--retries x: expected a whole number/],
        [["probe", "--pool", "local:2"], /--pool has no effect on a single run/],
        [["runs", "remove", runsIn("failing")[0]!], /is not in \S*runs; .*--runs DIR/],
      ],
      { cwd },
    );
    await refuses([[probe("--worker", "grpc://127.0.0.1:1"), /nothing listens/]], { cwd }, 1);
  });

  it("refuses a sweep that was changed, or that another version planned", async () => {
    const folder = join(cwd, "changed/sweeps/s");
    const [id] = sweepsIn("failing") as [string];
    const text = readFileSync(join(cwd, "failing/sweeps", id, "sweep.json"), "utf8");
    const path = join(folder, "sweep.json");
    const tries: [string, RegExp][] = [
      [text.replace('"seed": 4', '"seed": 5'), /was changed after the sweep was planned/],
      [text.slice(0, 200), /is damaged/],
      ["{}", /is damaged: schema/],
    ];
    mkdirSync(folder, { recursive: true });
    for (const [wrong, line] of tries) {
      writeFileSync(path, wrong);
      expect(complaint(await atlas(["resume", folder], { cwd }), 2)).to.match(line);
    }
    const { Sweep } = await import("../../src/pool/folder.js");
    writeFileSync(path, text);
    const { hash: _, ...file } = (await Sweep.open(folder)).file;
    const older = { ...file, id: "older", versions: { ...file.versions, atlas: "0.0.1" } };
    const made = await Sweep.create(join(cwd, "changed"), older);
    const said = complaint(await atlas(["resume", made.path, "--trust-code"], { cwd }), 2);
    expect(said).to.match(/planned by Atlas 0\.0\.1/);
  });
});
