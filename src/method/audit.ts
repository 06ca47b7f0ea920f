/** Audit a predictor: in which layer it loses a symmetry (METHOD 4.8). */
import { z } from "zod";
import { labelOf } from "../algebra/factors.js";
import { closure, expm, type Factor, namedAlgebras } from "../algebra/index.js";
import {
  combine,
  multiply,
  norm,
  type SquareMatrix,
  subtract,
  transpose,
} from "../algebra/linalg.js";
import { UsageError } from "../errors.js";
import type { Context } from "../experiment/context.js";
import type { RunLookup } from "../experiment/lookup.js";
import { type Audit, type AuditMeasured, Factors, type Findings, type Result } from "../result.js";
import { choices } from "../suggest.js";
import type { RemoteObject } from "../worker/index.js";
import { certainComponents, saidOf } from "./certain.js";
import type { Setting } from "./data.js";
import { readFindings } from "./findings.js";
import { groupAlgebra, wholeAlgebra } from "./group.js";
import { isGroupName, KNOWN_GROUPS, knownGroup } from "./known.js";
import { type ForeignConfig, foreignPredictor, isFactory, type OwnLoss } from "./own.js";
import { makePredictor } from "./predictor.js";

const Matrices = z.array(z.array(z.array(z.number())));
/** A symmetry to audit: generators, and matrices outside of the identity component. */
export const AuditedSymmetry = z.object({
  source: z.string(),
  generators: Matrices,
  components: Matrices,
  /** Relative error of the matrices, if they were learnt. */
  accuracy: z.number().default(0),
  /** What a user should know of it, in sentences. */
  notes: z.array(z.string()).optional(),
});
/** A symmetry to audit. */
export type AuditedSymmetry = z.infer<typeof AuditedSymmetry>;

/** A symmetry that is looked up already, or a name, whose size depends on the data. */
export type GivenAudited = string | AuditedSymmetry;

/** Angles of rotations, in degrees, and lengths of other moves. */
const ANGLES = [10, 45, 90] as const;
const LENGTHS = [0.1, 0.3, 1] as const;
/** Generators from which on each is taken at fewer sizes. */
const MANY = 4;
/** Largest number of elements of a finite group that are compared. */
const MOST = 24;
/** Largest symmetric part of a generator of rotations. */
const SKEW = 0.2;

/**
 * Look up a symmetry that is a run or a file. A name is kept.
 *
 * @throws UsageError if there is none
 */
export async function lookUpAudited(lookup: RunLookup, given: GivenAudited): Promise<GivenAudited> {
  if (typeof given !== "string" || isGroupName(given)) return given;
  const others = `a name like so(3), ${KNOWN_GROUPS.join(", ")}`;
  const found = await lookup.algebra(given, "--symmetry", others);
  const more = await readFindings(lookup, given, "--symmetry");
  const { components = [], leftOut = 0, result } = more ?? {};
  const notes = leftOut > 0 ? [saidOf(leftOut)] : [];
  if (found.basis.length + components.length === 0)
    throw new UsageError(
      `--symmetry ${given}: ${["it has no symmetry to audit", ...notes].join("; ")}`,
      "give another run, or a name like so(2)",
    );
  const learnt = Math.max(closure(found.basis).max, components.length > 0 ? UNKNOWN : 0);
  return {
    source: found.source,
    generators: found.basis,
    components: components.map(({ matrix }) => matrix),
    accuracy: result ? accuracyOf(result) : (more?.accuracy ?? learnt),
    notes,
  };
}

/** Take the symmetry to audit from what the same run found. */
export function discoveredSymmetry(
  ctx: Pick<Context, "note">,
  found: Pick<Result, "algebra" | "cosets" | "group">,
  generators: SquareMatrix[],
): AuditedSymmetry {
  const { components, leftOut } = certainComponents(found);
  if (leftOut > 0) ctx.note(saidOf(leftOut));
  return {
    ...{ source: "discovered", generators, accuracy: accuracyOf(found) },
    components: components.map(({ matrix }) => matrix),
  };
}

function matricesOf(result: Parameters<typeof certainComponents>[0]): SquareMatrix[] {
  return certainComponents(result).components.map(({ matrix }) => matrix);
}

/** Relative error of matrices about which nothing is known but that they were learnt. */
const UNKNOWN = 0.02;

/**
 * Estimate the relative error of the matrices of a result: by how far the generators are from the
 * named algebra and from being closed, and the components from keeping the metric.
 */
export function accuracyOf(result: Pick<Result, "algebra" | "cosets" | "group">): number {
  const { algebra, group } = result;
  const found = algebra !== undefined && algebra.symmetryCount > 0 ? algebra : undefined;
  const errors: number[] = [];
  if (found !== undefined) {
    const { name, angleDegrees } = found.identified;
    errors.push(name === "unidentified" ? UNKNOWN : (angleDegrees * Math.PI) / 180);
    errors.push(found.closure.mean);
  }
  const components = matricesOf(result);
  const n = components[0]?.length ?? 1;
  const metric = found?.invariantMetric;
  if (metric !== undefined && !metric.conformal) {
    const j = metric.matrix;
    const off = (h: SquareMatrix) => norm(subtract(multiply(transpose(h), j, h), j)) / norm(j) / 2;
    errors.push(...components.map(off));
  } else if (components.length > 0)
    errors.push(group?.finite && group.resolved ? group.spread / Math.sqrt(n) : UNKNOWN);
  return Math.min(Math.max(0, ...errors), 0.5);
}

/**
 * Make the generators and components of a symmetry for what acts.
 *
 * @param atlas whose facts tell the groups that act
 * @throws UsageError if the symmetry does not fit the data
 */
export function symmetryOn(
  ctx: Pick<Context, "note" | "info">,
  given: GivenAudited,
  atlas: Pick<RemoteObject, "facts">,
): AuditedSymmetry {
  const factors = Factors.parse(atlas.facts.groups ?? []);
  const size = factors.reduce((sum, f) => sum + f.n + Number(f.affine), 0);
  if (typeof given !== "string") {
    for (const note of given.notes ?? []) ctx.note(note);
    const wrong = [...given.generators, ...given.components].find((m) => m.length !== size);
    if (wrong !== undefined)
      throw new UsageError(
        `--symmetry ${given.source}: its matrices are ${wrong.length}x${wrong.length}, but those ` +
          `that act on the data are ${size}x${size} (${acting(factors)})`,
        "check --inputs-as and --targets-as, or give another symmetry",
      );
    return given;
  }
  const [only] = factors;
  const linear = factors.length === 1 && !only!.affine;
  const known = linear ? knownGroup(given, size, "--symmetry") : undefined;
  if (known !== undefined) return { source: given, ...known, accuracy: 0 };
  try {
    const algebra = groupAlgebra(ctx, { group: given }, atlas);
    const generators = algebra ?? wholeAlgebra(factors);
    return { source: given, generators, components: [], accuracy: 0 };
  } catch (error) {
    if (error instanceof UsageError) {
      error.message = error.message.replaceAll("--group", "--symmetry");
      if (linear)
        error.remedy = `choose one of ${choices(given, [...namedAlgebras(size), ...KNOWN_GROUPS])}`;
    }
    throw error;
  }
}

function acting(factors: readonly Factor[]): string {
  return factors.map((f) => `${labelOf(f)} in R^${f.n}`).join(", ");
}

/** Choose elements of a group, small and large ones, with names. */
export function elementsOf({ generators, components }: AuditedSymmetry): {
  name: string;
  matrix: SquareMatrix;
}[] {
  const few = generators.length > MANY;
  const along = generators.flatMap((b, i) => {
    const of = generators.length > 1 ? ` ${i + 1}` : "";
    const size = norm(b);
    if (size === 0) return [];
    const symmetric = combine([1, 1], [b, transpose(b)], b.length);
    const rotates = norm(symmetric) < SKEW * size;
    // A rotation of one plane has the Frobenius norm √2 times its angle.
    const unit = rotates ? size / Math.SQRT2 : size;
    const steps = (rotates ? ANGLES : LENGTHS).filter((_, j) => !few || j > 0);
    return steps.map((step) => {
      const t = (rotates ? (step * Math.PI) / 180 : step) / unit;
      const name = rotates ? `generator${of}, ${step}°` : `generator${of}, length ${step}`;
      return { name, matrix: expm(b.map((row) => row.map((x) => t * x))) };
    });
  });
  const rest = components
    .slice(0, MOST)
    .map((matrix, i) => ({ name: `component ${i + 1}`, matrix: matrix.map((row) => [...row]) }));
  return [...along, ...rest];
}

/** Audit a predictor, and the same one before its training if it is given. */
export async function auditLayers(
  ctx: Context,
  predictor: RemoteObject,
  symmetry: AuditedSymmetry,
  { samples, before }: { samples: number; before?: RemoteObject },
): Promise<Audit> {
  const elements = elementsOf(symmetry);
  const { length: all } = symmetry.components;
  if (all > MOST) ctx.note(`${MOST} of the ${all} components are compared`);
  const matrices = elements.map(({ matrix }) => matrix);
  const look = (one: RemoteObject) =>
    ctx.timed("audit", () =>
      ctx.session.auditPredictor(one, matrices, {
        samples,
        seed: ctx.seedFor("audit"),
        accuracy: symmetry.accuracy,
      }),
    );
  const found = await look(predictor);
  if (found.unread.length > 0)
    ctx.note(
      `layers that could not be compared, for they do not give a row of numbers for each sample: ` +
        `${found.unread.slice(0, MANY).join(", ")}${found.unread.length > MANY ? " …" : ""}; a ` +
        "layer that is named as the culprit may only follow one of them",
    );
  const former = before && (await look(before));
  return {
    symmetry: symmetry.source,
    elements: elements.map(({ name, matrix }, i) => ({
      name,
      matrix,
      size: found.sizes[i] ?? null,
      error: found.errors[i] ?? null,
      floor: found.floors[i] ?? null,
    })),
    judged: found.judged,
    broken: found.broken,
    layer: breaking(found),
    layers: found.layers,
    worst: found.worst,
    before: former && {
      errors: former.errors,
      broken: former.broken,
      layer: breaking(former),
      layers: former.layers,
    },
  };
}

function breaking({ layers }: AuditMeasured): string | null {
  return layers.find(({ breaks }) => breaks)?.name ?? null;
}

/** A predictor to audit, and the one before the training. */
export interface AuditedCheckpoints {
  predictor?: string;
  weights?: string;
  before?: string;
}

/** @throws UsageError unless the weights of a pair belong together */
export function checkPair({ predictor = "", weights, before }: AuditedCheckpoints): void {
  const made = isFactory(predictor);
  if (weights !== undefined && !made)
    throw new UsageError(
      `--weights ${weights}: the program ${predictor} has its weights in it`,
      "leave it out, or give path.py:factory",
    );
  if (before !== undefined && made && !isFactory(before) && weights === undefined)
    throw new UsageError(
      `--before ${before} is one of two checkpoints: the weights after the training are missing`,
      "give them with --weights FILE",
    );
}

/** Load a predictor, and the one before its training if it is given. */
export async function auditedPair(
  ctx: Context,
  c: ForeignConfig & AuditedCheckpoints,
  setting: Setting,
  loss: OwnLoss,
): Promise<{ predictor: RemoteObject; before?: RemoteObject; about: Findings["predictor"] }> {
  const training = { kind: "supervised", params: { loss } } as const;
  const load = async (one: AuditedCheckpoints, stage: string) => {
    const block = await foreignPredictor({ ...c, ...one });
    const options = { ...block, training, ...setting, epochs: 0 };
    return makePredictor(ctx, options, { source: false, stage });
  };
  const { predictor, about } = await load({}, "predictor");
  const { before: former } = c;
  const named = { predictor, about: { ...about, source: c.predictor ?? "" } };
  if (former === undefined) return named;
  const weights = isFactory(c.predictor ?? "") && !isFactory(former);
  const one = weights ? { weights: former } : { predictor: former, weights: undefined };
  return { ...named, before: (await load(one, "before")).predictor };
}
