import { expect } from "chai";
import fc from "fast-check";
import { nearestInIdentityComponent } from "../../../src/algebra/components.js";
import {
  analyseCosets,
  describeComponent,
  distanceToIdentityComponent,
  expm,
} from "../../../src/algebra/index.js";
import {
  combine,
  identityMatrix,
  multiply,
  type SquareMatrix,
  subtract,
} from "../../../src/algebra/linalg.js";
import { diagonal, named, noisy, normals, seeds } from "./helpers.js";

const turn = (degrees: number): SquareMatrix => {
  const t = (degrees * Math.PI) / 180;
  return [
    [Math.cos(t), -Math.sin(t)],
    [Math.sin(t), Math.cos(t)],
  ];
};
const element = (basis: SquareMatrix[], size: number, draw: () => number) =>
  expm(
    combine(
      basis.map(() => size * draw()),
      basis,
      basis[0]!.length,
    ),
  );

describe("components in units of different sizes", () => {
  it("have the names that they have in units in which components are of one size", () => {
    const coordinates = diagonal(0.1, 10);
    const quarter = [
      [0, -100],
      [0.01, 0],
    ];
    const named = (frame: object) =>
      analyseCosets({ matrices: [quarter, diagonal(-1, 1)], losses: [0, 0], ...frame }, []).map(
        ({ name }) => name,
      );
    expect(named({ coordinates })).to.deep.equal([
      "rotation by 90°",
      "reflection across the line at 90°",
    ]);
    expect(named({})[0]).to.equal("component with det 1.00");
  });
});

describe("identity component", () => {
  it("contains its elements: large boosts, half turns, products of exponentials", () => {
    fc.assert(
      fc.property(
        seeds,
        fc.constantFrom("so(1,3)", "so(4)", "so(1,3)⊕R", "sl(4)"),
        (seed, name) => {
          const draw = normals(seed);
          const basis = named(name, 4);
          const g = multiply(element(basis, 0.8, draw), element(basis, 0.8, draw));
          expect(distanceToIdentityComponent(g, basis)).to.be.below(
            1e-3 * (1 + Math.hypot(...g.flat())),
          );
        },
      ),
      { numRuns: 25 },
    );
    expect(distanceToIdentityComponent(turn(180), named("so(2)", 2))).to.be.below(1e-6);
    // diag(−2, −1/2) is in SL(2, R), but is no exponential.
    expect(distanceToIdentityComponent(diagonal(-2, -0.5), named("sl(2)", 2))).to.be.below(1e-3);
  });

  it("does not contain the other components of O(1,3), however boosted", () => {
    const basis = named("so(1,3)", 4);
    fc.assert(
      fc.property(
        seeds,
        fc.constantFrom([1, -1, -1, -1], [-1, 1, 1, 1], [-1, -1, -1, -1]),
        (seed, signs) => {
          const boosted = multiply(element(basis, 0.6, normals(seed)), diagonal(...signs));
          expect(distanceToIdentityComponent(boosted, basis)).to.be.at.least(0.1);
        },
      ),
      { numRuns: 25 },
    );
  });

  it("has an element that is nearest to a matrix", () => {
    const basis = named("so(2)", 2);
    const scaled = combine([1.3], [turn(170)], 2);
    const { element, distance } = nearestInIdentityComponent(scaled, basis);
    expect(Math.hypot(...subtract(element, turn(170)).flat())).to.be.below(1e-6);
    expect(distance).to.be.closeTo(0.3 ** 2 / 2, 1e-6);
    const outside = nearestInIdentityComponent(diagonal(1, -1), basis);
    expect(outside.element).to.deep.equal(identityMatrix(2));
    expect(outside.distance).to.be.at.least(0.1);
  });

  it("of no generators is the identity alone", () => {
    expect(distanceToIdentityComponent(identityMatrix(3), [])).to.equal(0);
    expect(distanceToIdentityComponent(diagonal(1, -1), [])).to.equal(1);
  });
});

describe("names of cosets", () => {
  it("of O(2) are of the class, whichever element was found", () => {
    const mirror = diagonal(1, -1);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 359 }), seeds, (angle, seed) => {
        const learnt = noisy(named("so(2)", 2), 0.02, seed);
        const matrices = noisy([turn(angle), multiply(turn(angle), mirror)], 0.02, seed + 1);
        const cosets = analyseCosets({ matrices, losses: [0.1, 0.2] }, learnt);
        expect(cosets.map((c) => c.name)).to.deep.equal(["identity", "reflection"]);
        expect(cosets.map((c) => c.orderModuloIdentity)).to.deep.equal([1, 2]);
        expect(cosets.map((c) => c.preservesMetric)).to.deep.equal([true, true]);
        expect(cosets.map((c) => c.matrix)).to.deep.equal(matrices);
        expect(cosets[1]!.order).to.equal(2);
        expect(cosets[1]!.determinant).to.be.closeTo(-1, 0.2);
      }),
      { numRuns: 40 },
    );
  });

  for (const name of ["so(1,3)", "so(1,3)⊕R"])
    it(`of the Lorentz group are its four components (${name})`, () => {
      const basis = named(name, 4);
      fc.assert(
        fc.property(seeds, (seed) => {
          const g = element(basis, 0.5, normals(seed));
          const names = [
            [1, 1, 1, 1],
            [1, -1, -1, -1],
            [1, 1, -1, 1],
            [-1, 1, 1, 1],
            [-1, -1, -1, -1],
          ].map((signs) => describeComponent(multiply(g, diagonal(...signs)), basis));
          expect(names.map((c) => c.name)).to.deep.equal([
            "identity",
            "parity",
            "parity",
            "time reversal",
            "PT (−I)",
          ]);
          expect(names.every((c) => c.preservesMetric)).to.equal(true);
          expect(names.map((c) => c.orderModuloIdentity)).to.deep.equal([1, 2, 2, 2, 2]);
        }),
        { numRuns: 10 },
      );
    });

  it("of D4, without any algebra, are its eight elements", () => {
    const mirror = diagonal(1, -1);
    const elements = [0, 90, 180, 270].flatMap((angle) => [
      turn(angle),
      multiply(turn(angle), mirror),
    ]);
    const cosets = analyseCosets(
      { matrices: noisy(elements, 0.01, 3), losses: elements.map(() => 0) },
      [],
    );
    expect(cosets.map((c) => c.name)).to.deep.equal([
      "identity",
      "reflection across the line at 0°",
      "rotation by 90°",
      "reflection across the line at 45°",
      "−I",
      "reflection across the line at 90°",
      "rotation by 270°",
      "reflection across the line at 135°",
    ]);
    expect(cosets.map((c) => c.order)).to.deep.equal([1, 2, 4, 2, 2, 2, 4, 2]);
    expect(cosets.map((c) => c.preservesMetric)).to.deep.equal(Array(8).fill(null));
  });

  it("modulo scaling: identity and −I", () => {
    const cosets = analyseCosets(
      { matrices: [diagonal(3, 3), diagonal(-0.4, -0.4)], losses: [0, 0] },
      [diagonal(1, 1)],
    );
    expect(cosets.map((c) => c.name)).to.deep.equal(["identity", "−I"]);
    expect(cosets[0]!.determinant).to.be.closeTo(9, 1e-12);
  });

  it("of GL(2): −I is in the identity component, a reflection is not", () => {
    const names = [
      diagonal(-1, -1),
      diagonal(2, -0.7),
      [
        [0.3, 1.1],
        [0.8, 0.2],
      ],
    ].map((m) => describeComponent(m, named("gl(2)", 2)).name);
    expect(names).to.deep.equal(["identity", "reflection", "reflection"]);
  });

  it("follow a change of coordinates", () => {
    const stretch = diagonal(2, 0.5);
    const back = diagonal(0.5, 2);
    const basis = named("so(2)", 2).map((b) => multiply(stretch, b, back));
    const reflection = multiply(stretch, turn(70), diagonal(1, -1), back);
    expect(describeComponent(reflection, basis)).to.include({
      name: "reflection",
      preservesMetric: true,
    });
  });

  it("are not made up", () => {
    const odd = describeComponent(
      [
        [1, 3],
        [0, 1],
      ],
      [],
    );
    expect(odd).to.deep.include({
      name: "component with det 1.00",
      order: null,
      orderModuloIdentity: null,
    });
    expect(describeComponent(diagonal(4, -0.25), []).name).to.equal("component with det -1.00");
    expect(describeComponent(diagonal(4, 0.25), named("so(2)", 2)).preservesMetric).to.equal(false);
    expect(describeComponent(diagonal(0, 0), []).name).to.match(/component|identity/);
  });

  it("in space: rotations, reflections, inversion", () => {
    const quarter = [
      [0, -1, 0],
      [1, 0, 0],
      [0, 0, 1],
    ];
    const names = [quarter, diagonal(1, 1, -1), diagonal(-1, -1, -1)].map(
      (m) => describeComponent(m, []).name,
    );
    expect(names).to.deep.equal(["rotation by 90°", "reflection", "−I"]);
    expect(describeComponent(diagonal(-1, -1, -1), named("so(3)", 3)).name).to.equal("reflection");
  });
});
