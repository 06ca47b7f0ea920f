/** `atlas runs`: list the runs in the runs folder; `atlas runs remove`: remove some. */
import { dirname, resolve } from "node:path";
import type { Command } from "commander";
import { AtlasError, UsageError } from "../errors.js";
import { findRunOrSweep, Sweep } from "../pool/folder.js";
import { removable, removeRun, removeSweep } from "../pool/remove.js";
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
  addRemove(command);
}

function addRemove(parent: Command): void {
  const command = parent
    .command("remove")
    .description("Remove runs and sweeps, never one that is running or that others refer to")
    .argument("[run...]", "ids of runs or sweeps, or the beginnings of ids, or folders")
    .option("--older <age>", "All runs that are older, for example 30d, 12h or 2w")
    .option("--dry-run", "Print what would be removed, and remove nothing");
  addCommonOptions(command, ["runs", "json", "debug"])
    .addHelpText(
      "after",
      `
A run is kept while another run or a sweep that stays refers to it. A sweep goes with its runs.

Examples:
  atlas runs remove 20260101-120000-pde-1a2b
  atlas runs remove --older 30d --dry-run`,
    )
    .action(async (names: string[]) => {
      // The parent's options of the same names take the values.
      for (const name of ["runs", "json", "debug"])
        command.setOptionValue(name, parent.getOptionValue(name));
      const options = commonOptions(command);
      const { older, dryRun = false } = command.opts<{ older?: string; dryRun?: boolean }>();
      if (names.length === 0 && older === undefined)
        throw new UsageError("no run is named", "name runs, or give --older 30d");
      if (names.length > 0 && older !== undefined)
        throw new UsageError("--older chooses the runs itself", "name runs, or give --older");
      await namingFlag("--runs DIR", () => remove(options, names, older, dryRun));
    });
}

async function remove(
  { runs: folder, json }: { runs: string; json: boolean },
  names: readonly string[],
  older: string | undefined,
  dryRun: boolean,
): Promise<void> {
  const wanted = new Set<string>();
  for (const name of names) {
    const found = await findRunOrSweep(folder, name);
    const own = found instanceof Sweep ? found.runsDir : dirname(found.path);
    if (resolve(own) !== resolve(folder))
      throw new UsageError(`${found.path} is not in ${folder}`, "name its folder", {
        elsewhere: true,
      });
    wanted.add(found.id);
    if (found instanceof Sweep) for (const { id } of found.file.runs) wanted.add(id);
  }
  const before = older === undefined ? undefined : Date.now() - ageOf(older);
  const { runs, sweeps, kept } = await removable(folder, { wanted, before });
  const removed: string[] = [];
  if (names.length > 0 && kept.length > 0) {
    const [{ id, why }] = kept as [(typeof kept)[0]];
    throw new UsageError(`${id} cannot be removed: ${why}`, "remove that first, or keep this too");
  }
  for (const sweep of sweeps) {
    if (!dryRun) await removeSweep(sweep);
    removed.push(sweep.id);
  }
  for (const run of runs)
    try {
      if (!dryRun) await removeRun(run);
      removed.push(run.id);
    } catch (error) {
      if (!(error instanceof AtlasError) || names.length > 0) throw error;
      kept.push({ id: run.id, why: error.message });
    }
  if (json) return void process.stdout.write(`${JSON.stringify({ removed, kept }, null, 2)}\n`);
  const verb = dryRun ? "would be removed" : "removed";
  const lines = [
    ...removed.map((id) => `${verb}  ${id}`),
    ...kept.map(({ id, why }) => `kept  ${id}  ${why}`),
  ];
  process.stdout.write(`${lines.length === 0 ? "nothing to remove" : lines.join("\n")}\n`);
}

const UNITS: Readonly<Record<string, number>> = { m: 60, h: 3600, d: 86_400, w: 604_800 };

/** Read an age. @returns milliseconds @throws UsageError */
function ageOf(text: string): number {
  const [, number, unit = ""] = /^(\d+(?:\.\d+)?)([mhdw])$/.exec(text) ?? [];
  if (number === undefined)
    throw new UsageError(
      `--older ${text}: this is no age`,
      "write a number and m, h, d or w: minutes, hours, days or weeks",
    );
  return Number(number) * UNITS[unit]! * 1000;
}
