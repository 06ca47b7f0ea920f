/** Names in affine groups and in products of groups (METHOD 4.2 and METHOD 4.4). */
import { expect } from "chai";
import { namedAffine } from "../../../src/algebra/affine.js";
import { embed, type Factor, outward } from "../../../src/algebra/factors.js";
import {
  analyseAlgebra,
  analyseCosets,
  expm,
  principalAngles,
  type SquareMatrix,
} from "../../../src/algebra/index.js";
import {
  combine,
  identityMatrix,
  invert,
  multiply,
  type SquareMatrix as Square,
} from "../../../src/algebra/linalg.js";
import { measured, named, normals } from "./helpers.js";

const POINTS = (n: number): Factor[] => [{ name: "", n, affine: true, map: false }];
const FIELD: Factor[] = [
  { name: "", n: 2, affine: false, map: true },
  { name: "b", n: 2, affine: false, map: false },
];

/** Coordinates of points with a mean and a spread, as the worker sends them. */
function centred(mean: readonly number[], spread: number): Square {
  return identityMatrix(mean.length + 1).map((row, i) =>
    i < mean.length
      ? [...row.slice(0, -1).map((x) => x / spread), -mean[i]! / spread]
      : [...row.slice(0, -1), 1],
  );
}

/** Mix the matrices of a basis, and disturb them in the entries that an algebra may have. */
function learnt(basis: readonly Square[], noise: number, seed: number): Square[] {
  const random = normals(seed);
  const n = basis[0]!.length;
  const free = (i: number, j: number) => basis.some((m) => m[i]![j] !== 0);
  return basis.map((_, i) => {
    const weights = basis.map((_, j) => (i === j ? 2 : 0) + 0.6 * random());
    const mixed = combine(weights, basis, n);
    return mixed.map((row, i) => row.map((x, j) => (free(i, j) ? x + noise * random() : x)));
  });
}

const affine = (name: string, n: number) => namedAffine(name, n, (inner) => named(inner, n))!;
const analyse = (generators: SquareMatrix[], factors: Factor[], coordinates?: Square) =>
  analyseAlgebra(measured(generators, { factors, coordinates }));

describe("names of affine algebras", () => {
  for (const [name, n, k] of [
    ["se(2)", 2, 3],
    ["se(3)", 3, 6],
    ["sim(2)", 2, 4],
    ["aff(2)", 2, 6],
    ["saff(2)", 2, 5],
    ["translations", 3, 3],
    ["iso(1,3)", 4, 10],
  ] as const)
    it(`knows ${name}, wherever the points are and however the basis is mixed`, () => {
      expect(affine(name, n)).to.have.length(k);
      const mean = [300, -7, 40, 11].slice(0, n);
      const d = centred(mean, 5);
      const basis = outward(learnt(affine(name, n), 0.01, 3), d);
      const { identified, readableBasis } = analyse(basis, POINTS(n), d);
      expect(identified.name).to.equal(name);
      expect(identified.angleDegrees).to.be.below(5);
      expect([identified.parts, identified.about]).to.deep.equal([undefined, undefined]);
      // The basis is one of the data's own coordinates.
      expect(readableBasis).to.have.length(k);
      const exact = analyse(affine(name, n), POINTS(n), d).readableBasis;
      const units = exact.filter((m) => m.flat().filter((x) => Math.abs(x) > 1e-6).length === 1);
      expect(units.length).to.be.at.least(name === "translations" ? 3 : 2);
    });

  it("says when it is another basis, and where a fixed point is", () => {
    const a = [
      [2, 0.6, 0],
      [0, 0.8, 0],
      [0, 0, 1],
    ];
    const moved = affine("se(2)", 2).map((m) => multiply(invert(a), m, a));
    expect(analyse(moved, POINTS(2), centred([4, 4], 2)).identified.name).to.equal(
      "se(2) up to a change of basis",
    );
    const d = centred([10, -20], 4);
    const about = [
      [1, 0, 12],
      [0, 1, -19],
      [0, 0, 1],
    ];
    const turn = multiply(about, embed(named("so(2)", 2)[0]!, 0, 3), invert(about));
    const { identified } = analyse([turn], POINTS(2), d);
    expect(identified.name).to.equal("so(2) about a point");
    expect(identified.about![0]).to.be.closeTo(12, 1e-6);
    expect(identified.about![1]).to.be.closeTo(-19, 1e-6);
  });

  it("gives no name to a screw, and none to a random span", () => {
    const screw = embed(named("so(2) on axes 1,2", 3)[0]!, 0, 4);
    screw[2]![3] = 1;
    expect(analyse([screw], POINTS(3), centred([0, 0, 0], 1)).identified.name).to.equal(
      "unidentified",
    );
    const random = normals(5);
    const span = [1, 2].map(() =>
      [0, 1, 2].map((i) => [0, 1, 2].map(() => (i < 2 ? random() : 0))),
    );
    expect(analyse(span, POINTS(2), centred([0, 0], 1)).identified.name).to.equal("unidentified");
  });

  it("names components about any point of the plane", () => {
    const d = centred([50, 60], 3);
    const mirror = outward(
      [
        [
          [1, 0, 0.4],
          [0, -1, 1.1],
          [0, 0, 1],
        ],
        identityMatrix(3),
      ],
      d,
    );
    const found = analyseCosets(
      { matrices: mirror, losses: [0, 0], factors: POINTS(2), coordinates: d },
      outward(learnt(affine("se(2)", 2), 0.02, 8), d),
    );
    expect(found.map((c) => c.name)).to.deep.equal(["reflection", "identity"]);
    expect(found.map((c) => c.orderModuloIdentity)).to.deep.equal([2, 1]);
    expect(found[0]!.preservesMetric).to.equal(true);
  });
});

describe("names of products", () => {
  const [turn] = named("so(2)", 2) as [Square];
  const both = [embed(turn, 0, 4), embed(turn, 2, 4)];

  it("tells the factors apart, also if the generators are mixed", () => {
    const { identified, killingSignature } = analyse(learnt(both, 0.03, 2), FIELD);
    expect(identified.name).to.equal("so(2) ⊕ so(2)");
    expect(identified.parts).to.deep.equal([
      { name: "so(2)", on: "the map", dimension: 1 },
      { name: "so(2)", on: "Vb", dimension: 1 },
    ]);
    expect(identified.angleDegrees).to.be.below(6);
    expect(killingSignature.zero).to.equal(2);
  });

  it("says on which factor the only algebra acts, and what acts on both together", () => {
    expect(analyse([both[1]!], FIELD).identified.name).to.equal("so(2) on Vb");
    const joint = combine([1, 1], both, 4);
    const { identified } = analyse([joint], FIELD);
    expect(identified.name).to.equal("so(2) on the map and Vb together");
    expect(identified.angleDegrees).to.be.below(1);
  });

  it("names components by the factors that they act on", () => {
    const flips = [
      [1, 1, 1, 1],
      [1, -1, 1, 1],
      [1, 1, 1, -1],
      [1, -1, 1, -1],
    ].map((d) => d.map((x, i) => d.map((_, j) => (i === j ? x : 0))));
    const turned = flips.map((m, i) => multiply(expm(combine([i, 0.7 - i], both, 4)), m));
    const names = (basis: Square[]) =>
      analyseCosets({ matrices: turned, losses: [0, 0, 0, 0], factors: FIELD }, basis).map(
        (c) => c.name,
      );
    expect(names(learnt(both, 0.01, 4))).to.deep.equal([
      "identity",
      "reflection on the map",
      "reflection on Vb",
      "reflection on the map, reflection on Vb",
    ]);
  });

  it("keeps apart what a large factor would drown", () => {
    const factors: Factor[] = [
      { name: "a", n: 2, affine: false, map: false },
      { name: "b", n: 8, affine: false, map: false },
    ];
    const quarter = identityMatrix(10);
    quarter[0] = [0, -1, ...Array<number>(8).fill(0)];
    quarter[1] = [1, 0, ...Array<number>(8).fill(0)];
    const [one] = analyseCosets({ matrices: [quarter], losses: [0], factors }, []);
    expect(one!.name).to.equal("rotation by 90° on Va");
  });

  it("is exact for exact spans", () => {
    const { identified } = analyse(both, FIELD);
    expect(Math.max(...principalAngles(both, both))).to.be.below(1e-9);
    expect(identified.grassmannDistance).to.be.below(1e-9);
  });
});
