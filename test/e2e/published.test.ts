/**
 * Predictors that other programs made, from the command line: a checkpoint of the published code,
 * and the programs that it is exported as.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "chai";
import { ensureVenv } from "../../src/setup/venv.js";
import { Tensor, writeNpy } from "../../src/tensor/index.js";
import { atlas, complaint, EPS, type Finished, finish, json, LONG, sharedWorker } from "./atlas.js";

const SCRIPT = fileURLToPath(new URL("published.py", import.meta.url));
const CPU = ["--device", "cpu", "--threads", "1", "--fixed-seed"];
/** A short search: for one generator among the matrices of the plane there is little to search. */
const SHORT = ["--solver.starts=2", "--solver.steps=30", "--solver.evaluation=4"];

describe("predictors from elsewhere", function () {
  this.timeout(LONG);
  let dir: string;
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  let run: Finished;
  let python: (...args: string[]) => string;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-published-"));
    where = { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state"), ATLAS_TRUST_CODE: "" } };
    const venv = await ensureVenv();
    python = (...args) =>
      execFileSync(venv.python, ["-W", "ignore", SCRIPT, ...args], { cwd: dir, encoding: "utf8" });
    python("make", "--out", "theirs.pt");
    // The checkpoint blurs, and does not predict these data: there is no skill to lose.
    const task = ["pde", "--task", "discover_algebra", "--layout", "2", "--N", "64"];
    task.push("--evidence", "none");
    const given = ["--reuse_predictor", "theirs.pt", "--worker", await sharedWorker()];
    run = await finish([...task, ...CPU, ...SHORT, ...given], join(dir, "runs"), where);
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  it("leads from a published checkpoint to so(2)", () => {
    expect(run.result.predictor.source).to.equal(join(dir, "theirs.pt"));
    expect(run.result.algebra!.identified.name).to.equal("so(2)");
    expect(run.result.algebra!.identified.cosine).to.be.greaterThan(0.999);
    expect(run.result.algebra!.found).to.equal(1);
  });

  it("is told whose layout a checkpoint has", async () => {
    const { stdout } = await atlas(["checkpoint", "inspect", "theirs.pt"], where);
    expect(stdout).to.match(/^layout: the reference code's \w+, for experiment pde$/m);
  });

  it("computes what the checkpoint's own network does, exported again as a program", async () => {
    const out = ["--format", "torchscript", "--out", "ours.ts.pt"];
    const told = await json(["checkpoint", "export", run.path, ...out], where);
    const shape = [3, 1, 53, 53];
    expect(told).to.deep.include({
      format: "torchscript",
      kind: "reference_cnn",
      takes: shape,
      gives: shape,
    });
    // Both round each of four layers, in orders of their own.
    const apart = Number(python("check", "--weights", "theirs.pt", "--program", "ours.ts.pt"));
    expect(apart).to.be.below(16 * EPS);
    const again = complaint(await atlas(["checkpoint", "export", run.path, ...out], where), 2);
    expect(again).to.match(/^error: ours\.ts\.pt exists already; .*--force/);
  });

  it("looks for the symmetries of a program, once it is trusted", async () => {
    const { path } = run;
    await json(["checkpoint", "export", path, "--format", "export", "--out", "ours.pt2"], where);
    const wave = (i: number, row: number, col: number) =>
      Math.sin(0.2 * row * Math.cos(i) + 0.2 * col * Math.sin(i) + i);
    const fields = Array.from({ length: 16 }, (_, i) => [
      Array.from({ length: 80 }, (_, row) =>
        Array.from({ length: 80 }, (_, col) => wave(i, row, col)),
      ),
    ]);
    writeFileSync(join(dir, "x.npy"), writeNpy(Tensor.from(fields, "float32")));
    const charts = ["--charts", "36,40 40,44 44,36", "--r_in", "26", "--r_out", "20"];
    const given = [
      "--inputs",
      "x.npy",
      "--takes",
      "charts",
      ...charts,
      "--k",
      "1",
      "--evidence",
      "none",
      ...SHORT,
      ...CPU,
    ];
    const args = ["discover", "--task", "discover_algebra", "--predictor", "ours.pt2", ...given];
    const wary = complaint(await atlas(args, where), 2);
    expect(wary).to.match(/^error: --predictor ours\.pt2 is code.*; .*--trust-code/);
    expect(existsSync(join(dir, "mine"))).to.equal(false);
    const { path: mine, result } = await finish(
      [...args, "--trust-code"],
      join(dir, "mine"),
      where,
    );
    expect(result.algebra!.identified.name).to.equal("so(2)");
    expect(result.predictor.source).to.equal(join(dir, "ours.pt2"));
    // Whether the run is trusted is asked again when it goes on: its folder may come from others.
    rmSync(join(mine, "result.json"));
    const before = readFileSync(join(mine, "events.jsonl"), "utf8");
    const untrusted =
      /^error: continuing run \S+ would execute code: .*\S+ours\.pt2; .*--trust-code$/;
    for (const way of ["resume", "attach"])
      expect(complaint(await atlas([way, mine], where), 2)).to.match(untrusted);
    expect(readFileSync(join(mine, "events.jsonl"), "utf8")).to.equal(before);
    const again = await json<typeof result>(["resume", mine, "--trust-code"], where);
    expect(again.algebra).to.deep.equal(result.algebra);
    // Nor does it help a stranger that the run does not say that it names code.
    rmSync(join(mine, "result.json"));
    const { code, ...config } = JSON.parse(readFileSync(join(mine, "config.json"), "utf8"));
    expect(code).to.match(/ours\.pt2$/);
    writeFileSync(join(mine, "config.json"), JSON.stringify(config));
    for (const way of ["resume", "attach"])
      expect(complaint(await atlas([way, mine], where), 2)).to.match(
        /^error: --predictor \S+ours\.pt2 is code.*; .*--trust-code$/,
      );
  });
});
