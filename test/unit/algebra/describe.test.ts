import { expect } from "chai";
import {
  analyseAlgebra,
  analyseCosets,
  analyseGroup,
  describeResult,
  multiplicationTable,
} from "../../../src/algebra/index.js";
import { Result } from "../../../src/result.js";
import { equivariant, lorentz, nothing, planar, result, rotations } from "../report/results.js";
import { diagonal, measured } from "./helpers.js";

describe("a result in words", () => {
  it("names the algebra with its angle, shows the generator as learnt, names cosets", () => {
    expect(describeResult(planar())).to.deep.equal([
      "algebra so(2), cosine 0.9998 (1.1°), 1 generator, loss 0.0312 (interpolation alone: 0.0300)",
      "        [[-0.02, -1.00], [1.00, 0.02]]",
      "cosets  identity, reflection",
      "        [[1.00, 0.00], [0.00, 1.00]]  identity, loss 0.0300",
      "        [[1.00, 0.00], [0.00, -1.00]]  reflection, loss 0.0310",
    ]);
  });

  it("of several generators shows a readable basis, structure, metric, and scores", () => {
    const text = describeResult(lorentz()).join("\n");
    expect(text).to.match(
      /^algebra so\(1,3\)⊕R, cosine 0\.99\d+ \(\d\.\d°\), 7 generators, loss up to 0\.0700/,
    );
    expect(text).to.contain("Killing signature (3, 3, 1)");
    expect(text).to.match(/metric {2}\[\[1\.\d\d, .*residual 0\.0\d+, up to scale/);
    expect(text).to.contain("cosets  identity, parity");
    expect(text).to.contain("metrics accuracy 0.9412, auc 0.9865, undefined_here –");
    expect(text).to.contain("note    The predictor limits the angle.");
  });

  it("says that nothing was found, and why; or that only discrete symmetries were", () => {
    expect(describeResult(nothing())).to.deep.equal([
      "algebra no symmetry found: the best is far above the noise floor",
    ]);
    const discrete = result({
      algebra: analyseAlgebra(
        measured([], { explanation: "no direction is near the noise floor" }),
      ),
      cosets: analyseCosets({ matrices: [diagonal(1, 1), diagonal(-1, -1)], losses: [0, 0] }, []),
    });
    expect(describeResult(discrete).slice(0, 2)).to.deep.equal([
      "algebra no continuous symmetry found: no direction is near the noise floor",
      "cosets  identity, −I",
    ]);
  });

  it("names the group that the components make, or says why there is none", () => {
    const square = [0, 1, 2, 3].map((i) => diagonal((-1) ** i, i < 2 ? 1 : -1));
    const measured = {
      matrices: square,
      losses: [0, 0, 0, 0],
      table: multiplicationTable(square),
      spread: 0.01,
      smallestDistance: 2,
      rejected: 0,
      resolved: true,
      explanation: "4 elements",
    };
    const line = (resolved: boolean, finite: boolean) =>
      describeResult(
        result({
          group: analyseGroup({ ...measured, resolved, explanation: "too near" }, finite),
        }),
      );
    expect(line(true, true)).to.deep.equal([
      "group   D_2 (abstractly C_2 × C_2), 4 elements: the identity, 3 of order 2",
    ]);
    expect(line(true, false)).to.deep.equal(["group   the 4 components make the group C_2 × C_2"]);
    const open = analyseGroup({ ...measured, table: [[-1]], resolved: false }, false);
    expect(open).to.include({ name: "not resolved" }).and.deep.include({ elementOrders: [] });
    expect(line(false, true)).to.deep.equal(["group   too near"]);
  });

  it("says where each search of a whole sphere ended, and how far apart", () => {
    const document = rotations();
    const [still, turning] = document.globalRotations!.searches.map(({ axisSpread }) =>
      axisSpread?.toFixed(0),
    );
    expect(describeResult(document)).to.deep.equal([
      "search  liegan, cosine weight 0: angles of 0.019 rad (standard deviation), " +
        `axes ${still}° apart (at random 57°)`,
      "        0.0020 rad about [1.00, 0.05, 0.00], 0.25 from its start, told apart 0.00",
      "        0.040 rad about [0.00, -0.01, 1.00], 0.25 from its start, told apart 0.10",
      "        0.017 rad about [0.58, 0.58, -0.58], 0.25 from its start, told apart 0.20",
      "        0.0 rad about [0.00, 0.00, 1.00], 0.25 from its start, told apart 0.30",
      "        0.036 rad about [0.83, -0.55, 0.00], 0.25 from its start, told apart 0.40",
      "search  liegan, cosine weight 1: angles of 1.5 rad (standard deviation), " +
        `axes ${turning}° apart (at random 57°)`,
      "        1.5 rad about [0.00, 0.00, 1.00], 0.25 from its start, told apart 0.00",
      "        0.99 rad about [0.71, -0.71, 0.00], 0.25 from its start, told apart 0.10",
      "        0.98 rad about [0.00, 0.91, -0.41], 0.25 from its start, told apart 0.20",
      "        0.87 rad about [0.58, 0.58, 0.58], 0.25 from its start, told apart 0.30",
      "        3.0 rad about [1.00, 0.00, 0.00], 0.25 from its start, told apart 0.40",
      "search  liegan, cosine weight 0.5: angles of 1.0 rad (standard deviation)",
      "        1.0 rad about [0.60, 0.00, 0.80], 0.25 from its start, told apart 0.00",
    ]);
  });

  it("says how equivariant a model is, matrix by matrix", () => {
    const [metrics, errors, ...others] = describeResult(equivariant());
    expect(metrics).to.equal("metrics accuracy 0.97, parameters 1234567");
    expect(errors).to.match(/^errors .*: rotation by 90° 0\.0 \(0\.0\), /);
    expect(errors).to.match(/, shear & <stretch> 0\.54 \(0\.12\)$/);
    expect(others).to.deep.equal([]);
  });

  it("does not claim a name that is not deserved", () => {
    const spiral = [
      [0.5, -2],
      [0.5, 0.5],
    ];
    const [line] = describeResult(result({ algebra: analyseAlgebra(measured([spiral])) }));
    expect(line).to.match(
      /^algebra unidentified \(nearest: [a-z ]+, cosine 0\.\d{4} \(\d+\.\d°\)\), 1 generator/,
    );
  });

  it("never rounds a cosine up to 1, nor prints −0", () => {
    const nearly = [
      [-1e-4, -1],
      [1, 1e-4],
    ];
    const lines = describeResult(result({ algebra: analyseAlgebra(measured([nearly])) })).join(
      "\n",
    );
    expect(lines).to.match(/cosine 0\.9{8}\d* \(0\.0°\)/);
    expect(lines).to.contain("[[0.00, -1.00], [1.00, 0.00]]");
  });
});

describe("result schema", () => {
  it("takes what was written as JSON back as it is", () => {
    for (const document of [planar(), lorentz(), nothing(), rotations(), equivariant(), result()])
      expect(JSON.stringify(Result.parse(JSON.parse(JSON.stringify(document))))).to.equal(
        JSON.stringify(document),
      );
  });

  it("keeps a candidate that diverged, as null", () => {
    expect(planar().cosetSearch?.candidates.at(-1)).to.deep.equal({
      matrix: [[null]],
      loss: null,
      outcome: "not_a_symmetry",
    });
  });

  it("refuses a document of another version", () => {
    expect(Result.safeParse({ ...result(), schema: "atlas.result/0" }).success).to.equal(false);
  });
});
