/** The state and the findings of a sweep, cell by cell, from its runs. */
import { flagName } from "../experiment/names.js";
import { Result } from "../result.js";
import { Run } from "../run/folder.js";
import type { Sweep, SweepRunStatus } from "./folder.js";
import { rowOf, type SeedRow, type SeedSummary, summariseSeeds } from "./seeds.js";

/** A run of a sweep, and its state. */
export interface SweepRun {
  id: string;
  path: string;
  seed: number;
  cell: number;
  status: SweepRunStatus;
  /** Why it failed, or why its result cannot be read. */
  error?: string;
}

/** A cell of a sweep: runs that differ in their seed only. */
export interface SweepCell extends SeedSummary {
  /** The fields that vary, and their values here. */
  values: Record<string, unknown>;
  runs: number;
  finished: number;
  failed: number;
  /** Runs that are running, interrupted, or not begun. */
  open: number;
  /** What each finished run contributes. */
  rows: SeedRow[];
}

/** A sweep, and what it has found so far. */
export interface SweepSummary {
  id: string;
  path: string;
  experiment: string;
  /** Whether a process works in it. */
  running: boolean;
  runs: SweepRun[];
  cells: SweepCell[];
}

/** Summarise a sweep. */
export async function summariseSweep(sweep: Sweep): Promise<SweepSummary> {
  const runs: SweepRun[] = [];
  const rows: SeedRow[][] = sweep.file.cells.map(() => []);
  for (const planned of sweep.file.runs) {
    const { row, ...run } = await readRun(sweep, planned);
    runs.push(run);
    if (row) rows[planned.cell]!.push(row);
  }
  const cells = sweep.file.cells.map(({ values }, index) => {
    const own = runs.filter(({ cell }) => cell === index);
    const count = (status: SweepRunStatus) => own.filter((run) => run.status === status).length;
    const [finished, failed] = [count("finished"), count("failed")];
    return {
      values,
      runs: own.length,
      ...{ finished, failed, open: own.length - finished - failed },
      ...summariseSeeds(rows[index]!),
      rows: rows[index]!,
    };
  });
  const { id, path, file } = sweep;
  return { id, path, experiment: file.experiment, running: await sweep.isRunning(), runs, cells };
}

async function readRun(
  sweep: Sweep,
  planned: Sweep["file"]["runs"][number],
): Promise<SweepRun & { row?: SeedRow }> {
  const path = sweep.pathOf(planned);
  const run = { ...planned, path, status: await sweep.statusOf(planned) };
  if (run.status === "pending") return run;
  try {
    const opened = await Run.open(path);
    if (run.status === "finished")
      return { ...run, row: rowOf(Result.parse(await opened.result())) };
    const last = (await opened.events()).at(-1);
    return last?.type === "failed" ? { ...run, error: last.message } : run;
  } catch (error) {
    return { ...run, error: (error as Error).message };
  }
}

/** Figures that a table shows first. */
const FIRST = ["angle", "error", "accuracy", "auc", "coset loss", "loss"];
/** Most figures in a table on a terminal. */
const MOST_FIGURES = 3;

/** Write a summary as a table, one line for each cell. */
export function sweepTable({ cells }: SweepSummary): string[] {
  const fields = [...new Set(cells.flatMap(({ values }) => Object.keys(values)))];
  const names = [...new Set(cells.flatMap(({ figures }) => Object.keys(figures)))];
  const chosen = [
    ...FIRST.filter((name) => names.includes(name)),
    ...names.filter((name) => !FIRST.includes(name) && name !== "seconds"),
  ].slice(0, MOST_FIGURES);
  const head = [...fields.map(flagName), "runs", "found", ...chosen];
  const body = cells.map((cell) => [
    ...fields.map((field) => shown(cell.values[field])),
    `${cell.finished}/${cell.runs}${cell.failed > 0 ? ` (${cell.failed} failed)` : ""}`,
    cell.answers.map(({ answer, count }) => `${inShort(answer)} ×${count}`).join(" | ") || "–",
    ...chosen.map((name) => {
      const figure = cell.figures[name];
      if (!figure) return "–";
      const { median, worst, spread, count } = figure;
      return count === 1
        ? digits(median)
        : `${digits(median)} (worst ${digits(worst)}, ± ${digits(spread)})`;
    }),
  ]);
  const rows = [head, ...body];
  const widths = head.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  return rows.map((row) =>
    row
      .map((text, i) => text.padEnd(widths[i]!))
      .join("  ")
      .trimEnd(),
  );
}

/** Write what the seeds of each cell say together, in sentences. */
export function seedLines({ cells }: SweepSummary): string[] {
  const fields = [...new Set(cells.flatMap(({ values }) => Object.keys(values)))];
  return cells.flatMap(({ values, count, agree, answers, mean }) => {
    if (count < 2 || answers.length === 0) return [];
    const where = fields.map((field) => `${flagName(field)} ${shown(values[field])}`).join(", ");
    const head = where === "" ? "" : `${where}: `;
    const lines = [`${head}${agree} of ${count} seeds agree: ${inShort(answers[0]!.answer)}`];
    if (mean)
      lines.push(
        `${head}mean span ${mean.name} (${mean.angleDegrees.toFixed(2)}°), ` +
          `spread ${mean.spreadDegrees.toFixed(2)}°, worst ${mean.worstDegrees.toFixed(2)}° ` +
          `from the mean, over ${mean.count} seeds`,
      );
    return lines;
  });
}

/** Write a summary as CSV, one line for each cell, with all figures. */
export function sweepCsv({ cells }: SweepSummary): string {
  const fields = [...new Set(cells.flatMap(({ values }) => Object.keys(values)))];
  const names = [...new Set(cells.flatMap(({ figures }) => Object.keys(figures)))];
  const statistics = ["median", "worst", "spread"] as const;
  const head = [
    ...fields,
    ...["runs", "finished", "failed", "found", "agree"],
    ...["mean_span", "mean_spread_degrees", "mean_worst_degrees"],
    ...names.flatMap((name) => statistics.map((s) => `${name.replaceAll(" ", "_")}_${s}`)),
  ];
  const rows = cells.map((cell) => [
    ...fields.map((field) => shown(cell.values[field], "")),
    ...[cell.runs, cell.finished, cell.failed, cell.answers[0]?.answer, cell.agree],
    ...[cell.mean?.name, cell.mean?.spreadDegrees, cell.mean?.worstDegrees],
    ...names.flatMap((name) => statistics.map((s) => cell.figures[name]?.[s])),
  ]);
  return [head, ...rows].map((row) => row.map(quoted).join(",")).join("\n");
}

function quoted(value: unknown): string {
  const text = value === undefined ? "" : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function shown(value: unknown, missing = "–"): string {
  if (value === undefined) return missing;
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function digits(x: number): string {
  if (x === 0) return "0";
  const small = Math.abs(x) < 1e-3 || Math.abs(x) >= 1e6;
  return small ? x.toExponential(1) : String(Number(x.toPrecision(3)));
}

/** Components that are named one by one. */
const MOST_NAMED = 3;

/** Shorten an answer: "no generator; 8 components". */
export function inShort(answer: string): string {
  const parts = answer.split("; ").map((part) => {
    const names = part.split(", ");
    return names.length > MOST_NAMED ? `${names.length} components` : part;
  });
  return parts.join("; ");
}
