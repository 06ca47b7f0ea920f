/** A trained predictor on a fake worker, for testing the steps that follow. */
import type { Context } from "../../../src/experiment/context.js";
import type { SolverInputs } from "../../../src/method/index.js";
import type { RunFolder } from "../../../src/run/folder.js";
import { measured } from "../algebra/helpers.js";
import { FakeSession } from "../experiment/fake-session.js";
import { fakeContext } from "../experiment/live.js";

export const QUARTER = [[0, -1], [1, 0]]; // biome-ignore format: a matrix
export const UNIT = [[1, 0], [0, 1]]; // biome-ignore format: a matrix

export interface FakeTask {
  ctx: Context;
  fake: FakeSession;
  run: RunFolder;
  inputs: SolverInputs;
}

/**
 * Two generators are found, of which the first is a symmetry, and one component. @param dir of run
 * folders
 */
export async function fakeTask(dir: string): Promise<FakeTask> {
  const fake = new FakeSession();
  Object.assign(fake, {
    getAlgebra: async () => measured([QUARTER, UNIT], { symmetryCount: 1 }),
    getCosets: async () => ({ matrices: [UNIT], losses: [0.5], noiseFloor: 0, candidates: [] }),
    getClosure: async () => ({
      matrices: [UNIT],
      losses: [0.5],
      table: [[0]],
      spread: 0,
      smallestDistance: 0,
      rejected: 0,
      resolved: true,
      explanation: "1 component",
    }),
  });
  const { ctx, run } = await fakeContext(dir, fake);
  const dataset = await ctx.dataset({ kind: "gaussian_points" });
  const atlas = await ctx.atlas({ kind: "vectors", params: { n: 2 } });
  const predictor = await ctx.predictor({
    architecture: { kind: "mlp" },
    training: { kind: "supervised" },
    dataset,
    atlas,
    epochs: 2,
  });
  return { ctx, fake, run, inputs: { predictor, dataset, atlas } };
}
