/** Stages that discovery goes through whatever the data: what experiments share. */
import { z } from "zod";
import { analyseAlgebra, analyseCosets, namedAlgebras } from "../algebra/index.js";
import { AtlasError, UsageError } from "../errors.js";
import type { AlgebraResult, Equivariance, Findings } from "../result.js";
import type { Component, EquivarianceOptions, RemoteObject } from "../worker/session.js";
import type { Context } from "./context.js";
import { Identity, type Runs, readPredictor } from "./sources.js";
import { onlyFor } from "./uses.js";

/** What a solver works on. */
export interface SymmetryTask {
  predictor: RemoteObject;
  dataset: RemoteObject;
  atlas: RemoteObject;
}

/** A config field: a whole number of at least 1. */
export const whole = (fallback: number, description: string) =>
  z.int().positive().default(fallback).describe(description);

/** A config field: a number of at least 0. */
export const amount = (fallback: number, description: string) =>
  z.number().min(0).default(fallback).describe(description);

/** The config field that says whose weights are taken instead of training. */
export const reuseField = () =>
  z.union([z.boolean(), z.string()]).default(false).meta({
    description: "Take a FILE's or RUN's predictor (alone: the newest fitting run's)",
    placeholder: "from",
  });

/** The config field that says which algebra is taken from elsewhere: what {@link lookUpIdentity} looks up. */
export const identityField = (description: string) =>
  z.union([z.string(), Identity]).optional().meta({ description, placeholder: "from" });

/** The config field that says which solver finds the algebra, and what counts with ours alone. */
export const solverField = () =>
  z.enum(["grassmann", "paper"]).default("grassmann").describe("How the Lie algebra is found");
export const GRASSMANN = { solver: ["grassmann"] };

/** The config fields of the published solver (METHOD 2.2), with an experiment's own weights. */
export const paperFields = ({ r1, r3 }: { r1: number; r3: number }) =>
  onlyFor(
    { solver: ["paper"] },
    {
      basis_lr: amount(5e-4, "Learning rate of the basis"),
      r1: amount(r1, "Weight of orthogonality"),
      r2: amount(1, "Entries are rewarded up to this size"),
      r3: amount(r3, "Weight of the reward for size"),
    },
  );

/**
 * The identity component that a config refers to, looked up; as it is when there is none.
 *
 * @throws UsageError when there is none and `needed` says for what there must be one
 */
export async function lookUpIdentity(
  runs: Runs,
  given: string | Identity | undefined,
  n: number,
  needed?: string,
): Promise<string | Identity | undefined> {
  if (given === undefined && needed !== undefined)
    throw new UsageError(
      `${needed} needs an algebra`,
      `give --identity RUN, FILE or a name like ${namedAlgebras(n)[1]}${needed.includes("cosets") ? "; or find both with --task discover" : ""}`,
    );
  return typeof given === "string" ? runs.identity(given, n) : given;
}

/** The basis that {@link lookUpIdentity} found: [k, n, n], empty when there is none. */
export function givenBasis(identity: string | Identity | undefined): number[][][] {
  return typeof identity === "object" ? identity.basis : [];
}

/** Refuse an algebra that {@link lookUpIdentity} found where a network is to be built from its generators. @throws UsageError */
export function demandGenerators(identity: string | Identity | undefined): void {
  if (givenBasis(identity).length === 0)
    throw new UsageError(
      `the algebra ${typeof identity === "object" ? identity.source : ""} has no generators to build a network from`,
      "give one that has, say so(2) or a run that found it",
    );
}

/** Whether two configs' identities, looked up, have the same basis. */
export function sameBasis(one: unknown, other: unknown): boolean {
  const [a, b] = [one, other].map((given) => JSON.stringify(Identity.safeParse(given).data?.basis));
  return a === b;
}

/** Config fields that {@link trainPixels} takes, of which experiments do not differ. */
export const pixelFields = () => ({
  schedule: z.enum(["cosine", "constant"]).default("cosine").describe("Their learning rate over the epochs"),
  precision: z
    .enum(["float32", "bfloat16"])
    .default("float32")
    .describe("Of the networks' products in training; bfloat16 is for GPUs"),
});

/** How a classifier of pixels is trained, from the config fields of these names. */
export function trainPixels(
  c: { batch_size: number; predictor_lr: number; schedule: string; precision: string },
  loss: "cross_entropy" | "jaccard",
  background_weight?: number,
): Component {
  const { batch_size, predictor_lr: learning_rate, schedule, precision } = c;
  return {
    kind: "supervised",
    params: { loss, background_weight, batch_size, learning_rate, schedule, precision },
  };
}

/** What the worker says of a dataset's path where there is nothing. */
const MISSING = /(there is no (file|folder) \S+|has no files of \S+) \(dataset\.source\.params\.path\)/;

/**
 * A dataset of files that the user may not have yet.
 *
 * @param remedy how to come by them; said when the worker finds no file or folder
 */
export async function readFiles(
  ctx: Context,
  options: Parameters<Context["dataset"]>[0],
  remedy: string,
): Promise<RemoteObject> {
  try {
    return await ctx.dataset(options);
  } catch (error) {
    if (error instanceof AtlasError && MISSING.test(error.message)) error.remedy = remedy;
    throw error;
  }
}

/**
 * A predictor that is trained, or has another's weights: what {@link reuseField} refers to, looked up.
 *
 * @param options.later leave the training to {@link discoverAlgebra} with `train`
 * @returns it, and what is known of it before it is used
 */
export async function makePredictor(
  ctx: Context,
  options: Parameters<Context["predictor"]>[0],
  { source, later = false }: { source: string | boolean; later?: boolean },
): Promise<{ predictor: RemoteObject; about: Findings["predictor"] }> {
  const predictor = await ctx.predictor(options);
  const reused = typeof source === "string" ? source : undefined;
  if (reused !== undefined) await ctx.reuse("predictor", predictor, () => readPredictor(reused));
  else if (!later) await ctx.advance("predictor", predictor);
  return { predictor, about: { loss: null, epochs: options.epochs, source: reused ?? "trained" } };
}

/**
 * Find the Lie algebra. With `train`, predictor and basis are trained by turns (the published schedule); else the predictor is taken as it is.
 *
 * @param options.k number of generators, 0 for as many as there are
 */
export async function discoverAlgebra(
  ctx: Context,
  task: SymmetryTask,
  { solver, k, epochs, train = false }: { solver: Component; k: number; epochs: number; train?: boolean },
): Promise<AlgebraResult> {
  const algebra = await ctx.algebra({ ...task, solver, k, epochs });
  const second = { stage: "algebra", object: algebra };
  if (train) await ctx.alternate({ stage: "predictor", object: task.predictor }, second, epochs);
  else await ctx.advance("algebra", algebra);
  return analyseAlgebra(await ctx.timed("algebra", () => ctx.session.getAlgebra(algebra)));
}

/** Find one matrix for each component, given a basis [k, n, n] of the identity component. */
export async function discoverCosets(
  ctx: Context,
  task: SymmetryTask,
  {
    params,
    identity,
    epochs,
  }: { params: Component["params"]; identity: readonly number[][][]; epochs: number },
): Promise<Required<Pick<Findings, "cosets" | "cosetSearch">>> {
  const cosets = await ctx.cosets({ ...task, solver: { kind: "descent", params }, identity, epochs });
  await ctx.advance("cosets", cosets);
  const found = await ctx.timed("cosets", () => ctx.session.getCosets(cosets));
  return { cosets: analyseCosets(found, identity), cosetSearch: found };
}

/** How well a classifier does on a dataset, by the names of `Session.scorePredictor` in their order. */
export async function score(
  ctx: Context,
  predictor: RemoteObject,
  dataset: RemoteObject,
): Promise<Record<string, number>> {
  const scores = await ctx.timed("scores", () => ctx.session.scorePredictor(predictor, dataset));
  return Object.fromEntries(Object.entries(scores).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** How far a predictor is from equivariance under each of some matrices, which have names. */
export async function equivarianceUnder(
  ctx: Context,
  predictor: RemoteObject,
  moves: Readonly<Record<string, number[][]>>,
  options: EquivarianceOptions = {},
): Promise<Equivariance> {
  const named = Object.entries(moves);
  const matrices = named.map(([, matrix]) => matrix);
  const measured = await ctx.timed("scores", () =>
    ctx.session.measureEquivariance(predictor, matrices, options),
  );
  return measured.map(({ distance, relativeError, resampling }, i) => ({
    name: named[i]![0],
    matrix: named[i]![1],
    distance,
    relativeError,
    interpolation: distance > 0 ? (relativeError * resampling) / distance : 0,
  }));
}

/** The matrix that rotates the plane by an angle in degrees. */
export function planeRotation(degrees: number): number[][] {
  const [c, s] = [Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180)];
  return [
    [c, -s],
    [s, c],
  ];
}

/** The generators that are symmetries. */
export function symmetries({ generators, found }: AlgebraResult): number[][][] {
  return generators.slice(0, found);
}
