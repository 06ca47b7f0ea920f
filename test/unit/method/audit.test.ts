/** Symmetries that are audited: names, elements, and how exact they are. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { determinant, Matrix } from "ml-matrix";
import { describeAudit } from "../../../src/algebra/describe-audit.js";
import { UsageError } from "../../../src/errors.js";
import { RunLookup } from "../../../src/experiment/lookup.js";
import {
  type AuditedSymmetry,
  accuracyOf,
  checkPair,
  elementsOf,
  lookUpAudited,
  symmetryOn,
} from "../../../src/method/audit.js";
import { exportSymmetry } from "../../../src/method/export.js";
import type { Audit } from "../../../src/result.js";
import type { Run } from "../../../src/run/folder.js";

const quiet = { note: () => undefined, info: () => undefined };
const on = (n: number) => ({
  facts: { groups: [{ name: "", n, affine: false, map: false }] },
});

describe("a symmetry to audit", () => {
  it("is a named group, with the components that its algebra lacks", () => {
    const o3 = symmetryOn(quiet, "o(3)", on(3));
    expect(o3.generators).to.have.length(3);
    expect(o3.components.map((m) => Math.round(determinant(new Matrix(m))))).to.deep.equal([-1]);
    const lorentz = symmetryOn(quiet, "o(1,3)", on(4));
    expect([lorentz.generators.length, lorentz.components.length]).to.deep.equal([6, 2]);
    expect(symmetryOn(quiet, "so(3)", on(3)).components).to.have.length(0);
    expect(symmetryOn(quiet, "d(4)", on(2)).components).to.have.length(4);
  });

  it("permutes components with matrices that have one 1 in each row and column", () => {
    for (const n of [2, 3, 5, 6])
      for (const m of symmetryOn(quiet, "permutations", on(n)).components)
        for (let i = 0; i < n; i++) {
          expect(m[i]!.reduce((a, b) => a + b)).to.equal(1);
          expect(m.reduce((sum, row) => sum + row[i]!, 0)).to.equal(1);
        }
  });

  it("is refused if it does not fit the data, by the name of its flag", () => {
    const given: AuditedSymmetry = {
      ...{ source: "run", accuracy: 0, components: [] },
      generators: [
        [
          [0, -1],
          [1, 0],
        ],
      ],
    };
    for (const wrong of ["so(4)", "d(4)", given])
      expect(() => symmetryOn(quiet, wrong, on(3)))
        .to.throw(UsageError)
        .with.property("message")
        .that.includes("--symmetry");
  });

  it("turns by stated angles, whatever the size of a generator", () => {
    const generators = [
      [
        [0, -0.7],
        [0.7, 0],
      ],
    ];
    const symmetry = { source: "", generators, components: [], accuracy: 0 };
    const quarter = elementsOf(symmetry).find(({ name }) => name.includes("90°"))!.matrix;
    expect(quarter[0]![0]).to.be.closeTo(0, 1e-9);
    expect(quarter[1]![0]).to.be.closeTo(1, 1e-9);
  });

  it("is exact if nothing was learnt", () => {
    expect(accuracyOf({})).to.equal(0);
  });
});

describe("a symmetry to audit that is in a file", () => {
  const turn = [[0, -1], [1, 0]]; // biome-ignore format: a matrix
  const flip = [[1, 0], [0, -1]]; // biome-ignore format: a matrix
  const swap = [[0, 1], [1, 0]]; // biome-ignore format: a matrix
  const coset = (name: string, matrix: number[][], verdict?: string) => ({
    ...{ name, matrix, loss: 0.01, determinant: -1, order: 2, orderModuloIdentity: 2 },
    ...{ preservesMetric: null, relativeError: 0.1, identityAngle: null },
    ...(verdict && {
      evidence: {
        ...{ verdict, words: verdict, size: null, elsewhere: null },
        ...{ lost: { value: null, low: null, high: null }, broken: { low: null, high: null } },
      },
    }),
  });
  const algebra = {
    ...{ generators: [turn], losses: [0.01], relativeErrors: [0.01], noiseFloor: 0 },
    ...{ symmetryCount: 1, explanation: "measured", readableBasis: [turn] },
    ...{ closure: { max: 0, mean: 0 }, killingSignature: { positive: 0, negative: 0, zero: 1 } },
    identified: { name: "so(2)", cosine: 1, grassmannDistance: 0, angleDegrees: 1 },
  };
  const result = (more: object) => ({
    ...{ schema: "atlas.result/2", experiment: "pde", task: "discover", seed: 0, timings: {} },
    predictor: { loss: null, epochs: 0, source: "trained" },
    environment: { device: "cpu", threads: 1, versions: {} },
    ...more,
  });

  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-audited-"));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));
  const written = (document: object) => {
    const file = join(dir, "result.json");
    writeFileSync(file, JSON.stringify(document));
    return file;
  };
  const lookUp = async (given: string) => {
    const found = await lookUpAudited(new RunLookup(dir, () => undefined), given);
    expect(found).to.be.an("object");
    return found as AuditedSymmetry;
  };

  it("has the file's components, and tells of those in doubt", async () => {
    const cosets = [coset("identity", turn), coset("reflection", flip), coset("swap", swap)];
    const all = await lookUp(written(result({ algebra, cosets })));
    expect(all.components).to.deep.equal([flip, swap]);
    expect(all.accuracy).to.be.closeTo(0.02, 1e-9); // nothing tells how exact the components are
    cosets[2] = coset("swap", swap, "cannot tell");
    const certain = await lookUp(written(result({ algebra, cosets })));
    expect(certain.components).to.deep.equal([flip]);
    const notes: string[] = [];
    symmetryOn({ ...quiet, note: (line) => void notes.push(line) }, certain, on(2));
    expect(notes.join()).to.include("1 component is left out");
  });

  it("is as exact as the file says, if it says so", async () => {
    const cosets = [coset("identity", turn)];
    const { accuracy } = await lookUp(written(result({ algebra, cosets })));
    expect(accuracy).to.be.closeTo(Math.PI / 180, 1e-9);
    expect((await lookUp(written([turn]))).accuracy).to.be.below(1e-9);
    const partial = { algebra: { generators: [turn], symmetryCount: 1 } };
    expect(await lookUp(written(partial))).to.include({ accuracy: 0 });
    const half = await lookUp(written({ ...partial, cosets: [coset("reflection", flip)] }));
    expect([half.accuracy, half.components]).to.deep.equal([0.02, [flip]]);
  });

  it("is that of an export, with its components", async () => {
    const found = result({ algebra, cosets: [coset("reflection", flip)] });
    const run = {
      ...{ id: "one", path: dir, result: async () => found },
      config: { experiment: "pde", seed: 0, created: "now", config: {} },
    };
    const out = join(dir, "out");
    await exportSymmetry(run as unknown as Run, out, "json");
    const taken = await lookUp(join(out, "symmetry.json"));
    expect(taken.components).to.deep.equal([flip]);
    expect(taken.accuracy).to.be.closeTo(0.02, 1e-9);
  });

  it("is refused if its components cannot be understood, or nothing is in it", async () => {
    const refused = async (document: object) => {
      const error = await lookUp(written(document)).catch((e) => e);
      expect(error).to.be.instanceOf(UsageError);
      return (error as UsageError).message;
    };
    const of = { generators: [turn], symmetryCount: 1 };
    const cut = { algebra: of, cosets: [{ name: "half" }] };
    expect(await refused(cut)).to.match(/--symmetry .*cosets\.0\.matrix/);
    const wide = { algebra: of, cosets: [{ name: "half", matrix: [[1, 0]] }] };
    expect(await refused(wide)).to.match(/--symmetry .*half is not square/);
    const unsure = [coset("reflection", flip, "cannot tell")];
    const empty = { algebra: { ...of, symmetryCount: 0 }, cosets: unsure };
    expect(await refused(empty)).to.match(/no symmetry.*1 component is left out/);
  });
});

describe("a pair of checkpoints", () => {
  it("is refused if one is missing, or has no module to go into", () => {
    const predictor = "net.py:load";
    expect(() => checkPair({ predictor, before: "old.pt" })).to.throw(UsageError, "--before");
    expect(() => checkPair({ predictor: "net.pt", weights: "new.pt" })).to.throw(UsageError);
    checkPair({ predictor, before: "old.pt", weights: "new.pt" });
    checkPair({ predictor: "net.pt", before: "old.pt" });
  });
});

describe("the description of an audit", () => {
  const layer = (name: string, error: number, breaks: boolean) => ({
    ...{ name, kind: "Linear", shape: [3], movedAs: "V", repaired: null, added: 0, breaks },
    ...{ errors: [error], floors: [1e-6] },
  });
  const audit: Audit = {
    symmetry: "so(3)",
    elements: [{ name: "turn", matrix: [[1]], size: 0.5, error: 0.2, floor: 1e-6 }],
    ...{ judged: 0, broken: true, layer: "b", worst: [{ sample: 7, error: 0.4 }] },
    layers: [layer("a", 1e-7, false), layer("b", 0.3, true)],
  };

  it("names the layer, and marks it in the list", () => {
    const lines = describeAudit(audit);
    expect(lines[0]![1]).to.include("layer b").and.include("so(3)");
    const marked = lines.filter(([, text]) => text.startsWith("→"));
    expect(marked.map(([, text]) => text.includes("b"))).to.deep.equal([true]);
    expect(lines.at(-1)![1]).to.include("sample 7");
  });

  it("tells the errors before a training beside those after it", () => {
    const before = { errors: [0.1], broken: false, layer: null, layers: audit.layers };
    expect(describeAudit({ ...audit, before })[0]![1]).to.include("before the training");
  });
});
