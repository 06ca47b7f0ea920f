/** Name a span of matrices of a product of groups, factor by factor (METHOD 4.2). */
import { matchAffine } from "./affine.js";
import {
  type Block,
  blocksOf,
  cut,
  embed,
  type Frame,
  inward,
  labelOf,
  outward,
} from "./factors.js";
import { apart, type Identification, identify, type Match, matchLinear } from "./identify.js";
import { combine, inner, type SquareMatrix, singular } from "./linalg.js";
import { frame, type InvariantMetric, invariantMetric, project } from "./span.js";

/** The largest sine of the angle to a factor at which a direction counts as one of its own. */
const OWN = 0.26;

/**
 * Name a span in a product of groups; {@link identify} names one in GL(n).
 *
 * @param generators [k, n, n], in coordinates in which points have mean 0 and spread 1
 * @param metric the invariant metric of the generators, if they have one
 */
export function identifyIn(
  generators: readonly SquareMatrix[],
  metric: InvariantMetric | undefined,
  { factors }: Pick<Frame, "factors">,
): Identification {
  const basis = frame(generators);
  const n = basis[0]?.length;
  if (factors === undefined || n === undefined) return identify(generators, metric);
  const blocks = blocksOf(factors, n);
  const [only] = blocks;
  if (blocks.length === 1) return described(matchBlock(basis, only!));
  const parts = partsOf(basis, blocks);
  const exact = parts.every((part) => part.exact !== undefined)
    ? parts.flatMap((part) => part.exact!)
    : undefined;
  const shown = parts.map(({ name, on, dimension }) => ({ name, on, dimension }));
  const [first, ...others] = parts;
  const named = (of: (part: Part) => string | undefined) =>
    others.length === 0
      ? `${of(first!) ?? "?"} on ${first!.on}`
      : parts.map((part) => of(part) ?? "?").join(" ⊕ ");
  const name = parts.some((part) => part.name === "unidentified")
    ? "unidentified"
    : named((part) => part.name);
  const nearest = named((part) => part.nearest ?? part.name);
  const worst = parts.reduce((a, b) => (b.angleDegrees > a.angleDegrees ? b : a));
  const { cosine, grassmannDistance, angleDegrees } = exact ? apart(basis, exact) : worst;
  return { name, cosine, grassmannDistance, angleDegrees, nearest, parts: shown };
}

/**
 * Find the named algebra that a span of matrices is, in the coordinates of the span.
 *
 * @param generators [k, n, n]
 * @param where coordinates D in which it has its name, and the groups whose product acts
 * @returns its name, a basis, and the largest angle to it in degrees; undefined if no name fits, or
 *   if one algebra acts on several factors together
 */
export function exactAlgebra(
  generators: readonly SquareMatrix[],
  { factors, coordinates }: Frame = {},
): { name: string; basis: SquareMatrix[]; angleDegrees: number } | undefined {
  const basis = frame(inward(generators, coordinates));
  const n = basis[0]?.length;
  if (n === undefined) return undefined;
  const blocks = blocksOf(factors, n);
  const single = blocks.length === 1 ? [{ ...matchBlock(basis, blocks[0]!), on: "" }] : undefined;
  const parts = single ?? partsOf(basis, blocks);
  if (parts.some(({ exact, name }) => exact === undefined || name === "unidentified"))
    return undefined;
  const exact = parts.flatMap((part) => part.exact!);
  const name = parts
    .map((part) => (part.on ? `${part.name} on ${part.on}` : part.name))
    .join(" ⊕ ");
  const { angleDegrees } = apart(basis, exact);
  return { name, basis: outward(exact, coordinates), angleDegrees };
}

/** An algebra inside of a product. */
interface Part extends Match {
  on: string;
  dimension: number;
}

/**
 * Split a span into the algebras that act on one factor alone, and a rest that acts on several
 * factors together.
 */
function partsOf(basis: readonly SquareMatrix[], blocks: readonly Block[]): Part[] {
  const n = basis[0]!.length;
  const parts: Part[] = [];
  const used: SquareMatrix[] = [];
  for (const block of blocks) {
    const own = ownDirections(basis, block);
    if (own.length === 0) continue;
    used.push(...own);
    const match = matchBlock(frame(own.map((m) => cut(m, block))), block);
    const exact = match.exact?.map((m) => embed(m, block.start, n));
    parts.push({ ...match, exact, on: labelOf(block), dimension: own.length });
  }
  const rest = complement(basis, frame(used));
  if (rest.length > 0) parts.push(jointPart(rest, blocks));
  return parts;
}

/** Find the directions of a span that lie in a block. */
function ownDirections(basis: readonly SquareMatrix[], block: Block): SquareMatrix[] {
  const n = basis[0]!.length;
  const inBlock = basis.map((m) => cut(m, block).flat());
  const gram = inBlock.map((a) => inBlock.map((b) => a.reduce((sum, x, i) => sum + x * b[i]!, 0)));
  const { values, vectors } = singular(gram);
  return vectors.filter((_, i) => values[i]! > 1 - OWN ** 2).map((v) => combine(v, basis, n));
}

/** Find a basis of the part of a span that is orthogonal to `taken`, an orthonormal basis. */
function complement(
  basis: readonly SquareMatrix[],
  taken: readonly SquareMatrix[],
): SquareMatrix[] {
  const n = basis[0]!.length;
  const left = basis.map((m) => {
    const part = project(m, taken);
    return m.map((row, i) => row.map((x, j) => x - part[i]![j]!));
  });
  const { values, vectors } = singular(left.map((a) => left.map((b) => inner(a, b))));
  const count = basis.length - taken.length;
  return frame(
    vectors.filter((_, i) => i < count && values[i]! > 1e-6).map((v) => combine(v, left, n)),
  );
}

/** Name an algebra that acts on several factors together, by what it does to each. */
function jointPart(rest: readonly SquareMatrix[], blocks: readonly Block[]): Part {
  const moved = blocks
    .map((block) => ({
      block,
      images: frame(
        rest.map((m) => cut(m, block)),
        0.1,
      ),
    }))
    .filter(({ images }) => images.length > 0);
  const on = moved.map(({ block }) => labelOf(block)).join(" and ");
  const matches = moved.map(({ block, images }) => matchBlock(images, block));
  const names = [...new Set(matches.map((match) => match.name))];
  const whole = moved.every(({ images }) => images.length === rest.length);
  const worst = matches.reduce((a, b) => (b.angleDegrees > a.angleDegrees ? b : a));
  const name =
    whole && !names.includes("unidentified")
      ? names.length === 1
        ? names[0]!
        : `(${matches.map(({ name }, i) => `${name} on ${labelOf(moved[i]!.block)}`).join(" with ")})`
      : "unidentified";
  const nearest = names.join(" with ");
  return {
    ...worst,
    name,
    nearest,
    exact: undefined,
    on: `${on} together`,
    dimension: rest.length,
  };
}

/** Name a span in one factor. */
function matchBlock(basis: readonly SquareMatrix[], { n, affine }: Block): Match {
  return affine ? matchAffine(basis, n) : matchLinear(basis, invariantMetric(basis));
}

function described({ exact: _, ...match }: Match): Identification {
  return match;
}
