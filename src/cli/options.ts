/** The options that all experiments' commands share, and the conversion of options to values. */
import type { Command } from "commander";
import type { z } from "zod";
import { Common } from "../experiment/common.js";
import { type Flag, flagsOf } from "../experiment/flags.js";
import type { WorkerChoice } from "../experiment/runner.js";

/** Values of the common options. */
export type CommonOptions = z.infer<typeof Common>;
/** Name of a common option. */
export type CommonOption = keyof CommonOptions;

/** Flags of the common options. */
export const COMMON_FLAGS = flagsOf(Common);

/** Names of the options that choose a worker. */
export const WORKER_OPTIONS = [
  "worker",
  "ca",
  "cert",
  "key",
  "token_file",
  "device",
  "threads",
] as const satisfies CommonOption[];

/** Names of the options that decide how much is printed on stderr. */
export const LOG_OPTIONS = ["log_level", "quiet", "debug"] as const satisfies CommonOption[];

/**
 * Add common options to a command.
 *
 * @param names of the options (default: all)
 */
export function addCommonOptions(
  command: Command,
  names: readonly CommonOption[] = Object.keys(Common.shape) as CommonOption[],
  {
    hidden = false,
  }: {
    /** Whether help leaves them out. */
    hidden?: boolean;
  } = {},
): Command {
  for (const { field } of COMMON_FLAGS) {
    if (!(names as readonly string[]).includes(field)) continue;
    // Each command needs option objects of its own, because hiding one changes the object.
    const { option } = flagsOf(Common).find((flag) => flag.field === field)!;
    command.addOption(option.hideHelp(hidden));
  }
  return command;
}

/**
 * Get the common options of a command, checked, with defaults. `log_level`, if given, decides
 * `quiet` and `debug`.
 *
 * @throws UsageError
 */
export function commonOptions(command: Command): CommonOptions {
  const options = Common.parse(givenValues(command, COMMON_FLAGS));
  const { log_level } = options;
  return log_level === undefined
    ? options
    : { ...options, quiet: log_level === "warning", debug: log_level === "debug" };
}

/** Split the tags of the common options. @returns undefined without any */
export function tagsOf({ tags = "" }: CommonOptions): string[] | undefined {
  const words = tags.split(",").map((word) => word.trim());
  const all = [...new Set(words.filter(Boolean))];
  return all.length === 0 ? undefined : all;
}

/** Make the choice of a worker from the common options. */
export function workerChoice(options: CommonOptions): WorkerChoice {
  const { worker: address, ca, cert, key, token_file: tokenFile, debug } = options;
  const { device, threads, ranks } = options;
  return {
    address,
    ca,
    cert,
    key,
    tokenFile,
    device,
    threads,
    ranks,
    logLevel: debug ? "debug" : undefined,
  };
}

/**
 * Get the values of the given flags, by field.
 *
 * @param note is called with a line for each flag that was given by a former name
 * @throws UsageError for the first value that is not accepted
 */
export function givenValues(
  command: Command,
  flags: readonly Flag[],
  note: (line: string) => void = () => {},
): Record<string, unknown> {
  const values: Record<string, unknown> = {};
  for (const flag of flags) {
    const value: unknown = command.getOptionValue(flag.option.attributeName());
    if (typeof value !== "string" && typeof value !== "boolean") continue;
    if (flag.former !== undefined) note(`--${flag.name} is now --${flag.former}`);
    values[flag.field] = flag.parse(value);
  }
  return values;
}
