/** `atlas resume RUN`: finish a run that was interrupted, killed, or failed. And what `atlas attach` has in common with it. */
import type { Command } from "commander";
import { UsageError } from "../errors.js";
import type { Experiment } from "../experiment/define.js";
import { builtinExperiments, loadExperiment } from "../experiment/load.js";
import { Progress } from "../experiment/progress.js";
import { checkTrust, type GoOnOptions, type Outcome, resumeExperiment } from "../experiment/runner.js";
import { Result } from "../result.js";
import { findRun, type Run } from "../run/folder.js";
import { printOutcome } from "./experiment.js";
import { checkDetach, onInterrupt } from "./interrupt.js";
import {
  addCommonOptions,
  type CommonOption,
  commonOptions,
  LOG_OPTIONS,
  WORKER_OPTIONS,
  workerChoice,
} from "./options.js";

export function register(program: Command): void {
  const command = program
    .command("resume")
    .description("Go on with a run from its last checkpoints, to the end")
    .addHelpText(
      "after",
      "\nExamples:\n  atlas resume latest\n  atlas resume 20260101-120000-pde-1a2b --json",
    );
  goOn(command, WORKER_OPTIONS, resumeExperiment);
}

/** Make a command of one that goes on with a run in some way. */
export function goOn(
  command: Command,
  workerOptions: readonly CommonOption[],
  way: (experiment: Experiment, path: string, options: GoOnOptions) => Promise<Outcome>,
): void {
  command.argument("[run]", "an id, the beginning of one, a path, or latest", "latest");
  command.option(
    "--trust-code",
    "Execute the code that the run names: its experiment's file, a predictor, or a worker's image",
  );
  addCommonOptions(command, [...workerOptions, "detach_on_interrupt", "runs", "json", ...LOG_OPTIONS]).action(
    async (name: string) => {
      const options = commonOptions(command);
      const run = await findRun(options.runs, name);
      const progress = new Progress(options);
      const finished = await run.result();
      if (finished !== undefined) {
        progress.info(`run ${run.id} is finished already; nothing to do`);
        printOutcome({ id: run.id, path: run.path, result: Result.parse(finished) }, options.json);
        return;
      }
      const given = (option: "worker" | "device") =>
        command.getOptionValue(option) === undefined ? undefined : options[option];
      const worker = { ...workerChoice(options), address: given("worker"), device: given("device") };
      if (workerOptions.includes("worker"))
        checkDetach(options.detach_on_interrupt, worker.address ?? run.config.worker.address);
      const trustCode = command.getOptionValue("trustCode") === true;
      checkTrust(run, trustCode);
      const interrupt = onInterrupt(progress, { detach: options.detach_on_interrupt });
      try {
        const experiment = await loadExperiment(fileOf(run));
        const { signal, onLasting } = interrupt;
        const outcome = await way(experiment, run.path, { worker, progress, signal, onLasting, trustCode });
        printOutcome(outcome, options.json);
      } finally {
        interrupt.dispose();
      }
    },
  );
}

function fileOf({ id, config }: Run): string {
  const path = config.file ?? builtinExperiments().find((e) => e.name === config.experiment)?.path;
  if (path !== undefined) return path;
  throw new UsageError(
    `run ${id} is of experiment ${config.experiment}, which this version does not have`,
    "resume it with the version that began it",
  );
}
