/** `atlas attach RUN`: reconnect to a run that is still running on its worker. */
import type { Command } from "commander";
import { attachExperiment } from "../experiment/runner.js";
import { continueRun } from "./resume.js";

/** Add the command to `program`. */
export function register(program: Command): void {
  const command = program
    .command("attach")
    .description("Reconnect to a run that is still running on its worker, and follow it to the end")
    .addHelpText(
      "after",
      `
A detached run stays attachable until its job ends plus 10 minutes (the worker's --lease).
After that use: atlas resume RUN

Examples:
  atlas attach latest
  atlas attach 20260101-120000-pde-1a2b --token-file token`,
    );
  continueRun(command, ["ca", "cert", "key", "token_file"], attachExperiment);
}
