/** `atlas discover` in affine groups, in products of groups, and in given algebras. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import type { Result } from "../../src/result.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { json, LONG, refuses, sharedWorker } from "./atlas.js";

/**
 * Four points with their distances; a twin that depends on where the points are; and pairs of
 * vectors of two planes, with numbers that rotations of both planes keep.
 */
const ARRAYS = `
import numpy as np
rng = np.random.default_rng(0)
x = 3 * rng.normal(size=(1500, 3, 2)).astype(np.float32) + 20
d = np.linalg.norm(x[:, [0, 0, 1]] - x[:, [1, 2, 2]], axis=-1)
np.save("points", x)
np.save("distances", d)
z = (x - 20) / 3
np.save("places", np.stack([np.sin(z[..., 0]).sum(1) + z[:, 0, 0] * z[:, 1, 1], z[..., 1].prod(1)], 1))
y = rng.normal(size=(1500, 4)).astype(np.float32)
np.save("pairs", y)
np.save("lengths", np.stack([(y[:, :2] ** 2).sum(1), (y[:, 2:] ** 2).sum(1)], 1))
np.save("turn", np.array([[[0, -1], [1, 0]]], np.float32))
np.save("turns", y[:, :3])
np.save("open", np.array([[[0, 1], [0, 0]], [[0, 0], [1, 0]]], np.float32))
`;

describe("atlas discover in groups", function () {
  this.timeout(LONG);
  let dir: string;
  let worker: string;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-groups-"));
    execFileSync((await ensureVenv()).python, ["-c", ARRAYS], { cwd: dir });
    worker = await sharedWorker();
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const run = (args: string, task = "discover") =>
    json<Result>(
      ["discover", "--task", task, ...args.split(" "), "--fixed-seed", "--worker", worker],
      { cwd: dir },
    );

  it("finds the translations and rotations that keep distances", async () => {
    const files = "--inputs points.npy --targets distances.npy --epochs 20";
    const { algebra, cosets, notes } = await run(`${files} --inputs-as V --group affine`);
    expect(algebra!.identified.name).to.equal("se(2)");
    expect(algebra!.identified.angleDegrees).to.be.below(5);
    expect(algebra!.spectrum).to.have.length(6);
    expect(cosets!.map((c) => c.name).sort()).to.deep.equal(["identity", "reflection"]);
    expect(notes!.join()).to.match(/V is read as X/);
  });

  it("finds none of them where places count", async () => {
    const files = "--inputs points.npy --targets places.npy --epochs 20";
    const { algebra } = await run(`${files} --group affine`, "discover_algebra");
    expect(algebra!.symmetryCount).to.equal(0);
  });

  it("tells apart what acts on two kinds of vectors, also inside of a given group", async () => {
    const files = "--inputs pairs.npy --targets lengths.npy --epochs 30";
    const { algebra } = await run(`${files} --inputs-as Va+Vb`, "discover_algebra");
    expect(algebra!.identified.name).to.equal("so(2) ⊕ so(2)");
    expect(algebra!.identified.parts!.map((part) => part.on)).to.deep.equal(["Va", "Vb"]);
    const inside = await json<Result>(
      [
        ...["discover", "--task", "discover_algebra", ...files.split(" "), "--inputs-as", "Va+Vb"],
        ...["--group", "so(2) x so(2)", "--fixed-seed", "--worker", worker],
      ],
      { cwd: dir },
    );
    expect(inside.algebra!.spectrum).to.have.length(2);
    expect(inside.algebra!.identified.name).to.equal("so(2) ⊕ so(2)");
  });

  it("refuses groups that do not fit", async () => {
    const points = "--inputs points.npy --targets distances.npy";
    const pairs = "--inputs pairs.npy --targets lengths.npy --inputs-as Va+Vb";
    const bad: [args: string, line: RegExp][] = [
      [`${points} --group so3`, /^error: --group so3: there is no algebra so3 .*R\^2; .*so\(2\)/],
      [`${points} --group nothing`, /^error: --group nothing: no run .*; give a run, .*so\(3\)/],
      [`${points} --group none.npy`, /^error: --group none\.npy: there is no such file/],
      [`${points} --group points.npy`, /^error: --group points\.npy: .* not square/],
      [`${pairs} --group turn.npy`, /^error: --group .*turn\.npy: .*2x2.* 4x4 \(Va in R\^2, /],
      [`${pairs} --group so2`, /^error: --group so2: one algebra for 2 groups; .*so\(2\) x so/],
      [`${points} --group affine --inputs-as C`, /^error: --group affine .*C has none; write X/],
      [`${points} --group affine --k 7`, /^error: --k 7: the group has 6 generators/],
      [`${pairs} --dimensions a=4`, /^error: no dimensions .* a=4: .*n_a \+ n_b .* data have 4/],
      [`${pairs} --dimensions c=3`, /^error: .*group c \(--dimensions\)/],
      [`${points} --inputs-as Sa`, /^error: 'Sa' .*scalar \(--inputs-as\); .*S in place of Sa/],
      [
        "--inputs turns.npy --targets turns.npy --inputs-as 2Va",
        /^error: no dimensions .*: 2Va has 2·n_a .* data have 3/,
      ],
    ];
    await refuses(
      bad.map(([args, line]) => [["discover", "--worker", worker, ...args.split(" ")], line]),
      { cwd: dir },
    );
  });

  it("says that a span which is no Lie algebra is none", async () => {
    const files = "--inputs points.npy --targets places.npy --epochs 1 --group open.npy";
    const { notes } = await run(files, "discover_algebra");
    expect(notes!.join()).to.match(/no Lie algebra: a bracket .* 100 % outside/);
  });
});
