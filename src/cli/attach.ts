/** `atlas attach RUN`: come back to a run that goes on at its worker, after Ctrl-C twice, a crash, or a lost network. */
import type { Command } from "commander";
import { attachExperiment } from "../experiment/runner.js";
import { goOn } from "./resume.js";

export function register(program: Command): void {
  const command = program
    .command("attach")
    .description("Go on with a run where it stands on the worker that it was left to, to the end")
    .addHelpText(
      "after",
      "\nA worker keeps a run that nobody asks for until its job has ended, and 10 minutes more (or as its --lease says). Then: atlas resume.\n\nExamples:\n  atlas attach latest\n  atlas attach 20260101-120000-pde-1a2b --token-file token",
    );
  goOn(command, ["ca", "cert", "key", "token_file"], attachExperiment);
}
