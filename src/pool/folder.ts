/**
 * The folder of a sweep, `runs/sweeps/<id>/`. `sweep.json` is written before anything starts, and
 * never again: which runs there are, with which settings. The state of a sweep is that of its runs.
 */
import { createHash } from "node:crypto";
import { readdir, readFile, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { z } from "zod";
import { FileError, UsageError } from "../errors.js";
import { errorCode, explainFileSystem, writeFileAtomic } from "../run/atomic.js";
import { findRun, makeFolder, Run, type RunStatus } from "../run/folder.js";
import { lockHolder } from "../run/lock.js";
import { VERSION } from "../version.js";

/** The version of the schema of sweep.json. */
export const SWEEP_SCHEMA = "atlas.sweep/1";

/** Folder of the sweeps in a folder of runs. */
const SWEEPS = "sweeps";

const Config = z.record(z.string(), z.json());

/** sweep.json: what a sweep runs. */
export const SweepFile = z.object({
  schema: z.literal(SWEEP_SCHEMA),
  id: z.string().min(1),
  created: z.string(),
  /** Name of the experiment. */
  experiment: z.string().min(1),
  /** Path of the experiment's file, if it is not part of this package. */
  file: z.string().optional(),
  /** Code that a config names, which was trusted when the sweep was planned. */
  code: z.string().optional(),
  /** The fields that vary, and their values as they were given: `{"seed": ["0..4"]}`. */
  grid: z.record(z.string(), z.array(z.json())),
  /** The number of runs that were drawn at random from the grid, and the seed of the draw. */
  sample: z.object({ count: z.int(), seed: z.int() }).optional(),
  /** Words by which the user finds the runs. */
  tags: z.array(z.string()).optional(),
  /** Where the runs were to compute: a pool, or else the worker. */
  pool: z.string().optional(),
  worker: z.object({
    address: z.string(),
    device: z.string(),
    threads: z.int().positive().optional(),
    ranks: z.int().positive().optional(),
  }),
  options: z.object({
    retries: z.int().min(0),
    failFast: z.boolean(),
    maxParallel: z.int().positive().optional(),
  }),
  /** The settings that all runs share. */
  config: Config,
  /** One for each combination of values other than the seed. */
  cells: z.array(
    z.object({
      /** The fields that vary, and their values in this cell. */
      values: Config,
      preset: z.string().optional(),
      code: z.string().optional(),
      /** The settings that not all cells share. */
      config: Config,
    }),
  ),
  /** The runs, in their order. `id` is the folder in `runs/`, `cell` the index of its cell. */
  runs: z.array(z.object({ id: z.string().min(1), cell: z.int().min(0), seed: z.int().min(0) })),
  versions: z.record(z.string(), z.string()),
  /** SHA-256 of everything else. */
  hash: z.string(),
});
/** sweep.json: what a sweep runs. */
export type SweepFile = z.infer<typeof SweepFile>;
/** A run of a sweep, as it is planned. */
export type PlannedRun = SweepFile["runs"][number];

/** The state of a run in a sweep. A pending run has no folder yet. */
export type SweepRunStatus = RunStatus | "pending";

/** A sweep on disk. */
export class Sweep {
  constructor(
    readonly path: string,
    readonly file: SweepFile,
  ) {}

  /**
   * Write the folder of a new sweep.
   *
   * @throws FileError if it cannot be written
   */
  static async create(runsDir: string, planned: Omit<SweepFile, "hash">): Promise<Sweep> {
    const path = join(resolve(runsDir), SWEEPS, planned.id);
    const file = { ...planned, hash: hashOf(planned) };
    try {
      await makeFolder(path);
    } catch (error) {
      throw explainFileSystem(error, "create", path);
    }
    await writeFileAtomic(join(path, "sweep.json"), `${JSON.stringify(file, null, 1)}\n`);
    return new Sweep(path, file);
  }

  /**
   * Open a sweep.
   *
   * @throws FileError if there is none, or sweep.json is damaged or was changed
   */
  static async open(path: string): Promise<Sweep> {
    const file = join(path, "sweep.json");
    const parsed = SweepFile.safeParse(await readJson(file));
    if (!parsed.success) {
      const issue = parsed.error.issues[0]!;
      throw damaged(file, `${issue.path.join(".") || "the document"}: ${issue.message}`);
    }
    const { hash, ...rest } = parsed.data;
    if (hashOf(rest) !== hash)
      throw new FileError(
        `${file} was changed after the sweep was planned (its hash is another one)`,
        "undo the change, or plan a new sweep with: atlas sweep",
      );
    const lost = rest.runs.find(({ cell }) => rest.cells[cell] === undefined);
    if (lost) throw damaged(file, `run ${lost.id} is in cell ${lost.cell}, which is missing`);
    return new Sweep(resolve(path), parsed.data);
  }

  /** Id of the sweep. */
  get id(): string {
    return this.file.id;
  }

  /** Folder of the runs. */
  get runsDir(): string {
    return dirname(dirname(this.path));
  }

  /** Path of the report. */
  get reportPath(): string {
    return join(this.path, "report.html");
  }

  /** The folder of a run. */
  pathOf({ id }: PlannedRun): string {
    return join(this.runsDir, id);
  }

  /** All settings of the runs of a cell. */
  configOf(cell: number): Record<string, unknown> {
    return { ...this.file.config, ...this.file.cells[cell]!.config };
  }

  /** Find the state of a run. */
  async statusOf(run: PlannedRun): Promise<SweepRunStatus> {
    const path = this.pathOf(run);
    if (await exists(join(path, "result.json"))) return "finished";
    if (!(await exists(join(path, "config.json")))) return "pending";
    return (await Run.open(path)).status();
  }

  /**
   * Check that a run in the folder is the planned one.
   *
   * @throws UsageError if its settings are others
   */
  checkRun({ id, config: { config, seed, experiment } }: Run, planned: PlannedRun): void {
    const wanted = sorted(this.configOf(planned.cell));
    if (
      seed === planned.seed &&
      experiment === this.file.experiment &&
      JSON.stringify(sorted(config)) === JSON.stringify(wanted)
    )
      return;
    throw new UsageError(
      `run ${id} has other settings than sweep ${this.id} planned`,
      "undo the change of its config.json, or remove the run",
    );
  }

  /** Whether a process works in the sweep. */
  async isRunning(): Promise<boolean> {
    return (await lockHolder(this.path)) !== undefined;
  }

  /**
   * Check that this version of Atlas planned the sweep. Runs of one sweep must not differ by their
   * version.
   *
   * @throws UsageError
   */
  checkVersion(): void {
    const { atlas } = this.file.versions;
    if (atlas === VERSION) return;
    throw new UsageError(
      `sweep ${this.id} was planned by Atlas ${atlas}, and this is ${VERSION}`,
      "resume it with that version, or plan a new sweep",
    );
  }
}

/** List the sweeps in a folder of runs, the oldest first, and a line for each damaged one. */
export async function listSweeps(runsDir: string): Promise<{ sweeps: Sweep[]; damaged: string[] }> {
  const folder = join(resolve(runsDir), SWEEPS);
  const sweeps: Sweep[] = [];
  const wrong: string[] = [];
  for (const name of await namesIn(folder))
    try {
      sweeps.push(await Sweep.open(join(folder, name)));
    } catch (error) {
      wrong.push((error as Error).message);
    }
  const time = ({ file }: Sweep) => file.created;
  sweeps.sort((a, b) => time(a).localeCompare(time(b)) || a.id.localeCompare(b.id));
  return { sweeps, damaged: wrong };
}

/**
 * Find the run or the sweep that a user means. The beginning of a sweep's id is that of its runs
 * too, and means the sweep.
 *
 * @param name an id, the beginning of one, `latest` (a run), or a path
 * @throws UsageError if nothing matches, or several do
 */
export async function findRunOrSweep(runsDir: string, name: string): Promise<Run | Sweep> {
  if (await exists(join(name, "sweep.json"))) return Sweep.open(name);
  const isPath = /[\\/]/.test(name) || name === "" || name === "." || name === "..";
  if (isPath || name === "latest") return findRun(runsDir, name);
  if (await exists(join(name, "config.json"))) return findRun(runsDir, name);
  const folder = join(resolve(runsDir), SWEEPS);
  const matches = (await namesIn(folder)).filter((id) => id.startsWith(name));
  if (matches.length === 1) {
    const [id] = matches as [string];
    const runs = (await namesIn(resolve(runsDir), "config.json")).filter((run) =>
      run.startsWith(name),
    );
    if (runs.every((run) => run.startsWith(`${id}-`))) return Sweep.open(join(folder, id));
  }
  return findRun(runsDir, name);
}

/** List the folders in a folder that have a file of a name; none if the folder is missing. */
async function namesIn(folder: string, having = "sweep.json"): Promise<string[]> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(errorCode(error) ?? "")) return [];
    throw explainFileSystem(error, "list", folder);
  }
  const there = await Promise.all(names.map((name) => exists(join(folder, name, having))));
  return names.filter((_, index) => there[index]);
}

async function readJson(file: string): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    throw explainFileSystem(error, "read", file);
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw damaged(file, (error as Error).message);
  }
}

function damaged(file: string, why: string): FileError {
  return new FileError(`${file} is damaged: ${why}`, "plan the sweep anew");
}

function hashOf(file: Omit<SweepFile, "hash">): string {
  return createHash("sha256")
    .update(JSON.stringify(sorted(file)))
    .digest("hex");
}

/** Sort the keys of all objects, so that equal values are equal texts. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  entries.sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, item]) => [key, sorted(item)]));
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
