/** Find the named algebra that a learnt span is, if any (METHOD 4.2). */
import { catalogue } from "./catalogue.js";
import { invert, multiply, type SquareMatrix } from "./linalg.js";
import { frame, type InvariantMetric, metricFrame, principalAngles } from "./span.js";

/** The name of a span, and how well it fits. */
export interface Identification {
  /**
   * A named algebra, perhaps "up to a change of basis"; "none" without generators; or
   * "unidentified".
   */
  name: string;
  /** Cosine of the largest principal angle to that algebra (or to the nearest, if unidentified). */
  cosine: number;
  /** Norm of the principal angles to that algebra, in radians. */
  grassmannDistance: number;
  /** The largest principal angle to that algebra, in degrees. */
  angleDegrees: number;
  /** The nearest named algebra of the same dimension, near or not. */
  nearest?: string;
  /** The algebras of a product of groups, and what each acts on. */
  parts?: { name: string; on: string; dimension: number }[];
  /** The point that affine maps keep, if there is one: an algebra "about a point". */
  about?: number[];
}

/** An identification, with the algebra that it means. */
export interface Match extends Identification {
  /** A basis of the named algebra, in the coordinates of the span; none if it is unidentified. */
  exact?: SquareMatrix[];
}

/**
 * The largest root mean square of the principal angles, in degrees, at which a span gets a name.
 * The largest angle may be twice this.
 */
const FURTHEST = 15;
/**
 * The largest probability, at which a span gets a name, that a random span is as near to a name.
 */
const CHANCE = 0.01;
/**
 * The limit, in degrees, in the coordinates of the span's own metric, where chance matches are
 * likelier.
 */
const FURTHEST_CONJUGATE = 3;
/** The largest stretch of a metric; a metric with a larger one is almost degenerate. */
const MOST_STRETCHED = 30;

/**
 * Name a span of matrices.
 *
 * The span is compared, as it is, with every named algebra of its dimension. Coordinates have a
 * meaning, so no change of basis is tried. If no algebra is near, the span is compared with the
 * orthogonal algebras in the coordinates of its own invariant metric. If these are not near either,
 * the span is "unidentified", because a wrong name is worse than none.
 *
 * @param generators [k, n, n]
 * @param metric the invariant metric of the generators, if they have one
 */
export function identify(
  generators: readonly SquareMatrix[],
  metric?: InvariantMetric,
): Identification {
  const { exact: _, ...found } = matchLinear(frame(generators), metric);
  return found;
}

/** Name a span of linear maps with an orthonormal basis, as {@link identify} does. */
export function matchLinear(basis: readonly SquareMatrix[], metric?: InvariantMetric): Match {
  const n = basis[0]?.length;
  if (n === undefined)
    return { name: "none", cosine: 1, grassmannDistance: 0, angleDegrees: 0, exact: [] };
  const nearest = compare(basis, n)[0];
  const strange = {
    name: "unidentified",
    cosine: 0,
    grassmannDistance: (Math.PI / 2) * Math.sqrt(basis.length),
    angleDegrees: 90,
  };
  if (nearest === undefined) return conjugate(basis, n, undefined, metric) ?? strange;
  const moved = conjugate(basis, n, nearest.name, metric);
  const named = isNear(nearest, basis.length, n)
    ? { ...nearest, nearest: nearest.name }
    : undefined;
  if (named && moved && !moved.name.startsWith(named.name)) {
    // A strong stretch can bring one algebra near another. Then the span's own metric fits far
    // better.
    return named.angleDegrees > FURTHEST / 2 && moved.angleDegrees < named.angleDegrees / 4
      ? moved
      : named;
  }
  return (
    named ?? moved ?? { ...nearest, name: "unidentified", nearest: nearest.name, exact: undefined }
  );
}

/** Measure the distance to every named algebra of the same dimension, nearest first. */
function compare(basis: readonly SquareMatrix[], n: number): Match[] {
  return catalogue(n)
    .filter((known) => known.basis.length === basis.length)
    .map(({ name, basis: known }) => ({ name, ...apart(basis, known), exact: known }))
    .sort((a, b) => a.angleDegrees - b.angleDegrees);
}

/** Measure the angles between two spans; those of different dimensions are 90° apart. */
export function apart(
  basis: readonly SquareMatrix[],
  known: readonly SquareMatrix[],
): Pick<Identification, "cosine" | "grassmannDistance" | "angleDegrees"> {
  const angles = principalAngles(basis, known);
  const largest = basis.length === known.length ? (angles.at(-1) ?? 0) : Math.PI / 2;
  return {
    cosine: Math.cos(largest),
    grassmannDistance: Math.hypot(...angles),
    angleDegrees: (largest * 180) / Math.PI,
  };
}

/**
 * Decide whether a span of k generators is near enough to an algebra to get its name.
 *
 * A random k-dimensional span in R^N has all principal angles to a given span under θ with a
 * probability of about sin(θ)^(k(N−k)), whose exponent is the dimension of the Grassmannian. This
 * probability times the number of named algebras may be at most {@link CHANCE}. For one generator
 * in the plane the limit is 6.2°.
 */
function isNear(
  { angleDegrees, grassmannDistance: distance }: Identification,
  k: number,
  n: number,
): boolean {
  const meanDegrees = ((distance / Math.sqrt(k)) * 180) / Math.PI;
  const freedom = k * (n * n - k);
  const rivals = catalogue(n).filter((known) => known.basis.length === k).length;
  const byChance =
    freedom === 0 ? 90 : (Math.asin((CHANCE / rivals) ** (1 / freedom)) * 180) / Math.PI;
  return meanDegrees <= FURTHEST && angleDegrees <= Math.min(2 * FURTHEST, byChance);
}

/** Find the orthogonal algebra of the metric that the span itself keeps. */
function conjugate(
  basis: readonly SquareMatrix[],
  n: number,
  nearest: string | undefined,
  metric: InvariantMetric | undefined,
): Match | undefined {
  if (metric === undefined) return undefined;
  const s = metricFrame(metric.matrix);
  const inverse = invert(s);
  const spread = Math.max(...s.flat().map(Math.abs)) * Math.max(...inverse.flat().map(Math.abs));
  if (spread ** 2 > MOST_STRETCHED) return undefined;
  const moved = basis.map((b) => multiply(inverse, b, s));
  const [p, q] = metric.signature;
  const group = p === 0 || q === 0 ? `so(${n})` : `so(${p},${q})`;
  const match = compare(frame(moved), n).find(
    (known) => known.name === group || known.name === `${group}⊕R`,
  );
  if (match === undefined || match.angleDegrees > FURTHEST_CONJUGATE) return undefined;
  const exact = match.exact?.map((b) => multiply(s, b, inverse));
  return { ...match, name: `${match.name} up to a change of basis`, nearest, exact };
}
