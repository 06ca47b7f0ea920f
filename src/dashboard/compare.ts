/** What the page shows of several runs beside each other. */
import { join } from "node:path";
import { type Compared, compareSections, shortNames } from "../report/compare.js";
import { type Curve, readDetail } from "./detail.js";
import { readResult, readRunConfig } from "./summary.js";

/** Number of runs that can be compared. */
export const MOST_COMPARED = 20;

/** Runs beside each other. */
export interface Comparison {
  runs: { id: string; name: string; status: string }[];
  /** Sections, as markup of our own in which every text is escaped. */
  sections: { id: string; title: string; markup: string }[];
  /** The curves of each run, in the order of the runs. */
  curves: Curve[][];
  /** Runs that are left out, and why. */
  left: string[];
}

/** Compare runs. */
export async function compareRuns(runs: string, ids: readonly string[]): Promise<Comparison> {
  const compared: Compared[] = [];
  const curves: Curve[][] = [];
  const left: string[] = [];
  for (const id of ids) {
    const detail = await readDetail(runs, id);
    const config = await readRunConfig(join(runs, id)).catch(() => undefined);
    if (detail === undefined || config === undefined) {
      left.push(`${id}: ${detail?.summary.message ?? "it is gone"}`);
      continue;
    }
    const result = await readResult(join(runs, id)).catch(() => undefined);
    compared.push({ id, status: detail.summary.status, config, result });
    curves.push(detail.curves);
  }
  const names = shortNames(compared.map((run) => run.id));
  return {
    runs: compared.map(({ id, status }, i) => ({ id, name: names[i]!, status })),
    sections: compareSections(compared).map(({ id, title, html }) => ({
      id,
      title,
      markup: html.text,
    })),
    curves,
    left,
  };
}
