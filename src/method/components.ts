/** Find the components of a group, one matrix for each (METHOD 2.4 and METHOD 2.5). */
import { z } from "zod";
import { generatorsOf, multiplicationTable } from "../algebra/finite.js";
import { analyseCosets, analyseGroup, namedAlgebra, namedAlgebras } from "../algebra/index.js";
import type { Block, BlockParams, Manifold } from "../blocks.js";
import { UsageError } from "../errors.js";
import { type ChoiceOptions, choose, chosen } from "../experiment/choice.js";
import type { Context } from "../experiment/context.js";
import { type Preparation, whole } from "../experiment/define.js";
import { Identity, type RecordedConfig, type RunLookup } from "../experiment/lookup.js";
import type { CosetsMeasured, Findings, GroupResult } from "../result.js";
import { choices } from "../suggest.js";
import { Tensor } from "../tensor/index.js";
import { noteUnits, type SolverInputs, solverObjects } from "./data.js";
import { withoutDuplicates, withoutUnused } from "./unused.js";
import { type EvidenceKind, judgeCosets } from "./verdict.js";

/** Make the config field for an algebra from elsewhere, which {@link lookUpIdentity} looks up. */
export const identityField = (description: string) =>
  z.union([z.string(), Identity]).optional().meta({ description, placeholder: "from" });

/** Make the config fields of the search for components. */
export function cosetFields({
  manifold,
  epochs,
  values,
}: {
  manifold: Manifold;
  epochs: number;
  /** The experiment's own defaults of the solvers' parameters. */
  values?: ChoiceOptions<"coset_solver">["values"];
}) {
  return {
    ...choose("coset_solver", "coset_solver", {
      description: "Solver for the components",
      default: "multistart",
      manifold,
      flags: { candidates: "candidates", max_components: ["max_components", "keep"] },
      values,
    }),
    coset_epochs: whole(epochs, "Epochs of the search for components"),
  };
}

/** Config of the search for components. */
export interface CosetConfig {
  coset_epochs: number;
  evidence?: EvidenceKind;
}

/**
 * Look up the algebra of the identity component that a config refers to.
 *
 * @param given a reference, an algebra that is looked up already, or nothing
 * @param n size of the matrices
 * @param needed what needs an algebra, for example "--task downstream_discovered"
 * @returns the algebra; undefined if none is given
 * @throws UsageError if none is given and `needed` is
 */
export async function lookUpIdentity(
  lookup: RunLookup,
  given: string | Identity | undefined,
  n: number,
  needed?: string,
): Promise<Identity | undefined> {
  if (given === undefined && needed !== undefined)
    throw new UsageError(`${needed} needs an algebra`, giveIdentity(n));
  return typeof given === "string" ? lookup.identity(given, n) : given;
}

function giveIdentity(n: number): string {
  return `give --identity RUN, FILE or a name like ${namedAlgebras(n)[1]}`;
}

/**
 * Look up the algebra for a search for components alone: the given one, or the algebra of the
 * newest finished run with a `compatible` config, which is then named to the user.
 *
 * @throws UsageError if there is none
 */
export async function lookUpIdentityOrNewest(
  { lookup, info }: Preparation,
  given: string | Identity | undefined,
  n: number,
  compatible: (other: RecordedConfig) => boolean,
): Promise<Identity> {
  const named = await lookUpIdentity(lookup, given, n);
  if (named) return named;
  const newest = await lookup.newestAlgebra(compatible);
  if (newest === undefined)
    throw new UsageError(
      "no finished run has found an algebra for these settings",
      `find one with --task discover_algebra, or ${giveIdentity(n)}`,
    );
  info(`identity  the algebra of run ${newest.source} (${newest.basis.length} generators)`);
  return newest;
}

/** Get the basis that {@link lookUpIdentity} found: [k, n, n]; empty if there is none. */
export function givenBasis(identity: string | Identity | undefined): number[][][] {
  return typeof identity === "object" ? identity.basis : [];
}

/**
 * Get a named algebra in gl(n), for example "so(2)".
 *
 * @throws UsageError if there is no such algebra
 */
export function namedIdentity(name: string, n: number): Identity {
  const basis = namedAlgebra(name, n);
  if (basis) return { source: name, basis };
  throw new UsageError(
    `there is no algebra ${name} in gl(${n})`,
    `choose one of ${choices(name, namedAlgebras(n))}`,
  );
}

/** Make the tensor from which architectures are built; undefined for no algebra. */
export function algebraTensor(algebra: Identity | undefined): { algebra: Tensor } | undefined {
  return algebra && { algebra: Tensor.from(algebra.basis, "float32") };
}

/** Check that an algebra has generators to build a network from. @throws UsageError */
export function demandGenerators(identity: string | Identity | undefined): void {
  const name = typeof identity === "object" ? identity.source : "";
  if (givenBasis(identity).length === 0)
    throw new UsageError(
      `the algebra ${name} has no generators to build a network from`,
      "give an algebra that has generators, for example so(2) or a run that found it",
    );
}

/** Whether the identities of two configs, looked up already, have the same basis. */
export function sameBasis(one: unknown, other: unknown): boolean {
  const [a, b] = [one, other].map((given) => JSON.stringify(Identity.safeParse(given).data?.basis));
  return a === b;
}

/**
 * Find the components as a config says.
 *
 * @param identityAlgebra basis of the Lie algebra, [k, n, n]
 */
export function solveCosets(
  ctx: Context,
  config: CosetConfig,
  inputs: SolverInputs,
  identityAlgebra: readonly number[][][],
): Promise<FoundComponents> {
  const solver = chosen(config, "coset_solver", "coset_solver");
  return discoverCosets(ctx, inputs, {
    solver,
    identity: identityAlgebra,
    epochs: config.coset_epochs,
    evidence: config.evidence,
  });
}

/** The components, how they were found, and the group that they make. */
export type FoundComponents = Required<Pick<Findings, "cosets" | "cosetSearch">> &
  Pick<Findings, "group">;

/** Most matrices that are listed though the data cannot tell whether they are symmetries. */
const LISTED = 3;

/** Sum up matrices that are not listed. @param words what is said of each */
function saidOfUntold(words: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const said of words) {
    const reason = said.replace(/^cannot tell: /, "");
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
  }
  const reasons = [...counts].map(([reason, many]) => `${reason} (${many})`).join("; ");
  return (
    `${words.length} more matrices may be components, of which the data cannot tell; they are not ` +
    `listed: ${reasons}`
  );
}

/** Relative error up to which a matrix is judged at all. */
const PROPOSED = 0.35;

/** Make a solver keep more matrices than are symmetries, because evidence judges them. */
function proposing(solver: Block<"coset_solver">): Block<"coset_solver"> {
  const { threshold = 0, ...params } = solver.params ?? {};
  return { ...solver, params: { ...params, threshold: Math.max(threshold, PROPOSED) } };
}

/** Find one matrix for each component, and the group that they make. */
export async function discoverCosets(
  ctx: Context,
  given: SolverInputs,
  {
    params,
    solver = { kind: "multistart", params },
    identity,
    epochs,
    evidence = "quick",
  }: {
    solver?: Block<"coset_solver">;
    /** Parameters of the solver "multistart", if no `solver` is given. */
    params?: BlockParams["coset_solver"]["multistart"];
    /** Basis of the identity component's Lie algebra, [k, n, n]. */
    identity: readonly number[][][];
    epochs: number;
    /** Evidence on held-out data; "none": the relative error decides. */
    evidence?: EvidenceKind;
  },
): Promise<FoundComponents> {
  const inputs =
    evidence === "none" ? given : await withoutUnused(ctx, given, { generators: identity });
  const objects = solverObjects(inputs);
  const asked = evidence === "none" ? solver : proposing(solver);
  const search = { ...objects, solver: asked, identityAlgebra: identity, epochs };
  const cosets = await ctx.cosets(search);
  await ctx.advance("cosets", cosets);
  const measured = await ctx.timed("cosets", () => ctx.session.getCosets(cosets));
  const found = await withoutDuplicates(ctx, measured, identity, inputs.unused);
  noteUnits(ctx, found);
  const { noiseFloor, candidates } = found;
  const analysed = analyseCosets(found, identity);
  const { judged, hopeless } =
    evidence === "none"
      ? { judged: analysed, hopeless: undefined }
      : await judgeCosets(ctx, inputs, analysed, identity, evidence, found);
  const untold = judged.flatMap((coset) =>
    coset?.evidence?.verdict === "cannot tell" ? [coset.evidence.words] : [],
  );
  const undecided = untold.length;
  const kept = judged.flatMap((coset, i) =>
    coset === undefined || coset.evidence?.verdict === "cannot tell" ? [] : [i],
  );
  const listed = undecided <= LISTED;
  const findings = {
    cosets: judged.flatMap((coset, i) =>
      coset !== undefined && (listed || kept.includes(i)) ? [coset] : [],
    ),
    cosetSearch: { noiseFloor, candidates, ...(!listed && { undecided }) },
  };
  if (!listed) ctx.note(saidOfUntold(untold));
  if (hopeless !== undefined || (undecided > 0 && kept.length === 0)) {
    ctx.note(`no group is named: ${hopeless ?? "the data cannot tell of any component"}`);
    return findings;
  }
  if (undecided > 0)
    ctx.note(
      `the group leaves out ${undecided} component${undecided === 1 ? "" : "s"}, of which the data ` +
        "cannot tell",
    );
  const whole = undecided === 0 && inputs.unused === undefined;
  const closing = { found, kept, identity, solver, search: whole };
  return { ...findings, group: await closeJudged(ctx, inputs, closing, evidence) };
}

/**
 * Close matrices to a group as {@link closeGroup}, and judge the elements on held-out data.
 *
 * The closure looks for elements by their errors. If some of these surely lose skill, only products
 * of the given matrices are closed.
 *
 * @returns undefined if such products lose skill too
 */
async function closeJudged(
  ctx: Context,
  inputs: SolverInputs,
  closing: Closing,
  evidence: EvidenceKind = "quick",
): Promise<GroupResult | undefined> {
  const objects = solverObjects(inputs);
  const { search = true } = closing;
  for (const each of search ? [closing, { ...closing, search: false }] : [closing]) {
    const stage = each === closing ? "closure" : "closure_given";
    const group = await closeGroup(ctx, objects, each, stage);
    const { elements, losses, order, finite } = group;
    if (evidence === "none" || !finite || order === 1) return group;
    const some = generatorsOf(multiplicationTable(elements));
    const tried = {
      matrices: some.map((i) => elements[i]!),
      losses: some.map((i) => losses[i]!),
    };
    const components = analyseCosets(tried, closing.identity);
    const { identity, found } = closing;
    const { judged } = await judgeCosets(ctx, inputs, components, identity, evidence, found);
    const lost = judged.filter((element) => element === undefined).length;
    if (lost === 0) return group;
    const among = `${lost} of the ${some.length} generators of the group lose skill`;
    ctx.note(
      each !== closing || !search
        ? `no group is named: ${among}`
        : `the elements that the closure looked for are left out: ${among}`,
    );
  }
  return undefined;
}

/** Most matrices of a search that a closure starts from. */
const MOST_STARTS = 256;

/** What a group is closed from, and how. */
export interface Closing {
  found: Pick<CosetsMeasured, "matrices" | "candidates" | "coordinates" | "factors">;
  /** Indices of the matrices that the evidence keeps (default: all). */
  kept?: readonly number[];
  identity: readonly number[][][];
  /** The search, whose threshold counts. */
  solver: Block<"coset_solver">;
  /** Whether only orthogonal matrices can be symmetries, as for a distribution. */
  orthogonal?: boolean;
  /** Whether to look for elements that no product leads to. */
  search?: boolean;
}

/**
 * Close the matrices that a search found to a group (METHOD 2.9).
 *
 * @param stage its name in the run
 */
export async function closeGroup(
  ctx: Context,
  inputs: SolverInputs,
  {
    found,
    kept = found.matrices.map((_, i) => i),
    identity,
    solver,
    orthogonal,
    search = true,
  }: Closing,
  stage = "closure",
): Promise<GroupResult> {
  const finite = identity.length === 0;
  // Candidates that the search merged may be different elements of a large finite group.
  const merged = found.candidates.filter(
    (c) => finite && c.outcome === "duplicate" && kept.includes(c.duplicateOf ?? -1),
  );
  const matrices = [
    ...kept.map((i) => found.matrices[i]!),
    ...merged.map((c) => c.matrix as number[][]),
  ];
  const { threshold } = (solver.params ?? {}) as { threshold?: number };
  const [, items = 1] = inputs.dataset.shapes?.inputs ?? [];
  const views = Math.max(64, Math.round(512 / Math.max(1, items / 8))); // large sets say more each
  const size = inputs.atlas.kind === "vectors" ? { views, evaluation: views } : {};
  const params = { threshold, orthogonal, ...size, ...(search ? {} : { starts: 0 }) };
  const closure = await ctx.cosets({
    ...inputs,
    solver: { kind: "products", params },
    identityAlgebra: identity,
    matrices: matrices.slice(0, MOST_STARTS),
    epochs: 1,
  });
  await ctx.advance(stage, closure);
  return analyseGroup(await ctx.timed(stage, () => ctx.session.getClosure(closure)), finite);
}
