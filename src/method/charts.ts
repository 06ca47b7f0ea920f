/** Where the charts are, and on which of them the symmetry holds (METHOD 2.10). */
import { readFile, stat } from "node:fs/promises";
import { z } from "zod";
import { expm } from "../algebra/index.js";
import type { Block } from "../blocks.js";
import { UsageError } from "../errors.js";
import type { Context } from "../experiment/context.js";
import { count, whole } from "../experiment/define.js";
import type { LatticeParams, PlanarParams } from "../gen/blocks.js";
import type { AlgebraResult, ChartMap, MappedChart } from "../result.js";
import type { AtlasOptions, ChartFindings, RemoteObject } from "../worker/index.js";
import { type AlgebraConfig, solveAlgebra } from "./algebra.js";
import type { SolverInputs } from "./data.js";
import { growAlgebra } from "./grow.js";

/** A chart's centre in pixels. */
export interface Centre {
  row: number;
  col: number;
}

/** Make the config fields of charts on planar fields. */
export const chartFields = () => ({
  charts: z.string().optional().meta({
    description: 'Where: "row,col …", grid:4x4, a FILE, or auto (default: the middle)',
    placeholder: "charts",
  }),
  r_in: whole(14, "Radius of a chart in pixels, beside its centre"),
  r_out: whole(10, "Inner radius, where moved fields are compared"),
  margin: count(0, "Pixels beyond the chart that moved fields may use"),
});

const CENTRE = /^(\d+),(\d+)$/;
const GRID = /^grid:([1-9]\d?)x([1-9]\d?)$/;
/** A grid of charts on fields of 1 or 3 dimensions. */
const SPATIAL = /^grid:[1-9]\d?(x[1-9]\d?x[1-9]\d?)?$/;
const FORMS = 'give for example --charts "32,32 64,40", grid:4x4, auto, or a file of such lines';

/**
 * Check `--charts`, and read it from a file if it names one.
 *
 * @returns the text, with the centres in place of a file
 * @throws UsageError
 */
export async function readCharts(text: string | undefined): Promise<string | undefined> {
  const given = text?.trim();
  if (given === undefined || given === "auto" || GRID.test(given) || SPATIAL.test(given))
    return given;
  const isFile = await stat(given).then(
    (s) => s.isFile() || s.isFIFO(),
    () => false,
  );
  // Charts of 1 and of 3 dimensions have another count of numbers.
  if (
    !isFile &&
    /^\d+(,\d+,\d+)?(\s|$)/.test(given) &&
    given.split(/\s+/).every((c) => PLACE.test(c))
  )
    return given;
  if (!isFile) return parseCentres(given) && given;
  const lines = (await readFile(given, "utf8")).split("\n").map((line) => line.split("#")[0]!);
  const words = lines.map((line) => line.trim().replace(/\s*[,;\s]\s*/, ","));
  const centres = words.filter((word, i) => word !== "" && !(i === 0 && /^[a-z]/i.test(word)));
  if (centres.length === 0) throw new UsageError(`${given} lists no charts`, FORMS);
  try {
    parseCentres(centres.join(" "));
  } catch (error) {
    throw new UsageError(`${given}: ${(error as Error).message}`, FORMS);
  }
  return centres.join(" ");
}

/** Parse the centres of charts. @throws UsageError */
export function parseCentres(text: string): Centre[] {
  return text
    .trim()
    .split(/\s+/)
    .map((centre) => {
      const [, row, col] = CENTRE.exec(centre) ?? [];
      if (row === undefined)
        throw new UsageError(`--charts ${centre}: expected row,col in pixels`, FORMS);
      return { row: Number(row), col: Number(col) };
    });
}

/** Place `count` centres at equal distances from `first` to `last`; a single one in the middle. */
export function spaced(first: number, last: number, count: number): number[] {
  if (count === 1 || last <= first) return [Math.floor((first + last + 1) / 2)];
  const step = (last - first) / (count - 1);
  return [...new Set(Array.from({ length: count }, (_, i) => Math.round(first + i * step)))];
}

function crossed(rows: readonly number[], cols: readonly number[]): Centre[] {
  return rows.flatMap((row) => cols.map((col) => ({ row, col })));
}

/**
 * Find the centres that `--charts` asks for. With `auto`, charts of the given size tile the field.
 *
 * @param height of the fields
 * @param width of the fields
 * @param r_in radius of the charts, which stay on the field
 * @param r_out radius of the parts that tile the field
 */
export function centresOf(
  text: string | undefined,
  height: number,
  width: number,
  r_in: number,
  r_out = r_in,
): Centre[] {
  if (text === "auto") {
    const along = (size: number) =>
      spaced(r_in, size - 1 - r_in, Math.max(1, Math.round((size - 2 * r_in) / (2 * r_out + 1))));
    return crossed(along(height), along(width));
  }
  const [, rows, cols] = GRID.exec(text ?? "") ?? [];
  if (rows !== undefined)
    return crossed(
      spaced(r_in, height - 1 - r_in, Number(rows)),
      spaced(r_in, width - 1 - r_in, Number(cols)),
    );
  if (text !== undefined && SPATIAL.test(text))
    throw new UsageError(`--charts ${text}: expected two numbers, as in grid:4x4`, FORMS);
  if (text !== undefined) return parseCentres(text);
  return [{ row: Math.floor(height / 2), col: Math.floor(width / 2) }];
}

const PLACE = /^\d+(,\d+)*$/;

/** Margin, in pixels, of charts of 3 dimensions, whose corners move furthest. */
const MARGIN = 2;
/** Most pixels beyond a chart that a network of 1 and of 3 dimensions reads by default. */
const BEYOND = { 1: 16, 3: 8 } as const;

/**
 * Place charts on fields of 1 or 3 dimensions, and make the network that fits them (METHOD 2.10).
 *
 * @param lattice size of the fields along each axis
 * @param given what the user gave: centres or a grid, and lengths in pixels
 * @throws UsageError if the charts are given in another form
 */
export function latticeCharts(
  lattice: readonly number[],
  given: { charts?: string; r_in?: number; r_out?: number; margin?: number },
): { charts: LatticeParams; network: { stride: number; layers: number } } {
  const n = lattice.length as 1 | 3;
  const half = Math.floor((Math.min(...lattice) - 1) / 2);
  const r_in = given.r_in ?? Math.min(14, Math.max(1, Math.round(0.36 * half)));
  const r_out =
    given.r_out ?? Math.max(Math.min(1, r_in), Math.round((n === 3 ? 0.5 : 0.7) * r_in));
  const margin = given.margin ?? (n === 3 && half >= r_in + 2 * MARGIN ? MARGIN : 0);
  const beyond = Math.min(half - r_in - margin, BEYOND[n]);
  const stride = beyond >= (n === 3 ? 4 : 10) ? 2 : 1;
  const layers = Math.floor((beyond - haloOf(r_in, stride, 0)) / stride);
  return {
    charts: { n, charts: sitesOf(given.charts, lattice, r_in), r_in, r_out, margin },
    network: { stride, layers: Math.max(layers, 1) },
  };
}

function sitesOf(
  text: string | undefined,
  lattice: readonly number[],
  r_in: number,
): LatticeParams["charts"] {
  const n = lattice.length;
  const example = n === 1 ? '--charts "32 64", grid:4' : '--charts "12,12,12", grid:2x2x2';
  const refuse = (why: string) => new UsageError(`--charts ${text}: ${why}`, `give ${example}`);
  const [, counts] = /^grid:([1-9]\d?(?:x[1-9]\d?)*)$/.exec(text ?? "") ?? [];
  const middle = lattice.map((size) => Math.floor(size / 2));
  let centres = [middle];
  if (text === "auto") throw refuse("auto places charts on fields of 2 dimensions");
  if (counts !== undefined) {
    const each = counts.split("x").map(Number);
    if (each.length !== n) throw refuse(`expected ${n} numbers, one for each axis`);
    const along = lattice.map((size, i) => spaced(r_in, size - 1 - r_in, each[i]!));
    centres = along.reduce<number[][]>((all, next) => all.flatMap((c) => next.map((p) => [...c, p])), [[]]); // biome-ignore format: a product
  } else if (text !== undefined)
    centres = text.trim().split(/\s+/).map((place) => place.split(",").map(Number)); // biome-ignore format: a line
  if (centres.some((centre) => centre.length !== n || centre.some(Number.isNaN)))
    throw refuse(`expected ${n} number${n === 1 ? "" : "s"} for each chart, in pixels`);
  return centres.map((c) => ({ col: c.at(-1)!, row: c.at(-2) ?? 0, layer: c.at(-3) ?? 0 }));
}

/** Change of the output below which an input is not felt, as a share of its whole variance. */
const UNFELT = 0.01;
/** Share of its own weights in a chart's network; the rest is common to all charts. */
export const OWN = 0.2;
/** Radius of the charts on which the reach is measured. */
const SURVEY = 2;

/** Count the pixels beyond a chart that `strided_cnn` reads. */
function haloOf(r_in: number, stride: number, layers: number): number {
  const kernel = stride + ((stride + 1) % 2);
  const coarse = Math.ceil(r_in / stride) + (stride > 1 ? 1 : 0);
  return stride * (coarse + layers) + Math.floor(kernel / 2) - r_in;
}

/** Find the stride and the number of layers with which `strided_cnn` reads `halo` pixels. */
function networkFor(r_in: number, halo: number): Block<"architecture"> {
  const stride = halo >= 10 ? 2 ** Math.floor(Math.log2(halo / 2.5)) : halo >= 4 ? 2 : 1;
  const layers = Math.ceil((halo - haloOf(r_in, stride, 0)) / stride);
  const params = { stride, layers: Math.min(Math.max(layers, 1), 12), own: OWN };
  return { kind: "strided_cnn", params };
}

/**
 * Place charts by `--charts auto`: their windows are as wide as the dependence reaches, and the
 * parts that are compared tile the field.
 *
 * @param view how far the compared parts stay from the edges of the field, in pixels
 */
export function tile(
  height: number,
  width: number,
  view: number,
): Pick<PlanarParams, "charts" | "r_in" | "r_out"> {
  const side = Math.min(height, width);
  const free = side - 2 * view; // of the centres' places and one compared part
  const r_out = Math.max(
    2,
    Math.min(Math.max(Math.round(0.3 * view), 4), Math.floor(free / 8)),
    Math.ceil(free / 18),
  );
  const r_in = r_out + Math.ceil(r_out / 2);
  const first = Math.max(r_out + view, r_in);
  const along = (size: number) => {
    const last = size - 1 - first;
    return spaced(first, last, Math.max(1, Math.round((last - first) / (2 * r_out + 1)) + 1));
  };
  return { charts: crossed(along(height), along(width)), r_in, r_out };
}

/** Find how far a predictor's output feels the input, in pixels; at least 1. */
async function reachOf(ctx: Context, predictor: RemoteObject): Promise<number> {
  const felt = await ctx.timed("charts", () => ctx.session.measureReach(predictor));
  return Math.max(felt.findLastIndex((share) => share > UNFELT) + 1, 1);
}

/** Options of {@link autoCharts}. */
export interface AutoOptions {
  dataset: RemoteObject;
  training: Block<"training">;
  /** Types of the features, and what else the atlas says beside the charts. */
  types: Pick<PlanarParams, "inputs_as" | "targets_as">;
}

/** Networks of growing view that are tried, by the stride and the layers of `strided_cnn`. */
const VIEWS = [
  { stride: 1, layers: 3 },
  { stride: 2, layers: 2 },
  { stride: 4, layers: 1 },
  { stride: 4, layers: 4 },
  { stride: 8, layers: 4 },
  { stride: 16, layers: 4 },
];
/** A network is as good as the best if it leaves at most so many times as much unexplained, … */
const WORSE = 2;
/** … or at most this share. */
const LITTLE = 0.02;
/** Samples that a network is fitted to while the reach is measured. */
const FITTED = 1600;

/**
 * Fit networks of growing view on a few small charts. Take the narrowest that predicts as well as
 * the best, measure how far its output feels the input, and place the charts accordingly.
 *
 * @returns the charts, and a network that reads as far
 */
export async function autoCharts(
  ctx: Context,
  { dataset, training, types }: AutoOptions,
): Promise<{ charts: PlanarParams; architecture: Block<"architecture">; reach: number }> {
  const [samples = 1, , height = 0, width = 0] = dataset.shapes!.inputs;
  const half = Math.floor((Math.min(height, width) - 1) / 2);
  const fitting = VIEWS.map((view) => ({
    ...view,
    radius: SURVEY + haloOf(SURVEY, view.stride, view.layers),
  })).filter(({ radius }) => radius <= half);
  if (half < 8 || fitting.length < 2)
    throw new UsageError(
      `fields of ${height}x${width} pixels are too small for --charts auto`,
      'give charts, for example --charts "row,col" with --r-in and --r-out',
    );
  const places = (size: number) => spaced(Math.round(size / 3), Math.round((2 * size) / 3), 2);
  const centres = crossed(places(height), places(width));
  const params = { charts: centres, r_in: SURVEY, r_out: 0, ...types };
  const atlas = await ctx.atlas({ kind: "planar", params });
  // A good part of many samples is only looked at once, which is quicker than to fit to it.
  const test = Math.min(Math.max(1 - FITTED / samples, 0.2), 0.9);
  const how = { ...training.params, test, validation: 0, patience: 0 };
  const tried: { unexplained: number; predictor: RemoteObject; view: number }[] = [];
  const asGood = (unexplained = 1) =>
    unexplained <= Math.max(WORSE * Math.min(...tried.map((t) => t.unexplained)), LITTLE);
  for (const { stride, layers, radius } of fitting) {
    // Networks of ever wider view are tried as long as that helps.
    if (stride > 4 && asGood(tried.at(-2)?.unexplained)) break;
    const fitted = await ctx.predictor({
      architecture: { kind: "strided_cnn", params: { stride, layers, own: OWN } },
      training: { ...training, params: how } as Block<"training">,
      dataset,
      atlas,
      epochs: Math.min(Math.max(Math.round(FITTED / samples / (1 - test)), 1), 20),
    });
    const { skill = 0 } = await ctx.advance(`reach_${radius}`, fitted);
    tried.push({ unexplained: 1 - skill, predictor: fitted, view: radius - SURVEY });
  }
  const narrowest = tried.findIndex((t) => asGood(t.unexplained));
  const { predictor, view } = tried[narrowest]!;
  const reach = await reachOf(ctx, predictor);
  const most = half - 4;
  if (view > most)
    ctx.note(
      `the output depends on inputs ${view} pixels away, nearly as far as these fields reach: ` +
        "charts cannot be as wide, and edges and obstacles count as errors of the symmetry",
    );
  // Beyond the reach little is felt, so that most of the view is enough to keep off the edges.
  const edge = Math.max(reach + 2, Math.round(0.85 * view));
  const placed = tile(height, width, Math.min(edge, most));
  return {
    charts: { ...placed, margin: 2, ...types },
    architecture: networkFor(placed.r_in, Math.min(view, most)),
    reach,
  };
}

/** Factor by which an error must be above that of the other charts, as in the count of generators. */
const GAP = 2;

/** Find the centre of the densest third of some numbers, and the standard deviation that fits it. */
function densest(values: readonly number[]): { centre: number; deviation: number } {
  const sorted = values.toSorted((a, b) => a - b);
  const third = Math.min(sorted.length, Math.max(2, Math.ceil(sorted.length / 3)));
  let start = 0;
  const length = (i: number) => sorted[i + third - 1]! - sorted[i]!;
  for (let i = 0; i + third <= sorted.length; i++) if (length(i) < length(start)) start = i;
  const inside = sorted.slice(start, start + third);
  // A third of a normal distribution is within 0.43 standard deviations of its centre.
  return { centre: inside.reduce((a, b) => a + b) / third, deviation: length(start) / 0.86 };
}

/**
 * Judge on which charts the symmetry holds. A chart is apart if the error of some part of it is,
 * beyond chance, above `GAP` times that of the same part of the densest third of the charts, and
 * more than interpolation may cause.
 *
 * @param threshold largest relative error of a symmetry
 */
export function judgeCharts(
  found: readonly ChartFindings[],
  threshold: number,
): MappedChart["state"][] {
  const varied = found.filter((chart) => chart.constant === 0);
  // Where most windows have constant pixels, as around a figure, these mean nothing.
  const telling = varied.length >= Math.max(1, found.length / 5);
  const compared = telling ? varied : found;
  const logs = (chart: ChartFindings) => chart.parts.map((e) => Math.log(Math.max(e, 1e-12)));
  const parts = found[0]!.parts.map((_, p) => densest(compared.map((c) => logs(c)[p]!)));
  const excess = compared.flatMap((c) => logs(c).map((e, p) => e - parts[p]!.centre));
  const { deviation } = densest(excess);
  const chance = Math.sqrt(2 * Math.log(excess.length)) + 1;
  return found.map((chart) => {
    if (telling && chart.constant > 0) return "constant";
    const apart = logs(chart).some(
      (e, p) =>
        e > Math.log(chart.interpolation) &&
        e - 2 * chart.spread[p]! - parts[p]!.centre > Math.log(GAP) &&
        e - parts[p]!.centre > chance * Math.hypot(deviation, chart.spread[p]!),
    );
    return (apart && compared.length > 3) || chart.error > threshold ? "broken" : "holds";
  });
}

/** Sizes of the tried transformations along unit generators, in units of the solver's scale. */
const SIZES = [-1.5, -0.75, 0.75, 1.5];

/** Config of {@link mapCharts}. */
interface MapConfig {
  "solver.threshold"?: number;
  "solver.scale"?: number;
}

/** Measure the error of each chart under a discovered algebra, and judge where it holds. */
export async function mapCharts(
  ctx: Context,
  c: object,
  { predictor }: SolverInputs,
  charts: PlanarParams,
  { generators, symmetryCount }: AlgebraResult,
  known?: number,
): Promise<ChartMap | undefined> {
  if (generators.length === 0) return undefined;
  const { "solver.threshold": threshold = 0.15, "solver.scale": scale = 1 } = c as MapConfig;
  const tried = generators.slice(0, Math.max(symmetryCount, 1));
  const matrices = tried.flatMap((b) => {
    const norm = Math.hypot(...b.flat()) || 1;
    return SIZES.map((t) => expm(b.map((row) => row.map((x) => (t * scale * x) / norm))));
  });
  const reach = known ?? (await reachOf(ctx, predictor));
  const window = charts.r_out + reach;
  const found = await ctx.timed("charts", () =>
    ctx.session.measureCharts(predictor, matrices, { window, seed: ctx.seedFor("charts") }),
  );
  const states = judgeCharts(found, threshold);
  return {
    rIn: charts.r_in,
    rOut: charts.r_out,
    reach,
    window,
    charts: charts.charts.map(({ row, col }, i) => {
      const { error, low, high, interpolation, constant } = found[i]!;
      return { row, col, error, low, high, interpolation, constant, state: states[i]! };
    }),
  };
}

/**
 * Find the algebra of a predictor on charts, and map where it holds. With `choose` it is sought
 * again on the charts where it holds, if it does not hold on all of them.
 *
 * @returns the algebra, the map, and what a search for components should work on
 */
export async function solveOnCharts(
  ctx: Context,
  c: AlgebraConfig,
  inputs: SolverInputs,
  { kind, params: charts }: AtlasOptions,
  { choose, reach }: { choose: boolean; reach?: number },
): Promise<{ algebra: AlgebraResult; chartMap?: ChartMap; inputs: SolverInputs }> {
  if (kind === "lattice" && c.k === "auto")
    return { algebra: await growAlgebra(ctx, c, inputs), inputs };
  if (kind !== "planar" || charts === undefined)
    return { algebra: await solveAlgebra(ctx, c, inputs), inputs };
  const solve = c.k === "auto" ? growAlgebra : solveAlgebra;
  // One generator is enough to tell the charts apart.
  const first = choose
    ? await solveAlgebra(ctx, { ...c, k: c.k === "auto" ? 1 : c.k }, inputs, "algebra_all")
    : await solve(ctx, c, inputs);
  const map = await mapCharts(ctx, c, inputs, charts, first, reach);
  const chosen = map?.charts.flatMap(({ state }, i) => (state === "holds" ? [i] : [])) ?? [];
  if (!choose) return { algebra: first, chartMap: map, inputs };
  if (chosen.length === 0 || chosen.length === map!.charts.length) {
    const algebra = first.symmetryCount > 0 && c.k === "auto" ? await solve(ctx, c, inputs) : first;
    return { algebra, chartMap: map, inputs };
  }
  const atlas = await ctx.atlas({ kind: "planar", params: { ...charts, chosen } });
  const better = { ...inputs, atlas };
  const algebra = await solve(ctx, c, better);
  const chartMap = await mapCharts(ctx, c, inputs, charts, algebra, reach);
  return { algebra, chartMap, inputs: better };
}
