/**
 * The linear algebra that ml-matrix lacks. A matrix is a list of rows. Functions never change their
 * arguments.
 */
import { EVD, inverse, Matrix, SVD } from "ml-matrix";

/** A square matrix as a list of rows, [n, n]. */
export type SquareMatrix = number[][];

/** Make the n by n identity matrix. */
export function identityMatrix(n: number): SquareMatrix {
  return diagonalMatrix(Array<number>(n).fill(1));
}

/** Make a diagonal matrix. */
export function diagonalMatrix(entries: readonly number[]): SquareMatrix {
  return entries.map((x, i) => entries.map((_, j) => (i === j ? x : 0)));
}

/** Multiply matrices, from left to right. */
export function multiply(...factors: SquareMatrix[]): SquareMatrix {
  return factors.reduce((a, b) => new Matrix(a).mmul(new Matrix(b)).to2DArray());
}

/** Transpose a matrix. */
export function transpose(a: SquareMatrix): SquareMatrix {
  return a.map((_, i) => a.map((row) => row[i]!));
}

/** Invert a matrix. */
export function invert(a: SquareMatrix): SquareMatrix {
  return inverse(a).to2DArray();
}

/** Compute `Σ weights[i] matrices[i]`; `n` is the size of the sum, also of an empty one. */
export function combine(
  weights: readonly number[],
  matrices: readonly SquareMatrix[],
  n: number,
): SquareMatrix {
  return Array.from({ length: n }, (_, r) =>
    Array.from({ length: n }, (_, c) =>
      matrices.reduce((sum, m, i) => sum + weights[i]! * m[r]![c]!, 0),
    ),
  );
}

/** Compute `a − b`. */
export function subtract(a: SquareMatrix, b: SquareMatrix): SquareMatrix {
  return combine([1, -1], [a, b], a.length);
}

/** Sum the diagonal. */
export function trace(a: SquareMatrix): number {
  return a.reduce((sum, row, i) => sum + row[i]!, 0);
}

/** Compute the Frobenius inner product `tr(aᵀb)`. */
export function inner(a: SquareMatrix, b: SquareMatrix): number {
  return a.reduce((sum, row, i) => sum + dot(row, b[i]!), 0);
}

/** Compute the Frobenius norm. */
export function norm(a: SquareMatrix): number {
  return Math.sqrt(inner(a, a));
}

/** Scale a matrix to Frobenius norm 1; zero stays zero. */
export function unit(a: SquareMatrix): SquareMatrix {
  return combine([1 / Math.max(norm(a), 1e-30)], [a], a.length);
}

/** Compute the inner product of two vectors. */
export function dot(x: readonly number[], y: readonly number[]): number {
  return x.reduce((sum, value, i) => sum + value * y[i]!, 0);
}

/** Remove the part along the identity: `a − tr(a)/n I`. */
export function traceless(a: SquareMatrix): SquareMatrix {
  const mean = trace(a) / a.length;
  return a.map((row, i) => row.map((x, j) => (i === j ? x - mean : x)));
}

/** Make an n by n matrix from its entries in row-major order. */
export function reshape(entries: readonly number[], n: number): SquareMatrix {
  return Array.from({ length: n }, (_, i) => entries.slice(i * n, (i + 1) * n));
}

/**
 * Find the eigenvalues, ascending, and unit eigenvectors of a symmetric matrix.
 *
 * @returns `vectors[i]` belongs to `values[i]`
 */
export function symmetricEigen(a: SquareMatrix): { values: number[]; vectors: number[][] } {
  const { realEigenvalues, eigenvectorMatrix } = new EVD(a, { assumeSymmetric: true });
  const order = realEigenvalues
    .map((_, i) => i)
    .sort((i, j) => realEigenvalues[i]! - realEigenvalues[j]!);
  return {
    values: order.map((i) => realEigenvalues[i]!),
    vectors: order.map((i) => eigenvectorMatrix.getColumn(i)),
  };
}

/**
 * Find the singular values, descending, and all right singular vectors, the null space included.
 */
export function singular(rows: readonly number[][]): { values: number[]; vectors: number[][] } {
  const columns = rows[0]?.length ?? 0;
  // The decomposition needs at least as many rows as columns. Rows of zeros complete the vectors.
  const padding = Array.from({ length: Math.max(0, columns - rows.length) }, () =>
    Array<number>(columns).fill(0),
  );
  const svd = new SVD([...rows, ...padding]);
  const right = svd.rightSingularVectors;
  return {
    values: svd.diagonal,
    vectors: Array.from({ length: columns }, (_, i) => right.getColumn(i)),
  };
}

/**
 * Compute the matrix exponential to rounding error, by scaling and squaring of the Taylor series
 * (Moler & Van Loan 2003, method 3).
 */
export function expm(a: SquareMatrix): SquareMatrix {
  const n = a.length;
  const squarings = Math.max(0, Math.ceil(Math.log2(norm(a) || 1)) + 1);
  const scaled = new Matrix(a).mul(2 ** -squarings);
  let sum = Matrix.eye(n);
  let term = Matrix.eye(n);
  for (let i = 1; i <= 18; i++) {
    term = term.mmul(scaled).div(i); // the norm is at most 1/2, so the 18th term is below 1e-21
    sum = sum.add(term);
  }
  for (let i = 0; i < squarings; i++) sum = sum.mmul(sum);
  return sum.to2DArray();
}

/**
 * Compute the principal matrix logarithm by inverse scaling and squaring: square roots (Denman &
 * Beavers 1976) until the matrix is near I, then Gregory's series
 * `log A = 2 artanh((A − I)(A + I)⁻¹)` (Higham 2008, ch. 11).
 *
 * @returns undefined if an eigenvalue is zero or on the negative real axis, where no principal
 *   logarithm exists, or if the matrix is singular to rounding
 */
export function logm(a: SquareMatrix): SquareMatrix | undefined {
  if (a.flat().some((x) => !Number.isFinite(x))) return undefined;
  const { realEigenvalues: re, imaginaryEigenvalues: im } = new EVD(a, { assumeSymmetric: false });
  if (re.some((x, i) => x <= 1e-12 && Math.abs(im[i]!) <= 1e-9 * (1 + Math.abs(x))))
    return undefined;
  try {
    return logOfRegular(new Matrix(a));
  } catch {
    return undefined; // ml-matrix does not invert a singular matrix
  }
}

function logOfRegular(a: Matrix): SquareMatrix | undefined {
  const n = a.rows;
  const eye = Matrix.eye(n);
  let root = a;
  let doublings = 0;
  while (Matrix.sub(root, eye).norm("frobenius") > 0.25) {
    if (++doublings > 40) return undefined;
    let inverseRoot = Matrix.eye(n);
    for (let i = 0; i < 50; i++) {
      const next = Matrix.add(root, inverse(inverseRoot)).div(2);
      inverseRoot = Matrix.add(inverseRoot, inverse(root)).div(2);
      const change = Matrix.sub(next, root).norm("frobenius");
      root = next;
      if (change <= 1e-15 * root.norm("frobenius")) break;
    }
  }
  const z = Matrix.sub(root, eye).mmul(inverse(Matrix.add(root, eye)));
  const square = z.mmul(z);
  let power = z;
  const sum = z.clone();
  for (let i = 3; i <= 19; i += 2) {
    power = power.mmul(square);
    sum.add(Matrix.div(power, i));
  }
  return sum.mul(2 ** (doublings + 1)).to2DArray();
}
