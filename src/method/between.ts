/** The direction that loses least between those that were judged (METHOD 2.13). */
import { EVD, Matrix } from "ml-matrix";
import { interval } from "../algebra/interval.js";
import { combine, type SquareMatrix, unit } from "../algebra/linalg.js";
import { frame } from "../algebra/span.js";
import type { SkillLost } from "../result.js";
import { allowance } from "./rule.js";

/** A direction, and what it loses at each size. */
export interface Tried {
  direction: SquareMatrix;
  sizes: readonly SkillLost[];
}

/** Measures what the smallest moves along some directions lose. */
export type MeasureSmallest = (directions: SquareMatrix[]) => Promise<(SkillLost | undefined)[]>;

/** Directions between which one is sought: those that lose least. */
const MOST = 6;

/** Whether a direction surely loses skill already by its smallest moves. */
export function surelyBroken({ sizes: [smallest] }: Tried, lacking: number): boolean {
  return smallest !== undefined && interval(smallest).low > allowance(smallest, lacking);
}

/**
 * Find the direction that loses least by small moves, among all combinations of those that were
 * tried. What small moves lose is a quadratic form of the direction, of which this is the
 * eigenvector of the smallest eigenvalue.
 *
 * @returns undefined if the form could not be measured
 */
export async function bestBetween(
  tried: readonly Tried[],
  measure: MeasureSmallest,
): Promise<SquareMatrix | undefined> {
  const loss = ({ sizes: [at] }: Tried) => (at?.lost ?? Number.NaN) / (at?.length ?? 0) ** 2;
  const first = [...tried].sort((a, b) => loss(a) - loss(b)).slice(0, MOST);
  const basis = frame(first.map(({ direction }) => direction));
  const n = basis[0]?.length;
  if (n === undefined) return undefined;
  const pairs = basis.flatMap((_, i) => basis.slice(0, i).map((_, j) => [i, j] as const));
  const mixed = pairs.flatMap(([i, j]) =>
    [1, -1].map((sign) => combine([Math.SQRT1_2, sign * Math.SQRT1_2], [basis[i]!, basis[j]!], n)),
  );
  const lost = (await measure([...basis, ...mixed])).map((at) =>
    at === undefined ? Number.NaN : (at.lost ?? Number.NaN) / at.length ** 2,
  );
  if (!lost.every(Number.isFinite)) return undefined;
  const form = Matrix.diag(lost.slice(0, basis.length));
  for (const [at, [i, j]] of pairs.entries()) {
    const [sum, difference] = lost.slice(basis.length + 2 * at);
    form.set(i, j, (sum! - difference!) / 2);
    form.set(j, i, (sum! - difference!) / 2);
  }
  const { realEigenvalues, eigenvectorMatrix } = new EVD(form, { assumeSymmetric: true });
  const least = realEigenvalues.indexOf(Math.min(...realEigenvalues));
  return unit(combine(eigenvectorMatrix.getColumn(least), basis, n));
}
