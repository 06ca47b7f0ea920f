/** `atlas show RUN`: print one run in words, or its result document. */
import { access } from "node:fs/promises";
import type { Command } from "commander";
import { describeResult } from "../algebra/index.js";
import { UsageError } from "../errors.js";
import { formatSeconds } from "../format.js";
import { Result } from "../result.js";
import { findRun } from "../run/folder.js";
import { addCommonOptions, commonOptions } from "./options.js";
import { namingFlag } from "./remedy.js";

/** Add the command to `program`. */
export function register(program: Command): void {
  const command = program
    .command("show")
    .description("Show a run: its settings, its state, and what it found")
    .argument("[run]", "id of a run or the beginning of one, its folder, or latest", "latest");
  addCommonOptions(command, ["runs", "json", "debug"])
    .addHelpText("after", "\nExamples:\n  atlas show latest\n  atlas show 20260101-12 --json")
    .action(async (name: string) => {
      const options = commonOptions(command);
      const run = await namingFlag("--runs DIR", () => findRun(options.runs, name));
      const document = await run.result();
      if (options.json) {
        if (document === undefined)
          throw new UsageError(
            `run ${run.id} is ${await run.status()} and has no result yet`,
            `finish it with: atlas resume ${run.id}`,
          );
        process.stdout.write(`${JSON.stringify(document, null, 2)}\n`);
        return;
      }
      const { id, path, status, detail, created } = await run.summary();
      const { experiment, preset } = run.config;
      const lines = [
        `run         ${id}`,
        `folder      ${path}`,
        `experiment  ${experiment}${preset === undefined ? "" : ` (preset ${preset})`}`,
        `created     ${created}`,
        `seed        ${run.config.seed}`,
        `status      ${status}${detail === "" ? "" : ` (${detail})`}`,
        `settings    ${settings(run.config.config)}`,
      ];
      if (document !== undefined) {
        const result = Result.parse(document);
        const times = Object.entries(result.timings).map(
          ([stage, s]) => `${stage} ${formatSeconds(s)}`,
        );
        lines.push(`time        ${times.join(", ")}`, "", ...describeResult(result));
      } else if (status !== "running") lines.push("", `finish it with: atlas resume ${id}`);
      const report = await access(run.reportPath).then(
        () => true,
        () => false,
      );
      if (report) lines.push(`report  ${run.reportPath}`);
      process.stdout.write(`${lines.join("\n")}\n`);
    });
}

function settings(config: Record<string, unknown>): string {
  return Object.entries(config)
    .map(
      ([name, value]) =>
        `${name}=${typeof value === "object" ? JSON.stringify(value) : String(value)}`,
    )
    .join(" ");
}
