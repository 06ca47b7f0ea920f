/** A session: objects on a worker, and what can be done with them. Everything made in it is freed when it is closed. */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { AtlasError, RpcError, UsageError, WorkerUnavailable } from "../errors.js";
import { type EpochFinished, JobServiceService, JobState } from "../gen/atlas/v1/job.js";
import {
  type CreateObjectRequest,
  type GetAlgebraResponse,
  type GetCosetsResponse,
  type ObjectInfo,
  ObjectServiceService,
  type Component as WireComponent,
} from "../gen/atlas/v1/objects.js";
import type { StepMetrics, Tensor as WireTensor } from "../gen/atlas/v1/tensor.js";
import { WorkerServiceService } from "../gen/atlas/v1/worker.js";
import { type CallOptions, errorFromDetail, type Method, onAbort, type Rpc } from "../rpc/index.js";
import type { MetricsFeed } from "../tensor/metrics.js";
import { newTicket, type TensorPlane } from "../tensor/plane.js";
import { Tensor } from "../tensor/tensor.js";

/** An object on the worker, as it was when it was made or last asked about. */
export interface RemoteObject {
  readonly handle: string;
  /** "dataset", "atlas", "predictor", "algebra", "cosets". */
  readonly role: string;
  readonly kind: string;
  /** Finished epochs, and all that its spec asks for; both 0 for an object that does not advance. */
  readonly epoch: number;
  readonly totalEpochs: number;
  /** Shapes, parameter counts and the like. */
  readonly facts: Readonly<Record<string, unknown>>;
}

/** A building block of the worker with its parameters. `atlas worker info` lists them; unknown or ill-typed ones are refused. */
export interface Component {
  kind: string;
  params: Readonly<Record<string, unknown>>;
}

export interface DatasetOptions extends Component {
  seed: number;
  /** For kinds that take the user's own arrays. */
  tensors?: Readonly<Record<string, Tensor>>;
}

/** Square charts of one size on the dataset's pixel lattice; all lengths in pixels. */
export interface PlanarAtlasOptions {
  /** Centres. */
  charts: readonly { row: number; col: number }[];
  /** Radius of the predictor's input and output crop. */
  rIn: number;
  /** Radius of the inner crop on which transformed fields are compared. */
  rOut: number;
  /** True field beyond `rIn` that the resampler may read. */
  margin: number;
  /** How outputs are resampled when a matrix moves them (default "bilinear"); inputs always are bilinearly. */
  outputInterpolation?: "bilinear" | "nearest";
}

/** Square charts of one size on a sphere whose fields are on an equirectangular lattice; radii in pixels, of which the equator is one row. */
export interface SphereAtlasOptions {
  /** Centres, in degrees; the lattice's first row is the northernmost, its first column at longitude 0. */
  charts: readonly { latitude: number; longitude: number }[];
  rIn: number;
  rOut: number;
  margin: number;
  outputInterpolation?: PlanarAtlasOptions["outputInterpolation"];
}

/** All of R^n as one chart, for a global symmetry: a sample is a set of vectors, and a matrix acts on each. */
export interface VectorSpaceOptions {
  n: number;
  /** The output is a set of vectors that move too; otherwise (default) it is invariant. */
  vectorOutput?: boolean;
}

/** The whole sphere as one chart: fields on an equirectangular lattice, sampled at the pixels of an icosahedral grid. */
export interface IcosahedralGridOptions {
  /** How often the icosahedron's edges are halved: 10 · 4^resolution + 2 pixels. */
  resolution: number;
}

export type AtlasOptions =
  | PlanarAtlasOptions
  | SphereAtlasOptions
  | VectorSpaceOptions
  | IcosahedralGridOptions;

export interface PredictorOptions {
  architecture: Component;
  training: Component;
  dataset: RemoteObject;
  atlas: RemoteObject;
  epochs: number;
  seed: number;
  /** For architectures that are built around given tensors. */
  tensors?: Readonly<Record<string, Tensor>>;
}

interface SolverOptions {
  solver: Component;
  dataset: RemoteObject;
  atlas: RemoteObject;
  epochs: number;
  seed: number;
}

export interface AlgebraOptions extends SolverOptions {
  /** Left out for a solver that looks at the data alone ("liegan"). */
  predictor?: RemoteObject;
  /** Number of generators; 0: as many as the solver finds ("grassmann"). */
  k: number;
}

export interface CosetsOptions extends SolverOptions {
  predictor: RemoteObject;
  /** Basis of the identity component's Lie algebra, [k, n, n]; k may be 0. */
  identity: readonly (readonly (readonly number[])[])[];
}

export interface AdvanceOptions {
  /** Epochs to be finished in all (default: as many as the object's spec asks for). */
  untilEpoch?: number;
  /** Hand over a snapshot with every n-th epoch, and with the last; 0 (default): never. */
  snapshotEvery?: number;
  /** Aborted: the job is cancelled, and `advance` rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Two calls with the same one, also of two processes that have attached to the session, are for one and the same job. */
  requestId?: string;
  /** Jobs whose events are known already, up to a sequence number, from before the session was attached to: `onEpoch` is not told of these again. */
  known?: ReadonlyMap<string, number>;
  /** Told of the steps within an epoch as they happen; some may be missed. */
  onStep?: (step: Step) => void;
  /** Told of every epoch, in order; the next one is not handed over before this is done. */
  onEpoch?: (epoch: Epoch) => void | Promise<void>;
}

/** Where a job is within an epoch. `epoch` is the one being worked on, from 1. */
export type Step = Omit<StepMetrics, "jobId">;

export interface Epoch {
  /** Finished epochs, this one included. */
  epoch: number;
  totalEpochs: number;
  metrics: Record<string, number>;
  seconds: number;
  /** The job, as the worker's log has it, and the number of the event in which it told of this. */
  job: { id: string; sequence: number };
  /** The object after this epoch. Undefined when it was not asked for, or was replaced by the next before it could be fetched. */
  snapshot?: Uint8Array;
}

/** What an algebra solver has found. */
export interface AlgebraFindings {
  /** As learnt, [k, n, n]. */
  generators: number[][][];
  /** Equivariance loss along each generator, [k]. */
  losses: number[];
  /** Dimensionless equivariance error along each generator, [k]. */
  relativeErrors: number[];
  /** Loss that an exact symmetry would show with this predictor and resampler, as estimated. */
  noiseFloor: number;
  /** How many of the generators are symmetries. */
  found: number;
  /** Directions [n, n] of unit Frobenius norm. */
  spectrum: { direction: number[][]; loss: number; relativeError: number }[];
  /** Final loss of every start, ascending. */
  startLosses: number[];
  /** In words: why `found` is what it is. */
  verdict: string;
}

/** What a coset solver has found. */
export interface CosetFindings {
  /** One representative of each component, [m, n, n]. */
  matrices: number[][][];
  losses: number[];
  noiseFloor: number;
  /** Every candidate, ascending by loss. */
  candidates: {
    matrix: number[][];
    loss: number;
    /** "kept", "loss" (not a symmetry), "unseen" (moves the data to where there are none), "rank" (beyond the best), "duplicate". */
    verdict: string;
    /** Of a duplicate: index into `matrices` of the one it repeats. */
    duplicateOf?: number;
  }[];
}

export interface ComponentFindings {
  /** For each matrix the number of its component, in order of first appearance. */
  component: number[];
  /** [m, m] mean squared residual of the nearest element of the identity component to M_i M_j⁻¹. */
  residuals: number[][];
}

export interface EquivarianceOptions {
  /** Of the same kind as the predictor's own (default), with as many charts of the same radius. */
  atlas?: RemoteObject;
  /** Of samples of the same shape as the predictor's own (default). */
  dataset?: RemoteObject;
  /** How many, drawn at random (default: 256, or all where there are fewer). */
  samples?: number;
  /** Default: 0. */
  seed?: number;
}

/** How far a predictor f is from equivariance under one matrix g: means over samples and charts. */
export interface EquivarianceFindings {
  /** The predictor's own kind of loss. */
  loss: number;
  /** Mean absolute difference of f(gx) and g f(x); of class probabilities, for a classifier. */
  distance: number;
  /** `distance` over the most it could be, |f(gx) − f(x)| + |g f(x) − f(x)|; 0 where nothing moves. Of an invariant task it is 1 or 0: compare distances. */
  relativeError: number;
  /** How far `distance` may be the interpolation's doing. */
  resampling: number;
}

/** What a session needs of its worker. */
export interface SessionParts {
  rpc: Rpc;
  plane: TensorPlane;
  feed: MetricsFeed;
  /** Bytes up to which a tensor travels inside a message, and of the largest that the worker takes at all. */
  limits: { maxInlineBytes: number; maxTensorBytes: number };
  /** How long the session lives without a call; it is renewed in time until it is closed or left. 0: there is no lease. */
  leaseSeconds?: number;
  /** Milliseconds after which a tensor that does not come is asked for again (default 10 000). */
  silenceMs?: number;
  /** Aborted when the user wants no more; every call but those that end something is then given up. */
  signal?: AbortSignal;
}

/** Milliseconds for calls that compute. */
const LONG = { timeoutMs: 600_000 };

export class Session {
  /** Creations so far. They are numbered, so that a process that attaches and makes the same ones again gets the objects that there are. */
  private created = 0;
  private readonly renewal: NodeJS.Timeout | undefined;

  /** Use `Worker.openSession` or `Worker.attachSession`. */
  constructor(
    readonly id: string,
    /** The device on which its objects live, as torch writes it. */
    readonly device: string,
    private readonly parts: SessionParts,
  ) {
    const { rpc, leaseSeconds = 0 } = parts;
    if (leaseSeconds === 0) return;
    const renew = () => rpc.call(WorkerServiceService.renewLease, { sessionId: id });
    // When it fails, so does whatever the session is needed for, and that is told.
    this.renewal = setInterval(() => void renew().catch(() => undefined), (leaseSeconds * 1000) / 3).unref();
  }

  /** @throws RpcUsageError for an unknown kind or parameter; this holds for everything that is created */
  async createDataset({ kind, params, seed, tensors = {} }: DatasetOptions): Promise<RemoteObject> {
    const sent = await this.sendAll(tensors);
    return this.create({
      $case: "dataset",
      dataset: { source: component({ kind, params }), seed, tensors: sent },
    });
  }

  createAtlas(options: AtlasOptions): Promise<RemoteObject> {
    if ("n" in options) {
      const { n, vectorOutput = false } = options;
      return this.create({
        $case: "atlas",
        atlas: { manifold: { $case: "vectors", vectors: { n, vectorOutput } } },
      });
    }
    if ("resolution" in options) {
      const icosahedron = { resolution: options.resolution };
      return this.create({ $case: "atlas", atlas: { manifold: { $case: "icosahedron", icosahedron } } });
    }
    const { rIn, rOut, margin, outputInterpolation = "" } = options;
    if (isSpherical(options)) {
      const sphere = { charts: [...options.charts], rIn, rOut, margin, outputInterpolation };
      return this.create({ $case: "atlas", atlas: { manifold: { $case: "sphere", sphere } } });
    }
    const planar = { charts: [...options.charts], rIn, rOut, margin, outputInterpolation };
    return this.create({ $case: "atlas", atlas: { manifold: { $case: "planar", planar } } });
  }

  async createPredictor(options: PredictorOptions): Promise<RemoteObject> {
    const { architecture, training, dataset, atlas, epochs, seed, tensors = {} } = options;
    return this.create({
      $case: "predictor",
      predictor: {
        architecture: component(architecture),
        training: component(training),
        dataset: dataset.handle,
        atlas: atlas.handle,
        epochs,
        seed,
        tensors: await this.sendAll(tensors),
      },
    });
  }

  createAlgebra({ k, ...options }: AlgebraOptions): Promise<RemoteObject> {
    return this.create({ $case: "algebra", algebra: { ...solverSpec(options), k } });
  }

  async createCosets({ identity, ...options }: CosetsOptions): Promise<RemoteObject> {
    const basis = await this.sendBasis(identity);
    return this.create({ $case: "cosets", cosets: { ...solverSpec(options), identity: basis } });
  }

  /** Free an object before its session is closed. */
  async delete({ handle }: RemoteObject): Promise<void> {
    await this.call(ObjectServiceService.deleteObject, { sessionId: this.id, handle });
  }

  /** All objects, as they now are. */
  async list(): Promise<RemoteObject[]> {
    const { objects } = await this.call(ObjectServiceService.listObjects, { sessionId: this.id });
    return objects.map(remoteObject);
  }

  /**
   * Advance an object epoch by epoch, by one job on the worker. A lost connection is made anew, and nothing of the job is lost with it.
   *
   * @throws RpcError when the job fails ("diverged", "out_of_memory" …): the object is then as after its last finished epoch
   * @throws WorkerDied, WorkerUnavailable: the job may go on; what `onEpoch` throws, after cancelling the job; the reason of an aborted `signal`, likewise
   */
  async advance(object: RemoteObject, options: AdvanceOptions = {}): Promise<void> {
    const { untilEpoch = 0, snapshotEvery = 0, signal = this.parts.signal, onStep, onEpoch } = options;
    const { requestId = randomUUID(), known } = options;
    const { rpc, feed } = this.parts;
    const sessionId = this.id;
    const request = { sessionId, handle: object.handle, untilEpoch, snapshotEvery, requestId };
    signal?.throwIfAborted();
    const { job } = await this.call(JobServiceService.startJob, request, { signal, idempotent: true });
    if (!job) throw malformed("a job");
    const { jobId } = job;
    const unsubscribe = onStep && feed.subscribe(jobId, onStep);
    let running = true;
    try {
      const watch = { sessionId, jobId, afterSequence: known?.get(jobId) ?? 0 };
      for await (const { event, sequence } of rpc.watchJob(watch, signal)) {
        if (event?.$case === "epochFinished") {
          const { epoch, totalEpochs, metrics, seconds } = event.epochFinished;
          const last = epoch === (untilEpoch || object.totalEpochs);
          const snapshot =
            snapshotEvery > 0
              ? await this.epochSnapshot(object, event.epochFinished, last, signal)
              : undefined;
          const job = { id: jobId, sequence };
          await onEpoch?.({ epoch, totalEpochs, metrics, seconds, job, snapshot });
          signal?.throwIfAborted();
        } else if (event?.$case === "stateChanged") {
          const { state, error } = event.stateChanged;
          running = [JobState.JOB_STATE_QUEUED, JobState.JOB_STATE_RUNNING].includes(state);
          if (state === JobState.JOB_STATE_FAILED)
            throw error ? errorFromDetail(error) : malformed("a failure");
          if (state === JobState.JOB_STATE_CANCELLED) {
            signal?.throwIfAborted();
            throw new RpcError(`job ${jobId} was cancelled from elsewhere`, "cancelled", "", "");
          }
        }
      }
    } catch (error) {
      // What cannot be reached goes on, to be attached to.
      if (running && !(error instanceof WorkerUnavailable)) await this.cancel(jobId);
      throw error;
    } finally {
      unsubscribe?.();
    }
  }

  /** The object frozen: a safetensors file with its weights, optimiser, random-number state and position. */
  async snapshot(
    object: RemoteObject,
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<{ bytes: Uint8Array; epoch: number }> {
    const request = { sessionId: this.id, handle: object.handle };
    const { snapshot, epoch } = await this.call(ObjectServiceService.getSnapshot, request, {
      ...LONG,
      signal,
      idempotent: true,
    });
    return { bytes: (await this.fetch(snapshot, signal)).bytes, epoch };
  }

  /** Put an object into a frozen state. @throws RpcUsageError when the snapshot is not of such an object */
  async restore(object: RemoteObject, bytes: Uint8Array): Promise<void> {
    const snapshot = await this.send(Tensor.fromBytes("uint8", [bytes.byteLength], bytes));
    await this.call(
      ObjectServiceService.restoreSnapshot,
      { sessionId: this.id, handle: object.handle, snapshot },
      LONG,
    );
  }

  /**
   * Give a predictor weights from elsewhere.
   *
   * @param bytes a safetensors file with its weights, or a snapshot
   * @throws RpcUsageError naming the first tensor that does not fit
   */
  async loadWeights(object: RemoteObject, bytes: Uint8Array): Promise<void> {
    const weights = await this.send(Tensor.fromBytes("uint8", [bytes.byteLength], bytes));
    await this.call(
      ObjectServiceService.loadWeights,
      { sessionId: this.id, handle: object.handle, weights },
      LONG,
    );
  }

  /** What an algebra solver has found so far. @throws RpcError ("not_ready") before its first epoch */
  async getAlgebra(object: RemoteObject): Promise<AlgebraFindings> {
    const request = { sessionId: this.id, handle: object.handle };
    const r: GetAlgebraResponse = await this.call(ObjectServiceService.getAlgebra, request, {
      ...LONG,
      idempotent: true,
    });
    return {
      generators: (await this.fetch(r.generators)).toMatrices(),
      losses: r.losses,
      relativeErrors: r.relativeErrors,
      noiseFloor: r.noiseFloor,
      found: r.found,
      spectrum: await inOrder(r.spectrum, async ({ direction, loss, relativeError }) => ({
        direction: (await this.fetch(direction)).toMatrix(),
        loss,
        relativeError,
      })),
      startLosses: r.startLosses,
      verdict: r.verdict,
    };
  }

  /** What a coset solver has found so far. @throws RpcError ("not_ready") before its first epoch */
  async getCosets(object: RemoteObject): Promise<CosetFindings> {
    const request = { sessionId: this.id, handle: object.handle };
    const r: GetCosetsResponse = await this.call(ObjectServiceService.getCosets, request, {
      ...LONG,
      idempotent: true,
    });
    return {
      matrices: (await this.fetch(r.matrices)).toMatrices(),
      losses: r.losses,
      noiseFloor: r.noiseFloor,
      candidates: await inOrder(r.candidates, async ({ matrix, loss, verdict, duplicateOf }) => ({
        matrix: (await this.fetch(matrix)).toMatrix(),
        loss,
        verdict,
        duplicateOf: verdict === "duplicate" ? duplicateOf : undefined,
      })),
    };
  }

  /**
   * Which matrices lie in one component of the group whose identity component has the Lie algebra spanned by `basis`.
   *
   * @param basis [k, n, n]; k may be 0
   * @param group [m, n, n]
   */
  async compareComponents(
    basis: CosetsOptions["identity"],
    group: CosetsOptions["identity"],
  ): Promise<ComponentFindings> {
    if (group.length === 0) return { component: [], residuals: [] };
    const request = {
      basis: await this.sendBasis(basis),
      matrices: await this.send(Tensor.from(group)),
    };
    const options = { ...LONG, idempotent: true };
    const { component, residuals } = await this.call(
      ObjectServiceService.compareComponents,
      request,
      options,
    );
    return { component, residuals: (await this.fetch(residuals)).toMatrix() };
  }

  /**
   * How well a classifier does on a dataset, its own or another.
   *
   * @returns "accuracy", and for two classes "auc", "rejection_30", "rejection_50" (1/ε_B at ε_S 0.3 and 0.5); "<name>_error": standard
   * uncertainties. Of fields whose classes have names: "iou_<class>", "precision_<class>", "recall_<class>", "mean_iou", those of the experts
   * among themselves ("experts_…"), and "trivial_mean_iou" of the best constant
   */
  async scorePredictor(predictor: RemoteObject, dataset: RemoteObject): Promise<Record<string, number>> {
    const request = { sessionId: this.id, handle: predictor.handle, dataset: dataset.handle };
    const { scores } = await this.call(ObjectServiceService.scorePredictor, request, {
      ...LONG,
      idempotent: true,
    });
    return scores;
  }

  /**
   * How far a predictor is from equivariance under matrices of a group, each by itself and the same for all samples and charts.
   *
   * @param matrices [m, n, n], invertible; m is at least 1
   * @returns one for each matrix, in order
   * @throws RpcUsageError for matrices, an atlas or a dataset that do not fit the predictor
   */
  async measureEquivariance(
    predictor: RemoteObject,
    matrices: CosetsOptions["identity"],
    { atlas, dataset, samples = 256, seed = 0 }: EquivarianceOptions = {},
  ): Promise<EquivarianceFindings[]> {
    const request = {
      sessionId: this.id,
      handle: predictor.handle,
      atlas: atlas?.handle ?? "",
      dataset: dataset?.handle ?? "",
      matrices: await this.send(Tensor.from(matrices)),
      samples,
      seed,
    };
    return (await this.call(ObjectServiceService.measureEquivariance, request, LONG)).measured;
  }

  /** Samples `start` to `start + count` of a dataset, each of shape [count, channels, height, width] or [count, m, n]. */
  async readDataset(
    object: RemoteObject,
    range: { start: number; count: number },
  ): Promise<{ inputs: Tensor; targets: Tensor }> {
    const request = { sessionId: this.id, handle: object.handle, ...range };
    const options = { ...LONG, idempotent: true };
    const { inputs, targets } = await this.call(ObjectServiceService.readDataset, request, options);
    return { inputs: await this.fetch(inputs), targets: await this.fetch(targets) };
  }

  /**
   * A predictor's output on every chart, [batch, charts, channels, size, size].
   *
   * @param input crops of the same shape as the output, or samples of the predictor's own dataset or of another of the same shape
   * @param options.classes of a classifier of fields: the likeliest class of each pixel instead, [batch, height, width], -1 where there is no chart
   */
  async predict(
    object: RemoteObject,
    input: Tensor | { start: number; count: number; dataset?: RemoteObject },
    { classes = false }: { classes?: boolean } = {},
  ): Promise<Tensor> {
    const request = {
      sessionId: this.id,
      handle: object.handle,
      classes,
      input:
        input instanceof Tensor
          ? { $case: "crops" as const, crops: await this.send(input) }
          : { $case: "samples" as const, samples: { ...input, dataset: input.dataset?.handle ?? "" } },
    };
    return this.fetch((await this.call(ObjectServiceService.predict, request, LONG)).outputs);
  }

  /** Let go of it and leave it to its lease: its jobs go on, and it can be attached to. */
  leave(): void {
    clearInterval(this.renewal);
  }

  /** Cancel its jobs and free its objects. */
  async close(): Promise<void> {
    this.leave();
    const request = { sessionId: this.id };
    await this.parts.rpc.call(WorkerServiceService.closeSession, request, { timeoutMs: 10_000 });
  }

  private async create(spec: CreateObjectRequest["spec"]): Promise<RemoteObject> {
    const request = { sessionId: this.id, spec, requestId: `create-${++this.created}` };
    const { object } = await this.call(ObjectServiceService.createObject, request);
    if (!object) throw malformed("an object");
    return remoteObject(object);
  }

  /** The snapshot that belongs to an epoch's event; the last one's is asked for anew when it cannot be had any more. */
  private async epochSnapshot(
    object: RemoteObject,
    { epoch, snapshot }: EpochFinished,
    last: boolean,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array | undefined> {
    try {
      if (snapshot) return (await this.fetch(snapshot, signal)).bytes;
    } catch (error) {
      // It was replaced by a newer one; or is the session itself no more?
      if (!(error instanceof RpcError && error.code === "not_found") || error.field === "session_id")
        throw error;
    }
    if (!last) return undefined;
    const now = await this.snapshot(object, { signal });
    return now.epoch === epoch ? now.bytes : undefined;
  }

  /** Cancel a job that is of no use any more; when that fails the worker is gone, or its session ends soon, and the job with it. */
  private async cancel(jobId: string): Promise<void> {
    const request = { sessionId: this.id, jobId };
    await this.parts.rpc
      .call(JobServiceService.cancelJob, request, { timeoutMs: 5_000 })
      .catch(() => undefined);
  }

  private call<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions = {},
  ): Promise<Response> {
    return this.parts.rpc.call(method, request, { ...options, signal: options.signal ?? this.parts.signal });
  }

  /** A basis as a message; one without elements is left out, since its matrices have no size. */
  private sendBasis(basis: CosetsOptions["identity"]): Promise<WireTensor | undefined> {
    return basis.length === 0 ? Promise.resolve(undefined) : this.send(Tensor.from(basis));
  }

  private async sendAll(tensors: Readonly<Record<string, Tensor>>): Promise<Record<string, WireTensor>> {
    const sent: Record<string, WireTensor> = {};
    for (const [name, tensor] of Object.entries(tensors)) sent[name] = await this.send(tensor);
    return sent;
  }

  /** A tensor as a message, put on the tensor plane first when it is large. */
  private async send(tensor: Tensor): Promise<WireTensor> {
    const { maxInlineBytes, maxTensorBytes } = this.parts.limits;
    const size = tensor.data.byteLength;
    if (size <= maxInlineBytes) return tensor.toWire();
    if (size > maxTensorBytes)
      throw new UsageError(
        `a tensor of ${size} bytes (shape [${tensor.shape.join(", ")}]) is more than the worker takes (${maxTensorBytes})`,
        "use a smaller one",
      );
    const ticket = newTicket(this.id);
    await this.parts.plane.put(ticket, tensor, { signal: this.parts.signal });
    return tensor.toTicket(ticket);
  }

  private async fetch(wire: WireTensor | undefined, signal = this.parts.signal): Promise<Tensor> {
    if (!wire) throw malformed("a tensor");
    return wire.data?.$case === "ticket" ? this.take(wire.data.ticket, signal) : Tensor.fromWire(wire);
  }

  /**
   * The tensor under a ticket. Where it does not come for a while, the answer may have been lost with a connection, or the worker be another by now,
   * neither of which the tensor plane is told: the worker is asked for the session, then for the tensor again.
   */
  private async take(ticket: string, signal: AbortSignal | undefined): Promise<Tensor> {
    const { rpc, plane, silenceMs = 10_000 } = this.parts;
    const over = new AbortController();
    const options = { signal: over.signal };
    const dispose = onAbort([signal], () => over.abort(signal?.reason));
    const again = async () => {
      await sleep(silenceMs, undefined, options).catch(() => over.signal.throwIfAborted()); // with the user's reason
      await rpc.call(
        WorkerServiceService.renewLease,
        { sessionId: this.id },
        { ...LONG, ...options, idempotent: true },
      );
      return plane.get(ticket, options);
    };
    try {
      return await Promise.race([plane.get(ticket, options), again()]);
    } finally {
      dispose();
      over.abort();
    }
  }
}

function remoteObject({ handle, role, kind, epoch, totalEpochs, facts = {} }: ObjectInfo): RemoteObject {
  return { handle, role, kind, epoch, totalEpochs, facts };
}

/** Whether charts are on a sphere. */
export function isSpherical(
  atlas: Pick<PlanarAtlasOptions | SphereAtlasOptions, "charts">,
): atlas is Pick<SphereAtlasOptions, "charts"> & typeof atlas {
  return atlas.charts.some((chart) => "latitude" in chart);
}

function solverSpec({ solver, predictor, dataset, atlas, epochs, seed }: Omit<AlgebraOptions, "k">) {
  return {
    solver: component(solver),
    predictor: predictor?.handle ?? "",
    dataset: dataset.handle,
    atlas: atlas.handle,
    epochs,
    seed,
  };
}

/** A component as a message; parameters that are left undefined are left out, for the worker's defaults to hold. */
function component({ kind, params }: Component): WireComponent {
  const given = Object.entries(params).filter(([, value]) => value !== undefined);
  return { kind, params: Object.fromEntries(given) };
}

/** One after the other: a few small tensors, most of which are in the message already. */
async function inOrder<T, R>(items: readonly T[], convert: (item: T) => Promise<R>): Promise<R[]> {
  const converted: R[] = [];
  for (const item of items) converted.push(await convert(item));
  return converted;
}

function malformed(what: string): AtlasError {
  return new AtlasError(`the worker's answer lacks ${what}`, "use a worker of the same version");
}
