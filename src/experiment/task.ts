/** What an experiment and its tasks are: types, apart from the code that makes and runs them. */
import type { z } from "zod";
import type { Findings } from "../result.js";
import type { Choice } from "./choice.js";
import type { Context } from "./context.js";
import type { RunLookup } from "./lookup.js";

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

/** What a run would do: texts by their headings. */
export type Preview = Readonly<Record<string, string>>;

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
   * Says what a run would do, without doing it: texts by their headings, for `--dry-run`. Its
   * context has a folder of its own, which is deleted afterwards.
   */
  preview?: (ctx: Context, config: ConfigOf<S>) => Promise<Preview>;
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
