/**
 * The run folder `runs/<id>/`: config.json (complete and replayable), events.jsonl, checkpoints/, result.json, report.html.
 * Whatever happens to the process, each file is whole, and the run goes on from its last checkpoints.
 */
import { createHash, randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join, resolve } from "node:path";
import { z } from "zod";
import { FileError, UsageError } from "../errors.js";
import { errorCode, explainFileSystem, TEMPORARY_SUFFIX, writeFileAtomic } from "./atomic.js";
import { type EpochRecord, EventLog, type NewRunEvent, type RunEvent, readEvents } from "./events.js";
import { acquireLock, type Lock, lockHolder } from "./lock.js";

export const CONFIG_SCHEMA = "atlas.config/1";

/** config.json: all that is needed to do the run again. */
export const RunConfig = z.object({
  schema: z.literal(CONFIG_SCHEMA),
  id: z.string().min(1),
  created: z.string(),
  /** Name of the experiment, and its file when it is not one of ours. */
  experiment: z.string().min(1),
  file: z.string().optional(),
  preset: z.string().optional(),
  seed: z.int().min(0),
  /** Every parameter of the experiment, defaults and preset included. */
  config: z.record(z.string(), z.json()),
  /** Where it was asked to run. */
  worker: z.object({ address: z.string(), device: z.string(), threads: z.int().positive().optional() }),
  versions: z.record(z.string(), z.string()),
});
export type RunConfig = z.infer<typeof RunConfig>;

export type RunStatus = "finished" | "running" | "interrupted" | "failed";

/** A stage's state as it was saved. */
export interface Checkpoint {
  bytes: Uint8Array;
  epoch: number;
  metrics: Record<string, number>;
  /** Computing time of all its epochs. */
  seconds: number;
}

/** What `atlas runs` lists. */
export interface RunSummary {
  id: string;
  path: string;
  experiment: string;
  seed: number;
  created: string;
  status: RunStatus;
  /** Newest epoch of the newest stage, and why it stopped, in words. */
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

  /** @throws FileError when there is no run at `path` or its config.json is damaged. */
  static async open(path: string): Promise<Run> {
    return new Run(path, await readConfig(path));
  }

  get id(): string {
    return this.config.id;
  }

  async events(): Promise<RunEvent[]> {
    return (await readEvents(this.eventsPath)).events;
  }

  /** result.json as it stands, or undefined when the run is not finished. */
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
        `delete it, then write it anew with: atlas resume ${this.id}`,
      );
    }
  }

  async status(): Promise<RunStatus> {
    if (await exists(this.resultPath)) return "finished";
    if (await lockHolder(this.path)) return "running";
    return (await this.events()).at(-1)?.type === "failed" ? "failed" : "interrupted";
  }

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
   * The newest undamaged checkpoint of a stage with at most `maxEpoch` epochs: the current one, else the one before it. A file counts
   * as undamaged when the log has its SHA-256. `warn` is told, in one line, about every file that was passed over for damage.
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
        warn(`checkpoint ${path} is damaged (its checksum is not in events.jsonl): going back before it`);
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

  /** Told of every checkpoint file that was found good. */
  protected onVerified(_stage: string, _path: string): void {}

  checkpointPath(stage: string, previous = false): string {
    return join(this.path, "checkpoints", `${stage}${previous ? ".prev" : ""}.safetensors`);
  }
}

/** A run that this process works in: it holds the lock and may write. */
export class RunFolder extends Run {
  /** Stages whose current checkpoint file is known to be good; only such a file may take the place of the previous one. */
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
   * Make a new run folder under `runsDir`.
   *
   * @throws FileError when it cannot be written to.
   */
  static async create(
    runsDir: string,
    config: Omit<RunConfig, "schema" | "id" | "created">,
  ): Promise<RunFolder> {
    const created = new Date();
    const stamp = created
      .toISOString()
      .replace(/\.\d+Z$/, "")
      .replaceAll(/[-:]/g, "")
      .replace("T", "-");
    const slug = config.experiment.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
    const id = `${stamp}-${slug}-${randomBytes(2).toString("hex")}`;
    const path = resolve(runsDir, id);
    try {
      await makeFolder(resolve(runsDir));
      await mkdir(path);
      await mkdir(join(path, "checkpoints"));
    } catch (error) {
      throw explainFileSystem(error, "create", path);
    }
    const full: RunConfig = { schema: CONFIG_SCHEMA, id, created: created.toISOString(), ...config };
    try {
      await writeFileAtomic(join(path, "config.json"), `${JSON.stringify(full, null, 2)}\n`);
      return await RunFolder.acquire(path, full, "started");
    } catch (error) {
      await rm(path, { recursive: true, force: true }).catch(() => undefined);
      throw error;
    }
  }

  /**
   * Open an unfinished run to go on with it.
   *
   * @throws UsageError when another process works in it.
   */
  static async resume(path: string): Promise<RunFolder> {
    return RunFolder.acquire(path, await readConfig(path), "resumed");
  }

  /**
   * Open an unfinished run to go on with it where its session stands.
   *
   * @throws UsageError when another process works in it.
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
      const run = new RunFolder(path, config, await EventLog.open(join(path, "events.jsonl")), lock);
      await run.append({ type, pid: process.pid, host: hostname() });
      return run;
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  append(event: NewRunEvent): Promise<RunEvent> {
    return this.log.append(event);
  }

  /**
   * Save a stage's state after an epoch, keeping the one before it as `<stage>.prev.safetensors`. The log has the new file's checksum
   * before the file takes its place, so that a file in place is always either recorded or damaged.
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

  async writeResult(result: unknown): Promise<void> {
    await writeFileAtomic(this.resultPath, `${JSON.stringify(result, null, 2)}\n`);
    await this.append({ type: "finished" });
  }

  writeReport(html: string): Promise<void> {
    return writeFileAtomic(this.reportPath, html);
  }

  /** Let go of the run. */
  async close(): Promise<void> {
    await this.log.close();
    await this.lock.release();
  }
}

/** Seconds that a stage's first epochs took, up to and including `last`. */
export function computingTime(records: readonly EpochRecord[], last: number): number {
  const spent = new Map(records.map((e) => [e.epoch, e.seconds])); // an epoch done twice counts once
  let seconds = 0;
  for (const [epoch, s] of spent) if (epoch <= last) seconds += s;
  return seconds;
}

/** Every run under `runsDir`, oldest first, and one line for every folder there whose config.json is damaged. */
export async function listRuns(runsDir: string): Promise<{ runs: Run[]; damaged: string[] }> {
  let names: string[];
  try {
    names = (await readdir(runsDir, { withFileTypes: true }))
      .filter((e) => e.isDirectory())
      .map((e) => e.name);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return { runs: [], damaged: [] };
    throw explainFileSystem(error, "read", runsDir);
  }
  const runs: Run[] = [];
  const damaged: string[] = [];
  for (const name of names) {
    const path = resolve(runsDir, name);
    if (!(await exists(join(path, "config.json")))) continue; // not a run of ours
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
 * The run that a user means: an id, a unique part of one's beginning, `latest`, or a path.
 *
 * @throws UsageError when there is none or there are several.
 */
export async function findRun(runsDir: string, name: string): Promise<Run> {
  if (await exists(join(name, "config.json"))) return Run.open(resolve(name));
  const exact = join(runsDir, name);
  if (!/[\\/]/.test(name) && (await exists(join(exact, "config.json")))) return Run.open(resolve(exact));
  const { runs } = await listRuns(runsDir);
  if (name === "latest") {
    const latest = runs.at(-1);
    if (!latest) throw new UsageError(`there are no runs in ${resolve(runsDir)}`, "start one: atlas pde");
    return latest;
  }
  const matches = runs.filter((run) => run.id.startsWith(name));
  if (matches.length === 1) return matches[0]!;
  if (matches.length > 1) {
    const ids = matches.map((run) => run.id);
    throw new UsageError(
      `${JSON.stringify(name)} is the beginning of ${ids.length} runs: ${ids.slice(0, 4).join(", ")}${ids.length > 4 ? ", …" : ""}`,
      "give more of the id",
    );
  }
  throw new UsageError(
    `no run ${JSON.stringify(name)} in ${resolve(runsDir)}`,
    "list them with: atlas runs (and give the folder with --runs DIR)",
  );
}

async function readConfig(path: string): Promise<RunConfig> {
  const file = join(path, "config.json");
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    throw errorCode(error) === "ENOENT"
      ? new FileError(`${path} is not a run: it has no config.json`, "list the runs with: atlas runs")
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
  return new FileError(
    `${file} is damaged: ${why}`,
    "start the run anew; its checkpoints can still be used with --reuse_predictor FILE",
  );
}

/** `mkdir -p`. (Node's own never returns where the system answers ENOENT below a folder that exists, as in /proc.) */
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
