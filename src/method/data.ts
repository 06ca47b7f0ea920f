/** Config fields for data, and reading data on the worker. */
import { z } from "zod";
import { type Frame, linearCoordinates } from "../algebra/factors.js";
import type { BlockParams } from "../blocks.js";
import { type AtlasError, RpcError } from "../errors.js";
import type { Context } from "../experiment/context.js";
import { whole } from "../experiment/define.js";
import type { ChartsOptions, RemoteObject } from "../worker/index.js";
import type { Unused } from "./unused.js";

/** A dataset, and the charts on it. */
export interface Setting {
  dataset: RemoteObject;
  atlas: RemoteObject;
  /** Samples of the same kind that no predictor is fitted to; they judge what is found. */
  others?: RemoteObject;
}

/** What a solver works on: a predictor, its dataset, and the charts. */
export interface SolverInputs extends Setting {
  predictor: RemoteObject;
  /** Basis of the algebra in which to search, [d, n, n]; left out for all that acts. */
  groupAlgebra?: readonly number[][][];
  /** How the predictor was fitted; left out for one from elsewhere. */
  fit?: Fit;
  /** What was left out of the search, because the predictor hardly uses it. */
  unused?: Unused;
}

/** How a predictor is fitted: network, training, data and charts. */
export type Fit = Parameters<Context["predictor"]>[0];

/** Select what solvers are made of. */
export function solverObjects({ others: _, fit: __, unused: ___, ...objects }: SolverInputs) {
  return objects;
}

/** Say in which units algebras and components have their names, if not in those of the data. */
export function noteUnits(ctx: Context, frame: Frame): void {
  const scales = (linearCoordinates(frame) ?? []).map((row, i) => row[i]!);
  if (scales.length === 0) return;
  const factor = Math.max(...scales) / Math.min(...scales);
  const written = factor < 10 ? factor.toFixed(1) : Math.round(factor).toLocaleString("en");
  ctx.note(
    `the components of vectors differ in size by a factor of ${written}: matrices are those of the ` +
      "data, and names those in units in which the components are of the same size",
  );
}

/**
 * Create a dataset of files that the user may not have yet.
 *
 * @param remedy how to get the files, if the worker finds none and knows no better
 */
export async function readFiles(
  ctx: Context,
  options: Parameters<Context["dataset"]>[0],
  remedy: string,
): Promise<RemoteObject> {
  try {
    return await ctx.dataset(options);
  } catch (error) {
    if (error instanceof RpcError && error.reason === "FILE_MISSING") {
      const { expected, remedy: own = "" } = error;
      if (["", `expected: ${expected}`].includes(own)) (error as AtlasError).remedy = remedy;
    }
    throw error;
  }
}

/** Make a config field for a file. */
export const fileField = (description: string) =>
  z.string().optional().meta({ description, placeholder: "file", file: true });

/** Make a config field for a folder of data on the worker's machine. */
export const folderField = (fallback: string, description: string) =>
  z.string().default(fallback).meta({ description, placeholder: "dir", file: true });

/**
 * Make the config fields for what is read of a table.
 *
 * @param label default column of the class
 */
export const tableFields = (label: string) => ({
  table: z.string().default("table").meta({
    description: "Name of the table in each file",
    placeholder: "key",
  }),
  label: z.string().default(label).meta({
    description: "Column of the class, 0 or 1",
    placeholder: "column",
  }),
  order: z.enum(["drawn", "file"]).default("drawn").meta({
    description: "Rows to read if not all: drawn, or the first",
    before: "file",
  }),
});

/**
 * Put the samples of a training beside those of the scores, and warn if they share any.
 *
 * @param noun what the samples are, in the plural
 */
export async function withOthers(
  ctx: Context,
  dataset: RemoteObject,
  others: RemoteObject,
  noun: string,
): Promise<{ dataset: RemoteObject; others: RemoteObject }> {
  const shared = await ctx.timed("dataset", () => ctx.session.countShared(dataset, others));
  const all = others.shapes?.inputs[0] ?? 0;
  if (shared > 0)
    ctx.note(
      `${shared} of the ${all} ${noun} for the scores are among those of the training: ` +
        "the scores say little",
    );
  return { dataset, others };
}

/** Make the config fields that say where a worker caches decoded fields. */
export const cacheFields = () => ({
  storage: z
    .enum(["disk", "memory"])
    .default("disk")
    .meta({
      description: "Cache decoded fields on disk or in memory",
      former: ["keep"],
    }),
  cache: z.string().optional().meta({
    description: "Worker's folder for the cache (default: the worker's choice)",
    placeholder: "dir",
    file: true,
  }),
});

/** Make a note for the result that says where decoded fields are cached. */
export function cacheNotes(...datasets: readonly RemoteObject[]): string[] {
  const places = datasets
    .map(({ facts }) => facts.cache)
    .filter((place) => typeof place === "string");
  if (places.length === 0) return [];
  const clear = "clear the cache there with: atlas data cache --clear";
  return [`decoded fields are cached in ${places.join(" and ")}; ${clear}`];
}

/**
 * Make the config fields for planar charts in a column in the middle of a field.
 *
 * @param rows default centres, as fractions of the height
 * @param r_in default radius, in rows of the files (before every n-th row is taken)
 * @param r_out default inner radius, in rows of the files
 * @param margin default margin, in rows of the files
 */
export const columnFields = (rows: string, r_in: number, r_out: number, margin: number) => ({
  rows: z
    .string()
    .refine(
      (text) => sharesOf(text) !== undefined,
      "expected numbers between 0 and 1, as in 0.35 0.65",
    )
    .default(rows)
    .meta({
      description: "Chart rows, 0 north to 1 south",
      placeholder: "shares",
    }),
  r_in: whole(r_in, "Radius of the charts, in rows of the files"),
  r_out: whole(r_out, "Inner radius, where moved fields are compared"),
  margin: z
    .int()
    .min(0)
    .default(margin)
    .describe("Pixels beyond the chart that moved fields may use"),
});

/** How winds on weather maps are moved. */
export type Winds = NonNullable<BlockParams["dataset"]["climatenet"]["winds"]>;

/** Make the config field that says how winds on weather maps are moved. */
export const windsField = () =>
  z
    .enum(["scalars", "vectors"] satisfies Winds[])
    .default("scalars")
    .meta({ description: "Move winds as scalars or as vectors", before: "scalars" });

/**
 * Make the charts of {@link columnFields} on a dataset with every `stride`-th row and column.
 *
 * @param inputs_as type of the channels; left out for scalars
 */
export function columnCharts(
  { shapes }: RemoteObject,
  c: { rows: string; r_in: number; r_out: number; margin: number; stride: number },
  inputs_as?: string,
): Extract<ChartsOptions, { kind: "planar" }> {
  const [, , height = 0, width = 0] = shapes?.inputs ?? [];
  const pixels = (rows: number) => Math.round(rows / c.stride);
  const col = Math.round(width / 2);
  const params = {
    charts: (sharesOf(c.rows) ?? []).map((share) => ({ row: Math.round(share * height), col })),
    r_in: Math.max(1, pixels(c.r_in)),
    r_out: Math.max(1, pixels(c.r_out)),
    margin: pixels(c.margin),
    output_interpolation: "nearest" as const,
    ...(inputs_as && { inputs_as }),
  };
  return { kind: "planar", params };
}

/** Parse fractions of a height. @returns undefined if the text is anything else */
function sharesOf(rows: string): number[] | undefined {
  const shares = rows
    .trim()
    .split(/[\s,]+/)
    .map(Number);
  return shares.every((share) => share > 0 && share < 1) ? shares : undefined;
}
