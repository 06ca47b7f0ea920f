/** The user's own data and predictors: config fields, charts, and the blocks that are made of them. */
import { resolve } from "node:path";
import { z } from "zod";
import { UsageError } from "../errors.js";
import { type ConfigOf, count, type Preparation, whole } from "../experiment/define.js";
import { readBytes } from "../experiment/lookup.js";
import { Tensor } from "../tensor/index.js";
import type { AtlasOptions } from "../worker/index.js";
import { fileField } from "./data.js";

const FACTORY = /^(.+\.py):([A-Za-z_]\w*)$/; // path.py:factory
const CENTRE = /^(\d+),(\d+)$/;
const TAKES = "The predictor takes [batch, …], or all charts: [batch, charts, …]";

/** Make the config fields of a predictor that was trained elsewhere. */
export const foreignFields = () => ({
  predictor: fileField("A program (torch.jit.save, torch.export.save), or path.py:factory"),
  takes: z.enum(["chart", "charts"]).default("chart").describe(TAKES),
  outputs: whole(1, "Channels, or numbers, in the predictor's output"),
  output_key: z.string().optional().meta({
    description: "Which output to use, if the predictor returns several",
    placeholder: "name|index",
  }),
  classifier: z.boolean().default(false).describe("The outputs are logits of classes"),
  halo: count(0, "Pixels beyond r_in that the predictor reads on each side").meta({
    former: ["reach"],
  }),
});

/** Config of a predictor that was trained elsewhere. */
export interface ForeignConfig {
  predictor?: string;
  takes: "chart" | "charts";
  halo: number;
  output_key?: string;
}

/** Make the path of a foreign predictor absolute, where the worker sees the files of this machine. */
export function foreignPath(given: string, { lookup }: Preparation): string {
  const [, path, factory] = FACTORY.exec(given) ?? [];
  return path === undefined ? resolve(given) : `${lookup.workerPath(path)}:${factory}`;
}

/**
 * Make the block of a foreign predictor, and the tensors that it is made of. A program is sent to
 * the worker. The file of a module must be on the worker's machine.
 */
export async function foreignPredictor({ predictor = "", takes, halo, output_key }: ForeignConfig) {
  const [, file, factory] = FACTORY.exec(predictor) ?? [];
  const how = { takes, halo, output_key };
  if (file !== undefined)
    return { architecture: { kind: "module", params: { file, factory, ...how } } as const };
  const bytes = await readBytes(predictor);
  const program = new Tensor("uint8", [bytes.length], new Uint8Array(bytes));
  return { architecture: { kind: "program", params: how } as const, tensors: { program } };
}

/** Make the config fields of charts on planar fields. */
export const chartFields = () => ({
  charts: z.string().optional().meta({
    description: "Centres of the charts in pixels (default: the middle of the field)",
    placeholder: '"row,col …"',
  }),
  r_in: whole(14, "Radius of a chart in pixels, beside its centre"),
  r_out: whole(10, "Inner radius in pixels, where moved fields are compared"),
  margin: count(0, "Pixels beyond the chart that moved fields may use"),
});

/** Parse the centres of charts. @throws UsageError */
export function parseCentres(text: string | undefined): { row: number; col: number }[] | undefined {
  return text
    ?.trim()
    .split(/\s+/)
    .map((centre) => {
      const [, row, col] = CENTRE.exec(centre) ?? [];
      if (row === undefined)
        throw new UsageError(
          `--charts ${centre}: expected row,col in pixels`,
          'give for example --charts "32,32 64,40"',
        );
      return { row: Number(row), col: Number(col) };
    });
}

/**
 * Whether arrays are sets of vectors rather than fields: as their axes are named, or by their
 * number. The worker refuses a number that allows both.
 */
export function areSets(shape: readonly number[], axes: string | undefined): boolean {
  return axes === undefined ? shape.length < 4 : axes.includes("features");
}

/** Make the config fields that type the features of inputs and outputs (METHOD 1.6). */
export const typeFields = () => ({
  axes: z.string().optional().meta({
    description: "Axes of the inputs: n,c,y,x or n,y,x; n,items,features or n,features",
    placeholder: "names",
  }),
  inputs_as: z.string().optional().meta({
    description: "Types of the inputs' features, such as S+V: a scalar and a vector (METHOD 1.6)",
    placeholder: "type",
  }),
  targets_as: z.string().optional().meta({
    description: "Types of the outputs, likewise, or class (default: scalars)",
    placeholder: "type|class",
  }),
});

/** Config of {@link typeFields} and {@link chartFields}. */
export interface OwnAtlasConfig {
  inputs_as?: string;
  targets_as?: string;
  charts?: string;
  r_in: number;
  r_out: number;
  margin: number;
}

/**
 * Make the atlas of a dataset of arrays: charts on fields `[N, channels, H, W]`, or all of R^n for
 * sets `[N, items, features]`.
 *
 * @param shape of the dataset's inputs
 */
export function ownAtlas(
  shape: readonly number[],
  c: OwnAtlasConfig,
): Extract<AtlasOptions, { kind: "planar" | "vectors" }> {
  const [, , third = 1, fourth] = shape;
  const targets_as = c.targets_as === "class" ? undefined : c.targets_as;
  if (fourth === undefined)
    // The worker finds n from the types.
    return {
      kind: "vectors",
      params: { n: 0, features: third, inputs_as: c.inputs_as, targets_as },
    };
  const middle = [{ row: Math.floor(third / 2), col: Math.floor(fourth / 2) }];
  const { r_in, r_out, margin, inputs_as } = c;
  const charts = parseCentres(c.charts) ?? middle;
  return { kind: "planar", params: { charts, r_in, r_out, margin, inputs_as, targets_as } };
}

/** What is trained on fields, and on sets. */
const FITS = {
  planar: { architecture: "strided_cnn", epochs: 5, learning_rate: 0.01 },
  vectors: { architecture: "mlp", epochs: 30, learning_rate: 3e-3, batch_size: 64 },
} as const;

/** Make the config fields of a network that is trained on the user's arrays. */
export const ownFitFields = () => ({
  architecture: z
    .enum(["strided_cnn", "encoder_decoder", "cgnet", "mlp", "quadratic"])
    .optional()
    .meta({
      description: `Network to train (default: ${FITS.planar.architecture}; sets: ${FITS.vectors.architecture})`,
      placeholder: "kind",
    }),
  epochs: z
    .int()
    .positive()
    .optional()
    .meta({
      description: `Passes over the data (default: ${FITS.planar.epochs}; sets: ${FITS.vectors.epochs})`,
      placeholder: "number",
    }),
});

/** Make the blocks and the epochs of a network that is trained on the user's arrays. */
export function ownFit(
  c: ConfigOf<ReturnType<typeof ownFitFields>>,
  on: keyof typeof FITS,
  loss: "l1" | "cross_entropy",
) {
  const { architecture, epochs, ...rates } = FITS[on];
  const params = { loss, schedule: "cosine", ...rates } as const;
  return {
    architecture: { kind: c.architecture ?? architecture },
    training: { kind: "supervised", params } as const,
    epochs: c.epochs ?? epochs,
  };
}
