/** Symmetries of a distribution: data without targets (METHOD 2.11). */
import { analyseCosets } from "../algebra/index.js";
import { UsageError } from "../errors.js";
import { chosen } from "../experiment/choice.js";
import type { Context } from "../experiment/context.js";
import { refuseGiven } from "../experiment/define.js";
import type { Identity } from "../experiment/lookup.js";
import type { Findings } from "../result.js";
import type { RemoteObject } from "../worker/index.js";
import { type AlgebraConfig, solveAlgebra, symmetries } from "./algebra.js";
import { chartFields } from "./charts.js";
import { type CosetConfig, closeGroup, solveCosets } from "./components.js";
import type { SolverInputs } from "./data.js";
import { type OwnArraysConfig, ownDataset } from "./files.js";
import { groupFields, identityAlgebra } from "./group.js";
import { areSets, foreignFields, onSets, ownFitFields } from "./own.js";
import { makePredictor } from "./predictor.js";

/** Most samples that are looked at. */
const MOST = 200_000;
/** Steps of the training and of its passes, if the user gives no number of passes. */
const [STEPS, FEWEST_EPOCHS, MOST_EPOCHS] = [1600, 20, 200];
/** Samples in a step, as the recipe has it. */
const BATCH = 256;
/** Standard errors by which the score must be better than the linear one. */
const SURE = 3;

/** Refuse flags that have no effect on a distribution. @throws UsageError */
export function refuseForDistributions(given: Readonly<Record<string, unknown>>): void {
  const fit = Object.keys(ownFitFields()).filter((field) => field !== "epochs");
  const others = [foreignFields(), chartFields()].flatMap((fields) => Object.keys(fields));
  const vain = [...others, ...fit, "targets_as", "mask", ...Object.keys(groupFields())];
  refuseGiven(given, vain, "without targets or a predictor");
}

/** Config of a search for the symmetries of a distribution. */
export interface DistributionConfig extends OwnArraysConfig {
  predictor?: string;
  /** The Lie algebra, in a search for components alone. */
  identity?: string | Identity;
  inputs_as?: string;
  epochs?: number;
  predict?: string;
  given_fields: readonly string[];
}

/** Whether a config has nothing to predict, and no predictor. */
export function isDistribution({
  targets,
  predictor,
  predict,
}: Pick<DistributionConfig, "targets" | "predictor" | "predict">): boolean {
  return [targets, predictor, predict].every((way) => way === undefined);
}

/**
 * Check what is known of a distribution's samples: sets of vectors, of the given type.
 *
 * @param shape of the inputs; undefined if only the worker can tell it
 * @throws UsageError
 */
export function checkDistribution(
  { axes, inputs_as }: DistributionConfig,
  shape: readonly number[] | undefined,
): void {
  if (shape === undefined) return;
  if (!areSets(shape, axes)) refuseFields();
  if (axes === undefined || axes.endsWith("features")) vectorsIn(inputs_as, shape.at(-1) ?? 1);
}

function refuseFields(): never {
  throw new UsageError(
    "the symmetries of a distribution are sought for sets of vectors, not for fields",
    "give --targets FILE or --predictor FILE",
  );
}

/**
 * Learn the score of a distribution, and find its symmetries. If the score is no better than a
 * linear one, there is no algebra among the findings: a normal distribution has all rotations, and
 * nothing tells it from the unknown.
 *
 * @param name of the task, which needs the config of the searches that it does
 */
export async function discoverDistribution<C extends DistributionConfig>(
  ctx: Context,
  c: C,
  name: "discover" | "discover_algebra" | "discover_cosets",
): Promise<Findings> {
  const { outputs: _, ...given } = c;
  return discoverSamples(ctx, c, name, await ownDataset(ctx, { ...given, outputs: 1 }));
}

/** Learn the score of the distribution of a dataset's inputs, as {@link discoverDistribution}. */
export async function discoverSamples<C extends DistributionConfig>(
  ctx: Context,
  c: C,
  name: "discover" | "discover_algebra" | "discover_cosets",
  all: RemoteObject,
): Promise<Findings> {
  const [samples = 0, items = 1, features = 1, field] = all.shapes?.inputs ?? [];
  if (field !== undefined) refuseFields();
  const { n, vectors } = vectorsIn(c.inputs_as, features);
  const count = Math.min(samples, MOST);
  if (count < samples) ctx.note(`the first ${count} of ${samples} samples are used`);
  const { inputs } = await ctx.session.readDataset(all, { start: 0, count });
  const made = (noise: number) =>
    ctx.dataset({ kind: "distribution", params: { n, noise }, tensors: { inputs } });
  const dataset = await made(0);
  if (typeof dataset.facts.mean === "string")
    ctx.note(`symmetries are about the mean (${dataset.facts.mean})`);
  const targets_as = `${items * vectors}C`;
  const atlas = await ctx.atlas({ kind: "vectors", params: { n, targets_as } });
  const fit = {
    architecture: { kind: "score_net" },
    training: { kind: "score" },
    epochs: c.epochs ?? epochsFor(count),
  } as const;
  const setting = { dataset, atlas };
  const { predictor, about } = await makePredictor(ctx, { ...setting, ...fit }, { source: false });
  const { loss = null, skill = 0, skill_error = 0, sigma = 1 } = ctx.metrics("predictor");
  const trained = { ...about, source: "score", loss, scores: { skill, skill_error, sigma } };
  const findings: Findings = { task: name, predictor: trained };
  const solved = { predictor, atlas, dataset: await made(sigma) };
  if (skill <= SURE * skill_error) {
    findings.notes = [
      "cannot tell: the learnt score is no better than that of a normal distribution, " +
        `which has all rotations (skill ${skill.toFixed(3)} ± ${skill_error.toFixed(3)})`,
    ];
    return findings;
  }
  const highest = Math.floor((2 * Math.sqrt(n)) / sigma);
  const order = `rotations of order up to about ${highest} are told apart`;
  findings.notes = [
    `learnt from the inputs alone, at a noise of ${Number(sigma.toPrecision(2))} of their spread: ` +
      `${order}, those of a higher order look like a continuous group`,
  ];
  const settled = onSets(c, Object.fromEntries(c.given_fields.map((field) => [field, true])));
  if (name === "discover_cosets") {
    const known = identityAlgebra(c.identity, atlas);
    const config = settled as C & CosetConfig;
    return { ...findings, ...(await solveComponents(ctx, config, solved, known)) };
  }
  findings.algebra = await solveAlgebra(
    ctx,
    { ...settled, epochs: 0 } as unknown as AlgebraConfig,
    solved,
  );
  if (name === "discover_algebra") return findings;
  const identity = symmetries(findings.algebra);
  const config = settled as C & CosetConfig;
  return { ...findings, ...(await solveComponents(ctx, config, solved, identity)) };
}

function epochsFor(samples: number): number {
  const passes = Math.ceil((STEPS * BATCH) / samples);
  return Math.min(MOST_EPOCHS, Math.max(FEWEST_EPOCHS, passes));
}

/** Most elements of a finite group that a result also lists as components. */
const LISTED = 12;

/** Find the components of a distribution's symmetries, and the group that they make. */
async function solveComponents(
  ctx: Context,
  config: CosetConfig,
  inputs: SolverInputs,
  identity: readonly number[][][],
): Promise<Pick<Findings, "cosets" | "cosetSearch" | "group">> {
  if (identity.length > 0) return solveCosets(ctx, config, inputs, identity);
  // Only orthogonal matrices can be symmetries, and the closure looks at these.
  const solver = chosen(config, "coset_solver", "coset_solver");
  const found = { matrices: [], candidates: [] };
  // Held-out data do not judge the elements: these turn about the mean of the samples, which is off
  // by more than the noise resolves where there are few.
  const group = await closeGroup(ctx, inputs, { found, identity, solver, orthogonal: true });
  const { elements: matrices, losses, order } = group;
  return { cosets: order > LISTED ? undefined : analyseCosets({ matrices, losses }, []), group };
}

/** Split the features of an item into vectors. @throws UsageError for another type than vectors */
function vectorsIn(type: string | undefined, features: number): { n: number; vectors: number } {
  const [, count = ""] = /^([1-9]\d*)?V$/.exec(type ?? "V") ?? [undefined, "none"];
  const vectors = count === "" ? 1 : Number(count);
  if (!Number.isInteger(features / vectors))
    throw new UsageError(
      Number.isNaN(vectors)
        ? `--inputs-as ${type}: without targets the features of an item are vectors`
        : `--inputs-as ${type}: ${features} features are not ${vectors} vectors`,
      "give --inputs-as V, or kV for k vectors",
    );
  return { n: features / vectors, vectors };
}
