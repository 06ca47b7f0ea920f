/** Fewer points for a screen. */

/**
 * Choose points of a curve so that it looks the same on a screen: of each of equal parts the least
 * and the largest value, and the first and the last point. Every chosen point is one of the curve.
 *
 * @param points in ascending order of their first coordinate
 * @param most number of points
 */
export function thin(points: [number, number][], most: number): [number, number][] {
  if (points.length <= most) return points;
  const inner = points.slice(1, -1);
  const parts = Math.max(1, Math.floor((most - 2) / 2));
  const chosen: [number, number][] = [points[0]!];
  for (let i = 0; i < parts; i++) {
    const from = Math.floor((i * inner.length) / parts);
    const part = inner.slice(from, Math.floor(((i + 1) * inner.length) / parts));
    const least = part.reduce((a, b) => (b[1] < a[1] ? b : a), part[0]!);
    const largest = part.reduce((a, b) => (b[1] > a[1] ? b : a), part[0]!);
    if (least === largest) chosen.push(least);
    else chosen.push(...[least, largest].sort(([a], [b]) => a - b));
  }
  return [...chosen, points.at(-1)!];
}
