/** What the tests of the analysis draw their matrices from. */
import fc from "fast-check";
import {
  analyseAlgebra,
  expm,
  namedAlgebra,
  type SquareMatrix,
} from "../../../src/algebra/index.js";
import { combine } from "../../../src/algebra/linalg.js";
import type { AlgebraMeasured } from "../../../src/result.js";

export const named = (name: string, n: number): SquareMatrix[] => namedAlgebra(name, n)!;
export const diagonal = (...d: number[]): SquareMatrix =>
  d.map((x, i) => d.map((_, j) => (i === j ? x : 0)));

/** As a solver would hand it over, all of them symmetries. */
export const measured = (
  generators: SquareMatrix[],
  rest: Partial<AlgebraMeasured> = {},
): AlgebraMeasured => ({
  generators,
  losses: generators.map((_, i) => 0.01 * (i + 1)),
  relativeErrors: generators.map(() => 0.1),
  noiseFloor: 0.01,
  symmetryCount: generators.length,
  explanation: "all are near the noise floor",
  ...rest,
});
export const analyse = (generators: SquareMatrix[]) => analyseAlgebra(measured(generators));

/** Standard normal numbers, the same for one seed on every machine (mulberry32 and Box-Muller). */
export function normals(seed: number): () => number {
  let a = seed >>> 0;
  const uniform = () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

export const randomMatrix = (n: number, draw: () => number): SquareMatrix =>
  Array.from({ length: n }, () => Array.from({ length: n }, draw));

/**
 * Another basis of the same span: a well-conditioned random change of basis, of uneven norms, as
 * the paper's solver gives.
 */
export function mixed(basis: SquareMatrix[], seed: number): SquareMatrix[] {
  const draw = normals(seed);
  const k = basis.length;
  const mix = expm(randomMatrix(k, () => 0.5 * draw()));
  return mix.map((weights) => {
    const size = 3 ** draw();
    return combine(
      weights.map((w) => size * w),
      basis,
      basis[0]!.length,
    );
  });
}

/** Each entry off by a normal error of this size. */
export function noisy(basis: SquareMatrix[], size: number, seed: number): SquareMatrix[] {
  const draw = normals(seed);
  return basis.map((m) => m.map((row) => row.map((x) => x + size * draw())));
}

export const seeds = fc.integer({ min: 1, max: 2 ** 30 });
