/** Digits on a sphere: their local symmetry, and a segmentation network built from it. */
import { z } from "zod";
import {
  algebraTask,
  algebraTensor,
  type Context,
  defineExperiment,
  downstreamTasks,
  equivarianceUnder,
  folderField,
  measuredOnPredictor,
  type Preparation,
  percent,
  pixelComparisonTask,
  pixelTraining,
  planeRotations,
  predictorFields,
  refuseGiven,
  reuseFields,
  rotationTask,
  score,
  scoreAndShow,
  trainNetwork,
  whole,
} from "../src/index.js";

/** The charts: centres on the sphere in degrees, radii in pixels. */
const CENTRES = [60, 180, 300].map((longitude) => ({ latitude: 0, longitude }));
const charts = (r_out: number) =>
  ({ kind: "sphere", params: { charts: CENTRES, r_in: 14, r_out, margin: 6 } }) as const;
/** Pictures show ten digits and the background, on charts without a margin. */
const SHOWN = { classes: { count: 11, background: 10 }, atlas: charts(14) };
const TURNS = planeRotations([15, 30, 45, 60, 75, 90, 180]);
const SCORED = 500; // spheres for the scores of a predictor
const DIGITS = "MNIST, or the small digits of scikit-learn (no files)";
const source = () => ({
  data: folderField("data/mnist", "Folder with the four MNIST files; missing ones are downloaded"),
  digits: z.enum(["mnist", "sklearn"]).default("mnist").describe(DIGITS),
});
const data = (N: number) => ({ ...source(), N: whole(N, "Number of spheres to train with") });
type Data = { data: string; digits: string };
const LEARNING = { "training.learning_rate": 1e-3, "training.schedule": "constant" } as const;
const published = { N: 10_000, epochs: 100 };
const PUBLISHED = { ...published, "training.batch_size": 16, ...LEARNING };
const AVERAGED = { architecture: "convnet", "architecture.kernel": "c4" };
const SEGMENTING = pixelTraining("cross_entropy", 8, 0.01, 0.005);
const SEARCH = { compare: "distance", batch_size: 8 } as const;

const discover = algebraTask({
  manifold: "planar",
  data: data(10_000),
  decisive: ["digits"],
  predictor: {
    architecture: { default: "encoder_decoder" },
    epochs: 4,
    training: pixelTraining("cross_entropy", 32, 3e-3, 0.1),
  },
  algebra: {
    most: 4,
    k: 1,
    epochs: 3,
    values: () => ({ "*": { evaluation: 32 }, grassmann: SEARCH }),
  },
  reference: { kind: "encoder_decoder", params: { reference: true } },
  presets: { fast: {}, published: { ...PUBLISHED, solver: "atlasd", epochs: 10 } },
  prepare,
  async setting(ctx, c) {
    return { ...(await setting(ctx, c)), others: await spheres(ctx, c, "test", SCORED, 60) };
  },
  async conclude(ctx, _, { predictor: about, ...found }, predictor, { others }) {
    const scores = await scoreAndShow(ctx, predictor, others, { ...SHOWN, samples: 1 });
    const quality = `${percent(scores.accuracy)} of the other digits' pixels classified correctly`;
    return { ...found, predictor: { ...about, scores }, notes: [measuredOnPredictor(quality)] };
  },
});

/** Make the segmentation network: the same convolutions on every chart. */
function network(symmetric: boolean) {
  const fields = predictorFields({
    manifold: "planar",
    architecture: {
      default: symmetric ? "steerable_unet" : "convnet",
      kinds: symmetric ? ["steerable_unet", "convnet"] : ["convnet", "unet"],
      ...{ flags: symmetric ? { kernel: "kernel" } : {}, implies: { kernel: "convnet" } },
      values: () => ({ convnet: { kernel: symmetric ? "smooth" : "free" } }),
    },
    epochs: 10,
    training: SEGMENTING,
  });
  const test = whole(1000, "Number of spheres to test with, whose digits are turned by any angle");
  return { ...data(1000), test, ...fields, ...reuseFields() };
}

export default defineExperiment({
  name: "mnist",
  summary: "The symmetry of digits on a sphere, and a segmentation network built from it",
  examples: [
    "atlas mnist --task discover --fixed-seed",
    "atlas mnist --task compare --symmetry latest",
  ],
  tasks: {
    discover,
    liegan_discover: rotationTask({ data: data(1000), epochs: 10, published, prepare, setting }),
    compare: pixelComparisonTask({
      ...{ data: source(), charts: charts(14), channels: 1, classes: 11 },
      ...{ training: SEGMENTING, samples: "34,334", pairs: 3, prepare, draw: spheres, angle: 60 },
      tests: { "digits turned by any angle": 180, "digits turned as in training": 60 },
    }),
    ...downstreamTasks({
      ...{ n: 2, what: "a segmentation network", network },
      presets: (has) => ({ fast: {}, published: { ...PUBLISHED, ...(has && AVERAGED) } }),
      decisive: ["digits"],
      prepare,
      async run(ctx, c, name, algebra) {
        const test = await spheres(ctx, c, "test", c.test, 180);
        const alike = await spheres(ctx, c, "test", Math.min(SCORED, c.test), 60);
        const { network, findings } = await trainNetwork(ctx, c, await setting(ctx, c), {
          task: name,
          tensors: algebraTensor(algebra),
          async score(network) {
            const { accuracy: accuracy_as_trained = null } = await score(ctx, network, alike);
            return { ...(await scoreAndShow(ctx, network, test, SHOWN)), accuracy_as_trained };
          },
        });
        const inner = { atlas: await ctx.atlas(charts(10)), dataset: test, samples: 32 };
        const equivariance = await equivarianceUnder(ctx, network, TURNS, inner);
        const notes = ["accuracy: digits turned by any angle; accuracy_as_trained: as in training"];
        if (algebra) notes.push(`the kernels have the symmetry of ${algebra.source}`);
        return { ...findings, equivariance, notes };
      },
    }),
  },
});

async function prepare(c: Data, { lookup, given }: Preparation): Promise<void> {
  if (c.digits === "sklearn") return refuseGiven(given, ["data"], "with --digits sklearn");
  await lookup.fetchRecord("mnist", c.data, "or use scikit-learn's digits: --digits sklearn");
}

/** Make spheres with three digits each, turned by 90° plus or minus at most `angle` degrees. */
function spheres(ctx: Context, c: Data, split: "train" | "test", samples: number, angle: number) {
  const [source, path] = c.digits === "mnist" ? (["idx", c.data] as const) : (["sklearn"] as const);
  const seed = ctx.seedFor(`${split} spheres`);
  const params = { source, path, split, samples, angle };
  return ctx.dataset({ kind: "sphere_digits", params, seed });
}

async function setting(ctx: Context, c: Data & { N: number }) {
  return { dataset: await spheres(ctx, c, "train", c.N, 60), atlas: await ctx.atlas(charts(14)) };
}
