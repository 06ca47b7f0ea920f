/** Storms on weather maps: their local symmetry, and networks on the sphere built from it. */
import { join } from "node:path";
import {
  algebraTask,
  algebraTensor,
  type ConfigOf,
  type Context,
  cacheFields,
  cacheNotes,
  columnCharts,
  columnFields,
  count,
  defineExperiment,
  describeIoU,
  downstreamTasks,
  equivarianceUnder,
  folderField,
  measuredOnPredictor,
  namedIdentity,
  pixelTraining,
  planeMoves,
  predictorFields,
  readFiles,
  referenceNetworks,
  reuseFields,
  scoreAndShow,
  trainNetwork,
  type Winds,
  whole,
  windsField,
  withOthers,
} from "../src/index.js";

/** Variables for discovery, and all, for the networks on the sphere. */
const LOCAL = ["TMQ", "U850", "V850", "PSL"];
const MORE = "PRECT,UBOT,VBOT,QREFHT,PS,T200,T500,TS,TREFHT,Z1000,Z200,ZBOT";
const ALL = [...LOCAL, ...MORE.split(",")];
const names = ["background", "tropical cyclone", "atmospheric river"];
const SHOWN = { classes: { count: 3, background: 0, names } };
/** Rows of charts. Then those of the reference code, by the number of networks in a checkpoint. */
const ROWS = "0.35 0.45 0.55 0.65";
const REFERENCE_ROWS = ["", "", "", "0.60 0.50 0.40", "0.65 0.55 0.45 0.35"];
const files = (to: string) => count(0, `Number of files to ${to} with; 0 for all`);
const data = {
  data: folderField("data/climate", "Folder with train/ and test/ of ClimateNet"),
  ...cacheFields(),
  N: files("train"),
  test: files("test"),
  stride: whole(4, "Take every n-th row and column"),
};
const [m, n, width, upside_down] = ["cgnet_m", "cgnet_n", "cgnet_width", "upside_down"].map(
  (name) => ({ names: [name], kinds: ["cgnet"], listed: false }),
);
const LEARNING = { "training.learning_rate": 1e-3, "training.schedule": "constant" } as const;
const PUBLISHED = { ...LEARNING, "solver.scale": 1, "training.background_weight": 1 };
const SEARCH = { grassmann: { compare: "distance" }, atlasd: { r3: 5 } } as const;

const discover = algebraTask({
  manifold: "planar",
  data: { ...data, ...columnFields(ROWS, 200, 150, 48), winds: windsField() },
  decisive: ["stride", "rows", "r_in", "winds"],
  predictor: {
    architecture: { default: "cgnet", flags: { m, n, width, upside_down } },
    epochs: 20,
    training: pixelTraining("cross_entropy", 4, 3e-3, 0.2),
  },
  algebra: { most: 4, k: 4, epochs: 1, values: () => ({ "*": { scale: 0.5 }, ...SEARCH }) },
  reference: { kind: "cgnet", params: { reference: true, upside_down: true } },
  presets: { fast: {}, published: { ...PUBLISHED, stride: 1, solver: "atlasd", epochs: 30 } },

  async prepare({ rows, reuse_predictor, weights_key }) {
    if (rows !== ROWS) return {};
    return { rows: REFERENCE_ROWS[await referenceNetworks(reuse_predictor, weights_key)] || ROWS };
  },

  async setting(ctx, c) {
    const maps = await weather(ctx, c, LOCAL, c.winds);
    const charts = columnCharts(maps.dataset, c, c.winds === "vectors" ? "S+V+S" : undefined);
    return { ...maps, charts, atlas: await ctx.atlas(charts) };
  },

  async conclude(ctx, c, { predictor: about, ...found }, predictor, { dataset, others, charts }) {
    const tried = { dataset: others, samples: 64 };
    const equivariance = await equivarianceUnder(ctx, predictor, planeMoves(), tried);
    const channels = c.winds === "scalars" ? LOCAL : ["TMQ", "−V850", "U850", "PSL"];
    const shown = { ...SHOWN, atlas: charts, channels };
    const scores = await scoreAndShow(ctx, predictor, others, shown);
    const notes = [measuredOnPredictor(describeIoU(scores)), ...cacheNotes(dataset, others)];
    if (found.algebra?.generators.length === 4)
      notes.push("four independent generators span gl(2): the finding is the size of the errors");
    return { ...found, equivariance, predictor: { ...about, scores }, notes };
  },
});

/** A U-Net on an icosahedral grid. The algebra decides which frames share its kernels. */
function network() {
  const fields = predictorFields({
    manifold: "icosahedron",
    architecture: { default: "icosahedral_unet", flags: { levels: "levels" } },
    epochs: 60,
    training: pixelTraining("jaccard", 4, 0.01),
    omit: ["background_weight"],
  });
  const resolution = whole(6, "Number of times that the icosahedron's edges are halved");
  return { ...data, resolution, ...fields, ...reuseFields() };
}

export default defineExperiment({
  name: "climate",
  summary: "The symmetry of storms on weather maps, and networks on the sphere built from it",
  tasks: {
    discover,
    ...downstreamTasks({
      n: 2,
      what: "a segmentation network",
      network,
      presets: () => ({ fast: {}, published: { ...LEARNING, stride: 1, epochs: 20 } }),
      decisive: ["resolution"],
      async run(ctx, c, name, discovered) {
        const { dataset, others } = await weather(ctx, c, ALL);
        const grid = { kind: "icosahedron", params: { resolution: c.resolution } } as const;
        const setting = { dataset, atlas: await ctx.atlas(grid) };
        // The baseline's symmetry is the one of the sphere's frames.
        const algebra = discovered ?? namedIdentity("so(2)", 2);
        const { network, findings } = await trainNetwork(ctx, c, setting, {
          task: name,
          tensors: algebraTensor(algebra),
          score: (network) => scoreAndShow(ctx, network, others, { ...SHOWN, channels: ALL }),
        });
        const { metrics } = findings.downstream;
        const gauge = String(network.facts.gauge);
        const about = `gauge group ${gauge}, from ${algebra.source}; ${describeIoU(metrics)}`;
        const notes = [about, ...cacheNotes(dataset, others)];
        return { ...findings, downstream: { metrics, gauge }, notes };
      },
    }),
  },
});

/** The weather maps of both folders. */
async function weather(ctx: Context, c: ConfigOf<typeof data>, all: string[], winds?: Winds) {
  const read = (folder: string, files: number) => {
    const path = join(c.data, folder);
    const how = { stride: c.stride, cache: c.cache, storage: c.storage, winds };
    const params = { path, variables: all.join(), files, ...how };
    const make = `generate some with: atlas data climate --generate 24 --out ${c.data}`;
    return readFiles(ctx, { kind: "climatenet", params }, `${make}; or give --data`);
  };
  return withOthers(ctx, await read("train", c.N), await read("test", c.test), "maps");
}
