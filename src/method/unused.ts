/** Directions of the inputs that a predictor hardly uses, which say nothing of symmetries. */
import { namedAlgebra } from "../algebra/index.js";
import { identityMatrix, multiply, type SquareMatrix, subtract } from "../algebra/linalg.js";
import { frame } from "../algebra/span.js";
import type { Context } from "../experiment/context.js";
import type { AlgebraMeasured, CosetsMeasured, EvidenceMeasured } from "../result.js";
import type { RemoteObject } from "../worker/index.js";
import type { SolverInputs } from "./data.js";
import { hopeless, inPercent, LIMITS, lackingOf, weigh } from "./rule.js";

/** Samples that judge what a predictor uses. */
const SAMPLES = 400;
/** A projection on components of the inputs has entries this close to 0 and 1. */
const AXES = 0.1;
/** Sine of the angle within which generators lie in a group. */
const INSIDE = 1e-3;

/** What a predictor hardly uses, and what is left to search in. */
export interface Unused {
  /** Projection on the directions that are hardly used, [n, n]. */
  projection: SquareMatrix;
  /** Number of directions `a wᵀ` that lead there. */
  directions: number;
  /** Basis of the algebra of matrices that move nothing but the rest, [d, n, n]. */
  rest: SquareMatrix[];
  words: string;
}

const known = new WeakMap<RemoteObject, Promise<Unused | undefined>>();

/**
 * Restrict a search to the directions of the inputs that the predictor uses (METHOD 2.12). All
 * matrices that lead to the others hold as symmetries without being any.
 *
 * @param generators that have to lie in the search, if there are any
 */
export async function withoutUnused(
  ctx: Context,
  inputs: SolverInputs,
  { k, generators = [] }: { k?: number | "auto"; generators?: readonly SquareMatrix[] } = {},
): Promise<SolverInputs> {
  const { predictor, atlas, groupAlgebra } = inputs;
  if (atlas.kind !== "vectors" || groupAlgebra !== undefined) return inputs;
  const looking = known.get(predictor) ?? findUnused(ctx, inputs);
  known.set(predictor, looking);
  const unused = await looking;
  if (unused === undefined || (typeof k === "number" && k > unused.rest.length)) return inputs;
  const within = frame(unused.rest);
  const inside = (a: SquareMatrix) => frame([...within, a], INSIDE).length === within.length;
  return generators.every(inside) ? { ...inputs, groupAlgebra: unused.rest, unused } : inputs;
}

/** Remember that all of the inputs of a predictor count. */
export function searchWhole({ predictor }: SolverInputs): void {
  known.set(predictor, Promise.resolve(undefined));
}

async function findUnused(
  ctx: Context,
  { predictor, atlas, others }: SolverInputs,
): Promise<Unused | undefined> {
  const options = { dataset: others, atlas, samples: SAMPLES, seed: ctx.seed, unused: true };
  const found = await ctx.timed("evidence", () => ctx.session.measureEvidence(predictor, options));
  return judgeUnused(found);
}

/**
 * Choose the most directions without which the predictor surely loses little: as little as a
 * symmetry may be broken.
 */
export function judgeUnused(found: EvidenceMeasured): Unused | undefined {
  const { unused = [], without = [] } = found;
  const all = without.at(-1);
  if (all === undefined || hopeless(found) !== undefined) return undefined;
  const lacking = lackingOf(found);
  const n = unused.length;
  for (let rank = n - 1; rank > 0; rank--) {
    const { lost, broken, stands } = weigh([[without[rank - 1]!]], [[all]], lacking);
    if (!stands || !(broken.high <= LIMITS.broken)) continue;
    const projection = unused[rank - 1]!;
    const words =
      `${rank * n} of ${n * n} directions are left out, because the predictor hardly uses where ` +
      `they lead (${namesOf(projection, rank)}): taken from other samples, they cost ` +
      `${inPercent(lost.value)} [${inPercent(lost.low)}, ${inPercent(lost.high)}] of its skill`;
    return { projection, directions: rank * n, rest: restOf(projection), words };
  }
  return undefined;
}

/** Name the components of the inputs in the range of a projection, or count its directions. */
function namesOf(projection: SquareMatrix, rank: number): string {
  const on = projection.flatMap((row, i) => (row[i]! > 0.5 ? [i] : []));
  const off = projection.some((row, i) => {
    const most = on.includes(i) ? 1 : 0;
    return Math.abs(row[i]! - most) > AXES;
  });
  if (off) return `${rank} combination${rank === 1 ? "" : "s"} of the components`;
  const names = on.map((i) => i + 1).join(", ");
  return `component${on.length === 1 ? "" : "s"} ${names} of ${projection.length}`;
}

/** The projection on what is used, along what is not. */
const usedOf = (projection: SquareMatrix) =>
  subtract(identityMatrix(projection.length), projection);

/** A basis of the matrices that move nothing but what is used. */
function restOf(projection: SquareMatrix): SquareMatrix[] {
  const used = usedOf(projection);
  const units = namedAlgebra(`gl(${used.length})`, used.length) ?? [];
  return frame(units.map((unit) => multiply(used, unit, used)));
}

/** Say in what was measured what was left out of the search. */
export function saying(measured: AlgebraMeasured, unused: Unused | undefined): AlgebraMeasured {
  if (unused === undefined) return measured;
  const explanation = `${unused.words}; ${measured.explanation}`;
  return { ...measured, explanation, inertDirections: unused.directions };
}

/**
 * Let components move nothing but what is used, and keep one of those that are the same then.
 *
 * @param identity basis of the Lie algebra of the identity component
 */
export async function withoutDuplicates(
  ctx: Context,
  found: CosetsMeasured,
  identity: readonly SquareMatrix[],
  unused: Unused | undefined,
): Promise<CosetsMeasured> {
  if (unused === undefined || found.matrices.length === 0) return found;
  const used = usedOf(unused.projection);
  const matrices = found.matrices.map((m) =>
    multiply(used, m, used).map((row, i) => row.map((x, j) => x + unused.projection[i]![j]!)),
  );
  const { component } = await ctx.session.compareComponents(identity, matrices);
  const first = component.map((label) => component.indexOf(label));
  const kept = first.filter((at, i) => at === i);
  const place = (i: number) => kept.indexOf(first[i]!);
  let of = 0;
  const candidates = found.candidates.map((candidate) => {
    if (candidate.outcome === "kept") {
      const i = of++;
      return first[i] === i
        ? candidate
        : { ...candidate, outcome: "duplicate" as const, duplicateOf: place(i) };
    }
    const { duplicateOf } = candidate;
    return typeof duplicateOf === "number"
      ? { ...candidate, duplicateOf: place(duplicateOf) }
      : candidate;
  });
  return {
    ...found,
    matrices: kept.map((i) => matrices[i]!),
    losses: kept.map((i) => found.losses[i]!),
    candidates,
  };
}
