/** `atlas resume RUN`: finish a run that was interrupted, killed, or failed. */
import { dirname } from "node:path";
import type { Command } from "commander";
import { UsageError } from "../errors.js";
import type { Experiment } from "../experiment/define.js";
import { builtinExperiments, loadExperiment } from "../experiment/load.js";
import { Progress } from "../experiment/progress.js";
import {
  type ContinueOptions,
  checkTrust,
  type Outcome,
  resumeExperiment,
  type WorkerChoice,
} from "../experiment/runner.js";
import { findRunOrSweep, Sweep, SweepDisplay } from "../pool/index.js";
import { Result } from "../result.js";
import { findRun, type RunConfig } from "../run/folder.js";
import { withDashboard } from "./dashboard.js";
import { printOutcome } from "./experiment.js";
import { checkDetach, onInterrupt } from "./interrupt.js";
import {
  addCommonOptions,
  type CommonOption,
  type CommonOptions,
  commonOptions,
  LOG_OPTIONS,
  WORKER_OPTIONS,
  workerChoice,
} from "./options.js";
import { namingFlag } from "./remedy.js";
import { finishSweep } from "./sweep.js";

/** Add the command to `program`. */
export function register(program: Command): void {
  const command = program
    .command("resume")
    .description("Finish a run from its last checkpoints, or the open runs of a sweep")
    .addHelpText(
      "after",
      `
Examples:
  atlas resume latest
  atlas resume 20260101-120000-pde-1a2b --json`,
    );
  continueRun(command, [...WORKER_OPTIONS, "ranks"], resumeExperiment, { sweeps: true });
}

/**
 * Add the arguments and the action of a command that continues a run, `resume` or `attach`.
 *
 * @param workerOptions the options that choose the worker or its credentials
 * @param mode continues the run
 * @param sweeps whether the command continues sweeps too
 */
export function continueRun(
  command: Command,
  workerOptions: readonly CommonOption[],
  mode: (experiment: Experiment, path: string, options: ContinueOptions) => Promise<Outcome>,
  { sweeps = false }: { sweeps?: boolean } = {},
): void {
  const what = sweeps ? "a run or a sweep" : "a run";
  command.argument(
    "[run]",
    `id of ${what} or the beginning of one, its folder, or latest`,
    "latest",
  );
  addCommonOptions(command, [
    ...workerOptions,
    ...(sweeps ? (["pool"] as const) : []),
    "trust_code",
    "detach_on_interrupt",
    "runs",
    "dashboard",
    "mlflow",
    "json",
    ...LOG_OPTIONS,
  ]);
  for (const option of command.options)
    if (["--worker", "--device", "--threads", "--ranks", "--pool"].includes(option.long ?? ""))
      option.description = option.description.replace(
        /( \(default: .*\))?$/,
        " (default: as before)",
      );
  command.action(async (name: string) => {
    const options = commonOptions(command);
    const run = sweeps
      ? await namingFlag("--runs DIR", () => findRunOrSweep(options.runs, name))
      : await namingFlag("--runs DIR", () => findRun(options.runs, name));
    const given = (option: "worker" | "device") =>
      command.getOptionValue(option) === undefined ? undefined : options[option];
    const worker = { ...workerChoice(options), address: given("worker"), device: given("device") };
    const { pool } = options;
    if (run instanceof Sweep) return resumeSweep(run, options, { worker, pool });
    if (pool !== undefined)
      throw new UsageError(`--pool is for sweeps, and ${run.id} is a run`, "leave it out");
    const progress = new Progress(options);
    const finished = await run.result();
    if (finished !== undefined) {
      progress.info(`run ${run.id} is finished; nothing to do`);
      printOutcome({ id: run.id, path: run.path, result: Result.parse(finished) }, options.json);
      return;
    }
    if (workerOptions.includes("worker"))
      checkDetach(options.detach_on_interrupt, worker.address ?? run.config.worker.address);
    const { trust_code: trustCode } = options;
    checkTrust(run, trustCode);
    const interrupt = onInterrupt(progress, { detach: options.detach_on_interrupt });
    try {
      const experiment = await loadExperiment(fileOf(run));
      const { signal, onAttachable } = interrupt;
      const outcome = await namingFlag("--runs DIR", () =>
        withDashboard({ ...options, runs: dirname(run.path) }, progress, () =>
          mode(experiment, run.path, {
            ...{ worker, progress, signal, onAttachable, trustCode },
            mlflow: options.mlflow,
          }),
        ),
      );
      printOutcome(outcome, options.json);
    } finally {
      interrupt.dispose();
    }
  });
}

/** Run what is not done of a sweep. */
async function resumeSweep(
  sweep: Sweep,
  options: CommonOptions,
  { worker, pool }: { worker: WorkerChoice; pool?: string },
): Promise<void> {
  const { trust_code: trustCode } = options;
  const { file } = sweep;
  if (file.file !== undefined && !trustCode)
    throw new UsageError(
      `continuing sweep ${sweep.id} would execute code: ${file.file}`,
      "if you trust the author of the sweep and of this file, give --trust-code",
    );
  sweep.checkVersion();
  const experiment = await loadExperiment(
    fileOf({ id: sweep.id, config: { file: file.file, experiment: file.experiment } }),
  );
  const display = new SweepDisplay(options);
  await finishSweep(
    experiment,
    sweep,
    { worker, pool, trustCode, display, mlflow: options.mlflow },
    options,
  );
}

function fileOf({
  id,
  config,
}: {
  id: string;
  config: Pick<RunConfig, "file" | "experiment">;
}): string {
  const path = config.file ?? builtinExperiments().find((e) => e.name === config.experiment)?.path;
  if (path !== undefined) return path;
  throw new UsageError(
    `${id} is of the experiment ${config.experiment}, which this version does not have`,
    "resume it with the version of Atlas that started it",
  );
}
