/**
 * What the runs of a cell say together: how many agree, the mean of their spans, and for each
 * figure the median, the worst and the spread.
 */
import { inward, linearCoordinates, outward } from "../algebra/factors.js";
import { identify } from "../algebra/index.js";
import type { SquareMatrix } from "../algebra/linalg.js";
import { meanSpan } from "../algebra/mean.js";
import { invariantMetric } from "../algebra/span.js";
import type { Result } from "../result.js";

/** What one run contributes. */
export interface SeedRow {
  seed: number;
  /** What was found, in words: "so(2); identity, reflection". Undefined if nothing was looked for. */
  answer?: string;
  /** The generators that are symmetries, [k, n, n]. */
  span?: number[][][];
  /** Coordinates D in which they have their name, if these are not the data's own. */
  coordinates?: SquareMatrix;
  figures: Record<string, number>;
}

/** A figure over the runs of a cell. */
export interface Figure {
  median: number;
  worst: number;
  /** Standard deviation over the runs; 0 for one run. */
  spread: number;
  /** Number of runs that have it. */
  count: number;
}

/** What the runs of a cell say together. */
export interface SeedSummary {
  /** Number of runs with a result. */
  count: number;
  /** The different answers, the most frequent first. */
  answers: { answer: string; count: number }[];
  /** How many runs give the most frequent answer. */
  agree: number;
  /** Figures by name. */
  figures: Record<string, Figure>;
  /** The mean of the spans of the runs that agree; undefined if they found no generator. */
  mean?: {
    /** A basis, [k, n, n], orthonormal in the coordinates of the spans. */
    basis: number[][][];
    /** The named algebra that it is, or is nearest to, and the largest angle to it in degrees. */
    name: string;
    angleDegrees: number;
    /** Root mean square, and the largest, of the Grassmann distances to it, in degrees. */
    spreadDegrees: number;
    worstDegrees: number;
    /** Number of spans. */
    count: number;
  };
}

const DEGREES = 180 / Math.PI;
/** Figures of which larger values are better. */
const HIGHER = /acc|auc|skill|score|r2|cosine|rejection|iou|precision|recall|f1/i;

/** Take from a result what its seed contributes. */
export function rowOf(result: Result): SeedRow {
  const { algebra, cosets, downstream, predictor, timings } = result;
  const figures: Record<string, number | null | undefined> = {};
  let span: number[][][] | undefined;
  if (algebra) {
    const { symmetryCount, generators, relativeErrors, losses, identified } = algebra;
    span = generators.slice(0, symmetryCount);
    if (symmetryCount > 0) {
      figures.angle = identified.angleDegrees;
      figures.error = Math.max(...relativeErrors.slice(0, symmetryCount));
      figures.loss = Math.max(...losses.slice(0, symmetryCount));
    }
  }
  if (cosets && cosets.length > 0) figures["coset loss"] = Math.max(...cosets.map((c) => c.loss));
  Object.assign(figures, downstream?.metrics);
  for (const [name, value] of Object.entries(predictor.scores ?? {}))
    if (!name.endsWith("_error")) figures[`predictor ${name}`] = value;
  figures["predictor loss"] = predictor.loss;
  figures.seconds = Object.values(timings).reduce((sum, s) => sum + s, 0);
  const found = [
    algebra && (algebra.identified.name === "none" ? "no generator" : algebra.identified.name),
    cosets
      ?.map(({ name }) => name)
      .sort()
      .join(", "),
  ].filter((part) => part !== undefined);
  return {
    seed: result.seed,
    answer: found.length === 0 ? undefined : found.join("; "),
    span: span && span.length > 0 ? span : undefined,
    coordinates: linearCoordinates(algebra),
    figures: Object.fromEntries(
      Object.entries(figures).filter((entry): entry is [string, number] =>
        Number.isFinite(entry[1]),
      ),
    ),
  };
}

/** Summarise the runs of a cell. */
export function summariseSeeds(rows: readonly SeedRow[]): SeedSummary {
  const counts = new Map<string, number>();
  for (const { answer } of rows)
    if (answer !== undefined) counts.set(answer, (counts.get(answer) ?? 0) + 1);
  const answers = [...counts]
    .map(([answer, count]) => ({ answer, count }))
    .sort((a, b) => b.count - a.count || (a.answer < b.answer ? -1 : 1));
  const names = [...new Set(rows.flatMap(({ figures }) => Object.keys(figures)))];
  const figures = names.map((name) => {
    const values = rows.flatMap(({ figures }) => figures[name] ?? []);
    return [name, figureOf(values, HIGHER.test(name))] as const;
  });
  const most = answers[0];
  const agreeing = rows.filter(({ answer, span }) => span && answer === most?.answer);
  return {
    count: rows.length,
    answers,
    agree: most?.count ?? 0,
    figures: Object.fromEntries(figures),
    mean: meanOf(
      agreeing.map(({ span }) => span!),
      agreeing[0]?.coordinates,
    ),
  };
}

/** @param coordinates in which spans are compared and named; the data of all are the same */
function meanOf(
  spans: readonly number[][][][],
  coordinates: SquareMatrix | undefined,
): SeedSummary["mean"] {
  const mean = meanSpan(spans.map((span) => inward(span, coordinates)));
  if (!mean) return undefined;
  const { name, nearest, angleDegrees } = identify(mean.basis, invariantMetric(mean.basis));
  return {
    basis: outward(mean.basis, coordinates),
    name: name === "unidentified" && nearest !== undefined ? `unidentified (${nearest})` : name,
    angleDegrees,
    spreadDegrees: mean.spread * DEGREES,
    worstDegrees: Math.max(...mean.distances) * DEGREES,
    count: spans.length,
  };
}

function figureOf(values: readonly number[], higher: boolean): Figure {
  const sorted = [...values].sort((a, b) => a - b);
  const { length } = sorted;
  const middle = (sorted[(length - 1) >> 1]! + sorted[length >> 1]!) / 2;
  const mean = sorted.reduce((sum, x) => sum + x, 0) / length;
  const squares = sorted.reduce((sum, x) => sum + (x - mean) ** 2, 0);
  return {
    median: middle,
    worst: higher ? sorted[0]! : sorted[length - 1]!,
    spread: length < 2 ? 0 : Math.sqrt(squares / (length - 1)),
    count: length,
  };
}
