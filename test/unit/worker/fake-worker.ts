/**
 * A worker in this process, with both planes, whose objects are counters: an object's state is the
 * number of its epochs.
 */
import {
  type handleUnaryCall,
  Metadata,
  Server,
  ServerCredentials,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { Publisher, Router } from "zeromq";
import {
  type JobEvent,
  type JobServiceServer,
  JobServiceService,
  JobState,
} from "../../../src/gen/atlas/v1/job.js";
import {
  CosetOutcome,
  type CreateObjectRequest,
  type ObjectServiceServer,
  ObjectServiceService,
  ObjectType,
} from "../../../src/gen/atlas/v1/objects.js";
import { StepMetrics, TensorHeader } from "../../../src/gen/atlas/v1/tensor.js";
import {
  type WorkerServiceServer,
  WorkerServiceService,
} from "../../../src/gen/atlas/v1/worker.js";
import { Status } from "../../../src/gen/google/rpc/status.js";
import { STATUS_KEY } from "../../../src/rpc/index.js";
import { Tensor } from "../../../src/tensor/index.js";
import { PROTOCOL_VERSION } from "../../../src/worker/worker.js";
import { type Described, statusOf } from "./status.js";

/** A failed call as the worker sends it. */
export function failure(code: status, described?: Described, details = ""): ServiceError {
  const metadata = new Metadata();
  if (described)
    metadata.set(STATUS_KEY, Buffer.from(Status.encode(statusOf(described, code)).finish()));
  return Object.assign(new Error(details), { code, details, metadata });
}

interface Job {
  events: JobEvent[];
  cancelled: boolean;
  requestId: string;
}

export class FakeWorker {
  readonly server = new Server();
  readonly router = new Router({ linger: 0 });
  readonly publisher = new Publisher({ linger: 0 });
  readonly jobs = new Map<string, Job>();
  /** Finished epochs of every object, its handle's number being its place. */
  readonly epochs: number[] = [];
  /** The type of every object, and how many epochs its spec asks for. */
  private readonly specs: { type: ObjectType; totalEpochs: number }[] = [];
  /** Buffers on the tensor plane. */
  readonly buffers = new Map<string, { header: Buffer; body: Buffer }>();
  private tickets = 0;
  /** `after_sequence` of every watch. */
  readonly watches: number[] = [];
  readonly sessionsClosed: string[] = [];
  leaseSeconds = 600;
  /** Ranks of its sessions; 0 as from a worker that knows none. */
  ranks = 1;
  /** Sessions whose lease was renewed, each time. */
  readonly renewed: string[] = [];
  /** What equivariance was asked for. */
  readonly measured: object[] = [];
  address = "";

  // What goes wrong.
  protocolVersion = PROTOCOL_VERSION;
  describeFails?: ServiceError;
  /** Break every watch after so many events. */
  breakWatchAfter = Number.POSITIVE_INFINITY;
  /** How a watch breaks. */
  broken = failure(status.UNAVAILABLE, undefined, "connection reset");
  /** Epochs whose snapshot cannot be fetched any more. */
  lateSnapshots = new Set<number>();
  /** An epoch in which the job fails. */
  failIn?: { epoch: number; error: Described };
  epochMs = 5;
  /** Publish an epoch's step again and again, until this is so. */
  isHeard: (epoch: number) => boolean = () => true;
  /** Called before an epoch is begun. */
  onEpoch: (epoch: number) => void = () => {};
  /** Bytes of a snapshot beside its epoch. */
  ballast = 0;
  /** Leave this many requests on the tensor plane unanswered. */
  deaf = false;
  /** The session is not known any more, as after a restart. */
  forgotten = false;
  /** So many answers of the tensor plane are lost. */
  loseAnswers = 0;
  /**
   * Refuse so many calls of StartJob with UNAVAILABLE after starting the job: the answer is lost.
   */
  loseStarts = 0;

  static async start(): Promise<FakeWorker> {
    const worker = new FakeWorker();
    await worker.router.bind("tcp://127.0.0.1:*");
    await worker.publisher.bind("tcp://127.0.0.1:*");
    worker.server.addService(WorkerServiceService, worker.workerService());
    worker.server.addService(JobServiceService, worker.jobService());
    worker.server.addService(ObjectServiceService, worker.objectService());
    worker.server.addService(HEALTH, { check: healthy });
    const port = await new Promise<number>((resolve, reject) =>
      worker.server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      ),
    );
    worker.address = `127.0.0.1:${port}`;
    void worker.serveTensors();
    return worker;
  }

  async stop(): Promise<void> {
    this.server.forceShutdown();
    this.router.close();
    this.publisher.close();
  }

  private snapshotOf(epoch: number): Tensor {
    const bytes = Buffer.concat([Buffer.from(`epoch ${epoch}`), Buffer.alloc(this.ballast)]);
    return Tensor.fromBytes("uint8", [bytes.length], bytes);
  }

  private ticketFor(tensor: Tensor) {
    const ticket = `session-1.${this.tickets++}`;
    const { dtype, shape } = tensor.toWire();
    const size = tensor.bytes.length;
    const whole = { byteLength: size, offset: 0, more: false, fileName: "" };
    const header = TensorHeader.encode({ dtype, shape, ...whole }).finish();
    this.buffers.set(ticket, { header: Buffer.from(header), body: tensor.bytes });
    return tensor.toTicket(ticket);
  }

  private async serveTensors(): Promise<void> {
    for await (const [peer, id, verb, name, header, body] of this.router) {
      const ticket = String(name);
      if (this.deaf) continue;
      const answer: (Buffer | string)[] = [];
      if (String(verb) === "PUT") {
        if (header && body) this.buffers.set(ticket, { header, body });
        answer.push("OK");
      } else {
        const found = this.buffers.get(ticket);
        this.buffers.delete(ticket);
        const error = statusOf({ message: `no ticket ${ticket}`, reason: "NOT_FOUND" });
        answer.push(
          ...(found
            ? ["OK", found.header, found.body]
            : ["ERR", Buffer.from(Status.encode(error).finish())]),
        );
      }
      if (this.loseAnswers-- > 0) continue;
      if (peer && id) await this.router.send([peer, id, ...answer]);
    }
  }

  private workerService(): WorkerServiceServer {
    return {
      describe: (_, reply) =>
        reply(this.describeFails ?? null, {
          protocolVersion: this.protocolVersion,
          workerVersion: "0.0.1",
          versions: { torch: "0" },
          devices: [],
          dataPlane: {
            tensors: String(this.router.lastEndpoint),
            metrics: String(this.publisher.lastEndpoint),
            curve: undefined,
            maxFrameBytes: 0,
            acceptsParts: false,
            acceptsFiles: false,
          },
          limits: {
            maxInlineBytes: 64,
            maxTensorBytes: 1e9,
            maxMessageBytes: 1e6,
            maxSessions: 1,
            maxSessionTicketBytes: 1e9,
          },
          blocks: [],
          threads: 2,
          machine: { processor: "a processor (AVX2)", cores: 2, blas: "MKL 2024.2" },
          pid: process.pid,
        }),
      openSession: (_, reply) =>
        reply(null, {
          sessionId: "session-1",
          device: "cpu",
          leaseSeconds: this.leaseSeconds,
          ranks: this.ranks,
        }),
      renewLease: ({ request }, reply) => {
        this.renewed.push(request.sessionId);
        const gone = { message: "no such session", field: "session_id", reason: "NOT_FOUND" };
        if (this.forgotten) reply(failure(status.NOT_FOUND, gone));
        else reply(null, { device: "cpu", leaseSeconds: this.leaseSeconds, ranks: this.ranks });
      },
      closeSession: ({ request }, reply) => {
        this.sessionsClosed.push(request.sessionId);
        reply(null, {});
      },
    };
  }

  private jobService(): JobServiceServer {
    const summary = (jobId: string) => ({
      jobId,
      sessionId: "session-1",
      handle: "",
      state: JobState.JOB_STATE_RUNNING,
      epoch: 0,
      untilEpoch: 0,
      lastSequence: 0,
      error: undefined,
    });
    return {
      startJob: ({ request }, reply) => {
        const { requestId, handle, untilEpoch, snapshotEvery } = request;
        const before = [...this.jobs].find(([, job]) => job.requestId === requestId)?.[0];
        const jobId = before ?? `job-${this.jobs.size + 1}`;
        if (before === undefined) {
          const job = { events: [], cancelled: false, requestId };
          this.jobs.set(jobId, job);
          const until = untilEpoch ?? this.specs[Number(handle)]?.totalEpochs ?? 0;
          void this.work(jobId, job, Number(handle), until, snapshotEvery);
        }
        if (this.loseStarts-- > 0)
          reply(failure(status.UNAVAILABLE, undefined, "connection reset"));
        else reply(null, { job: summary(jobId) });
      },
      watchJob: async (stream) => {
        const { jobId, afterSequence } = stream.request;
        const { events } = this.jobs.get(jobId) as Job;
        this.watches.push(afterSequence);
        let sent = 0;
        for (let next = afterSequence; !stream.cancelled; ) {
          if (sent >= this.breakWatchAfter) return void stream.emit("error", this.broken);
          const event = events[next];
          if (event) {
            next++;
            sent++;
            stream.write({ event });
            if (event.event?.$case === "stateChanged" && event.event.stateChanged.state > 2)
              return void stream.end();
          } else await pause(2);
        }
      },
      cancelJob: ({ request }, reply) => {
        (this.jobs.get(request.jobId) as Job).cancelled = true;
        reply(null, { job: summary(request.jobId) });
      },
      getJob: unimplemented,
      listJobs: unimplemented,
    };
  }

  private async work(
    jobId: string,
    job: Job,
    object: number,
    untilEpoch: number,
    snapshotEvery: number,
  ) {
    const emit = (event: JobEvent["event"]) =>
      job.events.push({ sequence: job.events.length + 1, time: undefined, event });
    const state = (s: JobState, error?: Described) =>
      emit({
        $case: "stateChanged",
        stateChanged: { state: s, error: error && statusOf(error) },
      });
    state(JobState.JOB_STATE_RUNNING);
    while ((this.epochs[object] as number) < untilEpoch) {
      const epoch = (this.epochs[object] as number) + 1;
      this.onEpoch(epoch);
      const position = { epoch, totalEpochs: untilEpoch };
      const step = { ...position, jobId, step: 1, stepsInEpoch: 2, metrics: { loss: epoch } };
      const other = { ...step, epoch: 99 };
      const over = performance.now() + this.epochMs;
      do {
        await this.publisher.send([`${jobId}0`, StepMetrics.encode(other).finish()]);
        await this.publisher.send([jobId, StepMetrics.encode(step).finish()]);
        await pause(2);
      } while (!job.cancelled && (performance.now() < over || !this.isHeard(epoch)));
      if (job.cancelled) return state(JobState.JOB_STATE_CANCELLED);
      if (this.failIn?.epoch === epoch) return state(JobState.JOB_STATE_FAILED, this.failIn.error);
      this.epochs[object] = epoch;
      const due = snapshotEvery > 0 && (epoch % snapshotEvery === 0 || epoch === untilEpoch);
      const snapshot = due ? this.ticketFor(this.snapshotOf(epoch)) : undefined;
      if (snapshot?.data?.$case === "ticket" && this.lateSnapshots.has(epoch))
        this.buffers.delete(snapshot.data.ticket);
      emit({
        $case: "epochFinished",
        epochFinished: { ...position, metrics: { loss: 1 / epoch }, seconds: 0.5, snapshot },
      });
    }
    return state(JobState.JOB_STATE_SUCCEEDED);
  }

  private objectService(): ObjectServiceServer {
    const info = (handle: string, facts: Record<string, unknown> = {}) => {
      const { type = ObjectType.OBJECT_TYPE_UNSPECIFIED, totalEpochs = 0 } =
        this.specs[Number(handle)] ?? {};
      const epoch = this.epochs[Number(handle)] ?? 0;
      const dataset =
        type === ObjectType.OBJECT_TYPE_DATASET
          ? { inputsShape: [3, 2], targetsShape: [3, 1] }
          : undefined;
      const base = { handle, type, kind: "", memoryBytes: 0, dataset };
      return { object: { ...base, epoch, totalEpochs, facts } };
    };
    return {
      createObject: ({ request: { spec } }, reply) => {
        if (spec?.$case === "algebra" && (spec.algebra.k ?? 1) > 16)
          return reply(
            failure(status.INVALID_ARGUMENT, {
              message: `k is ${spec.algebra.k}`,
              field: "spec.algebra.k",
              expected: "at most 16",
              reason: "INVALID_INPUT",
            }),
          );
        const handle = String(this.epochs.push(0) - 1);
        const totalEpochs = spec?.$case === "predictor" ? spec.predictor.epochs : 0;
        this.specs.push({ type: typeOf(spec), totalEpochs });
        reply(null, info(handle, JSON.parse(JSON.stringify(spec))));
      },
      getSnapshot: ({ request: { handle } }, reply) => {
        const epoch = this.epochs[Number(handle)] as number;
        reply(null, { snapshot: this.ticketFor(this.snapshotOf(epoch)), epoch });
      },
      restoreSnapshot: ({ request: { handle, snapshot } }, reply) => {
        const { data } = snapshot as NonNullable<typeof snapshot>;
        const bytes = data?.$case === "ticket" ? this.buffers.get(data.ticket)?.body : data?.inline;
        this.epochs[Number(handle)] = Number(/^epoch (\d+)/.exec(String(bytes))?.[1]);
        reply(null, info(handle));
      },
      getAlgebra: (_, reply) =>
        reply(null, {
          // biome-ignore format: a matrix
          generators: this.ticketFor(Tensor.from([[[0, -1], [1, 0]]])),
          losses: [0.1],
          relativeErrors: [0.2],
          noiseFloor: 0.05,
          symmetryCount: 1,
          spectrum: [{ direction: HALF.toWire(), loss: 1, relativeError: 2 }],
          startLosses: [1, 2],
          explanation: "one",
          coordinates: undefined,
          factors: [],
          freeDirections: 0,
          leadingOut: 0,
          inertDirections: 0,
        }),
      compareComponents: ({ request: { basis, matrices } }, reply) =>
        reply(null, {
          component: [...(basis?.shape ?? []), ...(matrices?.shape ?? [])],
          residuals: Tensor.from([[0]]).toWire(),
        }),
      measureCharts: (_, reply) => reply(null, { charts: [] }),
      measureReach: (_, reply) => reply(null, { felt: [1, 0] }),
      measureEquivariance: ({ request: { atlas, dataset, matrices, samples, seed } }, reply) => {
        this.measured.push({ atlas, dataset, samples, seed });
        const one = { loss: 1, distance: 2, relativeError: 3, interpolationError: 4 };
        reply(null, { measured: Array.from({ length: matrices?.shape[0] ?? 0 }, () => one) });
      },
      measureEvidence: unimplemented,
      moveSample: unimplemented,
      auditPredictor: unimplemented,
      deleteObject: unimplemented,
      listObjects: unimplemented,
      loadWeights: unimplemented,
      readDataset: unimplemented,
      inspectFile: unimplemented,
      predict: unimplemented,
      scorePredictor: unimplemented,
      compareDatasets: (_, reply) => reply(null, { shared: 0 }),
      getCosets: (_, reply) =>
        reply(null, {
          matrices: Tensor.from([[[1, 0], [0, -1]]]).toWire(), // biome-ignore format: a matrix
          losses: [0.5],
          noiseFloor: 0.25,
          coordinates: undefined,
          factors: [],
          candidates: OUTCOMES.map((outcome, i) => ({
            matrix: Tensor.from([[i]]).toWire(),
            loss: i === 0 ? 0.5 : Number.POSITIVE_INFINITY,
            outcome,
            duplicateOf: outcome === CosetOutcome.COSET_OUTCOME_DUPLICATE ? 0 : undefined,
          })),
          closure: undefined,
        }),
    };
  }
}

const HALF = Tensor.from([[0, -0.5], [0.5, 0]], "float32"); // biome-ignore format: a matrix

/** Every outcome that a candidate may have. */
const OUTCOMES = [
  CosetOutcome.COSET_OUTCOME_KEPT,
  CosetOutcome.COSET_OUTCOME_NOT_A_SYMMETRY,
  CosetOutcome.COSET_OUTCOME_OUTSIDE_SUPPORT,
  CosetOutcome.COSET_OUTCOME_BEYOND_LIMIT,
  CosetOutcome.COSET_OUTCOME_DUPLICATE,
];

function typeOf(spec: CreateObjectRequest["spec"]): ObjectType {
  switch (spec?.$case) {
    case "dataset":
      return ObjectType.OBJECT_TYPE_DATASET;
    case "atlas":
      return ObjectType.OBJECT_TYPE_ATLAS;
    case "predictor":
      return ObjectType.OBJECT_TYPE_PREDICTOR;
    case "algebra":
      return ObjectType.OBJECT_TYPE_ALGEBRA;
    case "cosets":
      return ObjectType.OBJECT_TYPE_COSETS;
    default:
      return ObjectType.OBJECT_TYPE_UNSPECIFIED;
  }
}

const HEALTH = {
  check: {
    path: "/grpc.health.v1.Health/Check",
    requestStream: false,
    responseStream: false,
    requestSerialize: (bytes: Buffer) => bytes,
    requestDeserialize: (bytes: Buffer) => bytes,
    responseSerialize: (bytes: Buffer) => bytes,
    responseDeserialize: (bytes: Buffer) => bytes,
  },
} as const;

const healthy: handleUnaryCall<Buffer, Buffer> = (_, reply) => reply(null, Buffer.from([8, 1]));
const unimplemented: handleUnaryCall<unknown, never> = (_, reply) =>
  reply(failure(status.UNIMPLEMENTED));

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
