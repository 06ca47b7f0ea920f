/** Run experiments: config, run folder, worker, stages, result, report. */
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { isAbsolute, join, relative, resolve } from "node:path";
import {
  AtlasError,
  Interrupted,
  RpcError,
  SetupError,
  UsageError,
  WorkerUnavailable,
} from "../errors.js";
import { formatBytes } from "../format.js";
import { type Findings, RESULT_SCHEMA, Result, withFormerNames } from "../result.js";
import { codeOf } from "../run/code.js";
import type { RunEvent, WorkerRecord } from "../run/events.js";
import { Run, RunConfig, RunFolder } from "../run/folder.js";
import { LiveSteps } from "../run/live.js";
import { checkTracker, MlflowTracker } from "../track/mlflow.js";
import { VERSION } from "../version.js";
import { parseContainer } from "../worker/container.js";
import {
  type Credentials,
  connectWorker,
  type LogLevel,
  type Place,
  placeOf,
  type Session,
  type Worker,
} from "../worker/index.js";
import { completeConfig, configReader } from "./config.js";
import { Context } from "./context.js";
import type { Experiment, GivenOf, Preview, Task, Tasks } from "./define.js";
import { RunLookup } from "./lookup.js";
import { splitMembers } from "./members.js";
import { metaOf } from "./names.js";
import { Progress } from "./progress.js";
import { writeReport } from "./report.js";

/** The default folder of runs. */
export const DEFAULT_RUNS = "runs";

/** The worker of a run. */
export interface WorkerChoice extends Credentials {
  /** "local" (default), "docker", "docker:IMAGE", "grpc://host:port" or "grpcs://host:port". */
  address?: string;
  /** "auto" (default), "cpu", "cuda", "cuda:1". */
  device?: string;
  /** CPU threads (default: the worker's choice). */
  threads?: number;
  /** Processes that share each supervised training (default 1). */
  ranks?: number;
  /** The least level of messages that a local worker logs (default "info"). */
  logLevel?: LogLevel;
}

/** Options of {@link runExperiment}. */
export interface RunOptions {
  /** Folder of run folders (default "runs"). */
  runs?: string;
  /** Seed of all randomness (default: random, and recorded). */
  seed?: number;
  /** A preset of the task (default: the task's choice). */
  preset?: string;
  /** Words by which the run can be found. */
  tags?: readonly string[];
  worker?: WorkerChoice;
  progress?: Progress;
  /** Abort it to stop the run. Finished work is saved. */
  signal?: AbortSignal;
  /** Called once the run can be attached to; `attach` is the command that does so. */
  onAttachable?: (where: { address: string; attach: string }) => void;
  /** Whether to execute code that the config names, such as a predictor's program (default: no). */
  trustCode?: boolean;
  /** Address of an MLflow server that is told of the run. A server that fails stops no run. */
  mlflow?: string;
  /** Path of the experiment's file, if it is not part of this package. */
  file?: string;
  /** Where the worker is, for the paths of files (default: as `worker` says). */
  place?: Place;
  /** The place in a pool where the run computes (default: a worker as `worker` says). */
  slot?: RunSlot;
}

/** A place in a pool: a worker that serves many runs, one after the other. */
export interface RunSlot {
  /** The pool, as the user named it: "local:2". */
  readonly pool: string;
  /** Name of the slot in its pool. */
  readonly name: string;
  /** Device of the slot's runs (default: as the run says). */
  readonly device?: string;
  /** Connect to the slot's worker. Closing the connection leaves the worker running. */
  connect(options: { signal?: AbortSignal }): Promise<Worker>;
}

/** Everything that decides the result of a run: config.json without its id and its time. */
export type RunPlan = Omit<RunConfig, "schema" | "id" | "created">;

/** Options for continuing a run. Code that the run names is executed only with `trustCode`. */
export type ContinueOptions = Pick<
  RunOptions,
  "worker" | "progress" | "signal" | "onAttachable" | "trustCode" | "slot" | "mlflow"
>;
/** @deprecated The former name of {@link ContinueOptions}. */
export type GoOnOptions = ContinueOptions;

/** A finished run. */
export interface Outcome {
  id: string;
  path: string;
  result: Result;
  /** Path of the report; undefined if it could not be written. */
  report?: string;
}

/**
 * Run an experiment from the start.
 *
 * @param given values that differ from the preset's and the schema's defaults
 * @throws UsageError, FileError, RpcError, WorkerDied …; the run can then be resumed, if it had
 * begun
 * @throws Interrupted if `signal` was aborted
 */
export async function runExperiment<T extends Tasks>(
  experiment: Experiment<T>,
  given: GivenOf<T>,
  options: RunOptions = {},
): Promise<Outcome> {
  return startPlanned(experiment, await planRun(experiment, given, options), options);
}

/**
 * Plan a run: complete and check its config, and replace references (the newest run, an algebra's
 * name) by what they refer to now. Nothing is written.
 *
 * @throws UsageError, FileError
 */
export async function planRun<T extends Tasks>(
  experiment: Experiment<T>,
  given: GivenOf<T>,
  options: RunOptions = {},
): Promise<RunPlan> {
  const runsDir = options.runs ?? DEFAULT_RUNS;
  const place = options.place ?? placeOf(options.worker?.address ?? "local");
  if (options.mlflow !== undefined) checkTracker(options.mlflow);
  const { task, config: complete, preset, notes } = completeConfig(experiment, given, options);
  const info = (line: string) => options.progress?.info(line);
  const warn = (line: string) => options.progress?.warn(line);
  if (experiment.former)
    warn(
      `experiment ${experiment.name} has the form of version 0.1; give it tasks: see ` +
        "experiments/README.md",
    );
  for (const note of notes) warn(note);
  checkCode(task, complete, options.trustCode);
  const lookup = new RunLookup(runsDir, configReader(experiment), place, options);
  for (const [field, value] of Object.entries(complete))
    if (typeof value === "string" && metaOf(task.config[field]).file)
      complete[field] = lookup.workerPath(value);
  const config = (await task.prepare?.(complete, { lookup, given, info, warn })) ?? complete;
  const recorded = experiment.former ? config : { task: task.name, ...config };
  const seed = options.seed ?? Math.floor(Math.random() * 2 ** 31);
  const { address = "local", device = "auto", threads, ranks } = options.worker ?? {};
  return {
    experiment: experiment.name,
    file: options.file && resolve(options.file), // the run may be resumed from another folder
    preset,
    seed,
    tags: options.tags && [...options.tags],
    code: task.code?.(config),
    // As read back later
    config: RunConfig.shape.config.parse(JSON.parse(JSON.stringify(recorded))),
    worker: { address, device, threads, ranks },
    versions: { atlas: VERSION, node: process.version },
  };
}

/**
 * Start a planned run.
 *
 * @param id of the run, if a sweep has planned it. Its folder then stays, whatever happens
 * @throws as {@link runExperiment}
 */
export async function startPlanned(
  experiment: Experiment,
  plan: RunPlan,
  options: RunOptions,
  id?: string,
): Promise<Outcome> {
  const run = await RunFolder.create(options.runs ?? DEFAULT_RUNS, plan, id);
  const worker = { ...options.worker, ...plan.worker };
  return execute(experiment, run, worker, options, id === undefined ? "started" : "planned");
}

/**
 * Say what a run would do, and make no run. The worker opens the data and builds the networks.
 *
 * @throws as {@link runExperiment}, and UsageError if the task cannot tell
 */
export async function previewExperiment<T extends Tasks>(
  experiment: Experiment<T>,
  given: GivenOf<T>,
  options: RunOptions = {},
): Promise<Preview> {
  const plan = await planRun(experiment, given, options);
  const { task, config } = completeConfig(experiment, plan.config, { recorded: true });
  if (task.preview === undefined)
    throw new UsageError(`task ${task.name} has no dry run`, "leave out --dry-run");
  const { progress = new Progress(), signal = new AbortController().signal } = options;
  const { address = "local", ...chosen } = options.worker ?? {};
  const folder = await mkdtemp(join(tmpdir(), "atlas-dry-run-"));
  let worker: Worker | undefined;
  let run: RunFolder | undefined;
  try {
    run = await RunFolder.create(folder, plan);
    worker = await connectWorker({
      ...chosen,
      worker: address,
      files: filesOf(task, config, experiment.former),
      trustCode: options.trustCode === true && task.code?.(config) !== undefined,
      onLog: (line) => progress.debug(line),
      onSetup: (line) => progress.info(line),
      signal,
    });
    const { devices } = worker.info;
    const { device, ranks } = options.worker ?? {};
    const session = await worker.openSession({ label: "dry run", device, ranks });
    const place = placeOf(address);
    const context = new Context({ session, run, seed: plan.seed, progress, signal, place });
    const told = await task.preview(context, config);
    const free = devices.find(({ name }) => name === session.device)?.memoryFreeBytes ?? 0;
    const where = free > 0 ? `${session.device}, ${formatBytes(free)} of memory free` : "";
    return { ...told, device: where || session.device };
  } finally {
    await worker?.close().catch(() => undefined);
    await run?.close().catch(() => undefined);
    await rm(folder, { recursive: true, force: true });
    progress.erase();
  }
}

/**
 * Continue an interrupted run from its last checkpoints.
 *
 * @throws UsageError if the run is finished, another process works on it, or it names code that is
 *   not trusted
 */
export async function resumeExperiment(
  experiment: Experiment,
  path: string,
  options: ContinueOptions = {},
): Promise<Outcome> {
  const recorded = await Run.open(path);
  checkTrust(recorded, options.trustCode);
  checkRecordedCode(experiment, recorded, options.trustCode);
  if (options.worker?.address === undefined) checkWorker(recorded.config.worker.address, options);
  const run = await RunFolder.resume(path);
  // Use the same device, threads and ranks, because with other numbers the last bits differ.
  const before = (await run.events()).find((e) => e.type === "worker");
  const worker: WorkerChoice = {
    ...options.worker,
    address: options.worker?.address ?? run.config.worker.address,
    device: options.worker?.device ?? before?.device ?? run.config.worker.device,
    threads: options.worker?.threads ?? before?.threads ?? run.config.worker.threads,
    ranks: options.worker?.ranks ?? before?.ranks ?? run.config.worker.ranks,
  };
  return execute(experiment, run, worker, options, "resumed");
}

/**
 * Continue a run in its session on a worker, after its process has ended or has lost the worker.
 * What the worker has done in the meantime counts.
 *
 * @throws UsageError if the run has no session that outlives its process, another process works on
 *   it, or it names code that is not trusted
 * @throws WorkerUnavailable if the worker cannot be reached
 * @throws AtlasError if the session has ended; the run can then be resumed
 */
export async function attachExperiment(
  experiment: Experiment,
  path: string,
  options: ContinueOptions = {},
): Promise<Outcome> {
  const run = await Run.open(path);
  checkTrust(run, options.trustCode);
  checkRecordedCode(experiment, run, options.trustCode);
  const before = await lastSession(run);
  if (before === undefined)
    throw new UsageError(
      `run ${path} cannot be attached to: its worker ended with it`,
      `continue from its last checkpoints with: atlas resume ${path}`,
    );
  const { address } = before.worker;
  checkWorker(address, options);
  return execute(
    experiment,
    await RunFolder.attach(path),
    { ...options.worker, address },
    options,
    "attached",
  );
}

/**
 * Check whether a run may be continued. A run folder is untrusted input, and so is the code that it
 * names.
 *
 * @throws UsageError if code from outside this package would be executed without trust
 */
export function checkTrust({ id, config }: Run, trusted = false): void {
  const code = codeOf(config);
  if (code === undefined || trusted) return;
  throw new UsageError(
    `continuing run ${id} would execute code: ${code}`,
    "if you trust the author of the run and of this file, give --trust-code",
  );
}

/** @throws UsageError if a new run would execute code that its config names without trust */
function checkCode(task: Task, config: Record<string, unknown>, trusted = false): void {
  const code = task.code?.(config);
  if (code === undefined || trusted) return;
  throw new UsageError(
    `${code} is code, and the run would execute it`,
    "if you trust its author, give --trust-code",
  );
}

/**
 * Do the same check for a recorded run, whose folder may deny that its config names code.
 *
 * @throws UsageError
 */
function checkRecordedCode(experiment: Experiment, { config }: Run, trusted = false): void {
  const complete = completeConfig(experiment, config.config, { recorded: true });
  checkCode(complete.task, complete.config, trusted);
}

/**
 * Check a worker that only the run's folder names. An image is code, and sees the files that the
 * run names. The token of the environment goes only to a worker that the user chose, or to this
 * machine.
 *
 * @throws UsageError if an image would be executed, or the token be sent, without the user's
 * consent
 */
function checkWorker(address: string, { worker = {}, trustCode = false }: ContinueOptions): void {
  const { ATLAS_TOKEN, ATLAS_WORKER } = process.env;
  if (ATLAS_WORKER?.replace(/\/$/, "") === address) return;
  if (!trustCode && parseContainer(address)?.image !== undefined)
    throw new UsageError(
      `the run names the worker ${address}, an image that would be executed`,
      "if you trust the author of the run and of the image, give --trust-code",
    );
  if (!ATLAS_TOKEN || worker.tokenFile !== undefined || placeOf(address) !== "remote") return;
  throw new UsageError(
    `the run names the worker ${address}, which would get the token in ATLAS_TOKEN`,
    "if that worker is yours, give --token-file, or name the worker in ATLAS_WORKER",
  );
}

/** Find a run's newest session, if it may outlive the run's process, and its events in the log. */
async function lastSession(
  run: Run,
): Promise<{ worker: WorkerRecord; session: string; events: RunEvent[] } | undefined> {
  const events = await run.events();
  const at = events.findLastIndex((e) => e.type === "worker");
  const worker = events[at];
  return worker?.type === "worker" && worker.session !== undefined
    ? { worker, session: worker.session, events: events.slice(at + 1) }
    : undefined;
}

async function execute(
  experiment: Experiment,
  run: RunFolder,
  choice: WorkerChoice,
  {
    progress = new Progress(),
    signal = new AbortController().signal,
    onAttachable,
    trustCode,
    slot,
    mlflow,
  }: RunOptions,
  mode: "started" | "planned" | "resumed" | "attached",
): Promise<Outcome> {
  let worker: Worker | undefined;
  let leave = false;
  let tracker: MlflowTracker | undefined;
  try {
    const { task, config } = completeConfig(experiment, run.config.config, { recorded: true });
    const { address = "local", ...chosen } = choice;
    worker = slot
      ? await slot.connect({ signal })
      : await connectWorker({
          ...chosen,
          worker: address,
          files: filesOf(task, config, experiment.former),
          trustCode: trustCode === true && task.code?.(config) !== undefined, // for this run only
          onLog: (line) => progress.debug(line),
          onSetup: (line) => progress.info(line),
          signal,
        });
    const last = await lastSession(run);
    const session =
      mode === "attached" && last
        ? await attachTo(worker, last.session)
        : await openFor(run, worker, { ...choice, device: slot?.device ?? choice.device }, mode);
    progress.info(`run       ${run.path}`);
    if (mlflow !== undefined)
      tracker = new MlflowTracker(mlflow, run, (line) => progress.warn(line));
    if (mode !== "attached") {
      if (last?.worker.address === worker.address) await end(worker, last.session);
      await checkSameWorker(run, worker, session, progress, slot);
    }
    if (worker.isPersistent)
      onAttachable?.({ address: worker.address, attach: `atlas attach ${nameFor(run)}` });
    const before = mode === "attached" ? last?.events : undefined;
    const place = placeOf(address);
    const live = new LiveSteps(run.path);
    const seen = { session, run, seed: run.config.seed, progress, signal, live };
    const context = new Context({ ...seen, before, place });
    let findings: Findings;
    try {
      findings = await task.run(context, config);
    } finally {
      await live.end();
    }
    const result = checked({
      schema: RESULT_SCHEMA,
      experiment: experiment.name,
      seed: run.config.seed,
      ...findings,
      notes: notesOf(findings, context),
      data: context.datasets.length === 0 ? undefined : context.datasets,
      timings: context.timings,
      environment: {
        device: session.device,
        threads: worker.info.threads,
        ...ranksOf(session),
        ...machineOf(worker),
        versions: { atlas: VERSION, node: process.version, ...sorted(worker.info.versions) },
      },
    });
    const report = await writeReport(run, result, context, progress);
    await run.writeResult(withFormerNames(result));
    return { id: run.id, path: run.path, result, report };
  } catch (error) {
    leave = error instanceof WorkerUnavailable; // the worker may only be out of reach
    throw await recordFailure(run, error, signal, mode === "started", worker === undefined);
  } finally {
    await worker?.close({ leave }).catch(() => undefined);
    await run.close().catch(() => undefined);
    await tracker?.end();
    progress.erase();
  }
}

/**
 * List the files and folders of this machine that a config names for the worker, as absolute paths.
 */
function filesOf(task: Task, config: Readonly<Record<string, unknown>>, former: boolean): string[] {
  return Object.entries(config).flatMap(([field, value]) => {
    const named = former || metaOf(task.config[field]).file;
    // "path.py:factory" and "storms.nc:T,U" also name a file.
    const path = typeof value === "string" ? splitMembers(value).file : "";
    return named && isAbsolute(path) && existsSync(path) ? [path] : [];
  });
}

async function attachTo(worker: Worker, sessionId: string): Promise<Session> {
  try {
    return await worker.attachSession(sessionId);
  } catch (error) {
    if (!(error instanceof RpcError && error.reason === "NOT_FOUND")) throw error;
    throw new AtlasError(
      `the run's session on ${worker.address} has ended: it was closed, its lease expired, or ` +
        "the worker was restarted",
      undefined,
      { cause: error },
    );
  }
}

/** End the former session of a run that continues in a new one, so that only one works on it. */
async function end(worker: Worker, sessionId: string): Promise<void> {
  await worker.attachSession(sessionId).then(
    (session) => session.close(),
    () => undefined, // it has ended already
  );
}

/** Check a result. @throws UsageError that names the field of the findings that is wrong */
function checked(result: object): Result {
  const parsed = Result.safeParse(result);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  throw new UsageError(
    `the findings of the experiment are not accepted: ${path.join(".") || "the whole"}: ${message}`,
    "let the task's run return findings as `Findings` describes them",
  );
}

/** Join the notes of the findings and those about the data; undefined if there are none. */
function notesOf({ notes }: Findings, context: Context): string[] | undefined {
  return context.notes.length === 0 ? notes : [...(notes ?? []), ...context.notes];
}

/**
 * Open the session of a run.
 *
 * @throws UsageError if a run that continues had more ranks than the worker has room for
 */
async function openFor(
  run: Run,
  worker: Worker,
  { device, ranks }: WorkerChoice,
  mode: "started" | "planned" | "resumed" | "attached",
): Promise<Session> {
  try {
    return await worker.openSession({ label: run.id, device, ranks });
  } catch (error) {
    if (!(mode === "resumed" && error instanceof RpcError && error.field === "ranks")) throw error;
    throw new UsageError(
      `run ${run.id} was trained with ${ranks} ranks: ${error.message}`,
      "resume it where there is room for as many, or ask for another number of ranks, with which " +
        "the last digits differ",
      { setting: "ranks", cause: error },
    );
  }
}

/** Tell how many processes share trainings, if there are several. */
function ranksOf({ ranks }: Session): { ranks?: number } {
  return ranks > 1 ? { ranks } : {};
}

function ranksInWords({ ranks = 1 }: { ranks?: number }): string {
  return ranks > 1 ? ` and ${ranks} ranks` : "";
}

/** Tell what the last digits depend on beside device, threads and versions. */
function machineOf({ info }: Worker) {
  const { machine, devices } = info;
  return {
    ...(machine && { processor: machine.processor, cores: machine.cores, blas: machine.blas }),
    devices: devices.map(({ name, description }) => ({ name, description })),
  };
}

/** Sort by name. Protobuf sends a map in any order, but results of one seed must not differ. */
function sorted(versions: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(versions).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/**
 * Record the worker. Warn if it is not the one that the run began on, because the last bits may
 * differ.
 */
async function checkSameWorker(
  run: RunFolder,
  worker: Worker,
  session: Session,
  progress: Progress,
  slot: RunSlot | undefined,
): Promise<void> {
  const { threads, workerVersion: version } = worker.info;
  const now = { device: session.device, threads, version, ...ranksOf(session) };
  const before = (await run.events()).find((e) => e.type === "worker");
  const lasting = worker.isPersistent ? { session: session.id } : {};
  const placed = slot && { pool: slot.pool, slot: slot.name };
  await run.append({ type: "worker", address: worker.address, ...now, ...lasting, ...placed });
  if (
    before &&
    (before.device !== now.device ||
      before.threads !== now.threads ||
      before.ranks !== now.ranks ||
      before.version !== now.version)
  )
    progress.warn(
      `the run began on ${before.device} with ${before.threads} threads${ranksInWords(before)} ` +
        `(worker ${before.version}) and continues on ${now.device} with ${now.threads}` +
        `${ranksInWords(now)} (worker ${now.version}): ` +
        "its last digits may differ from those of an undisturbed run",
    );
}

/** Name a run as on a command line that continues it. */
function nameFor(run: Run): string {
  const name = relative(process.cwd(), run.path) === join(DEFAULT_RUNS, run.id) ? run.id : run.path;
  const { image } = parseContainer(run.config.worker.address) ?? {};
  return codeOf(run.config) === undefined && image === undefined ? name : `${name} --trust-code`;
}

/** Say how to continue a run that stopped. */
async function remedyFor(run: Run, error: unknown): Promise<string> {
  const lost =
    error instanceof WorkerUnavailable && (await lastSession(run).catch(() => undefined));
  const resume = `atlas resume ${nameFor(run)}`;
  return lost
    ? `once it can be reached, continue with: atlas attach ${nameFor(run)}; or from the last ` +
        `checkpoints with: ${resume}`
    : `continue with: ${resume}`;
}

/**
 * Record why a run stopped. A new run that was refused before it began is deleted.
 *
 * @returns the error for the user
 */
async function recordFailure(
  run: RunFolder,
  error: unknown,
  signal: AbortSignal,
  fresh: boolean,
  withoutWorker: boolean,
): Promise<unknown> {
  const resume = await remedyFor(run, error);
  const began = (await run.events().catch(() => [])).some(
    (e) => e.type === "epoch" && e.checkpoint,
  );
  const usersMistake = error instanceof AtlasError && error.exitCode === 2;
  const neverStarted =
    withoutWorker && (error instanceof SetupError || error instanceof WorkerUnavailable);
  if (fresh && !began && (usersMistake || neverStarted)) {
    await rm(run.path, { recursive: true, force: true }).catch(() => undefined);
    return error;
  }
  if (signal.aborted) {
    await run.append({ type: "interrupted" }).catch(() => undefined);
    return new Interrupted(`interrupted; finished work is kept in ${run.path}`, resume);
  }
  const message = error instanceof Error ? error.message : String(error);
  await run.append({ type: "failed", message, remedy: resume }).catch(() => undefined);
  // The same epoch would diverge again.
  const helps = !(error instanceof RpcError && error.reason === "DIVERGED");
  if (error instanceof AtlasError && !usersMistake && helps)
    error.remedy = error.remedy === undefined ? resume : `${error.remedy}; ${resume}`;
  return error;
}
