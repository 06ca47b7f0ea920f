/** Local symmetries of your own arrays. Copy this file, put in your charts, and run it: atlas ./my-data.ts --inputs x.npy --targets y.npy */
import { readFile } from "node:fs/promises";
import { z } from "zod";
import {
  analyseAlgebra,
  analyseCosets,
  defineExperiment,
  illustrate,
  readNpy,
  UsageError,
} from "../src/index.js"; // in a copy: "atlas-symmetry"

/** One window in the middle; yours may be many, anywhere at least `rIn` pixels from every edge. All in pixels. */
const CHARTS = { charts: [{ row: 32, col: 32 }], rIn: 12, rOut: 8, margin: 0 };

export default defineExperiment({
  name: "own-data",
  summary: "Local symmetries of your own arrays",
  config: z.object({
    inputs: z.string().optional().meta({
      description: "A .npy file, [samples, channels, height, width]",
      placeholder: "file",
    }),
    targets: z.string().optional().meta({
      description: "What is to be predicted, of the same samples and size",
      placeholder: "file",
    }),
    epochs: z.int().positive().default(5).describe("Passes over the data in fitting the predictor"),
    k: z.int().min(1).max(4).default(1).describe("Number of generators to look for"),
  }),

  async prepare(c) {
    if (c.inputs === undefined || c.targets === undefined)
      throw new UsageError("own-data needs data", "give --inputs FILE.npy and --targets FILE.npy");
    return c;
  },

  async run(ctx, c) {
    const [inputs, targets] = await Promise.all(
      [c.inputs!, c.targets!].map(async (file) => readNpy(await readFile(file), file)),
    );
    const tensors = { inputs: inputs!, targets: targets! };
    const dataset = await ctx.dataset({ kind: "arrays", params: {}, tensors });
    const atlas = await ctx.atlas(CHARTS);
    illustrate(ctx, { dataset, atlas: CHARTS });

    const architecture = { kind: "wide", params: {} };
    const training = { kind: "supervised", params: { learning_rate: 0.01, schedule: "cosine" } };
    const predictor = await ctx.predictor({ architecture, training, dataset, atlas, epochs: c.epochs });
    const { loss = null } = await ctx.advance("predictor", predictor);

    const task = { predictor, dataset, atlas };
    const grassmann = { kind: "grassmann", params: { charts: 1 } };
    const algebra = await ctx.algebra({ ...task, solver: grassmann, k: c.k, epochs: 3 });
    await ctx.advance("algebra", algebra);
    const found = analyseAlgebra(await ctx.session.getAlgebra(algebra));

    const identity = found.generators.slice(0, found.found);
    const descent = { kind: "descent", params: { charts: 1 } };
    const cosets = await ctx.cosets({ ...task, solver: descent, identity, epochs: 1 });
    await ctx.advance("cosets", cosets);
    return {
      task: "discover",
      predictor: { loss, epochs: c.epochs, source: "trained" },
      algebra: found,
      cosets: analyseCosets(await ctx.session.getCosets(cosets), identity),
    };
  },
});
