/**
 * What an experiment's `run` works with: objects on the worker, and stages that are checkpointed and resumed.
 *
 * Resuming is replaying. A resumed run calls the same `run` with the same config; a stage that has a checkpoint is put into that state the first
 * time it is advanced, and advancing a stage to an epoch it has already reached does nothing. So a run that was killed anywhere goes through the
 * same states as one that was not, and on CPU ends bit for bit the same.
 *
 * Attaching is replaying in the session that the run has already: what was made there is found instead of made, a job that was started is watched
 * on from the last epoch in the run's log, and no stage is put back.
 */
import { createHash } from "node:crypto";
import { AtlasError, FileError, RpcError } from "../errors.js";
import type { EpochRecord, RunEvent, StageRecord } from "../run/events.js";
import { type Checkpoint, computingTime, type RunFolder } from "../run/folder.js";
import type {
  AlgebraOptions,
  AtlasOptions,
  CosetsOptions,
  DatasetOptions,
  PredictorOptions,
  RemoteObject,
  Session,
} from "../worker/session.js";
import type { Progress } from "./progress.js";

/** A creation spec whose seed may be left out: it is then derived from the run's seed and the object's role. */
type Seeded<T> = Omit<T, "seed"> & { seed?: number };

/** What a context needs of a session. */
export type StageSession = Pick<
  Session,
  | "createDataset"
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
  | "compareComponents"
  | "readDataset"
  | "predict"
  | "scorePredictor"
  | "measureEquivariance"
  | "delete"
>;

export interface ContextOptions {
  session: StageSession;
  run: RunFolder;
  seed: number;
  progress: Progress;
  /** Aborted on Ctrl-C. */
  signal: AbortSignal;
  /** What the run's log has of this session already, where the session is attached to. */
  before?: readonly RunEvent[];
}

/** What is known of a stage in this run. */
interface Stage {
  object: RemoteObject;
  /** Epochs finished. */
  epoch: number;
  metrics: Record<string, number>;
}

export class Context {
  readonly session: StageSession;
  readonly seed: number;
  readonly signal: AbortSignal;
  private readonly run: RunFolder;
  private readonly progress: Progress;
  private readonly stages = new Map<string, Stage>();
  private readonly seconds = new Map<string, number>();
  private readonly before: readonly RunEvent[];
  /** Jobs in `before`, and the last event that it has of each. */
  private readonly known: ReadonlyMap<string, number>;

  constructor(options: ContextOptions) {
    this.session = options.session;
    this.run = options.run;
    this.seed = options.seed;
    this.progress = options.progress;
    this.signal = options.signal;
    this.before = options.before ?? [];
    const jobs = this.before.flatMap((e) => (e.type === "epoch" && e.job ? [e.job] : []));
    this.known = new Map(jobs.map(({ id, sequence }) => [id, sequence]));
  }

  /** A dataset, ready to be used. Making or reading it is not checkpointed: its seed, or its file, gives it again. */
  async dataset(options: Seeded<DatasetOptions>): Promise<RemoteObject> {
    return this.timed("dataset", async () => {
      const seed = this.seedFor("dataset");
      const object = await this.session.createDataset({ seed, ...options });
      if (object.totalEpochs === 0) return object;
      await this.advanceObject("dataset", object, object.totalEpochs);
      const now = await this.session.list(); // its facts, the shapes among them, are known only now
      return now.find(({ handle }) => handle === object.handle) ?? object;
    });
  }

  atlas(options: AtlasOptions): Promise<RemoteObject> {
    return this.session.createAtlas(options);
  }

  predictor(options: Seeded<PredictorOptions>): Promise<RemoteObject> {
    return this.session.createPredictor({ seed: this.seedFor("predictor"), ...options });
  }

  algebra(options: Seeded<AlgebraOptions>): Promise<RemoteObject> {
    return this.session.createAlgebra({ seed: this.seedFor("algebra"), ...options });
  }

  cosets(options: Seeded<CosetsOptions>): Promise<RemoteObject> {
    return this.session.createCosets({ seed: this.seedFor("cosets"), ...options });
  }

  /**
   * Advance an object until `untilEpoch` epochs are finished in all (default: as many as its spec asks for), from the checkpoint of `stage` if this
   * run has one, saving a checkpoint after every epoch.
   *
   * @returns the last epoch's metrics
   */
  async advance(
    stage: string,
    object: RemoteObject,
    { untilEpoch = object.totalEpochs }: { untilEpoch?: number } = {},
  ): Promise<Record<string, number>> {
    return this.timed(stage, async () => {
      const state = this.stages.get(stage) ?? (await this.restore(stage, object));
      if (state.object !== object)
        throw new AtlasError(
          `stage ${stage} was begun with another object`,
          "give every advanced object its own stage name",
        );
      if (state.epoch < untilEpoch) await this.advanceObject(stage, object, untilEpoch, state);
      return state.metrics;
    });
  }

  /**
   * The published schedule (METHOD 2.2): in each epoch one pass of `first`, then one pass of `second`, which depends on `first` as it then stands.
   *
   * The checkpoints of the two may be out of step after a crash; `first` is restored from the newest one that is not ahead of the epoch that
   * `second` must do next, since a pass of `second` with a later `first` would not be the same pass.
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
   * Give a predictor weights from elsewhere instead of training it. The run keeps its own copy, so that it can be resumed without the source.
   *
   * @param read reads the safetensors file; called only when the run has no copy yet
   */
  async reuse(stage: string, predictor: RemoteObject, read: () => Promise<Uint8Array>): Promise<void> {
    await this.timed(stage, async () => {
      if (await this.attach(stage, predictor)) return;
      const kept = await this.run.checkpoint(stage, (m) => this.warn(m));
      if (kept) return void (await this.restoreFrom(stage, predictor, kept));
      await this.session.loadWeights(predictor, await read());
      const { bytes, epoch } = await this.session.snapshot(predictor);
      await this.run.saveCheckpoint(stage, bytes, { epoch, totalEpochs: epoch, metrics: {}, seconds: 0 });
      this.enter(stage, { object: predictor, epoch, metrics: {} });
    });
  }

  /** Do something that counts towards a stage's time in the result. */
  async timed<T>(stage: string, work: () => Promise<T>): Promise<T> {
    this.signal.throwIfAborted();
    const start = performance.now();
    try {
      return await work();
    } finally {
      this.addSeconds(stage, (performance.now() - start) / 1000);
    }
  }

  /** A stage's metrics after its last finished epoch; empty when there are none. */
  metrics(stage: string): Readonly<Record<string, number>> {
    return this.stages.get(stage)?.metrics ?? {};
  }

  /** Seconds of each stage, those before an interruption included. */
  get timings(): Record<string, number> {
    return Object.fromEntries([...this.seconds].map(([stage, s]) => [stage, Math.round(s * 1000) / 1000]));
  }

  /** A line for the user. */
  info(line: string): void {
    this.progress.info(line);
  }

  /** A line for the user that is shown even when quiet. */
  warn(line: string): void {
    this.progress.warn(line);
  }

  /** A seed for one object, distinct for each role, so that no two objects draw the same random numbers. */
  seedFor(role: string): number {
    return createHash("sha256").update(`${this.seed}/${role}`).digest().readUIntBE(0, 6);
  }

  private addSeconds(stage: string, seconds: number): void {
    this.seconds.set(stage, (this.seconds.get(stage) ?? 0) + seconds);
  }

  /** Put an object into its stage's newest good checkpoint of at most `maxEpoch` epochs, if there is one. */
  private async restore(stage: string, object: RemoteObject, maxEpoch?: number): Promise<Stage> {
    const state = await this.attach(stage, object);
    if (state) return state;
    const checkpoint = await this.run.checkpoint(stage, (m) => this.warn(m), maxEpoch);
    if (checkpoint) return this.restoreFrom(stage, object, checkpoint);
    // Of an object that is attached to, a job that the log has nothing of may have done epochs: they are told when it is watched.
    return this.enter(stage, { object, epoch: 0, metrics: {} });
  }

  /** Where a stage stands by what the log has of this session; undefined when it was not begun there. */
  private attached(stage: string): StageRecord | undefined {
    return this.before.findLast(
      (e): e is StageRecord => (e.type === "epoch" || e.type === "restored") && e.stage === stage,
    );
  }

  /** Take up a stage where it stands in the session, if it does: not with an object that took the place of a deleted one. */
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

  private async restoreFrom(stage: string, object: RemoteObject, checkpoint: Checkpoint): Promise<Stage> {
    const { bytes, epoch, metrics, seconds } = checkpoint;
    try {
      await this.session.restore(object, bytes);
    } catch (error) {
      if (!(error instanceof RpcError)) throw error;
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

  /** Run one job to its end, with a checkpoint after each epoch when the stage has a `state`. */
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
      onStep: (s) => this.progress.step({ ...s, stage, epoch: s.epoch - 1, totalEpochs }),
      onEpoch: async ({ epoch, metrics, seconds, job, snapshot }) => {
        // An epoch whose snapshot was replaced by the next one's before it could be fetched has no checkpoint of its own.
        if (state && snapshot)
          await this.run.saveCheckpoint(stage, snapshot, { epoch, totalEpochs, metrics, seconds, job });
        else await this.run.append({ type: "epoch", stage, epoch, totalEpochs, metrics, seconds, job });
        if (state) Object.assign(state, { epoch, metrics });
        this.progress.epoch({ stage, epoch, totalEpochs, metrics }, seconds);
      },
    });
  }
}
