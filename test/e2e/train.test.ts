/** `atlas train`: networks with and without a symmetry, on the user's own sets of vectors. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import type { Result } from "../../src/result.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { atlas, json, LONG, refuses, sharedWorker } from "./atlas.js";

/** Pairs of vectors in space with their inner product, and fields. */
const ARRAYS = `
import numpy as np
rng = np.random.default_rng(0)
x = rng.normal(size=(300, 2, 3)).astype(np.float32)
np.save("pairs", x)
np.save("dot", (x[:, 0] * x[:, 1]).sum(1, keepdims=True))
turn = np.linspace(0, 6.28, 300).astype(np.float32)[:, None]
place, speed = (np.concatenate([np.cos(turn + at), np.sin(turn + at)], 1) for at in (0, np.pi / 2))
np.save("circle", np.stack([place, speed], 1).astype(np.float32))
np.save("ahead", 0.8 * place + 0.6 * speed)
fields = rng.normal(size=(40, 1, 19, 19)).astype(np.float32)
np.save("fields", fields)
np.save("slopes", sum(d**2 for d in np.gradient(fields, axis=(2, 3))).astype(np.float32))
`;
/** Rotations of space as a search finds them, and a reflection. */
const FOUND = {
  algebra: {
    generators: [
      [[0, -1.001, 0], [0.999, 0.001, 0], [0, 0.001, 0]],
      [[0, 0, -1], [0.001, 0, 0], [1, 0, 0.001]],
      [[0.001, 0, 0], [0, 0, -1], [0, 1.001, 0]],
    ],
    symmetryCount: 3,
  },
  cosets: [
    { name: "identity", matrix: [[1, 0, 0], [0, 1, 0], [0, 0, 1]] },
    { name: "reflection", matrix: [[1.001, 0, 0], [0, 1, 0.001], [0, 0, -1]] },
  ],
}; // biome-ignore format: matrices

describe("atlas train", function () {
  this.timeout(LONG);
  let dir: string;
  let worker: string;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-train-"));
    execFileSync((await ensureVenv()).python, ["-c", ARRAYS], { cwd: dir });
    writeFileSync(join(dir, "found.json"), JSON.stringify(FOUND));
    writeFileSync(join(dir, "none.json"), "[]");
    writeFileSync(join(dir, "cut.json"), JSON.stringify({ ...FOUND, cosets: [{ name: "−I" }] }));
    writeFileSync(join(dir, "plane.json"), "[[[0, -1], [1, 0]]]");
    worker = await sharedWorker();
  });
  after(() => rmSync(dir, { recursive: true, force: true }));
  const FILES = "--inputs pairs.npy --targets dot.npy";
  const QUICK = "--samples 60 --pairs 2 --epochs 12 --fixed-seed";
  const args = (text: string) => ["train", "--worker", worker, ...text.split(" ")];

  it("compares what was found with the exact, no, and a wrong symmetry", async () => {
    const run = args(`--symmetry found.json ${FILES} ${QUICK}`);
    const { comparison, notes } = await json<Result>(run, { cwd: dir });
    const { arms, sizes } = comparison!;
    expect(arms.map(({ arm }) => arm)).to.deep.equal(["none", "found", "exact", "wrong"]);
    expect(arms[2]!.symmetry).to.equal("so(3) with reflection");
    expect(arms[3]!.symmetry).not.to.match(/^so\(3\)( with reflection)?$/);
    expect(notes!.join()).to.match(/no evidence.*the wrong symmetry, .* times what none leaves/);
    const [none, found, exact, wrong] = sizes[0]!.arms;
    expect(sizes[0]!.samples).to.equal(60);
    expect(none!.parameters).to.be.closeTo(found!.parameters, 0.1 * found!.parameters);
    expect(found!.skills).to.have.length(2);
    // The inner product is one of the invariants that the network takes.
    expect(Math.min(...found!.skills, ...exact!.skills)).to.be.above(0.9);
    expect(Math.max(...none!.skills, ...wrong!.skills)).to.be.below(0.9);
    expect(exact!.ratio.value).to.be.below(0.5);
  });

  it("measures which group is wrong where no other algebra is", async () => {
    // The next place is a sum of place and speed, which commutes with all of GL(2).
    const run = args(
      "--symmetry so2 --inputs circle.npy --targets ahead.npy --inputs-as V --targets-as V " +
        "--samples 100 --pairs 2 --epochs 12 --fixed-seed",
    );
    const { comparison, notes } = await json<Result>(run, { cwd: dir });
    expect(comparison!.arms.at(-1)!.symmetry).to.equal("so2, with outputs that stay");
    expect(notes!.join()).to.match(/R scaling.*: less/);
    const wrong = comparison!.sizes[0]!.arms.at(-1)!;
    expect(Math.max(...wrong.skills)).to.be.below(0.3);
  });

  it("compares networks of fields, which have one rotation or none", async () => {
    const fields = args(
      "--symmetry o2 --inputs fields.npy --targets slopes.npy --samples 24 --pairs 2 --epochs 2 " +
        "--r-in 8 --r-out 6 --fixed-seed",
    );
    const { comparison, notes } = await json<Result>(fields, { cwd: dir });
    expect(comparison!.arms.map(({ arm, architecture }) => `${arm} ${architecture}`)).to.deep.equal(
      ["none unet", "exact steerable_unet", "wrong steerable_unet"],
    );
    expect(comparison!.arms[2]!.symmetry).to.contain("stretched by 1 to 3");
    expect(notes!.join()).to.contain("the rotation alone");
    const [none, exact] = comparison!.sizes[0]!.arms;
    expect(none!.parameters).to.be.closeTo(exact!.parameters, 0.1 * exact!.parameters);
    for (const { skills } of comparison!.sizes[0]!.arms) {
      expect(skills).to.have.length(2);
      for (const skill of skills) expect(skill).to.be.below(1).and.above(-10);
    }
  });

  it("takes a name, and shows a table in the terminal and in the report", async () => {
    const { stdout, code } = await atlas(args(`--symmetry so3 ${FILES} ${QUICK} --augment`), {
      cwd: dir,
    });
    expect(code).to.equal(0);
    expect(stdout).to.match(/exact +equivariant_mlp: so3/);
    expect(stdout).to.match(/none +\d+ +\d/);
    expect(stdout).to.match(/augmented +\d+ +\d/);
    expect(stdout).to.include("samples are moved by so3");
    const report = /report +(.*)/.exec(stdout)![1]!;
    expect(readFileSync(report, "utf8")).to.include("<h2>Comparison</h2>");
  });

  it("refuses in one line what it cannot do", async () => {
    const FIELDS = "--symmetry so2 --inputs fields.npy --targets slopes.npy --r-in 8 --r-out 6";
    const bad: [args: string, line: RegExp][] = [
      [FILES, /^error: a symmetry is missing/],
      ["--symmetry so3 --inputs pairs.npy", /^error: atlas train needs samples/],
      [`--symmetry nowhere ${FILES}`, /^error: --symmetry nowhere: .*a name like so\(3\)/],
      [`--symmetry none.json ${FILES}`, /^error: --symmetry none.json: .*neither generators/],
      [`--symmetry cut.json ${FILES}`, /^error: --symmetry cut.json: cosets.0.matrix: /],
      [`--symmetry plane.json ${FILES}`, /^error: --symmetry .*2x2.*3x3/],
      [`--symmetry so3 ${FILES} --inputs-as 2V`, /^error: .*3 features.*\(--inputs-as\)/],
      [`--symmetry so3 ${FILES} --targets-as V`, /^error: .*\(--targets-as\)/],
      [`--symmetry so3 ${FILES} --samples 290`, /^error: --samples 290: .*give at most 255/],
      [`--symmetry so3 ${FILES} --samples few`, /^error: .*samples.*100,1000/],
      [`${FIELDS} --inputs-as V`, /^error: .*give scalars, and V has others/],
      [`${FIELDS} --augment`, /^error: --augment moves sets of vectors/],
      [`${FIELDS} --charts auto`, /^error: --charts auto/],
      [FIELDS.replace("so2", "so(1,1)"), /^error: --symmetry: so\(1,1\) is not one rotation/],
      [`--symmetry so3 ${FILES} --r-in 3`, /^error: --r-in has no effect on sets of vectors/],
    ];
    await refuses(
      bad.map(([text, line]) => [args(text), line]),
      { cwd: dir },
    );
  });
});
