import { expect } from "chai";
import fc from "fast-check";
import { axisSpread, expm, type Turn, turnOf } from "../../../src/algebra/index.js";
import {
  combine,
  dot,
  multiply,
  type SquareMatrix,
  subtract,
  transpose,
} from "../../../src/algebra/linalg.js";
import { diagonal, normals, randomMatrix, seeds } from "./helpers.js";

type Axis = Turn["axis"];

/** The generator of turns about an axis: its cross product. */
const about = ([x, y, z]: Axis): SquareMatrix => [
  [0, -z, y],
  [z, 0, -x],
  [-y, x, 0],
];

const scaled = (factor: number, matrix: SquareMatrix) => combine([factor], [matrix], 3);

/** Uniformly distributed. */
function randomAxis(draw: () => number): Axis {
  const axis: Axis = [draw(), draw(), draw()];
  const length = Math.hypot(...axis);
  return axis.map((x) => x / length) as Axis;
}

describe("the turn of a generator", () => {
  it("is the axis and the angle that it was made from, the axis up to its sense", () => {
    fc.assert(
      fc.property(
        seeds,
        fc.double({ min: 1e-6, max: 10, noNaN: true }),
        fc.boolean(),
        (seed, angle, back) => {
          const made = randomAxis(normals(seed));
          const { magnitude, axis } = turnOf(scaled(back ? -angle : angle, about(made)));
          expect(magnitude / angle).to.be.closeTo(1, 1e-12);
          expect(Math.hypot(...axis)).to.be.closeTo(1, 1e-12);
          expect(Math.abs(dot(axis, made))).to.be.closeTo(1, 1e-12);
          const largest = axis.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
          expect(largest).to.be.above(0);
        },
      ),
    );
  });

  it("leaves the axis where it is, and turns what is orthogonal to it by the angle", () => {
    fc.assert(
      fc.property(seeds, fc.double({ min: 0.01, max: 3, noNaN: true }), (seed, angle) => {
        const generator = scaled(angle, about(randomAxis(normals(seed))));
        const { magnitude, axis } = turnOf(generator);
        const turned = expm(generator);
        const moved = turned.map((row, i) => dot(row, axis) - axis[i]!);
        expect(Math.hypot(...moved)).to.be.below(1e-12);
        const trace = turned.reduce((sum, row, i) => sum + row[i]!, 0);
        expect(trace).to.be.closeTo(1 + 2 * Math.cos(magnitude), 1e-12);
      }),
      { numRuns: 30 },
    );
  });

  it("is the same for a generator and its negative, and ignores what is symmetric", () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const generator = randomMatrix(3, normals(seed));
        const turn = turnOf(generator);
        const antisymmetric = scaled(0.5, subtract(generator, transpose(generator)));
        for (const other of [antisymmetric, transpose(generator)]) {
          const { magnitude, axis } = turnOf(other);
          expect(magnitude).to.be.closeTo(turn.magnitude, 1e-12);
          expect(Math.hypot(...axis.map((x, i) => x - turn.axis[i]!))).to.be.below(1e-12);
        }
      }),
      { numRuns: 30 },
    );
  });

  it("moves with a change of coordinates by a rotation", () => {
    fc.assert(
      fc.property(seeds, (seed) => {
        const draw = normals(seed);
        const generator = about(randomAxis(draw));
        const change = expm(about(randomAxis(draw)));
        const moved = turnOf(multiply(change, generator, transpose(change)));
        const expected = change.map((row) => dot(row, turnOf(generator).axis));
        expect(moved.magnitude).to.be.closeTo(1, 1e-12);
        expect(Math.abs(dot(moved.axis, expected))).to.be.closeTo(1, 1e-12);
      }),
      { numRuns: 30 },
    );
  });

  it("is none, about the third axis, for a generator that is zero", () => {
    expect(turnOf(diagonal(0, 0, 0))).to.deep.equal({ magnitude: 0, axis: [0, 0, 1] });
  });
});

describe("the spread of axes", () => {
  const [x, y, z]: Axis[] = [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
  ];

  it("is 0° where all are the same line, whatever their sense", () => {
    fc.assert(
      fc.property(seeds, fc.array(fc.boolean(), { minLength: 2, maxLength: 6 }), (seed, senses) => {
        const axis = randomAxis(normals(seed));
        const axes = senses.map((back) => axis.map((a) => (back ? -a : a)) as Axis);
        expect(axisSpread(axes)).to.be.within(0, 1e-5);
      }),
    );
  });

  it("is 90° where any two are orthogonal, and the mean over all pairs", () => {
    expect(axisSpread([x!, y!])).to.be.closeTo(90, 1e-12);
    expect(axisSpread([x!, y!, z!])).to.be.closeTo(90, 1e-12);
    expect(axisSpread([x!, x!, y!])).to.be.closeTo(60, 1e-12);
    for (const degrees of [10, 45, 80]) {
      const radians = (degrees * Math.PI) / 180;
      expect(axisSpread([x!, [Math.cos(radians), Math.sin(radians), 0]])).to.be.closeTo(
        degrees,
        1e-9,
      );
      expect(axisSpread([x!, [-Math.cos(radians), 0, Math.sin(radians)]])).to.be.closeTo(
        degrees,
        1e-9,
      );
    }
  });

  it("is none for fewer than two", () => {
    expect(axisSpread([])).to.equal(null);
    expect(axisSpread([z!])).to.equal(null);
  });

  it("is one radian for many random axes", () => {
    const draw = normals(1);
    const axes = Array.from({ length: 400 }, () => randomAxis(draw));
    expect(axisSpread(axes)).to.be.closeTo(180 / Math.PI, 1);
  });
});
