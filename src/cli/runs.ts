/** `atlas runs`: list the runs in the runs folder. */
import type { Command } from "commander";
import { listRuns } from "../run/folder.js";
import { addCommonOptions, commonOptions } from "./options.js";
import { namingFlag } from "./remedy.js";

/** Add the command to `program`. */
export function register(program: Command): void {
  const command = program
    .command("runs")
    .description("List the runs with their states: finished, running, interrupted or failed");
  addCommonOptions(command, ["runs", "json", "debug"])
    .addHelpText("after", "\nExamples:\n  atlas runs\n  atlas runs --runs /data/runs --json")
    .action(async () => {
      const options = commonOptions(command);
      const { runs, damaged } = await namingFlag("--runs DIR", () => listRuns(options.runs));
      for (const line of damaged) process.stderr.write(`warning: ${line}\n`);
      const summaries = await Promise.all(runs.map((run) => run.summary()));
      if (options.json) process.stdout.write(`${JSON.stringify(summaries, null, 2)}\n`);
      else if (summaries.length === 0) process.stdout.write(`no runs in ${options.runs}\n`);
      for (const { id, status, seed, detail } of options.json ? [] : summaries)
        process.stdout.write(
          `${`${id}  ${status.padEnd(11)}  seed ${seed}  ${detail}`.trimEnd()}\n`,
        );
    });
}
