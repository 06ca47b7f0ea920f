/** The user's own data and predictors: config fields, charts, and the blocks that are made of them. */
import { resolve } from "node:path";
import { z } from "zod";
import { UsageError } from "../errors.js";
import { count, type Preparation, whole } from "../experiment/define.js";
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
  halo: count(0, "Pixels beyond r_in that the predictor reads on each side").meta({
    former: ["reach"],
  }),
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
 * @throws UsageError if the features of a set are not of the type that was given
 */
export function ownAtlas(
  shape: readonly number[],
  c: OwnAtlasConfig,
): Extract<AtlasOptions, { kind: "planar" | "vectors" }> {
  const [, , third = 1, fourth] = shape;
  const targets_as = c.targets_as === "class" ? undefined : c.targets_as;
  if (fourth === undefined) {
    const n = c.inputs_as === undefined ? third : sizeOf(c.inputs_as, third);
    return { kind: "vectors", params: { n, inputs_as: c.inputs_as, targets_as } };
  }
  const middle = [{ row: Math.floor(third / 2), col: Math.floor(fourth / 2) }];
  const { r_in, r_out, margin, inputs_as } = c;
  const charts = parseCentres(c.charts) ?? middle;
  return { kind: "planar", params: { charts, r_in, r_out, margin, inputs_as, targets_as } };
}

/** Find the size n of the matrices that move items with so many features of a type. */
function sizeOf(type: string, features: number): number {
  const terms = type.split("+").map((term) => /^(\d*)([A-Z])$/.exec(term.trim()));
  const order: Record<string, number> = { S: 0, P: 0, V: 1, C: 1, T: 2, F: 2 };
  if (terms.some((term) => term === null || order[term[2]!] === undefined)) return features; // the worker says which term is wrong
  const size = (n: number) =>
    terms.reduce((sum, term) => sum + Number(term![1] || 1) * n ** order[term![2]!]!, 0);
  for (let n = 1; size(n) <= features && n <= features; n++) if (size(n) === features) return n;
  throw new UsageError(
    `--inputs-as ${type}: items of ${features} features are not of that type`,
    `give a type of ${features} features: ${[1, 2, 3, 4].map((n) => `${size(n)} in R^${n}`).join(", ")} are ${type}`,
  );
}
