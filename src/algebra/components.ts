/**
 * Connected components of a matrix group: whether a matrix is in the identity component, and the
 * name of a component (METHOD 4.4).
 */
import { determinant } from "ml-matrix";
import { linearParts } from "./affine.js";
import {
  type Block,
  blocksOf,
  cut,
  type Factor,
  type Frame,
  hasPositiveBlocks,
  inward,
  labelOf,
  linearPart,
  meanSquare,
} from "./factors.js";
import {
  combine,
  diagonalMatrix,
  expm,
  identityMatrix,
  inner,
  invert,
  logm,
  multiply,
  norm,
  type SquareMatrix,
  subtract,
  symmetricEigen,
  trace,
  transpose,
} from "./linalg.js";
import { frame, type InvariantMetric, invariantMetric, metricFrame } from "./span.js";

/**
 * The largest mean squared distance between two matrices of one component, after an element of the
 * identity component has been applied to one of them.
 */
export const SAME_COMPONENT = 0.1;
/**
 * The largest root mean square distance of C^m from I, times m, at which C^m counts as I. A limit
 * that does not shrink with m would give every matrix some order.
 */
const SAME_POWER = 0.2;
const HIGHEST_ORDER = 12;

/**
 * Estimate the mean squared distance `‖g − M‖² / n²` from a matrix M to the identity component
 * `⟨exp(span B)⟩`.
 *
 * @param matrix M, [n, n]
 * @param basis [k, n, n]; k may be 0
 * @param factors of a product; the distance is then that of the factor in which it is largest
 */
export function distanceToIdentityComponent(
  matrix: SquareMatrix,
  basis: readonly SquareMatrix[],
  factors?: readonly Factor[],
): number {
  return nearestInIdentityComponent(matrix, basis, factors).distance;
}

/**
 * Find the element g of the identity component that is nearest to a matrix M, and the distance of
 * {@link distanceToIdentityComponent}.
 *
 * The nearest g is built up as a product of exponentials of the projections of log(g⁻¹M) on the
 * span, which is the Gauss-Newton method on the group. Several random starts, the same in every
 * call, serve where the logarithm is not defined (an eigenvalue is negative) and against local
 * minima.
 *
 * @param matrix M, [n, n]
 * @param basis [k, n, n]; k may be 0
 * @param factors of a product; the distance is then that of the factor in which it is largest
 * @returns if M's determinant is not positive, the identity, and at least {@link SAME_COMPONENT}
 */
export function nearestInIdentityComponent(
  matrix: SquareMatrix,
  basis: readonly SquareMatrix[],
  factors?: readonly Factor[],
): { element: SquareMatrix; distance: number } {
  const n = matrix.length;
  const blocks = blocksOf(factors, n);
  const apart = (g: SquareMatrix) =>
    factors ? meanSquare(subtract(g, matrix), blocks) : norm(subtract(g, matrix)) ** 2 / n ** 2;
  let element = identityMatrix(n);
  let least = apart(element);
  const span = frame(basis);
  if (span.length === 0 || least < 1e-12) return { element, distance: least };
  // Exponentials have positive determinants
  if (!hasPositiveBlocks(matrix, blocks))
    return { element, distance: Math.max(least, SAME_COMPONENT) };
  const random = lcg(1);
  for (let start = 0; start < 16 && least > 1e-4; start++) {
    const weights = span.map(() =>
      start === 0 ? 0 : normal(random) * Math.min(2.5, 0.5 + 0.25 * start),
    );
    let g = expm(combine(weights, span, n));
    let rest = multiply(
      expm(
        combine(
          weights.map((w) => -w),
          span,
          n,
        ),
      ),
      matrix,
    ); // g⁻¹M, computed as a product because g may become too large to invert
    for (let i = 0; i < 20; i++) {
      const log = logm(rest);
      if (log === undefined) break;
      const step = combine(
        span.map((b) => inner(log, b)),
        span,
        n,
      );
      g = multiply(g, expm(step));
      rest = multiply(expm(combine([-1], [step], n)), rest);
      const distance = apart(g);
      if (distance < least) [element, least] = [g, distance];
      if (norm(step) < 1e-8 || !(norm(g) < 1e6)) break;
    }
  }
  return { element, distance: least };
}

/** A component `C G₀`, described from an element C and the algebra of G₀. */
export interface GroupComponent {
  /** Determinant of C. */
  determinant: number;
  /** The least m ≤ 12 with C^m = I; null if there is none. */
  order: number | null;
  /** The least m ≤ 12 with C^m in the identity component; null if there is none. */
  orderModuloIdentity: number | null;
  /** Whether C keeps the invariant metric of the algebra; null if the algebra has no metric. */
  preservesMetric: boolean | null;
  name: string;
}

/**
 * Describe a component, and name it by the simplest known element in it.
 *
 * The name does not depend on which element was found: with G₀ = SO(2), every `R(θ)·reflection` is
 * "reflection".
 *
 * @param matrix C, [n, n], of any determinant but 0; its scale does not matter
 * @param basis of the Lie algebra of G₀, [k, n, n]; k may be 0
 */
export function describeComponent(
  matrix: SquareMatrix,
  basis: readonly SquareMatrix[],
  { factors, coordinates }: Frame = {},
): GroupComponent {
  if (coordinates !== undefined) {
    const [inside] = inward([matrix], coordinates);
    return describeComponent(inside!, inward(basis, coordinates), { factors });
  }
  if (factors !== undefined) return describeIn(matrix, basis, factors);
  const n = matrix.length;
  const det = determinant(matrix);
  const unit = combine([Math.abs(det) > 0 ? Math.abs(det) ** (-1 / n) : 1], [matrix], n);
  const metric = invariantMetric(basis);
  return {
    determinant: det,
    ...ordersOf(unit, basis),
    preservesMetric: metric ? keeps(unit, metric) : null,
    name:
      nameByMember(unit, basis, metric) ??
      nameByShape(unit) ??
      `component with det ${det.toFixed(2)}`,
  };
}

/** Describe a component of a product of groups, in the coordinates D. */
function describeIn(
  matrix: SquareMatrix,
  basis: readonly SquareMatrix[],
  factors: readonly Factor[],
): GroupComponent {
  const metrics = blocksOf(factors, matrix.length).map((block) => {
    const parts = block.affine
      ? linearParts(frame(basis.map((b) => cut(b, block))), block.n)
      : frame(basis.map((b) => linearPart(b, block)));
    return { block, parts, metric: invariantMetric(parts) };
  });
  const kept = metrics.flatMap(({ block, metric }) =>
    metric === undefined ? [] : [keeps(linearPart(matrix, block), metric)],
  );
  return {
    determinant: determinant(matrix),
    ...ordersOf(matrix, basis, factors),
    preservesMetric: kept.length === 0 ? null : kept.every(Boolean),
    name: nameInProduct(matrix, basis, factors, metrics),
  };
}

/** Name a component by the simplest known elements of the factors, or else factor by factor. */
function nameInProduct(
  matrix: SquareMatrix,
  basis: readonly SquareMatrix[],
  factors: readonly Factor[],
  parts: readonly {
    block: Block;
    parts: readonly SquareMatrix[];
    metric: InvariantMetric | undefined;
  }[],
): string {
  const n = matrix.length;
  const written = (names: readonly string[]) => {
    const told = names.flatMap((name, i) =>
      name === "identity" ? [] : [parts.length === 1 ? name : `${name} on ${labelOf(factors[i]!)}`],
    );
    return told.length === 0 ? "identity" : told.join(", ");
  };
  const products = parts.reduce<{ names: string[]; matrix: SquareMatrix }[]>(
    (all, { block, metric }) =>
      all.flatMap(({ names, matrix: before }) =>
        elements(block.n, metric).map(({ name, matrix: element }) => ({
          names: [...names, name],
          matrix: before.map((row, i) =>
            row.map((x, j) => element[i - block.start]?.[j - block.start] ?? x),
          ),
        })),
      ),
    [{ names: [], matrix: identityMatrix(n) }],
  );
  const near = products
    .map(({ names, matrix: element }) => ({
      names,
      distance: distanceToIdentityComponent(multiply(matrix, invert(element)), basis, factors),
    }))
    .filter(({ distance }) => distance < SAME_COMPONENT);
  const least = Math.min(...near.map(({ distance }) => distance));
  // An algebra that is learnt puts the elements of one component at different distances.
  const far = Math.max(least + 0.02, SAME_COMPONENT / 2);
  const member = near.find(({ distance }) => distance <= far);
  if (member) return written(member.names);
  return written(
    parts.map(({ block, parts: algebra, metric }) => {
      const part = linearPart(matrix, block);
      const det = determinant(part);
      return (
        nameByMember(part, algebra, metric) ??
        nameByShape(part) ??
        `component with det ${det.toFixed(2)}`
      );
    }),
  );
}

/** Find the order of a matrix, and its order up to the identity component. */
function ordersOf(
  unit: SquareMatrix,
  basis: readonly SquareMatrix[],
  factors?: readonly Factor[],
): Pick<GroupComponent, "order" | "orderModuloIdentity"> {
  const n = unit.length;
  const powers = Array.from({ length: HIGHEST_ORDER }).reduce<SquareMatrix[]>(
    (all) => [...all, multiply(all.at(-1) ?? identityMatrix(n), unit)],
    [],
  );
  const orderWhere = (isOne: (power: SquareMatrix, index: number) => boolean) => {
    const order = powers.findIndex(isOne) + 1;
    return order === 0 ? null : order;
  };
  const order = orderWhere(
    (m, i) => norm(subtract(m, identityMatrix(n))) / n < SAME_POWER / (i + 1),
  );
  const isInside = (m: SquareMatrix) =>
    distanceToIdentityComponent(m, basis, factors) < SAME_COMPONENT;
  return { order, orderModuloIdentity: basis.length === 0 ? order : orderWhere(isInside) };
}

/** Whether `CᵀJC = J`, relative to the size of C, because a large boost magnifies every error. */
function keeps(c: SquareMatrix, { matrix: j }: InvariantMetric): boolean {
  const error = norm(subtract(multiply(transpose(c), j, c), j));
  return error / ((inner(c, c) / c.length) * norm(j)) < 0.2;
}

/**
 * Name a component by the simplest known element in it, unless another element is clearly nearer.
 */
function nameByMember(
  c: SquareMatrix,
  basis: readonly SquareMatrix[],
  metric: InvariantMetric | undefined,
): string | undefined {
  const n = c.length;
  const distance = (m: SquareMatrix) => distanceToIdentityComponent(multiply(c, invert(m)), basis);
  const near = elements(n, metric)
    .map(({ name, matrix }) => ({ name, distance: distance(matrix) }))
    .filter((e) => e.distance < SAME_COMPONENT);
  const least = Math.min(...near.map((e) => e.distance));
  const name = near.find((e) => e.distance <= least + 0.02)?.name;
  if (name !== undefined || metric !== undefined || basis.length === 0) return name;
  // Without a metric, "reflection" is a name only if all reflections of one axis are in the
  // component.
  const flips = Array.from({ length: n }, (_, i) => distance(flip(n, i)));
  return Math.max(...flips) < SAME_COMPONENT ? "reflection" : undefined;
}

/** List the elements with names, simplest first. */
function elements(
  n: number,
  metric: InvariantMetric | undefined,
): { name: string; matrix: SquareMatrix }[] {
  const one = { name: "identity", matrix: identityMatrix(n) };
  const minus = {
    name: n === 1 ? "reflection" : "−I",
    matrix: diagonalMatrix(Array<number>(n).fill(-1)),
  };
  if (metric === undefined) return [one, minus];
  const [p, q] = metric.signature;
  const s = metricFrame(metric.matrix);
  const inMetric = (m: SquareMatrix) => multiply(s, m, invert(s));
  if (p === 0 || q === 0)
    return [one, { name: "reflection", matrix: inMetric(flip(n, n - 1)) }, minus];
  // O(p,q) has four components, which reflections of one axis of either sign lead to.
  const [negative, positive, both] = [flip(n, n - 1), flip(n, 0), flip(n, 0, n - 1)].map(inMetric);
  const names = hasTimeAxis(metric)
    ? ["parity", "time reversal", n % 2 === 0 ? "PT (−I)" : "PT"]
    : [
        "reflection of a negative axis",
        "reflection of a positive axis",
        "reflection of an axis of each sign",
      ];
  return [
    one,
    { name: names[0]!, matrix: negative! },
    { name: names[1]!, matrix: positive! },
    { name: names[2]!, matrix: both! },
    minus,
  ];
}

/**
 * Whether one coordinate, alone of its sign, is time. Then the components have names of their own.
 */
function hasTimeAxis({ matrix, signature: [positive] }: InvariantMetric): boolean {
  const time = symmetricEigen(matrix).vectors.at(-1)!;
  return positive === 1 && Math.max(...time.map(Math.abs)) > 0.9;
}

function flip(n: number, ...axes: number[]): SquareMatrix {
  return diagonalMatrix(Array.from({ length: n }, (_, i) => (axes.includes(i) ? -1 : 1)));
}

/** Name what a single matrix does in the given coordinates: a rotation or a reflection. */
function nameByShape(c: SquareMatrix): string | undefined {
  const n = c.length;
  const gram = multiply(transpose(c), c);
  if (norm(subtract(gram, identityMatrix(n))) > 0.25 * Math.sqrt(n)) return undefined;
  const proper = determinant(c) > 0;
  if (n === 2) {
    const [a, b] = [c[0]![0]!, c[1]![0]!];
    const angle =
      (Math.atan2(
        proper ? c[1]![0]! - c[0]![1]! : b + c[0]![1]!,
        proper ? trace(c) : a - c[1]![1]!,
      ) *
        180) /
      Math.PI;
    return proper
      ? `rotation by ${degrees(angle, 360)}`
      : `reflection across the line at ${degrees(angle / 2, 180)}`;
  }
  if (n === 3) {
    const turn = (Math.acos(clamp(((proper ? 1 : -1) * trace(c) - 1) / 2)) * 180) / Math.PI;
    if (!proper && Math.abs(turn - 180) < 10) return "reflection";
    return `rotation by ${degrees(turn, 360)}${proper ? "" : " with inversion"}`;
  }
  const symmetric = combine([0.5, 0.5], [c, transpose(c)], n);
  if (norm(subtract(c, symmetric)) > 0.2 * norm(c)) return undefined;
  const flipped = symmetricEigen(symmetric).values.filter((x) => x < 0).length;
  return flipped === 1 ? "reflection" : `reflection of ${flipped} axes`;
}

/** Write an angle in [0, period); within 4° of a multiple of 15° it is written as this multiple. */
function degrees(angle: number, period: number): string {
  const nice = Math.round(angle / 15) * 15;
  const rounded = Math.abs(nice - angle) < 4 ? nice : Math.round(angle);
  return `${((rounded % period) + period) % period}°`;
}

function clamp(x: number): number {
  return Math.max(-1, Math.min(1, x));
}

/**
 * Make a generator of uniform numbers in (0, 1), the same on every machine (Park & Miller 1988).
 */
function lcg(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}

function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(random())) * Math.cos(2 * Math.PI * random());
}
