/** Options that every experiment's command has, and how parsed options become values. */
import type { Command } from "commander";
import { z } from "zod";
import { type Flag, flagsOf } from "../experiment/flags.js";
import type { WorkerChoice } from "../experiment/runner.js";

const Common = z.object({
  seed: z
    .int()
    .min(0)
    .max(2 ** 32 - 1)
    .optional()
    .describe("Seed of all randomness; random, and recorded, when left out"),
  fixed_seed: z.boolean().default(false).describe("Use a fixed seed: that of --seed, or 0"),
  worker: z
    .string()
    .default(process.env.ATLAS_WORKER || "local")
    .meta({
      description:
        "Where to compute: local, docker, docker:IMAGE, grpc://HOST:PORT, grpcs://HOST:PORT, or, left out, what ATLAS_WORKER says",
      placeholder: "where",
    }),
  ca: z.string().optional().meta({
    description: "Authorities that sign the worker's certificate (default: ATLAS_CA, or the system's)",
    placeholder: "file",
  }),
  cert: z.string().optional().meta({
    description: "Our certificate, for a worker that asks for one (default: ATLAS_CERT)",
    placeholder: "file",
  }),
  key: z.string().optional().meta({
    description: "Its private key (default: ATLAS_KEY)",
    placeholder: "file",
  }),
  token_file: z.string().optional().meta({
    description: "The worker's token (default: the text in ATLAS_TOKEN)",
    placeholder: "file",
  }),
  device: z
    .string()
    .default("auto")
    .meta({ description: "auto (a GPU if there is one), cpu, cuda, cuda:1", placeholder: "name" }),
  threads: z.int().positive().optional().describe("CPU threads of the worker"),
  detach_on_interrupt: z
    .boolean()
    .default(false)
    .describe("Ctrl-C twice leaves the run going on a worker that outlives it, for atlas attach"),
  runs: z.string().default("runs").meta({ description: "Folder of the run folders", placeholder: "dir" }),
  json: z.boolean().default(false).describe("Print the result document, and nothing else, on stdout"),
  log_level: z
    .enum(["debug", "info", "warning"])
    .optional()
    .describe(
      "The least that is told on stderr: debug (the log of a local worker too), info (default), or warning",
    ),
  quiet: z
    .boolean()
    .default(false)
    .describe("No progress, only warnings and the result: as --log-level warning"),
  debug: z
    .boolean()
    .default(false)
    .describe("Show the worker's log, as --log-level debug does, and where an error came from"),
});
export type CommonOptions = z.infer<typeof Common>;
export type CommonOption = keyof CommonOptions;

const COMMON_FLAGS = flagsOf(Common);

/** The options that say which worker computes. */
export const WORKER_OPTIONS = [
  "worker",
  "ca",
  "cert",
  "key",
  "token_file",
  "device",
  "threads",
] as const satisfies CommonOption[];

/** The options that say how much is told on stderr. */
export const LOG_OPTIONS = ["log_level", "quiet", "debug"] as const satisfies CommonOption[];

/** Add some of the common options to a command. */
export function addCommonOptions(
  command: Command,
  names: readonly CommonOption[] = Object.keys(Common.shape) as CommonOption[],
): Command {
  for (const flag of COMMON_FLAGS)
    if ((names as readonly string[]).includes(flag.field)) command.addOption(flag.option);
  return command;
}

/** The common options as given, checked, defaults filled in; `quiet` and `debug` as `log_level` has it where that is given. @throws UsageError */
export function commonOptions(command: Command): CommonOptions {
  const options = Common.parse(givenValues(command, COMMON_FLAGS));
  const { log_level } = options;
  return log_level === undefined
    ? options
    : { ...options, quiet: log_level === "warning", debug: log_level === "debug" };
}

/** Which worker is to compute. */
export function workerChoice(options: CommonOptions): WorkerChoice {
  const { worker: address, ca, cert, key, token_file: tokenFile, device, threads, debug } = options;
  return { address, ca, cert, key, tokenFile, device, threads, logLevel: debug ? "debug" : undefined };
}

/** The values of the flags that were given, by field. @throws UsageError for the first that is not accepted */
export function givenValues(command: Command, flags: readonly Flag[]): Record<string, unknown> {
  const values: Record<string, unknown> = {};
  for (const flag of flags) {
    const value: unknown = command.getOptionValue(flag.option.attributeName());
    if (typeof value === "string" || typeof value === "boolean") values[flag.field] = flag.parse(value);
  }
  return values;
}
