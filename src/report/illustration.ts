/** What an experiment says about its data for the report to show: which fields, where the charts lie on them, and what is predicted of them. */
import type { Context } from "../experiment/context.js";
import type { Tensor } from "../tensor/index.js";
import type { PlanarAtlasOptions, RemoteObject, SphereAtlasOptions } from "../worker/session.js";
import type { Raster } from "./png.js";
import {
  type Classes,
  classRaster,
  fieldOf,
  fieldRaster,
  labelsOf,
  type Outcome,
  outcomeOf,
  predictionsOf,
} from "./raster.js";

/** Charts on fields: on the lattice, positions in pixels; on the sphere, positions in degrees. */
export type Charts =
  | Pick<PlanarAtlasOptions, "charts" | "rIn" | "rOut">
  | Pick<SphereAtlasOptions, "charts" | "rIn" | "rOut">;

export type Illustration = {
  /** One whose samples are fields, [channels, height, width]. */
  dataset: RemoteObject;
  /** A sample of charts on a sphere is drawn as a map and as globes. */
  atlas?: Charts;
  /** Which sample (default 0) and channel (default 0). */
  sample?: number;
  channel?: number;
  /** What the channels are called (default: by their numbers, where there are several). */
  channels?: readonly string[];
} & (
  | {
      /** The targets are class labels, one of each pixel. */
      classes: Classes;
      /** A predictor of these classes, and of how many samples, from `sample` on, its predictions are shown (default 3). */
      predictions?: { predictor: RemoteObject; samples?: number };
    }
  | { classes?: undefined; predictions?: undefined }
);

/** Something drawn, ready for the page. */
export type Picture = SamplePicture | PredictionPicture;

/** A sample's fields, with the charts. */
export interface SamplePicture {
  kind: "sample";
  fields: { caption: string; raster: Raster; classes?: Classes }[];
  charts?: Charts;
}

/** A sample, its label, what is predicted, and where that is right. */
export interface PredictionPicture {
  kind: "prediction";
  sample: number;
  input: { name: string; raster: Raster };
  label: Raster;
  predicted: Raster;
  outcome: Outcome;
  /** Some pixels have no prediction. */
  missing: boolean;
  classes: Classes;
  charts?: Charts;
}

// Beside the context, not in it: pictures concern the report alone.
const wanted = new WeakMap<Context, Illustration[]>();

/**
 * Have the report show a sample of a dataset, its input and its target, with the charts, and predictions of class labels where asked for. Nothing is
 * read until the report is written.
 */
export function illustrate(context: Context, illustration: Illustration): void {
  wanted.set(context, [...(wanted.get(context) ?? []), illustration]);
}

/** Fetch and draw what was asked for by {@link illustrate}; samples that are not fields are passed over. */
export async function drawPictures(context: Context): Promise<Picture[]> {
  const pictures: Picture[] = [];
  for (const illustration of wanted.get(context) ?? []) {
    const picture = await drawSample(context, illustration);
    if (picture.fields.length > 0) pictures.push(picture);
    pictures.push(...(await drawPredictions(context, illustration)));
  }
  return pictures;
}

async function drawSample(context: Context, illustration: Illustration): Promise<SamplePicture> {
  const { dataset, atlas: charts, sample = 0, channel = 0, channels, classes } = illustration;
  const { inputs, targets } = await context.session.readDataset(dataset, { start: sample, count: 1 });
  const fields: SamplePicture["fields"] = [];
  for (const [kind, tensor] of [
    ["input", inputs],
    ["target", targets],
  ] as const) {
    const labels = kind === "target" && classes ? labelsOf(tensor) : undefined;
    const field = fieldOf(tensor, channel);
    if (labels && classes)
      fields.push({ caption: `Sample ${sample}, label`, raster: classRaster(labels, classes), classes });
    else if (field)
      fields.push({
        caption: `Sample ${sample}, ${kind === "input" ? inputName(tensor, channel, channels) : kind + channelNumber(tensor, channel)}`,
        raster: fieldRaster(field),
      });
  }
  return { kind: "sample", fields, charts };
}

async function drawPredictions(
  { session }: Context,
  { dataset, atlas: charts, sample: first = 0, channel = 0, channels, classes, predictions }: Illustration,
): Promise<PredictionPicture[]> {
  const pictures: PredictionPicture[] = [];
  if (!classes || !predictions) return pictures;
  const { predictor, samples = 3 } = predictions;
  const { inputs: shape } = dataset.facts;
  const size = Array.isArray(shape) ? Number(shape[0]) : Number.POSITIVE_INFINITY;
  for (let sample = first; sample < Math.min(first + samples, size); sample++) {
    const range = { start: sample, count: 1 };
    const { inputs, targets } = await session.readDataset(dataset, range);
    const predicted = await session.predict(predictor, { ...range, dataset }, { classes: true });
    const [input, labels, guesses] = [fieldOf(inputs, channel), labelsOf(targets), predictionsOf(predicted)];
    if (!input || !labels || !guesses) continue;
    pictures.push({
      kind: "prediction",
      sample,
      input: { name: inputName(inputs, channel, channels), raster: fieldRaster(input) },
      label: classRaster(labels, classes),
      predicted: classRaster(guesses, classes),
      outcome: outcomeOf(labels, guesses, classes),
      missing: Array.prototype.some.call(guesses.values, Number.isNaN),
      classes,
      charts,
    });
  }
  return pictures;
}

/** "input, TMQ", "input, channel 2", or of a single channel without a name "input". */
function inputName(tensor: Tensor, channel: number, names?: readonly string[]): string {
  const name = names?.[channel];
  return `input${name === undefined ? channelNumber(tensor, channel) : `, ${name}`}`;
}

/** ", channel 2", where there are several. */
function channelNumber({ shape: [, channels = 0] }: Tensor, channel: number): string {
  return channels > 1 ? `, channel ${channel}` : "";
}
