/** `atlas sweep EXPERIMENT …`: run an experiment for all combinations of values. */
import { spawn } from "node:child_process";
import { openSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { AtlasError, UsageError } from "../errors.js";
import { Common } from "../experiment/common.js";
import { findTask, presetsOf } from "../experiment/config.js";
import type { Experiment } from "../experiment/define.js";
import { type Flag, flagsOf } from "../experiment/flags.js";
import { formatSeconds, helpWidth } from "../format.js";
import {
  type Axis,
  createSweep,
  estimateSeconds,
  listAxis,
  planFor,
  type Request,
  readAxis,
  repeatedSeeds,
  runSweep,
  type SampleOptions,
  type Sweep,
  SweepDisplay,
  type SweepOptions,
  type SweepOutcome,
  seedLines,
  sweepTable,
} from "../pool/index.js";
import { checkTracker } from "../track/mlflow.js";
import { withDashboard } from "./dashboard.js";
import { onInterrupt } from "./interrupt.js";
import {
  addCommonOptions,
  COMMON_FLAGS,
  type CommonOption,
  type CommonOptions,
  commonOptions,
  tagsOf,
  workerChoice,
} from "./options.js";
import { nameField, namingFlag } from "./remedy.js";

/** Message at the first Ctrl-C in a sweep. */
export const STOPPING =
  "stopping all runs after their current steps; checkpoints are kept (Ctrl-C again to stop at once)";

/** Add the command to `program`, without an experiment: for its help. */
export function register(program: Command): void {
  const command = program
    .command("sweep")
    .description("Run an experiment for all combinations of values of its options")
    .argument("<experiment>", "name of an experiment, or a .ts or .js file");
  addSweepOptions(command);
  addCommonOptions(command, ["seed", "repeat", "pool"]);
  const shown = ["seed", "repeat", "pool"];
  const others = Object.keys(Common.shape).filter((name) => !shown.includes(name));
  addCommonOptions(command, others as CommonOption[], { hidden: true });
  command.addHelpText("after", HELP);
  command.configureHelp({ helpWidth: helpWidth() });
}

const HELP = `
Every option of the experiment can vary:
  numbers and choices   lists and ranges: --seed 0..4 (with 4), --seed "range(0,5)" (without 5),
                        --atlas 1,2, --threshold "range(0.1,0.3,0.1)"
  all other options     once for each value: --identity so(2) --identity none

Options of the experiment: atlas EXPERIMENT --help, atlas EXPERIMENT --task TASK --help
Options of every run (--worker, --device, --threads, --runs, --json, --quiet …): atlas run --help

Examples:
  atlas sweep pde --task discover --seed 0..4 --pool local:2
  atlas sweep pde --task discover --seed 0..4 --layout 1,2 --solver grassmann,paper --dry-run
  atlas show 20260101-120000-pde-1a2b
  atlas resume 20260101-120000-pde-1a2b`;

function addSweepOptions(command: Command): void {
  command
    .option("--sample <n>", "Draw this many of the combinations at random")
    .option("--sample-seed <n>", "Seed of the draw (default: 0)")
    .option("--max-parallel <n>", "Most runs at a time (default: the slots of the pool)")
    .option("--retries <n>", "How often a failed run is tried again (default: 0)")
    .option("--fail-fast", "Stop all runs at the first failure")
    .option("--dry-run", "Print the runs and an estimate of their time, and stop")
    .option("--detach", "Run in the background");
}

/**
 * Add the flags and the action of a sweep of an experiment to its command.
 *
 * @param args of the command line
 * @param file path of the experiment, if it is the user's own
 */
export function buildSweepCommand(
  command: Command,
  experiment: Experiment,
  args: readonly string[],
  file?: string,
): Command {
  const at = args.lastIndexOf("--task");
  const wanted =
    args.findLast((arg) => arg.startsWith("--task="))?.slice(7) ??
    (at < 0 ? undefined : args[at + 1]);
  const task = findTask(experiment, wanted);
  const flags = flagsOf(task);
  const positional = flags.find((flag) => flag.positional);
  command.argument("<experiment>").usage(`${experiment.name} [options]`);
  if (positional) command.argument(`[${positional.name}...]`, positional.option.description);
  addSweepOptions(command);
  if (!experiment.former) command.option("--task <name>");
  const given = new Map<string, (string | true)[]>();
  const collect = (name: string) =>
    command.on(`option:${name}`, (value: string | null) => {
      given.set(name, [...(given.get(name) ?? []), value ?? true]);
    });
  for (const flag of flags) {
    if (flag.positional) continue;
    const { option, takes, name } = flag;
    if (takes === "nothing") command.option(`--${name} [true|false]`, option.description);
    else command.addOption(option.hideHelp());
    collect(name);
  }
  const presets = Object.keys(presetsOf(task));
  if (presets.length > 1) {
    command.option(`--preset <${presets.join("|")}>`);
    collect("preset");
  }
  addCommonOptions(command, undefined, { hidden: true });
  collect("seed");
  return command.action(async () => {
    const seedText = given.get("seed");
    command.setOptionValue("seed", undefined); // it may be a list
    const options = commonOptions(command);
    const settings = sweepSettings(command);
    const axes: Axis[] = [];
    const fixed: Record<string, unknown> = experiment.former ? {} : { task: task.name };
    const drawn = settings.sample !== undefined;
    const read = (flag: Flag, texts: readonly (string | true)[]) => {
      const axis = readAxis(flag, texts, drawn);
      if (axis.count === 1) fixed[flag.field] = axis.at(0);
      else axes.push(axis);
    };
    const names = command.args.slice(1);
    if (positional && names.length > 0) read(positional, names);
    for (const flag of flags) {
      const texts = given.get(flag.name);
      if (texts && !flag.positional) read(flag, texts);
    }
    const presetTexts = given.get("preset")?.flatMap((text) => String(text).split(","));
    if (presetTexts && presetTexts.length > 1) axes.push(listAxis("preset", "preset", presetTexts));
    const seeds = readSeeds(seedText, options, options.repeat, drawn);
    if (typeof seeds === "object") axes.push(seeds);
    const request: Request = {
      axes,
      given: fixed,
      seed: typeof seeds === "number" ? seeds : undefined,
    };
    const preset = presetTexts?.length === 1 ? presetTexts[0] : undefined;
    try {
      await startSweep(experiment, request, options, { ...settings, preset, file });
    } catch (error) {
      throw nameField(error, task);
    }
  });
}

/** What the options of a sweep say. */
interface SweepSettings extends SampleOptions {
  maxParallel?: number;
  retries?: number;
  failFast?: boolean;
  dryRun?: boolean;
  detach?: boolean;
  preset?: string;
  file?: string;
}

function sweepSettings(command: Command): SweepSettings {
  const options = command.opts<Record<string, string | boolean | undefined>>();
  const whole = (name: string, flag: string, least: number): number | undefined => {
    const text = options[name];
    if (text === undefined) return undefined;
    if (/^\d+$/.test(String(text)) && Number(text) >= least && Number(text) < 2 ** 32)
      return Number(text);
    throw new UsageError(
      `--${flag} ${text}: expected a whole number of at least ${least}`,
      "see: atlas sweep --help",
    );
  };
  const settings = {
    sample: whole("sample", "sample", 1),
    sampleSeed: whole("sampleSeed", "sample-seed", 0),
    maxParallel: whole("maxParallel", "max-parallel", 1),
    retries: whole("retries", "retries", 0),
    failFast: options.failFast === true,
    dryRun: options.dryRun === true,
    detach: options.detach === true,
  };
  if (settings.sampleSeed !== undefined && settings.sample === undefined)
    throw new UsageError("--sample-seed has no effect without --sample", "leave it out");
  return settings;
}

/**
 * Make the sweep that `--repeat` asks for: seeds that follow one another.
 *
 * @param given the fields of the run
 */
export function repeatedRun(
  given: Readonly<Record<string, unknown>>,
  { seed, fixed_seed, repeat = 1 }: CommonOptions,
): Request {
  const seeds = repeatedSeeds(seed ?? (fixed_seed ? 0 : undefined), repeat);
  return { axes: [listAxis("seed", "seed", seeds)], given };
}

/** Read the seeds. @returns an axis, one seed, or undefined for a random one */
function readSeeds(
  texts: readonly (string | true)[] | undefined,
  { fixed_seed }: CommonOptions,
  repeat: number | undefined,
  drawn: boolean,
): Axis | number | undefined {
  const flag = COMMON_FLAGS.find(({ field }) => field === "seed")!;
  const axis = texts && readAxis(flag, texts, drawn);
  const one = axis
    ? axis.count === 1
      ? Number(axis.at(0))
      : undefined
    : fixed_seed
      ? 0
      : undefined;
  if (repeat === undefined) return axis && axis.count > 1 ? axis : one;
  if (axis && axis.count > 1)
    throw new UsageError(
      "--repeat makes the seeds itself, and --seed gives several",
      "give the first seed only, or leave out --repeat",
    );
  const seeds = repeatedSeeds(one, repeat);
  return repeat === 1 ? seeds[0] : listAxis("seed", "seed", seeds);
}

/** Plan a sweep, and run it, or print what it would run, or leave it to the background. */
export async function startSweep(
  experiment: Experiment,
  request: Request,
  options: CommonOptions,
  { dryRun, detach, ...settings }: SweepSettings = {},
): Promise<void> {
  const display = new SweepDisplay(options);
  const { runs, trust_code: trustCode, json, pool, mlflow } = options;
  const worker = workerChoice(options);
  const tags = tagsOf(options);
  if (mlflow !== undefined) checkTracker(mlflow);
  const where = { pool, worker, runs, trustCode, mlflow };
  const given: SweepOptions = { ...settings, ...where, tags, display };
  if (dryRun) return printPlan(experiment, request, given, json);
  const sweep = await namingFlag("--runs DIR", () => createSweep(experiment, request, given));
  if (detach) return leave(sweep, options);
  await finishSweep(experiment, sweep, given, options);
}

/**
 * Run what is not done of a sweep, and print what it found.
 *
 * @throws AtlasError if runs failed
 */
export async function finishSweep(
  experiment: Experiment,
  sweep: Sweep,
  given: SweepOptions,
  { json, dashboard, ...options }: CommonOptions,
): Promise<void> {
  const display = given.display ?? new SweepDisplay(options);
  const { runs, cells } = sweep.file;
  const count = (n: number, noun: string) => `${n} ${noun}${n === 1 ? "" : "s"}`;
  display.info(
    `sweep     ${sweep.path}: ${count(runs.length, "run")} in ${count(cells.length, "cell")}`,
  );
  const interrupt = onInterrupt(display, { message: STOPPING });
  try {
    const { signal } = interrupt;
    const outcome = await namingFlag("--runs DIR", () =>
      withDashboard({ dashboard, runs: sweep.runsDir }, display, () =>
        runSweep(experiment, sweep, { ...given, display, signal }),
      ),
    );
    printSweep(outcome, json);
    const { failed } = outcome;
    if (failed > 0)
      throw new AtlasError(
        `${failed} of ${count(runs.length, "run")} failed`,
        `try them again with: atlas resume ${sweep.id}`,
      );
  } finally {
    interrupt.dispose();
  }
}

/** Print what a sweep found, on stdout. */
export function printSweep(outcome: SweepOutcome, json: boolean): void {
  if (json) return void process.stdout.write(`${JSON.stringify(outcome, null, 2)}\n`);
  const lines = [...sweepTable(outcome), "", ...seedLines(outcome), `sweep   ${outcome.path}`];
  if (outcome.report !== undefined) lines.push(`report  ${outcome.report}`);
  process.stdout.write(`${lines.join("\n")}\n`);
}

/** Print the runs of a sweep, and an estimate of their time. */
async function printPlan(
  experiment: Experiment,
  request: Request,
  options: SweepOptions,
  json: boolean,
): Promise<void> {
  const { plan, pool } = await planFor(experiment, request, options);
  await pool.close();
  const { runs = "runs", maxParallel, display } = options;
  const slots = Math.min(maxParallel ?? pool.size, pool.size, plan.runs.length);
  const estimate = await estimateSeconds(runs, plan, slots);
  if (json) return void process.stdout.write(`${JSON.stringify({ ...plan, estimate }, null, 2)}\n`);
  const lines = planTable(plan);
  const of = `${plan.runs.length} runs, ${slots} at a time`;
  lines.push(
    "",
    estimate === undefined
      ? `${of}; no finished run of this task tells how long they take`
      : `${of}: about ${formatSeconds(estimate.seconds)}, by ${estimate.from} finished run` +
          `${estimate.from === 1 ? "" : "s"} of ${estimate.same ? "the same settings" : "this task"}`,
  );
  process.stdout.write(`${lines.join("\n")}\n`);
  display?.end();
}

/** Write the runs of a plan, one line for each. */
function planTable({ cells, runs }: Pick<Sweep["file"], "cells" | "runs">): string[] {
  const fields = [...new Set(cells.flatMap(({ values }) => Object.keys(values)))];
  const rows = runs.map(({ cell, seed }, index) => {
    const { values } = cells[cell]!;
    return [String(index), String(seed), ...fields.map((field) => written(values[field]))];
  });
  const table = [["run", "seed", ...fields], ...rows];
  const widths = table[0]!.map((_, i) => Math.max(...table.map((row) => row[i]!.length)));
  return table.map((row) =>
    row
      .map((text, i) => text.padEnd(widths[i]!))
      .join("  ")
      .trimEnd(),
  );
}

function written(value: unknown): string {
  if (value === undefined) return "–";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** Run a planned sweep in the background. */
function leave(sweep: Sweep, options: CommonOptions): void {
  const log = join(sweep.path, "log");
  const output = openSync(log, "a");
  const value = (flag: string, text: string | undefined) =>
    text === undefined ? [] : [`--${flag}`, text];
  const child = spawn(
    process.execPath,
    [
      process.argv[1]!,
      ...["resume", sweep.path],
      ...value("pool", options.pool),
      ...value("ca", options.ca),
      ...value("cert", options.cert),
      ...value("key", options.key),
      ...value("token-file", options.token_file),
      ...(options.trust_code ? ["--trust-code"] : []),
    ],
    { detached: true, stdio: ["ignore", output, output] },
  );
  child.unref();
  process.stdout.write(
    [
      `sweep    ${sweep.path}`,
      `process  ${child.pid} (stop it in order with: kill ${child.pid})`,
      `log      ${log}`,
      `see how it stands with: atlas show ${sweep.id}\n`,
    ].join("\n"),
  );
}
