/** Plan a sweep: all its runs with all their settings, before anything starts. */
import { randomInt } from "node:crypto";
import { AtlasError, UsageError } from "../errors.js";
import type { Experiment } from "../experiment/define.js";
import { flagName } from "../experiment/names.js";
import { planRun, type RunOptions, type RunPlan } from "../experiment/runner.js";
import { newId } from "../run/folder.js";
import { VERSION } from "../version.js";
import { SWEEP_SCHEMA, type SweepFile } from "./folder.js";
import { type Point, pointsOf, type SampleOptions } from "./grid.js";
import type { Axis } from "./values.js";

/** What a sweep varies, and what it does not. */
export interface Request {
  /** The fields that vary, the slowest first. `seed` and `preset` are fields too. */
  axes: readonly Axis[];
  /** The fields that do not vary. */
  given: Readonly<Record<string, unknown>>;
  /** Seed of all runs, if no axis varies it (default: a random one). */
  seed?: number;
}

/** Options of {@link planSweep}. */
export interface PlanOptions extends SampleOptions {
  run: Pick<
    RunOptions,
    "runs" | "preset" | "tags" | "worker" | "file" | "trustCode" | "progress" | "signal" | "place"
  >;
  pool?: string;
  options: SweepFile["options"];
}

/** Most seeds: they are whole numbers below 2^32. */
const SEEDS = 2 ** 32;

/**
 * Plan a sweep. References in a config (the newest run, an algebra) are resolved now, once.
 *
 * @throws UsageError, FileError for the first cell whose settings are not accepted
 */
export async function planSweep(
  experiment: Experiment,
  { axes, given, seed = randomInt(2 ** 31) }: Request,
  { run: base, pool, options, sample, sampleSeed }: PlanOptions,
): Promise<Omit<SweepFile, "hash">> {
  // Seeds vary fastest, so that the runs of a cell stand together.
  const ordered = [...axes].sort((a, b) => Number(a.field === "seed") - Number(b.field === "seed"));
  const cells = cellsOf(ordered, pointsOf(ordered, { sample, sampleSeed }), seed);
  const run = { ...base, progress: once(base.progress) };
  const plans: RunPlan[] = [];
  for (const { values } of cells) {
    const { preset, ...fields } = values;
    const varied = preset === undefined ? run : { ...run, preset: String(preset) };
    try {
      const all = { ...given, ...fields };
      plans.push(await planRun(experiment, all, { ...varied, seed: 0 }));
    } catch (error) {
      throw inCell(error, values, cells.length);
    }
  }
  const created = new Date();
  const id = newId(experiment.name, created);
  const runs = cells.flatMap(({ seeds }, cell) => seeds.map((seed) => ({ cell, seed })));
  const digits = String(runs.length - 1).length;
  const first = plans[0]!;
  const shared = sharedOf(plans.map(({ config }) => config));
  return {
    schema: SWEEP_SCHEMA,
    id,
    created: created.toISOString(),
    experiment: experiment.name,
    file: first.file,
    code: plans.find(({ code }) => code !== undefined)?.code,
    grid: json(Object.fromEntries(axes.map(({ field, given }) => [field, given]))),
    sample: sample === undefined ? undefined : { count: sample, seed: sampleSeed ?? 0 },
    pool,
    tags: first.tags,
    worker: first.worker,
    options,
    config: shared,
    cells: plans.map(({ preset, code, config }, cell) => ({
      values: json(cells[cell]!.values),
      preset,
      code,
      config: Object.fromEntries(
        Object.entries(config).filter(([field]) => !Object.hasOwn(shared, field)),
      ),
    })),
    runs: runs.map((planned, index) => ({
      id: `${id}-${String(index).padStart(digits, "0")}`,
      ...planned,
    })),
    versions: { atlas: VERSION, node: process.version },
  };
}

interface Cell {
  /** The fields that vary, less the seed. */
  values: Record<string, unknown>;
  seeds: number[];
}

/** Gather points that differ in their seed only. */
function cellsOf(axes: readonly Axis[], points: readonly Point[], seed: number): Cell[] {
  const cells = new Map<string, Cell>();
  for (const point of points) {
    const entries = axes.map(({ field }, index) => [field, point[index]] as const);
    const own = entries.find(([field]) => field === "seed")?.[1];
    const values = Object.fromEntries(entries.filter(([field]) => field !== "seed"));
    const key = JSON.stringify(values);
    const cell = cells.get(key) ?? { values, seeds: [] };
    cell.seeds.push(own === undefined ? seed : Number(own));
    cells.set(key, cell);
  }
  return [...cells.values()];
}

/** Get the fields that have the same value in all configs. */
function sharedOf(configs: readonly RunPlan["config"][]): RunPlan["config"] {
  const [first = {}, ...others] = configs;
  return Object.fromEntries(
    Object.entries(first).filter(([field, value]) => {
      const text = JSON.stringify(value);
      return others.every(
        (other) => Object.hasOwn(other, field) && JSON.stringify(other[field]) === text,
      );
    }),
  );
}

function json<T extends object>(value: T) {
  return JSON.parse(JSON.stringify(value)) as SweepFile["config"] & SweepFile["grid"];
}

/** Say in which cell settings are not accepted. */
function inCell(error: unknown, values: Record<string, unknown>, cells: number): unknown {
  if (cells > 1 && error instanceof AtlasError)
    error.message = `${error.message} (in the cell ${describeValues(values)})`;
  return error;
}

/** Write the values of a cell: "layout 1, solver grassmann". */
export function describeValues(values: Readonly<Record<string, unknown>>): string {
  const told = Object.entries(values).map(
    ([field, value]) =>
      `${flagName(field)} ${typeof value === "object" ? JSON.stringify(value) : String(value)}`,
  );
  return told.join(", ");
}

/** Let each line be printed once, and not once for each cell. */
function once(progress: RunOptions["progress"]): RunOptions["progress"] {
  if (!progress) return undefined;
  const said = new Set<string>();
  const first = (line: string) => !said.has(line) && said.add(line);
  return Object.assign(Object.create(progress) as typeof progress, {
    info: (line: string) => first(line) && progress.info(line),
    warn: (line: string) => first(line) && progress.warn(line),
  });
}

/** Make the seeds S … S+N−1. @throws UsageError if the last is too large */
export function repeatedSeeds(seed: number | undefined, repeat: number): number[] {
  const start = seed ?? randomInt(2 ** 31);
  if (start + repeat > SEEDS)
    throw new UsageError(
      `--repeat ${repeat}: the last seed would be ${start + repeat - 1}`,
      `seeds are at most ${SEEDS - 1}`,
    );
  return Array.from({ length: repeat }, (_, index) => start + index);
}
