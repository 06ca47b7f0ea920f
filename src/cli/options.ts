/** Options that every experiment's command has, and how parsed options become values. */
import type { Command } from "commander";
import type { z } from "zod";
import { Common } from "../experiment/common.js";
import { type Flag, flagsOf } from "../experiment/flags.js";
import type { WorkerChoice } from "../experiment/runner.js";

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
