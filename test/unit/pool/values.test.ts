import { expect } from "chai";
import { z } from "zod";
import { UsageError } from "../../../src/errors.js";
import { flagsOf } from "../../../src/experiment/flags.js";
import { countPoints, pointsOf } from "../../../src/pool/grid.js";
import { type Axis, readAxis } from "../../../src/pool/values.js";

const FLAGS = flagsOf(
  z.object({
    seed: z.int().min(0).default(0),
    rate: z.number().min(0).max(10).default(1),
    solver: z.enum(["grassmann", "paper"]).default("paper"),
    charts: z.string().default(""),
    centre: z.boolean().default(false),
  }),
);

const axis = (name: string, texts: (string | true)[], drawn = false): Axis =>
  readAxis(FLAGS.find((flag) => flag.name === name)!, texts, drawn);

const values = (name: string, ...texts: (string | true)[]): unknown[] => {
  const { count, at } = axis(name, texts);
  return Array.from({ length: count }, (_, index) => at(index));
};

describe("the values of a flag in a sweep", () => {
  it("are lists and ranges of numbers and choices", () => {
    expect(values("seed", "0..4")).to.deep.equal([0, 1, 2, 3, 4]);
    expect(values("seed", "range(0,5)")).to.deep.equal([0, 1, 2, 3, 4]);
    expect(values("seed", "range(5, 0, -2)")).to.deep.equal([5, 3, 1]);
    expect(values("seed", "7,0..1, range(2,4)")).to.deep.equal([7, 0, 1, 2, 3]);
    expect(values("seed", "1", "3,5")).to.deep.equal([1, 3, 5]);
    expect(values("rate", "range(0,0.3,0.1)")).to.deep.equal([0, 0.1, 0.2]);
    expect(values("rate", "0.5,1e-3")).to.deep.equal([0.5, 0.001]);
    expect(values("solver", "grassmann,paper")).to.deep.equal(["grassmann", "paper"]);
  });

  it("are whole texts of other flags, each time they stand there", () => {
    expect(values("charts", "1,2;3,4", "0..4")).to.deep.equal(["1,2;3,4", "0..4"]);
    expect(values("centre", true, "false")).to.deep.equal([true, false]);
    expect(values("centre", "true,false")).to.deep.equal([true, false]);
  });

  it("are refused if there are none, or one is wrong, missing or there twice", () => {
    for (const [name, text, line] of [
      ["seed", "5..3", /range is empty/],
      ["seed", "range(3,3)", /range is empty/],
      ["seed", "range(0,3,0)", /range is empty/],
      ["seed", "0,0", /value 0 twice/],
      ["seed", "0..3,2", /value 2 twice/],
      ["seed", "0,,1", /value is missing/],
      ["seed", "-3..1", /at least 0/],
      ["seed", "0..x", /no range/],
      ["seed", "range(0)", /no range/],
      ["rate", "0..20", /at most 10/],
      ["rate", "0.1..0.5", /no steps/],
      ["solver", "grassmann,papr", /did you mean paper/],
    ] as const)
      expect(() => axis(name, [text]), `${name} ${text}`).to.throw(UsageError, line);
  });

  it("are counted without being made", () => {
    const start = performance.now();
    const many = [axis("seed", ["0..9999999"]), axis("solver", ["grassmann,paper"])];
    expect(countPoints(many)).to.equal(2e7);
    expect(() => pointsOf(many)).to.throw(UsageError, /20,000,000 runs/);
    expect(performance.now() - start).to.be.below(1_000);
  });
});

describe("the points of a sweep", () => {
  const axes = [axis("solver", ["grassmann,paper"]), axis("seed", ["0..2"])];

  it("are all combinations, the last axis fastest", () => {
    expect(pointsOf(axes)).to.deep.equal(
      ["grassmann", "paper"].flatMap((solver) => [0, 1, 2].map((seed) => [solver, seed])),
    );
    expect(pointsOf([])).to.deep.equal([[]]);
  });

  it("are drawn without repetition, the same for the same seed", () => {
    const large = [axis("seed", ["0..999999"]), axis("solver", ["grassmann,paper"])];
    const draw = (sampleSeed: number) => pointsOf(large, { sample: 200, sampleSeed });
    expect(draw(1)).to.deep.equal(draw(1)).and.not.deep.equal(draw(2));
    expect(new Set(draw(1).map((point) => JSON.stringify(point))).size).to.equal(200);
    const all = pointsOf(axes, { sample: 5 });
    expect(new Set(all.map((point) => JSON.stringify(point))).size).to.equal(5);
    expect(() => pointsOf(axes, { sample: 6 })).to.throw(UsageError, /only 6 points/);
  });

  it("are drawn from the interval of a number that need not be whole", () => {
    const drawn = pointsOf([axis("rate", ["0.5..2"], true), ...axes], { sample: 300 });
    const rates = drawn.map(([rate]) => Number(rate));
    expect(Math.min(...rates)).to.be.within(0.5, 0.6);
    expect(Math.max(...rates)).to.be.within(1.9, 2);
    expect(new Set(drawn.map(([, solver]) => solver)).size).to.equal(2);
    expect(() => axis("rate", ["5..20"], true)).to.throw(UsageError, /at most 10/);
  });
});
