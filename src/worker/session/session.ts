/** A session: objects on a worker. Closing the session frees all of them. */
import { WorkerServiceService } from "../../gen/atlas/v1/worker.js";
import type {
  AlgebraMeasured,
  AuditMeasured,
  CosetsMeasured,
  EvidenceMeasured,
  GroupMeasured,
} from "../../result.js";
import type { Tensor } from "../../tensor/tensor.js";
import {
  type AtlasOptions,
  atlasSpec,
  countShared,
  type DatasetOptions,
  datasetSpec,
  type FormerAtlasOptions,
  readSamples,
} from "./datasets.js";
import {
  type FileReport,
  type InspectOptions,
  inspectFile,
  type UploadOptions,
  uploadFile,
} from "./files.js";
import { type AdvanceOptions, advance } from "./jobs.js";
import { Link, type Matrices, type SessionParts } from "./link.js";
import {
  createObject,
  deleteObject,
  listObjects,
  type RemoteObject,
  restoreObject,
  snapshotObject,
} from "./objects.js";
import {
  type AuditOptions,
  auditPredictor,
  type ChartFindings,
  type ChartOptions,
  type EquivarianceFindings,
  type EquivarianceOptions,
  type EvidenceOptions,
  loadWeights,
  type MotionFrames,
  type MotionOptions,
  measureCharts,
  measureEquivariance,
  measureEvidence,
  measureReach,
  moveSample,
  type PredictorInput,
  type PredictorOptions,
  predict,
  predictorSpec,
  scorePredictor,
} from "./predictors.js";
import {
  type AlgebraOptions,
  algebraSpec,
  type ComponentFindings,
  type CosetsOptions,
  compareComponents,
  cosetsSpec,
  getAlgebra,
  getClosure,
  getCosets,
} from "./solvers.js";

/** A session on a worker. Its objects are freed when it is closed. */
export class Session {
  private readonly link: Link;
  /**
   * Number of objects created so far. Creations are numbered, so that a process that attaches and
   * repeats them gets the same objects.
   */
  private created = 0;
  private readonly renewal: NodeJS.Timeout | undefined;

  /** Use `Worker.openSession` or `Worker.attachSession` instead. */
  constructor(
    readonly id: string,
    /** Device of its objects, in PyTorch's notation. */
    readonly device: string,
    parts: SessionParts,
    /** Processes that share each supervised training. */
    readonly ranks = 1,
  ) {
    this.link = new Link(id, parts);
    const { rpc, leaseSeconds = 0 } = parts;
    if (leaseSeconds === 0) return;
    const renew = () => rpc.call(WorkerServiceService.renewLease, { sessionId: id });
    // If this fails, other calls of the session fail too, and these report it.
    this.renewal = setInterval(
      () => void renew().catch(() => undefined),
      (leaseSeconds * 1000) / 3,
    ).unref();
  }

  /**
   * Create a dataset. Generating or reading it is a job: {@link advance} it.
   *
   * @throws UsageError for an unknown kind or parameter, as all creations do
   * @throws RpcUsageError for values that the worker refuses
   */
  async createDataset(options: DatasetOptions): Promise<RemoteObject> {
    return this.create(await datasetSpec(this.link, options));
  }

  /**
   * Create an atlas: `{ kind: "planar", params: { charts, r_in, r_out } }`, or another block of
   * type "action".
   */
  async createAtlas(options: AtlasOptions | FormerAtlasOptions): Promise<RemoteObject> {
    return this.create(atlasSpec(options));
  }

  /** Create a predictor. Training it is a job: {@link advance} it. */
  async createPredictor(options: PredictorOptions): Promise<RemoteObject> {
    return this.create(await predictorSpec(this.link, options));
  }

  /** Create a solver for the Lie algebra. Solving is a job: {@link advance} it. */
  async createAlgebra(options: AlgebraOptions): Promise<RemoteObject> {
    return this.create(await algebraSpec(this.link, options));
  }

  /** Create a solver for the components. Solving is a job: {@link advance} it. */
  async createCosets(options: CosetsOptions): Promise<RemoteObject> {
    return this.create(await cosetsSpec(this.link, options));
  }

  /**
   * Send a file, or a folder with its files, to a worker on another machine. The worker keeps it
   * until the session is closed.
   *
   * @returns what the dataset `files` takes for the path of the file
   */
  upload(path: string, options: UploadOptions = {}): Promise<string> {
    return uploadFile(this.link, path, options);
  }

  /**
   * Look at a file on the worker's machine: its arrays, how they may lie, and their numbers.
   *
   * @param path on the worker's machine, or what {@link upload} returned
   * @throws RpcUsageError if there is no such file, or it is damaged
   */
  inspectFile(path: string, options: InspectOptions = {}): Promise<FileReport> {
    return inspectFile(this.link, path, options);
  }

  /** Free an object before its session is closed. */
  delete(object: RemoteObject): Promise<void> {
    return deleteObject(this.link, object);
  }

  /** List all objects, as they are now. */
  list(): Promise<RemoteObject[]> {
    return listObjects(this.link);
  }

  /**
   * Advance an object epoch by epoch, by one job on the worker. If the connection is lost, it is
   * made anew, and no work of the job is lost.
   *
   * @throws RpcError if the job fails (reason DIVERGED, OUT_OF_MEMORY …); the object is then as
   * after its last finished epoch
   * @throws WorkerDied, WorkerUnavailable; the job may continue
   * @throws what `onEpoch` throws, or the reason of an aborted `signal`, after cancelling the job
   */
  advance(object: RemoteObject, options: AdvanceOptions = {}): Promise<void> {
    return advance(this.link, object, options);
  }

  /**
   * Take a snapshot of an object: a safetensors file with weights, optimiser, random state and
   * epoch.
   */
  snapshot(
    object: RemoteObject,
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<{ bytes: Uint8Array; epoch: number }> {
    return snapshotObject(this.link, object, signal);
  }

  /** Restore an object from a snapshot. @throws RpcUsageError if it is of another kind of object */
  restore(object: RemoteObject, bytes: Uint8Array): Promise<void> {
    return restoreObject(this.link, object, bytes);
  }

  /**
   * Load weights from elsewhere into a predictor.
   *
   * @param bytes a safetensors file with its weights, or a snapshot
   * @throws RpcUsageError if a tensor does not fit; the error names the first one
   */
  loadWeights(object: RemoteObject, bytes: Uint8Array): Promise<void> {
    return loadWeights(this.link, object, bytes);
  }

  /**
   * Get the findings of an algebra solver so far.
   *
   * @throws RpcError (NOT_READY) before its first epoch
   */
  getAlgebra(object: RemoteObject): Promise<AlgebraMeasured> {
    return getAlgebra(this.link, object);
  }

  /**
   * Get the findings of a coset solver so far.
   *
   * @throws RpcError (NOT_READY) before its first epoch
   */
  getCosets(object: RemoteObject): Promise<CosetsMeasured> {
    return getCosets(this.link, object);
  }

  /**
   * Get the group that a closure of matrices found.
   *
   * @throws RpcError (NOT_READY) before its first epoch
   */
  getClosure(object: RemoteObject): Promise<GroupMeasured> {
    return getClosure(this.link, object);
  }

  /**
   * Find which matrices are in the same component of a group.
   *
   * @param basis of the Lie algebra of the identity component, [k, n, n]; k may be 0
   * @param group the matrices, [m, n, n]
   */
  compareComponents(basis: Matrices, group: Matrices): Promise<ComponentFindings> {
    return compareComponents(this.link, basis, group);
  }

  /**
   * Score a classifier on a dataset, its own or another.
   *
   * @returns
   * - "accuracy";
   * - for two classes "auc", "rejection_30" and "rejection_50" (1/ε_B at ε_S 0.3 and 0.5);
   * - for fields with named classes "iou_<class>", "precision_<class>", "recall_<class>",
   * "mean_iou", the same among the experts ("experts_…"), and "trivial_mean_iou" of the best
   * constant;
   * - "<name>_error": standard uncertainties
   */
  scorePredictor(predictor: RemoteObject, dataset: RemoteObject): Promise<Record<string, number>> {
    return scorePredictor(this.link, predictor, dataset);
  }

  /**
   * Measure how far a predictor is from equivariance under matrices. Each matrix is applied by
   * itself, the same for all samples and charts.
   *
   * @param matrices [m, n, n], invertible; m is at least 1
   * @returns the findings for each matrix, in order
   * @throws RpcUsageError if matrices, atlas or dataset do not fit the predictor
   */
  measureEquivariance(
    predictor: RemoteObject,
    matrices: Matrices,
    options: EquivarianceOptions = {},
  ): Promise<EquivarianceFindings[]> {
    return measureEquivariance(this.link, predictor, matrices, options);
  }

  /**
   * Measure how far each chart by itself is from equivariance under matrices, which are applied one
   * by one.
   *
   * @param matrices [m, n, n], invertible; m is at least 1
   * @param options window: radius in pixels around a chart's centre where constant pixels count
   * @returns the findings for each chart of the predictor's atlas, in order
   */
  measureCharts(
    predictor: RemoteObject,
    matrices: Matrices,
    options: ChartOptions & { window: number },
  ): Promise<ChartFindings[]> {
    return measureCharts(this.link, predictor, matrices, options);
  }

  /**
   * Measure how far the output at a chart's centre feels the input.
   *
   * @returns for each r from 0: the mean square change of the output if the input beyond r pixels
   *   is that of another sample, divided by the change for a wholly different sample
   */
  measureReach(predictor: RemoteObject, options: ChartOptions = {}): Promise<number[]> {
    return measureReach(this.link, predictor, options);
  }

  /**
   * Measure the skill that a predictor loses along directions and at matrices, on data that it was
   * not fitted to (METHOD 2.13).
   *
   * @throws RpcUsageError if directions, matrices or the dataset do not fit the predictor
   */
  measureEvidence(
    predictor: RemoteObject,
    options: EvidenceOptions = {},
  ): Promise<EvidenceMeasured> {
    return measureEvidence(this.link, predictor, options);
  }

  /**
   * Move one sample along a generator, and predict from each of its frames. Of an equivariant
   * predictor, `predicted` and `expected` are the same.
   *
   * @throws RpcUsageError if the direction or the dataset does not fit the predictor, or there is no
   *   such sample or chart
   */
  moveSample(predictor: RemoteObject, options: MotionOptions): Promise<MotionFrames> {
    return moveSample(this.link, predictor, options);
  }

  /**
   * Find the layer in which a predictor loses an equivariance (METHOD 4.8). Its architecture is
   * `program` or `module`.
   *
   * @param matrices elements of the group, [m, n, n], invertible; m is at least 1
   * @throws RpcUsageError if its layers cannot be reached
   */
  auditPredictor(
    predictor: RemoteObject,
    matrices: Matrices,
    options: AuditOptions = {},
  ): Promise<AuditMeasured> {
    return auditPredictor(this.link, predictor, matrices, options);
  }

  /** Count the samples of `test` whose inputs are also inputs in `train`. */
  countShared(train: RemoteObject, test: RemoteObject): Promise<number> {
    return countShared(this.link, train, test);
  }

  /**
   * Read samples `start` to `start + count` of a dataset: [count, channels, height, width] or
   * [count, m, n].
   */
  readDataset(
    object: RemoteObject,
    range: { start: number; count: number },
  ): Promise<{ inputs: Tensor; targets: Tensor }> {
    return readSamples(this.link, object, range);
  }

  /**
   * Compute a predictor's output on every chart.
   *
   * @param input crops of the shape of the predictor's input, or samples of its own dataset or of
   *   another of the same shape
   * @returns [batch, charts, channels, size, size]; with `classes` [batch, height, width]
   */
  predict(
    object: RemoteObject,
    input: PredictorInput,
    {
      classes = false,
    }: {
      /**
       * For a classifier of fields: give the most probable class of each pixel, −1 outside charts.
       */
      classes?: boolean;
    } = {},
  ): Promise<Tensor> {
    return predict(this.link, object, input, classes);
  }

  /** Leave the session to its lease: its jobs continue, and a client can attach to it. */
  leave(): void {
    clearInterval(this.renewal);
  }

  /** Close the session: cancel its jobs and free its objects. */
  async close(): Promise<void> {
    this.leave();
    const request = { sessionId: this.id };
    await this.link.parts.rpc.call(WorkerServiceService.closeSession, request, {
      timeoutMs: 10_000,
    });
  }

  private create(spec: Parameters<typeof createObject>[1]): Promise<RemoteObject> {
    return createObject(this.link, spec, `create-${++this.created}`);
  }
}
