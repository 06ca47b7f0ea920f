/**
 * The predictor whose symmetries are measured: trained here, or taken from elsewhere (METHOD 2.1).
 */
import { z } from "zod";
import type { Block, Manifold } from "../blocks.js";
import { UsageError } from "../errors.js";
import { type ChoiceOptions, choose, chosen } from "../experiment/choice.js";
import type { Context } from "../experiment/context.js";
import { type Preparation, type Shape, whole } from "../experiment/define.js";
import {
  isFile,
  type RecordedConfig,
  readPredictor,
  referenceTensors,
} from "../experiment/lookup.js";
import { flagName } from "../experiment/names.js";
import type { Findings } from "../result.js";
import type { RemoteObject } from "../worker/index.js";
import { alternates } from "./algebra.js";
import type { Fit, Setting } from "./data.js";

type ArchitectureOptions = Omit<ChoiceOptions<"architecture">, "description">;
type TrainingValues = Exclude<ChoiceOptions<"training">["values"], undefined>;

/** Make the config field that names a predictor to reuse instead of training one. */
export const reuseField = () =>
  z.union([z.boolean(), z.string()]).default(false).meta({
    description: "Use the predictor of a FILE or RUN (no value: newest that fits)",
    placeholder: "from",
  });

/** Make the config fields that name a predictor to reuse, and an entry of its file. */
export const reuseFields = () => ({
  reuse_predictor: reuseField(),
  weights_key: z
    .string()
    .optional()
    .describe("Entry of that FILE with the weights, if several fit")
    .meta({ placeholder: "entry" }),
});

/** Make the config fields of a predictor: architecture, epochs, and training recipe. */
export function predictorFields({
  manifold,
  architecture,
  epochs,
  training,
  omit,
}: {
  manifold: Manifold;
  architecture: ArchitectureOptions;
  /** Default number of passes over the data. */
  epochs: number;
  /** The experiment's own defaults of the recipe's parameters. */
  training: TrainingValues;
  /** Parameters of the recipe that have no effect in this experiment. */
  omit?: ChoiceOptions<"training">["omit"];
}) {
  return {
    ...choose("architecture", "architecture", {
      description: "Architecture",
      manifold,
      ...architecture,
    }),
    epochs: whole(epochs, "Passes over the data"),
    ...trainingFields(training, omit),
  };
}

/** Flags of the training recipe. Help lists the first two. */
const TRAINING_FLAGS = {
  batch_size: { names: ["batch_size"] },
  learning_rate: { names: ["predictor_lr"] },
  epsilon: { names: ["predictor_epsilon"], listed: false },
  background_weight: { names: ["background_weight"], listed: false },
  schedule: { names: ["schedule"], listed: false },
  precision: { names: ["precision"], listed: false },
};

/** Make the config fields of the training recipe. */
export function trainingFields(values: TrainingValues, omit?: ChoiceOptions<"training">["omit"]) {
  return choose("training", "training", {
    description: "Training recipe",
    default: "supervised",
    flags: TRAINING_FLAGS,
    omit,
    values,
  });
}

/** Config of a predictor. */
export interface PredictorConfig {
  epochs: number;
  reuse_predictor?: boolean | string;
  weights_key?: string;
}

/** Options of {@link lookUpPredictor}. */
export interface ReuseOptions {
  /** Fields, beside the architecture, that must agree with those of the other run. */
  decisive: readonly string[];
  /** A further condition on the other run's config. */
  fits?: (other: RecordedConfig) => boolean;
  /** The network of the reference code's checkpoints. */
  reference?: Block<"architecture">;
}

/**
 * Look up the predictor that `--reuse-predictor` refers to. For a checkpoint of the reference code,
 * the architecture becomes that code's own network, which computes what the weights were trained
 * for.
 *
 * @returns the config with the path of a file or a run, and with the architecture that fits
 * @throws UsageError if there is no such predictor, or it was trained with other settings
 */
export async function lookUpPredictor<C extends PredictorConfig>(
  config: C,
  { lookup, given, warn }: Preparation,
  { decisive, fits = () => true, reference }: ReuseOptions,
): Promise<C> {
  const { weights_key: key } = config;
  if (!config.reuse_predictor && key !== undefined)
    throw new UsageError(
      "--weights-key has no effect without --reuse-predictor",
      "leave it out, or give --reuse-predictor FILE",
    );
  if (!config.reuse_predictor) return config;
  const fields = [
    ...decisive,
    ...Object.keys(config).filter((field) => /^architecture(\.|$)/.test(field)),
  ];
  const source = await lookup.predictor(
    config.reuse_predictor,
    (other) =>
      fields.every((field) => other[field] === (config as Record<string, unknown>)[field]) &&
      fits(other),
  );
  if (key !== undefined && !(await isFile(source)))
    throw new UsageError(
      `--weights-key ${key}: the predictor of a run has no entries`,
      "leave it out, or give --reuse-predictor FILE",
    );
  const idle = Object.keys(given).filter(
    (field) => field === "epochs" || field.startsWith("training."),
  );
  if (!alternates(config))
    for (const field of idle)
      warn(`--${flagName(trainingFlag(field))} has no effect with --reuse-predictor`);
  if (reference === undefined || (await referenceTensors(source, key)) === undefined)
    return { ...config, reuse_predictor: source };
  const { architecture } = config as { architecture?: unknown };
  // The parameters of another network are not the reference's.
  const kept = Object.entries(config).filter(
    ([field]) => architecture === reference.kind || !field.startsWith("architecture."),
  );
  const theirs = architectureFields(reference);
  return { ...(Object.fromEntries(kept) as C), ...theirs, reuse_predictor: source };
}

/**
 * Count the networks in a checkpoint of the reference code, one for each chart; 0 for other files.
 */
export async function referenceNetworks(
  source: boolean | string | undefined,
  key?: string,
): Promise<number> {
  const names = (typeof source === "string" && (await referenceTensors(source, key))) || [];
  return new Set(names.flatMap((name) => /network(\d+)\./.exec(name)?.[1] ?? [])).size;
}

/** Get the name by which users know a field of the training. */
function trainingFlag(field: string): string {
  const param = field.replace(/^training\./, "");
  const flags: Readonly<Record<string, { names: readonly string[] }>> = TRAINING_FLAGS;
  return flags[param]?.names[0] ?? field;
}

/** Write a block of type "architecture" as config fields. */
export function architectureFields({ kind, params = {} }: Block<"architecture">): Shape | object {
  const fields = Object.entries(params).map(
    ([param, value]) => [`architecture.${param}`, value] as const,
  );
  return { architecture: kind, ...Object.fromEntries(fields) };
}

/**
 * Create the predictor of a config, and train it, or load the weights that {@link lookUpPredictor}
 * found. If the config's solver takes turns with the training, the solver trains it.
 */
export function fitPredictor(
  ctx: Context,
  config: PredictorConfig,
  { dataset, atlas }: Setting,
  {
    tensors,
    stage,
  }: Pick<Parameters<Context["predictor"]>[0], "tensors"> & {
    /** Name of the stage (default "predictor"). */
    stage?: string;
  } = {},
): Promise<{ predictor: RemoteObject; about: Findings["predictor"]; fit?: Fit }> {
  const options = {
    architecture: chosen(config, "architecture", "architecture"),
    training: chosen(config, "training", "training"),
    dataset,
    atlas,
    epochs: config.epochs,
    tensors,
  };
  const source = config.reuse_predictor ?? false;
  const { weights_key: key } = config;
  return makePredictor(ctx, options, { source, key, later: alternates(config), stage });
}

/**
 * Create a predictor, and train it or load weights into it.
 *
 * @returns the predictor, its description for the result, and how it was fitted, if it was
 */
export async function makePredictor(
  ctx: Context,
  options: Parameters<Context["predictor"]>[0],
  {
    source,
    key,
    later = false,
    stage = "predictor",
  }: {
    /** File or run with the weights, looked up already; a boolean to train. */
    source: string | boolean;
    /** Name of the file's entry with the weights, if several fit. */
    key?: string;
    /** Whether to leave the training to {@link discoverAlgebra} with `train`. */
    later?: boolean;
    /** Name of the stage (default "predictor"). */
    stage?: string;
  },
): Promise<{ predictor: RemoteObject; about: Findings["predictor"]; fit?: Fit }> {
  const predictor = await ctx.predictor(options);
  const reused = typeof source === "string" ? source : undefined;
  const warn = (line: string) => ctx.warn(line);
  if (reused !== undefined)
    await ctx.reuse(stage, predictor, (own) => readPredictor(reused, { own, key, warn }));
  else if (!later) await ctx.advance(stage, predictor);
  const about = {
    ...{ loss: null, epochs: options.epochs, source: reused ?? "trained" },
    ...(stage !== "predictor" && { stage }),
  };
  return { predictor, about, fit: reused === undefined ? options : undefined };
}

/**
 * Complete the description of a predictor at the end of a run: with its last training loss, and
 * with its skill on held-out samples. Without skill, a note warns the user.
 */
export function trainedPredictor(
  ctx: Context,
  about: Findings["predictor"],
  stage = "predictor",
): Findings["predictor"] {
  const { loss = null, skill, skill_error = 0, ...metrics } = ctx.metrics(stage);
  if (skill === undefined) return { ...about, loss };
  if (skill <= 2 * skill_error)
    ctx.note(
      `the predictor is no better than a constant (skill ${skill.toFixed(3)} ± ` +
        `${skill_error.toFixed(3)} on held-out samples): its symmetries say nothing about the ` +
        "data; give more samples, more epochs or another architecture",
    );
  const { validation_loss = null, best_epoch = about.epochs } = metrics;
  const heldOut = { skill, skillError: skill_error, validationLoss: validation_loss };
  return { ...about, loss, heldOut: { ...heldOut, bestEpoch: best_epoch } };
}
