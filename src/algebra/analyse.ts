/**
 * What discovered matrices mean: the name, structure and metric of an algebra, and the names of
 * components.
 */
import type {
  AlgebraMeasured,
  AlgebraResult,
  CosetResult,
  CosetsMeasured,
  GroupMeasured,
  GroupResult,
} from "../result.js";
import { namedAlgebra } from "./catalogue.js";
import { describeComponent } from "./components.js";
import { blocksOf, type Frame, inward, linearPart } from "./factors.js";
import { nameComponentGroup, nameFiniteGroup } from "./finite.js";
import { dot, invert, type SquareMatrix } from "./linalg.js";
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
  if (coordinates === undefined) return [...point];
  const place = [...point, 1];
  return invert(coordinates)
    .slice(0, point.length)
    .map((row) => dot(row, place));
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

/**
 * Make the `group` part of a result: the matrices that a closure found, with the group's name.
 *
 * A finite group of affine maps has a fixed point, so its linear parts have the same name.
 *
 * @param finite whether the group has no generator, so that the matrices are all its elements
 */
export function analyseGroup(
  { matrices, losses, table, factors, ...measured }: GroupMeasured,
  finite: boolean,
): GroupResult {
  const blocks = blocksOf(factors, matrices[0]!.length);
  const { name, abstractName, elementOrders } = !measured.resolved
    ? { name: "not resolved", abstractName: undefined, elementOrders: [] }
    : finite && blocks.length === 1
      ? nameFiniteGroup(
          matrices.map((m) => linearPart(m, blocks[0]!)),
          table,
        )
      : nameComponentGroup(table);
  const order = matrices.length;
  return {
    finite,
    name,
    abstractName,
    order,
    elementOrders,
    elements: matrices,
    losses,
    ...measured,
  };
}
