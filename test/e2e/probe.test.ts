/** `atlas probe …`: functions whose groups are known, and functions of one's own. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { Result } from "../../src/result.js";
import { findRun } from "../../src/run/folder.js";
import { atlas, LONG, refuses, startBackground } from "./atlas.js";

describe("atlas probe", function () {
  this.timeout(LONG);
  let dir: string;
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  let here: string[];
  let log: string;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-probe-"));
    where = { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state") } };
    const logging = ["--log-level=debug", "--log-format=json"];
    const worker = await startBackground(["--device=cpu", "--threads=1", ...logging], where);
    log = worker.log;
    here = ["--worker", worker.address, "--fixed_seed"];
  });
  after(async () => {
    await atlas(["worker", "stop"], where);
    rmSync(dir, { recursive: true, force: true });
  });

  /** Its result; it must end with `code`. */
  async function probe(args: string[], code = 0): Promise<Result> {
    const done = await atlas(["probe", ...args, ...here, "--json"], where);
    expect(done.code, done.stderr).to.equal(code);
    return Result.parse(JSON.parse(done.stdout));
  }
  const names = ({ cosets }: Result) => cosets!.map(({ name }) => name).sort();

  it("benchmark: grades the group of a function, and of its twins", async () => {
    const args = ["benchmark", "ck", "--k", "5", ...here, "--json"];
    const done = await atlas(args, where);
    expect(done.code, done.stderr).to.equal(0);
    const { benchmark, asExpected } = Result.parse(JSON.parse(done.stdout));
    expect(benchmark!.map(({ found, twin }) => [found, twin])).to.deep.equal([
      ["0 generators, C_5", false],
      ["1 generators, C_2", true],
      ["0 generators, C_1", true],
    ]);
    expect(asExpected).to.equal(true);
  });

  it("d4: the eight elements, each once, and no continuous symmetry", async () => {
    const result = await probe(["d4"]);
    expect(result).to.include({ experiment: "probe", task: "d4", asExpected: true });
    expect(result.algebra!.symmetryCount).to.equal(0);
    const rounded = result.cosets!.map(({ matrix }) =>
      matrix
        .flat()
        .map((x) => Math.round(x) + 0)
        .join(" "),
    );
    expect(rounded.sort()).to.deep.equal(
      [
        "-1 0 0 -1",
        "-1 0 0 1",
        "0 -1 -1 0",
        "0 -1 1 0",
        "0 1 -1 0",
        "0 1 1 0",
        "1 0 0 -1",
        "1 0 0 1",
      ].sort(),
    );
    expect(result.group).to.include({ name: "D_4", order: 8, resolved: true, finite: true });
    for (const { matrix } of result.cosets!)
      for (const x of matrix.flat()) expect(x).to.be.closeTo(Math.round(x), 0.05);
    expect(names(result)).to.deep.equal(
      [
        "identity",
        "−I",
        "rotation by 90°",
        "rotation by 270°",
        ...[0, 45, 90, 135].map((degrees) => `reflection across the line at ${degrees}°`),
      ].sort(),
    );
    expect(result.predictor).to.include({ source: "abs(x) + abs(y)", loss: null });
    expect(result.notes!.join()).to.match(/^as expected: /);
  });

  it("two_coset: identity and −I, with the identity component given", async () => {
    const result = await probe(["two_coset"]);
    expect(result.asExpected).to.equal(true);
    expect(result).not.to.have.property("algebra");
    expect(names(result)).to.deep.equal(["identity", "−I"]);
  });

  it("lorentz: so(1,3) and its four components", async () => {
    const result = await probe(["lorentz"]);
    expect(result.asExpected).to.equal(true);
    expect(result.algebra!.identified.name).to.equal("so(1,3)");
    expect(result.algebra!.identified.grassmannDistance).to.be.below(0.01);
    expect(result.algebra!.invariantMetric!.cosine).to.be.above(0.9999);
    expect(names(result)).to.deep.equal(["PT (−I)", "identity", "parity", "time reversal"]);
  });

  it("rotation: so(3) and a reflection", async () => {
    const result = await probe(["rotation"]);
    expect(result.asExpected).to.equal(true);
    expect(result.algebra!.identified.name).to.equal("so(3)");
    expect(names(result)).to.deep.equal(["identity", "reflection"]);
  });

  it("none: says that there is no symmetry, in words", async () => {
    const { code, stdout, stderr } = await atlas(["probe", "none", ...here], where);
    expect(code, stderr).to.equal(0);
    expect(stdout).to.match(/^algebra no symmetry found: /m);
    expect(stdout).to.match(/^cosets {2}identity$/m);
    expect(stdout).to.match(/^note +as expected: /m);
    const shown = await atlas(["show", "latest"], where);
    expect(shown.stdout).to.contain("no symmetry found");
  });

  it("leaves lines of JSON in the worker's log, which name the jobs of its epochs", async () => {
    await probe(["none"]);
    const run = await findRun(join(dir, "runs"), "latest");
    const jobs = (await run.events()).flatMap((e) => (e.type === "epoch" ? [e.job?.id] : []));
    const lines = readFileSync(log, "utf8").trimEnd().split("\n");
    const ours = lines.map((line) => JSON.parse(line)).filter((line) => line.run === run.id);
    expect(new Set(ours.map(({ session }) => session)).size).to.equal(1);
    const succeeded = ours.filter(({ message }) => message?.startsWith("succeeded: "));
    expect(new Set(succeeded.map(({ job }) => job))).to.deep.equal(new Set(jobs)).and.not.be.empty;
  });

  it("ends with 1 when it does not find what is there, and says so", async () => {
    const result = await probe(["d4", "--candidates=1", "--max-components=1"], 1);
    expect(result.asExpected).to.equal(false);
    expect(result.notes!.join()).to.match(
      /^NOT as expected: .*no continuous symmetry.*identity.*reflection/,
    );
  });

  it("takes a function of one's own, and expects nothing of it", async () => {
    const result = await probe(["--expression", "p**2 + 3*q**2", "--coordinates", "p, q"]);
    expect(result).to.include({ task: "expression" }).and.not.have.property("asExpected");
    expect(result.algebra!.symmetryCount).to.equal(1);
    const [[[a, b], [c, d]]] = result.algebra!.generators as [[[number, number], [number, number]]];
    for (const zero of [a, d, b + 3 * c]) expect(zero / Math.hypot(b, c)).to.be.closeTo(0, 0.01);
    expect(names(result)).to.have.length(2);
  });

  it("refuses names and functions that it does not know, and leaves no run of them", async () => {
    const cases: [args: string[], line: RegExp][] = [
      [
        ["nonsense"],
        /^error: there is no probe "nonsense"; choose one of d4, two_coset, lorentz, rotation, /,
      ],
      [["lorentz", "d4"], /^error: too many arguments for 'probe'.* but got 2; see --help$/],
      [["--expression", "x +"], /^error: 'x \+' is not an expression .*; expected: arithmetic/],
      [
        ["--expression", "shuffle(x)"],
        /^error: 'shuffle\(x\)' is not known .*; expected: numbers, x, y, /,
      ],
      [
        ["--expression", "__import__('os').system('touch executed')"],
        /^error: "__import__\('os'\).*" is not known .*; expected: numbers, x, y, /,
      ],
      [
        ["--expression", "x*y", "--coordinates", "x"],
        /^error: 'y' is not known .*; expected: numbers, x, /,
      ],
      [
        ["--expression", "x", "--coordinates", "x,,y"],
        /^error: 3 coordinates .*; expected: 3 different names/,
      ],
    ];
    await refuses(
      cases.map(([args, line]) => [["probe", ...args, ...here], line]),
      where,
    );
    expect(readdirSync(dir)).not.to.include("executed");
  });

  it("shows its argument and examples in the help", async () => {
    const { code, stdout } = await atlas(["probe", "--help"], where);
    expect(code).to.equal(0);
    expect(stdout).to.match(/^Usage: atlas probe \[options\] \[name\]$/m);
    expect(stdout.replaceAll(/\s+/g, " ")).to.contain(
      "one of d4, two_coset, lorentz, rotation, none",
    );
    expect(stdout).to.not.contain("--name");
    expect(stdout).to.contain("atlas probe d4 --fixed-seed");
  });
});
