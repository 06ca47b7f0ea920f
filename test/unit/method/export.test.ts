/** Exports of symmetries: what is written, and what is refused. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { UsageError } from "../../../src/errors.js";
import { exportSymmetry, type SymmetryFormat } from "../../../src/method/export.js";
import { exactGroup } from "../../../src/method/export-libraries.js";
import type { Run } from "../../../src/run/folder.js";

const TURN = [
  [0, -1],
  [1, 0],
];
const algebra = {
  ...{ generators: [TURN], losses: [0.01], relativeErrors: [0.01], noiseFloor: 0 },
  ...{ symmetryCount: 1, explanation: "measured", readableBasis: [TURN] },
  ...{ closure: { max: 0, mean: 0 }, killingSignature: { positive: 0, negative: 0, zero: 1 } },
  identified: { name: "so(2)", cosine: 1, grassmannDistance: 0, angleDegrees: 0.5 },
};
const document = (more: object) => ({
  ...{ schema: "atlas.result/2", experiment: "pde", task: "discover", seed: 0, timings: {} },
  predictor: { loss: null, epochs: 0, source: "trained" },
  environment: { device: "cpu", threads: 1, versions: {} },
  ...more,
});

describe("an export of a symmetry", () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-export-"));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const run = (result: object | undefined) =>
    ({
      id: "one",
      path: join(dir, "run"),
      config: { experiment: "pde", seed: 0, created: "now", config: {} },
      result: async () => result,
      status: async () => "interrupted",
    }) as unknown as Run;
  const refused = async (result: object | undefined, format: SymmetryFormat = "json") => {
    const error = await exportSymmetry(run(result), join(dir, "out"), format).catch((e) => e);
    expect(error).to.be.instanceOf(UsageError);
    expect(existsSync(join(dir, "out"))).to.equal(false);
    return (error as UsageError).message;
  };

  it("has the matrices, a README, and for torch a file with these matrices", async () => {
    const out = join(dir, "out");
    const told = await exportSymmetry(run(document({ algebra })), out, "torch");
    expect(told).to.include({ name: "so(2)", generators: 1, verdict: "not judged" });
    const written = JSON.parse(readFileSync(join(out, "symmetry.json"), "utf8"));
    expect(written.generators).to.deep.equal([TURN]);
    expect(written.accuracy).to.be.closeTo((0.5 * Math.PI) / 180, 1e-6);
    const code = readFileSync(join(out, "symmetry.py"), "utf8");
    expect(code)
      .to.match(/COMPONENTS: .* = \[\]/)
      .and.match(/NAME = "so\(2\)"/);
    expect(readFileSync(join(out, "README.md"), "utf8")).to.include("no evidence");
    await exportSymmetry(run(document({ algebra })), out, "json", { force: true });
    expect(existsSync(join(out, "symmetry.py"))).to.equal(false);
  });

  it("is refused without a finished search that found something", async () => {
    expect(await refused(undefined)).to.include("no result yet");
    expect(await refused(document({}))).to.include("no symmetry");
    const none = { ...algebra, symmetryCount: 0 };
    expect(await refused(document({ algebra: none }))).to.include("measured");
  });

  it("is refused for torch where points are translated", async () => {
    const factors = [{ name: "", n: 1, affine: true, map: false }];
    const affine = { ...algebra, factors };
    expect(await refused(document({ algebra: affine }), "torch")).to.include("translates");
  });

  const code = async (result: object, format: SymmetryFormat) => {
    const out = join(dir, format);
    await exportSymmetry(run(document(result)), out, format, { force: true });
    return readFileSync(join(out, "symmetry.py"), "utf8");
  };
  const bent = (matrices: number[][][]) =>
    matrices.map((m, i) =>
      m.map((row, r) => row.map((x, c) => x + 0.003 * Math.sin(i + r + 2 * c))),
    );
  const turned = (by: number, flip = 1) => [
    [Math.cos(by), -flip * Math.sin(by)],
    [Math.sin(by), flip * Math.cos(by)],
  ];
  const ONE = [turned(0)];
  const C3 = [1, 2].map((i) => turned((2 * Math.PI * i) / 3));
  const inversion = {
    ...{ matrix: [0, 1, 2].map((r) => [0, 1, 2].map((c) => (r === c ? -1 : 0))), loss: 0 },
    ...{ determinant: -1, order: 2, orderModuloIdentity: 2, preservesMetric: true },
    name: "inversion",
  };
  const finite = (elements: number[][][], name: string) => ({
    cosets: [inversion],
    group: {
      ...{ finite: true, name, order: elements.length, elementOrders: [], elements, losses: [] },
      ...{ spread: 0.01, smallestDistance: 1, rejected: 0, resolved: true, explanation: "" },
    },
  });
  const SO3 = [0, 1, 2].map((k) => {
    const [i, j] = [(k + 1) % 3, (k + 2) % 3];
    return [0, 1, 2].map((r) =>
      [0, 1, 2].map((c) => Number(r === j && c === i) - Number(r === i && c === j)),
    );
  });
  const space = { ...algebra, generators: SO3, symmetryCount: 3, readableBasis: SO3 };
  const so3 = { ...space, identified: { ...algebra.identified, name: "so(3)" } };
  it("is a group of the plane for escnn, whose mirrors keep their axis", async () => {
    expect(await code({ algebra }, "escnn")).to.match(/^TURNS = -1\nMIRROR = None$/m);
    const c3 = await code(finite([...ONE, ...bent(C3)], "C_3"), "escnn");
    expect(c3).to.match(/^TURNS = 3\nMIRROR = None$/m);
    const mirrors = [0, 1, 2].map((i) => turned(0.7 + (2 * Math.PI * i) / 3, -1));
    const d3 = await code(finite([...ONE, ...bent([...C3, ...mirrors])], "D_3"), "escnn");
    expect(Number(d3.match(/^TURNS = 3\nMIRROR = (.*)$/m)?.[1])).to.be.closeTo(0.35, 0.01);
  });

  it("is refused for escnn on other axes, with the change that helps, and off the plane", async () => {
    const other = C3.map((m) => [
      [m[0]![0]!, 2 * m[0]![1]!],
      [m[1]![0]! / 2, m[1]![1]!],
    ]);
    const words = await refused(document(finite([...ONE, ...other], "C_3")), "escnn");
    expect(words).to.match(/Q = \[\[0\.7071, -?0\.0000\], \[-?0\.0000, 1\.4142\]\]/);
    expect(await refused(document({ algebra: so3 }), "escnn")).to.include("3 coordinates");
    const spiral = { ...algebra, generators: [turned(1.2)] };
    expect(await refused(document({ algebra: spiral }), "escnn")).to.include("escnn knows");
  });

  it("is in the frame of e3nn, with mirrors if there are any", async () => {
    const stretch = (m: number[][]) =>
      m.map((row, r) => row.map((x, c) => (x * [1, 2, 3][r]!) / [1, 2, 3][c]!));
    const stretched = { ...so3, generators: SO3.map(stretch) };
    const text = await code({ algebra: stretched }, "e3nn");
    expect(text).to.include("MIRRORS = False");
    const q = JSON.parse(
      text
        .match(/^Q = ([\s\S]*?)\n\]/m)![1]!
        .replace(/,\s*$/, "")
        .concat("]"),
    );
    for (const [i, scale] of [1, 2, 3].entries())
      expect(q[i][i] * scale).to.be.closeTo(6 ** (1 / 3), 1e-9);
    expect(await code({ algebra: so3, cosets: [inversion] }, "e3nn")).to.include("MIRRORS = True");
    expect(await refused(document({ algebra }), "e3nn")).to.include("e3nn knows so(3) and O(3)");
  });

  it("is a group to rounding for emlp, or says that it is none", async () => {
    const near = { ...algebra, generators: bent([TURN]) };
    const mirror = { ...inversion, matrix: bent([turned(0.4, -1)])[0]!, name: "reflection" };
    const text = await code({ algebra: near, cosets: [mirror] }, "emlp");
    expect(text).to.include("EXACT = True");
    const found = JSON.parse(
      text
        .match(/^DISCRETE = ([\s\S]*?)^\]/m)![1]!
        .replace(/,(\s*\])/g, "$1")
        .replace(/,\s*$/, "]"),
    )[0];
    expect(found[0][0] ** 2 + found[1][0] ** 2).to.be.closeTo(1, 1e-12);
    const group = exactGroup([...ONE, ...bent(C3)])!;
    const [, g, h] = group as [number[][], number[][], number[][]];
    const product = g.map((row) => [0, 1].map((c) => row[0]! * h[0]![c]! + row[1]! * h[1]![c]!));
    expect(Math.abs(product[0]![1]!) + Math.abs(product[0]![0]! - 1)).to.be.lessThan(1e-12);
    const unnamed = {
      ...algebra,
      generators: [
        [
          [1, 1],
          [0, 1.5],
        ],
      ],
    };
    expect(await code({ algebra: unnamed }, "emlp")).to.include("EXACT = False");
    const factors = [{ name: "", n: 1, affine: true, map: false }];
    expect(await refused(document({ algebra: { ...algebra, factors } }), "emlp")).to.include(
      "translates",
    );
  });

  it("does not go into a folder of others", async () => {
    writeFileSync(join(dir, "notes.txt"), "mine");
    const made = exportSymmetry(run(document({ algebra })), dir, "json", { force: true });
    expect(await made.catch((e) => e)).to.be.instanceOf(UsageError);
    expect(existsSync(join(dir, "symmetry.json"))).to.equal(false);
  });
});
