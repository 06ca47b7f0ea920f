/** Downstream tasks: train a network with a symmetry and one without, and score both. */
import { invariantMetric, keepingMetric, type SquareMatrix } from "../algebra/index.js";
import { UsageError } from "../errors.js";
import type { Context } from "../experiment/context.js";
import {
  type ConfigOf,
  type Preparation,
  type Shape,
  type TaskDefinition,
  task,
} from "../experiment/define.js";
import type { Identity } from "../experiment/lookup.js";
import type { Findings } from "../result.js";
import { Tensor } from "../tensor/index.js";
import type { RemoteObject } from "../worker/index.js";
import { demandGenerators, identityField, lookUpIdentity, sameBasis } from "./components.js";
import type { Setting } from "./data.js";
import {
  fitPredictor,
  lookUpPredictor,
  type PredictorConfig,
  trainedPredictor,
} from "./predictor.js";

type Downstream = NonNullable<Findings["downstream"]>;

/** A pair of networks, without and with the symmetry. */
export interface DownstreamPair<D extends Shape> {
  /** Size of the algebra's matrices, which are n by n. */
  n: number;
  /** Name of the network in summaries, for example "a tagger". */
  what: string;
  /** Makes the config fields of one network. */
  network(symmetric: boolean): D;
  /** Makes the presets of one network. */
  presets(symmetric: boolean): Readonly<Record<string, object>>;
  /**
   * Fields that must agree with those of a run whose network is reused (default: none is reused).
   */
  decisive?: readonly string[];
  /**
   * Checks that the network can be built from an algebra (default: it has generators).
   *
   * @throws UsageError
   */
  check?(identity: Identity): void;
  /** Looks up references before any work is done. */
  prepare?(config: ConfigOf<D>, preparation: Preparation): Promise<void>;
  /** Trains and scores one network. `algebra` is that of the symmetry, if it has one. */
  run(
    ctx: Context,
    config: ConfigOf<D> & PredictorConfig,
    name: string,
    algebra?: Identity,
  ): Promise<Findings>;
}

/** Make the tasks `downstream_baseline` and `downstream_discovered`. */
export function downstreamTasks<D extends Shape>(pair: DownstreamPair<D>) {
  const { n, what, decisive, check = demandGenerators } = pair;
  const [plain, found] = ["downstream_baseline", "downstream_discovered"] as const;

  async function prepare<C extends object>(config: C, preparation: Preparation): Promise<C> {
    await pair.prepare?.(config as ConfigOf<D>, preparation);
    if (decisive === undefined) return config;
    const { identity } = config as { identity?: Identity };
    const fits = (other: { identity?: unknown; task: string }) =>
      other.task === (identity ? found : plain) && sameBasis(other.identity, identity);
    return lookUpPredictor(config as C & PredictorConfig, preparation, { decisive, fits });
  }

  const config = pair.network(false);
  const identity = identityField("Lie algebra: a RUN, a FILE, or a name like so(2)");
  const withAlgebra = { ...pair.network(true), identity };
  return {
    [plain]: task({
      summary: `Train ${what} without the symmetry`,
      config,
      presets: pair.presets(false) as TaskDefinition<D>["presets"],
      prepare,
      run: (ctx, c) => pair.run(ctx, c as ConfigOf<D> & PredictorConfig, plain),
    }),
    [found]: task({
      summary: `Train ${what} that has the symmetry of an algebra`,
      config: withAlgebra,
      presets: pair.presets(true) as TaskDefinition<typeof withAlgebra>["presets"],
      async prepare(c, preparation) {
        const given = c.identity as string | Identity | undefined;
        const looked = (await lookUpIdentity(preparation.lookup, given, n, `--task ${found}`))!;
        check(looked);
        return prepare({ ...c, identity: looked }, preparation);
      },
      run: (ctx, c) =>
        pair.run(ctx, c as ConfigOf<D> & PredictorConfig, found, c.identity as Identity),
    }),
  };
}

/** Check that an algebra keeps a metric to build a classifier from. @throws UsageError */
export function demandMetric({ source, basis }: Identity): void {
  if (invariantMetric(basis) === undefined)
    throw new UsageError(
      `the algebra ${source} keeps no metric to build a classifier from`,
      "give an algebra that keeps one, for example so(1,3) or a run that found it",
    );
}

/**
 * Make what a network of a config is built from: a metric, or for `equivariant_mlp` the generators
 * of the group that keeps it.
 */
export function metricTensors(c: object, metric: SquareMatrix): Record<string, Tensor> {
  if ((c as { architecture?: string }).architecture === "equivariant_mlp")
    return { algebra: Tensor.from(keepingMetric(metric), "float64") };
  return { metric: Tensor.from(metric, "float32") };
}

/** Train a network, or load another's weights into it, and score it. */
export async function trainNetwork(
  ctx: Context,
  config: PredictorConfig,
  setting: Setting,
  {
    task,
    score,
    ...options
  }: {
    /** Name of the task, for the result. */
    task: string;
    /** Computes the scores of the trained network. */
    score: (network: RemoteObject) => Promise<Downstream["metrics"]>;
    /** Name of the stage (default "predictor"). */
    stage?: string;
  } & Parameters<typeof fitPredictor>[3],
): Promise<{ network: RemoteObject; findings: Findings & { downstream: Downstream } }> {
  const { predictor: network, about } = await fitPredictor(ctx, config, setting, options);
  const metrics = { ...(await score(network)), parameters: Number(network.facts.parameters) };
  const predictor = trainedPredictor(ctx, about, options.stage);
  return { network, findings: { task, predictor, downstream: { metrics } } };
}

/**
 * Make the defaults of the training recipe for a classifier of pixels.
 *
 * @param background_weight weight of the background's pixels; the Jaccard loss has none, because it
 *   weighs all classes alike
 */
export function pixelTraining(
  loss: "cross_entropy" | "jaccard",
  batch_size: number,
  learning_rate: number,
  background_weight?: number,
) {
  const values = {
    loss,
    batch_size,
    learning_rate,
    background_weight,
    schedule: "cosine" as const,
  };
  return () => ({ supervised: values });
}
