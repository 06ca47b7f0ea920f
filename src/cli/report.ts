/** `atlas report RUN [RUN…]`: write the report of a run again, or compare runs. */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { Command } from "commander";
import { FileError, UsageError } from "../errors.js";
import { type Compared, picturesOf, renderComparison, renderReport } from "../report/index.js";
import { Result } from "../result.js";
import { writeFileAtomic } from "../run/atomic.js";
import { findRun, type Run } from "../run/folder.js";
import { addCommonOptions, commonOptions } from "./options.js";
import { namingFlag } from "./remedy.js";

/** Runs that can be compared. */
const MOST = 20;

/** Add the command to `program`. */
export function register(program: Command): void {
  const command = program
    .command("report")
    .description("Write the report of a run again, or a page that compares 2 to 20 runs")
    .argument("[runs...]", "ids of runs or the beginnings of ids, folders, or latest", ["latest"])
    .option("--out <file>", "The page (default: the run's report.html, or comparison.html)");
  addCommonOptions(command, ["runs", "json", "debug"])
    .addHelpText(
      "after",
      `
Drawings of the data are taken from the former report, because they need a worker.

Examples:
  atlas report latest
  atlas report 20260101-12 20260102-09 --out comparison.html`,
    )
    .action(async (names: string[]) => {
      const { runs: folder, json } = commonOptions(command);
      const { out } = command.opts<{ out?: string }>();
      const found = new Map<string, Run>();
      for (const name of names) {
        const run = await namingFlag("--runs DIR", () => findRun(folder, name));
        found.set(run.path, run);
      }
      const runs = [...found.values()];
      if (runs.length > MOST)
        throw new UsageError(
          `${runs.length} runs are too many for one page`,
          `compare at most ${MOST}`,
        );
      const [first] = runs as [Run];
      const page = runs.length === 1 ? await reportOf(first) : await comparisonOf(runs);
      const path =
        out === undefined && runs.length === 1
          ? first.reportPath
          : resolve(out ?? "comparison.html");
      await namingFlag("--out FILE", () => writeFileAtomic(path, page));
      process.stdout.write(json ? `${JSON.stringify({ report: path })}\n` : `report  ${path}\n`);
    });
}

async function reportOf(run: Run): Promise<string> {
  const result = await resultOf(run);
  if (result === undefined)
    throw new UsageError(
      `run ${run.id} is ${await run.status()} and has no result yet`,
      `finish it with: atlas resume ${run.id}`,
    );
  const former = await readFile(run.reportPath, "utf8").catch(() => "");
  const formerPictures = picturesOf(former);
  if (formerPictures === undefined)
    process.stderr.write("warning: the report shows no pictures of the data; they need a worker\n");
  return renderReport({ result, config: run.config, events: await run.events(), formerPictures });
}

async function comparisonOf(runs: readonly Run[]): Promise<string> {
  const compared: Compared[] = [];
  for (const run of runs)
    compared.push({
      id: run.id,
      status: await run.status(),
      config: run.config,
      result: await resultOf(run),
      events: await run.events(),
    });
  return renderComparison(compared);
}

/** @throws FileError if result.json is not a result's */
async function resultOf(run: Run): Promise<Result | undefined> {
  const document = await run.result();
  if (document === undefined) return undefined;
  const parsed = Result.safeParse(document);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  throw new FileError(
    `${run.resultPath} is damaged: ${path.join(".") || "the document"}: ${message}`,
    `delete it, then write it again with: atlas resume ${run.id}`,
  );
}
