/** Complete a config: the given values over a preset over the defaults. */
import { z } from "zod";
import { findBlock } from "../blocks.js";
import { UsageError } from "../errors.js";
import type { Run } from "../run/folder.js";
import { nearest, suggestion } from "../suggest.js";
import { type Choice, chooseImplied, completeChoice } from "./choice.js";
import type { RecordedConfig } from "./lookup.js";
import { flagName, metaOf } from "./names.js";
import type { Experiment, Shape, Task } from "./task.js";

/** A complete config of a task. */
export interface Complete {
  task: Task;
  /** Every parameter of the task. */
  config: Record<string, unknown>;
  preset?: string;
  /** Notes for the user about values that were given under former names. */
  notes: string[];
}

/** Find a task of an experiment by its name. @throws UsageError if there is no such task */
export function findTask({ name, tasks, defaultTask, former }: Experiment, given: unknown): Task {
  if (former) return tasks[""]!;
  const wanted = String(given ?? defaultTask);
  const found = Object.hasOwn(tasks, wanted) ? tasks[wanted] : undefined;
  if (found) return found;
  const names = Object.keys(tasks);
  throw new UsageError(
    `experiment ${name} has no task ${JSON.stringify(wanted)}${suggestion(wanted, names)}`,
    `choose one of ${names.join(", ")}`,
  );
}

/**
 * Complete a config: the given values, over the preset, over the defaults of schema and catalogue.
 *
 * @param given fields by name; `task` names the task
 * @throws UsageError that names the field that is unknown or not accepted
 */
export function completeConfig(
  experiment: Experiment,
  given: Readonly<Record<string, unknown>>,
  {
    preset,
    recorded = false,
  }: {
    /** A preset of the task (default: the task's choice). */
    preset?: string;
    /**
     * Whether the fields are those of a run's config.json: complete, perhaps of an earlier version,
     * and perhaps with fields of other tasks.
     */
    recorded?: boolean;
  } = {},
): Complete {
  const task = findTask(experiment, given.task);
  const notes: string[] = [];
  const { task: _, ...fields } = given;
  let values = renamed(task, experiment.former ? given : fields, notes, recorded);
  if (recorded) values = { ...valuesBefore(task), ...known(experiment, task, values) };
  for (const made of task.choices) chooseImplied(values, made);
  let choice: string | undefined;
  if (task.presets && !recorded) {
    const presets = presetsOf(task, values);
    choice = preset ?? task.defaultPreset?.(values) ?? Object.keys(presets)[0]!;
    if (!Object.hasOwn(presets, choice))
      throw new UsageError(
        `unknown preset ${JSON.stringify(choice)}${suggestion(choice, Object.keys(presets))}`,
        `choose one of ${Object.keys(presets).join(", ")}`,
      );
    values = { ...applicable(task, presets[choice]!, values), ...values };
  } else if (preset !== undefined && !recorded)
    throw new UsageError(`experiment ${experiment.name} has no presets`);
  const config = parse(experiment, task, values);
  for (const made of task.choices) {
    checkFlags(made, given, config, recorded);
    completeChoice(config, made, recorded);
  }
  return { task, config, preset: choice ?? preset, notes };
}

/** Make the function with which a `RunLookup` reads the configs of an experiment's runs. */
export function configReader(experiment: Experiment): (run: Run) => RecordedConfig | undefined {
  return ({ config: { experiment: name, config } }) => {
    if (name !== experiment.name) return undefined;
    try {
      const complete = completeConfig(experiment, config, { recorded: true });
      return { ...complete.config, task: complete.task.name };
    } catch {
      return undefined;
    }
  };
}

/**
 * Check flags that are for certain kinds of a block only.
 *
 * @throws UsageError for a flag of another kind; in a recorded config it is removed instead
 */
function checkFlags(
  { name, flags }: Choice,
  given: Readonly<Record<string, unknown>>,
  config: Record<string, unknown>,
  recorded: boolean,
): void {
  if (config[name] === undefined) return; // it is settled later
  const kind = String(config[name]);
  for (const [param, { names, kinds = [kind] }] of flags) {
    const flag = names.find((one) => given[one] !== undefined);
    if (flag === undefined || kinds.includes(kind)) continue;
    if (!recorded)
      throw new UsageError(
        `--${flagName(flag)} has no effect with --${flagName(name)} ${kind}`,
        `leave it out; it is for --${flagName(name)} ${kinds.join(" or ")}`,
      );
    delete config[`${name}.${param}`];
  }
}

/** Get the presets of a task, by name. */
export function presetsOf(
  { presets = {} }: Task,
  given: Readonly<Record<string, unknown>> = {},
): Readonly<Record<string, object>> {
  return typeof presets === "function" ? presets(given) : presets;
}

/** Remove a preset's values for a kind of block that the user has replaced by another kind. */
function applicable(
  task: Task,
  preset: Shape | object,
  given: Readonly<Record<string, unknown>>,
): object {
  const replaced = task.choices.filter(
    ({ name }) =>
      given[name] !== undefined && given[name] !== (preset as Record<string, unknown>)[name],
  );
  return Object.fromEntries(
    Object.entries(preset).filter(
      ([field]) => !replaced.some(({ name }) => field.startsWith(`${name}.`)),
    ),
  );
}

/** Give fields their present names, and former values their replacements. */
function renamed(
  task: Task,
  given: Readonly<Record<string, unknown>>,
  notes: string[],
  recorded: boolean,
): Record<string, unknown> {
  const present = presentNames(task);
  const values: Record<string, unknown> = {};
  for (const [field, value] of Object.entries(given)) {
    if (value === undefined) continue;
    const name = Object.hasOwn(task.config, field) ? field : (present.get(field) ?? field);
    const kept = metaOf(task.config[name]).formerValues?.[String(value)] ?? value;
    values[name] = kept;
  }
  for (const choice of task.choices) {
    const value = values[choice.name];
    if (typeof value !== "string" || choice.kinds.includes(value)) continue;
    const block = choice.formerKinds[value] ?? formerKind(choice, value);
    if (block === undefined) {
      if (recorded) delete values[choice.name]; // belongs to another task with a field of this name
      continue;
    }
    const params = Object.entries(block.params ?? {}).map(
      ([p, v]) => [`${choice.name}.${p}`, v] as const,
    );
    notes.push(`--${flagName(choice.name)} ${value} is now ${said(choice.name, block)}`);
    Object.assign(values, { [choice.name]: block.kind, ...Object.fromEntries(params) });
  }
  return values;
}

function said(name: string, { kind, params = {} }: { kind: string; params?: object }): string {
  const more = Object.entries(params).map(
    ([p, v]) => ` --${name}.${p}${v === true ? "" : ` ${String(v)}`}`,
  );
  return `--${flagName(name)} ${kind}${more.join("")}`;
}

function formerKind(
  { type, kinds }: Choice,
  value: string,
): { kind: string; params?: object } | undefined {
  const kind = kinds.find((k) => findBlock(type, k).entry.aliases?.includes(value));
  return kind === undefined ? undefined : { kind };
}

/** Map former names to fields: of plain fields, of choices, and of their parameters. */
export function presentNames(task: Task): Map<string, string> {
  const present = new Map<string, string>();
  for (const [field, schema] of Object.entries(task.config))
    for (const former of metaOf(schema).former ?? []) present.set(former, field);
  for (const { name, flags, former } of task.choices) {
    for (const one of former) present.set(one, name);
    for (const [param, { names }] of flags)
      for (const one of names) present.set(one, `${name}.${param}`);
  }
  return present;
}

/** Get the values of fields that did not exist when the first runs were recorded. */
function valuesBefore({ config }: Task): Record<string, unknown> {
  const values = Object.entries(config).map(([field, type]) => [field, metaOf(type).before]);
  return Object.fromEntries(values.filter(([, value]) => value !== undefined));
}

/** Remove the fields of other tasks from a recorded config. */
function known(
  experiment: Experiment,
  task: Task,
  values: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const others = new Set(
    Object.values(experiment.tasks).flatMap((other) => [
      ...Object.keys(other.config),
      ...presentNames(other).keys(),
    ]),
  );
  return Object.fromEntries(
    Object.entries(values).filter(
      ([field]) =>
        Object.hasOwn(task.config, field) || !(others.has(field) || FORMER_FIELDS.has(field)),
    ),
  );
}

/** Fields of version 0.1 that no longer exist. */
const FORMER_FIELDS = new Set(["trust_code"]);

function parse(experiment: Experiment, task: Task, values: object): Record<string, unknown> {
  const parsed = z.strictObject(task.config).safeParse(values);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  if (issue.code !== "unrecognized_keys") {
    const field = issue.path.join(".");
    throw new UsageError(
      `--${flagName(field)}: ${issue.message}`,
      `see: atlas ${experiment.name} --help`,
    );
  }
  const field = issue.keys[0]!;
  const hint = nearest(field, Object.keys(task.config));
  const where =
    task.name === "" ? `experiment ${experiment.name}` : `task ${task.name} of ${experiment.name}`;
  throw new UsageError(
    `${where} has no parameter ${field}${hint === undefined ? "" : ` (did you mean ${hint}?)`}`,
    `see: atlas ${experiment.name} --help`,
  );
}
