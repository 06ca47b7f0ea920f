/** The group in which symmetries are sought (METHOD 1.7): config fields, and the algebra they mean. */
import { z } from "zod";
import { namedAffine } from "../algebra/affine.js";
import { blocksOf, embed, labelOf } from "../algebra/factors.js";
import { closure, type Factor, frame, namedAlgebra, namedAlgebras } from "../algebra/index.js";
import { UsageError } from "../errors.js";
import type { Context } from "../experiment/context.js";
import type { Preparation } from "../experiment/define.js";
import { Identity, type RecordedConfig, type RunLookup } from "../experiment/lookup.js";
import { Factors } from "../result.js";
import { choices } from "../suggest.js";
import type { RemoteObject } from "../worker/index.js";

/** Groups that have a meaning for every kind of data. */
const KINDS = ["gl", "sl", "so", "affine"];
/** Names of algebras with translations. */
const AFFINE = /^(affine|translations?|(se|sim|aff|saff)\(?\d*\)?|iso\(?\d.*)$/;
/** A span that is further from closed is no Lie algebra. */
const CLOSED = 0.05;

/** Make the config fields of the group. */
export const groupFields = () => ({
  group: z.union([z.string(), Identity]).optional().meta({
    description: "Search in gl, sl, so, affine, a NAME, FILE or RUN (default: gl)",
    placeholder: "from",
  }),
  dimensions: z.string().optional().meta({
    description: "Dimensions of several groups, such as a=2,b=3 for Va+Vb",
    placeholder: "sizes",
    rare: true,
  }),
});

/** Config of {@link groupFields}. */
export interface GroupConfig {
  group?: string | Identity;
  dimensions?: string;
}

/**
 * Look up a group that is a file or a run. A name is kept, because its size depends on the data.
 *
 * @throws UsageError if there is no such group
 */
export async function lookUpGroup(
  lookup: RunLookup,
  given: string | Identity | undefined,
): Promise<string | Identity | undefined> {
  if (typeof given !== "string") return given;
  if (isName(given)) return given;
  const found = await lookUpBasis(lookup, given, "--group");
  if (found.basis.length === 0)
    throw new UsageError(`--group ${given}: the algebra is empty`, "give one with generators");
  return found;
}

/** Look up the algebra of a file or a run, for a flag. @throws UsageError if there is none */
export function lookUpBasis(lookup: RunLookup, given: string, flag: string): Promise<Identity> {
  return lookup.algebra(given, flag, `${KINDS.join(", ")}, or a name like so(3)`);
}

/**
 * Look up the algebra for a search for components alone, on data whose size only the worker knows:
 * a name is kept, a file or a run is read. If none is given, it is the algebra of the newest
 * finished run with a `compatible` config, which is then named to the user.
 *
 * @throws UsageError if there is none
 */
export async function lookUpOwnIdentity(
  { lookup, info }: Preparation,
  given: string | Identity | undefined,
  compatible: (other: RecordedConfig) => boolean,
): Promise<string | Identity> {
  if (typeof given === "string")
    return isName(given) ? given : lookup.algebra(given, "--identity", "a name like so(3)");
  if (given !== undefined) return given;
  const newest = await lookup.newestAlgebra(compatible);
  if (newest === undefined)
    throw new UsageError(
      "no finished run has found an algebra for these data and settings",
      "find one with --task discover_algebra, or give --identity RUN, FILE or a name like so(2)",
    );
  info(`identity  the algebra of run ${newest.source} (${newest.basis.length} generators)`);
  return newest;
}

/**
 * Make the basis of an algebra that {@link lookUpOwnIdentity} found.
 *
 * @param atlas whose facts tell the groups that act
 * @returns [d, n, n]; empty for the trivial algebra
 * @throws UsageError if it does not fit what acts
 */
export function identityAlgebra(
  identity: string | Identity | undefined,
  atlas: Pick<RemoteObject, "facts">,
): number[][][] {
  if (identity === undefined || (typeof identity !== "string" && identity.basis.length === 0))
    return [];
  const factors = Factors.parse(atlas.facts.groups ?? []);
  return basisOf(identity, factors, "--identity") ?? wholeAlgebra(factors);
}

/** Make a basis of the algebra of all that acts. */
export function wholeAlgebra(factors: readonly Factor[]): number[][][] {
  const all = factors.map((f) => `${f.affine ? "aff" : "gl"}(${f.n})`);
  return basisOf(all.join(" x "), factors, "--group") ?? [];
}

/** Whether a text is the name of a group, of some size. */
export function isName(text: string): boolean {
  const wanted = text.trim().toLowerCase();
  if (KINDS.includes(wanted) || AFFINE.test(wanted)) return true;
  const numbers = (text.match(/\d+/g) ?? []).map(Number);
  const sizes = [1, 2, 3, 4, 5, 6, ...numbers, numbers.reduce((a, b) => a + b, 0)];
  const isOne = (part: string) =>
    sizes.some((n) => n >= 1 && n <= 64 && namedAlgebra(part, n) !== undefined);
  return isOne(text) || (factorsOf(text).length > 1 && factorsOf(text).every(isOne));
}

/** Split the name of a product, such as "so(2) x so(3)". */
function factorsOf(name: string): string[] {
  return name.split(/\s*(?:⊕|×|\s+x\s+|\s+\+\s+)\s*/i).map((part) => part.trim());
}

/** Whether a group translates points. */
function translates(group: string | Identity | undefined): boolean {
  return typeof group === "string" && AFFINE.test(group.trim().toLowerCase());
}

/**
 * Make the types of sets for a group: where a group translates, items are points unless the types
 * tell points (`X`) from other vectors (`V`).
 */
export function typesFor({ group, ...types }: GroupConfig & { inputs_as?: string }): {
  inputs_as?: string;
  read?: string;
} {
  const { inputs_as } = types;
  if (!translates(group) || inputs_as?.includes("X")) return { inputs_as };
  const points = (inputs_as ?? "V").replaceAll("V", "X");
  return { inputs_as: points, read: inputs_as?.includes("V") ? points : undefined };
}

/** Whether types name several groups, whose dimensions have to be found. */
export function hasGroups(...types: readonly (string | undefined)[]): boolean {
  return types.some((type) => /[A-Z][a-z]/.test(type ?? ""));
}

/**
 * Make the algebra in which a run searches, and say what the user should know of it.
 *
 * @param atlas whose facts tell the groups that act
 * @param flag that gives the group, for errors
 * @returns [d, n, n]; undefined for all of the algebra of the groups that act
 * @throws UsageError if the group does not fit what acts
 */
export function groupAlgebra(
  ctx: Pick<Context, "note" | "info">,
  { group, inputs_as, k }: GroupConfig & { inputs_as?: string; k?: number | "auto" },
  atlas: Pick<RemoteObject, "facts">,
  flag = "--group",
): number[][][] | undefined {
  const { read } = typesFor({ group, inputs_as });
  if (read !== undefined)
    ctx.note(
      `--inputs-as ${inputs_as} is read as ${read}, since ${flag} ${nameOf(group!)} translates ` +
        "points; write X for points and V for vectors that are not translated, such as velocities",
    );
  const factors = Factors.parse(atlas.facts.groups ?? []);
  if (translates(group) && factors.some((f) => f.map))
    throw new UsageError(
      `${flag} ${nameOf(group!)} translates the points of sets, and these are fields`,
      "leave it out: fields are moved about the centres of their charts",
    );
  if (translates(group) && !factors.some((f) => f.affine))
    throw new UsageError(
      `${flag} ${nameOf(group!)} translates points, but --inputs-as ${inputs_as} has none`,
      "write X for points",
    );
  if (factors.length > 1)
    ctx.info(`groups     ${factors.map((f) => `GL(${f.n}) on ${labelOf(f)}`).join(", ")}`);
  const basis = group === undefined ? undefined : basisOf(group, factors, flag);
  const whole = factors.reduce((sum, f) => sum + f.n * (f.n + Number(f.affine)), 0);
  const most = basis === undefined ? whole : frame(basis, 1e-6).length;
  if (typeof k === "number" && k > most)
    throw new UsageError(
      `--k ${k}: the group has ${most} generator${most === 1 ? "" : "s"}`,
      `give 1 to ${most}, or leave it out`,
    );
  if (group === undefined || basis === undefined) return undefined;
  if (most === 0)
    throw new UsageError(`${flag} ${nameOf(group)}: the algebra is empty`, "give a larger one");
  const { max } = closure(basis);
  if (max > CLOSED)
    ctx.note(
      `the span of ${flag} ${nameOf(group)} is no Lie algebra: a bracket of two of its matrices ` +
        `is ${(100 * max).toFixed(0)} % outside`,
    );
  return basis;
}

function nameOf(group: string | Identity): string {
  return typeof group === "string" ? group : group.source;
}

/** @param flag that names the group, for errors */
function basisOf(
  group: string | Identity,
  factors: readonly Factor[],
  flag = "--group",
): number[][][] | undefined {
  const size = factors.reduce((sum, f) => sum + f.n + Number(f.affine), 0);
  const blocks = blocksOf(factors, size);
  if (typeof group !== "string") return fitted(group, factors, size, flag);
  const wanted = group.trim().toLowerCase();
  const plain = factors.every((f) => !f.affine);
  if (wanted === "affine" || (wanted === "gl" && plain)) return undefined;
  const parts = KINDS.includes(wanted) ? factors.map((f) => `${wanted}(${f.n})`) : factorsOf(group);
  if (parts.length !== factors.length)
    throw new UsageError(
      `${flag} ${group}: ${parts.length === 1 ? "one algebra" : `${parts.length} algebras`} for ` +
        `${factors.length === 1 ? "one group" : `${factors.length} groups`}`,
      `give one for each of ${factors.map(labelOf).join(", ")}, such as ` +
        `"${factors.map((f) => `so(${f.n})`).join(" x ")}", or a FILE`,
    );
  return blocks.flatMap((block, i) => {
    const { n, affine, start } = block;
    const linear = (name: string) => (/^s[lo]\(1\)$/.test(name) ? [] : namedAlgebra(name, n));
    const basis = affine ? namedAffine(parts[i]!, n, linear) : linear(parts[i]!);
    if (basis === undefined)
      throw new UsageError(
        `${flag} ${group}: there is no algebra ${parts[i]} of ${labelOf(block)} in R^${n}`,
        `choose one of ${choices(parts[i]!, [...(affine ? [`se(${n})`] : []), ...namedAlgebras(n)])}`,
      );
    return basis.map((m) => embed(m, start, size));
  });
}

/** Check the size of given matrices; linear maps of points are made affine ones. */
function fitted(
  { source, basis }: Identity,
  factors: readonly Factor[],
  size: number,
  flag: string,
): number[][][] {
  const given = basis[0]?.length ?? 0;
  const [only] = factors;
  if (given === size) return basis;
  if (factors.length === 1 && only?.affine && given === only.n)
    return basis.map((m) => embed(m, 0, size));
  const acting = factors.map((f) => `${labelOf(f)} in R^${f.n}`).join(", ");
  throw new UsageError(
    `${flag} ${source}: its matrices are ${given}x${given}, but those that act are ${size}x${size} ` +
      `(${acting})`,
    `give a basis of shape [d, ${size}, ${size}]`,
  );
}
