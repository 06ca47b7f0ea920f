/** Directions of the inputs that a predictor hardly uses. */
import { expect } from "chai";
import type { Context } from "../../../src/experiment/context.js";
import {
  judgeUnused,
  saying,
  withoutDuplicates,
  withoutUnused,
} from "../../../src/method/unused.js";
import type { AlgebraMeasured, CosetsMeasured, EvidenceMeasured } from "../../../src/result.js";
import type { RemoteObject } from "../../../src/worker/index.js";

const axes = (...on: number[]) => on.map((x, i) => on.map((_, j) => (i === j ? x : 0)));
const without = (lost: number, error = 0.001) => ({
  length: 0,
  size: 1,
  floor: 0,
  reach: 1,
  lost,
  error,
});
const measured = (...lost: number[]): EvidenceMeasured => ({
  skill: 0.98,
  skillError: 0.005,
  scenes: 400,
  heldOut: true,
  targets: true,
  directions: [],
  matrices: [],
  unused: [axes(1, 0, 0), axes(1, 1, 0), axes(1, 1, 1)],
  without: lost.map((each) => without(each)),
});

describe("directions of the inputs that a predictor hardly uses", () => {
  it("are the most that surely cost little", () => {
    const two = judgeUnused(measured(0.05, 0.02, 2))!;
    expect(two).to.include({ directions: 6 });
    expect(two.rest).to.have.length(1);
    expect(two.words).to.contain("components 1, 2 of 3").and.to.contain("2.0 %");
    expect(judgeUnused(measured(0.02, 0.5, 2))).to.include({ directions: 3 });
    expect(judgeUnused(measured(0.2, 0.5, 2))).to.equal(undefined);
    expect(judgeUnused({ ...measured(0, 0, 2), skill: 0.001 })).to.equal(undefined);
    expect(judgeUnused({ ...measured(), unused: undefined, without: undefined })).to.equal(
      undefined,
    );
  });

  it("are named as combinations where they are no components", () => {
    const found = measured(0.02, 0.5, 2);
    const mixed = [
      [0.5, 0.5, 0],
      [0.5, 0.5, 0],
      [0, 0, 0],
    ];
    const { words, rest } = judgeUnused({ ...found, unused: [mixed, ...found.unused!.slice(1)] })!;
    expect(words).to.contain("1 combination of the components");
    expect(rest).to.have.length(4);
    const { inertDirections, explanation } = saying(
      { explanation: "a gap" } as AlgebraMeasured,
      judgeUnused(found),
    );
    expect([inertDirections, explanation.endsWith("; a gap")]).to.deep.equal([3, true]);
  });

  /** A context in which two matrices are one component if their first entries have one sign. */
  const context = (found: EvidenceMeasured) => {
    const asked: unknown[] = [];
    const session = {
      measureEvidence: (_: unknown, options: unknown) => {
        asked.push(options);
        return Promise.resolve(found);
      },
      compareComponents: (_: unknown, matrices: number[][][]) =>
        Promise.resolve({ component: matrices.map((m) => Number(m[2]![2]! < 0)), residuals: [] }),
    };
    const ctx = { session, seed: 0, timed: (_: string, f: () => unknown) => f() };
    return { ctx: ctx as unknown as Context, asked };
  };
  const inputs = () => {
    const [predictor, dataset, atlas] = [{}, {}, { kind: "vectors" }] as RemoteObject[];
    return { predictor: predictor!, dataset: dataset!, atlas: atlas! };
  };

  it("are left out of the search, and looked for once", async () => {
    const { ctx, asked } = context(measured(0.02, 0.02, 2));
    const given = inputs();
    const { groupAlgebra } = await withoutUnused(ctx, given);
    expect(groupAlgebra).to.have.length(1);
    expect(groupAlgebra![0]![2]![2]).to.be.closeTo(1, 1e-12);
    await withoutUnused(ctx, given);
    expect(asked).to.have.length(1);
    // Not if more generators are asked for, or an algebra is given that moves them.
    expect(await withoutUnused(ctx, given, { k: 2 })).to.equal(given);
    expect(await withoutUnused(ctx, given, { generators: [axes(1, 1, 1)] })).to.equal(given);
    const restricted = { ...given, groupAlgebra: [axes(1, 1, 1)] };
    expect(await withoutUnused(ctx, restricted)).to.equal(restricted);
  });

  it("make no components of their own", async () => {
    const { ctx } = context(measured());
    const unused = judgeUnused(measured(0.02, 0.02, 2));
    const kept = { loss: 0, matrix: axes(1, 1, 1), outcome: "kept" as const };
    const found = {
      matrices: [axes(5, -1, 1), axes(2, 7, 1.1), axes(1, 1, -1)],
      losses: [0.1, 0.2, 0.3],
      noiseFloor: 0,
      candidates: [kept, kept, kept, { ...kept, outcome: "duplicate" as const, duplicateOf: 2 }],
    } satisfies CosetsMeasured;
    const { matrices, losses, candidates } = await withoutDuplicates(ctx, found, [], unused);
    expect(matrices).to.deep.equal([axes(1, 1, 1), axes(1, 1, -1)]);
    expect(losses).to.deep.equal([0.1, 0.3]);
    expect(candidates.map(({ outcome, duplicateOf }) => [outcome, duplicateOf])).to.deep.equal([
      ["kept", undefined],
      ["duplicate", 0],
      ["kept", undefined],
      ["duplicate", 1],
    ]);
    expect(await withoutDuplicates(ctx, found, [], undefined)).to.equal(found);
  });
});
