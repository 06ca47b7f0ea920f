/**
 * What discovered matrices mean: the name, structure and metric of an algebra, and the names of
 * components.
 */
import type { AlgebraMeasured, AlgebraResult, CosetResult, CosetsMeasured } from "../result.js";
import { namedAlgebra } from "./catalogue.js";
import { describeComponent } from "./components.js";
import { identify } from "./identify.js";
import type { SquareMatrix } from "./linalg.js";
import { closure, invariantMetric, killingSignature, metricCosine, readableBasis } from "./span.js";

/**
 * Make the `algebra` part of a result: what a solver measured, and an analysis of the generators
 * that are symmetries.
 */
export function analyseAlgebra(measured: AlgebraMeasured): AlgebraResult {
  const symmetryCount = Math.min(measured.symmetryCount, measured.generators.length);
  const symmetries = measured.generators.slice(0, symmetryCount);
  const metric = invariantMetric(symmetries);
  const identified = identify(symmetries, metric);
  const known = metric && namedAlgebra(identified.name, metric.matrix.length);
  const exact = known && invariantMetric(known);
  return {
    ...measured,
    symmetryCount,
    closure: closure(symmetries),
    killingSignature: killingSignature(symmetries),
    identified,
    readableBasis: readableBasis(symmetries),
    invariantMetric: metric && {
      ...metric,
      cosine: exact && metricCosine(metric.matrix, exact.matrix),
    },
  };
}

/**
 * Make the `cosets` part of a result: each component with its name.
 *
 * @param identity basis of the identity component's Lie algebra, [k, n, n]; k may be 0
 */
export function analyseCosets(
  { matrices, losses }: Pick<CosetsMeasured, "matrices" | "losses">,
  identity: readonly SquareMatrix[],
): CosetResult[] {
  return matrices.map((matrix, i) => ({
    matrix,
    loss: losses[i]!,
    ...describeComponent(matrix, identity),
  }));
}
