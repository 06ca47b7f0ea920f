/** What is measured of directions before they are judged, and what only where it decides. */
import { expect } from "chai";
import { type Ask, FEW, Judged, MANY } from "../../../src/method/judged.js";
import type { Weighed } from "../../../src/method/rule.js";
import type { EvidenceMeasured, SkillLost } from "../../../src/result.js";

const SIZES = [0.05, 0.2, 0.5];
const [first, second] = [0, 1].map((i) => [
  [i, 1],
  [-1, 0],
]) as [number[][], number[][]];
const now = (verdict: Weighed["verdict"], index: number) => ({ verdict, index }) as Weighed;

/** Answers questions, and keeps them: how many directions, on how many samples, of what sizes. */
function asked(reach: (size: number, direction: number[][], samples: number) => number = () => 1) {
  const questions: [number, number, number[]][] = [];
  const ask: Ask = async (directions, { samples = 0, sizes = [] }) => {
    questions.push([directions.length, samples, [...sizes]]);
    const lost = (direction: number[][]): SkillLost[] =>
      sizes.map((size) => {
        const [error, floor] = [samples === MANY ? 0.001 : 0.002, 0];
        return {
          length: 1,
          size,
          lost: 0.01,
          error,
          floor,
          reach: reach(size, direction, samples),
        };
      });
    return { directions: directions.map(lost) } as EvidenceMeasured;
  };
  return { questions, ask };
}

const sizesOf = (all: SkillLost[][]) => all.map((each) => each.map(({ size }) => size));

describe("what is measured of directions", () => {
  it("is the generators at all sizes, and the others at the one that is compared", async () => {
    const { questions, ask } = asked();
    const judged = new Judged([first], [second, second], SIZES, false, ask);
    await judged.begin();
    expect(questions).to.deep.equal([
      [1, FEW, SIZES],
      [1, MANY, [0.5]],
      [2, FEW, [0.5]],
    ]);
    expect(judged.own[0]!.map(({ error }) => error)).to.deep.equal([0.002, 0.002, 0.001]);
    expect(sizesOf(judged.others)).to.deep.equal([[0.5], [0.5]]);
    expect(await judged.measureFor(now("symmetry", 2))).to.equal(false);
    expect(await judged.measureFor(now("none", 2))).to.equal(false);
    expect(judged.tried().map(({ sizes }) => sizes.length)).to.deep.equal([3, 1, 1]);
  });

  it("is more where smaller moves may decide, and nothing twice", async () => {
    const { questions, ask } = asked();
    const judged = new Judged([first], [second], SIZES, false, ask);
    await judged.begin();
    questions.length = 0;
    expect(await judged.measureFor(now("cannot tell", 2))).to.equal(true);
    expect(questions).to.deep.equal([[1, FEW, [0.2]]]); // the smallest is never judged
    expect(await judged.measureFor(now("cannot tell", 2))).to.equal(true);
    expect(questions.at(-1)).to.deep.equal([1, MANY, [0.2]]);
    expect(judged.own[0]!.map(({ error }) => error)).to.deep.equal([0.002, 0.001, 0.001]);
    expect(await judged.measureFor(now("cannot tell", 2))).to.equal(false);
    expect(await judged.measureFor(now("symmetry", 1))).to.equal(false);
    expect(await judged.fill(() => true, 0)).to.equal(true);
    expect(questions.at(-1)).to.deep.equal([1, FEW, [0.05]]);
    expect(sizesOf(judged.others)).to.deep.equal([SIZES]);
    expect(questions).to.have.length(3);
  });

  it("is at once all of a direction that is out of reach where it would be compared", async () => {
    const { questions, ask } = asked((size, [row]) => (row?.[0] === 1 && size > 0.3 ? 9 : 1));
    const judged = new Judged([first], [first, second], SIZES, false, ask);
    await judged.begin();
    expect(questions.at(-1)).to.deep.equal([1, FEW, [0.05, 0.2]]);
    expect(sizesOf(judged.others)).to.deep.equal([[0.5], SIZES]);
    await judged.measureFor(now("approximate", 2));
    expect(sizesOf(judged.others)).to.deep.equal([[0.2, 0.5], SIZES]);
  });

  it("is compared with at the size that many samples reach", async () => {
    // On few samples the first one leaves the reach sooner.
    const { questions, ask } = asked((size, [row], samples) =>
      size > 0.3 && samples !== MANY && row?.[0] === 0 ? 9 : 1,
    );
    const judged = new Judged([first], [second], SIZES, false, ask);
    await judged.begin();
    expect(questions.slice(1)).to.deep.equal([
      [1, MANY, [0.2, 0.5]],
      [1, FEW, [0.5]],
    ]);
  });

  it("is compared with at the largest size in reach of any generator", async () => {
    const { questions, ask } = asked((size) => (size > 0.3 ? 9 : 1));
    const judged = new Judged([first, second], [second], SIZES, true, ask);
    await judged.begin();
    expect(questions.slice(1)).to.deep.equal([
      [2, MANY, [0.2, 0.5]],
      [1, FEW, [0.2]],
    ]);
  });
});
