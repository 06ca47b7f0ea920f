/** `atlas demo`: discover the symmetry of the heat equation, algebra and cosets, in under a minute. */
import type { Command } from "commander";
import { builtinExperiments, loadExperiment } from "../experiment/load.js";
import { Progress } from "../experiment/progress.js";
import { runExperiment } from "../experiment/runner.js";
import { printOutcome } from "./experiment.js";
import { onInterrupt } from "./interrupt.js";
import { addCommonOptions, commonOptions, LOG_OPTIONS, WORKER_OPTIONS, workerChoice } from "./options.js";

export function register(program: Command): void {
  const command = program
    .command("demo")
    .description("Discover the local symmetries of the heat equation from data alone");
  addCommonOptions(command, [...WORKER_OPTIONS, "runs", "json", ...LOG_OPTIONS])
    .addHelpText("after", "\nThe same as: atlas pde --task discover --fixed-seed")
    .action(async () => {
      const options = commonOptions(command);
      const progress = new Progress(options);
      const interrupt = onInterrupt(progress);
      try {
        progress.info(
          "Which symmetries does heat diffusion have, seen through small windows of a plate with a hole?",
        );
        const pde = builtinExperiments().find((e) => e.name === "pde")!;
        const outcome = await runExperiment(
          await loadExperiment(pde.path),
          { task: "discover" },
          {
            runs: options.runs,
            seed: 0,
            worker: workerChoice(options),
            progress,
            signal: interrupt.signal,
          },
        );
        printOutcome(outcome, options.json);
      } finally {
        interrupt.dispose();
      }
    });
}
