/** Intervals of the skill that a predictor loses (METHOD 2.13). */
import type { SkillLost } from "../result.js";

/** Half width of a 95 % interval in standard errors over scenes. */
export const NORMAL = 1.96;
/** The same for five refits (Student's t with 4 degrees of freedom). */
const STUDENT = 2.78;

/** A number and its 95 % interval. */
export interface Interval {
  value: number;
  low: number;
  high: number;
}

/**
 * Compute the interval of a skill lost; over refits too, if there are any.
 *
 * Its lower end is the higher of two bounds. A few scenes that lose very much widen only one of them.
 */
export function interval({ lost, error, refits = [], least }: SkillLost): Interval {
  const all = [lost, ...refits].map((x) => x ?? Number.NaN);
  const s = error ?? Number.NaN;
  if (refits.length === 0) {
    const whole = around(all[0]!, NORMAL * s);
    return (least ?? Number.NaN) > whole.low ? { ...whole, low: least! } : whole;
  }
  const mean = all.slice(1).reduce((a, b) => a + b) / refits.length;
  const spread = all.slice(1).reduce((sum, x) => sum + (x - mean) ** 2, 0);
  return around(mean, STUDENT * Math.sqrt(s ** 2 + 0.8 * spread));
}

function around(value: number, half: number): Interval {
  return { value, low: value - half, high: value + half };
}

/** What a direction loses at moves of given sizes, and not at half a turn. */
export function ofSizes(sizes: readonly SkillLost[]): SkillLost[] {
  return sizes.filter(({ halfTurn }) => !halfTurn);
}
