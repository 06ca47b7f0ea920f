/** `atlas pde …`, `atlas run FILE …`: a command made from an experiment. */
import type { Command } from "commander";
import { describeResult } from "../algebra/index.js";
import type { Experiment } from "../experiment/define.js";
import { Progress } from "../experiment/progress.js";
import { type Outcome, runExperiment } from "../experiment/runner.js";
import { checkDetach, onInterrupt } from "./interrupt.js";
import { addCommonOptions, commonOptions, givenValues, workerChoice } from "./options.js";

/** Add an experiment's flags and action to its command. `file` is set for a user's own. */
export function buildExperimentCommand(command: Command, experiment: Experiment, file?: string): Command {
  command.summary(experiment.summary).description(experiment.summary);
  command.optionsGroup("The experiment:");
  const positional = experiment.flags.filter((flag) => flag.positional);
  for (const { name, option, expected } of positional)
    command.argument(`[${name}]`, `${option.description}${expected === "text" ? "" : ` (${expected})`}`);
  for (const flag of experiment.flags) if (!flag.positional) command.addOption(flag.option);
  if (experiment.presetNames.length > 1)
    command.option(
      `--preset <${experiment.presetNames.join("|")}>`,
      "Values for the parameters that are not given",
    );
  command.optionsGroup("The run:");
  addCommonOptions(command);
  const examples = experiment.examples ?? [`atlas ${command.name()} --fixed-seed`];
  command.addHelpText(
    "after",
    `\nEvery flag may be written with _ in place of -.\n\nExamples:\n${examples.map((e) => `  ${e}`).join("\n")}`,
  );
  return command.action(async () => {
    const options = commonOptions(command);
    const { seed, fixed_seed, runs, json, quiet, debug } = options;
    const given = givenValues(command, experiment.flags);
    for (const [i, flag] of positional.entries())
      if (command.args[i] !== undefined) given[flag.field] = flag.parse(command.args[i]);
    const preset: unknown = command.getOptionValue("preset");
    checkDetach(options.detach_on_interrupt, options.worker);
    const progress = new Progress({ quiet, debug });
    const interrupt = onInterrupt(progress, { detach: options.detach_on_interrupt });
    try {
      const outcome = await runExperiment(experiment, given, {
        runs,
        seed: seed ?? (fixed_seed ? 0 : undefined),
        preset: typeof preset === "string" ? preset : undefined,
        worker: workerChoice(options),
        progress,
        signal: interrupt.signal,
        onLasting: interrupt.onLasting,
        file,
      });
      printOutcome(outcome, json);
      if (outcome.result.asExpected === false) process.exitCode = 1;
    } finally {
      interrupt.dispose();
    }
  });
}

/** The end of a run on stdout: the result document alone, or what was found in words and where it lies. */
export function printOutcome({ path, report, result }: Outcome, json: boolean): void {
  if (json) return void process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
  const lines = [...describeResult(result), `run     ${path}`];
  if (report !== undefined) lines.push(`report  ${report}`);
  process.stdout.write(`${lines.join("\n")}\n`);
}
