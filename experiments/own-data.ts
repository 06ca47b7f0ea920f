/** Local symmetries of your own arrays. Copy this file to use your own charts. */
import { z } from "zod";
import {
  defineExperiment,
  discoverAlgebra,
  discoverCosets,
  fileField,
  makePredictor,
  nearSymmetries,
  openArray,
  task,
  trainedPredictor,
  UsageError,
  whole,
} from "../src/index.js"; // in a copy: "atlas-symmetry"

/**
 * One chart in the middle of 64 pixels. All numbers are pixels. You may give several charts, each
 * at least `r_in` pixels away from every edge.
 */
const CHARTS = { charts: [{ row: 32, col: 32 }], r_in: 12, r_out: 8 };

export default defineExperiment({
  name: "own-data",
  summary: "Local symmetries of your own arrays",
  examples: ["atlas own-data --inputs inputs.npy --targets targets.npy"],
  tasks: {
    discover: task({
      summary: "Fit a predictor, find the Lie algebra, then the other components of the group",
      config: {
        inputs: fileField("A .npy file [samples, channels, height, width]"),
        targets: fileField(
          "A .npy file to predict from the inputs, with the same samples and size",
        ),
        epochs: whole(5, "Passes over the data"),
        k: z.int().min(1).max(4).default(1).describe("Number of generators to look for"),
      },

      async prepare(c) {
        if (c.inputs === undefined || c.targets === undefined)
          throw new UsageError(
            "own-data needs inputs and targets",
            "give --inputs FILE.npy and --targets FILE.npy",
          );
        for (const file of [c.inputs, c.targets]) await openArray(file);
        return c;
      },

      async run(ctx, c) {
        const open = (file: string) => openArray(file, { warn: (line) => ctx.warn(line) });
        const tensors = { inputs: await open(c.inputs!), targets: await open(c.targets!) };
        const dataset = await ctx.dataset({ kind: "arrays", tensors });
        const charts = { kind: "planar", params: CHARTS } as const;
        const atlas = await ctx.atlas(charts);
        ctx.illustrate({ dataset, atlas: charts });

        const architecture = { kind: "strided_cnn" } as const;
        const training = {
          kind: "supervised",
          params: { learning_rate: 0.01, schedule: "cosine" },
        } as const;
        const fit = { architecture, training, dataset, atlas, epochs: c.epochs };
        const { predictor, about } = await makePredictor(ctx, fit, { source: false });

        const inputs = { predictor, dataset, atlas };
        const solver = { kind: "grassmann", params: { charts: 1 } } as const;
        const algebra = await discoverAlgebra(ctx, inputs, { solver, k: c.k, epochs: 3 });
        const search = { params: { charts: 1 }, identity: nearSymmetries(algebra), epochs: 1 };
        const components = await discoverCosets(ctx, inputs, search);
        return {
          task: "discover",
          predictor: trainedPredictor(ctx, about),
          algebra,
          ...components,
        };
      },
    }),
  },
});
