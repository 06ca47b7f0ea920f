/** Jets of particles: the symmetry of top quarks, and a tagger built from it. */
import { join } from "node:path";
import {
  alternates,
  type ConfigOf,
  type Context,
  count,
  defineExperiment,
  demandMetric,
  discoveryTasks,
  downstreamTasks,
  folderField,
  formatMatrix,
  invariantMetric,
  measuredOnPredictor,
  metricTensors,
  percent,
  predictorFields,
  readFiles,
  score,
  tableFields,
  trainNetwork,
  whole,
  withOthers,
} from "../src/index.js";

const N = 4; // energy and momentum

const data = (constituents: number) => ({
  data: folderField("data/toptagging", "Folder of train.h5, val.h5, test.h5"),
  N: count(20_000, "Number of jets to train with; 0 for all"),
  constituents: whole(constituents, "Number of leading constituents of each jet"),
  ...tableFields("is_signal_new"),
});
type Data = ConfigOf<ReturnType<typeof data>>;

const LOSS = { loss: "cross_entropy", batch_size: 64, learning_rate: 3e-3 } as const;
const PUBLISHED = { N: 0, epochs: 10, "training.batch_size": 16, "training.learning_rate": 1e-3 };
const BASELINE = ["particle_graph", "particle_flow"] as const;
const OF_SETS = { sets: true, logarithm: true, width: 24, vectors: 4, layers: 1 } as const;
const NETWORK = { solver: "atlasd", architecture: "mlp" } as const;
const SEARCH = {
  candidates: 64,
  max_components: 16,
  batch_size: 16,
  charts: 1,
  evaluation: 128,
  precondition: true,
  learning_rate: 0.3,
  refine: 60,
};

const discovery = discoveryTasks({
  n: N,
  manifold: "vectors",
  data: data(30),
  decisive: ["constituents", "label"],
  predictor: {
    architecture: { default: "quadratic", kinds: ["quadratic", "mlp"] },
    epochs: 3,
    // A larger epsilon keeps weights that the data do not constrain from drifting.
    training: (c) => {
      const schedule = alternates(c) ? "constant" : "cosine";
      return { supervised: { ...LOSS, epsilon: 1e-3, schedule } };
    },
  },
  algebra: {
    most: N * N,
    k: "auto",
    epochs: 1,
    values: () => ({
      "*": { evaluation: 256, scale: 0.1 },
      grassmann: { batch_size: 128, charts: 1, start: "spectral", steps: 0 },
      atlasd: { r1: 0.1, r3: 1 },
    }),
  },
  cosets: { epochs: 1, values: () => ({ multistart: SEARCH }) },
  reference: { kind: "mlp" },
  presets: { fast: {}, published: { ...PUBLISHED, ...NETWORK, "training.epsilon": 1e-8, k: 7 } },
  setting: (ctx, c) => setting(ctx, c, "val"),
  async conclude(ctx, _, { predictor: about, ...found }, predictor, { others }) {
    const scores = await score(ctx, predictor, others);
    const auc = scores.auc?.toFixed(4);
    const notes = [measuredOnPredictor(`accuracy ${percent(scores.accuracy)}, AUC ${auc}`)];
    if (found.algebra)
      notes.push("masses do not scale: scaling is a symmetry only if masses do not matter");
    return { ...found, predictor: { ...about, scores }, notes };
  },
});

/** A classifier: with the group of a discovered metric, or a similar one without symmetry. */
function tagger(symmetric: boolean) {
  const kinds = symmetric ? (["lorentznet", "equivariant_mlp"] as const) : BASELINE;
  const network = predictorFields({
    manifold: "vectors",
    architecture: { default: kinds[0], kinds, values: () => ({ equivariant_mlp: OF_SETS }) },
    epochs: 10,
    training: () => ({ supervised: { ...LOSS, weight_decay: 0.01, schedule: "cosine" } }),
  });
  return { ...data(20), ...network };
}

export default defineExperiment({
  name: "toptagging",
  summary: "The symmetry of top-quark jets, and a tagger built from it",
  examples: [
    "atlas toptagging --task discover --fixed-seed",
    "atlas toptagging --task discover_cosets --reuse-predictor",
    "atlas toptagging --task downstream_discovered --identity latest",
  ],
  tasks: {
    ...discovery,
    ...downstreamTasks({
      n: N,
      what: "a tagger",
      network: tagger,
      presets: () => ({ fast: {}, published: { ...PUBLISHED, constituents: 30 } }),
      check: demandMetric,
      async run(ctx, c, name, algebra) {
        const metric = algebra && invariantMetric(algebra.basis);
        const jets = await setting(ctx, c, "test");
        const { findings } = await trainNetwork(ctx, c, jets, {
          task: name,
          stage: "tagger",
          tensors: metric && metricTensors(c, metric.matrix),
          score: (network) => score(ctx, network, jets.others),
        });
        if (!metric) return findings;
        const note = `metric of the tagger, from ${algebra.source}: ${formatMatrix(metric.matrix)}`;
        return { ...findings, notes: [note] };
      },
    }),
  },
});

/** The jets to train with, and others for the scores. */
async function setting(ctx: Context, c: Data, scored: "val" | "test") {
  const train = await readJets(ctx, c, "train", c.N);
  const jets = await withOthers(ctx, train, await readJets(ctx, c, scored), "jets");
  return { ...jets, atlas: await ctx.atlas({ kind: "vectors", params: { n: N } }) };
}

/** Read the jets of one file in the layout of the reference data set. */
function readJets(ctx: Context, c: Data, file: "train" | "val" | "test", samples = 0) {
  const { constituents: items, table: key, label, order } = c;
  const params = { path: join(c.data, `${file}.h5`), items, key, label, samples, order };
  const generate = `atlas data toptagging --generate 100000 --out ${c.data}`;
  const remedy = `generate some with: ${generate}; or give --data`;
  return readFiles(ctx, { kind: "pandas_hdf5", params }, remedy);
}
