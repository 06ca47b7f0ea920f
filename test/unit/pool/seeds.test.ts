import { expect } from "chai";
import { expm, type SquareMatrix } from "../../../src/algebra/index.js";
import { combine, inner, multiply, transpose } from "../../../src/algebra/linalg.js";
import { meanSpan } from "../../../src/algebra/mean.js";
import { frame, grassmannDistance } from "../../../src/algebra/span.js";
import { summariseSeeds } from "../../../src/pool/seeds.js";

/** Numbers in (−1, 1) that look random. */
const noise = (index: number) => ((Math.sin(index * 12.9898 + 4) * 43758.5453) % 1) * 0.99;
const random = (n: number, seed: number): SquareMatrix =>
  Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, j) => noise(seed + 7 * i + j)));

/** A line in gl(2): the rotation, tilted by an angle towards the scaling. */
const line = (angle: number): SquareMatrix[] => [
  [
    [Math.sin(angle), -Math.cos(angle)],
    [Math.cos(angle), Math.sin(angle)],
  ],
];

describe("the mean of spans", () => {
  it("is in the middle of two lines, whatever their signs", () => {
    const flipped = [combine([-3], line(0.4), 2)];
    const { basis, distances, spread } = meanSpan([line(0), flipped])!;
    expect(grassmannDistance(basis, line(0.2))).to.be.below(1e-7);
    for (const distance of [...distances, spread]) expect(distance).to.be.closeTo(0.2, 1e-7);
  });

  it("is that of the angles of several lines in a plane", () => {
    const angles = [0, 0.1, 0.5, -0.2];
    const { basis } = meanSpan(angles.map(line))!;
    expect(grassmannDistance(basis, line(0.1))).to.be.below(1e-7);
  });

  it("has the least sum of squared distances, and is one span for all bases", () => {
    const spans = [0, 1, 2, 3].map((i) =>
      frame(
        [0, 1, 2].map((j) => combine([1, 0.3], [random(3, 31 * j), random(3, 101 * i + j)], 3)),
      ),
    );
    const { basis, distances } = meanSpan(spans)!;
    const cost = (span: readonly SquareMatrix[]) =>
      spans.reduce((sum, other) => sum + grassmannDistance(span, other) ** 2, 0);
    const least = cost(basis);
    expect(distances.reduce((sum, d) => sum + d * d, 0)).to.be.closeTo(least, 1e-9);
    for (let i = 0; i < 20; i++) {
      const moved = basis.map((b, j) => combine([1, 1e-3], [b, random(3, 17 * i + 5 * j)], 3));
      expect(cost(moved)).to.be.above(least);
    }
    const g = expm(random(3, 3));
    const turned = spans.map((span) => span.map((_, i) => combine(g[i]!, span, 3)));
    expect(grassmannDistance(meanSpan(turned)!.basis, basis)).to.be.below(1e-6);
    const gram = basis.map((a) => basis.map((b) => inner(a, b)));
    const identity = multiply(gram, transpose(gram));
    for (const [i, row] of identity.entries())
      for (const [j, x] of row.entries()) expect(x).to.be.closeTo(i === j ? 1 : 0, 1e-9);
  });

  it("is the span itself for one span, and all of gl(n)", () => {
    expect(meanSpan([line(0.3)])!.spread).to.be.below(1e-7);
    const all = [0, 1, 2, 3].map((i) => random(2, 50 * i));
    expect(meanSpan([all, all])!.basis).to.have.length(4);
  });

  it("is not there for spans of different dimensions, or none", () => {
    expect(meanSpan([])).to.equal(undefined);
    expect(meanSpan([[], []])).to.equal(undefined);
    expect(
      meanSpan([
        line(0),
        [
          ...line(0),
          [
            [1, 0],
            [0, 1],
          ],
        ],
      ]),
    ).to.equal(undefined);
  });
});

describe("the seeds of a cell", () => {
  const row = (seed: number, answer: string, angle: number, accuracy: number) => ({
    ...{ seed, answer, span: line(angle) },
    figures: { angle: (angle * 180) / Math.PI, accuracy },
  });

  it("are counted, averaged where they agree, and have a worst case", () => {
    const rows = [
      ...[row(0, "so(2)", 0, 0.9), row(1, "so(2)", 0.02, 0.8), row(2, "so(2)", -0.02, 0.95)],
      { seed: 3, answer: "no generator", figures: { accuracy: 0.5 } },
    ];
    const { count, agree, answers, figures, mean } = summariseSeeds(rows);
    expect([count, agree, answers.length]).to.deep.equal([4, 3, 2]);
    expect(figures.angle!.count).to.equal(3);
    expect(figures.angle!.worst).to.be.closeTo((0.02 * 180) / Math.PI, 1e-9);
    expect(figures.accuracy!.worst).to.equal(0.5);
    expect(figures.accuracy!.median).to.be.closeTo(0.85, 1e-12);
    expect(mean!.name).to.equal("so(2)");
    expect(mean!.count).to.equal(3);
    expect(mean!.angleDegrees).to.be.below(1e-4);
    expect(mean!.worstDegrees).to.be.closeTo((0.02 * 180) / Math.PI, 1e-5);
  });

  it("have a mean in the coordinates in which their algebra has its name", () => {
    const turn = (unit: number) => [
      [0, -unit],
      [1 / unit, 0],
    ];
    const coordinates = [
      [0.1, 0],
      [0, 10],
    ];
    const rows = [0, 1].map((seed) => {
      return { seed, answer: "so(2)", span: [turn(100)], coordinates, figures: {} };
    });
    const { mean } = summariseSeeds(rows);
    expect(mean!.name).to.equal("so(2)");
    expect(mean!.basis[0]![0]![1]! / mean!.basis[0]![1]![0]!).to.be.closeTo(-1e4, 1e-4);
  });

  it("may have found nothing", () => {
    expect(summariseSeeds([]).agree).to.equal(0);
    expect(summariseSeeds([{ seed: 0, figures: {} }]).mean).to.equal(undefined);
  });
});
