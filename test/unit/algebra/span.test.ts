import { expect } from "chai";
import fc from "fast-check";
import {
  bracket,
  catalogue,
  closure,
  expm,
  frame,
  grassmannDistance,
  invariantMetric,
  keepingMetric,
  killingForm,
  killingSignature,
  logm,
  metricCosine,
  principalAngles,
  readableBasis,
} from "../../../src/algebra/index.js";
import {
  combine,
  identityMatrix,
  invert,
  multiply,
  norm,
  subtract,
  trace,
  transpose,
} from "../../../src/algebra/linalg.js";
import { diagonal, mixed, named, noisy, normals, randomMatrix, seeds } from "./helpers.js";

const MINKOWSKI = diagonal(1, -1, -1, -1);

describe("matrix exponential and logarithm", () => {
  it("give rotations and boosts", () => {
    for (const t of [0, 1e-9, 0.3, 2, 40]) {
      const [rotation] = named("so(2)", 2);
      const turned = [
        [Math.cos(t), -Math.sin(t)],
        [Math.sin(t), Math.cos(t)],
      ];
      expect(norm(subtract(expm(combine([t], [rotation!], 2)), turned))).to.be.below(1e-12);
    }
    const [boost] = named("so(1,1)", 2);
    expect(expm(combine([3], [boost!], 2))[0]![0]).to.be.closeTo(
      Math.cosh(3),
      1e-13 * Math.cosh(3),
    );
  });

  it("are inverse to each other where the logarithm is principal", () => {
    fc.assert(
      fc.property(seeds, fc.constantFrom(2, 3, 4), (seed, n) => {
        const draw = normals(seed);
        const a = randomMatrix(n, () => (0.6 * draw()) / n);
        expect(norm(subtract(logm(expm(a))!, a))).to.be.below(1e-11);
        expect(
          norm(subtract(multiply(expm(a), expm(combine([-1], [a], n))), identityMatrix(n))),
        ).to.be.below(1e-12);
      }),
      { numRuns: 50 },
    );
  });

  it("know when there is no real logarithm", () => {
    expect(logm(diagonal(1, -1))).to.equal(undefined);
    expect(logm(diagonal(1, 0))).to.equal(undefined);
    expect(logm([[Number.NaN]])).to.equal(undefined);
  });
});

describe("span", () => {
  it("has an orthonormal frame, without repeated or empty generators", () => {
    const [rotation] = named("so(2)", 2);
    const basis = frame([rotation!, combine([-3], [rotation!], 2), diagonal(0, 0), diagonal(1, 1)]);
    expect(basis).to.have.length(2);
    expect(norm(basis[1]!)).to.be.closeTo(1, 1e-14);
  });

  it("is closed exactly when it is a Lie algebra", () => {
    for (const n of [2, 3, 4])
      for (const { name, basis } of catalogue(n))
        expect(closure(basis).max, `${name} for n = ${n}`).to.be.below(1e-9);
    const draw = normals(5);
    expect(closure([randomMatrix(3, draw), randomMatrix(3, draw)]).max).to.be.above(0.5);
    const [x, y] = named("so(3)", 3);
    expect(closure([x!, y!]).max).to.be.closeTo(1, 1e-12); // [x, y] = z is wholly outside
  });

  it("is no less closed for noise in generators that commute", () => {
    expect(closure(noisy(named("so(2)⊕R", 2), 0.01, 1)).max).to.be.below(0.5);
  });

  it("obeys Jacobi's identity", () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const draw = normals(seed);
        const [a, b, c] = [0, 1, 2].map(() => randomMatrix(3, draw)) as [
          number[][],
          number[][],
          number[][],
        ];
        const sum = [
          bracket(a, bracket(b, c)),
          bracket(b, bracket(c, a)),
          bracket(c, bracket(a, b)),
        ];
        expect(norm(combine([1, 1, 1], sum, 3))).to.be.below(1e-11);
      }),
      { numRuns: 30 },
    );
  });
});

describe("Killing form", () => {
  it("has the closed forms (n−2) tr XY for so, 2n tr XY for sl, (n+2) tr XY for sp", () => {
    for (const [name, n, factor] of [
      ["so(3)", 3, 1],
      ["so(4)", 4, 2],
      ["so(1,3)", 4, 2],
      ["so(2,2)", 4, 2],
      ["sl(2)", 2, 4],
      ["sl(3)", 3, 6],
      ["sp(4)", 4, 6],
    ] as const) {
      const basis = frame(named(name, n));
      const form = killingForm(basis);
      for (const [i, x] of basis.entries())
        for (const [j, y] of basis.entries())
          expect(form[i]![j]!, name).to.be.closeTo(factor * trace(multiply(x, y)), 1e-10);
    }
  });

  for (const [name, n, signature] of [
    ["so(2)", 2, [0, 0, 1]],
    ["sl(2)", 2, [2, 1, 0]],
    ["gl(2)", 2, [2, 1, 1]],
    ["so(3)", 3, [0, 3, 0]],
    ["so(1,2)", 3, [2, 1, 0]],
    ["upper triangular", 2, [1, 0, 2]],
    ["so(1,3)", 4, [3, 3, 0]],
    ["so(1,3)⊕R", 4, [3, 3, 1]],
    ["so(4)", 4, [0, 6, 0]],
    ["sl(4)", 4, [9, 6, 0]],
    ["sp(4)", 4, [6, 4, 0]],
    ["R scaling", 4, [0, 0, 1]],
    ["diagonal", 3, [0, 0, 3]],
  ] as const)
    it(`has signature (${signature.join(", ")}) for ${name}, n = ${n}, with some noise`, () => {
      const [positive, negative, zero] = signature;
      const basis = named(name, n);
      for (const generators of [basis, mixed(basis, 3), noisy(basis, 0.01, 4)])
        expect(killingSignature(generators)).to.deep.equal({ positive, negative, zero });
    });

  it("of nothing is nothing", () => {
    expect(killingSignature([])).to.deep.equal({ positive: 0, negative: 0, zero: 0 });
  });
});

describe("principal angles", () => {
  it("are those of lines and planes, exact when small", () => {
    for (const t of [1e-12, 1e-6, 0.01, 1, Math.PI / 2]) {
      const turned = combine([Math.cos(t), Math.sin(t)], [diagonal(1, 0), diagonal(0, 1)], 2);
      expect(principalAngles([diagonal(1, 0)], [turned])[0]! / t).to.be.closeTo(1, 1e-9);
    }
    expect(principalAngles(named("diagonal", 2), named("so(2)", 2))).to.deep.equal([Math.PI / 2]);
  });

  it("do not depend on the bases, nor on which span comes first", () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const draw = normals(seed);
        const [a, b] = [0, 1].map(() => [0, 1, 2].map(() => randomMatrix(3, draw))) as [
          number[][][],
          number[][][],
        ];
        const distance = grassmannDistance(a, b);
        expect(grassmannDistance(mixed(a, seed + 1), mixed(b, seed + 2))).to.be.closeTo(
          distance,
          1e-7,
        );
        expect(grassmannDistance(b, a)).to.be.closeTo(distance, 1e-10);
        expect(grassmannDistance(a, mixed(a, seed + 3))).to.be.below(1e-7);
      }),
      { numRuns: 30 },
    );
  });
});

describe("invariant metric", () => {
  it("of so(1,3), with and without scaling, is Minkowski's", () => {
    for (const [name, conformal] of [
      ["so(1,3)", false],
      ["so(1,3)⊕R", true],
    ] as const) {
      const metric = invariantMetric(mixed(named(name, 4), 7))!;
      expect(norm(subtract(metric.matrix, MINKOWSKI))).to.be.below(1e-7);
      expect(metricCosine(metric.matrix, MINKOWSKI)).to.be.closeTo(1, 1e-12);
      expect(metric.residual).to.be.below(1e-9);
      expect([metric.signature, metric.conformal]).to.deep.equal([[1, 3], conformal]);
    }
  });

  it("is kept by the algebra that is made from it", () => {
    const kept = keepingMetric(MINKOWSKI);
    expect(kept).to.have.length(6);
    expect(grassmannDistance(kept, named("so(1,3)", 4))).to.be.below(1e-7);
    const tilted = multiply([[1, 0.5], [0, 1]], [[2, 0], [0, 1]], [[1, 0], [0.5, 1]]); // biome-ignore format: matrices
    const [turn] = keepingMetric(tilted);
    const changed = combine(
      [1, 1],
      [multiply(transpose(turn!), tilted), multiply(tilted, turn!)],
      2,
    );
    expect(norm(changed)).to.be.below(1e-12);
  });

  it("stays near Minkowski's with noise, which shows in the residual", () => {
    const metric = invariantMetric(noisy(named("so(1,3)⊕R", 4), 0.02, 1))!;
    expect(metricCosine(metric.matrix, MINKOWSKI)).to.be.above(0.998);
    expect(metric.residual).to.be.within(1e-3, 0.05);
  });

  it("moves with a change of coordinates: J to SᵀJS", () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const draw = normals(seed);
        const s = expm(randomMatrix(3, () => 0.25 * draw()));
        const metric = invariantMetric(named("so(3)", 3).map((b) => multiply(invert(s), b, s)))!;
        expect(metricCosine(metric.matrix, multiply(transpose(s), s))).to.be.closeTo(1, 1e-9);
        expect(metric.signature).to.deep.equal([3, 0]);
      }),
      { numRuns: 30 },
    );
  });

  it("is none where there is none, or more than one", () => {
    expect(invariantMetric([])).to.equal(undefined);
    expect(invariantMetric(named("sl(2)", 2))).to.equal(undefined);
    expect(invariantMetric(named("gl(3)", 3))).to.equal(undefined);
    expect(invariantMetric(named("R scaling", 4))).to.equal(undefined);
    // Time and space each have a scale.
    expect(invariantMetric(named("so(3) on axes 2,3,4", 4))).to.equal(undefined);
    // Only a degenerate one.
    expect(invariantMetric(named("strictly upper triangular", 2))).to.equal(undefined);
  });
});

describe("readable basis", () => {
  it("of a named algebra, from any basis of it, has unit entries", () => {
    expect(readableBasis(mixed(named("so(2)", 2), 1))[0]).to.deep.equal([
      [0, -1],
      [1, 0],
    ]);
    for (const [name, n, nonzero] of [
      ["so(3)", 3, 6],
      ["so(1,3)⊕R", 4, 16],
      ["gl(2)", 2, 4],
      ["sl(2)", 2, 4],
    ] as const) {
      const entries = readableBasis(mixed(named(name, n), 2)).flat(2);
      expect(
        entries.filter((x) => Math.abs(x) > 1e-9),
        name,
      ).to.have.length(nonzero);
      expect(entries.every((x) => Math.abs(x - Math.round(x)) < 1e-9)).to.equal(true);
    }
  });

  it("spans exactly what was learnt, and each generator has a 1 where all others have 0", () => {
    fc.assert(
      fc.property(seeds, fc.constantFrom(2, 3, 4), fc.integer({ min: 1, max: 4 }), (seed, n, k) => {
        const draw = normals(seed);
        const generators = Array.from({ length: k }, () => randomMatrix(n, draw));
        const readable = readableBasis(generators);
        expect(readable).to.have.length(frame(generators).length);
        expect(Math.max(...principalAngles(readable, generators))).to.be.below(1e-7);
        const flat = readable.map((m) => m.flat());
        for (const [i, row] of flat.entries())
          expect(
            row.some((x, c) => Math.abs(x) === 1 && flat.every((r, j) => i === j || r[c] === 0)),
          ).to.equal(true);
      }),
      { numRuns: 60 },
    );
  });

  it("keeps what is off: nothing is rounded to a known algebra", () => {
    const learnt = [
      [-0.02, -1],
      [1.03, 0.01],
    ];
    expect(readableBasis([learnt])[0]).to.deep.equal(learnt);
    expect(readableBasis([])).to.deep.equal([]);
  });
});
