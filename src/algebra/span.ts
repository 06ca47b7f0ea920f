/**
 * Properties of a span of matrices as a Lie algebra: frame, closure, Killing form, angles to
 * another span, invariant metric.
 */

import { outward } from "./factors.js";
import {
  combine,
  diagonalMatrix,
  dot,
  inner,
  invert,
  multiply,
  norm,
  reshape,
  type SquareMatrix,
  singular,
  subtract,
  symmetricEigen,
  traceless,
  transpose,
} from "./linalg.js";

/** Compute the Lie bracket `[a, b] = ab − ba`. */
export function bracket(a: SquareMatrix, b: SquareMatrix): SquareMatrix {
  return subtract(multiply(a, b), multiply(b, a));
}

/**
 * Make an orthonormal basis of the span of `matrices` in the Frobenius inner product, by
 * Gram-Schmidt, done twice against rounding.
 *
 * @param matrices [k, n, n], of any norms
 * @param tolerance sine of the angle to the span of the matrices before; a matrix within it adds
 *   nothing
 * @returns [rank, n, n]
 */
export function frame(matrices: readonly SquareMatrix[], tolerance = 1e-2): SquareMatrix[] {
  const basis: SquareMatrix[] = [];
  for (const matrix of matrices) {
    const n = matrix.length;
    const size = norm(matrix);
    if (!(size > 0) || !Number.isFinite(size)) continue;
    let rest = combine([1 / size], [matrix], n);
    for (let pass = 0; pass < 2; pass++) rest = subtract(rest, project(rest, basis));
    const left = norm(rest);
    if (left > tolerance) basis.push(combine([1 / left], [rest], n));
  }
  return basis;
}

/** Project `a` on the span of an orthonormal `basis`. */
export function project(a: SquareMatrix, basis: readonly SquareMatrix[]): SquareMatrix {
  return combine(
    basis.map((b) => inner(a, b)),
    basis,
    a.length,
  );
}

/**
 * Measure how far the span is from being closed under the bracket: `‖[B_i, B_j] − proj‖ /
 * ‖[B_i, B_j]‖` for unit B, over all pairs (METHOD 4.3).
 *
 * If the norm of a bracket is below 0.1, it is divided by 0.1 instead, so that pairs that commute
 * count as 0 and not as noise. The norm is at most √2 (Böttcher & Wenzel 2008).
 *
 * @returns the largest and the mean ratio: 0 for a Lie algebra, at most 1
 */
export function closure(generators: readonly SquareMatrix[]): { max: number; mean: number } {
  const basis = frame(generators);
  const units = generators
    .filter((b) => norm(b) > 0)
    .map((b) => combine([1 / norm(b)], [b], b.length));
  const ratios = units.flatMap((a, i) =>
    units.slice(i + 1).map((b) => {
      const c = bracket(a, b);
      return norm(subtract(c, project(c, basis))) / Math.max(norm(c), 0.1);
    }),
  );
  if (ratios.length === 0) return { max: 0, mean: 0 };
  return { max: Math.max(...ratios), mean: ratios.reduce((a, b) => a + b) / ratios.length };
}

/**
 * Compute the structure constants of a span: `[B_i, B_j] = Σ_l c[i][j][l] B_l`, with the brackets
 * projected on the span.
 *
 * @param basis orthonormal, [k, n, n]
 * @returns c, [k, k, k]
 */
export function structureConstants(basis: readonly SquareMatrix[]): number[][][] {
  return basis.map((a) =>
    basis.map((b) => {
      const c = bracket(a, b);
      return basis.map((d) => inner(c, d));
    }),
  );
}

/** Compute the Killing form `K_ij = tr(ad B_i ad B_j)` in an orthonormal basis: [k, k]. */
export function killingForm(basis: readonly SquareMatrix[]): SquareMatrix {
  const c = structureConstants(basis);
  return basis.map((_, i) =>
    basis.map((_, j) =>
      c.reduce(
        (sum, _, a) =>
          sum +
          dot(
            c[i]![a]!,
            c[j]!.map((row) => row[a]!),
          ),
        0,
      ),
    ),
  );
}

/** Numbers of positive, negative and zero eigenvalues. */
export interface Signature {
  positive: number;
  negative: number;
  zero: number;
}

/**
 * Count the signs of the Killing form's eigenvalues: (0, 3, 0) for so(3), (3, 3, 0) for so(1,3).
 *
 * Eigenvalues under 5 % of the largest count as zero, and so do those under 0.02.
 */
export function killingSignature(generators: readonly SquareMatrix[]): Signature {
  const basis = frame(generators);
  if (basis.length === 0) return { positive: 0, negative: 0, zero: 0 };
  const { values } = symmetricEigen(killingForm(basis));
  // Unit generators of a simple algebra give |eigenvalues| of about 1 or more. Noise in a commuting
  // algebra gives its square.
  const tiny = Math.max(0.02, 0.05 * Math.max(...values.map(Math.abs)));
  const positive = values.filter((x) => x > tiny).length;
  const negative = values.filter((x) => x < -tiny).length;
  return { positive, negative, zero: values.length - positive - negative };
}

/**
 * Compute the principal angles between two spans, in radians, ascending. There are as many angles
 * as the smaller span has dimensions. Both cosines and sines are used, so that small angles are
 * exact (Björck & Golub 1973).
 */
export function principalAngles(a: readonly SquareMatrix[], b: readonly SquareMatrix[]): number[] {
  let [p, q] = [frame(a), frame(b)];
  if (p.length < q.length) [p, q] = [q, p];
  if (q.length === 0) return [];
  const cosines = singular(q.map((x) => p.map((y) => inner(x, y)))).values;
  const sines = singular(q.map((x) => subtract(x, project(x, p)).flat())).values;
  return q.map((_, i) => Math.atan2(Math.max(0, sines[q.length - 1 - i] ?? 0), cosines[i]!));
}

/**
 * Compute the Grassmann distance of two spans of one dimension: the norm of their principal angles,
 * in radians.
 */
export function grassmannDistance(a: readonly SquareMatrix[], b: readonly SquareMatrix[]): number {
  return Math.hypot(...principalAngles(a, b));
}

/** A symmetric matrix J that all elements of a group keep: `gᵀJg = J`. */
export interface InvariantMetric {
  /**
   * J, symmetric, of Frobenius norm √n, [n, n]. A definite J is positive. An indefinite J has fewer
   * positive than negative eigenvalues (+ − − −).
   */
  matrix: SquareMatrix;
  /** Numbers of positive and of negative eigenvalues of J. */
  signature: [positive: number, negative: number];
  /**
   * Root mean square of `‖BᵀJ + JB‖ / 2‖J‖` over unit generators: 0 if J is invariant, at most 1.
   */
  residual: number;
  /** Whether J is invariant up to scale only, because the algebra scales. */
  conformal: boolean;
}

/**
 * Find the symmetric J with `BᵀJ + JB = 0` for all generators, as the null space of a linear map.
 *
 * The traces of the generators are removed first, because a scaling keeps a metric only up to
 * scale. For so(1,3) and so(1,3)⊕R the metric is Minkowski's.
 *
 * @returns undefined if there is no metric, several, or a degenerate one
 */
export function invariantMetric(generators: readonly SquareMatrix[]): InvariantMetric | undefined {
  const basis = frame(generators);
  const n = basis[0]?.length ?? 0;
  const parts = basis.map(traceless);
  const weight = Math.sqrt(parts.reduce((sum, b) => sum + inner(b, b), 0));
  if (n < 2 || weight < 0.1) return undefined; // a scaling alone keeps every metric
  const symmetric = Array.from({ length: n }, (_, i) =>
    Array.from({ length: i + 1 }, (_, j) => unitSymmetric(n, i, j)),
  ).flat();
  const images = symmetric.map((s) =>
    parts.flatMap((b) => {
      const sb = multiply(s, b);
      return subtract(sb, combine([-1], [transpose(sb)], n)).flat();
    }),
  );
  // A row of `images` is the image of a unit J. A null J is a null vector of the transposed matrix.
  const { values, vectors } = singular(images[0]!.map((_, r) => images.map((image) => image[r]!)));
  const residuals = values.slice(0, symmetric.length).map((x) => x / (2 * weight));
  const residual = residuals.at(-1)!;
  const next = residuals.at(-2) ?? 1;
  if (residual > 0.1 || next < 0.15 || next < 3 * residual) return undefined;
  const raw = combine(vectors[symmetric.length - 1]!, symmetric, n);
  const eigen = symmetricEigen(raw).values;
  const sizes = eigen.map(Math.abs);
  if (Math.min(...sizes) < 0.02 * Math.max(...sizes)) return undefined;
  const positive = eigen.filter((x) => x > 0).length;
  const flip = signOf(raw, positive, n - positive);
  const matrix = combine([(flip * Math.sqrt(n)) / norm(raw)], [raw], n);
  const scaling = Math.sqrt(Math.max(0, basis.length - weight ** 2));
  return {
    matrix,
    signature: flip > 0 ? [positive, n - positive] : [n - positive, positive],
    residual,
    conformal: scaling > 0.2,
  };
}

/**
 * Make the algebra of all matrices that keep a metric: `BᵀJ + JB = 0`.
 *
 * @param metric symmetric and not degenerate, [n, n]
 * @returns `J⁻¹(E_ij − E_ji)` for i < j: [n(n − 1)/2, n, n]
 */
export function keepingMetric(metric: SquareMatrix): SquareMatrix[] {
  const inverse = invert(metric);
  return metric.flatMap((_, i) =>
    metric.slice(0, i).map((_, j) => {
      const turn = metric.map((row) => row.map(() => 0));
      turn[j]![i] = 1;
      turn[i]![j] = -1;
      return multiply(inverse, turn);
    }),
  );
}

/** Choose between J and −J. */
function signOf(j: SquareMatrix, positive: number, negative: number): 1 | -1 {
  if (negative === 0) return 1;
  if (positive === 0) return -1;
  if (positive !== negative) return positive < negative ? 1 : -1;
  const first = j.flat().find((x) => Math.abs(x) > 0.1 * norm(j)) ?? 1;
  return first > 0 ? 1 : -1;
}

/** Make the (i, j)-th symmetric matrix of Frobenius norm 1. */
function unitSymmetric(n: number, i: number, j: number): SquareMatrix {
  const m = diagonalMatrix(Array<number>(n).fill(0));
  m[i]![j] = m[j]![i] = i === j ? 1 : Math.SQRT1_2;
  return m;
}

/**
 * Find coordinates in which a metric is diagonal with entries ±1: S with `SᵀJS = diag(1 …, −1 …)`.
 *
 * @returns S, [n, n]; its columns are the principal axes of J, positive ones first
 */
export function metricFrame(j: SquareMatrix): SquareMatrix {
  const { values, vectors } = symmetricEigen(j);
  const n = j.length;
  const ordered = [...values.keys()].sort(
    (a, b) => Number(values[b]! > 0) - Number(values[a]! > 0) || a - b,
  );
  const columns = ordered.map((i) => vectors[i]!.map((x) => x / Math.sqrt(Math.abs(values[i]!))));
  return Array.from({ length: n }, (_, r) => columns.map((column) => column[r]!));
}

/**
 * Compute the cosine of the angle between two metrics, up to sign: 1 for multiples of one another.
 */
export function metricCosine(a: SquareMatrix, b: SquareMatrix): number {
  return Math.abs(inner(a, b)) / (norm(a) * norm(b));
}

/**
 * Find a basis of the same span that is easy to read: the reduced row echelon form of the
 * generators' entries. Each matrix has a 1 where all others have 0.
 *
 * The largest entry is the next pivot, so that nothing is divided by a small number. Among entries
 * of about this size the earliest is the pivot. Nothing is rounded: the span is the learnt one.
 *
 * @param generators [k, n, n]
 * @param coordinates D: the generators are given as D B D⁻¹, and the basis is of the B (METHOD 1.7)
 * @returns [rank, n, n], ordered by pivot; rotations turn from the first axis towards the second
 */
export function readableBasis(
  generators: readonly SquareMatrix[],
  coordinates?: SquareMatrix,
): SquareMatrix[] {
  const orthonormal = frame(generators);
  const rows = orthonormal.map((b) => b.flat());
  const n = generators[0]?.length ?? 0;
  const pivots: number[] = [];
  for (let done = 0; done < rows.length; done++) {
    const left = rows.slice(done);
    const sizes = Array.from({ length: n * n }, (_, c) =>
      Math.hypot(...left.map((row) => row[c]!)),
    );
    const largest = Math.max(...sizes);
    const pivot = sizes.findIndex((x) => x >= 0.8 * largest);
    pivots.push(pivot);
    reduce(rows, done, pivot);
  }
  if (coordinates !== undefined)
    // The pivots that suit the coordinates D are those of the basis in the data's coordinates too.
    for (const [i, b] of outward(orthonormal, coordinates).entries()) rows[i] = b.flat();
  if (coordinates !== undefined) for (const [i, pivot] of pivots.entries()) reduce(rows, i, pivot);
  return rows
    .map((row, i) => ({ row, pivot: pivots[i]! }))
    .sort((a, b) => a.pivot - b.pivot)
    .map(({ row, pivot }) => {
      const matrix = reshape(row, n);
      const opposite = matrix[pivot % n]![Math.floor(pivot / n)]!;
      const flip = pivot % n > Math.floor(pivot / n) && opposite < -0.5 ? -1 : 1;
      return matrix.map((line) => line.map((x) => flip * x || 0)); // no −0
    });
}

/**
 * Do one step of the reduction: move the row with the largest entry in column `pivot` to `from`,
 * scale it to 1 there, and clear the column in all other rows.
 */
function reduce(rows: number[][], from: number, pivot: number): void {
  const best = rows.reduce(
    (b, row, i) => (i > from && Math.abs(row[pivot]!) > Math.abs(rows[b]![pivot]!) ? i : b),
    from,
  );
  [rows[from], rows[best]] = [rows[best]!, rows[from]!];
  const unit = rows[from]!.map((x) => x / rows[from]![pivot]!);
  unit[pivot] = 1;
  for (const [i, row] of rows.entries()) {
    const factor = row[pivot]!;
    rows[i] = i === from ? unit : row.map((x, c) => (c === pivot ? 0 : x - factor * unit[c]!));
  }
}
