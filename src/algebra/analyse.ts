/** What discovered matrices mean: an algebra's name, structure and metric; the components' names. */
import type { AlgebraResult, CosetResult } from "../result.js";
import { namedAlgebra } from "./catalogue.js";
import { describeComponent } from "./components.js";
import { identify } from "./identify.js";
import type { SquareMatrix } from "./linalg.js";
import { closure, invariantMetric, killingSignature, metricCosine, readableBasis } from "./span.js";

/** What a solver found, as `Session.getAlgebra` returns it: generators [k, n, n] as learnt, best first, and their losses. */
export type FoundAlgebra = Pick<
  AlgebraResult,
  "generators" | "losses" | "relativeErrors" | "noiseFloor" | "found" | "spectrum" | "startLosses" | "verdict"
>;

/** The `algebra` part of a result. Only the first `found` generators are analysed; the others, though the best there are, are no symmetries. */
export function analyseAlgebra(found: FoundAlgebra): AlgebraResult {
  const { generators, losses, relativeErrors, noiseFloor, spectrum, startLosses, verdict } = found;
  const count = Math.min(found.found, generators.length);
  const symmetries = generators.slice(0, count);
  const metric = invariantMetric(symmetries);
  const identified = identify(symmetries, metric);
  const known = metric && namedAlgebra(identified.name, metric.matrix.length);
  const exact = known && invariantMetric(known);
  return {
    generators,
    losses,
    relativeErrors,
    noiseFloor,
    found: count,
    spectrum,
    closure: closure(symmetries),
    killingSignature: killingSignature(symmetries),
    identified,
    readableBasis: readableBasis(symmetries),
    invariantMetric: metric && {
      ...metric,
      cosine: exact && metricCosine(metric.matrix, exact.matrix),
    },
    startLosses,
    verdict,
  };
}

/** What a coset solver found, as `Session.getCosets` returns it: one matrix for each component, [m, n, n]. */
export interface FoundCosets {
  matrices: SquareMatrix[];
  losses: number[];
}

/**
 * The `cosets` part of a result: what each component is called.
 *
 * @param identity basis of the identity component's Lie algebra, [k, n, n], k may be 0
 */
export function analyseCosets(
  { matrices, losses }: FoundCosets,
  identity: readonly SquareMatrix[],
): CosetResult[] {
  return matrices.map((matrix, i) => ({ matrix, loss: losses[i]!, ...describeComponent(matrix, identity) }));
}
