/** Rotations of space by their generators, which are antisymmetric, [3, 3]. */
import { dot, type SquareMatrix } from "./linalg.js";

/** `exp(w B)` turns by `w · magnitude` radians about `axis`, a unit vector whose largest entry is positive: a line has no sense. */
export interface Turn {
  magnitude: number;
  axis: [number, number, number];
}

/** Of a generator; the axis of one that is zero is the third. */
export function turnOf(generator: SquareMatrix): Turn {
  const part = (i: number, j: number) => (generator[i]![j]! - generator[j]![i]!) / 2;
  const turn = [part(2, 1), part(0, 2), part(1, 0)] as const;
  const magnitude = Math.hypot(...turn);
  if (magnitude === 0) return { magnitude, axis: [0, 0, 1] };
  const largest = turn.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
  const [x, y, z] = turn.map((t) => t / (magnitude * Math.sign(largest)));
  return { magnitude, axis: [x!, y!, z!] };
}

/** Mean angle between every two of some axes, in degrees: 0 when all agree, 57.3 (one radian) to be expected of random ones. */
export function axisSpread(axes: readonly Turn["axis"][]): number | null {
  const angles = axes.flatMap((a, i) =>
    axes.slice(i + 1).map((b) => (Math.acos(Math.min(1, Math.abs(dot(a, b)))) * 180) / Math.PI),
  );
  return angles.length === 0 ? null : angles.reduce((sum, x) => sum + x, 0) / angles.length;
}
