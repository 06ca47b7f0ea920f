import { expect } from "chai";
import fc from "fast-check";
import { analyseAlgebra, metricCosine } from "../../../src/algebra/index.js";
import { multiply } from "../../../src/algebra/linalg.js";
import { analyse, diagonal, measured, mixed, named, noisy, seeds } from "./helpers.js";

const MINKOWSKI = diagonal(1, -1, -1, -1);

describe("the metric of a result", () => {
  it("is compared with that of the named algebra that was identified, in any basis", () => {
    fc.assert(
      fc.property(seeds, fc.constantFrom("so(1,3)", "so(1,3)⊕R"), (seed, name) => {
        const { invariantMetric, identified } = analyse(mixed(named(name, 4), seed));
        expect(identified.name).to.equal(name);
        expect(invariantMetric!.cosine).to.be.closeTo(1, 1e-9);
      }),
      { numRuns: 20 },
    );
  });

  it("has a cosine below 1 for a perturbed Lorentz algebra, as far as its metric is off", () => {
    let before = 1;
    for (const size of [0.01, 0.03, 0.1]) {
      const { invariantMetric, identified } = analyse(noisy(named("so(1,3)", 4), size, 5));
      expect(identified.name).to.equal("so(1,3)");
      const { cosine, matrix } = invariantMetric!;
      expect(cosine).to.be.closeTo(metricCosine(matrix, MINKOWSKI), 1e-12);
      expect(cosine).to.be.below(before);
      expect(1 - cosine!).to.be.below(4 * size ** 2);
      before = cosine!;
    }
  });

  it("has the cosine that a stretch of time by t gives: (1/t² + 3) / 2√(1/t⁴ + 3)", () => {
    for (const t of [1.1, 1.2]) {
      const stretched = named("so(1,3)", 4).map((b) =>
        multiply(diagonal(t, 1, 1, 1), b, diagonal(1 / t, 1, 1, 1)),
      );
      const { invariantMetric, identified } = analyse(stretched);
      expect(identified.name).to.equal("so(1,3)");
      const expected = (t ** -2 + 3) / (2 * Math.sqrt(t ** -4 + 3));
      expect(invariantMetric!.cosine).to.be.closeTo(expected, 1e-9);
    }
  });

  it("has no cosine where no name, or none of these coordinates, was found", () => {
    const stretch = diagonal(2.5, 1, 0.8, 0.6);
    const inverse = diagonal(1 / 2.5, 1, 1 / 0.8, 1 / 0.6);
    const { invariantMetric, identified } = analyse(
      named("so(1,3)", 4).map((b) => multiply(stretch, b, inverse)),
    );
    expect(identified.name).to.equal("so(1,3) up to a change of basis");
    expect(invariantMetric).to.not.equal(undefined);
    expect(invariantMetric!.cosine).to.equal(undefined);
    expect(analyse([]).invariantMetric).to.equal(undefined);
  });

  it("is of the symmetries alone, not of the other generators", () => {
    const seven = [...named("so(1,3)", 4), diagonal(1, 2, 3, 4)];
    const algebra = analyseAlgebra(measured(seven, { symmetryCount: 6 }));
    expect(algebra.generators).to.have.length(7);
    expect(algebra.identified.name).to.equal("so(1,3)");
    expect(algebra.invariantMetric!.cosine).to.be.closeTo(1, 1e-12);
    expect(analyseAlgebra(measured(seven, { symmetryCount: 9 })).symmetryCount).to.equal(7);
  });
});
