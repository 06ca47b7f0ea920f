/**
 * The context of an experiment's `run`: objects on the worker, and stages with checkpoints.
 *
 * Resuming is replaying. A resumed run calls the same `run` with the same config. A stage with a
 * checkpoint is restored when it is first advanced, and advancing a stage to an epoch that it has
 * reached does nothing. So a run that was killed anywhere passes through the same states as an
 * undisturbed run, and on a CPU ends with the same bits.
 *
 * Attaching is replaying in the session that the run has already. Objects that exist are found
 * instead of created, the watch of a job continues after the last epoch in the run's log, and no
 * stage is restored.
 */
import { createHash } from "node:crypto";
import { AtlasError, FileError, RpcError } from "../errors.js";
import { formatSeconds } from "../format.js";
import type { OwnTensors } from "../interop/index.js";
import type { Illustration } from "../report/illustration.js";
import type { MotionIllustration } from "../report/motion.js";
import type { Result } from "../result.js";
import type { EpochRecord, RunEvent, StageRecord } from "../run/events.js";
import { type Checkpoint, computingTime, type RunFolder } from "../run/folder.js";
import { readSafetensors } from "../tensor/index.js";
import type { Place } from "../worker/index.js";
import type {
  AlgebraOptions,
  AtlasOptions,
  CosetsOptions,
  DatasetOptions,
  FormerAtlasOptions,
  PredictorOptions,
  RemoteObject,
  Session,
} from "../worker/session/index.js";
import type { Position, Progress } from "./progress.js";

/** List the tensors of a predictor in its snapshot, which holds those of its optimiser too. */
function ownTensors(snapshot: Uint8Array): OwnTensors {
  const own = [...readSafetensors(snapshot).tensors].filter(([name]) => OWN.test(name));
  return Object.fromEntries(
    own.map(([name, { dtype, shape }]) => [
      name.replace(OWN, ""),
      [dtype.startsWith("float"), [...shape]],
    ]),
  );
}
const OWN = /^module\./;

/** Creation options with an optional seed, which by default derives from the run's seed. */
type Seeded<T> = T extends unknown ? Omit<T, "seed"> & { seed?: number } : never;

/** The methods of a session that a context needs. */
export type StageSession = Pick<
  Session,
  | "createDataset"
  | "upload"
  | "createAtlas"
  | "createPredictor"
  | "createAlgebra"
  | "createCosets"
  | "advance"
  | "snapshot"
  | "restore"
  | "loadWeights"
  | "list"
  | "getAlgebra"
  | "getCosets"
  | "getClosure"
  | "compareComponents"
  | "readDataset"
  | "predict"
  | "scorePredictor"
  | "measureEquivariance"
  | "measureCharts"
  | "measureReach"
  | "measureEvidence"
  | "moveSample"
  | "auditPredictor"
  | "countShared"
  | "delete"
>;

/** Options of {@link Context}. */
export interface ContextOptions {
  session: StageSession;
  run: RunFolder;
  seed: number;
  progress: Progress;
  /** Aborted on Ctrl-C. */
  signal: AbortSignal;
  /** Events of the attached session that the run's log has already. */
  before?: readonly RunEvent[];
  /** Where the worker is (default: "spawned", on the files of this machine). */
  place?: Place;
  /** Is told of steps and epochs as they happen. */
  live?: {
    step(step: Required<Position>): void;
    epoch(position: Position): void;
  };
}

/** The state of a stage in this run. */
interface Stage {
  object: RemoteObject;
  /** Number of finished epochs. */
  epoch: number;
  metrics: Record<string, number>;
}

/** The context of an experiment's `run`: makes objects on the worker, and advances stages. */
export class Context {
  readonly session: StageSession;
  readonly seed: number;
  /** What the report shows of the data, in order. */
  readonly illustrations: Illustration[] = [];
  motions: readonly MotionIllustration[] = [];
  /** The datasets that were made, for the result. */
  readonly datasets: NonNullable<Result["data"]> = [];
  /** What the user should know, for the result. */
  readonly notes: string[] = [];
  readonly signal: AbortSignal;
  /** Where the worker is. */
  readonly place: Place;
  private readonly run: RunFolder;
  private readonly progress: Progress;
  private readonly live: ContextOptions["live"];
  private readonly stages = new Map<string, Stage>();
  private readonly seconds = new Map<string, number>();
  private readonly before: readonly RunEvent[];
  /** Sequence number of the last event in `before` of each job. */
  private readonly known: ReadonlyMap<string, number>;

  constructor(options: ContextOptions) {
    this.session = options.session;
    this.run = options.run;
    this.seed = options.seed;
    this.progress = options.progress;
    this.live = options.live;
    this.signal = options.signal;
    this.place = options.place ?? "spawned";
    this.before = options.before ?? [];
    const jobs = this.before.flatMap((e) => (e.type === "epoch" && e.job ? [e.job] : []));
    this.known = new Map(jobs.map(({ id, sequence }) => [id, sequence]));
  }

  /**
   * Create a dataset and wait until it is ready. It has no checkpoint, because its seed or its file
   * gives the same dataset again.
   */
  async dataset(options: Seeded<DatasetOptions>): Promise<RemoteObject> {
    return this.timed("dataset", async () => {
      const seed = this.seedFor("dataset");
      const object = await this.session.createDataset({ seed, ...options });
      const made = object.totalEpochs === 0 ? object : await this.made(object);
      const { warnings = [] } = made.facts as { warnings?: readonly string[] };
      for (const warning of warnings) this.note(warning);
      const { sha256 } = made.facts;
      const samples = made.shapes?.inputs[0] ?? 0;
      if (typeof sha256 === "string") this.datasets.push({ kind: made.kind, samples, sha256 });
      return made;
    });
  }

  /**
   * Send a file, or a folder with its files, to a worker that does not see it.
   *
   * @returns what the dataset `files` takes for the path of the file
   */
  async upload(path: string): Promise<string> {
    const mega = (bytes: number) => Math.ceil(bytes / 1e6);
    const from = performance.now();
    return this.timed("upload", async () => {
      let size = 0;
      const onProgress = (done: number, total: number) => {
        size = total;
        const position = { stage: "upload", epoch: 0, totalEpochs: 1, metrics: {} };
        this.progress.step({ ...position, step: mega(done), stepsInEpoch: mega(total) });
      };
      const ticket = await this.session.upload(path, { onProgress, signal: this.signal });
      const seconds = (performance.now() - from) / 1000;
      this.info(`upload     ${path}  ${mega(size)} MB  ${formatSeconds(seconds)}`);
      return ticket;
    });
  }

  private async made(object: RemoteObject): Promise<RemoteObject> {
    await this.advanceObject("dataset", object, object.totalEpochs);
    const now = await this.session.list(); // facts and shapes are known only now
    return now.find(({ handle }) => handle === object.handle) ?? object;
  }

  /**
   * Let the report show a sample of a dataset: input, target, charts, and predictions of class
   * labels if asked for. The sample is read when the report is written.
   */
  illustrate(illustration: Illustration): void {
    this.illustrations.push(illustration);
  }

  /**
   * Let the report show a sample that generators move, beside what the predictor says of it, in
   * place of those named before.
   */
  illustrateMotions(motions: readonly MotionIllustration[]): void {
    this.motions = motions;
  }

  /** Create an atlas. */
  atlas(options: AtlasOptions | FormerAtlasOptions): Promise<RemoteObject> {
    return this.session.createAtlas(options);
  }

  /** Create a predictor. {@link advance} trains it. */
  predictor(options: Seeded<PredictorOptions>): Promise<RemoteObject> {
    return this.session.createPredictor({ seed: this.seedFor("predictor"), ...options });
  }

  /** Create a solver for the Lie algebra. {@link advance} runs it. */
  algebra(options: Seeded<AlgebraOptions>): Promise<RemoteObject> {
    return this.session.createAlgebra({ seed: this.seedFor("algebra"), ...options });
  }

  /** Create a solver for the components. {@link advance} runs it. */
  cosets(options: Seeded<CosetsOptions>): Promise<RemoteObject> {
    return this.session.createCosets({ seed: this.seedFor("cosets"), ...options });
  }

  /**
   * Advance an object from the checkpoint of its stage, if there is one, and save a checkpoint
   * after every epoch.
   *
   * @param stage name of the stage, one for each object
   * @returns metrics of the last epoch
   */
  async advance(
    stage: string,
    object: RemoteObject,
    {
      untilEpoch = object.totalEpochs,
    }: {
      /** Number of finished epochs at which to stop (default: the object's own). */
      untilEpoch?: number;
    } = {},
  ): Promise<Record<string, number>> {
    return this.timed(stage, async () => {
      const state = this.stages.get(stage) ?? (await this.restore(stage, object));
      if (state.object !== object)
        throw new AtlasError(
          `stage ${stage} was started with another object`,
          "give every advanced object its own stage name",
        );
      if (state.epoch < untilEpoch) await this.advanceObject(stage, object, untilEpoch, state);
      return state.metrics;
    });
  }

  /**
   * Advance two objects by turns (METHOD 2.2): in each epoch one pass of `first`, then one pass of
   * `second`, which depends on the state of `first`.
   *
   * After a crash, the checkpoint of `first` may be ahead. It is then restored from the newest
   * checkpoint that is not ahead of the next epoch of `second`, so that the pass of `second` is the
   * same as in an undisturbed run.
   */
  async alternate(
    first: { stage: string; object: RemoteObject },
    second: { stage: string; object: RemoteObject },
    epochs: number,
  ): Promise<void> {
    if (!this.stages.has(first.stage)) {
      const reached =
        this.attached(second.stage)?.epoch ?? (await this.run.checkpoint(second.stage))?.epoch ?? 0;
      await this.timed(first.stage, () => this.restore(first.stage, first.object, reached + 1));
    }
    for (let epoch = 1; epoch <= epochs; epoch++) {
      await this.advance(first.stage, first.object, { untilEpoch: epoch });
      await this.advance(second.stage, second.object, { untilEpoch: epoch });
    }
  }

  /**
   * Load weights into a predictor instead of training it. The run keeps a copy, so that it can be
   * resumed without the source.
   *
   * @param read reads the safetensors file; called only if the run has no copy yet. It is given
   *   a function that tells the predictor's own tensors
   */
  async reuse(
    stage: string,
    predictor: RemoteObject,
    read: (own: () => Promise<OwnTensors>) => Promise<Uint8Array>,
  ): Promise<void> {
    await this.timed(stage, async () => {
      if (await this.attach(stage, predictor)) return;
      const kept = await this.run.checkpoint(stage, (m) => this.warn(m));
      if (kept) return void (await this.restoreFrom(stage, predictor, kept));
      const own = async () => ownTensors((await this.session.snapshot(predictor)).bytes);
      await this.session.loadWeights(predictor, await read(own));
      const { bytes, epoch } = await this.session.snapshot(predictor);
      await this.run.saveCheckpoint(stage, bytes, {
        epoch,
        totalEpochs: epoch,
        metrics: {},
        seconds: 0,
      });
      this.enter(stage, { object: predictor, epoch, metrics: {} });
    });
  }

  /**
   * Make a context for one of several problems of a run: its stages and its seeds have names of
   * their own.
   *
   * @param name of the problem, with letters, digits and -
   */
  within(name: string): Context {
    const own = (stage: string) => `${name}-${stage}`;
    const inner: Pick<Context, "advance" | "metrics" | "seedFor" | "within"> = {
      advance: (stage, object, options) => this.advance(own(stage), object, options),
      metrics: (stage) => this.metrics(own(stage)),
      seedFor: (purpose) => this.seedFor(`${name}/${purpose}`),
      within: (other) => this.within(own(other)),
    };
    return Object.assign(Object.create(this) as Context, inner);
  }

  /** Do some work, and add its time to a stage's. */
  async timed<T>(stage: string, work: () => Promise<T>): Promise<T> {
    this.signal.throwIfAborted();
    const start = performance.now();
    try {
      return await work();
    } finally {
      this.addSeconds(stage, (performance.now() - start) / 1000);
    }
  }

  /** Get a stage's metrics after its last finished epoch; empty if there are none. */
  metrics(stage: string): Readonly<Record<string, number>> {
    return this.stages.get(stage)?.metrics ?? {};
  }

  /** Seconds spent in each stage, those before an interruption included. */
  get timings(): Record<string, number> {
    return Object.fromEntries(
      [...this.seconds].map(([stage, s]) => [stage, Math.round(s * 1000) / 1000]),
    );
  }

  /** Print a line for the user. */
  info(line: string): void {
    this.progress.info(line);
  }

  /** Print a warning for the user, and add it to the notes of the result. */
  note(line: string): void {
    if (this.notes.includes(line)) return;
    this.notes.push(line);
    this.warn(line);
  }

  /** Print a warning for the user, also with --quiet. */
  warn(line: string): void {
    this.progress.warn(line);
  }

  /**
   * Derive a seed from the run's seed. Each purpose has its own, so that no objects share random
   * numbers.
   */
  seedFor(purpose: string): number {
    return createHash("sha256").update(`${this.seed}/${purpose}`).digest().readUIntBE(0, 6);
  }

  private addSeconds(stage: string, seconds: number): void {
    this.seconds.set(stage, (this.seconds.get(stage) ?? 0) + seconds);
  }

  /**
   * Restore an object from the newest good checkpoint of its stage, of at most `maxEpoch` epochs.
   */
  private async restore(stage: string, object: RemoteObject, maxEpoch?: number): Promise<Stage> {
    const state = await this.attach(stage, object);
    if (state) return state;
    const checkpoint = await this.run.checkpoint(stage, (m) => this.warn(m), maxEpoch);
    if (checkpoint) return this.restoreFrom(stage, object, checkpoint);
    // On an attached object, a job that the log does not know may have done epochs. The watch of
    // the
    // job reports them.
    return this.enter(stage, { object, epoch: 0, metrics: {} });
  }

  /**
   * Find a stage's state in the log of the attached session.
   *
   * @returns undefined if it has none there
   */
  private attached(stage: string): StageRecord | undefined {
    return this.before.findLast(
      (e): e is StageRecord => (e.type === "epoch" || e.type === "restored") && e.stage === stage,
    );
  }

  /**
   * Attach to a stage in the session, if it has been started there with this object (and not with
   * one that was deleted since).
   */
  private async attach(stage: string, object: RemoteObject): Promise<Stage | undefined> {
    const stands = this.attached(stage);
    if (stands === undefined || object.epoch < stands.epoch) return undefined;
    const { epoch, metrics } = stands;
    const records = (await this.run.events()).filter(
      (e): e is EpochRecord => e.type === "epoch" && e.stage === stage,
    );
    this.addSeconds(stage, computingTime(records, epoch));
    this.info(`${stage.padEnd(9)}  attached at epoch ${epoch}/${object.totalEpochs}`);
    return this.enter(stage, { object, epoch, metrics });
  }

  private enter(stage: string, state: Stage): Stage {
    this.stages.set(stage, state);
    return state;
  }

  private async restoreFrom(
    stage: string,
    object: RemoteObject,
    checkpoint: Checkpoint,
  ): Promise<Stage> {
    const { bytes, epoch, metrics, seconds } = checkpoint;
    try {
      await this.session.restore(object, bytes);
    } catch (error) {
      if (!(error instanceof RpcError && error.reason === "INVALID_INPUT")) throw error;
      const path = this.run.checkpointPath(stage);
      throw new FileError(
        `the worker refuses the checkpoint ${path}: ${error.message}`,
        "delete it to do this stage again",
        { cause: error },
      );
    }
    await this.run.append({ type: "restored", stage, epoch, metrics });
    this.addSeconds(stage, seconds);
    this.info(`${stage.padEnd(9)}  restored at epoch ${epoch}/${object.totalEpochs}`);
    return this.enter(stage, { object, epoch, metrics });
  }

  /** Run one job to its end. If the stage has a `state`, save a checkpoint after each epoch. */
  private async advanceObject(
    stage: string,
    object: RemoteObject,
    untilEpoch: number,
    state?: Stage,
  ): Promise<void> {
    const { totalEpochs } = object;
    await this.session.advance(object, {
      untilEpoch,
      snapshotEvery: state ? 1 : 0,
      requestId: `${object.handle}/${untilEpoch}`,
      known: this.known,
      signal: this.signal,
      onReplaced: (message) => this.warn(`${stage}: ${message}`),
      onStep: (s) => {
        const step = { ...s, stage, epoch: s.epoch - 1, totalEpochs };
        this.progress.step(step);
        this.live?.step(step);
      },
      onEpoch: async ({ epoch, metrics, seconds, job, snapshot }) => {
        // There is no snapshot if the next one replaced it before it could be fetched.
        if (state && snapshot)
          await this.run.saveCheckpoint(stage, snapshot, {
            epoch,
            totalEpochs,
            metrics,
            seconds,
            job,
          });
        else
          await this.run.append({
            type: "epoch",
            stage,
            epoch,
            totalEpochs,
            metrics,
            seconds,
            job,
          });
        if (state) Object.assign(state, { epoch, metrics });
        this.live?.epoch({ stage, epoch, totalEpochs });
        this.progress.epoch({ stage, epoch, totalEpochs, metrics }, seconds);
      },
    });
  }
}
