/** Runs an experiment: config, run folder, worker, stages, result, report. */
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { isAbsolute, join, relative, resolve } from "node:path";
import { AtlasError, Interrupted, RpcError, SetupError, UsageError, WorkerUnavailable } from "../errors.js";
import { RESULT_SCHEMA, Result } from "../result.js";
import type { RunEvent, WorkerRecord } from "../run/events.js";
import { Run, RunConfig, RunFolder } from "../run/folder.js";
import { VERSION } from "../version.js";
import { parseContainer } from "../worker/container.js";
import {
  type Credentials,
  connectWorker,
  type LogLevel,
  placeOf,
  type Session,
  type Worker,
} from "../worker/index.js";
import { Context } from "./context.js";
import { completeConfig, type Experiment } from "./define.js";
import { Progress } from "./progress.js";
import { writeReport } from "./report.js";
import { Runs } from "./sources.js";
import { givenInVain } from "./uses.js";

export const DEFAULT_RUNS = "runs";

export interface WorkerChoice extends Credentials {
  /** "local" (default), "docker", "docker:IMAGE", "grpc://host:port" or "grpcs://host:port". */
  address?: string;
  /** "auto" (default), "cpu", "cuda", "cuda:1". */
  device?: string;
  /** Threads that CPU work uses; default: the worker's choice. */
  threads?: number;
  /** The least that a local worker logs (default "info"). */
  logLevel?: LogLevel;
}

export interface RunOptions {
  /** Folder of run folders (default {@link DEFAULT_RUNS}). */
  runs?: string;
  /** Random, and recorded, when left out. */
  seed?: number;
  preset?: string;
  worker?: WorkerChoice;
  progress?: Progress;
  /** Abort it to stop the run after saving what is finished. */
  signal?: AbortSignal;
  /** Told when the run has a session on a worker that outlives this process: from then on the run can be attached to. */
  onLasting?: (where: { address: string; attach: string }) => void;
  /** The experiment's file, when it is not one of this package's. */
  file?: string;
}

export type GoOnOptions = Pick<RunOptions, "worker" | "progress" | "signal" | "onLasting"> & {
  /** Whether code that the run names is executed (default: not; a run that names none needs no trust). */
  trustCode?: boolean;
};

/** A finished run. */
export interface Outcome {
  id: string;
  path: string;
  result: Result;
  /** Undefined when the report could not be written (a warning says why). */
  report?: string;
}

/**
 * Run an experiment from the start.
 *
 * @param given values that differ from the preset's and the schema's defaults
 * @throws UsageError, FileError, RpcError, WorkerDied …: the run can then be resumed, unless it had not begun
 * @throws Interrupted when `signal` was aborted
 */
export async function runExperiment<E extends Experiment>(
  experiment: E,
  given: Parameters<NonNullable<E["presets"]>>[0],
  options: RunOptions = {},
): Promise<Outcome> {
  const runsDir = options.runs ?? DEFAULT_RUNS;
  const place = placeOf(options.worker?.address ?? "local");
  const { config: complete, preset } = completeConfig(experiment, given, options.preset);
  const notes = givenInVain(experiment.flags, given, complete);
  const config =
    (await experiment.prepare?.(complete, new Runs(runsDir, experiment.name, place, options))) ?? complete;
  for (const note of notes) options.progress?.warn(note);
  const seed = options.seed ?? Math.floor(Math.random() * 2 ** 31);
  const { address = "local", device = "auto", threads, ...credentials } = options.worker ?? {};
  const run = await RunFolder.create(runsDir, {
    experiment: experiment.name,
    file: options.file && resolve(options.file), // it may be resumed from elsewhere
    preset,
    seed,
    config: RunConfig.shape.config.parse(JSON.parse(JSON.stringify(config))), // as it will be read back
    worker: { address, device, threads },
    versions: { atlas: VERSION, node: process.version },
  });
  return carryOut(experiment, run, { address, device, threads, ...credentials }, options, "started");
}

/**
 * Go on with a run that was interrupted, from its last checkpoints.
 *
 * @throws UsageError when it is finished already, another process works in it, or it names code that is not trusted
 */
export async function resumeExperiment(
  experiment: Experiment,
  path: string,
  options: GoOnOptions = {},
): Promise<Outcome> {
  const recorded = await Run.open(path);
  checkTrust(recorded, options.trustCode);
  if (options.worker?.address === undefined) checkWorker(recorded.config.worker.address, options);
  const run = await RunFolder.resume(path);
  // The same device and threads as before, since on another number of threads the last bits differ.
  const before = (await run.events()).find((e) => e.type === "worker");
  const worker: WorkerChoice = {
    ...options.worker,
    address: options.worker?.address ?? run.config.worker.address,
    device: options.worker?.device ?? before?.device ?? run.config.worker.device,
    threads: options.worker?.threads ?? before?.threads ?? run.config.worker.threads,
  };
  return carryOut(experiment, run, worker, options, "resumed");
}

/**
 * Go on with a run whose process has ended or lost its worker, where its session on that worker stands: what the worker has done meanwhile counts.
 *
 * @throws UsageError when it never had a session that outlives its process, another process works in it, or it names code that is not trusted
 * @throws WorkerUnavailable when the worker cannot be reached; AtlasError when the session is no more: the run can then be resumed
 */
export async function attachExperiment(
  experiment: Experiment,
  path: string,
  options: GoOnOptions = {},
): Promise<Outcome> {
  const run = await Run.open(path);
  checkTrust(run, options.trustCode);
  const before = await lastSession(run);
  if (before === undefined)
    throw new UsageError(
      `run ${path} has no session that it could be attached to: its worker ended with it`,
      `go on from its last checkpoints with: atlas resume ${path}`,
    );
  const { address } = before.worker;
  checkWorker(address, options);
  return carryOut(
    experiment,
    await RunFolder.attach(path),
    { ...options.worker, address },
    options,
    "attached",
  );
}

/**
 * A run's folder may come from a stranger, and so does then what it names.
 *
 * @throws UsageError when code beside this package's own would be executed to go on with a run, unless it is trusted
 */
export function checkTrust({ id, config }: Run, trusted = false): void {
  const code = codeOf(config);
  if (code === undefined || trusted) return;
  throw new UsageError(
    `to go on with run ${id} is to execute code: ${code}`,
    "if you trust who made the run, and that file, give --trust-code",
  );
}

/**
 * The same for a worker that only the run's folder names: another's image is code, and sees the files that the run names; and the token of the
 * environment goes to a worker of the user's choice, or to one of this machine.
 *
 * @throws UsageError when such an image would be executed without trust, or the token be shown to such a worker
 */
function checkWorker(address: string, { worker = {}, trustCode = false }: GoOnOptions): void {
  const { ATLAS_TOKEN, ATLAS_WORKER } = process.env;
  if (ATLAS_WORKER?.replace(/\/$/, "") === address) return;
  if (!trustCode && parseContainer(address)?.image !== undefined)
    throw new UsageError(
      `the run names the worker ${address}, an image that would be executed`,
      "if you trust who made the run, and that image, give --trust-code",
    );
  if (!ATLAS_TOKEN || worker.tokenFile !== undefined || placeOf(address) !== "far") return;
  throw new UsageError(
    `the run names the worker ${address}, to which the token in ATLAS_TOKEN would be shown`,
    "if that worker is yours, give --token-file, or name it in ATLAS_WORKER too",
  );
}

/** What a config names that is code: the file of an experiment that is not ours, or a predictor. */
function codeOf({ file, config: { trust_code, predictor } }: RunConfig): string | undefined {
  return file ?? (trust_code === true ? String(predictor) : undefined);
}

/** The newest session of a run, if it may outlive the run's process, and what the log has of it. */
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

async function carryOut(
  experiment: Experiment,
  run: RunFolder,
  choice: WorkerChoice,
  { progress = new Progress(), signal = new AbortController().signal, onLasting }: RunOptions,
  life: "started" | "resumed" | "attached",
): Promise<Outcome> {
  let worker: Worker | undefined;
  let leave = false;
  try {
    const { config } = completeConfig(experiment, run.config.config, run.config.preset);
    const { address = "local", ...chosen } = choice;
    worker = await connectWorker({
      ...chosen,
      worker: address,
      files: filesOf(config),
      trustCode: config.trust_code === true, // said for this run, and for no other of this process
      onLog: (line) => progress.debug(line),
      onSetup: (line) => progress.info(line),
      signal,
    });
    const last = await lastSession(run);
    const session =
      life === "attached" && last
        ? await attachTo(worker, last.session)
        : await worker.openSession({ label: run.id, device: choice.device ?? "auto" });
    progress.info(`run       ${run.path}`);
    if (life !== "attached") {
      if (last?.worker.address === worker.address) await end(worker, last.session);
      await checkSameWorker(run, worker, session, progress);
    }
    if (worker.outlivesUs) onLasting?.({ address: worker.address, attach: `atlas attach ${nameFor(run)}` });
    const before = life === "attached" ? last?.events : undefined;
    const context = new Context({ session, run, seed: run.config.seed, progress, signal, before });
    const findings = await experiment.run(context, config);
    const result = Result.parse({
      schema: RESULT_SCHEMA,
      experiment: experiment.name,
      seed: run.config.seed,
      ...findings,
      timings: context.timings,
      environment: {
        device: session.device,
        threads: worker.info.threads,
        versions: { atlas: VERSION, node: process.version, ...sorted(worker.info.versions) },
      },
    });
    const report = await writeReport(run, result, context, progress);
    await run.writeResult(result);
    return { id: run.id, path: run.path, result, report };
  } catch (error) {
    leave = error instanceof WorkerUnavailable; // it may only be out of reach
    throw await recordFailure(run, error, signal, life === "started", worker === undefined);
  } finally {
    await worker?.close({ leave }).catch(() => undefined);
    await run.close().catch(() => undefined);
    progress.erase();
  }
}

/** What of this machine's files a config names, by absolute paths. */
function filesOf(config: object): string[] {
  return Object.values(config).filter((v) => typeof v === "string" && isAbsolute(v) && existsSync(v));
}

async function attachTo(worker: Worker, sessionId: string): Promise<Session> {
  try {
    return await worker.attachSession(sessionId);
  } catch (error) {
    if (!(error instanceof RpcError && error.code === "not_found")) throw error;
    throw new AtlasError(
      `the run's session on ${worker.address} is no more: it was closed, its lease ended, or the worker was restarted`,
      undefined,
      { cause: error },
    );
  }
}

/** End the session of a run that goes on in another one, so that nothing goes on in both. */
async function end(worker: Worker, sessionId: string): Promise<void> {
  await worker.attachSession(sessionId).then(
    (session) => session.close(),
    () => undefined, // it has ended
  );
}

/** By name: protobuf sends a map in any order, and two results of one seed must not differ in it. */
function sorted(versions: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(versions).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Record what computes; say so when it is not what the run began on, for the last bits may then differ. */
async function checkSameWorker(
  run: RunFolder,
  worker: Worker,
  session: Session,
  progress: Progress,
): Promise<void> {
  const { threads, workerVersion: version } = worker.info;
  const now = { device: session.device, threads, version };
  const before = (await run.events()).find((e) => e.type === "worker");
  const lasting = worker.outlivesUs ? { session: session.id } : {};
  await run.append({ type: "worker", address: worker.address, ...now, ...lasting });
  if (
    before &&
    (before.device !== now.device || before.threads !== now.threads || before.version !== now.version)
  )
    progress.warn(
      `the run began on ${before.device} with ${before.threads} threads (worker ${before.version}) and goes on on ${now.device} with ` +
        `${now.threads} (worker ${now.version}): its last digits may differ from an undisturbed run's`,
    );
}

/** A run as it is named on a command line here that goes on with it. */
function nameFor(run: Run): string {
  const name = relative(process.cwd(), run.path) === join(DEFAULT_RUNS, run.id) ? run.id : run.path;
  const { image } = parseContainer(run.config.worker.address) ?? {};
  return codeOf(run.config) === undefined && image === undefined ? name : `${name} --trust-code`;
}

/** How to go on with a run that stopped. */
async function remedyFor(run: Run, error: unknown): Promise<string> {
  const lost = error instanceof WorkerUnavailable && (await lastSession(run).catch(() => undefined));
  return lost
    ? `once it can be reached, go on where the run stands there with: atlas attach ${nameFor(run)}; else, from the last checkpoints, with: atlas resume ${nameFor(run)}`
    : `go on with: atlas resume ${nameFor(run)}`;
}

/** Write down why a run stopped, and return the error to show. A new run that was refused before it began leaves nothing behind. */
async function recordFailure(
  run: RunFolder,
  error: unknown,
  signal: AbortSignal,
  fresh: boolean,
  withoutWorker: boolean,
): Promise<unknown> {
  const resume = await remedyFor(run, error);
  const began = (await run.events().catch(() => [])).some((e) => e.type === "epoch" && e.checkpoint);
  const usersMistake = error instanceof AtlasError && error.exitCode === 2;
  const neverStarted = withoutWorker && (error instanceof SetupError || error instanceof WorkerUnavailable);
  if (fresh && !began && (usersMistake || neverStarted)) {
    await rm(run.path, { recursive: true, force: true }).catch(() => undefined);
    return error;
  }
  if (signal.aborted) {
    await run.append({ type: "interrupted" }).catch(() => undefined);
    return new Interrupted(`interrupted; what was finished is kept in ${run.path}`, resume);
  }
  const message = error instanceof Error ? error.message : String(error);
  await run.append({ type: "failed", message, remedy: resume }).catch(() => undefined);
  if (error instanceof AtlasError && !usersMistake)
    error.remedy = error.remedy === undefined ? resume : `${error.remedy}; ${resume}`;
  return error;
}
