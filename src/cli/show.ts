/** `atlas show RUN`: print one run in words, or its result document. */
import { access } from "node:fs/promises";
import type { Command } from "commander";
import { describeResult } from "../algebra/index.js";
import { UsageError } from "../errors.js";
import { formatSeconds } from "../format.js";
import { findRunOrSweep, Sweep } from "../pool/folder.js";
import { seedLines, summariseSweep, sweepCsv, sweepTable } from "../pool/summary.js";
import { Result } from "../result.js";
import type { Run } from "../run/folder.js";
import { cite } from "./cite.js";
import { addCommonOptions, commonOptions } from "./options.js";
import { namingFlag } from "./remedy.js";

/** Add the command to `program`. */
export function register(program: Command): void {
  const command = program
    .command("show")
    .description("Show a run or a sweep: its settings, its state, and what it found")
    .argument(
      "[run]",
      "id of a run or a sweep, or the beginning of one, its folder, or latest",
      "latest",
    )
    .option("--csv", "Print a sweep as CSV, with a line for each cell")
    .option("--cite", "Print BibTeX for a run, and the command line that repeats it");
  addCommonOptions(command, ["runs", "json", "debug"])
    .addHelpText("after", "\nExamples:\n  atlas show latest\n  atlas show 20260101-12 --json")
    .action(async (name: string) => {
      const options = commonOptions(command);
      const run = await namingFlag("--runs DIR", () => findRunOrSweep(options.runs, name));
      const csv = command.getOptionValue("csv") === true;
      const cites = command.getOptionValue("cite") === true;
      if (cites && (options.json || csv))
        throw new UsageError(
          `--cite prints BibTeX, and --${csv ? "csv" : "json"} another format`,
          "give one of them",
        );
      if (cites && run instanceof Sweep)
        throw new UsageError(`--cite is for runs, and ${run.file.id} is a sweep`, "give a run");
      if (run instanceof Sweep) return showSweep(run, options.json, csv);
      if (cites) return void process.stdout.write(`${await cite(run)}\n`);
      if (csv) throw new UsageError(`--csv is for sweeps, and ${run.id} is a run`, "leave it out");
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
        lines.push(`time        ${times.join(", ")}`);
        lines.push(`computed    ${await placeInWords(run, result)}`, "", ...describeResult(result));
      } else if (status !== "running") lines.push("", `finish it with: atlas resume ${id}`);
      if (await exists(run.reportPath)) lines.push(`report  ${run.reportPath}`);
      process.stdout.write(`${lines.join("\n")}\n`);
    });
}

/** Say where a run computed: device, threads, ranks, processor, libraries, pool and slot. */
async function placeInWords(
  run: Run,
  { environment: { device, threads, ranks, processor, blas } }: Result,
): Promise<string> {
  const worker = (await run.events()).findLast((event) => event.type === "worker");
  const where = worker?.pool === undefined ? [] : [`slot ${worker.slot} of ${worker.pool}`];
  const shared = ranks === undefined ? undefined : `${ranks} ranks`;
  const inThreads = `${threads} thread${threads === 1 ? "" : "s"}`;
  const told = [device, inThreads, shared, processor, blas, ...where];
  return told.filter((part) => part !== undefined && part !== "").join(", ");
}

/** Print a sweep as it is now: a line for each cell. */
async function showSweep(sweep: Sweep, json: boolean, csv: boolean): Promise<void> {
  const summary = await summariseSweep(sweep);
  if (json) return void process.stdout.write(`${JSON.stringify(summary, null, 2)}\n`);
  if (csv) return void process.stdout.write(`${sweepCsv(summary)}\n`);
  const { file, id, path } = sweep;
  const count = (status: string) => summary.runs.filter((run) => run.status === status).length;
  const states = ["finished", "running", "interrupted", "failed", "pending"]
    .filter((status) => count(status) > 0)
    .map((status) => `${count(status)} ${status}`);
  const grid = Object.entries(file.grid).map(([field, values]) => `${field}=${values.join(",")}`);
  const lines = [
    `sweep       ${id}`,
    `folder      ${path}`,
    `experiment  ${file.experiment}`,
    `created     ${file.created}`,
    `pool        ${file.pool ?? file.worker.address}`,
    `grid        ${grid.join(" ")}`,
    `runs        ${states.join(", ")}${summary.running ? " (a process works in it)" : ""}`,
    "",
    ...sweepTable(summary),
    "",
    ...seedLines(summary),
  ];
  for (const { id: run, error } of summary.runs)
    if (error !== undefined) lines.push(`failed  ${run}: ${error}`);
  if (summary.runs.some(({ status }) => status !== "finished") && !summary.running)
    lines.push(`finish it with: atlas resume ${id}`);
  if (await exists(sweep.reportPath)) lines.push(`report  ${sweep.reportPath}`);
  process.stdout.write(`${lines.join("\n")}\n`);
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

function settings(config: Record<string, unknown>): string {
  return Object.entries(config)
    .map(
      ([name, value]) =>
        `${name}=${typeof value === "object" ? JSON.stringify(value) : String(value)}`,
    )
    .join(" ");
}
