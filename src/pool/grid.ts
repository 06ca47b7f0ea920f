/** The points of a sweep: all combinations of the values, or some drawn at random. */
import { createHash } from "node:crypto";
import { UsageError } from "../errors.js";
import type { Axis } from "./values.js";

/** The most runs of a sweep. */
export const MOST_RUNS = 100_000;

/** The values of all axes at one point. */
export type Point = unknown[];

/** Options of {@link pointsOf}. */
export interface SampleOptions {
  /** Number of points to draw (default: all points of the grid). */
  sample?: number;
  /** Seed of the draw (default 0). */
  sampleSeed?: number;
}

/**
 * Count the points of a grid, without making them.
 *
 * @returns the number, which may be infinite
 */
export function countPoints(axes: readonly Axis[]): number {
  return axes.reduce((product, { count }) => product * count, 1);
}

/**
 * Make the points of a grid. The first axis varies slowest.
 *
 * @throws UsageError if there are too many, or too few to draw from
 */
export function pointsOf(
  axes: readonly Axis[],
  { sample, sampleSeed = 0 }: SampleOptions = {},
): Point[] {
  const total = countPoints(axes);
  const wanted = sample ?? total;
  if (wanted > MOST_RUNS)
    throw new UsageError(
      `the sweep would have ${written(wanted)} runs, and at most ${written(MOST_RUNS)} are allowed`,
      sample === undefined
        ? "give fewer values, or draw some of the runs at random with --sample N"
        : "draw fewer",
    );
  if (sample === undefined)
    return Array.from({ length: total }, (_, index) => pointAt(axes, index));
  if (sample >= total)
    throw new UsageError(
      `the grid has only ${written(total)} points, and --sample asks for ${written(sample)}`,
      "draw fewer, or leave out --sample to run all",
    );
  const random = generator(sampleSeed);
  if (axes.some(({ interval }) => interval))
    return Array.from({ length: sample }, () => axes.map((axis) => draw(axis, random)));
  return distinct(sample, total, random).map((index) => pointAt(axes, index));
}

function pointAt(axes: readonly Axis[], index: number): Point {
  let rest = index;
  return axes
    .toReversed()
    .map(({ count, at }) => {
      const value = at(rest % count);
      rest = Math.floor(rest / count);
      return value;
    })
    .reverse();
}

function draw({ count, at, interval }: Axis, random: () => number): unknown {
  if (!interval) return at(Math.floor(random() * count));
  const { least, greatest, check } = interval;
  return check(Number((least + random() * (greatest - least)).toPrecision(12)));
}

/** Draw different numbers from 0 to `total` − 1. @returns them, ascending */
function distinct(wanted: number, total: number, random: () => number): number[] {
  if (total > Number.MAX_SAFE_INTEGER)
    throw new UsageError("the grid has too many points to draw from", "give fewer values");
  // Floyd's algorithm: each subset is equally likely, and memory is for the subset alone.
  const chosen = new Set<number>();
  for (let last = total - wanted; last < total; last++) {
    const index = Math.floor(random() * (last + 1));
    chosen.add(chosen.has(index) ? last : index);
  }
  return [...chosen].sort((a, b) => a - b);
}

/** Make a source of numbers in [0, 1) that depends on a seed only. */
function generator(seed: number): () => number {
  let drawn = 0;
  return () => {
    const bytes = createHash("sha256").update(`${seed}/${drawn++}`).digest();
    return bytes.readUIntBE(0, 6) / 2 ** 48;
  };
}

/** Write a count for people: 10,000,000. */
function written(count: number): string {
  return Number.isFinite(count) ? count.toLocaleString("en-US") : "infinitely many";
}
