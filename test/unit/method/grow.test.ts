/** The number of generators on fields. */
import { expect } from "chai";
import type { Context } from "../../../src/experiment/context.js";
import { growAlgebra } from "../../../src/method/grow.js";

const UNITS = [0, 1, 2, 3].map((at) =>
  [0, 1].map((row) => [0, 1].map((col) => (2 * row + col === at ? 1 : 0))),
);

/** A context whose solver finds as many of k generators as the algebra has. */
function contextOf(dimension: number) {
  const stages: string[] = [];
  const shown: string[] = [];
  const context = {
    illustrateMotions: (motions: readonly { name: string }[]) => {
      shown.splice(0, shown.length, ...motions.map(({ name }) => name));
    },
    algebra: async ({ k }: { k: number }) => ({ k }),
    advance: async (stage: string) => void stages.push(stage),
    timed: (_: string, work: () => unknown) => work(),
    session: {
      getAlgebra: async ({ k }: { k: number }) => ({
        generators: UNITS.slice(0, k),
        losses: Array(k).fill(0.01),
        relativeErrors: Array.from({ length: k }, (_, i) => (i < dimension ? 0.02 : 0.6)),
        noiseFloor: 0,
        symmetryCount: Math.min(k, dimension),
        spectrum: UNITS.map((direction) => ({ direction, loss: 0.1, relativeError: 0.1 })),
        explanation: "measured",
      }),
    },
  };
  return { context: context as unknown as Context, stages, shown };
}

describe("growAlgebra", () => {
  const search = { solver: "grassmann", k: "auto", epochs: 0, algebra_epochs: 3 } as const;
  const config = { ...search, evidence: "none" } as const;
  const inputs = { atlas: { kind: "planar" }, predictor: {} } as Parameters<typeof growAlgebra>[2];
  for (const [dimension, searches] of [
    [0, 1],
    [1, 2],
    [2, 3],
    [4, 4],
  ] as const)
    it(`finds ${dimension} generators in ${searches} searches, each a stage of its own`, async () => {
      const { context, stages, shown } = contextOf(dimension);
      const found = await growAlgebra(context, config, inputs);
      expect(found.symmetryCount).to.equal(dimension);
      expect(shown).to.deep.equal(["B1", "B2", "B3"].slice(0, Math.max(1, dimension)));
      expect(found.generators).to.have.length(Math.max(dimension, 1));
      expect(stages).to.deep.equal(
        ["algebra", "algebra_2", "algebra_3", "algebra_4"].slice(0, searches),
      );
      if (dimension > 0 && dimension < 4)
        expect(found.explanation).to.match(/with \d generators, one has a relative error of 0\.60/);
    });
});
