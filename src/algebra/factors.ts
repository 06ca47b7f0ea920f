/** Products of linear and affine groups, whose matrices are block diagonal (METHOD 1.7). */
import { determinant } from "ml-matrix";
import { diagonalMatrix, invert, multiply, type SquareMatrix, unit } from "./linalg.js";

/** GL(n), or the affine maps of R^n, as a factor of a product. */
export interface Factor {
  /** Its letter in types of features; empty for the group without a letter. */
  name: string;
  n: number;
  /** Whether it translates too; then its block has n + 1 rows. */
  affine: boolean;
  /** Whether it moves the map of a field. */
  map: boolean;
}

/** How matrices are to be understood. Both parts are left out for GL(n). */
export interface Frame {
  /** The groups whose product acts, in the order of their blocks. */
  factors?: readonly Factor[];
  /** D, [n, n]: matrices are compared as D M D⁻¹. */
  coordinates?: SquareMatrix;
}

/** A factor and its place in the matrices. */
export interface Block extends Factor {
  start: number;
  /** Rows of the block: n, or n + 1 if the factor translates. */
  size: number;
}

/** List the blocks of n by n matrices: those of a product's factors, or the whole matrix. */
export function blocksOf(factors: readonly Factor[] | undefined, n: number): Block[] {
  let start = 0;
  const plain = { name: "", n, affine: false, map: false };
  return (factors ?? [plain]).map((factor) => {
    const size = factor.n + Number(factor.affine);
    start += size;
    return { ...factor, start: start - size, size };
  });
}

/** Say what a factor acts on: "the map", "V" or "Vb", or "X" for points. */
export function labelOf({ name, map, affine }: Factor): string {
  return map ? "the map" : `${affine ? "X" : "V"}${name}`;
}

/** Cut a block out of a matrix. */
export function cut(matrix: SquareMatrix, { start, size }: Block): SquareMatrix {
  return matrix.slice(start, start + size).map((row) => row.slice(start, start + size));
}

/** Cut the linear part of a block out of a matrix. */
export function linearPart(matrix: SquareMatrix, block: Block): SquareMatrix {
  return cut(matrix, { ...block, size: block.n });
}

/** Put a block into an n by n matrix of zeros. */
export function embed(block: SquareMatrix, start: number, n: number): SquareMatrix {
  const whole = diagonalMatrix(Array<number>(n).fill(0));
  for (const [i, row] of block.entries())
    for (const [j, x] of row.entries()) whole[start + i]![start + j] = x;
  return whole;
}

/** Compute `D M D⁻¹` for each matrix; the matrices themselves without D. */
export function inward(matrices: readonly SquareMatrix[], d?: SquareMatrix): SquareMatrix[] {
  if (d === undefined) return [...matrices];
  const inverse = invert(d);
  return matrices.map((m) => multiply(d, m, inverse));
}

/** Compute `D⁻¹ M D` for each matrix. */
export function outward(matrices: readonly SquareMatrix[], d?: SquareMatrix): SquareMatrix[] {
  return d === undefined ? [...matrices] : inward(matrices, invert(d));
}

/**
 * Get the coordinates D in which generators have their name. Algebras with translations have it in
 * those of the data, too.
 *
 * @returns undefined for the data's own
 */
export function linearCoordinates({
  coordinates,
  factors = [],
}: Frame = {}): SquareMatrix | undefined {
  return factors.some(({ affine }) => affine) ? undefined : coordinates;
}

/** Scale matrices to length 1, in coordinates D if these are given. */
export function unitsIn(matrices: readonly SquareMatrix[], d?: SquareMatrix): SquareMatrix[] {
  return outward(inward(matrices, d).map(unit), d);
}

/** Whether the determinants of all blocks are positive. */
export function hasPositiveBlocks(matrix: SquareMatrix, blocks: readonly Block[]): boolean {
  return blocks.every((block) => determinant(linearPart(matrix, block)) > 0);
}

/** Compute the mean squared entry of the block in which it is largest. */
export function meanSquare(matrix: SquareMatrix, blocks: readonly Block[]): number {
  return Math.max(
    ...blocks.map((block) => {
      const squares = cut(matrix, block).flat();
      return squares.reduce((sum, x) => sum + x * x, 0) / (block.n * block.size);
    }),
  );
}
