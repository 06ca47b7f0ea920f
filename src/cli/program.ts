/**
 * The command line `atlas`: its commands, and how it answers. Only the modules of the wanted
 * command are loaded, so that help and small commands are quick.
 */
import { Command, CommanderError } from "commander";
import { AtlasError, UsageError, WorkerDied } from "../errors.js";
import { normaliseFlags } from "../experiment/flags.js";
import { builtinExperiments, type ExperimentFile, loadExperiment } from "../experiment/load.js";
import { helpWidth } from "../format.js";
import { suggestion } from "../suggest.js";
import { VERSION } from "../version.js";
import type { Load } from "./completion.js";
import { nameField, remedyOf } from "./remedy.js";

interface Subcommand {
  group: "Runs" | "Tools" | "Experiments";
  summary: string;
  load: Load;
}

/** The commands beside experiments. */
export const COMMANDS: Readonly<Record<string, Subcommand>> = {
  demo: {
    group: "Experiments",
    summary: "Discover the symmetries of the heat equation in under a minute",
    load: () => import("./demo.js"),
  },
  data: {
    group: "Experiments",
    summary: "Inspect your data, generate or download data, or clear the cache",
    load: () => import("./data.js"),
  },
  runs: { group: "Runs", summary: "List the runs", load: () => import("./runs.js") },
  sweep: {
    group: "Runs",
    summary: "Run an experiment for all combinations of values",
    load: () => import("./sweep.js"),
  },
  show: { group: "Runs", summary: "Show one run or one sweep", load: () => import("./show.js") },
  resume: {
    group: "Runs",
    summary: "Finish a run or a sweep that was interrupted, killed, or failed",
    load: () => import("./resume.js"),
  },
  report: {
    group: "Runs",
    summary: "Write the report of a run again, or compare runs",
    load: () => import("./report.js"),
  },
  dashboard: {
    group: "Runs",
    summary: "Show all runs on a live page",
    load: () => import("./dashboard.js"),
  },
  tensorboard: {
    group: "Runs",
    summary: "Write a run's metrics for TensorBoard",
    load: () => import("./tensorboard.js"),
  },
  attach: {
    group: "Runs",
    summary: "Reconnect to a run that is still running on its worker",
    load: () => import("./attach.js"),
  },
  worker: {
    group: "Tools",
    summary: "Start, inspect and stop a worker",
    load: () => import("./worker.js"),
  },
  doctor: {
    group: "Tools",
    summary: "Check the installation, and say what is missing",
    load: () => import("./doctor.js"),
  },
  clean: {
    group: "Tools",
    summary: "Remove Python environments, caches, compiled code and images",
    load: () => import("./clean.js"),
  },
  blocks: {
    group: "Tools",
    summary: "List the blocks (datasets, architectures, solvers …) and their parameters",
    load: () => import("./blocks.js"),
  },
  completion: {
    group: "Tools",
    summary: "Print a script that completes commands in bash, zsh or fish",
    load: () => import("./completion.js"),
  },
  export: {
    group: "Runs",
    summary: "Write the symmetry that a run found for other programs",
    load: () => import("./export.js"),
  },
  checkpoint: {
    group: "Tools",
    summary: "Inspect, convert and export PyTorch and safetensors checkpoints",
    load: () => import("./checkpoint.js"),
  },
};

/**
 * Run the command line.
 *
 * @param argv arguments after the program's name
 * @returns the exit code: 0 success, 2 a mistake of the user, 130 interrupted, 1 other faults
 */
export async function main(argv: readonly string[]): Promise<number> {
  const args = normaliseFlags(argv);
  const debug = args.includes("--debug");
  try {
    const program = await buildProgram(args);
    if (args.length === 0) program.outputHelp();
    else await program.parseAsync(args, { from: "user" });
    return typeof process.exitCode === "number" ? process.exitCode : 0;
  } catch (error) {
    return report(error, debug);
  }
}

async function buildProgram(args: readonly string[]): Promise<Command> {
  const program = new Command("atlas")
    .description(
      "Discovers the symmetries hidden in data: the Lie algebra and the discrete components of " +
        "the group to which a task is locally equivariant.",
    )
    .version(VERSION, "--version", "Print the version")
    .helpOption("--help", "Show help; every command has its own")
    .configureHelp({ helpWidth: helpWidth() })
    .exitOverride()
    .configureOutput({ outputError: () => {} }); // `report` prints it, as one line
  const name = args.find((arg) => !arg.startsWith("-"));
  const wanted = name === "help" ? args[args.indexOf("help") + 1] : name;
  const experiments = builtinExperiments();
  const file = wanted === "run" ? args[args.indexOf("run") + 1] : wanted;

  program.commandsGroup("Experiments:");
  for (const experiment of experiments)
    await addExperiment(program, experiment, experiment.name === wanted ? args : undefined);
  const run = program
    .command("run")
    .summary("Run an experiment of your own")
    .argument("<file>", "a .ts or .js file")
    .addHelpText("after", "\nOptions of its tasks: atlas run FILE --help");
  if (
    file !== undefined &&
    (wanted === "run" ? !file.startsWith("-") : /\.[cm]?[jt]sx?$/.test(file))
  ) {
    const { buildExperimentCommand } = await import("./experiment.js");
    const command = wanted === "run" ? run : ofFile(program, file);
    buildExperimentCommand(command, await loadExperiment(file), args, file);
  } else if (wanted === "run") {
    const { addCommonOptions } = await import("./options.js");
    addCommonOptions(
      run.description("Run an experiment of your own. Every run has these options."),
    );
  }
  for (const group of ["Experiments", "Runs", "Tools"] as const) {
    program.commandsGroup(`${group}:`);
    for (const [subcommand, { summary, load, ...c }] of Object.entries(COMMANDS)) {
      if (c.group !== group) continue;
      if (subcommand === "sweep" && wanted === "sweep" && (await addSweep(program, args))) continue;
      if (subcommand === wanted)
        (await load()).register(
          program,
          Object.values(COMMANDS).map((c) => c.load),
        );
      else program.command(subcommand).summary(summary);
    }
  }
  if (
    wanted !== undefined &&
    !wanted.startsWith("-") &&
    !program.commands.some((c) => c.name() === wanted)
  ) {
    const names = program.commands.map((c) => c.name());
    throw new UsageError(
      `unknown command or experiment ${JSON.stringify(wanted)}${suggestion(wanted, names)}`,
      `choose one of ${names.join(", ")}, or give an experiment's file`,
    );
  }
  program.addHelpCommand(
    program
      .createCommand("help")
      .argument("[command]")
      .summary("Show help, as --help does")
      .helpGroup("Tools:"),
  );
  program.addHelpText(
    "after",
    `
Examples:
  atlas demo
  atlas pde --task discover --fixed-seed
  atlas pde --task discover_algebra --layout 2 --seed 3 --json > result.json
  atlas ./my-experiment.ts --help
  atlas show latest`,
  );
  return program;
}

async function addExperiment(
  program: Command,
  { name, path, summary }: ExperimentFile,
  args: readonly string[] | undefined,
) {
  const command = program.command(name).summary(summary);
  if (args === undefined) return;
  const { buildExperimentCommand } = await import("./experiment.js");
  buildExperimentCommand(command, await loadExperiment(path), args);
}

/** Add the command of a sweep of an experiment. @returns whether the command line names one */
async function addSweep(program: Command, args: readonly string[]): Promise<boolean> {
  const name = args[args.indexOf("sweep") + 1];
  if (name === undefined || name.startsWith("-")) return false;
  const builtin = builtinExperiments().find((experiment) => experiment.name === name);
  if (!builtin && !/\.[cm]?[jt]sx?$/.test(name)) {
    const names = builtinExperiments().map((experiment) => experiment.name);
    throw new UsageError(
      `there is no experiment ${JSON.stringify(name)}${suggestion(name, names)}`,
      `choose one of ${names.join(", ")}, or give an experiment's file`,
    );
  }
  if (args.includes("--help")) return false;
  const { buildSweepCommand } = await import("./sweep.js");
  const experiment = await loadExperiment(builtin?.path ?? name);
  buildSweepCommand(program.command("sweep"), experiment, args, builtin ? undefined : name);
  return true;
}

/** Add the command of an experiment's file. Its path may have spaces, which `command` splits at. */
function ofFile(program: Command, file: string): Command {
  const command = program.createCommand(file).copyInheritedSettings(program);
  program.addCommand(command, { hidden: true });
  return command;
}

/**
 * Print an error in one line, and with `debug` also its stack.
 *
 * @returns the exit code
 */
function report(error: unknown, debug: boolean): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0; // help, version
    if (error.code === "commander.help") return 2; // `atlas worker` alone has printed its help
    const message = oneLine(error.message)
      .replace(/^error: /, "")
      .replace(/\.$/, "");
    process.stderr.write(`error: ${message}; see --help\n`);
    return 2;
  }
  if (error instanceof AtlasError) {
    nameField(error);
    const message = oneLine(error.message);
    const remedy = remedyOf(error);
    process.stderr.write(
      `error: ${remedy === undefined ? message : `${message}; ${oneLine(remedy)}`}\n`,
    );
    if (debug) {
      if (error instanceof WorkerDied && error.stderrTail !== "")
        process.stderr.write(
          `the worker's last lines:\n${error.stderrTail.replaceAll(/^/gm, "  ")}\n`,
        );
      process.stderr.write(`${stackOf(error)}\n`);
    }
    return error.exitCode;
  }
  const message = error instanceof Error ? error.message : String(error);
  const advice = debug ? "" : "; run again with --debug to see where";
  process.stderr.write(`error: unexpected: ${oneLine(message)}${advice}\n`);
  if (debug) process.stderr.write(`${stackOf(error)}\n`);
  return 1;
}

function oneLine(text: string): string {
  return text.trim().replaceAll(/\s*\n\s*/g, " ");
}

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined
    ? String(error.stack)
    : `${error.stack}\ncaused by: ${stackOf(error.cause)}`;
}
