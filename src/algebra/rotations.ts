/** Rotations of space from their generators, antisymmetric matrices [3, 3]. */
import { dot, type SquareMatrix } from "./linalg.js";

/**
 * A rotation: `exp(w B)` turns by `w · magnitude` radians about `axis`.
 *
 * The axis is a unit vector. Its largest entry is positive, because a line has no direction.
 */
export interface Turn {
  magnitude: number;
  axis: [number, number, number];
}

/**
 * Find the angle and the axis of a generator's rotations. The axis of a zero generator is [0, 0,
 * 1].
 */
export function turnOf(generator: SquareMatrix): Turn {
  const part = (i: number, j: number) => (generator[i]![j]! - generator[j]![i]!) / 2;
  const turn = [part(2, 1), part(0, 2), part(1, 0)] as const;
  const magnitude = Math.hypot(...turn);
  if (magnitude === 0) return { magnitude, axis: [0, 0, 1] };
  const largest = turn.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
  const [x, y, z] = turn.map((t) => t / (magnitude * Math.sign(largest)));
  return { magnitude, axis: [x!, y!, z!] };
}

/**
 * Compute the mean angle between every two of several axes, in degrees.
 *
 * @returns 0 if all axes agree; about 57.3 (one radian) for random axes; null for fewer than two
 */
export function axisSpread(axes: readonly Turn["axis"][]): number | null {
  const angles = axes.flatMap((a, i) =>
    axes.slice(i + 1).map((b) => (Math.acos(Math.min(1, Math.abs(dot(a, b)))) * 180) / Math.PI),
  );
  return angles.length === 0 ? null : angles.reduce((sum, x) => sum + x, 0) / angles.length;
}
