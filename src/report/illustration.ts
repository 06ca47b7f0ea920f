/** What an experiment says about its data for the report to show: which fields, and where the charts lie on them. */
import type { Context } from "../experiment/context.js";
import type { PlanarAtlasOptions, RemoteObject } from "../worker/session.js";
import { fieldToPng } from "./png.js";

export interface Illustration {
  /** One whose samples are fields, [channels, height, width]. */
  dataset: RemoteObject;
  /** Charts on the fields, in pixels. */
  atlas?: Pick<PlanarAtlasOptions, "charts" | "rIn" | "rOut">;
  /** Which sample (default 0) and channel (default 0). */
  sample?: number;
  channel?: number;
}

/** A field drawn, ready for the page. */
export interface Picture {
  caption: string;
  png: Buffer;
  /** [height, width], in pixels. */
  size: [number, number];
  charts: readonly { row: number; col: number }[];
  rIn?: number;
  rOut?: number;
}

// Beside the context, not in it: pictures concern the report alone.
const wanted = new WeakMap<Context, Illustration[]>();

/** Have the report show a sample of a dataset, its input and its target, with the charts. Nothing is read until the report is written. */
export function illustrate(context: Context, illustration: Illustration): void {
  wanted.set(context, [...(wanted.get(context) ?? []), illustration]);
}

/** Fetch and draw what was asked for by {@link illustrate}; samples that are not fields are passed over. */
export async function drawPictures(context: Context): Promise<Picture[]> {
  const pictures: Picture[] = [];
  for (const { dataset, atlas, sample = 0, channel = 0 } of wanted.get(context) ?? []) {
    const { inputs, targets } = await context.session.readDataset(dataset, { start: sample, count: 1 });
    for (const [kind, tensor] of [
      ["input", inputs],
      ["target", targets],
    ] as const) {
      const [, channels = 0, height = 0, width = 0] = tensor.shape;
      if (tensor.shape.length !== 4 || channel >= channels || height * width === 0) continue;
      const values = tensor.toNested() as number[][][][];
      pictures.push({
        caption: `Sample ${sample}, ${kind}${channels > 1 ? `, channel ${channel}` : ""}`,
        png: fieldToPng(values[0]![channel]!),
        size: [height, width],
        charts: atlas?.charts ?? [],
        rIn: atlas?.rIn,
        rOut: atlas?.rOut,
      });
    }
  }
  return pictures;
}
