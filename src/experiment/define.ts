/** What an experiment is: a name, a config schema whose fields become flags, and a function that runs it. */
import { z } from "zod";
import { AtlasError, UsageError } from "../errors.js";
import type { Findings } from "../result.js";
import { Common } from "./common.js";
import type { Context } from "./context.js";
import { type Flag, flagName, flagsOf } from "./flags.js";
import { nearest } from "./nearest.js";
import type { Runs } from "./sources.js";

const BRAND = Symbol.for("atlas-symmetry.experiment");

export interface ExperimentDefinition<S extends z.ZodObject = z.ZodObject> {
  /** As typed after `atlas`. */
  name: string;
  /** One line for `--help`. */
  summary: string;
  /**
   * The parameters. Every field has a description and is optional or has a default; numbers, texts, enums and booleans become flags
   * (`batch_size` is `--batch-size` and `--batch_size`).
   */
  config: S;
  /**
   * Named sets of values that stand in for the schema's defaults, given what the user set. Flags win over the preset. The user chooses with
   * `--preset`; else the first one is used, or what `defaultPreset` says.
   */
  presets?: (given: Partial<z.infer<S>>) => Record<string, Partial<z.infer<S>>>;
  defaultPreset?: (given: Partial<z.infer<S>>) => string;
  /** Command lines for `--help`. */
  examples?: string[];
  /**
   * Check what single fields cannot say, and replace references (a run, a file) by what they refer to, before anything is made.
   * @throws UsageError
   */
  prepare?: (config: z.infer<S>, runs: Runs) => Promise<z.infer<S>>;
  /** Do it. May be called again with the same config to go on after an interruption: stages already finished are then restored. */
  run: (ctx: Context, config: z.infer<S>) => Promise<Findings>;
}

export interface Experiment<S extends z.ZodObject = z.ZodObject> extends ExperimentDefinition<S> {
  readonly flags: Flag[];
  readonly presetNames: string[];
}

/** Define an experiment; the default export of an experiment file. */
export function defineExperiment<S extends z.ZodObject>(definition: ExperimentDefinition<S>): Experiment<S> {
  if (!/^[a-z][a-z0-9_-]*$/i.test(definition.name))
    throw new AtlasError(
      `${JSON.stringify(definition.name)} cannot be an experiment's name`,
      "use letters, digits, - and _",
    );
  for (const field of ["preset", ...Object.keys(Common.shape)])
    if (field in definition.config.shape)
      throw new AtlasError(
        `experiment ${definition.name}: the field ${field} is set by the runner`,
        "rename it",
      );
  const experiment = {
    ...definition,
    flags: flagsOf(definition.config),
    presetNames: Object.keys(definition.presets?.({}) ?? {}),
  };
  Object.defineProperty(experiment, BRAND, { value: true });
  return experiment;
}

/** Whether a value (of whatever copy of this package) is an experiment. */
export function isExperiment(value: unknown): value is Experiment {
  return typeof value === "object" && value !== null && BRAND in value;
}

/**
 * The complete config: what was given, over the preset, over the schema's defaults.
 *
 * @param given fields by name, as {@link Flag.parse} returns them or as code sets them
 * @throws UsageError naming the field that is unknown or not as the schema wants it
 */
export function completeConfig<S extends z.ZodObject>(
  experiment: ExperimentDefinition<S>,
  given: Partial<z.infer<S>>,
  preset?: string,
): { config: z.infer<S>; preset?: string } {
  let values: Record<string, unknown> = { ...given };
  let chosen: string | undefined;
  if (experiment.presets) {
    const presets = experiment.presets(given);
    chosen = preset ?? experiment.defaultPreset?.(given) ?? Object.keys(presets)[0]!;
    if (!(chosen in presets)) {
      const hint = nearest(chosen, Object.keys(presets));
      throw new UsageError(
        `unknown preset ${JSON.stringify(chosen)}${hint === undefined ? "" : ` (did you mean ${hint}?)`}`,
        `choose one of ${Object.keys(presets).join(", ")}`,
      );
    }
    values = { ...presets[chosen], ...values };
  } else if (preset !== undefined) throw new UsageError(`experiment ${experiment.name} has no presets`);
  const parsed = z.strictObject(experiment.config.shape).safeParse(values);
  if (parsed.success) return { config: parsed.data as z.infer<S>, preset: chosen };
  const issue = parsed.error.issues[0]!;
  const field = issue.code === "unrecognized_keys" ? issue.keys[0]! : issue.path.join(".");
  const hint =
    issue.code === "unrecognized_keys" ? nearest(field, Object.keys(experiment.config.shape)) : undefined;
  throw new UsageError(
    issue.code === "unrecognized_keys"
      ? `experiment ${experiment.name} has no parameter ${field}${hint === undefined ? "" : ` (did you mean ${hint}?)`}`
      : `--${flagName(field)}: ${issue.message}`,
    `see: atlas ${experiment.name} --help`,
  );
}
