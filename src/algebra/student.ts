/** Means of a few paired runs, with Student's intervals. */
import type { Interval } from "./interval.js";

/** Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom. */
const QUANTILES = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145,
  2.131, 2.12, 2.11, 2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048,
  2.045, 2.042,
] as const;

/** Compute a mean and its 95 % interval; from minus to plus infinity for one value. */
export function meanInterval(values: readonly number[]): Interval {
  const n = values.length;
  const value = values.reduce((sum, x) => sum + x, 0) / n;
  if (n < 2) return { value, low: Number.NEGATIVE_INFINITY, high: Number.POSITIVE_INFINITY };
  const variance = values.reduce((sum, x) => sum + (x - value) ** 2, 0) / (n - 1);
  const half = (QUANTILES[n - 2] ?? 1.96) * Math.sqrt(variance / n);
  return { value, low: value - half, high: value + half };
}

/** Compute the geometric mean of the ratios of paired positive numbers, with its 95 % interval. */
export function ratioInterval(a: readonly number[], b: readonly number[]): Interval {
  const { value, low, high } = meanInterval(a.map((x, i) => Math.log(x / b[i]!)));
  return { value: Math.exp(value), low: Math.exp(low), high: Math.exp(high) };
}
