/**
 * The run folder `runs/<id>/`: config.json (complete and replayable), events.jsonl, checkpoints/,
 * result.json, report.html. Whatever happens to the process, each file is complete, and the run can
 * continue from its last checkpoints.
 */
import { createHash, randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join, resolve } from "node:path";
import { z } from "zod";
import { FileError, UsageError } from "../errors.js";
import { errorCode, explainFileSystem, TEMPORARY_SUFFIX, writeFileAtomic } from "./atomic.js";
import {
  type EpochRecord,
  EventLog,
  type NewRunEvent,
  type RunEvent,
  readEvents,
} from "./events.js";
import { LIVE } from "./live.js";
import { acquireLock, type Lock, lockHolder } from "./lock.js";

/** The version of the schema of config.json. */
export const CONFIG_SCHEMA = "atlas.config/1";

/** config.json: everything that is needed to repeat the run. */
export const RunConfig = z.object({
  schema: z.literal(CONFIG_SCHEMA),
  id: z.string().min(1),
  created: z.string(),
  /** Name of the experiment. */
  experiment: z.string().min(1),
  /** Path of the experiment's file, if it is not part of this package. */
  file: z.string().optional(),
  preset: z.string().optional(),
  /** Code that the config names, which was trusted when the run began. */
  code: z.string().optional(),
  seed: z.int().min(0),
  /** Words by which the user finds the run. */
  tags: z.array(z.string()).optional(),
  /** Every parameter of the experiment, defaults and preset included. */
  config: z.record(z.string(), z.json()),
  /** The requested worker. */
  worker: z.object({
    address: z.string(),
    device: z.string(),
    threads: z.int().positive().optional(),
    /** Processes that share each supervised training (unset: 1). */
    ranks: z.int().positive().optional(),
  }),
  versions: z.record(z.string(), z.string()),
});
/** config.json: everything that is needed to repeat the run. */
export type RunConfig = z.infer<typeof RunConfig>;

/** The state of a run. */
export type RunStatus = "finished" | "running" | "interrupted" | "failed";

/** The saved state of a stage. */
export interface Checkpoint {
  bytes: Uint8Array;
  epoch: number;
  metrics: Record<string, number>;
  /** Computing time of all its epochs, in seconds. */
  seconds: number;
}

/** A run in the list of `atlas runs`. */
export interface RunSummary {
  id: string;
  path: string;
  experiment: string;
  seed: number;
  created: string;
  status: RunStatus;
  /** The newest epoch of the newest stage, and the reason of a failure, in words. */
  detail: string;
}

/** A run on disk, open for reading. */
export class Run {
  readonly eventsPath: string;
  readonly resultPath: string;
  readonly reportPath: string;

  protected constructor(
    readonly path: string,
    readonly config: RunConfig,
  ) {
    this.eventsPath = join(path, "events.jsonl");
    this.resultPath = join(path, "result.json");
    this.reportPath = join(path, "report.html");
  }

  /** Open a run. @throws FileError if `path` is not a run, or its config.json is damaged */
  static async open(path: string): Promise<Run> {
    return new Run(path, await readConfig(path));
  }

  /** Id of the run. */
  get id(): string {
    return this.config.id;
  }

  /** Read the events of the run. */
  async events(): Promise<RunEvent[]> {
    return (await readEvents(this.eventsPath)).events;
  }

  /** Read result.json. @returns undefined if the run is not finished */
  async result(): Promise<unknown> {
    let text: string;
    try {
      text = await readFile(this.resultPath, "utf8");
    } catch (error) {
      if (errorCode(error) === "ENOENT") return undefined;
      throw explainFileSystem(error, "read", this.resultPath);
    }
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new FileError(
        `${this.resultPath} is damaged: ${(error as Error).message}`,
        `delete it, then write it again with: atlas resume ${this.id}`,
      );
    }
  }

  /** Find the state of the run. */
  async status(): Promise<RunStatus> {
    if (await exists(this.resultPath)) return "finished";
    if (await lockHolder(this.path)) return "running";
    return (await this.events()).at(-1)?.type === "failed" ? "failed" : "interrupted";
  }

  /** Summarise the run for a list. */
  async summary(): Promise<RunSummary> {
    const events = await this.events();
    const epoch = events.findLast((e) => e.type === "epoch");
    const status = await this.status();
    const last = events.at(-1);
    const position = epoch ? `${epoch.stage} ${epoch.epoch}/${epoch.totalEpochs}` : "no epoch yet";
    const { id, config, path } = this;
    return {
      id,
      path,
      experiment: config.experiment,
      seed: config.seed,
      created: config.created,
      status,
      detail:
        status === "finished"
          ? ""
          : status === "failed" && last?.type === "failed"
            ? `${position}: ${last.message}`
            : position,
    };
  }

  /**
   * Read the newest good checkpoint of a stage: the current one, or the one before it. A checkpoint
   * is good if its SHA-256 is in the log.
   *
   * @param warn called with a line for every damaged file that is skipped
   * @param maxEpoch the largest number of epochs of the checkpoint
   */
  async checkpoint(
    stage: string,
    warn: (message: string) => void = () => {},
    maxEpoch = Number.POSITIVE_INFINITY,
  ): Promise<Checkpoint | undefined> {
    const records = (await this.events()).filter(
      (e): e is EpochRecord => e.type === "epoch" && e.stage === stage,
    );
    for (const path of [this.checkpointPath(stage), this.checkpointPath(stage, true)]) {
      let bytes: Buffer;
      try {
        bytes = await readFile(path);
      } catch (error) {
        if (errorCode(error) === "ENOENT") continue;
        throw explainFileSystem(error, "read", path);
      }
      const hash = sha256(bytes);
      const record = records.findLast((e) => e.checkpoint?.sha256 === hash);
      if (record === undefined) {
        warn(
          `checkpoint ${path} is damaged (its checksum is not in events.jsonl): going back to ` +
            "the one before",
        );
        continue;
      }
      this.onVerified(stage, path);
      if (record.epoch > maxEpoch) continue;
      return {
        bytes,
        epoch: record.epoch,
        metrics: record.metrics,
        seconds: computingTime(records, record.epoch),
      };
    }
    return undefined;
  }

  /** Called for every good checkpoint file. */
  protected onVerified(_stage: string, _path: string): void {}

  /** Get the path of a stage's checkpoint, the current or the previous one. */
  checkpointPath(stage: string, previous = false): string {
    return join(this.path, "checkpoints", `${stage}${previous ? ".prev" : ""}.safetensors`);
  }
}

/** Make an id of a run or a sweep: the time, the experiment, and four random digits. */
export function newId(experiment: string, created: Date): string {
  const stamp = created
    .toISOString()
    .replace(/\.\d+Z$/, "")
    .replaceAll(/[-:]/g, "")
    .replace("T", "-");
  const slug = experiment.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
  return `${stamp}-${slug}-${randomBytes(2).toString("hex")}`;
}

/**
 * Make the folder of a new run.
 *
 * @returns false if another run, of the same second, has this name
 */
async function makeRunFolder(folder: string, path: string): Promise<boolean> {
  try {
    await makeFolder(folder);
    await mkdir(path);
    await mkdir(join(path, "checkpoints"));
    return true;
  } catch (error) {
    if (errorCode(error) === "EEXIST" && (await exists(path))) return false;
    throw explainFileSystem(error, "create", path);
  }
}

/** A run in which this process works: it holds the lock and may write. */
export class RunFolder extends Run {
  /** Stages with a good current checkpoint. Only such a checkpoint may become the previous one. */
  private readonly good = new Set<string>();

  private constructor(
    path: string,
    config: RunConfig,
    private readonly log: EventLog,
    private readonly lock: Lock,
  ) {
    super(path, config);
  }

  /**
   * Make a new run folder in `runsDir`.
   *
   * @param planned the id of a run of a sweep (default: a new one)
   * @throws FileError if the folder cannot be written to
   * @throws UsageError if the planned run exists
   */
  static async create(
    runsDir: string,
    config: Omit<RunConfig, "schema" | "id" | "created">,
    planned?: string,
  ): Promise<RunFolder> {
    const created = new Date();
    const folder = resolve(runsDir);
    let id: string;
    let path: string;
    for (;;) {
      id = planned ?? newId(config.experiment, created);
      path = join(folder, id);
      if (await makeRunFolder(folder, path)) break;
      if (planned === undefined) continue;
      if (await exists(join(path, "config.json")))
        throw new UsageError(`run ${id} exists already`, "resume it");
      await rm(path, { recursive: true, force: true }); // its process died as it made the folder
    }
    const full: RunConfig = {
      schema: CONFIG_SCHEMA,
      id,
      created: created.toISOString(),
      ...config,
    };
    try {
      await writeFileAtomic(join(path, "config.json"), `${JSON.stringify(full, null, 2)}\n`);
      return await RunFolder.acquire(path, full, "started");
    } catch (error) {
      await rm(path, { recursive: true, force: true }).catch(() => undefined);
      throw error;
    }
  }

  /**
   * Open an unfinished run to resume it.
   *
   * @throws UsageError if another process works in it
   */
  static async resume(path: string): Promise<RunFolder> {
    return RunFolder.acquire(path, await readConfig(path), "resumed");
  }

  /**
   * Open an unfinished run to continue it in its session.
   *
   * @throws UsageError if another process works in it
   */
  static async attach(path: string): Promise<RunFolder> {
    return RunFolder.acquire(path, await readConfig(path), "attached");
  }

  private static async acquire(
    path: string,
    config: RunConfig,
    type: "started" | "resumed" | "attached",
  ): Promise<RunFolder> {
    const lock = await acquireLock(path);
    try {
      await removeLeftovers(path);
      await removeLeftovers(join(path, "checkpoints"));
      await rm(join(path, LIVE), { force: true }); // of a process that was killed
      const run = new RunFolder(
        path,
        config,
        await EventLog.open(join(path, "events.jsonl")),
        lock,
      );
      await run.append({ type, pid: process.pid, host: hostname() });
      return run;
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** Append an event to the log. */
  append(event: NewRunEvent): Promise<RunEvent> {
    return this.log.append(event);
  }

  /**
   * Save the state of a stage after an epoch. The former checkpoint becomes
   * `<stage>.prev.safetensors`. The checksum is logged before the file takes its place, so that a
   * file without a logged checksum is damaged.
   */
  async saveCheckpoint(
    stage: string,
    bytes: Uint8Array,
    epoch: Omit<Extract<NewRunEvent, { type: "epoch" }>, "type" | "stage" | "checkpoint">,
  ): Promise<void> {
    const path = this.checkpointPath(stage);
    const checkpoint = { sha256: sha256(bytes), bytes: bytes.length };
    await writeFileAtomic(path, bytes, async () => {
      await this.append({ type: "epoch", stage, ...epoch, checkpoint });
      if (this.good.has(stage)) await rename(path, this.checkpointPath(stage, true));
    });
    this.good.add(stage);
  }

  protected override onVerified(stage: string, path: string): void {
    if (path === this.checkpointPath(stage)) this.good.add(stage);
  }

  /** Write result.json, which finishes the run. */
  async writeResult(result: unknown): Promise<void> {
    await writeFileAtomic(this.resultPath, `${JSON.stringify(result, null, 2)}\n`);
    await this.append({ type: "finished" });
  }

  /** Write report.html. */
  writeReport(html: string): Promise<void> {
    return writeFileAtomic(this.reportPath, html);
  }

  /** Close the run, so that other processes can work in it. */
  async close(): Promise<void> {
    await this.log.close();
    await this.lock.release();
  }
}

/** Add up the seconds of a stage's epochs up to `last`. */
export function computingTime(records: readonly EpochRecord[], last: number): number {
  const spent = new Map(records.map((e) => [e.epoch, e.seconds])); // repeated epochs count once
  let seconds = 0;
  for (const [epoch, s] of spent) if (epoch <= last) seconds += s;
  return seconds;
}

/** List the runs in `runsDir`, the oldest first, and a line for every damaged config.json. */
export async function listRuns(runsDir: string): Promise<{ runs: Run[]; damaged: string[] }> {
  let names: string[];
  try {
    names = (await readdir(runsDir, { withFileTypes: true }))
      .filter((e) => e.isDirectory())
      .map((e) => e.name);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return { runs: [], damaged: [] };
    throw explainFileSystem(error, "list", runsDir);
  }
  const runs: Run[] = [];
  const damaged: string[] = [];
  for (const name of names) {
    const path = resolve(runsDir, name);
    if (!(await exists(join(path, "config.json")))) continue; // not a run
    try {
      runs.push(await Run.open(path));
    } catch (error) {
      damaged.push((error as Error).message);
    }
  }
  runs.sort((a, b) => a.config.created.localeCompare(b.config.created) || a.id.localeCompare(b.id));
  return { runs, damaged };
}

/**
 * Find the run that a user means.
 *
 * @param name an id, the beginning of one, `latest`, or a path
 * @throws UsageError if no run or several runs match
 */
export async function findRun(runsDir: string, name: string): Promise<Run> {
  if (await exists(join(name, "config.json"))) return Run.open(resolve(name));
  const exact = join(runsDir, name);
  if (!/[\\/]/.test(name) && (await exists(join(exact, "config.json"))))
    return Run.open(resolve(exact));
  const { runs } = await listRuns(runsDir);
  if (name === "latest") {
    const latest = runs.at(-1);
    if (!latest)
      throw new UsageError(`there are no runs in ${resolve(runsDir)}`, "start one: atlas pde");
    return latest;
  }
  const matches = runs.filter((run) => run.id.startsWith(name));
  if (matches.length === 1) return matches[0]!;
  if (matches.length > 1) {
    const ids = matches.map((run) => run.id);
    const some = `${ids.slice(0, 4).join(", ")}${ids.length > 4 ? ", …" : ""}`;
    throw new UsageError(
      `${JSON.stringify(name)} is the beginning of ${ids.length} runs: ${some}`,
      "give more of the id",
    );
  }
  throw new UsageError(
    `no run ${JSON.stringify(name)} in ${resolve(runsDir)}`,
    "list them with: atlas runs, or choose another folder",
    { elsewhere: true },
  );
}

async function readConfig(path: string): Promise<RunConfig> {
  const file = join(path, "config.json");
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    throw errorCode(error) === "ENOENT"
      ? new FileError(
          `${path} is not a run: it has no config.json`,
          "list the runs with: atlas runs",
        )
      : explainFileSystem(error, "read", file);
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw damagedConfig(file, (error as Error).message);
  }
  const parsed = RunConfig.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw damagedConfig(file, `${issue.path.join(".") || "the document"}: ${issue.message}`);
}

function damagedConfig(file: string, why: string): FileError {
  const error = new FileError(`${file} is damaged: ${why}`, "start the run anew");
  error.reason = "damaged_config";
  return error;
}

/**
 * Do `mkdir -p`. (Node's own hangs if the system answers ENOENT in an existing folder, as in
 * /proc.)
 */
export async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    const code = errorCode(error);
    if (code === "EEXIST" && (await stat(path)).isDirectory()) return;
    if (code !== "ENOENT" || (await exists(dirname(path)))) throw error;
    await makeFolder(dirname(path));
    await mkdir(path);
  }
}

async function removeLeftovers(folder: string): Promise<void> {
  try {
    for (const name of await readdir(folder))
      if (name.startsWith(".") && name.endsWith(TEMPORARY_SUFFIX))
        await rm(join(folder, name), { force: true });
  } catch (error) {
    throw explainFileSystem(error, "write", folder);
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch {
    return false;
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
