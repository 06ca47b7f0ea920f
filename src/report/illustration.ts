/** What the report shows of an experiment's data: fields, the charts on them, and predictions. */
import type { ChartMap } from "../result.js";
import type { Tensor } from "../tensor/index.js";
import type {
  ChartsOptions,
  RemoteObject,
  Session as WholeSession,
} from "../worker/session/index.js";
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

/**
 * Charts of one size: planar with positions in pixels, or on a sphere in degrees. Radii in pixels.
 */
export type Charts = PlanarCharts | SphereCharts;

/** Charts on a plane. */
export interface PlanarCharts {
  charts: readonly { row: number; col: number }[];
  rIn: number;
  rOut: number;
}

/** Charts on a sphere. */
export interface SphereCharts {
  charts: readonly { latitude: number; longitude: number }[];
  rIn: number;
  rOut: number;
}

/** The methods of a session that drawing needs. */
type Session = Pick<WholeSession, "readDataset" | "predict">;

/** What the report shows of a dataset. */
export type Illustration = {
  /** A dataset whose samples are fields, [channels, height, width]. */
  dataset: RemoteObject;
  /** Charts to draw. With charts on a sphere, a sample is drawn as a map and as globes. */
  atlas?: ChartsOptions | Charts;
  /** Where on the charts the symmetry holds. */
  map?: ChartMap;
  /** Index of the sample (default 0). */
  sample?: number;
  /** Index of the channel (default 0). */
  channel?: number;
  /** Names of the channels (default: their numbers, if there are several). */
  channels?: readonly string[];
} & (
  | {
      /** Classes of the targets, which are one label for each pixel. */
      classes: Classes;
      /**
       * A predictor of these classes, and the number of samples to show from `sample` on (default
       * 3).
       */
      predictions?: { predictor: RemoteObject; samples?: number };
    }
  | { classes?: undefined; predictions?: undefined }
);

/** A drawing for the page. */
export type Picture = SamplePicture | PredictionPicture;

/** The fields of a sample, with the charts. */
export interface SamplePicture {
  kind: "sample";
  fields: { caption: string; raster: Raster; classes?: Classes }[];
  charts?: Charts;
  map?: ChartMap;
}

/** A sample, its label, its prediction, and where the prediction is right. */
export interface PredictionPicture {
  kind: "prediction";
  sample: number;
  input: { name: string; raster: Raster };
  label: Raster;
  predicted: Raster;
  outcome: Outcome;
  /** Whether some pixels have no prediction. */
  missing: boolean;
  classes: Classes;
  charts?: Charts;
}

/** Whether charts are on a sphere. */
export function isSpherical(charts: Charts): charts is SphereCharts {
  return charts.charts.some((chart) => "latitude" in chart);
}

/** Read and draw the illustrations. Samples that are not fields are skipped. */
export async function drawPictures(
  session: Session,
  illustrations: readonly Illustration[],
): Promise<Picture[]> {
  const pictures: Picture[] = [];
  for (const illustration of illustrations) {
    const picture = await drawSample(session, illustration);
    if (picture.fields.length > 0) pictures.push(picture);
    pictures.push(...(await drawPredictions(session, illustration)));
  }
  return pictures;
}

function placed(atlas: Illustration["atlas"]): Charts | undefined {
  if (atlas === undefined || !("kind" in atlas)) return atlas;
  const { charts = [], r_in: rIn = 0, r_out: rOut = 0 } = atlas.params ?? {};
  return { charts, rIn, rOut } as Charts;
}

async function drawSample(session: Session, illustration: Illustration): Promise<SamplePicture> {
  const { dataset, atlas, sample = 0, channel = 0, channels, classes } = illustration;
  const { inputs, targets } = await session.readDataset(dataset, { start: sample, count: 1 });
  const fields: SamplePicture["fields"] = [];
  for (const [kind, tensor] of [
    ["input", inputs],
    ["target", targets],
  ] as const) {
    const labels = kind === "target" && classes ? labelsOf(tensor) : undefined;
    const field = fieldOf(tensor, channel);
    if (labels && classes)
      fields.push({
        caption: `Sample ${sample}, label`,
        raster: classRaster(labels, classes),
        classes,
      });
    else if (field)
      fields.push({
        caption:
          `Sample ${sample}, ` +
          (kind === "input"
            ? inputName(tensor, channel, channels)
            : kind + channelNumber(tensor, channel)),
        raster: fieldRaster(field),
      });
  }
  return { kind: "sample", fields, charts: placed(atlas), map: illustration.map };
}

async function drawPredictions(
  session: Session,
  { dataset, atlas, sample: first = 0, channel = 0, channels, classes, predictions }: Illustration,
): Promise<PredictionPicture[]> {
  const pictures: PredictionPicture[] = [];
  if (!classes || !predictions) return pictures;
  const { predictor, samples = 3 } = predictions;
  const [size = Number.POSITIVE_INFINITY] = dataset.shapes?.inputs ?? [];
  for (let sample = first; sample < Math.min(first + samples, size); sample++) {
    const range = { start: sample, count: 1 };
    const { inputs, targets } = await session.readDataset(dataset, range);
    const predicted = await session.predict(predictor, { ...range, dataset }, { classes: true });
    const [input, labels, guesses] = [
      fieldOf(inputs, channel),
      labelsOf(targets),
      predictionsOf(predicted),
    ];
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
      charts: placed(atlas),
    });
  }
  return pictures;
}

/**
 * Name an input: "input, TMQ", "input, channel 2", or "input" for a single channel without a name.
 */
function inputName(tensor: Tensor, channel: number, names?: readonly string[]): string {
  const name = names?.[channel];
  return `input${name === undefined ? channelNumber(tensor, channel) : `, ${name}`}`;
}

/** Number a channel: ", channel 2", or "" for a single channel. */
function channelNumber({ shape: [, channels = 0] }: Tensor, channel: number): string {
  return channels > 1 ? `, channel ${channel}` : "";
}
