/** Runs an experiment: config, run folder, worker, stages, result, report. */
import { rm } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { AtlasError, Interrupted, SetupError, WorkerUnavailable } from "../errors.js";
import { RESULT_SCHEMA, Result } from "../result.js";
import { RunConfig, RunFolder } from "../run/folder.js";
import { VERSION } from "../version.js";
import {
  type Credentials,
  checkAddress,
  connectWorker,
  type LogLevel,
  type Session,
  type Worker,
} from "../worker/index.js";
import { Context } from "./context.js";
import { completeConfig, type Experiment } from "./define.js";
import { Progress } from "./progress.js";
import { writeReport } from "./report.js";
import { Runs } from "./sources.js";

export const DEFAULT_RUNS = "runs";

export interface WorkerChoice extends Credentials {
  /** "local" (default), "grpc://host:port" or "grpcs://host:port". */
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
  /** The experiment's file, when it is not one of this package's. */
  file?: string;
}

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
  checkAddress(options.worker?.address ?? "local");
  const { config: complete, preset } = completeConfig(experiment, given, options.preset);
  const isLocal = (options.worker?.address ?? "local") === "local";
  const config =
    (await experiment.prepare?.(complete, new Runs(runsDir, experiment.name, isLocal, options))) ?? complete;
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
  return carryOut(experiment, run, { address, device, threads, ...credentials }, options, true);
}

/**
 * Go on with a run that was interrupted, from its last checkpoints.
 *
 * @throws UsageError when it is finished already, or another process works in it
 */
export async function resumeExperiment(
  experiment: Experiment,
  path: string,
  options: Pick<RunOptions, "worker" | "progress" | "signal"> = {},
): Promise<Outcome> {
  const run = await RunFolder.resume(path);
  // The same device and threads as before, since on another number of threads the last bits differ.
  const before = (await run.events()).find((e) => e.type === "worker");
  const worker: WorkerChoice = {
    ...options.worker,
    address: options.worker?.address ?? run.config.worker.address,
    device: options.worker?.device ?? before?.device ?? run.config.worker.device,
    threads: options.worker?.threads ?? before?.threads ?? run.config.worker.threads,
  };
  return carryOut(experiment, run, worker, options, false);
}

async function carryOut(
  experiment: Experiment,
  run: RunFolder,
  choice: WorkerChoice,
  { progress = new Progress(), signal = new AbortController().signal }: RunOptions,
  fresh: boolean,
): Promise<Outcome> {
  let worker: Worker | undefined;
  let session: Session | undefined;
  try {
    const { config } = completeConfig(experiment, run.config.config, run.config.preset);
    const { address = "local", ...chosen } = choice;
    worker = await connectWorker({
      ...chosen,
      worker: address,
      trustCode: config.trust_code === true, // said for this run, and for no other of this process
      onLog: (line) => progress.debug(line),
      onSetup: (line) => progress.info(line),
      signal,
    });
    session = await worker.openSession({ label: run.id, device: choice.device ?? "auto" });
    progress.info(`run       ${run.path}`);
    await checkSameWorker(run, worker, session, progress);
    const context = new Context({ session, run, seed: run.config.seed, progress, signal });
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
    throw await recordFailure(run, error, signal, fresh, worker === undefined);
  } finally {
    await session?.close().catch(() => undefined);
    await worker?.close().catch(() => undefined);
    await run.close().catch(() => undefined);
    progress.erase();
  }
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
  await run.append({ type: "worker", address: worker.address, ...now });
  if (
    before &&
    (before.device !== now.device || before.threads !== now.threads || before.version !== now.version)
  )
    progress.warn(
      `the run began on ${before.device} with ${before.threads} threads (worker ${before.version}) and goes on on ${now.device} with ` +
        `${now.threads} (worker ${now.version}): its last digits may differ from an undisturbed run's`,
    );
}

/** Write down why a run stopped, and return the error to show. A new run that was refused before it began leaves nothing behind. */
async function recordFailure(
  run: RunFolder,
  error: unknown,
  signal: AbortSignal,
  fresh: boolean,
  withoutWorker: boolean,
): Promise<unknown> {
  const findable = relative(process.cwd(), run.path) === join(DEFAULT_RUNS, run.id);
  const resume = `go on with: atlas resume ${findable ? run.id : run.path}`;
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
