/**
 * Define experiments: sets of tasks, each with a config schema whose fields become flags, and a
 * function that runs it.
 */
import { z } from "zod";
import { AtlasError, UsageError } from "../errors.js";
import type { Findings } from "../result.js";
import { type Choice, choicesOf } from "./choice.js";
import { Common } from "./common.js";
import type { Context } from "./context.js";
import { type FormerDefinition, fromFormer } from "./former.js";
import type { RunLookup } from "./lookup.js";
import { flagName } from "./names.js";

const BRAND = Symbol.for("atlas-symmetry.experiment");

/** Fields of a config: zod types by name. */
export type Shape = Readonly<Record<string, z.ZodType>>;
/** The values of a config with the fields `S`. */
export type ConfigOf<S extends Shape> = { -readonly [K in keyof S]: z.output<S[K]> };

/** Named sets of values for a config. */
export type Presets<C> = Readonly<Record<string, Partial<C>>>;

/** What `prepare` can use. */
export interface Preparation {
  /** Runs, files and names that flags refer to. */
  lookup: RunLookup;
  /** The fields that the user gave, without presets and defaults. */
  given: Readonly<Record<string, unknown>>;
  /** Print a line for the user. */
  info(line: string): void;
  /** Print a warning for the user, also with --quiet. */
  warn(line: string): void;
}

/** A task as an experiment defines it. */
export interface TaskDefinition<S extends Shape = Shape> {
  /** One line for `--help`. */
  summary: string;
  /**
   * The parameters: zod types by name. Every field has a description, and is optional or has a
   * default. Numbers, texts, enums and booleans become flags (`batch_size` is `--batch-size` and
   * `--batch_size`). {@link choose} makes the fields that choose a block of the catalogue.
   */
  config: S;
  /**
   * Named sets of values in place of the schema's defaults, or a function that makes them from the
   * given values. Flags win over the preset. The user chooses a preset with `--preset`. Otherwise
   * `defaultPreset` chooses it, or it is the first one.
   */
  presets?: Presets<ConfigOf<S>> | ((given: Partial<ConfigOf<S>>) => Presets<ConfigOf<S>>);
  /** Chooses the preset from the given values. */
  defaultPreset?: (given: Partial<ConfigOf<S>>) => string;
  /** Command lines for `--help`. */
  examples?: readonly string[];
  /**
   * Checks relations between fields, and replaces references (a run, a file) by what they refer to,
   * before any work is done.
   *
   * @throws UsageError
   */
  prepare?: (config: ConfigOf<S>, preparation: Preparation) => Promise<ConfigOf<S>>;
  /**
   * Names the code that a config refers to, which runs only with the user's trust; undefined if
   * none.
   */
  code?: (config: ConfigOf<S>) => string | undefined;
  /**
   * Runs the task. After an interruption it is called again with the same config, and finished
   * stages are restored.
   */
  run: (ctx: Context, config: ConfigOf<S>) => Promise<Findings>;
}

/** Define a task of an experiment. */
export function task<S extends Shape>(definition: TaskDefinition<S>): TaskDefinition<S> {
  return definition;
}

/** Tasks by name. */
// biome-ignore lint/suspicious/noExplicitAny: each task is used with its own config only
export type Tasks = Readonly<Record<string, TaskDefinition<any>>>;

/** An experiment as its file defines it. */
export interface ExperimentDefinition<T extends Tasks = Tasks> {
  /** Name of its command: `atlas NAME`. */
  name: string;
  /** One line for `--help`. */
  summary: string;
  /** The tasks, by the name that `--task` takes. */
  tasks: T;
  /** The task that runs without `--task` (default: the first). */
  defaultTask?: keyof T & string;
  /** Command lines for `--help`. */
  examples?: readonly string[];
}

/** A task of a defined experiment. */
export interface Task extends TaskDefinition {
  readonly name: string;
  readonly choices: readonly Choice[];
}

/** A defined experiment. */
export interface Experiment<T extends Tasks = Tasks> {
  readonly name: string;
  readonly summary: string;
  readonly tasks: Readonly<Record<keyof T & string, Task>>;
  readonly defaultTask: string;
  readonly examples: readonly string[];
  /**
   * Whether it was defined in the form of version 0.1, `{ config, run }`. Its one task then has no
   * name, and its config may have a field `task`.
   */
  readonly former: boolean;
}

/** Values that can be given to an experiment: fields of one of its tasks. */
export type GivenOf<T extends Tasks> = {
  [N in keyof T & string]: { task?: N } & (T[N] extends TaskDefinition<infer S>
    ? Partial<ConfigOf<S>>
    : never);
}[keyof T & string];

/** Names of fields that the runner sets. */
const RESERVED = ["task", "preset", ...Object.keys(Common.shape)];

/** Define an experiment. An experiment's file exports it as default. */
export function defineExperiment<T extends Tasks>(
  definition: ExperimentDefinition<T>,
): Experiment<T>;
/** @deprecated Give `tasks`: `{ tasks: { discover: task({ config, run }) } }`. */
export function defineExperiment<S extends z.ZodObject>(
  definition: FormerDefinition<S>,
): Experiment;
export function defineExperiment(definition: ExperimentDefinition | FormerDefinition): Experiment {
  if (!/^[a-z][a-z0-9_-]*$/i.test(definition.name))
    throw new AtlasError(
      `${JSON.stringify(definition.name)} cannot be the name of an experiment`,
      "use letters, digits, - and _",
    );
  const former = !("tasks" in definition);
  const { name, summary, examples = [] } = definition;
  const definitions: Tasks = former ? { "": fromFormer(definition) } : definition.tasks;
  const tasks: Record<string, Task> = {};
  for (const [taskName, made] of Object.entries(definitions)) {
    for (const field of RESERVED)
      if (field in made.config && !(former && field === "task"))
        throw new AtlasError(
          `experiment ${name}: the field ${field} is set by the runner`,
          "rename it",
        );
    tasks[taskName] = { ...made, name: taskName, choices: choicesOf(made.config) };
  }
  const defaultTask = (former ? undefined : definition.defaultTask) ?? Object.keys(tasks)[0];
  if (defaultTask === undefined) throw new AtlasError(`experiment ${name} has no tasks`);
  const experiment: Experiment = { name, summary, tasks, defaultTask, examples, former };
  Object.defineProperty(experiment, BRAND, { value: true });
  return experiment;
}

/** Whether a value is an experiment, perhaps of another copy of this package. */
export function isExperiment(value: unknown): value is Experiment {
  return typeof value === "object" && value !== null && BRAND in value;
}

/** Make a config field for a whole number of at least 1. */
export const whole = (fallback: number, description: string) =>
  z.int().positive().default(fallback).describe(description);

/** Make a config field for a whole number of at least 0. */
export const count = (fallback: number, description: string) =>
  z.int().min(0).default(fallback).describe(description);

/** Make a config field for a number of at least 0. */
export const amount = (fallback: number, description: string) =>
  z.number().min(0).default(fallback).describe(description);

/**
 * Refuse flags that were given but have no effect.
 *
 * @param given the fields that the user gave
 * @param fields that have no effect
 * @param beside why: "with --digits sklearn"
 * @throws UsageError for the first of the fields that was given
 */
export function refuseGiven(
  given: Readonly<Record<string, unknown>>,
  fields: readonly string[],
  beside: string,
): void {
  const vain = fields.find((field) => given[field] !== undefined);
  if (vain !== undefined)
    throw new UsageError(`--${flagName(vain)} has no effect ${beside}`, "leave it out");
}
