import { expect } from "chai";
import fc from "fast-check";
import {
  analyseAlgebra,
  catalogue,
  metricCosine,
  namedAlgebra,
  namedAlgebras,
} from "../../../src/algebra/index.js";
import { expm, invert, multiply } from "../../../src/algebra/linalg.js";
import {
  analyse,
  diagonal,
  measured,
  mixed,
  named,
  noisy,
  normals,
  randomMatrix,
  seeds,
} from "./helpers.js";

describe("named algebras", () => {
  it("are found however the name is written", () => {
    for (const name of ["so(1,3)⊕R", "SO(1,3)+R", " so( 1, 3 ) ⊕ ℝ", "Lorentz + r"])
      expect(namedAlgebra(name, 4), name).to.have.length(7);
    expect(namedAlgebra("none", 2)).to.deep.equal([]);
    expect(namedAlgebra("Trivial", 2)).to.deep.equal([]);
    expect(namedAlgebra("scaling", 2)).to.deep.equal([diagonal(1, 1)]);
    expect(namedAlgebra("so(2)", 2)).to.deep.equal([
      [
        [0, -1],
        [1, 0],
      ],
    ]);
    expect(namedAlgebra("so(3)", 2)).to.equal(undefined);
    expect(namedAlgebra("", 2)).to.equal(undefined);
    expect(namedAlgebra("latest", 2)).to.equal(undefined);
  });

  it("have the dimensions of the textbooks, and names of their own", () => {
    for (const [name, n, k] of [
      ["so(4)", 4, 6],
      ["so(2,2)⊕R", 4, 7],
      ["sl(3)", 3, 8],
      ["gl(4)", 4, 16],
      ["sp(4)", 4, 10],
      ["upper triangular", 3, 6],
      ["so(5)", 5, 10],
    ] as const)
      expect(namedAlgebra(name, n), name).to.have.length(k);
    for (const n of [1, 2, 3, 4, 6])
      expect(new Set(namedAlgebras(n)).size).to.equal(namedAlgebras(n).length);
  });
});

describe("identification", () => {
  for (const n of [2, 3, 4])
    it(`names every algebra of the catalogue for n = ${n}, in any basis`, () => {
      for (const { name, basis } of catalogue(n)) {
        if (basis.length === 0) continue;
        const { identified } = analyse(mixed(basis, 11));
        expect(identified.name).to.equal(name);
        expect(identified.angleDegrees, name).to.be.below(1e-4);
      }
    });

  it("does not depend on the basis of the span", () => {
    fc.assert(
      fc.property(
        seeds,
        fc.constantFrom("so(3)", "so(1,2)⊕R", "sl(3)", "so(2) on axes 1,3"),
        (seed, name) => {
          const learnt = noisy(named(name, 3), 0.02, seed);
          const once = analyse(learnt).identified;
          const again = analyse(mixed(learnt, seed + 1)).identified;
          expect(once.name).to.equal(name);
          expect(again.name).to.equal(name);
          expect(again.grassmannDistance).to.be.closeTo(once.grassmannDistance, 1e-6);
          expect(again.cosine).to.be.closeTo(once.cosine, 1e-6);
        },
      ),
      { numRuns: 30 },
    );
  });

  it("says how far off a generator is", () => {
    const [t, ratio] = [(2.5 * Math.PI) / 180, Math.SQRT1_2];
    const learnt = [
      [ratio * Math.sin(t), -ratio * Math.cos(t)],
      [ratio * Math.cos(t), ratio * Math.sin(t)],
    ];
    const { identified, generators } = analyse([learnt]);
    expect(identified).to.include({ name: "so(2)", nearest: "so(2)" });
    expect(identified.angleDegrees).to.be.closeTo(2.5, 1e-9);
    expect(identified.grassmannDistance).to.be.closeTo(t, 1e-12);
    expect(identified.cosine).to.be.closeTo(Math.cos(t), 1e-12);
    expect(generators).to.deep.equal([learnt]);
  });

  it("finds what noise and uneven norms leave recognisable", () => {
    const { identified, invariantMetric, killingSignature } = analyse(
      noisy(mixed(named("so(1,3)⊕R", 4), 2), 0.02, 9),
    );
    expect(identified.name).to.equal("so(1,3)⊕R");
    expect(identified.grassmannDistance).to.be.within(0.001, 0.3);
    expect(invariantMetric?.signature).to.deep.equal([1, 3]);
    expect(killingSignature).to.deep.equal({ positive: 3, negative: 3, zero: 1 });
  });

  for (const [n, k] of [
    [2, 1],
    [2, 2],
    [2, 3],
    [3, 1],
    [3, 3],
    [4, 1],
    [4, 6],
    [4, 7],
  ] as const)
    it(`calls random spans of ${k} in gl(${n}) unidentified, all but a few`, function () {
      this.timeout(20_000);
      const trials = n === 4 ? 40 : 200;
      let named = 0;
      for (let seed = 0; seed < trials; seed++) {
        const draw = normals(1000 + seed);
        const { name, nearest } = analyse(
          Array.from({ length: k }, () => randomMatrix(n, draw)),
        ).identified;
        if (name !== "unidentified") named++;
        else if (nearest !== undefined) expect(namedAlgebras(n)).to.include(nearest);
      }
      expect(named / trials).to.be.at.most(n === 2 ? 0.06 : 0.01);
    });

  it("recognises rotations and the Lorentz group in other coordinates, by their metric", () => {
    fc.assert(
      fc.property(
        seeds,
        fc.constantFrom(["so(2)", 2], ["so(3)", 3], ["so(1,3)⊕R", 4]),
        (seed, [name, n]) => {
          const draw = normals(seed);
          const s = expm(randomMatrix(Number(n), () => 0.08 * draw()));
          s[0] = s[0]!.map((x) => 1.7 * x);
          const { identified, invariantMetric } = analyse(
            named(String(name), Number(n)).map((b) => multiply(s, b, invert(s))),
          );
          // The milder changes leave it near enough to the algebra itself.
          if (identified.name !== name) {
            expect(identified.name).to.equal(`${name} up to a change of basis`);
            expect(identified.angleDegrees).to.be.below(1e-4);
          }
          expect(invariantMetric).to.not.equal(undefined);
        },
      ),
      { numRuns: 30 },
    );
  });

  it("names a stretched rotation by its own metric, and the nearest name as it is", () => {
    const { identified, invariantMetric } = analyse([
      [
        [0, -2],
        [0.5, 0],
      ],
    ]);
    expect(identified.name).to.equal("so(2) up to a change of basis");
    expect(identified.nearest).to.equal("strictly upper triangular");
    expect(metricCosine(invariantMetric!.matrix, diagonal(1, 4))).to.be.closeTo(1, 1e-12);
  });

  it("calls neither a spiral a rotation, nor a generator that keeps no metric", () => {
    const spiral = [
      [0.5, -2],
      [0.5, 0.5],
    ];
    expect(analyse([spiral]).identified.name).to.equal("unidentified");
  });

  it("is of the first `symmetryCount` generators; none of them is no symmetry", () => {
    const generators = [...named("so(2)", 2), diagonal(1, 0.3)];
    const one = analyseAlgebra(measured(generators, { symmetryCount: 1 }));
    expect([one.identified.name, one.readableBasis.length, one.generators.length]).to.deep.equal([
      "so(2)",
      1,
      2,
    ]);
    const none = analyseAlgebra(
      measured(generators, { symmetryCount: 0, explanation: "far above the noise floor" }),
    );
    expect(none.identified.name).to.equal("none");
    expect(none).to.deep.include({
      readableBasis: [],
      killingSignature: { positive: 0, negative: 0, zero: 0 },
    });
    expect(none.invariantMetric).to.equal(undefined);
    expect(none.generators).to.equal(generators);
  });

  it("does not fall over generators that repeat or vanish", () => {
    const [rotation] = named("so(2)", 2);
    expect(analyse([rotation!, rotation!]).identified.name).to.equal("so(2)");
    expect(analyse([diagonal(0, 0)]).identified.name).to.equal("none");
  });
});
