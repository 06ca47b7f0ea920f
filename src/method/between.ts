/** The direction that loses least between those that were judged (METHOD 2.13). */
import { interval, ofSizes } from "../algebra/interval.js";
import {
  combine,
  diagonalMatrix,
  type SquareMatrix,
  symmetricEigen,
  unit,
} from "../algebra/linalg.js";
import { frame } from "../algebra/span.js";
import type { SkillLost } from "../result.js";
import { allowance, inReach, type Weighed, weigh } from "./rule.js";

/** A direction, and what it loses at each size. */
export interface Tried {
  direction: SquareMatrix;
  sizes: readonly SkillLost[];
}

/** Measures what the smallest moves along some directions lose. */
export type MeasureSmallest = (directions: SquareMatrix[]) => Promise<(SkillLost | undefined)[]>;

/** Directions between which one is sought: those that lose least. */
const MOST = 6;

/**
 * Tell that there is no symmetry if no combination of the directions can be one: each surely loses
 * skill by its smallest moves, and so does the combination that loses least.
 *
 * @param measure measures the smallest moves
 * @param judge measures moves of all sizes along one direction
 * @returns the combination that loses least, and what it loses, weighed if it is none; undefined if
 *   it was not sought or not found
 */
export async function noneBetween(
  tried: readonly Tried[],
  lacking: number,
  measure: MeasureSmallest,
  judge: (direction: SquareMatrix) => Promise<SkillLost[]>,
): Promise<(Tried & { weighed?: Weighed }) | undefined> {
  if (!tried.every((each) => surelyBroken(each, lacking))) return undefined;
  const direction = await bestBetween(tried, measure);
  if (direction === undefined) return undefined;
  const best = { direction, sizes: await judge(direction) };
  if (!surelyBroken(best, lacking)) return best;
  // They are compared by moves of a size that is in reach of all.
  const all = [best, ...tried].map(({ sizes }) => ofSizes(sizes));
  const reach = Math.min(...all.map((sizes) => sizes.findLastIndex((at) => inReach(at))));
  const [inside, ...outside] = all.map((sizes) => sizes.slice(0, Math.max(0, reach) + 1));
  const weighed = weigh([inside!], outside, lacking);
  return { ...best, weighed: { ...weighed, verdict: "none", reason: "" } };
}

/** Whether a direction surely loses skill already by its smallest moves. */
function surelyBroken({ sizes: [smallest] }: Tried, lacking: number): boolean {
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
  const form = diagonalMatrix(lost.slice(0, basis.length));
  for (const [at, [i, j]] of pairs.entries()) {
    const [sum, difference] = lost.slice(basis.length + 2 * at);
    form[i]![j] = form[j]![i] = (sum! - difference!) / 2;
  }
  return unit(combine(symmetricEigen(form).vectors[0]!, basis, n));
}
