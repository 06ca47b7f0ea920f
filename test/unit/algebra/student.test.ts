import { expect } from "chai";
import { exactAlgebra, meanInterval, namedAlgebra, ratioInterval } from "../../../src/index.js";

describe("intervals of a few runs", () => {
  it("are Student's, and unbounded for one run", () => {
    const { value, low, high } = meanInterval([1, 2, 3]);
    expect(value).to.equal(2);
    expect(high - value).to.be.closeTo(4.303 / Math.sqrt(3), 1e-9); // t with 2 degrees of freedom
    expect(value - low).to.be.closeTo(high - value, 1e-12);
    expect(meanInterval([4]).high).to.equal(Number.POSITIVE_INFINITY);
  });

  it("of ratios are those of the logarithms", () => {
    const { value, low, high } = ratioInterval([1, 4], [2, 2]);
    expect(value).to.be.closeTo(1, 1e-12);
    expect(low * high).to.be.closeTo(1, 1e-9);
  });
});

describe("the exact algebra of a learnt one", () => {
  it("is the named one, with its angle", () => {
    const learnt = namedAlgebra("so(3)", 3)!.map((m) => m.map((row, i) => row.map((x, j) => x + (i === j ? 0.01 : 0)))); // biome-ignore format: one line
    const { name, basis, angleDegrees } = exactAlgebra(learnt)!;
    expect(name).to.equal("so(3)");
    expect(basis).to.have.length(3);
    expect(angleDegrees).to.be.within(0.1, 3);
  });

  it("has its name in coordinates in which the components are of the same size", () => {
    const turn = [
      [0, -100],
      [0.01, 0],
    ];
    const coordinates = [
      [0.1, 0],
      [0, 10],
    ];
    expect(exactAlgebra([turn])!.name).to.not.equal("so(2)");
    const { name, basis, angleDegrees } = exactAlgebra([turn], { coordinates })!;
    expect(name).to.equal("so(2)");
    expect(angleDegrees).to.be.below(1e-4);
    expect(basis[0]![0]![1]! / basis[0]![1]![0]!).to.be.closeTo(-1e4, 1e-4);
  });

  it("is found factor by factor in a product", () => {
    const factors = [
      { name: "a", n: 2, affine: false, map: false },
      { name: "b", n: 2, affine: false, map: false },
    ];
    const turn = (at: number) =>
      [0, 1, 2, 3].map((i) => [0, 1, 2, 3].map((j) => (i === at && j === at + 1 ? -1 : j === at && i === at + 1 ? 1 : 0))); // biome-ignore format: one line
    expect(exactAlgebra([turn(0), turn(2)], { factors })!.name).to.equal(
      "so(2) on Va ⊕ so(2) on Vb",
    );
  });
});
