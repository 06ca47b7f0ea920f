/** The rule that makes verdicts of evidence. */
import { expect } from "chai";
import { interval } from "../../../src/algebra/interval.js";
import { allowance, hopeless, inReach, LIMITS, weigh } from "../../../src/method/rule.js";
import type { SkillLost } from "../../../src/result.js";

const at = (lost: number, error = 0.001, more: Partial<SkillLost> = {}): SkillLost => ({
  length: 1,
  size: 0.2,
  floor: 0,
  reach: 1,
  lost,
  error,
  ...more,
});
const judge = (inside: SkillLost[], outside: SkillLost[], lacking = 0.05) =>
  weigh(
    inside.map((one) => [one]),
    outside.map((one) => [one]),
    lacking,
  );

describe("the rule of verdicts", () => {
  it("calls a direction that loses next to nothing a symmetry, with its bound", () => {
    const { verdict, broken } = judge([at(0.002)], [at(0.5)]);
    expect(verdict).to.equal("symmetry");
    expect(broken.low).to.equal(0);
    expect(broken.high).to.be.within(0.05, LIMITS.broken);
  });

  it("calls a small loss that cannot be the predictor's approximate, with both bounds", () => {
    const { verdict, broken } = judge([at(0.05)], [at(0.5)]);
    expect(verdict).to.equal("approximate");
    expect(broken.low).to.be.greaterThan(0.1);
    expect(broken.high).to.be.greaterThan(broken.low);
  });

  it("finds no symmetry where all directions lose alike", () => {
    expect(judge([at(0.4)], [at(0.5), at(0.6)]).verdict).to.equal("none");
  });

  it("does not rule a symmetry out where the search has missed the best direction", () => {
    expect(judge([at(0.4)], [at(0.1), at(0.6)]).verdict).to.equal("cannot tell");
  });

  it("cannot tell where nothing loses more than an exact symmetry might", () => {
    const { verdict, reason } = judge([at(0.002)], [at(0.003)]);
    expect(verdict).to.equal("cannot tell");
    expect(reason).to.contain("other directions");
  });

  it("tells a small loss from none where another direction of the span loses next to nothing", () => {
    const [none, little] = [at(1e-6, 1e-7), at(7e-4, 3e-5)];
    // Two bodies hardly accelerate in one step, so every linear map nearly keeps that step.
    const { verdict, broken } = judge([none, little], [], 1e-5);
    expect(verdict).to.equal("approximate");
    expect(broken.low).to.be.within(0.02, Math.sqrt(7e-4));
    expect(judge([none], [little], 1e-5).verdict).to.equal("symmetry");
    expect(judge([little], [], 1e-5).verdict).to.equal("symmetry");
    expect(judge([none, little], [], 0.01).verdict).to.equal("symmetry");
    // Of a rotation that is off by a few degrees beside another that is exact.
    expect(judge([none, little], [at(0.5)], 1e-5).verdict).to.equal("symmetry");
  });

  it("compares with what is surely broken, if most is and that is asked for", () => {
    const sizes = (...all: SkillLost[]) => all.map((one) => [one]);
    const [own, undecided, broken] = [at(0.002), at(0.03, 0.05), at(0.5)];
    const judged = (openly: boolean, ...others: SkillLost[]) =>
      weigh(sizes(own), sizes(...others), 0.05, LIMITS, undefined, openly);
    expect(judged(false, undecided, broken).verdict).to.equal("cannot tell");
    const openly = judged(true, undecided, broken);
    expect([openly.verdict, openly.undecided]).to.deep.equal(["symmetry", 1]);
    expect(judged(true, undecided, undecided, broken).verdict).to.equal("cannot tell");
    expect(judged(true, undecided).verdict).to.equal("cannot tell");
  });

  it("cannot tell where the interval is wide, and says what cannot be excluded", () => {
    const { verdict, reason } = judge([at(0.05, 0.08)], [at(1.5)], 0.3);
    expect(verdict).to.equal("cannot tell");
    expect(reason).to.match(/up to \d+ %/);
  });

  it("calls no span a symmetry of which half a turn is surely broken", () => {
    const near = at(0.002);
    const turn = (lost: number, more = {}) => at(lost, 0.001, { size: 2, halfTurn: true, ...more });
    const verdict = (...sizes: SkillLost[]) => weigh([sizes], [[at(0.5)]], 0.05).verdict;
    expect(verdict(near, turn(0.002))).to.equal("symmetry");
    expect(verdict(near, turn(0.3))).to.equal("none");
    expect(verdict(near, turn(0.3, { reach: 100 }))).to.equal("symmetry");
    expect(verdict(near, turn(0, { lost: null, error: null }))).to.equal("symmetry");
    // Half turns of other directions are not compared.
    expect(weigh([[near]], [[at(0.5), turn(0)]], 0.05).verdict).to.equal("symmetry");
  });

  it("judges by smaller moves where others are compared at these alone", () => {
    const small = at(0.001, 0.001, { size: 0.2 });
    const large = at(0.03, 0.02, { size: 1 });
    const other = [at(0.09, 0.01, { size: 0.2 }), at(0.3, 0.01, { size: 1, reach: 100 })];
    const { verdict, size } = weigh([[small, large]], [other], 0.05);
    expect(verdict).to.equal("symmetry");
    expect(size).to.equal(0.2);
  });

  it("compares moves of one size before it says that a span is none", () => {
    const sizes = (small: number, large: number, reach = 1) => [
      at(small, 0.001, { size: 0.2 }),
      at(large, 0.001, { size: 1, reach }),
    ];
    // The other direction is out of reach at 1, and loses 0.04 at 0.2.
    const other = sizes(0.04, 0.9, 100);
    expect(weigh([sizes(0.004, 0.03)], [other], 0.02).verdict).to.equal("symmetry");
    expect(weigh([sizes(0.015, 0.06)], [other], 0.02).verdict).to.equal("approximate");
    expect(weigh([sizes(0.038, 0.039)], [other], 0.02).verdict).to.equal("none");
  });

  it("bounds what the predictor does not explain, too", () => {
    expect(judge([at(0.01)], [at(0.5)], 0.5).verdict).to.equal("symmetry");
    expect(judge([at(0.01)], [at(0.5)], 0.7).verdict).to.equal("cannot tell");
  });

  it("takes a bound from below that few scenes do not widen", () => {
    const wide = at(2.8, 2.5);
    expect(judge([at(0.01)], [wide]).verdict).to.equal("cannot tell");
    expect(judge([at(0.01)], [{ ...wide, least: 0.4 }]).verdict).to.equal("symmetry");
    expect(interval({ ...wide, least: 0.4 })).to.include({ value: 2.8, low: 0.4 });
  });

  it("takes the worst direction of a span", () => {
    expect(judge([at(0.001), at(0.3)], [at(0.5)]).verdict).to.equal("none");
  });

  it("judges at the largest size that is in reach", () => {
    const sizes = [at(0.001, 0.001, { size: 0.05 }), at(0.9, 0.01, { size: 0.5, reach: 40 })];
    const { verdict, size } = weigh([sizes], [[at(0.5, 0.01, { size: 0.05 })]], 0.05);
    expect([verdict, size]).to.deep.equal(["symmetry", 0.05]);
    const far = [at(0.001, 0.001, { reach: 40 })];
    expect(weigh([far], [[at(0.5)]], 0.05)).to.include({ verdict: "cannot tell" });
  });

  it("compares a direction that leaves the reach sooner in proportion to the size", () => {
    const inside = [at(0.02, 0.001, { size: 0.5 })];
    const outside = [at(0.1, 0.001, { size: 0.05 }), at(9, 0.1, { size: 0.5, reach: 99 })];
    // At its own size it loses 0.1, which is not scaled up.
    expect(weigh([inside], [outside], 0.2).elsewhere).to.be.closeTo(0.098, 0.001);
    const larger = [at(0.5, 0.001, { size: 0.2 })];
    expect(weigh([[at(0, 0.001, { size: 0.1 })]], [larger], 0.2).elsewhere).to.be.closeTo(
      0.249,
      0.001,
    );
  });

  it("compares no larger moves of others with a span that is judged by small ones", () => {
    const far = at(0.5, 0.001, { size: 0.2, reach: 99 });
    const span = [at(0.02, 0.001, { size: 0.05 }), far];
    const other = [at(0.01, 0.001, { size: 0.05 }), at(0.9, 0.001, { size: 0.2 })];
    const { verdict, elsewhere } = weigh([span], [other], 0.1);
    expect(elsewhere).to.be.closeTo(0.01, 0.003);
    expect(verdict).to.equal("cannot tell");
  });

  it("does not take moves that are not judged for larger ones that cost less", () => {
    const sizes = [at(0.001, 1e-4), at(0.01, 1e-4, { size: 0.5 }), at(0.02, 1e-4, { size: 1 })];
    const far = [at(0.001, 1e-4), at(0.5, 1e-4, { size: 0.5, reach: 9 })];
    const { verdict, size } = weigh([sizes, far], [[at(0.5)]], 0.05);
    expect([verdict, size]).to.deep.equal(["symmetry", 0.2]);
  });

  it("judges combinations together with the span, where they were measured", () => {
    const sizes = (lost: number) => [at(lost), at(lost, 0.001, { size: 0.5 })];
    const outside = [sizes(0.6)];
    const told = (combined: [number, SkillLost[]][], all = true) => {
      const given = new Map(combined.map(([index, lost]) => [index, { lost, all }]));
      return weigh([sizes(0.002)], outside, 0.05, LIMITS, undefined, false, given);
    };
    expect(told([])).to.include({ verdict: "symmetry", index: 1 });
    expect(told([[1, [at(0.05, 0.001, { size: 0.5 })]]])).to.include({
      verdict: "symmetry",
      index: 0,
    });
    const broken = told([
      [1, [at(0.05, 0.001, { size: 0.5 })]],
      [0, [at(0.05)]],
    ]);
    expect(broken).to.include({ verdict: "approximate", index: 1 });
    expect(told([[1, [at(0.05, 0.001, { size: 0.5 })]]]).largest).to.equal(1);
    // If some have no such moves, or out of reach, they leave the next smaller size.
    expect(told([[1, [at(0.002, 0.001, { size: 0.5, reach: 9 })]]]).index).to.equal(0);
    expect(told([[1, []]], false).index).to.equal(0);
    const turn = at(0.5, 0.001, { size: 1.5, halfTurn: true });
    expect(told([[1, [at(0.002, 0.001, { size: 0.5 }), turn]]]).verdict).to.equal("none");
  });

  it("knows a finite group by a loss that falls at larger moves", () => {
    const sizes = [at(0.3, 0.01, { size: 0.05 }), at(0.01, 0.01, { size: 0.5 })];
    const { verdict, reason } = weigh([sizes], [[at(2, 0.1, { size: 0.5 })]], 0.02);
    expect(verdict).to.equal("none");
    expect(reason).to.contain("finite");
  });

  it("lets the bound alone decide where there is no other direction", () => {
    expect(judge([at(0.01)], []).verdict).to.equal("symmetry");
    expect(judge([at(0.1)], []).verdict).to.equal("approximate");
    expect(judge([at(0.9)], []).verdict).to.equal("none");
  });

  it("does not blame a symmetry for what interpolation loses", () => {
    expect(judge([at(0.09, 0.001, { floor: 0.08 })], [at(0.5)]).reason).to.contain("coarse");
  });

  it("cannot tell of moves that change nothing", () => {
    expect(weigh([[]], [[at(0.5)]], 0.1).verdict).to.equal("cannot tell");
    expect(weigh([], [], 0.1).verdict).to.equal("cannot tell");
  });

  it("widens intervals by the spread of refits", () => {
    const one = interval(at(0.1, 0.01));
    const refits = interval(at(0.1, 0.01, { refits: [0.05, 0.1, 0.15, 0.1, 0.1] }));
    expect(refits.high - refits.low).to.be.greaterThan(2 * (one.high - one.low));
    expect(refits.value).to.be.closeTo(0.1, 1e-12);
  });

  it("asks refits how strange moved samples are, if there are any", () => {
    const refits = [0.1, 0.1];
    expect(inReach(at(0.1, 0.01, { reach: 1, disagreement: 99, refits }))).to.equal(false);
    expect(inReach(at(0.1, 0.01, { reach: 99, disagreement: 1, refits }))).to.equal(true);
  });

  it("allows for what the predictor lacks, and more where samples are strange", () => {
    expect(allowance(at(0), 0)).to.equal(LIMITS.least);
    expect(allowance(at(0), 0.1)).to.be.lessThan(allowance(at(0, 0, { reach: 3 }), 0.1));
  });

  it("tells nothing from few scenes or a predictor without skill", () => {
    const evidence = { skill: 0.9, skillError: 0.01, scenes: 200, heldOut: true, targets: true };
    expect(hopeless(evidence)).to.equal(undefined);
    expect(hopeless({ ...evidence, scenes: 19 })).to.contain("19 scenes");
    expect(hopeless({ ...evidence, skill: 0.01, skillError: 0.01 })).to.contain("no skill");
    expect(hopeless({ ...evidence, skill: 0, targets: false })).to.equal(undefined);
    expect(hopeless({ ...evidence, skill: null })).to.contain("could not");
  });
});
