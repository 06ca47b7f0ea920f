/**
 * Runs that version 0.1 recorded, in the folder recorded/: how they are read, and gone on with.
 *
 * Two were killed with -9, in the middle of the predictor's training and of the solver's search;
 * one more while the solver `paper` took turns with the training. `finished/` is what version 0.1
 * made of a copy of them afterwards. Weights are compressed (.br). Machines are named otherwise
 * than they were.
 */
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync } from "node:zlib";
import { expect } from "chai";
import { execaSync } from "execa";
import { Result } from "../../src/result.js";
import {
  atlas,
  complaint,
  EPS,
  type Finished,
  finish,
  json,
  LONG,
  logged,
  sharedWorker,
  start,
} from "./atlas.js";

const RECORDED = fileURLToPath(new URL("recorded/", import.meta.url));
const killed = ["killed-in-predictor", "killed-in-solver", "killed-by-turns"] as const;
type Name = (typeof killed)[number] | "probe";

/** Steps of training and of search that a killed run has before it. */
const STEPS = {
  "killed-in-predictor": 3 * 4 + 2 * 60,
  "killed-in-solver": 60,
  "killed-by-turns": 3 * (4 + 4),
};
/**
 * The same processor gives the same bits. Others, and other builds of PyTorch, round otherwise,
 * which each further step carries on: with and without AVX by at most 5 roundings a step, with
 * AVX-512 of a newer Xeon by 67. Where the state of an optimiser is lost, the generators are off
 * by at least 270.
 */
const ROUNDINGS = 120;

describe("runs that version 0.1 recorded", function () {
  this.timeout(LONG);
  let dir: string;
  let here: string[];
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  let count = 0;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-recorded-"));
    where = { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state") } };
    here = ["--worker", await sharedWorker()];
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  /** A copy of one, in a folder of runs. @param as "finished": as version 0.1 finished it */
  function copy(name: Name, runs = join(dir, `runs-${++count}`), as?: "finished"): string {
    const { id } = JSON.parse(readFileSync(join(RECORDED, name, "config.json"), "utf8"));
    const run = join(runs, id);
    cpSync(join(RECORDED, name), run, { recursive: true });
    if (as !== undefined) cpSync(join(run, as), run, { recursive: true, force: true });
    rmSync(join(run, "finished"), { recursive: true, force: true });
    for (const file of readdirSync(run, { recursive: true }).map(String)) {
      if (!file.endsWith(".br")) continue;
      const bytes = brotliDecompressSync(readFileSync(join(run, file)));
      writeFileSync(join(run, file.slice(0, -3)), bytes);
      rmSync(join(run, file));
    }
    return run;
  }
  const recordedResult = (name: Name) =>
    Result.parse(JSON.parse(readFileSync(join(RECORDED, name, "result.json"), "utf8")));
  const finishedResult = (name: Name) =>
    recordedResult(`${name === "killed-in-predictor" ? killed[1] : name}/finished` as Name);

  /** Every number of a finished run is that of version 0.1, up to rounding. */
  function isSame(run: string, name: (typeof killed)[number]): void {
    const result = Result.parse(JSON.parse(readFileSync(join(run, "result.json"), "utf8")));
    const wanted = finishedResult(name);
    const limit = ROUNDINGS * STEPS[name] * EPS;
    const close = (what: string, got: number | null, want: number | null, size = want) =>
      expect((got! - want!) / size!, what).to.be.within(-limit, limit);
    const [a, b] = [result.algebra!, wanted.algebra!];
    const size = Math.hypot(...b.generators.flat(2));
    for (const [i, x] of a.generators.flat(2).entries())
      close(`entry ${i}`, x, b.generators.flat(2)[i]!, size);
    for (const key of ["losses", "relativeErrors"] as const)
      for (const [i, x] of a[key].entries()) close(key, x, b[key][i]!);
    for (const [i, x] of (a.spectrum ?? []).entries())
      close("spectrum", x.loss, b.spectrum![i]!.loss);
    for (const [i, x] of (a.startLosses ?? []).entries()) close("start", x, b.startLosses![i]!);
    close("noise floor", a.noiseFloor, b.noiseFloor);
    close("the predictor's loss", result.predictor.loss, wanted.predictor.loss);
    expect(a.symmetryCount).to.equal(b.symmetryCount);
    expect(a.spectrum?.length).to.equal(b.spectrum?.length);
    expect(result.predictor.epochs).to.equal(wanted.predictor.epochs);
  }

  it("are listed", async () => {
    const runs = join(dir, "listed");
    for (const name of killed) copy(name, runs);
    copy("probe", runs);
    const { code, stdout } = await atlas(["runs", "--runs", runs], where);
    expect(code).to.equal(0);
    expect(stdout.replaceAll(/ +/g, " ").split("\n").slice(0, -1)).to.deep.equal([
      `${idOf("killed-in-predictor")} interrupted seed 0 predictor 3/6`,
      `${idOf("killed-in-solver")} interrupted seed 0 algebra 1/2`,
      `${idOf("killed-by-turns")} interrupted seed 0 algebra 3/6`,
      `${idOf("probe")} finished seed 0`,
    ]);
  });

  it("are shown, in words and as they were written", async () => {
    const stages = await atlas(["show", copy("killed-in-solver", undefined, "finished")], where);
    expect(stages.code, stages.stderr).to.equal(0);
    expect(stages.stdout)
      .to.match(/^experiment +pde \(preset fast\)$/m)
      .and.match(/^settings +task=discover_algebra atlas=2 solver=grassmann predictor=wide N=8 /m)
      .and.match(/^algebra +so\(2\), .*1 generator, loss 0\.00673 /m);
    const turns = await atlas(["show", copy("killed-by-turns", undefined, "finished")], where);
    expect(turns.stdout).to.match(/^algebra +\S.*1 generator, loss 0\.0919 /m);
    const probe = copy("probe");
    const { code, stdout, stderr } = await atlas(["show", probe], where);
    expect(code, stderr).to.equal(0);
    expect(stdout)
      .to.match(/^cosets +identity, reflection$/m)
      .and.match(/^note +as expected: so\(3\)/m);
    const { schema } = await json<{ schema: string }>(["show", probe], where);
    expect(schema).to.equal("atlas.result/1");
    const stopped = await atlas(["show", copy("killed-in-predictor")], where);
    expect(stopped.stdout).to.match(/^status +interrupted \(predictor 3\/6\)$/m);
    // The former names of what became of candidates are read by the present ones.
    const outcomes = recordedResult("probe").cosetSearch!.candidates.map(({ outcome }) => outcome);
    expect(outcomes).to.include("kept").and.include("duplicate");
  });

  for (const [name, restored] of [
    ["killed-in-solver", /^predictor +restored at epoch 6\/6\nalgebra +restored at epoch 1\/2$/m],
    ["killed-by-turns", /^predictor +restored at epoch 3\/6\nalgebra +restored at epoch 3\/6$/m],
  ] as const)
    it(`are resumed where they were, and end alike (${name})`, async () => {
      const run = copy(name);
      const { code, stderr } = await atlas(["resume", run, ...here], where);
      expect(code, stderr).to.equal(0);
      expect(stderr)
        .to.match(restored)
        .and.match(/^warning: .*worker 0\.1\.0/m);
      isSame(run, name);
      expect(readdirSync(run)).to.include.members(["result.json", "report.html"]);
      expect(logged(run, "finished")).to.have.length(1);
    });

  it("are resumed, left, and attached to, and end alike", async () => {
    const run = copy("killed-in-predictor");
    // As the killed process of that version left it: locked, by a process that is no more.
    const { stdout: pid } = execaSync(process.execPath, ["-p", "process.pid"]);
    const lock = { pid: Number(pid), host: hostname(), birth: "1" };
    writeFileSync(join(run, "lock"), JSON.stringify(lock));
    expect(complaint(await atlas(["attach", run], where), 2)).to.match(
      /^error: run \S+ cannot be attached to: .*: atlas resume \S+$/,
    );
    const resumed = start(["resume", run, ...here], where);
    await resumed.says(/^algebra +1\/2/m);
    resumed.kill("SIGKILL");
    expect((await resumed.done).stderr).to.match(/^predictor +restored at epoch 3\/6$/m);
    const { code, stderr } = await atlas(["attach", run], where);
    expect(code, stderr).to.equal(0);
    expect(stderr).to.match(/^algebra +attached at epoch \d\/2$/m);
    isSame(run, "killed-in-predictor");
    expect(existsSync(join(run, "lock"))).to.equal(false);
  });

  it("have a predictor that is exported, and metrics for TensorBoard", async () => {
    const run = copy("killed-in-solver", undefined, "finished");
    const out = join(dir, "weights.pt");
    const told = await json(["checkpoint", "export", run, "--format=pt", "--out", out], where);
    expect(told).to.deep.include({ kind: "strided_cnn", parameters: 7659 });
    expect(readFileSync(out).subarray(0, 2).toString()).to.equal("PK");
    const board = await json<object>(["tensorboard", run], where);
    expect(board).to.deep.include({ stages: ["predictor", "algebra", "dataset"] });
  });

  describe("are taken", () => {
    const COSETS = [
      ..."pde --task=discover_cosets --N=8 --candidates=2 --coset_solver.steps=2".split(" "),
      ..."--fixed-seed --device=cpu".split(" "),
    ];
    let runs: string;
    let stages: string;
    before(() => {
      runs = join(dir, "taken");
      stages = copy("killed-in-solver", runs, "finished");
    });

    const configOf = ({ path }: Finished) =>
      JSON.parse(readFileSync(join(path, "config.json"), "utf8")).config;

    it("by --identity and --reuse_predictor", async () => {
      const turns = copy("killed-by-turns", undefined, "finished");
      const given = ["--layout=2", "--identity", turns, "--reuse_predictor", stages, ...here];
      const found = await finish([...COSETS, ...given], join(dir, "by-name"), where);
      expect(found.result.predictor.source).to.equal(stages);
      const { algebra } = finishedResult("killed-by-turns");
      expect(configOf(found).identity.basis).to.deep.equal(
        algebra!.generators.slice(0, algebra!.symmetryCount),
      );
    });

    it("as the newest that fits, which is told, where the settings are the same", async () => {
      const given = ["--layout=2", "--reuse_predictor", "--runs", runs, ...here];
      const { code, stdout, stderr } = await atlas([...COSETS, ...given, "--json"], where);
      expect(code, stderr).to.equal(0);
      const id = idOf("killed-in-solver");
      expect(stderr).to.match(new RegExp(`^identity +.*${id} .*1 generator`, "m"));
      expect(Result.parse(JSON.parse(stdout)).predictor.source).to.equal(stages);
      const other = await atlas([...COSETS, "--layout=1", "--runs", runs, ...here], where);
      expect(complaint(other, 2)).to.match(/^error: no finished run has found an algebra /);
    });
  });

  /** The id of one. */
  function idOf(name: Name): string {
    return JSON.parse(readFileSync(join(RECORDED, name, "config.json"), "utf8")).id;
  }
});
