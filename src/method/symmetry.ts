/** A symmetry to build networks from: of a run, a file or a name, and one that does not hold. */
import { z } from "zod";
import { blocksOf } from "../algebra/factors.js";
import { catalogue, exactAlgebra, type Factor, grassmannDistance } from "../algebra/index.js";
import {
  diagonalMatrix,
  identityMatrix,
  invert,
  multiply,
  norm,
  type SquareMatrix,
  subtract,
} from "../algebra/linalg.js";
import { closure } from "../algebra/span.js";
import { UsageError } from "../errors.js";
import type { Context } from "../experiment/context.js";
import { Identity, type RunLookup } from "../experiment/lookup.js";
import { Factors } from "../result.js";
import type { RemoteObject } from "../worker/index.js";
import { certainGenerators, saidOf } from "./certain.js";
import { readFindings } from "./findings.js";
import { groupAlgebra, lookUpBasis, wholeAlgebra } from "./group.js";
import { isGroupName, knownGroup } from "./known.js";

/** Generators and components of a symmetry, and their source. */
export const Symmetry = Identity.extend({
  /** One matrix for each further component, with its name. */
  components: z.array(z.object({ name: z.string(), matrix: z.array(z.array(z.number())) })),
  /** Coordinates D in which it has its name, if these are not the data's own. */
  coordinates: z.array(z.array(z.number())).optional(),
  /** Whether evidence was measured for it; undefined for a file of matrices. */
  evidence: z.boolean().optional(),
  /** What a user should know of it, in sentences. */
  notes: z.array(z.string()).default([]),
});
/** Generators and components of a symmetry, and their source. */
export type Symmetry = z.infer<typeof Symmetry>;

/** Make the config field of a symmetry, which {@link lookUpSymmetry} looks up. */
export const symmetryField = () =>
  z.union([z.string(), Symmetry]).optional().meta({
    description: "The symmetry: of a RUN or a FILE, or a NAME like so(3)",
    placeholder: "from",
  });

/**
 * Look up a symmetry. A name is kept, because its size depends on the data.
 *
 * @throws UsageError if there is no such symmetry, or it has neither generators nor components
 */
export async function lookUpSymmetry(
  lookup: RunLookup,
  given: string | Symmetry | undefined,
): Promise<string | Symmetry> {
  if (given === undefined)
    throw new UsageError(
      "a symmetry is missing",
      "give --symmetry RUN (of atlas discover), a FILE, or a name like so(3)",
    );
  if (typeof given !== "string") return given;
  if (isGroupName(given)) return given;
  const found = await lookUpBasis(lookup, given, "--symmetry");
  const more = await readFindings(lookup, given, "--symmetry");
  const { components = [], leftOut = 0 } = more ?? {};
  const certain = more?.algebra && certainGenerators(more.algebra);
  if (certain) found.basis = certain.generators;
  const notes = [...(leftOut > 0 ? [saidOf(leftOut)] : []), ...(certain?.notes ?? [])];
  if (found.basis.length === 0 && components.length === 0)
    throw new UsageError(
      `--symmetry ${given}: it has neither generators nor components`,
      "give one that was found, or a name like so(3)",
    );
  const evidence = more?.algebra && more.algebra.evidence !== undefined;
  return { ...found, components, coordinates: more?.coordinates, evidence, notes };
}

/** A group that a network commutes with. */
export interface ArmGroup {
  arm: "found" | "exact" | "wrong";
  /** What it is, in words. */
  called: string;
  basis: SquareMatrix[];
  components: SquareMatrix[];
  /** Relative error of the matrices. */
  accuracy: number;
  /** Whether it leaves the outputs alone, whatever their type. */
  still?: boolean;
}

/** Relative error of matrices that are written down. */
export const EXACT = 1e-6;
/** Relative error of learnt matrices that no named algebra tells. */
const UNTOLD = 0.01;
/** Names of algebras that keep a metric, which are taken first as the wrong one. */
const ORTHOGONAL = /^so\(\d+(,\d+)?\)/;
/** Largest stretch of the axes that makes a group a wrong one. */
const STRETCH = 3;
/** Most named algebras that are tried as the wrong one. */
const MOST_WRONG = 5;
/** Grassmann distance, per root of a generator, from which on a span is another. */
const ANOTHER = 0.2;

/**
 * Make the groups of a comparison: the found one, the named one that it is near to, and such of the
 * same dimension as may be wrong.
 *
 * These are other named algebras without components, in this order: those that keep a metric, such
 * as so(1,2), before others, the furthest first. Then comes the same group after the axes were
 * stretched by 1 to 3. Samples that fill a thin set contradict none of them, as long as the group
 * leads out of that set. So the last, if outputs move, is the same group with outputs that stay.
 *
 * @throws UsageError if the matrices do not fit what acts
 */
export function armGroups(
  ctx: Context,
  symmetry: string | Symmetry,
  atlas: RemoteObject,
  { inputs_as, targets_as }: { inputs_as?: string; targets_as?: string },
): ArmGroup[] {
  const given = typeof symmetry === "string" ? symmetry : undefined;
  const factors = Factors.parse(atlas.facts.groups ?? []);
  const size = factors.reduce((sum, f) => sum + f.n + Number(f.affine), 0);
  const linear = factors.length === 1 && !factors[0]!.affine;
  const known = linear && given !== undefined ? knownGroup(given, size, "--symmetry") : undefined;
  const empty = typeof symmetry !== "string" && symmetry.basis.length === 0;
  const basis =
    known?.generators ??
    (empty
      ? []
      : (groupAlgebra(ctx, { group: symmetry, inputs_as }, atlas, "--symmetry") ??
        wholeAlgebra(factors)));
  const components = typeof symmetry === "string" ? [] : symmetry.components;
  if (typeof symmetry !== "string") for (const note of symmetry.notes) ctx.note(note);
  const odd = components.find(({ matrix }) => matrix.length !== size);
  if (odd)
    throw new UsageError(
      `--symmetry: the component ${odd.name} is ${odd.matrix.length}x${odd.matrix.length}, but the ` +
        `matrices that act are ${size}x${size}`,
      "give a symmetry of the same features",
    );
  if (typeof symmetry !== "string" && symmetry.evidence === false)
    ctx.note(`the symmetry of ${symmetry.source} has no evidence: nothing tells how sure it is`);
  const many = factors.length > 1 || factors.some((f) => f.affine);
  const coordinates = typeof symmetry === "string" ? undefined : symmetry.coordinates;
  const exact = exactAlgebra(basis, { factors: many ? factors : undefined, coordinates });
  const groups: ArmGroup[] = [];
  const ideal = components.map((c) => ideally(c, factors));
  const accuracy = Math.max(
    EXACT,
    exact ? Math.sin((exact.angleDegrees * Math.PI) / 180) : Math.max(UNTOLD, closure(basis).max),
    ideal.includes(undefined) ? UNTOLD : 0,
  );
  if (given !== undefined)
    groups.push({
      ...{ arm: "exact", called: given, basis, accuracy: EXACT },
      components: known?.components ?? [],
    });
  else {
    // Any matrix of a component serves; the one that its name means has no error.
    const matrices = components.map(({ matrix }, i) => (exact && ideal[i]) || matrix);
    const name = exact?.name ?? `${basis.length} generators`;
    const called = `${name} as found${withNames(components.map((c) => c.name))}`;
    groups.push({ arm: "found", called, basis, components: matrices, accuracy });
    if (exact === undefined && basis.length > 0)
      ctx.note(
        "no named algebra is near to the found one, so there is no exact one to compare with",
      );
    else {
      const known = components.filter((_, i) => ideal[i] !== undefined);
      const lost = components.filter((_, i) => ideal[i] === undefined).map((c) => c.name);
      if (lost.length > 0)
        ctx.note(
          `the exact group leaves out components without a known matrix: ${lost.join(", ")}`,
        );
      groups.push({
        arm: "exact",
        called: `${exact?.name ?? "no generators"}${withNames(known.map((c) => c.name))}`,
        basis: exact?.basis ?? [],
        components: ideal.filter((m) => m !== undefined),
        accuracy: EXACT,
      });
    }
  }
  const moves = linear && /[VCTF]/.test(targets_as ?? "");
  const wrong = wrongGroups(groups.at(-1)!, factors, moves);
  groups.push(...wrong);
  if (wrong.length === 0)
    ctx.note("there is no other algebra of this dimension, so nothing wrong is compared");
  return groups;
}

function withNames(names: readonly string[]): string {
  return names.length === 0 ? "" : ` with ${names.join(", ")}`;
}

/** Make the matrix that a component's name means; undefined for a name that means none. */
function ideally(
  { name }: Symmetry["components"][number],
  factors: readonly Factor[],
): SquareMatrix | undefined {
  const [only] = factors;
  if (factors.length !== 1 || only!.affine) return undefined;
  const n = only!.n;
  const signs = (sign: (i: number) => number) =>
    diagonalMatrix(Array.from({ length: n }, (_, i) => sign(i)));
  if (name === "−I" || name === "-I") return signs(() => -1);
  if (name === "reflection") return signs((i) => (i === n - 1 ? -1 : 1));
  if (name === "parity") return signs((i) => (i === 0 ? 1 : -1));
  if (name === "time reversal") return signs((i) => (i === 0 ? -1 : 1));
  return undefined;
}

/** Make groups of the same dimension that need not hold. */
function wrongGroups(
  right: ArmGroup,
  factors: readonly Factor[],
  outputsMove: boolean,
): ArmGroup[] {
  const { basis, components, called } = right;
  const size = basis[0]?.length ?? components[0]!.length;
  const limit = ANOTHER * Math.sqrt(basis.length);
  const wrong = { arm: "wrong", accuracy: EXACT } as const;
  const plain = factors.length === 1 && !factors[0]!.affine && basis.length > 0;
  const named = (plain ? catalogue(size) : [])
    .filter((known) => known.basis.length === basis.length)
    .map((known) => ({ ...known, distance: grassmannDistance(basis, known.basis) }))
    .filter(({ distance }) => distance > limit)
    .sort(
      (a, b) =>
        Number(ORTHOGONAL.test(b.name)) - Number(ORTHOGONAL.test(a.name)) ||
        b.distance - a.distance,
    )
    .slice(0, MOST_WRONG)
    .map((known) => ({ ...wrong, basis: known.basis, components: [], called: known.name }));
  const stretch = identityMatrix(size);
  for (const { start, n } of blocksOf(factors, size))
    for (let i = 0; i < n; i++)
      stretch[start + i]![start + i] = STRETCH ** (n === 1 ? 0 : i / (n - 1));
  const inverse = invert(stretch);
  const moved = (m: SquareMatrix) => multiply(stretch, m, inverse);
  const stretched = { basis: basis.map(moved), components: components.map(moved) };
  const changed =
    basis.length > 0
      ? grassmannDistance(basis, stretched.basis) > limit
      : components.some((m, i) => norm(subtract(m, stretched.components[i]!)) > ANOTHER);
  const as = `${called}, with axes stretched by 1 to ${STRETCH}`;
  return [
    ...named,
    ...(changed ? [{ ...wrong, ...stretched, called: as }] : []),
    ...(outputsMove
      ? [{ ...wrong, basis, components, called: `${called}, with outputs that stay`, still: true }]
      : []),
  ];
}
