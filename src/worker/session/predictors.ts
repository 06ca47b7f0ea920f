/** Predictors of a session: create them, load weights, predict, and score. */
import type { Block } from "../../blocks.js";
import { type CreateObjectRequest, ObjectServiceService } from "../../gen/atlas/v1/objects.js";
import { AuditMeasured, EvidenceMeasured } from "../../result.js";
import { Tensor } from "../../tensor/tensor.js";
import { type Link, LONG, LONG_READ, type Matrices } from "./link.js";
import { type RemoteObject, wireBlock } from "./objects.js";

/** A predictor: its architecture and training, and the data and charts that it is for. */
export interface PredictorOptions {
  architecture: Block<"architecture">;
  training: Block<"training">;
  dataset: RemoteObject;
  atlas: RemoteObject;
  /** Number of passes over the data; 0 for a network that is given. */
  epochs: number;
  seed: number;
  /** Tensors for architectures that are built around them. */
  tensors?: Readonly<Record<string, Tensor>>;
}

/** Options of `Session.measureEquivariance`. */
export interface EquivarianceOptions {
  /**
   * Atlas of the same kind, with as many charts of the same radius (default: the predictor's own).
   */
  atlas?: RemoteObject;
  /** Dataset with samples of the same shape (default: the predictor's own). */
  dataset?: RemoteObject;
  /** Number of random samples (default 256, or all if there are fewer). */
  samples?: number;
  /** Seed of the choice of samples (default 0). */
  seed?: number;
}

/** How far a predictor f is from equivariance under a matrix g: means over samples and charts. */
export interface EquivarianceFindings {
  /** The predictor's own kind of loss. */
  loss: number;
  /** Mean absolute difference of f(gx) and g f(x); for a classifier, of class probabilities. */
  distance: number;
  /**
   * `distance` divided by the motion |f(gx) − f(x)| + |g f(x) − f(x)|; 0 if nothing moves. For an
   * invariant task it is 0 or 1, so compare distances instead.
   */
  relativeError: number;
  /** The part of `distance` that interpolation may cause. */
  interpolationError: number;
}

/** Options of `Session.measureCharts` and `Session.measureReach`. */
export interface ChartOptions {
  /** Number of random samples (default 128, or all if there are fewer). */
  samples?: number;
  /** Seed of the choice of samples (default 0). */
  seed?: number;
}

/** How far a predictor is from equivariance on one chart. Errors are relative to the motion. */
export interface ChartFindings {
  error: number;
  /** Lower end of the error's 95 % interval, a bootstrap over samples. */
  low: number;
  high: number;
  /** The part of the error that interpolation may cause. */
  interpolation: number;
  /** Errors of equal parts of the chart, by rows: two along each axis. */
  parts: number[];
  /** Standard errors of the logarithms of `parts`. */
  spread: number[];
  /** Share of the window's pixels whose input has the same value in all samples. */
  constant: number;
}

/**
 * Input of a predictor: crops of the shape of its input, or samples of a dataset (default: its
 * own).
 */
export type PredictorInput = Tensor | { start: number; count: number; dataset?: RemoteObject };

/** Make the spec of a predictor. The tensors are sent to the worker. */
export async function predictorSpec(
  link: Link,
  options: PredictorOptions,
): Promise<CreateObjectRequest["spec"]> {
  const { architecture, training, dataset, atlas, epochs, seed, tensors = {} } = options;
  return {
    $case: "predictor",
    predictor: {
      architecture: wireBlock("architecture", architecture),
      training: wireBlock("training", training),
      dataset: dataset.handle,
      atlas: atlas.handle,
      epochs,
      seed,
      tensors: await link.sendAll(tensors),
    },
  };
}

/** Load weights into a predictor. */
export async function loadWeights(
  link: Link,
  { handle }: RemoteObject,
  bytes: Uint8Array,
): Promise<void> {
  const weights = await link.sendBytes(bytes);
  await link.call(ObjectServiceService.loadWeights, { sessionId: link.id, handle, weights }, LONG);
}

/** Compute a predictor's output. */
export async function predict(
  link: Link,
  { handle }: RemoteObject,
  input: PredictorInput,
  classes: boolean,
): Promise<Tensor> {
  const request = {
    sessionId: link.id,
    handle,
    classes,
    input:
      input instanceof Tensor
        ? { $case: "crops" as const, crops: await link.send(input) }
        : { $case: "samples" as const, samples: { ...input, dataset: input.dataset?.handle } },
  };
  return link.fetch((await link.call(ObjectServiceService.predict, request, LONG)).outputs);
}

/** Score a classifier on a dataset. */
export async function scorePredictor(
  link: Link,
  { handle }: RemoteObject,
  dataset: RemoteObject,
): Promise<Record<string, number>> {
  const request = { sessionId: link.id, handle, dataset: dataset.handle };
  return (await link.call(ObjectServiceService.scorePredictor, request, LONG_READ)).scores;
}

/** Measure how far a predictor is from equivariance under matrices. */
export async function measureEquivariance(
  link: Link,
  { handle }: RemoteObject,
  matrices: Matrices,
  { atlas, dataset, samples = 256, seed = 0 }: EquivarianceOptions,
): Promise<EquivarianceFindings[]> {
  const request = {
    sessionId: link.id,
    handle,
    atlas: atlas?.handle,
    dataset: dataset?.handle,
    matrices: await link.send(Tensor.from(matrices)),
    samples,
    seed,
  };
  return (await link.call(ObjectServiceService.measureEquivariance, request, LONG)).measured;
}

/** Measure how far each chart by itself is from equivariance under matrices. */
export async function measureCharts(
  link: Link,
  { handle }: RemoteObject,
  matrices: Matrices,
  { window, samples = 128, seed = 0 }: ChartOptions & { window: number },
): Promise<ChartFindings[]> {
  const sent = await link.send(Tensor.from(matrices));
  const request = { sessionId: link.id, handle, matrices: sent, samples, seed, window };
  return (await link.call(ObjectServiceService.measureCharts, request, LONG)).charts;
}

/** Measure how far the output at a chart's centre feels the input. */
export async function measureReach(
  link: Link,
  { handle }: RemoteObject,
  { samples = 64, seed = 0 }: ChartOptions,
): Promise<number[]> {
  const request = { sessionId: link.id, handle, samples, seed };
  return (await link.call(ObjectServiceService.measureReach, request, LONG)).felt;
}

/** Options of `Session.moveSample`. */
export interface MotionOptions {
  /** Samples to choose from (default: those that were held back from the training). */
  dataset?: RemoteObject;
  /** Generator B, n by n. */
  direction: Matrices[number];
  /** Lengths t: the sample is moved by exp(tB). */
  lengths: readonly number[];
  /** Index of the sample (default 0). */
  sample?: number;
  /** Index of the chart (default 0). */
  chart?: number;
}

/** A sample moved along a generator, for each length; class probabilities stand for logits. */
export interface MotionFrames {
  /** What the predictor sees, [T, ...]. */
  inputs: Tensor;
  /** What it says of that, [T, out, ...]. */
  predicted: Tensor;
  /** What it says of the sample as it is, moved, [T, out, ...]. */
  expected: Tensor;
  /** Whether the outputs are class probabilities. */
  classes: boolean;
  /** Mean difference of both at each length, in units of the spread; empty where nothing varies. */
  apart: number[];
}

/** Move one sample along a generator, and predict from each of its frames. */
export async function moveSample(
  link: Link,
  { handle }: RemoteObject,
  { dataset, direction, lengths, sample = 0, chart = 0 }: MotionOptions,
): Promise<MotionFrames> {
  const request = {
    sessionId: link.id,
    handle,
    dataset: dataset?.handle,
    direction: await link.sendMatrices([direction]),
    lengths: [...lengths],
    sample,
    chart,
  };
  const { inputs, predicted, expected, ...told } = await link.call(
    ObjectServiceService.moveSample,
    request,
    LONG,
  );
  return {
    inputs: await link.fetch(inputs),
    predicted: await link.fetch(predicted),
    expected: await link.fetch(expected),
    classes: told.classes,
    apart: told.apart,
  };
}

/** Options of `Session.measureEvidence`. */
export interface EvidenceOptions {
  /** Samples that judge (default: those that were held back from the training). */
  dataset?: RemoteObject;
  /** Charts that judge: the predictor's, of which some may be chosen (default: all). */
  atlas?: RemoteObject;
  /** Whether compact directions are judged at half a turn, too (default: false). */
  halfTurns?: boolean;
  /** Predictors of the same kind that were fitted to other parts of the training data. */
  refits?: readonly RemoteObject[];
  /** Directions of gl(n), [D, n, n]. */
  directions?: Matrices;
  /** Single matrices, [m, n, n], invertible. */
  matrices?: Matrices;
  /** Sizes of the moves at which directions are judged. */
  sizes?: readonly number[];
  /** Largest number of samples that judge (default 400). */
  samples?: number;
  /** Seed of the choice of samples (default 0). */
  seed?: number;
  /** Whether to look for directions of the inputs that the predictor hardly uses. */
  unused?: boolean;
}

/** Measure the skill that a predictor loses along directions and at matrices. */
export async function measureEvidence(
  link: Link,
  { handle }: RemoteObject,
  { dataset, atlas, refits = [], directions = [], matrices = [], ...options }: EvidenceOptions,
): Promise<EvidenceMeasured> {
  const { sizes = [], samples = 400, seed = 0, halfTurns = false, unused = false } = options;
  const request = {
    sessionId: link.id,
    handle,
    halfTurns,
    unused,
    dataset: dataset?.handle,
    atlas: atlas?.handle,
    refits: refits.map((refit) => refit.handle),
    directions: await link.sendMatrices(directions),
    matrices: await link.sendMatrices(matrices),
    sizes: [...sizes],
    samples,
    seed,
  };
  const found = await link.call(ObjectServiceService.measureEvidence, request, LONG);
  return EvidenceMeasured.parse({
    ...found,
    directions: found.directions.map((direction) => direction.sizes),
    unused: found.unused && (await link.decode(found.unused)),
  });
}

/** Options of `Session.auditPredictor`. */
export interface AuditOptions {
  /** Number of random samples (default 256, or all if there are fewer). */
  samples?: number;
  /** Seed of the choice of samples (default 0). */
  seed?: number;
  /** Relative error of the matrices themselves, if they were learnt (default 0). */
  accuracy?: number;
}

/** Find the layer in which a predictor from elsewhere loses an equivariance. */
export async function auditPredictor(
  link: Link,
  { handle }: RemoteObject,
  matrices: Matrices,
  { samples = 256, seed = 0, accuracy = 0 }: AuditOptions,
): Promise<AuditMeasured> {
  const sent = await link.send(Tensor.from(matrices));
  const request = { sessionId: link.id, handle, matrices: sent, samples, seed, accuracy };
  return AuditMeasured.parse(await link.call(ObjectServiceService.auditPredictor, request, LONG));
}
