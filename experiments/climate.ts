/** Storms on weather maps: which linear maps leave them what they are, and segmentation networks on the sphere that are built from that. */
import { join } from "node:path";
import { z } from "zod";
import {
  AtlasError,
  amount,
  type Context,
  defineExperiment,
  demandGenerators,
  discoverAlgebra,
  equivarianceUnder,
  type Findings,
  GRASSMANN,
  givenBasis,
  identityField,
  illustrate,
  lookUpIdentity,
  makePredictor,
  onlyFor,
  paperFields,
  pixelFields,
  planeRotation,
  publishedTensors,
  type RemoteObject,
  readFiles,
  reuseField,
  sameBasis,
  score,
  solverField,
  Tensor,
  trainPixels,
  UsageError,
  whole,
} from "../src/index.js";

/** Fields that discovery looks at, and those that the networks on the sphere see besides. */
const LOCAL = ["TMQ", "U850", "V850", "PSL"];
const ALL = [
  ...LOCAL,
  ...["PRECT", "UBOT", "VBOT", "QREFHT", "PS", "T200", "T500", "TS", "TREFHT", "Z1000", "Z200", "ZBOT"],
];
/** Where the charts' centres are, as shares of the height; all are at mid-width. */
const ROWS = "0.35 0.45 0.55 0.65";
/** Where they are in the published code, by how many networks a checkpoint holds; versions differ. From the south, as are the files' rows. */
const PUBLISHED_ROWS: Record<number, number[]> = { 3: [0.4, 0.5, 0.6], 4: [0.35, 0.45, 0.55, 0.65] };
const CLASSES = { count: 3, background: 0, names: ["background", "tropical cyclone", "atmospheric river"] };
/** What the predictor is tried with, besides what the solver draws: of gl(2)'s group, and the reflection that is not. */
const MOVES = {
  "rotation by 90°": planeRotation(90),
  "rotation by 180°": planeRotation(180),
  "scaling by 1.5": diagonal(1.5, 1.5),
  "scaling by 2/3": diagonal(2 / 3, 2 / 3),
  "stretch by 1.5": diagonal(1.5, 2 / 3),
  "shear by 0.7": [
    [1, 0.7],
    [0, 1],
  ],
  reflection: diagonal(1, -1),
};
/** The algebra of the kernels that have the symmetry of the sphere's frames and no more. */
const BASELINE = "so(2)";

/** Where a field counts. */
const DISCOVER = { task: ["discover"] };
const DOWNSTREAM = { task: ["downstream_*"] };
const TRAINED = { reuse_predictor: [false] };

const config = z.object({
  task: z
    .enum(["discover", "downstream_baseline", "downstream_discovered"])
    .default("discover")
    .describe("What to find, or which network to train"),
  data: z.string().default("data/climate").meta({
    description: "Folder with train/ and test/ of ClimateNet (make or fetch it with: atlas data climate)",
    placeholder: "dir",
  }),
  ...onlyFor(
    { keep: ["disk"] },
    {
      cache: z.string().optional().meta({
        description: "Worker's folder for fields that are read already (default: the worker's choice)",
        placeholder: "dir",
      }),
    },
  ),
  keep: z
    .enum(["disk", "memory"])
    .default("disk")
    .describe("Where the worker has the fields, once they are read: there, for later runs too, or in memory"),
  N: z.int().min(0).default(0).describe("Files to train with, the first by name; 0 for all"),
  test: z.int().min(0).default(0).describe("Files to test with, the first by name; 0 for all"),
  stride: whole(4, "Take every n-th row and column"),
  ...onlyFor(DISCOVER, {
    rows: z.string().default(ROWS).meta({
      description: "Centres of the charts, as shares of the maps' height from the north",
      placeholder: "shares",
    }),
    r_in: whole(200, "Radius of the charts, in rows of the files"),
    r_out: whole(150, "Radius on which transformed fields are compared, in rows of the files"),
    margin: z
      .int()
      .min(0)
      .default(48)
      .describe("True field beyond a chart, for what is moved into it, in rows of the files"),
    predictor: z
      .enum(["cgnet", "published"])
      .default("cgnet")
      .describe(
        "CGNet, or as the published code has it (padded by the opposite side, another interpolation)",
      ),
    upside_down: z
      .boolean()
      .default(false)
      .describe(
        "The predictor knows maps with the south on top, as the files and the published code have them",
      ),
    cgnet_m: whole(3, "Blocks of CGNet's second stage"),
    cgnet_n: whole(21, "Blocks of its third stage"),
    cgnet_width: whole(32, "Channels of its first stage"),
  }),
  ...onlyFor(DOWNSTREAM, {
    resolution: whole(6, "How often the icosahedron's edges are halved"),
    levels: whole(5, "How often the network halves its resolution"),
  }),
  ...onlyFor([TRAINED, { ...DISCOVER, solver: ["paper"] }], {
    epochs: whole(
      20,
      "Passes over the files (paper solver: of predictor and basis in turn); 60 for the downstream tasks' fast preset",
    ),
    batch_size: whole(4, "Files a step"),
  }),
  ...onlyFor(TRAINED, {
    predictor_lr: amount(3e-3, "Learning rate of the predictors; 0.01 for the downstream tasks' fast preset"),
    ...onlyFor(DISCOVER, { background_weight: amount(0.2, "Weight of the background in their loss") }),
    ...pixelFields(),
  }),
  reuse_predictor: reuseField(),
  ...onlyFor(DISCOVER, {
    solver: solverField(),
    ...onlyFor(GRASSMANN, {
      algebra_epochs: whole(1, "Epochs of the search; for a smaller k than 4 take 3"),
    }),
    threshold: z
      .number()
      .min(0)
      .max(1)
      .default(0.35)
      .describe("Relative error up to which a generator counts as a symmetry"),
    k: z.int().min(1).max(4).default(4).describe("Number of generators to look for in gl(2)"),
    scale: z.number().min(1e-3).max(10).default(0.5).describe("Size of the transformations that are tried"),
    standard_basis: z.boolean().default(false).describe("Generators of disjoint supports"),
    ...paperFields({ r1: 0.05, r3: 5 }),
  }),
  ...onlyFor(
    { task: ["downstream_discovered"] },
    { identity: identityField("Algebra of the kernels' symmetry, as a RUN, FILE, or name like gl(2)") },
  ),
});
type Config = z.infer<typeof config>;

const isDownstream = (task?: unknown) => String(task).startsWith("downstream");

export default defineExperiment({
  name: "climate",
  summary: "The symmetry of storms on weather maps, and networks on the sphere built from it",
  config,
  presets: ({ task }) => {
    const published = {
      stride: 1,
      batch_size: 4,
      predictor_lr: 1e-3,
      schedule: "constant",
      background_weight: 1,
    } as const;
    if (isDownstream(task))
      return {
        fast: { epochs: 60, predictor_lr: 0.01 },
        published: { ...published, epochs: 20 },
      };
    return {
      fast: {},
      published: { ...published, solver: "paper", epochs: 30, scale: 1 } as const,
    };
  },
  defaultPreset: ({ solver, task = "discover" }) =>
    solver === "paper" && task === "discover" ? "published" : "fast",
  examples: [
    "atlas data climate --generate 24 --out data/climate",
    "atlas climate --task discover --fixed-seed",
    "atlas climate --task downstream_baseline",
    "atlas climate --task downstream_discovered --identity latest",
    "atlas climate --task downstream_discovered --identity 'gl(2)' --preset published --data climatenet",
  ],

  async prepare(c, runs) {
    const discovered = c.task === "downstream_discovered";
    const given = c.task === "downstream_baseline" ? BASELINE : c.identity;
    const identity = await lookUpIdentity(runs, given, 2, discovered ? `--task ${c.task}` : undefined);
    if (isDownstream(c.task)) demandGenerators(identity);
    else sharesOf(c.rows);
    const decisive = isDownstream(c.task)
      ? (["task", "resolution", "levels"] as const)
      : ([
          ...(["task", "stride", "rows", "r_in"] as const),
          ...(["predictor", "upside_down", "cgnet_m", "cgnet_n", "cgnet_width"] as const),
        ] as const);
    const sameKind = (other: Record<string, unknown>) =>
      decisive.every((field) => other[field] === c[field]) && sameBasis(other.identity, identity);
    const reuse_predictor = c.reuse_predictor && (await runs.predictor(c.reuse_predictor, sameKind));
    return {
      ...c,
      ...asPublished(await publishedTensors(reuse_predictor), c),
      data: runs.workerPath(c.data),
      cache: c.cache && runs.workerPath(c.cache),
      identity,
      reuse_predictor,
    };
  },

  async run(ctx, c) {
    const variables = isDownstream(c.task) ? ALL : LOCAL;
    const dataset = await weather(ctx, c, "train", c.N, variables);
    // Before the training, which would be in vain without them.
    const others = await weather(ctx, c, "test", c.test, variables);
    return isDownstream(c.task) ? segment(ctx, c, dataset, others) : discover(ctx, c, dataset, others);
  },
});

/** The weather maps of one of the two folders. */
function weather(
  ctx: Context,
  { data, cache, keep, stride }: Config,
  split: "train" | "test",
  files: number,
  variables: string[],
): Promise<RemoteObject> {
  const params = { path: join(data, split), variables: variables.join(), files, stride, cache, keep };
  return readFiles(
    ctx,
    { kind: "climatenet", params },
    `make some with: atlas data climate --generate 24 --out ${data}; or fetch ClimateNet's with --fetch in place of --generate 24; or give --data`,
  );
}

/** What a predictor in the published code's layout was made for: its own network, on its own charts, of maps with the south on top. */
function asPublished(tensors: string[] | undefined, c: Config): Partial<Config> {
  if (tensors === undefined || isDownstream(c.task)) return {};
  const networks = new Set(tensors.map((name) => /network(\d+)\./.exec(name)?.[1]));
  const rows = PUBLISHED_ROWS[networks.size]?.map((fromSouth) => (1 - fromSouth).toFixed(2)).join(" ");
  return { predictor: "published", upside_down: true, rows: c.rows === ROWS ? (rows ?? ROWS) : c.rows };
}

/** @throws UsageError when `rows` are no shares */
function sharesOf(rows: string): number[] {
  const shares = rows
    .trim()
    .split(/[\s,]+/)
    .map(Number);
  if (shares.every((share) => share > 0 && share < 1)) return shares;
  throw new UsageError(
    `--rows ${rows}: these are not shares of a height`,
    `numbers between 0 and 1, as in ${ROWS}`,
  );
}

/** The charts, on a lattice of which every n-th row and column was taken. */
function chartsOn(dataset: RemoteObject, { rows, stride, r_in, r_out, margin }: Config) {
  const shape = z.tuple([z.int(), z.int(), z.int(), z.int()]).safeParse(dataset.facts.inputs);
  if (!shape.success)
    throw new AtlasError("the worker does not tell the maps' size", "use a worker of the same version");
  const [, , height, width] = shape.data;
  return {
    charts: sharesOf(rows).map((share) => ({ row: Math.round(share * height), col: Math.round(width / 2) })),
    rIn: Math.max(1, Math.round(r_in / stride)),
    rOut: Math.max(1, Math.round(r_out / stride)),
    margin: Math.round(margin / stride),
  };
}

async function discover(
  ctx: Context,
  c: Config,
  dataset: RemoteObject,
  others: RemoteObject,
): Promise<Findings> {
  const charts = chartsOn(dataset, c);
  const atlas = await ctx.atlas({ ...charts, outputInterpolation: "nearest" });
  const paper = c.solver === "paper";
  const source = c.reuse_predictor;
  const options = {
    architecture: {
      kind: "cgnet",
      params: {
        ...{ m: c.cgnet_m, n: c.cgnet_n, width: c.cgnet_width },
        ...{ published: c.predictor === "published", upside_down: c.upside_down },
      },
    },
    training: trainPixels(c, "cross_entropy", c.background_weight),
    dataset,
    atlas,
    epochs: c.epochs,
  };
  const { predictor, about } = await makePredictor(ctx, options, { source, later: paper });
  const { batch_size, scale, standard_basis, threshold, r1, r2, r3 } = c;
  const report = { scale, threshold, standard_basis };
  const algebra = await discoverAlgebra(
    ctx,
    { predictor, dataset, atlas },
    {
      solver: paper
        ? { kind: "paper", params: { batch_size, learning_rate: c.basis_lr, r1, r2, r3, ...report } }
        : { kind: "grassmann", params: { compare: "distance", ...report } },
      k: c.k,
      epochs: paper ? c.epochs : c.algebra_epochs,
      train: paper && source === false,
    },
  );
  const equivariance = await equivarianceUnder(ctx, predictor, MOVES, { dataset: others, samples: 64 });
  const scores = await score(ctx, predictor, others);
  show(ctx, others, LOCAL, predictor, charts);
  return {
    task: c.task,
    algebra,
    equivariance,
    predictor: { ...about, loss: ctx.metrics("predictor").loss ?? null, scores },
    notes: [
      `the predictor, which is what is looked at, has a ${agreement(scores)}; what it has not learnt counts as the symmetry's error`,
      `a generator counts as a symmetry up to a relative error of ${threshold}; outputs that have nothing to do with one another have 0.5`,
      "small transformations hardly tell a symmetry from none, whatever the predictor; the errors of equivariance are those of larger ones",
      ...(c.k === 4
        ? [
            "four generators span all of gl(2), whatever the data: what is found is that no direction's error is above that limit, and how much they differ",
          ]
        : []),
      ...caches(dataset, others),
    ],
  };
}

/** Segmentation of the whole sphere, on an icosahedral grid, by kernels that are the same in all frames that the algebra relates. */
async function segment(
  ctx: Context,
  c: Config,
  dataset: RemoteObject,
  others: RemoteObject,
): Promise<Findings> {
  const atlas = await ctx.atlas({ resolution: c.resolution });
  const options = {
    architecture: { kind: "icosahedral_unet", params: { levels: c.levels } },
    training: trainPixels(c, "jaccard"),
    dataset,
    atlas,
    epochs: c.epochs,
    tensors: { algebra: Tensor.from(givenBasis(c.identity), "float32") },
  };
  const { predictor, about } = await makePredictor(ctx, options, { source: c.reuse_predictor });
  const scores = await score(ctx, predictor, others);
  show(ctx, others, ALL, predictor);
  const gauge = String(predictor.facts.gauge);
  const source = typeof c.identity === "object" ? c.identity.source : BASELINE;
  return {
    task: c.task,
    predictor: { ...about, loss: ctx.metrics("predictor").loss ?? null },
    downstream: { metrics: { ...scores, parameters: Number(predictor.facts.parameters) }, gauge },
    notes: [
      `its gauge group is ${gauge}, from the algebra ${source}; it has a ${agreement(scores)}`,
      "IoU is the intersection of a class as predicted and as labelled, over their union: averaged over the experts who labelled a time, then over times, then over classes; the experts' is among themselves",
      ...caches(dataset, others),
    ],
  };
}

function show(
  ctx: Context,
  dataset: RemoteObject,
  channels: string[],
  predictor: RemoteObject,
  atlas?: ReturnType<typeof chartsOn>,
): void {
  illustrate(ctx, { dataset, atlas, channels, classes: CLASSES, predictions: { predictor } });
}

/** Where the fields of both folders are, for the user to delete when they are done with them: nobody else does. */
function caches(...datasets: RemoteObject[]): string[] {
  const places = datasets.map(({ facts }) => facts.cache).filter((place) => typeof place === "string");
  return places.length === 0
    ? []
    : [
        `the fields are kept for later runs in ${places.join(" and ")}, which may be deleted, there with: atlas data cache --clear`,
      ];
}

/** "mean IoU of 0.48 with the labels of other times (experts among themselves 0.52; the best constant 0.31)" */
function agreement({ mean_iou, experts_mean_iou, trivial_mean_iou }: Record<string, number>): string {
  const beside = [
    ["experts among themselves", experts_mean_iou],
    ["the best constant", trivial_mean_iou],
  ].flatMap(([who, iou]) => (typeof iou === "number" ? [`${who} ${iou.toFixed(3)}`] : []));
  const known = beside.length === 0 ? "" : ` (${beside.join("; ")})`;
  return `mean IoU of ${mean_iou?.toFixed(3)} with the labels of other times${known}`;
}

function diagonal(a: number, b: number): number[][] {
  return [
    [a, 0],
    [0, b],
  ];
}
