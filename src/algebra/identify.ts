/** Which named algebra a learnt span is, if any. */
import { catalogue } from "./catalogue.js";
import { invert, multiply, type SquareMatrix } from "./linalg.js";
import { frame, grassmannDistance, type InvariantMetric, metricFrame, principalAngles } from "./span.js";

export interface Identification {
  /** A named algebra, one "up to a change of basis", "none" for no generators, or "unidentified". */
  name: string;
  /** Cosine of the largest principal angle to it (to the nearest one, when unidentified). */
  cosine: number;
  /** l2 norm of the principal angles to it, in radians. */
  grassmannDistance: number;
  /** The largest principal angle to it, in degrees. */
  angleDegrees: number;
  /** The nearest named algebra of the same dimension, whether or not it is near enough. */
  nearest?: string;
}

/**
 * A span is not given a name when its principal angles to it are larger than this, root mean square (or its largest one than twice this), however
 * unlikely it is to be as near by chance. In degrees.
 */
const FURTHEST = 15;
/** Nor when a random span would be as near to some name with more than this probability. */
const CHANCE = 0.01;
/** In the coordinates of its own metric a span is near to an orthogonal algebra sooner: there it must be within this. In degrees. */
const FURTHEST_CONJUGATE = 3;
/** Metrics more stretched than this are as good as degenerate. */
const MOST_STRETCHED = 30;

/**
 * Compare a span, as it is, with every named algebra of its dimension (coordinates have a meaning: no change of basis is tried); if none is near,
 * with the orthogonal ones in the coordinates of its own invariant metric. Where neither is near, say so: a wrong name is worse than none.
 *
 * @param generators [k, n, n]
 */
export function identify(generators: readonly SquareMatrix[], metric?: InvariantMetric): Identification {
  const basis = frame(generators);
  const n = basis[0]?.length;
  if (n === undefined) return { name: "none", cosine: 1, grassmannDistance: 0, angleDegrees: 0 };
  const nearest = compare(basis, n)[0];
  const apart = {
    name: "unidentified",
    cosine: 0,
    grassmannDistance: (Math.PI / 2) * Math.sqrt(basis.length),
    angleDegrees: 90,
  };
  if (nearest === undefined) return conjugate(basis, n, undefined, metric) ?? apart;
  const moved = conjugate(basis, n, nearest.name, metric);
  const named = isNear(nearest, basis.length, n) ? { ...nearest, nearest: nearest.name } : undefined;
  if (named && moved && !moved.name.startsWith(named.name)) {
    // A strong stretch can bring one algebra near another; its own metric then fits it far better than the other's name.
    return named.angleDegrees > FURTHEST / 2 && moved.angleDegrees < named.angleDegrees / 4 ? moved : named;
  }
  return named ?? moved ?? { ...nearest, name: "unidentified", nearest: nearest.name };
}

/** Every named algebra of the same dimension, nearest first. */
function compare(basis: readonly SquareMatrix[], n: number): Identification[] {
  return catalogue(n)
    .filter((known) => known.basis.length === basis.length)
    .map(({ name, basis: known }) => {
      const largest = principalAngles(basis, known).at(-1)!;
      const angleDegrees = (largest * 180) / Math.PI;
      return {
        name,
        cosine: Math.cos(largest),
        grassmannDistance: grassmannDistance(basis, known),
        angleDegrees,
      };
    })
    .sort((a, b) => a.angleDegrees - b.angleDegrees);
}

/**
 * Whether a span of k generators is near enough to a name. By chance a random k-dimensional span in R^N has all principal angles to a given one under
 * θ with a probability of about sin(θ)^(k(N−k)), the exponent being the dimension of the Grassmannian: for one generator in the plane, 7° is the limit.
 */
function isNear(
  { angleDegrees, grassmannDistance: distance }: Identification,
  k: number,
  n: number,
): boolean {
  const meanDegrees = ((distance / Math.sqrt(k)) * 180) / Math.PI;
  const freedom = k * (n * n - k);
  const rivals = catalogue(n).filter((known) => known.basis.length === k).length;
  const byChance = freedom === 0 ? 90 : (Math.asin((CHANCE / rivals) ** (1 / freedom)) * 180) / Math.PI;
  return meanDegrees <= FURTHEST && angleDegrees <= Math.min(2 * FURTHEST, byChance);
}

/** An orthogonal algebra of the metric that the span itself keeps. */
function conjugate(
  basis: readonly SquareMatrix[],
  n: number,
  nearest: string | undefined,
  metric: InvariantMetric | undefined,
): Identification | undefined {
  if (metric === undefined) return undefined;
  const s = metricFrame(metric.matrix);
  const inverse = invert(s);
  const spread = Math.max(...s.flat().map(Math.abs)) * Math.max(...inverse.flat().map(Math.abs));
  if (spread ** 2 > MOST_STRETCHED) return undefined;
  const moved = basis.map((b) => multiply(inverse, b, s));
  const [p, q] = metric.signature;
  const group = p === 0 || q === 0 ? `so(${n})` : `so(${p},${q})`;
  const match = compare(frame(moved), n).find((known) => known.name === group || known.name === `${group}⊕R`);
  if (match === undefined || match.angleDegrees > FURTHEST_CONJUGATE) return undefined;
  return { ...match, name: `${match.name} up to a change of basis`, nearest };
}
