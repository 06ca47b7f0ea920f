/**
 * Full evidence: refits, planted breakings, and fits in other coordinates (METHOD 2.13). All are
 * fits of the predictor's own training from a fresh start.
 */
import { inward } from "../algebra/factors.js";
import type { SquareMatrix } from "../algebra/linalg.js";
import { frame, principalAngles } from "../algebra/span.js";
import type { Block } from "../blocks.js";
import type { Context } from "../experiment/context.js";
import type { AlgebraMeasured, Limit, SkillLost } from "../result.js";
import type { RemoteObject } from "../worker/index.js";
import type { Fit, SolverInputs } from "./data.js";
import { recoveredShare } from "./rule.js";

/** Fits that each lack another fifth of the training scenes. */
const REFITS = 5;
/** Systems of coordinates, and refits that are searched for comparison. */
const SYSTEMS = 3;
/** Size of a planted breaking: in standard deviations, or the share of labels that it changes. */
const PLANTED = { numbers: 0.3, classes: 0.05 } as const;
/** Lengths of planted breakings: in standard deviations of the inputs, or in pixels. */
const LENGTHS = { vectors: [2, 1, 0.5], fields: [4, 2, 1] } as const;

/** What full evidence is made of. */
export interface Fits {
  refits: RemoteObject[];
  planted: { length: number; predictor: RemoteObject }[];
  /** In other coordinates, once they are needed. */
  systems: RemoteObject[];
}

const made = new WeakMap<Fit, Promise<Fits>>();

/** Why a predictor cannot be fitted again; undefined if it can. */
export function fitOnly({ fit, atlas }: Pick<SolverInputs, "fit" | "atlas">): string | undefined {
  if (fit === undefined || fit.epochs === 0)
    return (
      "the predictor is from elsewhere, and is not fitted again: no refits, detection limits or " +
      "other coordinates"
    );
  if (atlas.kind === "lattice")
    return (
      "breakings are planted in sets and in fields of two dimensions alone: no refits, detection " +
      "limits or other coordinates"
    );
  return undefined;
}

/** Fit again with changes of the training recipe. The stage has its name and its seed. */
async function again(ctx: Context, fit: Fit, stage: string, changes: object) {
  const { training, ...rest } = fit;
  const params = { ...training.params, ...changes };
  const seed = ctx.seedFor(stage);
  const changed = { ...training, params } as Block<"training">;
  const predictor = await ctx.predictor({ ...rest, training: changed, seed });
  await ctx.advance(stage, predictor);
  return predictor;
}

/** Whether samples are sets of vectors. */
const onVectors = ({ atlas }: Fit) => atlas.kind === "vectors";

/** Make the refits, and the fits of planted breakings; once for each predictor. */
export function fitsOf(ctx: Context, fit: Fit): Promise<Fits> {
  const known = made.get(fit);
  if (known !== undefined) return known;
  const making = makeFits(ctx, fit);
  made.set(fit, making);
  return making;
}

async function makeFits(ctx: Context, fit: Fit): Promise<Fits> {
  const refits: RemoteObject[] = [];
  for (let i = 1; i <= REFITS; i++)
    refits.push(await again(ctx, fit, `refit_${i}`, { left_out: i }));
  const { loss } = (fit.training.params ?? {}) as { loss?: string };
  const numbers = loss === undefined || loss === "l1" || loss === "l2";
  const share = numbers ? PLANTED.numbers : PLANTED.classes;
  const planted: Fits["planted"] = [];
  for (const length of onVectors(fit) ? LENGTHS.vectors : LENGTHS.fields) {
    const changes = { planted: share, planted_length: length };
    planted.push({ length, predictor: await again(ctx, fit, `planted_${length}`, changes) });
  }
  return { refits, planted, systems: [] };
}

/** What is planted along some directions, and what the predictor shows of it. */
export interface Recovered {
  length: number;
  /** For each direction and size: what the breaking costs, and what it would if it were learnt. */
  directions: readonly (readonly SkillLost[])[];
}

/** Measure what fits of planted breakings show of them. */
export async function measurePlanted(
  ctx: Context,
  { planted }: Fits,
  options: Parameters<Context["session"]["measureEvidence"]>[1],
): Promise<Recovered[]> {
  const found: Recovered[] = [];
  for (const { length, predictor } of planted) {
    const measured = await ctx.timed("evidence", () =>
      ctx.session.measureEvidence(predictor, options),
    );
    found.push({ length, directions: measured.directions });
  }
  return found;
}

/**
 * Work out above which size a breaking would have been seen, for each length.
 *
 * @param own what the span's directions cost by themselves
 * @param recovered the same directions after breakings were planted
 * @param size the size of the moves that were judged
 * @param least the least skill lost that would count as a breaking
 */
export function limitsOf(
  own: readonly (readonly SkillLost[])[],
  recovered: readonly Recovered[],
  size: number,
  least: number,
  unit: Limit["unit"],
): Limit[] {
  return recovered.map(({ length, directions }) => {
    const share = recoveredShare(own, directions, size);
    const above = share === null || share <= 0 ? null : Math.sqrt(least / share);
    return { length, unit, recovered: share, above: above !== null && above <= 1 ? above : null };
  });
}

/** The unit of the lengths of planted breakings. */
export const unitOf = (fit: Fit): Limit["unit"] => (onVectors(fit) ? "spread" : "pixels");

/** Searches for the algebra of another fit. */
export type Search = (predictor: RemoteObject, stage: string) => Promise<AlgebraMeasured>;

/** The largest angle between the span and that of each other fit, in degrees. */
export interface Agreement {
  /** In other coordinates; undefined if they were not tried. */
  systems?: number[];
  /** Of refits in the same coordinates. */
  refits: number[];
}

/** Search again with refits, and with fits in other coordinates. */
export async function compareFits(
  ctx: Context,
  fit: Fit,
  { refits, systems }: Fits,
  search: Search,
  span: readonly SquareMatrix[],
  d: SquareMatrix | undefined,
): Promise<Agreement> {
  const angle = async (predictor: RemoteObject, stage: string) => {
    const { generators, relativeErrors } = await search(predictor, stage);
    const best = generators
      .map((generator, i) => ({ generator, error: relativeErrors[i]! }))
      .sort((a, b) => a.error - b.error)
      .slice(0, span.length);
    if (best.length < span.length) return 90;
    const theirs = frame(
      inward(
        best.map(({ generator }) => generator),
        d,
      ),
    );
    const angles = principalAngles(frame(inward(span, d)), theirs);
    return (Math.max(0, ...angles) * 180) / Math.PI;
  };
  const own: number[] = [];
  for (const [i, refit] of refits.slice(0, SYSTEMS).entries())
    own.push(await angle(refit, `refit_${i + 1}`));
  if (!onVectors(fit)) return { refits: own };
  for (let i = systems.length + 1; i <= SYSTEMS; i++) {
    const coordinates = 1 + (ctx.seedFor(`coordinates_${i}`) % 2 ** 31);
    systems.push(await again(ctx, fit, `coordinates_${i}`, { coordinates }));
  }
  const angles: number[] = [];
  for (const [i, other] of systems.entries())
    angles.push(await angle(other, `coordinates_${i + 1}`));
  return { refits: own, systems: angles };
}

/** Whether other coordinates give the same answer as refits do. */
export function agrees({ systems = [], refits }: Agreement): boolean {
  return Math.max(0, ...systems) <= 2 * Math.max(0, ...refits) + 1;
}
