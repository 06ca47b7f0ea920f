/** The user's own data and predictors: config fields, charts, and the blocks that are made of them. */
import { resolve } from "node:path";
import { z } from "zod";
import type { Block } from "../blocks.js";
import { UsageError } from "../errors.js";
import { chooseLater, settle } from "../experiment/choice.js";
import type { Context } from "../experiment/context.js";
import { count, type Preparation, whole } from "../experiment/define.js";
import { readBytes } from "../experiment/lookup.js";
import { Tensor } from "../tensor/index.js";
import type { AtlasOptions, PredictorOptions, RemoteObject } from "../worker/index.js";
import { autoCharts, centresOf, latticeCharts, OWN } from "./charts.js";
import { fileField } from "./data.js";
import { type GroupConfig, hasGroups, typesFor } from "./group.js";
import { makePredictor } from "./predictor.js";
import { type TrajectoryConfig, targetsType } from "./trajectories.js";

const FACTORY = /^(.+\.py):([A-Za-z_]\w*)$/; // path.py:factory
const TAKES = "Its input: [batch, …], or [batch, charts, …]";

/** Make the config fields of a predictor that was trained elsewhere. */
export const foreignFields = () => ({
  predictor: fileField("A program (torch.jit.save, torch.export.save), or path.py:factory"),
  takes: z.enum(["chart", "charts"]).default("chart").meta({ description: TAKES, rare: true }),
  outputs: whole(1, "Channels, or numbers, in the predictor's output"),
  output_key: z.string().optional().meta({
    description: "Which output to use, if the predictor returns several",
    placeholder: "name|index",
  }),
  classifier: z.boolean().default(false).describe("The outputs are logits of classes"),
  halo: count(0, "Pixels beyond r_in that the predictor reads on each side").meta({
    rare: true,
    former: ["reach"],
  }),
});

/** Config of a predictor that was trained elsewhere. */
export interface ForeignConfig {
  predictor?: string;
  takes: "chart" | "charts";
  halo: number;
  output_key?: string;
  weights?: string;
}

/** Whether a text names a function in a Python file that makes a module. */
export function isFactory(given: string): boolean {
  return FACTORY.test(given);
}

/** Make the path of a foreign predictor absolute, where the worker sees the files of this machine. */
export function foreignPath(given: string, { lookup }: Preparation): string {
  const [, path, factory] = FACTORY.exec(given) ?? [];
  return path === undefined ? resolve(given) : `${lookup.workerPath(path)}:${factory}`;
}

/**
 * Make the block of a foreign predictor, and the tensors that it is made of. A program is sent to
 * the worker. The file of a module must be on the worker's machine.
 */
export async function foreignPredictor({
  predictor = "",
  takes,
  halo,
  output_key,
  weights,
}: ForeignConfig) {
  const [, file, factory] = FACTORY.exec(predictor) ?? [];
  const how = { takes, halo, output_key };
  if (file !== undefined)
    return {
      architecture: { kind: "module", params: { file, factory, weights, ...how } } as const,
    };
  const bytes = await readBytes(predictor);
  const program = new Tensor("uint8", [bytes.length], new Uint8Array(bytes));
  return { architecture: { kind: "program", params: how } as const, tensors: { program } };
}

/**
 * Whether arrays are sets of vectors rather than fields: as their axes are named, or by their
 * number. The worker refuses a number that allows both.
 */
export function areSets(shape: readonly number[], axes: string | undefined): boolean {
  return axes === undefined ? shape.length < 4 : axes.includes("features");
}

/** Make the config fields that type the features of inputs and outputs (METHOD 1.6). */
export const typeFields = () => ({
  axes: z.string().optional().meta({
    description: "Axes: n,c,y,x or n,c,x or n,c,z,y,x or n,items,features …",
    placeholder: "names",
  }),
  inputs_as: z.string().optional().meta({
    description: "Types of the inputs' features, such as S+V: a scalar and a vector",
    placeholder: "type",
  }),
  targets_as: z.string().optional().meta({
    description: "Types of the outputs, likewise, or class (default: scalars)",
    placeholder: "type|class",
  }),
});

/** Config of {@link typeFields} and {@link chartFields}. */
export interface OwnAtlasConfig extends GroupConfig {
  inputs_as?: string;
  targets_as?: string;
  charts?: string;
  r_in: number;
  r_out: number;
  margin: number;
}

/**
 * Make the atlas of a dataset of arrays: charts on fields `[N, channels, H, W]`, or all of R^n for
 * sets `[N, items, features]`.
 *
 * @param shape of the dataset's inputs
 * @param targets shape of its targets
 */
export function ownAtlas(
  shape: readonly number[],
  c: OwnAtlasConfig,
  targets: readonly number[] = [],
): Extract<AtlasOptions, { kind: "planar" | "lattice" | "vectors" }> {
  const [, second, third = 1, fourth] = shape;
  const targets_as = c.targets_as === "class" ? undefined : c.targets_as;
  const grouped = c.dimensions !== undefined || hasGroups(c.inputs_as, targets_as);
  const counted = { dimensions: c.dimensions, target_features: targets[1] };
  const more = grouped ? counted : undefined;
  if (fourth === undefined)
    // The worker finds n from the types.
    return {
      kind: "vectors",
      params: { n: 0, features: third, inputs_as: typesFor(c).inputs_as, targets_as, ...more },
    };
  const { r_in, r_out, margin, inputs_as } = c;
  const lattice = latticeOf(shape);
  if (lattice !== undefined) {
    const types = { inputs_as, targets_as, ...(grouped && { features: second, ...counted }) };
    const { charts } = latticeCharts(lattice, givenLengths(c));
    return { kind: "lattice", params: { ...charts, ...types } };
  }
  const charts = centresOf(c.charts, third, fourth, r_in, r_out);
  const params = { charts, r_in, r_out, margin, inputs_as, targets_as };
  const features = grouped ? { features: second, ...counted } : undefined;
  return { kind: "planar", params: { ...params, ...features } };
}

/**
 * The size of fields of 1 or 3 dimensions along each axis; undefined for other inputs. Fields of
 * one dimension have one row.
 *
 * @param shape of a dataset's inputs
 */
export function latticeOf(shape: readonly number[]): number[] | undefined {
  if (shape.length === 5) return shape.slice(2);
  return shape.length === 4 && shape[2] === 1 ? shape.slice(3) : undefined;
}

/** Select the lengths of charts that the user gave. */
function givenLengths(c: Pick<OwnAtlasConfig, "charts" | "r_in" | "r_out" | "margin"> & object) {
  const { given_fields = [] } = c as { given_fields?: readonly string[] };
  const pick = (field: "r_in" | "r_out" | "margin") =>
    given_fields.includes(field) ? c[field] : undefined;
  return { charts: c.charts, r_in: pick("r_in"), r_out: pick("r_out"), margin: pick("margin") };
}

/**
 * The solvers' parameters on sets of vectors. The spectral start is exact to the predictor's error
 * there; a search from random frames ends in local minima.
 */
export const ON_SETS = {
  algebra_epochs: 1,
  "solver.start": "spectral",
  "solver.steps": 0,
  "solver.batch_size": 128,
  "solver.charts": 1,
  "solver.evaluation": 256,
  "solver.leave_out": true,
  "solver.polish": true,
  "coset_solver.candidates": 32,
  "coset_solver.batch_size": 16,
  "coset_solver.charts": 1,
  "coset_solver.evaluation": 128,
} as const;

/**
 * Give the solvers' parameters the values for sets of vectors, unless the user gave others.
 *
 * @param c a config with the default solvers' parameters
 */
export function onSets<C extends object>(c: C, given: Readonly<Record<string, unknown>>): C {
  const own = given["solver.start"] === "random" ? ["algebra_epochs", "solver.steps"] : [];
  const fitting = Object.entries(ON_SETS).filter(
    ([name]) => name in c && given[name] === undefined && !own.includes(name),
  );
  return { ...c, ...Object.fromEntries(fitting) };
}

/** Samples whose validation and test parts the default recipe holds out (METHOD 2.1). */
export const HELD_OUT = { validation: 0.15, test: 0.15 } as const;
/** Numbers in a sample up to which a network takes all their products. */
const FEW_NUMBERS = 40;
/** Steps of a training on sets, if the user sets no epochs. */
const STEPS = 6500;
/** Steps of a training on fields of 1 or 3 dimensions, likewise. */
const LATTICE_STEPS = 800;

/** Make the config fields of a network that is trained on the user's arrays. */
export const ownFitFields = () => ({
  ...chooseLater("architecture", "architecture", {
    description: "Network to train (default: by the size of samples)",
    kinds: [
      "strided_cnn",
      "encoder_decoder",
      "cgnet",
      "lattice_cnn",
      "mlp",
      "polynomial",
      "quadratic",
    ],
  }),
  epochs: z.int().positive().optional().meta({
    description: "Passes over the data (default: by the number of samples)",
    placeholder: "number",
  }),
  ...chooseLater("training", "training", { description: "Training recipe" }),
});

/** Config of {@link ownFitFields}, and what the fit depends on. */
export interface OwnFitConfig {
  architecture?: string;
  epochs?: number;
}

/**
 * Make the blocks and the epochs of a network that is trained on the user's arrays.
 *
 * @param shape of the dataset's inputs
 * @param seed of the choice of held-out samples
 */
export function ownFit(
  c: OwnFitConfig,
  shape: readonly number[],
  { params }: Pick<ReturnType<typeof ownAtlas>, "params">,
  loss: OwnLoss,
  seed: number,
) {
  const [samples = 0, ...sample] = shape;
  const sets = shape.length < 4;
  const numbers = sample.reduce((a, b) => a * b, 1);
  const small = numbers <= FEW_NUMBERS || sample[0] === 1;
  const lattice = latticeOf(shape);
  const network = lattice
    ? "lattice_cnn"
    : !sets
      ? "strided_cnn"
      : small
        ? "polynomial"
        : "quadratic";
  const points = params !== undefined && "inputs_as" in params && params.inputs_as?.includes("X");
  const several = params !== undefined && "charts" in params && params.charts.length > 1;
  const batch_size = lattice ? 8 : !sets ? 16 : samples >= 10_000 ? 128 : samples >= 4000 ? 64 : 32;
  const fields = ownFitFields();
  const training = settle(c, fields, "training", "supervised", {
    supervised: {
      loss: sets && loss === "l1" ? "l2" : loss,
      schedule: "cosine",
      learning_rate: 0.01,
      batch_size,
      split_seed: seed % 2 ** 31,
      ...HELD_OUT,
    },
  });
  const steps = sets ? STEPS : LATTICE_STEPS;
  const passes = sets || lattice ? passesOf(steps, batch_size, samples) : 5;
  return {
    architecture: settle(c, fields, "architecture", network, {
      strided_cnn: several && c.architecture === undefined ? { own: OWN } : {},
      mlp: points ? { centre: true } : {},
      lattice_cnn: lattice ? latticeCharts(lattice, givenLengths(c as never)).network : {},
    }),
    training,
    epochs: c.epochs ?? Math.min(Math.max(passes, 4), 150),
  };
}

/** Count the passes over the samples to fit to that make so many steps. */
function passesOf(steps: number, batch_size: number, samples: number): number {
  return Math.round((steps * batch_size) / (0.7 * Math.max(samples, 1)));
}

/** Skill below which other networks are tried. */
const GOOD = 0.9;
/** Least steps of a training on fields of 2 dimensions that is tried then. */
const LONGER = 600;
/** Networks to try where the usual one explains little, by its kind. */
const OTHERS: Readonly<Record<string, readonly Block<"architecture">[]>> = {
  // A wide view costs detail; these see each pixel, or nearly.
  strided_cnn: [
    { kind: "strided_cnn", params: { stride: 1, layers: 3 } },
    { kind: "strided_cnn", params: { stride: 2, layers: 4 } },
  ],
  polynomial: [{ kind: "mlp" }],
  quadratic: [{ kind: "mlp" }],
};

/**
 * Fit the network that a layout usually gets. If it explains little, fit others too, and keep the
 * one with the least loss on the samples for validation.
 */
export async function fitUsual(
  ctx: Context,
  options: Parameters<Context["predictor"]>[0],
): ReturnType<typeof makePredictor> {
  const { architecture: usual } = options;
  const first = await makePredictor(ctx, options, { source: false });
  const others = OTHERS[usual.kind] ?? [];
  if ((ctx.metrics("predictor").skill ?? 1) >= GOOD || others.length === 0) return first;
  const told: string[] = [];
  const see = (made: typeof first, stage: string, block: Block<"architecture">) => {
    const { skill = 0, validation_loss = Number.POSITIVE_INFINITY } = ctx.metrics(stage);
    const name = [
      block.kind,
      ...Object.entries(block.params ?? {}).map((entry) => entry.join(" ")),
    ];
    told.push(`${skill.toFixed(2)} of ${name.join(" ")}`);
    return { made, name: name.join(" "), loss: validation_loss };
  };
  let best = see(first, "predictor", { kind: usual.kind });
  const { batch_size = 1 } = (options.training.params ?? {}) as { batch_size?: number };
  const [samples = 1] = options.dataset.shapes!.inputs;
  const longer = Math.min(passesOf(LONGER, batch_size, samples), 60);
  const epochs = Math.max(options.epochs, usual.kind === "strided_cnn" ? longer : 0);
  for (const [i, block] of others.entries()) {
    const stage = `predictor_${i + 2}`;
    const params = block.kind === usual.kind ? { ...usual.params, ...block.params } : block.params;
    const architecture = { ...block, params } as typeof usual;
    const network = { ...options, architecture, epochs };
    const made = await makePredictor(ctx, network, { source: false, stage });
    const next = see(made, stage, block);
    if (next.loss < best.loss) best = next;
  }
  const tried = `networks were tried, as the usual one explains little (skill ${told.join(", ")})`;
  ctx.note(`${tried}; the one that is used is ${best.name}`);
  return best.made;
}

/** The loss of a predictor of the user's data. */
export type OwnLoss = "l1" | "cross_entropy";
/** What a predictor is made of, beside its data and charts. */
export type OwnFit = Pick<PredictorOptions, "architecture" | "training" | "epochs" | "tensors">;
/** Config of a predictor of the user's data. */
export type OwnConfig = OwnAtlasConfig & ForeignConfig & OwnFitConfig & TrajectoryConfig;

/** Charts, and the predictor that is fitted or taken on them. */
export type OwnSetting = OwnFit & { charts: ReturnType<typeof ownAtlas>; reach?: number };

/** Make the charts that the user gives, and the predictor: fitted to targets, or given too. */
export async function givenFit(
  ctx: Context,
  c: OwnConfig,
  { shapes }: RemoteObject,
  loss: OwnLoss,
): Promise<OwnSetting> {
  const { inputs, targets } = shapes!;
  const charts = ownAtlas(inputs, { ...c, targets_as: targetsType(c, inputs, targets) }, targets);
  if (c.predictor === undefined)
    return { charts, ...ownFit(c, inputs, charts, loss, ctx.seedFor("split")) };
  const training: Block<"training"> = { kind: "supervised", params: { loss } };
  return { charts, ...(await foreignPredictor(c)), training, epochs: 0 };
}

/** Place charts by the reach of the dependence, and make the network that is fitted on them. */
export async function autoFit(
  ctx: Context,
  c: OwnConfig,
  dataset: RemoteObject,
  loss: OwnLoss,
): Promise<OwnSetting> {
  const { inputs } = dataset.shapes!;
  if (inputs[3] === undefined)
    throw new UsageError("--charts auto: sets of vectors have no charts", "leave it out");
  if (latticeOf(inputs) !== undefined)
    throw new UsageError(
      "--charts auto places charts on fields of 2 dimensions alone",
      "leave it out, or give centres or a grid",
    );
  const { params: { inputs_as, targets_as } = {} } = ownAtlas(inputs, c, dataset.shapes!.targets);
  const types = { inputs_as, targets_as };
  const seed = ctx.seedFor("split");
  const { architecture, training, epochs } = ownFit(c, inputs, {}, loss, seed);
  const auto = await autoCharts(ctx, { dataset, training, types });
  return {
    charts: { kind: "planar", params: auto.charts },
    reach: auto.reach,
    architecture: c.architecture === undefined ? auto.architecture : architecture,
    training,
    epochs,
  };
}
