/** Symmetries that are audited: names, elements, and how exact they are. */
import { expect } from "chai";
import { determinant, Matrix } from "ml-matrix";
import { describeAudit } from "../../../src/algebra/describe-audit.js";
import { UsageError } from "../../../src/errors.js";
import {
  type AuditedSymmetry,
  accuracyOf,
  checkPair,
  elementsOf,
  symmetryOn,
} from "../../../src/method/audit.js";
import type { Audit } from "../../../src/result.js";

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
