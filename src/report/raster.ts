/**
 * Fields as images: values in viridis, classes in class colours, and where predictions are right.
 */
import type { Tensor } from "../tensor/index.js";
import { type Colour, type Raster, TRANSPARENT } from "./png.js";

/** One channel of a sample. */
export interface Field {
  height: number;
  width: number;
  /** Row-major. */
  values: ArrayLike<number>;
}

/** The classes of a field of labels. */
export interface Classes {
  /** Number of classes. Labels run from 0 to count - 1. */
  count: number;
  /** The class "nothing here". It has no colour, and does not count when predictions are judged. */
  background?: number;
  /** Names of the classes (default: their numbers). */
  names?: readonly string[];
}

/** Viridis (Smith & van der Walt 2015) at equal steps. */
const VIRIDIS: readonly Colour[] = [
  [68, 1, 84],
  [72, 40, 120],
  [62, 74, 137],
  [49, 104, 142],
  [38, 130, 142],
  [31, 158, 137],
  [53, 183, 121],
  [109, 205, 89],
  [180, 222, 44],
  [253, 231, 37],
];
const FIELD_PALETTE = [TRANSPARENT, ...Array.from({ length: 255 }, (_, i) => viridis(i / 254))];

/**
 * Ten colours, on light and dark, that differ for trichromats and, as far as ten can, for
 * dichromats (OKLab distances after Machado's model).
 */
const CLASS_COLOURS: readonly Colour[] = [
  [85, 142, 211],
  [225, 151, 45],
  [92, 137, 10],
  [229, 93, 108],
  [131, 82, 208],
  [128, 83, 57],
  [253, 149, 252],
  [224, 205, 63],
  [37, 188, 191],
  [0, 106, 143],
];
const NO_PREDICTION = 1 + CLASS_COLOURS.length;
/** The colour of pixels without a prediction: a grey for light and dark pages. */
export const NO_PREDICTION_COLOUR: Colour = [128, 136, 150, 90];
const CLASS_PALETTE = [TRANSPARENT, ...CLASS_COLOURS, NO_PREDICTION_COLOUR];

/** The colour of right predictions. Blue, orange and purple differ for all eyes. */
export const RIGHT_COLOUR: Colour = [58, 134, 214];
/** The colour of wrong predictions. */
export const WRONG_COLOUR: Colour = [235, 110, 40];
/** The colour of false alarms. */
export const FALSE_ALARM_COLOUR: Colour = [190, 110, 165];
const OUTCOME_PALETTE = [
  TRANSPARENT,
  RIGHT_COLOUR,
  WRONG_COLOUR,
  NO_PREDICTION_COLOUR,
  FALSE_ALARM_COLOUR,
];

/** Get the colour of a class. The colours repeat after ten classes. */
export function classColour(label: number): Colour {
  return CLASS_COLOURS[label % CLASS_COLOURS.length]!;
}

/**
 * Get one channel of the first sample of a batch [batch, channels, height, width].
 *
 * @returns undefined if the samples are not fields, or have no such channel
 */
export function fieldOf(
  { shape, data }: Pick<Tensor, "shape" | "data">,
  channel: number,
): Field | undefined {
  const [batch = 0, channels = 0, height = 0, width = 0] = shape;
  const size = height * width;
  if (shape.length !== 4 || batch === 0 || channel >= channels || size === 0) return undefined;
  const values = data.subarray(channel * size, (channel + 1) * size);
  return {
    height,
    width,
    values: values instanceof BigInt64Array ? Array.from(values, Number) : values,
  };
}

/**
 * Get the labels of the first sample of a batch [batch, height, width] or [batch, 1, height,
 * width].
 */
export function labelsOf({ shape, data }: Tensor): Field | undefined {
  const [batch = 0, ...rest] = shape;
  return fieldOf({ data, shape: rest.length === 2 ? [batch, 1, ...rest] : shape }, 0);
}

/**
 * Get the predicted classes of the first sample of a batch [batch, height, width]; −1 becomes NaN.
 */
export function predictionsOf(tensor: Tensor): Field | undefined {
  const field = labelsOf(tensor);
  return (
    field && { ...field, values: Float32Array.from(field.values, (k) => (k < 0 ? Number.NaN : k)) }
  );
}

/** Draw a field in viridis, the least value darkest. Values that are not finite are left out. */
export function fieldRaster({ height, width, values }: Field): Raster {
  const pixels = new Uint8Array(height * width);
  let [least, most] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (let i = 0; i < pixels.length; i++)
    if (Number.isFinite(values[i]))
      [least, most] = [Math.min(least, values[i]!), Math.max(most, values[i]!)];
  const scale = most > least ? 254 / (most - least) : 0;
  for (let i = 0; i < pixels.length; i++)
    if (Number.isFinite(values[i])) pixels[i] = 1 + Math.round((values[i]! - least) * scale);
  return { height, width, pixels, palette: FIELD_PALETTE, colours: "steps" };
}

/**
 * Draw class labels in their colours. Background and unknown labels are left out. NaN: no
 * prediction.
 */
export function classRaster(
  { height, width, values }: Field,
  { count, background }: Classes,
): Raster {
  const pixels = Uint8Array.from({ length: height * width }, (_, i) => {
    const label = values[i]!;
    if (Number.isNaN(label)) return NO_PREDICTION;
    const known = Number.isInteger(label) && label >= 0 && label < count && label !== background;
    return known ? 1 + (label % CLASS_COLOURS.length) : 0;
  });
  return { height, width, pixels, palette: CLASS_PALETTE, colours: "kinds" };
}

/** A comparison of predicted classes with labels. */
export interface Outcome {
  raster: Raster;
  /** Number of pixels that have a prediction and are not background. */
  judged: number;
  /** Number of these whose prediction is right. */
  right: number;
  /** Number of pixels that are not background and have no prediction. */
  missing: number;
  /** Number of background pixels with another class as prediction. */
  falseAlarms: number;
}

/** Compare predicted classes with labels. @param predicted NaN for no prediction */
export function outcomeOf(
  labels: Field,
  predicted: Field,
  { count, background }: Classes,
): Outcome {
  const { height, width } = labels;
  const pixels = Uint8Array.from({ length: height * width }, (_, i) => {
    const label = labels.values[i]!;
    if (!(label >= 0 && label < count)) return 0;
    const guess = predicted.values[i]!;
    if (label === background) return Number.isNaN(guess) || guess === background ? 0 : 4;
    return Number.isNaN(guess) ? 3 : guess === label ? 1 : 2;
  });
  const tally = [0, 0, 0, 0, 0];
  for (const pixel of pixels) tally[pixel]!++;
  const [, right = 0, wrong = 0, missing = 0, falseAlarms = 0] = tally;
  const raster: Raster = { height, width, pixels, palette: OUTCOME_PALETTE, colours: "kinds" };
  return { raster, judged: right + wrong, right, missing, falseAlarms };
}

/**
 * Shrink an image to at most `limit` pixels on its longer side. A pixel gets the mean of the pixels
 * that it replaces if colours are steps of a scale, else their most frequent colour.
 */
export function shrunk(raster: Raster, limit: number): Raster {
  const { height: h, width: w, palette, colours } = raster;
  const scale = limit / Math.max(h, w);
  if (scale >= 1) return raster;
  const [height, width] = [Math.max(1, Math.round(h * scale)), Math.max(1, Math.round(w * scale))];
  const pixels = new Uint8Array(height * width);
  const tally = new Uint32Array(palette.length);
  for (let r = 0; r < height; r++)
    for (let c = 0; c < width; c++) {
      tally.fill(0);
      const bottom = Math.floor(((r + 1) * h) / height);
      const right = Math.floor(((c + 1) * w) / width);
      for (let y = Math.floor((r * h) / height); y < bottom; y++)
        for (let x = Math.floor((c * w) / width); x < right; x++)
          tally[raster.pixels[y * w + x]!]!++;
      pixels[r * width + c] = colours === "steps" ? meanOf(tally) : mostOf(tally);
    }
  return { ...raster, height, width, pixels };
}

/** Find the mean colour, if at least half of the pixels have a colour. */
function meanOf(tally: Uint32Array): number {
  let [count, sum] = [0, 0];
  for (let colour = 1; colour < tally.length; colour++) {
    count += tally[colour]!;
    sum += colour * tally[colour]!;
  }
  return count > 0 && count >= tally[0]! ? Math.round(sum / count) : 0;
}

/**
 * Find the most frequent colour. Of equals, the last one wins, so that small things stay visible.
 */
function mostOf(tally: Uint32Array): number {
  let most = 0;
  for (let colour = 1; colour < tally.length; colour++)
    if (tally[colour]! >= tally[most]! && tally[colour]! > 0) most = colour;
  return most;
}

function viridis(share: number): Colour {
  const at = share * (VIRIDIS.length - 1);
  const i = Math.min(VIRIDIS.length - 2, Math.floor(at));
  const [from, to] = [VIRIDIS[i]!, VIRIDIS[i + 1]!];
  const mix = (c: 0 | 1 | 2) => Math.round(from[c] + (at - i) * (to[c] - from[c]));
  return [mix(0), mix(1), mix(2)];
}
