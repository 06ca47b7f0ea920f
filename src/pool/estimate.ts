/** Estimate the time of a sweep from finished runs. */
import { Result } from "../result.js";
import { listRuns, type Run } from "../run/folder.js";
import type { SweepFile } from "./folder.js";

/** An estimate of a sweep's time. */
export interface Estimate {
  seconds: number;
  /** Number of finished runs that it is made from. */
  from: number;
  /** Whether all cells have finished runs with exactly their settings. */
  same: boolean;
}

/** Most finished runs that are read: the newest. */
const MOST_READ = 200;

/**
 * Estimate how long a sweep takes, from the finished runs of its task.
 *
 * @returns undefined if there is no such run
 */
export async function estimateSeconds(
  runsDir: string,
  { experiment, config, cells, runs }: Omit<SweepFile, "hash">,
  slots: number,
): Promise<Estimate | undefined> {
  const like = ({ config: run }: Run) =>
    run.experiment === experiment && run.config.task === config.task;
  const candidates = (await listRuns(runsDir)).runs.filter(like).slice(-MOST_READ);
  const bySettings = new Map<string, number[]>();
  const all: number[] = [];
  for (const run of candidates) {
    const result = Result.safeParse(await run.result().catch(() => undefined)).data;
    if (!result) continue;
    const seconds = Object.values(result.timings).reduce((sum, s) => sum + s, 0);
    const key = keyOf(run.config.config);
    bySettings.set(key, [...(bySettings.get(key) ?? []), seconds]);
    all.push(seconds);
  }
  if (all.length === 0) return undefined;
  let same = true;
  let from = 0;
  const perCell = cells.map((cell) => {
    const exact = bySettings.get(keyOf({ ...config, ...cell.config }));
    if (exact) from += exact.length;
    else same = false;
    return median(exact ?? all);
  });
  const total = runs.reduce((sum, { cell }) => sum + perCell[cell]!, 0);
  return { seconds: total / Math.max(1, slots), from: same ? from : all.length, same };
}

function keyOf(config: Readonly<Record<string, unknown>>): string {
  return JSON.stringify(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
}
