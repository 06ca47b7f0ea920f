/**
 * `atlas toptagging …` on toy jets whose symmetry is known to be the Lorentz group's: see jets.py.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "chai";
import { execa } from "execa";
import type { AlgebraResult } from "../../src/result.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { Tensor, writeNpy } from "../../src/tensor/index.js";
import {
  atlas,
  ends,
  essence,
  type Finished,
  finish,
  LONG,
  only,
  refuses,
  sharedWorker,
  start,
  workersOf,
} from "./atlas.js";

const SCRIPT = fileURLToPath(new URL("jets.py", import.meta.url));
const TOY = ["toptagging", "--constituents=5", "--device=cpu", "--threads=1"];
const DISCOVER = [...TOY, "--data=jets", "--N=0", "--epochs=4", "--batch-size=32"];
const FEW = "--candidates=32";
/** Seconds, whatever comes of it. */
const SHORT = [
  ...TOY,
  "--data=jets",
  "--N=800",
  "--epochs=6",
  "--candidates=4",
  "--coset-solver.refine=2",
  "--task=discover",
  "--fixed_seed",
];

describe("atlas toptagging", function () {
  this.timeout(LONG);
  let dir: string;
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  let here: string[];
  /** A run of --task discover. */
  let first: Finished;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-toptagging-"));
    where = { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state") } };
    await Promise.all([makeJets("jets"), makeJets("blurred", "--flip=0.1", "--jets=2000")]);
    here = ["--worker", await sharedWorker()];
    first = await run([...DISCOVER, "--task=discover", FEW, "--fixed_seed"]);
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  async function makeJets(name: string, ...options: string[]): Promise<void> {
    const { python } = await ensureVenv();
    await execa(python, [SCRIPT, "--out", join(dir, name), ...options]);
  }
  let count = 0;
  const newRuns = () => join(dir, `runs-${++count}`);
  const run = (args: string[]) => finish([...args, ...here], newRuns(), where);
  const isLorentz = ({ identified }: AlgebraResult) => {
    expect(identified.name).to.be.oneOf(["so(1,3)", "so(1,3)⊕R"]);
    expect(identified.grassmannDistance).to.be.below(0.3);
  };

  it("finds so(1,3), identity and parity, and says what limits that", async () => {
    const { algebra, cosets, predictor, notes, task } = first.result;
    expect(task).to.equal("discover");
    isLorentz(algebra!);
    expect(algebra!.symmetryCount).to.be.oneOf([6, 7]);
    expect(algebra!.spectrum).to.have.length(16);
    const errors = algebra!.spectrum!.map(({ relativeError }) => relativeError);
    expect(errors[algebra!.symmetryCount]! / errors[algebra!.symmetryCount - 1]!).to.be.above(2);
    expect(algebra!.explanation).to.match(/gap/);
    expect(algebra!.invariantMetric!.cosine).to.be.above(0.99);
    expect(algebra!.invariantMetric!.signature).to.deep.equal([1, 3]);
    expect(cosets!.map(({ name }) => name).sort()).to.deep.equal(["identity", "parity"]);
    expect(predictor.scores!.accuracy).to.be.above(0.9);
    expect(predictor.scores!.auc_error).to.be.within(0, 0.05);
    expect(notes!.join("\n")).to.match(/accuracy 9\d\.\d %, AUC 0\.\d{4}/);
    const shown = await atlas(["show", first.path], where);
    expect(shown.stdout)
      .to.match(/^algebra +so\(1,3\)/m)
      .and.match(/^note +symmetries are measured on the predictor, /m);
    expect(readFileSync(join(first.path, "report.html"), "utf8")).to.contain("so(1,3)");
  });

  it("gives as many generators as are asked for, of which not all need be symmetries", async () => {
    const args = [...DISCOVER, "--task=discover_algebra", "--k=7", "--fixed_seed"];
    const { result } = await run([...args, "--reuse-predictor", first.path]);
    expect(result.algebra!.generators).to.have.length(7);
    expect(result.algebra!.symmetryCount).to.be.oneOf([6, 7]);
    isLorentz(result.algebra!);
    expect(result.predictor.source).to.equal(first.path);
    expect(result).not.to.have.property("cosets");
  });

  it("gives a basis of disjoint supports", async () => {
    const args = [...DISCOVER, "--task=discover_algebra", "--standard_basis", "--fixed_seed"];
    const { result } = await run([...args, "--reuse-predictor", first.path]);
    isLorentz(result.algebra!);
    const sizes = result.algebra!.generators.map((m) => m.flat().map(Math.abs));
    const overlap = (a: number[], b: number[]) =>
      a.reduce((sum, x, i) => sum + x * b[i]!, 0) / (Math.hypot(...a) * Math.hypot(...b));
    for (const [i, a] of sizes.entries())
      for (const b of sizes.slice(i + 1)) expect(overlap(a, b)).to.be.below(0.05);
  });

  it("finds the components to a given identity component with a given predictor", async () => {
    const given = ["--identity", first.path, "--reuse-predictor", first.path];
    const { result } = await run([
      ...DISCOVER,
      "--task=discover_cosets",
      FEW,
      "--fixed_seed",
      ...given,
    ]);
    expect(result).not.to.have.property("algebra");
    expect(result.cosets!.map(({ name }) => name).sort()).to.deep.equal(["identity", "parity"]);
    expect(result.predictor).to.deep.include({ source: first.path, loss: null });
    expect(result.predictor.scores).to.deep.equal(first.result.predictor.scores);
  });

  it("trains classifiers from a discovered metric, a named one's, and none", async () => {
    const args = [
      ...TOY,
      "--data=blurred",
      "--N=0",
      "--epochs=3",
      "--batch-size=32",
      "--fixed_seed",
    ];
    const discovered = [...args, "--task=downstream_discovered", "--identity"];
    const taggers = [
      await run([...discovered, first.path]),
      await run([...discovered, "so(1,3)"]),
      await run([...discovered, first.path, "--architecture=equivariant_mlp"]),
      await run([...args, "--task=downstream_baseline"]),
    ];
    for (const { result } of taggers) {
      const m = result.downstream!.metrics as Record<string, number>;
      const names = ["accuracy", "auc", "rejection_30", "rejection_50"];
      expect(m).to.have.all.keys("parameters", ...names.flatMap((name) => [name, `${name}_error`]));
      expect(m.accuracy).to.be.within(0.65, 0.95); // a tenth of the labels are wrong
      expect(m.auc).to.be.within(0.65, 0.97);
      expect(m.rejection_30).to.be.at.least(m.rejection_50!).and.above(2);
      for (const [name, value] of Object.entries(m))
        if (name.endsWith("_error"))
          expect(value, name).to.be.above(0).and.below(m[name.slice(0, -6)]!);
      expect(result.predictor.loss).to.be.within(0.2, 0.75);
    }
    const [own, named, small, baseline] = taggers.map(({ result }) => result);
    const [ownNote, namedNote] = [own, named].map((result) => result!.notes!.join());
    expect(ownNote)
      .to.match(/metric/)
      .and.contain(basename(first.path))
      .and.contain("[[");
    expect(namedNote)
      .to.match(/metric/)
      .and.contain("so(1,3)");
    expect(namedNote).to.match(/\[\[1[.,0 ]+\], \[0[.,0 ]+-1[.,0 ]+\], .*, -1[.,0]*\]\]/);
    expect(baseline!.notes ?? []).to.deep.equal([]);
    expect(small!.notes!.join()).to.match(/metric/);
    expect(small!.downstream!.metrics.auc).to.be.above(own!.downstream!.metrics.auc! - 0.1);
    expect(small!.downstream!.metrics.parameters!).to.be.below(
      own!.downstream!.metrics.parameters! / 4,
    );
    expect(own!.downstream!.metrics.parameters).to.equal(named!.downstream!.metrics.parameters);
    expect(own!.downstream!.metrics.auc).to.be.closeTo(named!.downstream!.metrics.auc!, 0.15);
    const ratio =
      baseline!.downstream!.metrics.parameters! / named!.downstream!.metrics.parameters!;
    expect(ratio).to.be.within(0.9, 1.1);
  });

  it("gives the same bytes with one seed, begun in another worker and after kill -9", async () => {
    const undisturbed = await run([...SHORT, "--data", join(dir, "jets")]);

    const runs = newRuns();
    const process = start([...SHORT, "--runs", runs], where);
    await process.says(/^predictor +2\/6/m);
    const [worker] = workersOf(process.pid);
    process.kill("SIGKILL");
    await process.done;
    await ends(worker!);
    const killed = only(runs);
    expect(existsSync(join(killed, "result.json"))).to.equal(false);
    // From elsewhere: the run knows where its jets are.
    const elsewhere = { ...where, cwd: tmpdir() };
    const { code, stderr } = await atlas(["resume", killed, ...here], elsewhere);
    expect(code, stderr).to.equal(0);
    expect(stderr).to.match(/^predictor +restored at epoch \d\/6$/m);
    expect(essence(killed)).to.equal(essence(undisturbed.path));
  });

  it("refuses bad input in one line, and leaves no run of it", async () => {
    const damaged = ["nan", "label", "columns", "key"];
    await Promise.all(
      damaged.map((damage) => makeJets(damage, "--jets=200", `--damage=${damage}`)),
    );
    mkdirSync(join(dir, "empty"));
    cpSync(join(dir, "nan"), join(dir, "torn"), { recursive: true });
    truncateSync(join(dir, "torn/train.h5"), 5000);
    const turn = [
      [0, -1],
      [1, 0],
    ];
    writeFileSync(join(dir, "plane.npy"), writeNpy(Tensor.from(turn)));
    const probed = await atlas(
      ["probe", "rotation", ...here, "--runs=probes", "--candidates=1"],
      where,
    );
    expect(probed.code, probed.stderr).to.be.oneOf([0, 1]);
    const probe = only(join(dir, "probes"));

    const data = (name: string, ...more: string[]) => [...TOY, "--N=0", `--data=${name}`, ...more];
    const of = (task: string, identity?: string) =>
      data("jets", `--task=${task}`, ...(identity === undefined ? [] : ["--identity", identity]));
    const cases: [args: string[], line: RegExp][] = [
      [
        data("empty"),
        /^error: there is no file \S+\/empty\/train\.h5 .*: atlas data toptagging --generate /,
      ],
      [data("torn"), /^error: \S+\/torn\/train\.h5 is truncated .*; copy or make it again$/],
      [
        data("key", "--table=jest"),
        /^error: \S+\/key\/train\.h5 has no .*table 'jest'; .* jets \(--table\)/,
      ],
      [
        data("columns"),
        /^error: \S+\/columns\/train\.h5 lacks the columns PX_0, PX_1, PX_2, PX_3 and 1 more; /,
      ],
      [
        data("nan"),
        /^error: \S+\/nan\/train\.h5: row 7 has nan in column PX_1 .*; repair or remove the row$/,
      ],
      [
        data("label"),
        /^error: \S+\/label\/train\.h5: row 7 has the label 2 .*whole numbers from 0 to 1/,
      ],
      [
        data("jets", "--constituents=6"),
        /^error: \S+ lacks the columns E_5, PX_5, PY_5, PZ_5; .*E_0 to PZ_5/,
      ],
      [
        data("jets", "--N=1e9"),
        /^error: \S+ has 4000 rows, .*1000000000 were asked for .*at most 4000/,
      ],
      [
        of("discover_cosets", probe),
        /^error: --identity \S+: the algebra of run \S+ has 3x3 matrices; .* \[k, 4, 4\]$/,
      ],
      [
        of("discover_cosets", "plane.npy"),
        /^error: --identity plane\.npy: its matrices are 2x2; give a basis of shape \[k, 4, 4\]$/,
      ],
      [
        of("discover_cosets", "so(2)"),
        /^error: --identity so\(2\): no run "so\(2\)".*, so\(1,3\), /,
      ],
      [
        of("discover_cosets"),
        /^error: no finished run .* an algebra .*; find one with --task discover_algebra, or /,
      ],
      [of("downstream_discovered"), /^error: --task downstream_discovered needs an algebra; give/],
      [
        of("downstream_discovered", "R scaling"),
        /^error: the algebra R scaling .* no metric .*; give .*so\(1,3\)/,
      ],
      [
        data("jets", "--solver=atlasd", "--k=auto"),
        /^error: the solver atlasd .* the number .*; give --k, or choose --solver grassmann$/,
      ],
      ...["0", "17", "seven"].map((k): [string[], RegExp] => [
        data("jets", `--k=${k}`),
        new RegExp(
          `^error: --k ${k}: expected auto, or .* of at least 1 and at most 16; see --help$`,
        ),
      ]),
      [
        data("jets", "--architecture=nonsense"),
        /^error: --architecture nonsense: expected one of quadratic, mlp; see/,
      ],
      [data("jets", "--reuse-predictor=none"), /^error: no run "none" in /],
      [
        data("jets", "--reuse-predictor"),
        /^error: no finished run in \S+ has a predictor for these settings; /,
      ],
    ];
    await refuses(
      cases.map(([args, line]) => [[...args, ...here], line]),
      where,
    );
  });
});
