/** Run sweeps: plan them, give their runs to a pool, resume them, summarise them. */
import { Interrupted, UsageError, WorkerUnavailable } from "../errors.js";
import type { Experiment } from "../experiment/define.js";
import { flagName } from "../experiment/names.js";
import {
  type Outcome,
  type RunOptions,
  resumeExperiment,
  startPlanned,
  type WorkerChoice,
} from "../experiment/runner.js";
import { renderSweep } from "../report/sweep.js";
import { Result } from "../result.js";
import { writeFileAtomic } from "../run/atomic.js";
import { Run } from "../run/folder.js";
import { acquireLock } from "../run/lock.js";
import { SweepDisplay } from "./display.js";
import { type PlannedRun, Sweep } from "./folder.js";
import type { SampleOptions } from "./grid.js";
import { describeValues, planSweep, type Request } from "./plan.js";
import { openPool, type Pool, type Slot } from "./pool.js";
import { schedule } from "./schedule.js";
import { rowOf } from "./seeds.js";
import { inShort, type SweepSummary, summariseSweep } from "./summary.js";
import { listAxis } from "./values.js";

/** Options of a sweep that is planned already. */
export interface RunSweepOptions {
  /** The pool, for example "local:2" (default: that of the plan, or the one worker). */
  pool?: string | Pool;
  /** The worker, if there is no pool; and what slots need: device, threads, credentials. */
  worker?: WorkerChoice;
  /** How often a failed run is tried again (default 0). */
  retries?: number;
  /** Whether the first failure stops the sweep (default: no). */
  failFast?: boolean;
  /** Most runs at a time (default: the slots of the pool). */
  maxParallel?: number;
  /** Whether to execute code that the configs name (default: no). */
  trustCode?: boolean;
  /** Address of an MLflow server that is told of the runs. */
  mlflow?: string;
  display?: SweepDisplay;
  /** Abort it to stop the sweep. Finished work is saved. */
  signal?: AbortSignal;
}

/** Options of {@link sweep}. */
export interface SweepOptions extends RunSweepOptions, SampleOptions {
  /** Folder of run folders (default "runs"). */
  runs?: string;
  /** A preset of the task. */
  preset?: string;
  /** Words by which the runs can be found. */
  tags?: readonly string[];
  /** Path of the experiment's file, if it is not part of this package. */
  file?: string;
}

/** A sweep that has ended. Some runs may have failed. */
export interface SweepOutcome extends SweepSummary {
  /** Path of the report; undefined if it could not be written. */
  report?: string;
  /** Number of runs that failed. */
  failed: number;
}

/**
 * Run an experiment for all combinations of values.
 *
 * @param grid values by field; a list of values varies the field. `seed` is a field too. (If a
 *   field takes a list itself, give a list of lists to vary it.)
 * @returns what the runs found; `failed` counts those that failed
 * @throws UsageError, FileError if a combination is not accepted; nothing has been written then
 * @throws Interrupted if `signal` was aborted
 */
export async function sweep(
  experiment: Experiment,
  grid: Readonly<Record<string, unknown>>,
  options: SweepOptions = {},
): Promise<SweepOutcome> {
  const { axes, given, seed } = requestOf(experiment, grid);
  const planned = await createSweep(experiment, { axes, given, seed }, options);
  return runSweep(experiment, planned, options);
}

/**
 * Plan a sweep and write its sweep.json. {@link runSweep} runs it.
 *
 * @throws UsageError, FileError if a combination is not accepted; nothing has been written then
 */
export async function createSweep(
  experiment: Experiment,
  request: Request,
  options: SweepOptions,
): Promise<Sweep> {
  const { pool, plan } = await planFor(experiment, request, options);
  if (typeof options.pool !== "object") {
    await pool.check?.(); // one that cannot serve is refused before anything is written
    await pool.close();
  }
  return Sweep.create(options.runs ?? "runs", plan);
}

/**
 * Plan a sweep for a pool, which decides the threads of all runs. Nothing is written or started.
 *
 * @throws UsageError, FileError
 */
export async function planFor(
  experiment: Experiment,
  request: Request,
  options: SweepOptions,
): Promise<{ plan: Awaited<ReturnType<typeof planSweep>>; pool: Pool }> {
  const { worker, runs = "runs", preset, tags, file, trustCode, signal } = options;
  const { sample, sampleSeed, retries = 0, failFast = false, maxParallel } = options;
  const pool =
    typeof options.pool === "object"
      ? options.pool
      : await openPool(options.pool, { worker, wanted: maxParallel });
  const threads = worker?.threads ?? pool.threads;
  const plan = await planSweep(experiment, request, {
    run: {
      ...{ runs, preset, tags, file, trustCode, signal },
      ...{ worker: { ...worker, threads }, place: pool.place },
    },
    pool: typeof options.pool === "object" ? pool.name : options.pool,
    options: { retries, failFast, maxParallel },
    ...{ sample, sampleSeed },
  });
  return { plan, pool };
}

/** Tell the fields that vary from those that do not. */
function requestOf(experiment: Experiment, grid: Readonly<Record<string, unknown>>): Request {
  const { task = experiment.defaultTask } = grid;
  const shape = experiment.tasks[String(task)]?.config ?? {};
  const entries = Object.entries(grid).filter(([, value]) => value !== undefined);
  const varies = ([field, value]: [string, unknown]) =>
    Array.isArray(value) && !shape[field]?.safeParse(value).success;
  const axes = entries
    .filter(varies)
    .map(([field, values]) => listAxis(field, flagName(field), values as unknown[]));
  const { seed, ...given } = Object.fromEntries(entries.filter((entry) => !varies(entry)));
  if (axes.some(({ field }) => field === "task"))
    throw new UsageError("the task cannot vary in a sweep", "plan a sweep for each task");
  return { axes, given, seed: seed === undefined ? undefined : Number(seed) };
}

/**
 * Run what is not done of a sweep: start pending runs, and resume interrupted and failed ones.
 *
 * @throws UsageError if another process works in the sweep, another version planned it, or a run
 *   was changed
 * @throws Interrupted if `signal` was aborted
 * @throws the pool's error if it has no slots
 */
export async function runSweep(
  experiment: Experiment,
  planned: Sweep,
  options: RunSweepOptions = {},
): Promise<SweepOutcome> {
  const { file } = planned;
  planned.checkVersion();
  if (file.code !== undefined && !options.trustCode)
    throw new UsageError(
      `the sweep would execute code: ${file.code}`,
      "if you trust its author, give --trust-code",
    );
  const lock = await acquireLock(planned.path);
  const { display = new SweepDisplay({ quiet: true }) } = options;
  try {
    const open: PlannedRun[] = [];
    for (const run of file.runs) {
      const status = await planned.statusOf(run);
      if (status !== "pending") planned.checkRun(await Run.open(planned.pathOf(run)), run);
      if (status !== "finished") open.push(run);
    }
    display.begin(file.runs.length, file.runs.length - open.length);
    if (open.length > 0) await runAll(experiment, planned, open, { ...options, display });
    display.end();
    const summary = await summariseSweep(planned);
    const failed = summary.runs.filter(({ status }) => status !== "finished").length;
    return { ...summary, running: false, failed, report: await report(planned, summary, display) };
  } finally {
    display.end();
    await lock.release();
  }
}

async function runAll(
  experiment: Experiment,
  planned: Sweep,
  open: readonly PlannedRun[],
  options: RunSweepOptions & { display: SweepDisplay },
): Promise<void> {
  const { file, id } = planned;
  const { display, trustCode, mlflow, signal = new AbortController().signal } = options;
  const {
    retries = file.options.retries,
    failFast = file.options.failFast,
    maxParallel = file.options.maxParallel,
  } = options;
  const worker = { ...options.worker };
  worker.address ??= file.worker.address;
  worker.device ??= file.worker.device;
  worker.threads ??= file.worker.threads;
  worker.ranks ??= file.worker.ranks;
  const wanted = Math.min(open.length, maxParallel ?? open.length);
  const pool =
    typeof options.pool === "object"
      ? options.pool
      : await openPool(options.pool ?? (options.worker?.address ? undefined : file.pool), {
          worker,
          trustCode: trustCode === true && file.code !== undefined,
          wanted: maxParallel ?? (file.pool || options.pool ? wanted : undefined),
          onInfo: (line) => display.info(line),
          onLog: (line) => display.debug(line),
        });
  const labelOf = ({ id: run, seed, cell }: PlannedRun) =>
    [run.slice(id.length + 1), `seed ${seed}`, describeValues(file.cells[cell]!.values)]
      .filter(Boolean)
      .join("  ");
  try {
    await schedule(open, {
      ...{ pool, retries, failFast, signal },
      slots: maxParallel,
      async work(run, slot, stop) {
        const started = performance.now();
        const progress = display.start(slot.name, labelOf(run));
        const outcome = await doRun(experiment, planned, run, {
          ...{ slot: slot.run, worker, trustCode, progress, signal: stop, mlflow },
        });
        const { answer, figures } = rowOf(outcome.result);
        const found = answer === undefined ? figuresInWords(figures) : inShort(answer);
        display.done(slot.name, labelOf(run), found, (performance.now() - started) / 1000);
      },
      onSlot: (slot: Slot) => display.slot(slot.name, slot.about),
      onFreed: (slot: Slot) => display.freed(slot.name),
      onLost: (slot, run, error) =>
        display.warn(
          `slot ${slot.name} is lost, run ${run.id} goes on in another: ${error.message}`,
        ),
      onFewer: (error) => display.warn(`the pool gives fewer slots: ${error.message}`),
      onRetry: (run, error) => display.warn(`run ${run.id} is tried again: ${error.message}`),
      onFailed: (run, error) => display.failed(run.id, error.message),
    });
  } catch (error) {
    if (!signal.aborted) throw resumable(error, id);
  } finally {
    await pool.close();
  }
  if (signal.aborted)
    throw new Interrupted(
      `interrupted; finished work is kept in ${planned.path}`,
      `continue with: atlas resume ${id}`,
    );
}

/** Add to the error of a pool that has no slots any more how the sweep is continued. */
function resumable(error: unknown, id: string): unknown {
  if (!(error instanceof WorkerUnavailable)) return error;
  const next = `finished work is kept: continue there or elsewhere with: atlas resume ${id}`;
  error.remedy = error.remedy === undefined ? next : `${error.remedy}; ${next}`;
  error.setting ??= "pool";
  return error;
}

/** Do a run, from its start or from its last checkpoints. */
async function doRun(
  experiment: Experiment,
  planned: Sweep,
  run: PlannedRun,
  options: RunOptions,
): Promise<Outcome> {
  const { file } = planned;
  const path = planned.pathOf(run);
  const status = await planned.statusOf(run);
  if (status === "finished") {
    const result = Result.parse(await (await Run.open(path)).result()); // by another process
    return { id: run.id, path, result };
  }
  if (status !== "pending") return resumeExperiment(experiment, path, options);
  const { preset, code } = file.cells[run.cell]!;
  const { experiment: name, file: source, versions, tags } = file;
  const { address = "local", device = "auto", threads, ranks } = options.worker ?? {};
  const plan = {
    ...{ experiment: name, file: source, preset, seed: run.seed, tags, code, versions },
    config: planned.configOf(run.cell) as (typeof file)["config"],
    worker: { address, device, threads, ranks },
  };
  return startPlanned(experiment, plan, { ...options, runs: planned.runsDir }, run.id);
}

function figuresInWords(figures: Readonly<Record<string, number>>): string {
  return Object.entries(figures)
    .filter(([name]) => name !== "seconds")
    .slice(0, 2)
    .map(([name, value]) => `${name} ${Number(value.toPrecision(3))}`)
    .join(", ");
}

/** Write the report. A sweep is good even if its report fails. */
async function report(
  planned: Sweep,
  summary: SweepSummary,
  display: SweepDisplay,
): Promise<string | undefined> {
  try {
    await writeFileAtomic(planned.reportPath, renderSweep({ file: planned.file, ...summary }));
    return planned.reportPath;
  } catch (error) {
    display.warn(`the report could not be written: ${(error as Error).message}`);
    return undefined;
  }
}
