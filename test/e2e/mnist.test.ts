/** `atlas mnist …` on scikit-learn's digits, and on files like MNIST's. */
import { createHash } from "node:crypto";
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
import { basename, join } from "node:path";
import { gzipSync } from "node:zlib";
import { expect } from "chai";
import { Tensor, writeNpy } from "../../src/tensor/index.js";
import { atlas, EPS, type Finished, finish, LONG, refuses, sharedWorker } from "./atlas.js";

const MNIST = ["mnist", "--device=cpu", "--threads=1", "--fixed_seed"];
const SKLEARN = [...MNIST, "--digits=sklearn"];
const NAMES = ["train", "t10k"].flatMap((split) => [
  `${split}-images-idx3-ubyte.gz`,
  `${split}-labels-idx1-ubyte.gz`,
]);

/** An IDX file of unsigned bytes, gzipped. */
function idx(dims: number[], bytes: Uint8Array): Buffer {
  const head = Buffer.alloc(4 + 4 * dims.length);
  head.writeUInt32BE(0x0800 + dims.length);
  for (const [i, d] of dims.entries()) head.writeUInt32BE(d, 4 + 4 * i);
  return gzipSync(Buffer.concat([head, bytes]));
}

/** Four files of twenty images each: a bar whose length tells the label. */
function writeDigits(dir: string, replaced: Partial<Record<string, Buffer>> = {}): void {
  mkdirSync(dir);
  const labels = Uint8Array.from({ length: 20 }, (_, i) => i % 10);
  const images = new Uint8Array(20 * 28 * 28);
  for (const [i, label] of labels.entries())
    for (let row = 4; row < 6 + 2 * label; row++)
      images.fill(255, (i * 28 + row) * 28 + 12, (i * 28 + row) * 28 + 16);
  for (const name of NAMES) {
    const file = name.includes("images") ? idx([20, 28, 28], images) : idx([20], labels);
    writeFileSync(join(dir, name), replaced[name] ?? file);
  }
}

describe("atlas mnist", function () {
  this.timeout(LONG);
  let dir: string;
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  let here: string[];
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-mnist-"));
    where = { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state") } };
    here = ["--worker", await sharedWorker()];
    writeDigits(join(dir, "digits"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  let count = 0;
  const newRuns = () => join(dir, `runs-${++count}`);
  const run = (args: string[]) => finish([...args, ...here], newRuns(), where);

  it("finds that digits may be turned by any angle, and builds networks from that", async () => {
    // So short a training leaves all errors larger than the experiment's own: rotations' 0.3, all
    // others' above 0.5.
    const short = [
      "--N=800",
      "--epochs=4",
      "--batch-size=8",
      "--algebra-epochs=2",
      "--evidence=none",
      "--threshold=0.4",
      "--solver.starts=2",
      "--solver.steps=40",
      "--solver.evaluation=8",
    ];
    const found = await run([...SKLEARN, "--task=discover", ...short]);
    const { algebra, predictor, notes } = found.result;
    expect(algebra!.identified.name).to.equal("so(2)");
    expect(algebra!.identified.angleDegrees).to.be.below(5);
    expect(algebra!.symmetryCount).to.equal(1);
    const [first, second] = algebra!.spectrum!.map(({ relativeError }) => relativeError);
    expect(second! / first!).to.be.above(1.4);
    expect(predictor.scores!.accuracy).to.be.above(0.6);
    expect(predictor.scores!.accuracy_error).to.be.within(0, 0.05);
    expect(notes!.join()).to.contain(
      `${(100 * predictor.scores!.accuracy!).toFixed(1)} % of the other digits' pixels`,
    );
    const page = readFileSync(join(found.path, "report.html"), "utf8");
    expect(page)
      .to.contain("<h1>so(2)</h1>")
      .and.match(/class="globe/);

    const args = [
      ...MNIST,
      "--data=digits",
      "--N=8",
      "--epochs=2",
      "--test=4",
      "--predictor-lr=1e-3",
    ];
    const discovered = [...args, "--task=downstream_discovered", "--identity", found.path];
    const free = await run([...args, "--task=downstream_baseline"]);
    const turned = await run([...discovered, "--kernel=c4"]);
    const smooth = await run([...discovered, "--kernel=smooth"]);
    const steered = await run(discovered);
    const of = ({ result }: Finished) => {
      const { equivariance } = result;
      const { metrics } = result.downstream!;
      expect(metrics).to.have.all.keys(
        "accuracy",
        "accuracy_error",
        "accuracy_as_trained",
        "parameters",
      );
      const at = (degrees: number) =>
        equivariance!.find(({ name }) => name === `rotation by ${degrees}°`)!.relativeError;
      return { parameters: metrics.parameters!, quarter: at(90), half: at(180), between: at(30) };
    };
    const [a, b, c, d] = [of(free), of(turned), of(smooth), of(steered)];
    // Nothing but the kernels differs in the first three: 25 weights each, 7, or those of a few
    // functions.
    expect(b.parameters / a.parameters).to.be.within(0.25, 0.35);
    expect(c.parameters).to.be.below(b.parameters);
    expect(d.parameters).to.be.below(2 * c.parameters);
    for (const { quarter, half, between } of [b, c, d]) {
      // Rounding, which twelve normalised layers make some hundred times larger.
      expect(half).to.be.below(5000 * EPS);
      expect(between).to.be.within(quarter, 1);
    }
    for (const { quarter } of [b, c]) expect(quarter).to.be.below(5000 * EPS);
    // Directions are those of the generator as learnt, which is off by less than 5°.
    expect(d.quarter).to.be.within(5000 * EPS, 0.1);
    expect(a.quarter).to.be.above(0.05);
    expect(turned.result.notes!.join()).to.contain(
      `kernels have the symmetry of ${basename(found.path)}`,
    );
    expect(readFileSync(join(turned.path, "report.html"), "utf8"))
      .to.contain("Equivariance")
      .and.match(/class="row predictions/);
    const shown = await atlas(["show", turned.path], where);
    expect(shown.stdout).to.match(
      /^errors +.*equivariance.* \(interpolation alone\): rotation by 15° \S+ \(\S+\), /m,
    );
  });

  it("compares networks with and without rotations, in two tests", async () => {
    const args = [...MNIST, "--task=compare", "--data=digits", "--test=4", "--epochs=1"];
    const { result } = await run([...args, "--symmetry=so2", "--samples=8", "--pairs=2"]);
    const { arms, sizes } = result.comparison!;
    expect(arms.map(({ arm, architecture }) => `${arm} ${architecture}`)).to.deep.equal([
      "none unet",
      "exact steerable_unet",
      "wrong steerable_unet",
    ]);
    expect(arms[2]!.symmetry).to.equal("so2, with axes stretched by 1 to 3");
    expect(sizes.map(({ samples, test }) => `${samples} ${test}`)).to.deep.equal([
      "8 digits turned by any angle",
      "8 digits turned as in training",
    ]);
    for (const { arms } of sizes) {
      const [none, exact, wrong] = arms.map(({ parameters }) => parameters);
      expect(none! / exact!).to.be.within(0.9, 1.1);
      expect(wrong).to.equal(exact);
      for (const { skills } of arms) {
        expect(skills).to.have.length(2);
        for (const skill of skills) expect(skill).to.be.within(0, 1);
      }
    }
    await refuses(
      [
        [[...args], /^error: a symmetry is missing/],
        [[...args, "--symmetry=so(1,1)", ...here], /^error: --symmetry: .* is not one rotation/],
      ],
      where,
    );
  });

  it("searches for rotations of the whole sphere, and claims nothing", async () => {
    const { result, path } = await run([
      ...SKLEARN,
      "--task=liegan_discover",
      "--N=64",
      "--epochs=1",
      "--seeds=2",
    ]);
    expect(result).not.to.have.property("algebra");
    const { searches } = result.globalRotations!;
    expect(searches.map(({ cosineWeight }) => cosineWeight)).to.deep.equal([0.01, 1]);
    for (const { runs, meanMagnitude, axisSpread } of searches) {
      expect(new Set(runs.map(({ seed }) => seed)).size).to.equal(2);
      expect(axisSpread).to.be.within(0, 90);
      expect(meanMagnitude).to.be.closeTo((runs[0]!.magnitude + runs[1]!.magnitude) / 2, 1e-9);
      for (const { axis, magnitude, generator, moved, toldApart } of runs) {
        expect(Math.hypot(...axis)).to.be.closeTo(1, 1e-9);
        const norm = Math.hypot(...generator.flat());
        expect(norm / (Math.SQRT2 * magnitude)).to.be.closeTo(1, 8 * EPS);
        expect(toldApart).to.be.within(0, 1);
        expect(moved).to.be.within(1e-6, 0.1); // four steps of 1e-3
      }
    }
    const shown = await atlas(["show", path], where);
    expect(shown.stdout)
      .to.match(
        /^search +liegan, cosine weight 0\.01: angles of \S+ rad .*, axes \d+° apart .* 57°\)$/m,
      )
      .and.match(/^note +an adversary's training measures no equivariance error/m)
      .and.not.match(/^algebra/m);
    const one = await run([
      ...SKLEARN,
      "--task=liegan_discover",
      "--N=16",
      "--epochs=1",
      "--seeds=1",
      "--cosine-weight=0.1",
    ]);
    expect(one.result.globalRotations!.searches).to.have.length(1);
    expect(one.result.globalRotations!.searches[0]!.axisSpread).to.equal(null);
  });

  it("refuses bad input in one line, and leaves no run of it", async () => {
    const cut = idx([20, 28, 28], new Uint8Array(100));
    writeDigits(join(dir, "cut"), { [NAMES[0]!]: cut });
    const torn = idx([20], new Uint8Array(20)).subarray(0, 20);
    writeDigits(join(dir, "torn"), { [NAMES[1]!]: torn });
    writeDigits(join(dir, "swapped"), { [NAMES[0]!]: idx([20], new Uint8Array(20)) });
    writeDigits(join(dir, "eleven"), { [NAMES[1]!]: idx([20], new Uint8Array(20).fill(11)) });
    const rows = ["0100", "1000", "0000", "0000"].map((row) => [...row].map(Number));
    writeFileSync(join(dir, "four.npy"), writeNpy(Tensor.from(rows)));
    const md5 = (bytes: Buffer) => createHash("md5").update(bytes).digest("hex");
    const given = (...more: string[]) => [...MNIST, "--data=digits", ...more];
    const cases: [args: string[], line: RegExp][] = [
      [given("--data=cut"), new RegExp(`^error: \\S+/cut/${NAMES[0]} .*${md5(cut)}`)],
      [given("--data=torn"), new RegExp(`^error: \\S+/torn/${NAMES[1]} .*${md5(torn)}`)],
      [given("--data=swapped"), new RegExp(`^error: \\S+/swapped/${NAMES[0]} `)],
      [given("--data=eleven"), new RegExp(`^error: \\S+/eleven/${NAMES[1]} has the label 11`)],
      [
        given("--N=1e9"),
        /^error: this needs [\d,.]+ GiB of cpu's memory; .*lower the number of samples/,
      ],
      [
        given("--task=downstream_discovered"),
        /^error: --task downstream_discovered needs an algebra; give --id/,
      ],
      [
        given("--task=downstream_discovered", "--identity=four.npy"),
        /^error: --identity four\.npy: its matrices are 4x4; give a basis of shape \[k, 2, 2\]$/,
      ],
      [
        given("--task=downstream_discovered", "--identity=none"),
        /^error: the algebra none has no generators to build a network from; give .*so\(2\)/,
      ],
      [
        given("--reuse-predictor"),
        /^error: no finished run in \S+ has a predictor for these settings; /,
      ],
    ];
    await refuses(
      cases.map(([args, line]) => [[...args, ...here], line]),
      where,
    );
    // A worker of its own, whose files we see to; nothing answers where they are looked for.
    const env = { ...where.env, ATLAS_DATA_HOST: "http://127.0.0.1:65534" };
    const offline = await atlas([...MNIST, "--data=none"], { cwd: dir, env });
    expect(offline.code).to.equal(1);
    expect(offline.stderr.trim().split("\n").at(-1)).to.match(
      /^error: cannot fetch \S+ .*--data DIR; or use scikit-learn's digits: --digits sklearn$/,
    );
    expect(existsSync(join(dir, "runs")) ? readdirSync(join(dir, "runs")) : []).to.deep.equal([]);
  });
});
