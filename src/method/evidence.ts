/** Score predictors (METHOD 4.6), measure their equivariance (METHOD 4.5), and describe both. */
import type { Context } from "../experiment/context.js";
import type { Classes, Illustration } from "../report/index.js";
import type { Equivariance } from "../result.js";
import type { EquivarianceOptions, RemoteObject } from "../worker/index.js";

/**
 * Score a classifier on a dataset.
 *
 * @returns the scores of `Session.scorePredictor`, sorted by name
 */
export async function score(
  ctx: Context,
  predictor: RemoteObject,
  dataset: RemoteObject,
): Promise<Record<string, number>> {
  const scores = await ctx.timed("scores", () => ctx.session.scorePredictor(predictor, dataset));
  return Object.fromEntries(Object.entries(scores).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Score a classifier of pixels on other data, and let the report show its predictions. */
export function scoreAndShow(
  ctx: Context,
  predictor: RemoteObject,
  dataset: RemoteObject,
  { samples, ...show }: Shown & { samples?: number },
): Promise<Record<string, number>> {
  ctx.illustrate({ dataset, ...show, predictions: { predictor, samples } });
  return score(ctx, predictor, dataset);
}

/** What the report shows of a classification of pixels. */
export type Shown = Omit<Extract<Illustration, { classes: Classes }>, "dataset" | "predictions">;

/** Measure how far a predictor is from equivariance under matrices, each with a name. */
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
  return measured.map(({ distance, relativeError, interpolationError }, i) => ({
    name: named[i]![0],
    matrix: named[i]![1],
    distance,
    relativeError,
    interpolation: distance > 0 ? (relativeError * interpolationError) / distance : 0,
  }));
}

/** Make the matrix that rotates the plane by an angle in degrees. */
export function planeRotation(degrees: number): number[][] {
  const [c, s] = [Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180)];
  return [
    [c, -s],
    [s, c],
  ];
}

/** Make the matrix that stretches the plane along its two axes. */
export function planeStretch(along: number, across: number): number[][] {
  return [
    [along, 0],
    [0, across],
  ];
}

/** Make the matrix that shears the plane. */
export function planeShear(by: number): number[][] {
  return [
    [1, by],
    [0, 1],
  ];
}

/** Make rotations of the plane by angles in degrees, with names, for {@link equivarianceUnder}. */
export function planeRotations(angles: readonly number[]): Record<string, number[][]> {
  return Object.fromEntries(angles.map((a) => [`rotation by ${a}°`, planeRotation(a)]));
}

/**
 * Make typical elements of GL(2), with names, for {@link equivarianceUnder}. The reflection is not
 * in the identity component.
 */
export function planeMoves(): Record<string, number[][]> {
  return {
    ...planeRotations([90, 180]),
    "scaling by 1.5": planeStretch(1.5, 1.5),
    "scaling by 2/3": planeStretch(2 / 3, 2 / 3),
    "stretch by 1.5": planeStretch(1.5, 2 / 3),
    "shear by 0.7": planeShear(0.7),
    reflection: planeStretch(1, -1),
  };
}

/** Say in a note that the predictor's own quality limits the result. @param quality in words */
export function measuredOnPredictor(quality: string): string {
  const limit = "symmetries are measured on the predictor, so its own errors count against them";
  return `${limit} (${quality})`;
}

/** Write a fraction in percent: "91.6 %". */
export function percent(share = Number.NaN): string {
  return `${(100 * share).toFixed(1)} %`;
}

/** Describe overlaps: "mean IoU 0.480 on other data (experts 0.520; best constant 0.310)". */
export function describeIoU(scores: Readonly<Record<string, number | null>>): string {
  const said = (name: string, key: string) => {
    const iou = scores[key];
    return typeof iou === "number" ? [`${name} ${iou.toFixed(3)}`] : [];
  };
  const [mean = ""] = said("mean IoU", "mean_iou");
  const beside = [
    ...said("experts", "experts_mean_iou"),
    ...said("best constant", "trivial_mean_iou"),
  ];
  return `${mean} on other data${beside.length === 0 ? "" : ` (${beside.join("; ")})`}`;
}
