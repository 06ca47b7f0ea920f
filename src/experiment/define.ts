/**
 * Define experiments: sets of tasks, each with a config schema whose fields become flags, and a
 * function that runs it.
 */
import { z } from "zod";
import { AtlasError, UsageError } from "../errors.js";
import { choicesOf } from "./choice.js";
import { Common } from "./common.js";
import { type FormerDefinition, fromFormer } from "./former.js";
import { flagName } from "./names.js";
import type { Experiment, ExperimentDefinition, Task, Tasks } from "./task.js";

export * from "./task.js";

const BRAND = Symbol.for("atlas-symmetry.experiment");

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
