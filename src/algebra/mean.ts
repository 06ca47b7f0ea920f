/** The mean of several spans of matrices, as points of a Grassmann manifold. */
import { Matrix, SVD } from "ml-matrix";
import { inner, reshape, type SquareMatrix, symmetricEigen } from "./linalg.js";
import { frame, grassmannDistance } from "./span.js";

/** The mean of spans, and how far they are from it. */
export interface MeanSpan {
  /** An orthonormal basis of the mean, [k, n, n]. */
  basis: SquareMatrix[];
  /** Grassmann distance of each span to the mean, in radians. */
  distances: number[];
  /** Root mean square of the distances, in radians. */
  spread: number;
}

/** Steps of the iteration. It converges linearly, and much faster for spans that are near. */
const STEPS = 100;
/** Length of a step at which the iteration has converged, in radians. */
const CONVERGED = 1e-12;

/**
 * Find the Fréchet mean of spans of one dimension: the span with the least sum of squared Grassmann
 * distances. The iteration averages in the tangent space (Absil, Mahony & Sepulchre 2004). It
 * starts from the chordal mean, the leading eigenvectors of the averaged projectors.
 *
 * @param spans bases, [k, n, n] each; matrices of any norms
 * @returns undefined without spans, or if their dimensions differ or are 0
 */
export function meanSpan(spans: readonly (readonly SquareMatrix[])[]): MeanSpan | undefined {
  const frames = spans.map((span) => frame(span));
  const k = frames[0]?.length ?? 0;
  const n = frames[0]?.[0]?.length ?? 0;
  if (k === 0 || frames.some((each) => each.length !== k || each[0]!.length !== n))
    return undefined;
  const columns = frames.map((each) => new Matrix(each.map((b) => b.flat())).transpose());
  let mean = chordalMean(columns, k);
  for (let step = 0; step < STEPS; step++) {
    const tangent = Matrix.zeros(n * n, k);
    for (const span of columns) tangent.add(logarithm(mean, span));
    tangent.div(columns.length);
    mean = exponential(mean, tangent);
    if (tangent.norm("frobenius") < CONVERGED) break;
  }
  const basis = aligned(mean, n, frames[0]!);
  const distances = frames.map((each) => grassmannDistance(each, basis));
  const squares = distances.reduce((sum, d) => sum + d * d, 0);
  return { basis, distances, spread: Math.sqrt(squares / distances.length) };
}

/** Find the leading k eigenvectors of the averaged projectors, [n², k]. */
function chordalMean(columns: readonly Matrix[], k: number): Matrix {
  const rows = columns[0]!.rows;
  const projector = Matrix.zeros(rows, rows);
  for (const y of columns) projector.add(y.mmul(y.transpose()));
  const { vectors } = symmetricEigen(projector.to2DArray());
  return new Matrix(vectors.slice(-k)).transpose();
}

/**
 * The tangent at `x` that leads to `y`, [n², k]. Principal angles come from sines and cosines, so
 * that angles up to 90° are exact.
 */
function logarithm(x: Matrix, y: Matrix): Matrix {
  const {
    leftSingularVectors: p,
    rightSingularVectors: q,
    diagonal,
  } = new SVD(x.transpose().mmul(y));
  const ends = y.mmul(q); // principal vectors of y
  const starts = x.mmul(p); // and of x
  const tangent = Matrix.zeros(x.rows, x.columns);
  for (let i = 0; i < diagonal.length; i++) {
    const start = starts.getColumnVector(i);
    const end = ends.getColumnVector(i);
    const rest = Matrix.sub(end, Matrix.mul(start, diagonal[i]!));
    const sine = rest.norm("frobenius");
    if (sine < 1e-15) continue;
    const angle = Math.atan2(sine, diagonal[i]!);
    tangent.add(rest.mul(angle / sine).mmul(p.getColumnVector(i).transpose()));
  }
  return tangent;
}

/** Go from `x` along a tangent, and make the columns orthonormal again. */
function exponential(x: Matrix, tangent: Matrix): Matrix {
  const {
    leftSingularVectors: u,
    rightSingularVectors: v,
    diagonal,
  } = new SVD(tangent, {
    autoTranspose: true,
  });
  const along = x.mmul(v);
  const moved = Matrix.zeros(x.rows, x.columns);
  for (let i = 0; i < diagonal.length; i++) {
    const angle = diagonal[i]!;
    const column = Matrix.add(
      Matrix.mul(along.getColumnVector(i), Math.cos(angle)),
      Matrix.mul(u.getColumnVector(i), Math.sin(angle)),
    );
    moved.setColumn(i, column.to1DArray());
  }
  const { leftSingularVectors, rightSingularVectors } = new SVD(moved);
  return leftSingularVectors.mmul(rightSingularVectors.transpose());
}

/** Choose a basis of the mean that is near to a given one, with its signs. */
function aligned(mean: Matrix, n: number, near: readonly SquareMatrix[]): SquareMatrix[] {
  const columns = mean
    .transpose()
    .to2DArray()
    .map((entries) => reshape(entries, n));
  const overlap = new Matrix(near.map((b) => columns.map((c) => inner(b, c))));
  const { leftSingularVectors: p, rightSingularVectors: q } = new SVD(overlap);
  const turn = p.mmul(q.transpose());
  return mean
    .mmul(turn.transpose())
    .transpose()
    .to2DArray()
    .map((entries) => reshape(entries, n));
}
