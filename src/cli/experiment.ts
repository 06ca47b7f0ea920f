/** `atlas pde …` and `atlas run FILE …`: commands made from experiments. */
import type { Command } from "commander";
import { describeResult } from "../algebra/index.js";
import { blocksOf } from "../blocks.js";
import { UsageError } from "../errors.js";
import type { Choice } from "../experiment/choice.js";
import { findTask, presetsOf } from "../experiment/config.js";
import type { Experiment, Preview, Task } from "../experiment/define.js";
import { type Flag, flagsOf } from "../experiment/flags.js";
import { flagName } from "../experiment/names.js";
import { Progress } from "../experiment/progress.js";
import { type Outcome, previewExperiment, runExperiment } from "../experiment/runner.js";
import { helpWidth, wrap } from "../format.js";
import { withFormerNames } from "../result.js";
import { describeParams } from "./blocks.js";
import { withDashboard } from "./dashboard.js";
import { checkDetach, onInterrupt } from "./interrupt.js";
import {
  addCommonOptions,
  COMMON_FLAGS,
  commonOptions,
  givenValues,
  tagsOf,
  workerChoice,
} from "./options.js";
import { nameField, namingFlag } from "./remedy.js";

const COMMON_HELP =
  "Options of every run (--seed, --fixed-seed, --worker, --device, --json …): atlas run --help";

/**
 * Add the flags and the action of an experiment to its command.
 *
 * @param args of the command line, which say for which task and which blocks help is wanted
 * @param file path of the experiment, if it is the user's own
 */
export function buildExperimentCommand(
  command: Command,
  experiment: Experiment,
  args: readonly string[],
  file?: string,
): Command {
  const { summary, tasks, former } = experiment;
  const width = helpWidth();
  command.configureHelp({ helpWidth: width }).summary(summary);
  const names = Object.keys(tasks);
  const wanted = givenTo(args, "task");
  const help = args[0] === "help" || args.includes("--help");
  if (help && wanted === undefined && names.length > 1) {
    command
      .usage("[--task TASK] [options]")
      .description(summary)
      .helpOption("--help", "Show this help");
    return command.addHelpText("after", overview(experiment, command.name()));
  }
  const task = findTask(experiment, wanted);
  const flags = flagsOf(task);
  checkTaskFlags(experiment, task, flags, args);
  const several = names.length > 1;
  const positional = flags.filter((flag) => flag.positional);
  const usage = ["[options]", ...positional.map(({ name }) => `[${name}]`)];
  if (several) usage.unshift(`--task ${task.name}`);
  command.usage(usage.join(" ")).description(several ? task.summary : summary);
  command.optionsGroup("Options:");
  if (!former) command.option("--task <name>", `Task: ${names.join(", ")}`);
  for (const { name, option, expected } of positional)
    command.argument(
      `[${name}]`,
      `${option.description}${expected === "text" ? "" : ` (${expected})`}`,
    );
  for (const flag of flags)
    if (!flag.positional) command.addOption(flag.option.hideHelp(isHidden(flag, args)));
  const presets = Object.keys(presetsOf(task));
  if (presets.length > 1)
    command.option(
      `--preset <${presets.join("|")}>`,
      "Named set of values for the options that are not given",
    );
  if (task.preview !== undefined)
    command.option("--dry-run", "Print what the run would do, and make none");
  addCommonOptions(command, undefined, { hidden: true });
  command.addHelpText("after", appendix(experiment, task, command.name(), args, width));
  return command.action(async () => {
    const options = commonOptions(command);
    const { seed, fixed_seed, runs, json, quiet, debug, trust_code: trustCode } = options;
    const progress = new Progress({ quiet, debug });
    const given = givenValues(command, flags, (note) => progress.warn(note));
    for (const [i, flag] of positional.entries())
      if (command.args[i] !== undefined) given[flag.field] = flag.parse(command.args[i]);
    if (!former) given.task = task.name;
    const preset: unknown = command.getOptionValue("preset");
    const dryRun = command.getOptionValue("dryRun") === true;
    if (dryRun && options.repeat !== undefined)
      throw new UsageError("--dry-run has no effect with --repeat", "leave out one of them");
    if (options.repeat !== undefined) {
      const { repeatedRun, startSweep } = await import("./sweep.js");
      const settings = { preset: typeof preset === "string" ? preset : undefined, file };
      return startSweep(experiment, repeatedRun(given, options), options, settings).catch(
        (error: unknown) => {
          throw nameField(error, task);
        },
      );
    }
    if (options.pool !== undefined)
      throw new UsageError(
        "--pool has no effect on a single run",
        "leave it out, or repeat the run with --repeat N",
      );
    checkDetach(options.detach_on_interrupt, options.worker);
    const interrupt = onInterrupt(progress, { detach: options.detach_on_interrupt });
    try {
      const settings = {
        runs,
        seed: seed ?? (fixed_seed ? 0 : undefined),
        preset: typeof preset === "string" ? preset : undefined,
        tags: tagsOf(options),
        mlflow: options.mlflow,
        worker: workerChoice(options),
        progress,
        signal: interrupt.signal,
        onAttachable: interrupt.onAttachable,
        trustCode,
        file,
      };
      if (dryRun) {
        const told = await previewExperiment(experiment, given, settings).catch(
          (error: unknown) => {
            throw nameField(error, task);
          },
        );
        return printPreview(told, json);
      }
      const run = () => runExperiment(experiment, given, settings);
      const shown = () => withDashboard(options, progress, run);
      const outcome = await namingFlag("--runs DIR", shown).catch((error: unknown) => {
        throw nameField(error, task);
      });
      printOutcome(outcome, json);
      if (outcome.result.asExpected === false) process.exitCode = 1;
    } finally {
      interrupt.dispose();
    }
  });
}

/**
 * Print the end of a run on stdout.
 *
 * @param json whether to print only the result document, not the findings in words and the paths
 */
export function printOutcome({ path, report, result }: Outcome, json: boolean): void {
  if (json)
    return void process.stdout.write(`${JSON.stringify(withFormerNames(result), null, 2)}\n`);
  const lines = [...describeResult(result), `run     ${path}`];
  if (report !== undefined) lines.push(`report  ${report}`);
  process.stdout.write(`${lines.join("\n")}\n`);
}

/** Print what a run would do on stdout. */
function printPreview(told: Preview, json: boolean): void {
  const width = Math.max(...Object.keys(told).map((name) => name.length));
  const lines = Object.entries(told).map(([name, text]) => `${name.padEnd(width)}  ${text}`);
  const text = json ? JSON.stringify(told, null, 2) : lines.join("\n");
  process.stdout.write(`${text}\n`);
}

/** List the tasks of an experiment, one in a line. */
function overview({ tasks, defaultTask, examples }: Experiment, command: string): string {
  const width = Math.max(...Object.keys(tasks).map((name) => name.length));
  const lines = Object.values(tasks).map(({ name, summary }) => {
    return `  ${name.padEnd(width)}  ${summary}${name === defaultTask ? " (default)" : ""}`;
  });
  return [
    "",
    "Tasks:",
    ...lines,
    "",
    `Options of a task: atlas ${command} --task TASK --help`,
    COMMON_HELP,
    ...examplesOf(examples),
  ].join("\n");
}

/**
 * Make the end of a task's help: more parameters of blocks, the way to the common options,
 * examples.
 */
function appendix(
  { tasks, examples }: Experiment,
  task: Task,
  command: string,
  args: readonly string[],
  width: number,
): string {
  const lines: string[] = [];
  for (const choice of task.choices) {
    const kind = kindFor(choice, args);
    if (kind === undefined) continue; // it depends on the data
    if (givenTo(args, flagName(choice.name)) === undefined) {
      const rest = describeParams(choice, kind, { short: true });
      if (rest !== "")
        lines.push(...wrap(`--${flagName(choice.name)}.*  (${kind}) ${rest}`, width, 2));
    } else lines.push(`  ${kind}:`, describeParams(choice, kind, { short: false }));
  }
  const own =
    task.examples ?? (Object.keys(tasks).length > 1 ? taskExamples(examples, task) : examples);
  return [
    "",
    ...(lines.length > 0 ? ["More parameters (explained by: atlas blocks):", ...lines] : []),
    COMMON_HELP,
    ...examplesOf(own.length > 0 ? own : [`atlas ${command} --task ${task.name} --fixed-seed`]),
  ].join("\n");
}

/** Whether help leaves out a flag: it is hidden, or the chosen kind of block does not have it. */
function isHidden({ hidden, onlyFor }: Flag, args: readonly string[]): boolean {
  return (
    hidden ||
    (onlyFor !== undefined && !onlyFor.kinds.includes(kindFor(onlyFor.choice, args) ?? ""))
  );
}

/** Find the kind of block that a command line chooses; undefined if that depends on the data. */
function kindFor(
  { name, type, kinds, fallback }: Choice,
  args: readonly string[],
): string | undefined {
  const asked = givenTo(args, flagName(name));
  if (asked === undefined) return fallback;
  return (
    kinds.find((kind) => kind === asked || blocksOf(type)[kind]?.aliases?.includes(asked)) ??
    fallback
  );
}

/** Select the examples of one task. */
function taskExamples(examples: readonly string[], { name }: Task): string[] {
  return examples.filter((example) => new RegExp(`--task ${name}( |$)`).test(example));
}

function examplesOf(examples: readonly string[]): string[] {
  return examples.length === 0
    ? []
    : ["", "Examples:", ...examples.map((example) => `  ${example}`)];
}

/** Get the value of a flag on a command line, whose flags are written with dashes. */
function givenTo(args: readonly string[], name: string): string | undefined {
  const at = args.lastIndexOf(`--${name}`);
  const inline = args.findLast((arg) => arg.startsWith(`--${name}=`));
  return inline?.slice(name.length + 3) ?? (at < 0 ? undefined : args[at + 1]);
}

/** @throws UsageError if a flag on the command line belongs to other tasks only */
function checkTaskFlags(
  { tasks }: Experiment,
  task: Task,
  flags: readonly Flag[],
  args: readonly string[],
): void {
  const own = new Set(
    [...flags, ...COMMON_FLAGS].map(({ name }) => name).concat("task", "preset", "help", "dry-run"),
  );
  for (const arg of args) {
    const [, name] = /^--([^=]+)/.exec(arg) ?? [];
    if (name === undefined || own.has(name)) continue;
    const others = Object.values(tasks).filter(
      (other) => other !== task && flagsOf(other).some((flag) => flag.name === name),
    );
    if (others.length > 0)
      throw new UsageError(
        `--${name} has no effect with --task ${task.name}`,
        `leave it out; it counts with --task ${others.map((other) => other.name).join(" or ")}`,
      );
  }
}
