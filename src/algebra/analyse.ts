/**
 * What discovered matrices mean: the name, structure and metric of an algebra, and the names of
 * components.
 */
import type { AlgebraMeasured, AlgebraResult, CosetResult, CosetsMeasured } from "../result.js";
import { namedAlgebra } from "./catalogue.js";
import { describeComponent } from "./components.js";
import { type Frame, inward, outward } from "./factors.js";
import { identityMatrix, type SquareMatrix } from "./linalg.js";
import { identifyIn } from "./products.js";
import { closure, invariantMetric, killingSignature, metricCosine, readableBasis } from "./span.js";

/**
 * Make the `algebra` part of a result: what a solver measured, and an analysis of the generators
 * that are symmetries.
 */
export function analyseAlgebra(measured: AlgebraMeasured): AlgebraResult {
  const symmetryCount = Math.min(measured.symmetryCount, measured.generators.length);
  const { coordinates } = measured;
  const symmetries = inward(measured.generators.slice(0, symmetryCount), coordinates);
  const metric = invariantMetric(symmetries);
  const found = identifyIn(symmetries, metric, measured);
  const identified = found.about ? { ...found, about: pointAt(found.about, coordinates) } : found;
  const known = metric && namedAlgebra(identified.name, metric.matrix.length);
  const exact = known && invariantMetric(known);
  return {
    ...measured,
    symmetryCount,
    closure: closure(symmetries),
    killingSignature: killingSignature(symmetries),
    identified,
    readableBasis: readableBasis(symmetries, coordinates),
    invariantMetric: metric && {
      ...metric,
      cosine: exact && metricCosine(metric.matrix, exact.matrix),
    },
  };
}

/** Move a point from the coordinates D to those of the data. */
function pointAt(point: readonly number[], coordinates: SquareMatrix | undefined): number[] {
  const n = point.length;
  const shift = identityMatrix(n + 1).map((row, i) =>
    i < n ? [...row.slice(0, n), point[i]!] : row,
  );
  return outward([shift], coordinates)[0]!
    .slice(0, n)
    .map((row) => row[n]!);
}

/**
 * Make the `cosets` part of a result: each component with its name.
 *
 * @param identity basis of the identity component's Lie algebra, [k, n, n]; k may be 0
 */
export function analyseCosets(
  { matrices, losses, ...frame }: Pick<CosetsMeasured, "matrices" | "losses"> & Frame,
  identity: readonly SquareMatrix[],
): CosetResult[] {
  return matrices.map((matrix, i) => ({
    matrix,
    loss: losses[i]!,
    ...describeComponent(matrix, identity, frame),
  }));
}
