/** Sweeps: `sweeps/<id>/sweep.json` says which runs there are; their state is that of the runs. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { cut, isFolder, isPlainName, readJson, stampOf } from "../run/plain.js";
import { type Summary, wrongWith } from "./summary.js";

/** Bytes of a sweep.json at most. */
const MOST_SWEEP = 16 << 20;
/** Sweeps in the list at most, the newest ones. */
const SWEEPS = 500;

/** The part of sweep.json that is shown. */
const SweepFile = z.object({
  created: z.string().default(""),
  experiment: z.string().default(""),
  pool: z.string().optional(),
  grid: z.record(z.string(), z.array(z.json())).default({}),
  cells: z.array(z.object({ values: z.record(z.string(), z.json()) })).default([]),
  runs: z.array(z.object({ id: z.string(), cell: z.int().min(0).default(0) })),
});

/** A sweep in the list. */
export interface SweepEntry {
  id: string;
  created: string;
  experiment: string;
  grid: string;
  /** Ids of its runs. */
  runs: string[];
  /** What is wrong with it. */
  message: string;
}

/** The runs with one combination of values. */
export interface Cell {
  values: Record<string, string>;
  /** Ids of its runs that have begun. */
  runs: string[];
  /** Number of runs in each state; "pending" for a run that has not begun. */
  states: Record<string, number>;
  /** What was found, and how often. */
  findings: Record<string, number>;
  metrics: Record<string, { median: number; least: number; largest: number; count: number }>;
}

/** A sweep with its table. */
export interface SweepTable extends SweepEntry {
  pool: string;
  report: boolean;
  cells: Cell[];
}

/** List the sweeps, the newest first. */
export async function readSweeps(runs: string): Promise<SweepEntry[]> {
  const folder = join(runs, "sweeps");
  const names = (await isFolder(folder)) ? await readdir(folder).catch(() => []) : [];
  const wanted = names.filter(isPlainName).sort().reverse().slice(0, SWEEPS);
  const sweeps: SweepEntry[] = [];
  for (const id of wanted) {
    const sweep = await readOne(runs, id);
    if (sweep) sweeps.push(sweep.entry);
  }
  return sweeps;
}

/** Read a sweep and its runs. @returns undefined if there is no such sweep */
export async function readSweep(
  runs: string,
  id: string,
  summaries: (ids: readonly string[]) => Promise<Summary[]>,
): Promise<SweepTable | undefined> {
  const sweep = isPlainName(id) ? await readOne(runs, id) : undefined;
  if (sweep === undefined) return undefined;
  const { entry, file } = sweep;
  const found = new Map((await summaries(entry.runs)).map((summary) => [summary.id, summary]));
  const cells = file?.cells.length ? file.cells : [{ values: {} }];
  return {
    ...entry,
    pool: cut(file?.pool ?? "", 200),
    report: (await stampOf(join(runs, "sweeps", id), "report.html")) !== undefined,
    cells: cells.map(({ values }, index) => {
      const own = (file?.runs ?? []).filter(({ cell }) => cell === index).map((run) => run.id);
      return cellOf(values, own, found);
    }),
  };
}

async function readOne(
  runs: string,
  id: string,
): Promise<{ entry: SweepEntry; file?: z.infer<typeof SweepFile> } | undefined> {
  const folder = join(runs, "sweeps", id);
  if (!(await isFolder(folder))) return undefined;
  const entry: SweepEntry = { id, created: "", experiment: "", grid: "", runs: [], message: "" };
  try {
    const json = await readJson(folder, "sweep.json", MOST_SWEEP);
    if (json === undefined) return undefined;
    const file = SweepFile.parse(json);
    const grid = Object.entries(file.grid).map(([name, values]) => {
      return `${name}=${values.map((v) => text(v)).join(",")}`;
    });
    Object.assign(entry, {
      created: cut(file.created, 40),
      experiment: cut(file.experiment, 120),
      grid: cut(grid.join(" "), 400),
      runs: file.runs.map((run) => run.id).filter(isPlainName),
    });
    return { entry, file };
  } catch (error) {
    entry.message = wrongWith("sweep.json", error);
    return { entry };
  }
}

function cellOf(
  values: Readonly<Record<string, unknown>>,
  runs: string[],
  found: ReadonlyMap<string, Summary>,
): Cell {
  const begun = runs.filter((id) => found.has(id));
  const cell: Cell = { values: {}, runs: begun, states: {}, findings: {}, metrics: {} };
  for (const [name, value] of Object.entries(values)) cell.values[cut(name, 120)] = text(value);
  const numbers = new Map<string, number[]>();
  for (const id of runs) {
    const summary = found.get(id);
    const state = summary?.status ?? "pending";
    cell.states[state] = (cell.states[state] ?? 0) + 1;
    if (summary?.status !== "finished") continue;
    const { finding, metrics } = summary;
    if (finding !== "") cell.findings[finding] = (cell.findings[finding] ?? 0) + 1;
    for (const [name, value] of Object.entries(metrics))
      numbers.set(name, [...(numbers.get(name) ?? []), value]);
  }
  for (const [name, all] of numbers) {
    all.sort((a, b) => a - b);
    const middle = (all.length - 1) / 2;
    const median = (all[Math.floor(middle)]! + all[Math.ceil(middle)]!) / 2;
    cell.metrics[name] = { median, least: all[0]!, largest: all.at(-1)!, count: all.length };
  }
  return cell;
}

function text(value: unknown): string {
  return cut(typeof value === "string" ? value : JSON.stringify(value), 200);
}
