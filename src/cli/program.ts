/** What `atlas` takes, and how it answers. Only what a command needs is loaded, so that help and small commands are quick. */
import { Command, CommanderError } from "commander";
import { AtlasError, UsageError, WorkerDied } from "../errors.js";
import { normaliseFlags } from "../experiment/flags.js";
import { builtinExperiments, type ExperimentFile, loadExperiment } from "../experiment/load.js";
import { nearest } from "../experiment/nearest.js";
import { VERSION } from "../version.js";

interface Subcommand {
  group: "Runs" | "Machinery" | "Experiments";
  summary: string;
  load: () => Promise<{ register(program: Command): void }>;
}

const COMMANDS: Record<string, Subcommand> = {
  demo: {
    group: "Experiments",
    summary: "Discover the local symmetries of the heat equation, in under a minute",
    load: () => import("./demo.js"),
  },
  data: {
    group: "Experiments",
    summary: "Make or fetch the data of an experiment",
    load: () => import("./data.js"),
  },
  runs: { group: "Runs", summary: "List the runs", load: () => import("./runs.js") },
  show: { group: "Runs", summary: "Show one run", load: () => import("./show.js") },
  resume: {
    group: "Runs",
    summary: "Finish a run that was interrupted, killed, or failed",
    load: () => import("./resume.js"),
  },
  tensorboard: {
    group: "Runs",
    summary: "Write a run's metrics for TensorBoard",
    load: () => import("./tensorboard.js"),
  },
  attach: {
    group: "Runs",
    summary: "Come back to a run that goes on at its worker",
    load: () => import("./attach.js"),
  },
  worker: {
    group: "Machinery",
    summary: "Start, inspect and stop a worker",
    load: () => import("./worker.js"),
  },
  doctor: {
    group: "Machinery",
    summary: "What is installed, what is missing, what to do",
    load: () => import("./doctor.js"),
  },
  checkpoint: {
    group: "Machinery",
    summary: "Inspect, convert and export PyTorch and safetensors checkpoints",
    load: () => import("./checkpoint.js"),
  },
};

/**
 * Run the command line.
 *
 * @param argv arguments after the program's name
 * @returns the exit code: 0 done, 1 our or the machine's fault, 2 the user's mistake, 130 interrupted
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
      "Discovers the symmetries hidden in data: the Lie algebra and the further components of the group a task is locally equivariant to.",
    )
    .version(VERSION, "--version", "Print the version")
    .helpOption("--help", "Show help; every command has its own")
    .helpCommand("help [command]", "Show help, as --help does")
    .exitOverride()
    .configureOutput({ outputError: () => {} }); // `report` prints it, as one line
  const name = args.find((arg) => !arg.startsWith("-"));
  const wanted = name === "help" ? args[args.indexOf("help") + 1] : name;
  const experiments = builtinExperiments();
  const file = wanted === "run" ? args[args.indexOf("run") + 1] : wanted;

  program.commandsGroup("Experiments:");
  for (const experiment of experiments) await addExperiment(program, experiment, experiment.name === wanted);
  const run = program
    .command("run")
    .summary("Run an experiment of your own")
    .argument("<file>", "a .ts or .js file");
  if (file !== undefined && (wanted === "run" ? !file.startsWith("-") : /\.[cm]?[jt]sx?$/.test(file))) {
    const { buildExperimentCommand } = await import("./experiment.js");
    const command = wanted === "run" ? run : program.command(file, { hidden: true });
    buildExperimentCommand(command, await loadExperiment(file), file);
  }
  for (const group of ["Experiments", "Runs", "Machinery"] as const) {
    program.commandsGroup(`${group}:`);
    for (const [subcommand, { summary, load, ...c }] of Object.entries(COMMANDS)) {
      if (c.group !== group) continue;
      if (subcommand === wanted) (await load()).register(program);
      else program.command(subcommand).summary(summary);
    }
  }
  if (wanted !== undefined && !wanted.startsWith("-") && !program.commands.some((c) => c.name() === wanted)) {
    const names = program.commands.map((c) => c.name());
    const hint = nearest(wanted, names);
    throw new UsageError(
      `unknown command or experiment ${JSON.stringify(wanted)}${hint === undefined ? "" : ` (did you mean ${hint}?)`}`,
      `choose one of ${names.join(", ")}, or give an experiment's file`,
    );
  }
  program.addHelpText(
    "after",
    `
Examples:
  atlas demo
  atlas pde --task discover --fixed-seed
  atlas pde --task discover_algebra --atlas 2 --seed 3 --json > result.json
  atlas ./my-experiment.ts --help
  atlas show latest`,
  );
  return program;
}

async function addExperiment(program: Command, { name, path, summary }: ExperimentFile, wanted: boolean) {
  const command = program.command(name).summary(summary);
  if (!wanted) return;
  const { buildExperimentCommand } = await import("./experiment.js");
  buildExperimentCommand(command, await loadExperiment(path));
}

/** Print an error as one line (with --debug: where it came from too) and say which exit code it means. */
function report(error: unknown, debug: boolean): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0; // help, version
    if (error.code === "commander.help") return 2; // `atlas worker` alone: its help, which says what is missing, is printed already
    const message = oneLine(error.message)
      .replace(/^error: /, "")
      .replace(/\.$/, "");
    process.stderr.write(`error: ${message}; see --help\n`);
    return 2;
  }
  if (error instanceof AtlasError) {
    const message = oneLine(error.message);
    process.stderr.write(
      `error: ${error.remedy === undefined ? message : `${message}; ${oneLine(error.remedy)}`}\n`,
    );
    if (debug) {
      if (error instanceof WorkerDied && error.stderrTail !== "")
        process.stderr.write(`the worker's last lines:\n${error.stderrTail.replaceAll(/^/gm, "  ")}\n`);
      process.stderr.write(`${stackOf(error)}\n`);
    }
    return error.exitCode;
  }
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(
    `error: unexpected: ${oneLine(message)}${debug ? "" : "; run with --debug to see where"}\n`,
  );
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
