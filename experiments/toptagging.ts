/** The symmetry of jets of particles: which linear maps of four-momenta leave unchanged whether a jet looks like a top quark's. */
import { join } from "node:path";
import { z } from "zod";
import {
  amount,
  architectureFor,
  type Context,
  defineExperiment,
  discoverAlgebra,
  discoverCosets,
  type Findings,
  givenBasis,
  identityField,
  invariantMetric,
  lookUpIdentity,
  makePredictor,
  onlyFor,
  paperFields,
  type RemoteObject,
  readFiles,
  reuseField,
  score,
  solverField,
  symmetries,
  Tensor,
  UsageError,
  whole,
} from "../src/index.js";

/** Energy and momentum. */
const N = 4;

/** Where a field counts. */
const ALGEBRA = { task: ["discover_algebra", "discover"] };
const COSETS = { task: ["discover_cosets", "discover"] };
const DISCOVERY = { task: ["discover*"] };
const TRAINED = { reuse_predictor: [false] };

const config = z.object({
  task: z
    .enum(["discover_algebra", "discover_cosets", "discover", "downstream_baseline", "downstream_discovered"])
    .default("discover")
    .describe("What to find, or which classifier to train"),
  data: z.string().default("data/toptagging").meta({
    description: "Folder with train.h5, val.h5 and test.h5 (make it with: atlas data toptagging)",
    placeholder: "dir",
  }),
  ...onlyFor(ALGEBRA, { solver: solverField() }),
  ...onlyFor(DISCOVERY, {
    predictor: z.enum(["quadratic", "mlp"]).default("quadratic").describe("Architecture of the predictor"),
  }),
  N: z.int().min(0).default(20_000).describe("Jets to train with; 0 for all"),
  constituents: whole(30, "Leading constituents of a jet that are read"),
  ...onlyFor([TRAINED, { ...ALGEBRA, solver: ["paper"] }], {
    epochs: whole(3, "Passes over the jets (paper solver: of predictor and basis in turn)"),
    batch_size: whole(64, "Jets a step"),
  }),
  ...onlyFor(TRAINED, {
    predictor_lr: amount(3e-3, "Learning rate of the predictor"),
    predictor_epsilon: amount(
      1e-3,
      "Adam's ε: a larger one keeps weights that the data leave open from drifting",
    ),
  }),
  ...onlyFor(DISCOVERY, { reuse_predictor: reuseField() }),
  ...onlyFor(ALGEBRA, {
    k: z
      .union([z.literal("auto"), z.int().min(1).max(16)])
      .default("auto")
      .meta({
        description: "Number of generators in gl(4); auto finds it by the spectrum's gap",
        placeholder: "auto|number",
      }),
    scale: z.number().min(1e-3).max(10).default(0.1).describe("Size of the transformations that are tried"),
    standard_basis: z.boolean().default(false).describe("Generators of disjoint supports"),
    ...paperFields({ r1: 0.1, r3: 1 }),
  }),
  ...onlyFor(
    { task: ["discover_cosets", "downstream_discovered"] },
    { identity: identityField("Identity component, as a RUN, FILE, or name like so(1,3)") },
  ),
  ...onlyFor(COSETS, {
    candidates: whole(64, "Random matrices the coset search starts from"),
    keep: whole(16, "Most components to report"),
    coset_epochs: whole(1, "Epochs of the coset search, 100 steps each"),
  }),
});
type Config = z.infer<typeof config>;

const isDownstream = (task?: string) => task?.startsWith("downstream") ?? false;

export default defineExperiment({
  name: "toptagging",
  summary: "The symmetry of top-quark jets, and a tagger built from it",
  config,
  presets: ({ task }) => ({
    fast: isDownstream(task)
      ? { constituents: 20, epochs: 10, predictor_lr: 3e-3, predictor_epsilon: 1e-8 }
      : {},
    published: {
      solver: "paper",
      predictor: "mlp",
      N: 0,
      epochs: 10,
      batch_size: 16,
      predictor_lr: 1e-3,
      predictor_epsilon: 1e-8,
      k: 7,
    } as const,
  }),
  defaultPreset: ({ solver }) => (solver === "paper" ? "published" : "fast"),
  examples: [
    "atlas data toptagging --generate 100000 --out data/toptagging",
    "atlas toptagging --task discover --fixed-seed",
    "atlas toptagging --task discover_algebra --k 7 --fixed_seed --json",
    "atlas toptagging --task discover_cosets --identity latest --reuse-predictor",
    "atlas toptagging --task downstream_discovered --identity latest",
  ],

  async prepare(c, runs) {
    const discovers = !isDownstream(c.task);
    if (c.solver === "paper" && c.k === "auto" && discovers && c.task !== "discover_cosets")
      throw new UsageError("the paper solver cannot find the number of generators", "give --k, say 7");
    const identity = await lookUpIdentity(
      runs,
      c.identity,
      N,
      ["discover_cosets", "downstream_discovered"].includes(c.task) ? `--task ${c.task}` : undefined,
    );
    if (c.task === "downstream_discovered" && invariantMetric(givenBasis(identity)) === undefined)
      throw new UsageError(
        `the algebra ${typeof identity === "object" ? identity.source : ""} keeps no metric to build a classifier from`,
        "give one that does, say so(1,3) or a run that found it",
      );
    const sameKind = (other: Record<string, unknown>) =>
      other.predictor === c.predictor &&
      other.constituents === c.constituents &&
      !isDownstream(String(other.task));
    const reuse_predictor = c.reuse_predictor && (await runs.predictor(c.reuse_predictor, sameKind));
    return {
      ...c,
      data: runs.workerPath(c.data),
      identity,
      predictor: await architectureFor(reuse_predictor, c.predictor, "mlp"),
      reuse_predictor,
    };
  },

  async run(ctx, c) {
    const dataset = await readJets(ctx, c, "train", c.N);
    const atlas = await ctx.atlas({ n: N });
    return isDownstream(c.task) ? tag(ctx, c, dataset, atlas) : discover(ctx, c, dataset, atlas);
  },
});

/** The jets of one file; the reference data set's layout. */
function readJets(
  ctx: Context,
  c: Config,
  file: "train" | "val" | "test",
  samples = 0,
): Promise<RemoteObject> {
  const params = { path: join(c.data, `${file}.h5`), items: c.constituents, samples };
  const remedy = `make it with: atlas data toptagging --generate 100000 --out ${c.data}; or give --data`;
  return readFiles(ctx, { kind: "hdf5_table", params }, remedy);
}

async function discover(
  ctx: Context,
  c: Config,
  dataset: RemoteObject,
  atlas: RemoteObject,
): Promise<Findings> {
  const paper = c.solver === "paper" && c.task !== "discover_cosets";
  const source = c.reuse_predictor;
  const fit = {
    architecture: { kind: c.predictor, params: {} },
    training: {
      kind: "supervised",
      params: {
        loss: "cross_entropy",
        batch_size: c.batch_size,
        learning_rate: c.predictor_lr,
        epsilon: c.predictor_epsilon,
        schedule: paper ? "constant" : "cosine",
      },
    },
    dataset,
    atlas,
    epochs: c.epochs,
  };
  const { predictor, about } = await makePredictor(ctx, fit, { source, later: paper });
  const task = { predictor, dataset, atlas };
  const findings: Findings = { task: c.task, predictor: about };
  const { standard_basis, scale } = c;
  if (c.task !== "discover_cosets") {
    const { r1, r2, r3 } = c;
    const published = { batch_size: c.batch_size, learning_rate: c.basis_lr, r1, r2, r3 };
    const ours = { batch_size: 128, charts: 1, start: "spectral", steps: 0 };
    const report = { evaluation: 256, scale, standard_basis };
    findings.algebra = await discoverAlgebra(ctx, task, {
      solver: paper
        ? { kind: "paper", params: { ...published, ...report } }
        : { kind: "grassmann", params: { ...ours, ...report } },
      k: c.k === "auto" ? 0 : c.k,
      epochs: paper ? c.epochs : 1,
      train: paper && source === false,
    });
  }
  if (c.task !== "discover_algebra") {
    const identity = findings.algebra ? symmetries(findings.algebra) : givenBasis(c.identity);
    const { candidates, keep } = c;
    const params = {
      candidates,
      keep,
      batch_size: 16,
      charts: 1,
      evaluation: 128,
      precondition: true,
      learning_rate: 0.3,
    };
    Object.assign(findings, await discoverCosets(ctx, task, { params, identity, epochs: c.coset_epochs }));
  }
  findings.predictor.loss = ctx.metrics("predictor").loss ?? null;
  const scores = await scoreOn(ctx, c, predictor, "val");
  findings.predictor.scores = scores;
  findings.notes = limits(c, findings, scores);
  return findings;
}

/** What bounds the accuracy of what was found. */
function limits(c: Config, { algebra }: Findings, scores: Record<string, number>): string[] {
  const trained = c.reuse_predictor ? "" : `was trained with ${c.N || "all"} jets and `;
  const notes = [
    `the predictor, which is what is looked at, ${trained}classifies ${percent(scores.accuracy)} of others correctly (AUC ${scores.auc?.toFixed(4)}); what it has not learnt of the symmetry is missing here`,
  ];
  const worst = algebra?.relativeErrors.slice(0, algebra.found).at(-1);
  if (worst !== undefined)
    notes.push(
      `of the generators found the least exact has a relative error of ${worst.toFixed(3)}; masses do not scale, so scaling is a symmetry of the task only as far as they do not decide`,
    );
  return notes;
}

async function tag(ctx: Context, c: Config, dataset: RemoteObject, atlas: RemoteObject): Promise<Findings> {
  const identity = typeof c.identity === "object" ? c.identity : undefined;
  const metric = c.task === "downstream_discovered" ? invariantMetric(givenBasis(identity))! : undefined;
  const predictor = await ctx.predictor({
    architecture: { kind: metric ? "lorentznet" : "particle_graph", params: {} },
    training: {
      kind: "supervised",
      params: {
        loss: "cross_entropy",
        batch_size: c.batch_size,
        learning_rate: c.predictor_lr,
        epsilon: c.predictor_epsilon,
        weight_decay: 0.01,
        schedule: "cosine",
      },
    },
    dataset,
    atlas,
    epochs: c.epochs,
    tensors: metric && { metric: Tensor.from(metric.matrix, "float32") },
  });
  const { loss = null } = await ctx.advance("tagger", predictor);
  const scores = await scoreOn(ctx, c, predictor, "test");
  return {
    task: c.task,
    predictor: { loss, epochs: c.epochs, source: "trained" },
    downstream: { metrics: { ...scores, parameters: Number(predictor.facts.parameters) } },
    notes: metric && [
      `its metric is that of ${identity!.source}, ${JSON.stringify(metric.matrix.map((row) => row.map((x) => Number(x.toFixed(4)))))}, with residual ${metric.residual.toPrecision(2)}`,
    ],
  };
}

async function scoreOn(
  ctx: Context,
  c: Config,
  predictor: RemoteObject,
  file: "val" | "test",
): Promise<Record<string, number>> {
  const jets = await readJets(ctx, c, file);
  const scores = await score(ctx, predictor, jets);
  await ctx.session.delete(jets);
  return scores;
}

function percent(x = Number.NaN): string {
  return `${(100 * x).toFixed(1)} %`;
}
