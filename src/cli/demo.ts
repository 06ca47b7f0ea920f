/** `atlas demo`: discover the symmetries of the heat equation in under a minute. */
import type { Command } from "commander";
import { builtinExperiments, loadExperiment } from "../experiment/load.js";
import { Progress } from "../experiment/progress.js";
import { runExperiment } from "../experiment/runner.js";
import { withDashboard } from "./dashboard.js";
import { printOutcome } from "./experiment.js";
import { onInterrupt } from "./interrupt.js";
import {
  addCommonOptions,
  commonOptions,
  LOG_OPTIONS,
  WORKER_OPTIONS,
  workerChoice,
} from "./options.js";
import { namingFlag } from "./remedy.js";

/** Add the command to `program`. */
export function register(program: Command): void {
  const command = program
    .command("demo")
    .description("Discover the symmetries of the heat equation from simulated data");
  addCommonOptions(command, [...WORKER_OPTIONS, "runs", "dashboard", "json", ...LOG_OPTIONS])
    .addHelpText("after", "\nThe same as: atlas pde --task discover --fixed-seed")
    .action(async () => {
      const options = commonOptions(command);
      const progress = new Progress(options);
      const interrupt = onInterrupt(progress);
      try {
        progress.info(
          "Which symmetries does heat flow have, seen through small windows of a plate with a " +
            "hole?",
        );
        const pde = builtinExperiments().find((e) => e.name === "pde")!;
        const experiment = await loadExperiment(pde.path);
        const run = () =>
          runExperiment(
            experiment,
            { task: "discover" },
            {
              runs: options.runs,
              seed: 0,
              worker: workerChoice(options),
              progress,
              signal: interrupt.signal,
            },
          );
        const outcome = await namingFlag("--runs DIR", () => withDashboard(options, progress, run));
        printOutcome(outcome, options.json);
      } finally {
        interrupt.dispose();
      }
    });
}
