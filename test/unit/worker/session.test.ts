import { type AddressInfo, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import { expect } from "chai";
import {
  RpcError,
  RpcUsageError,
  type UsageError,
  WorkerUnavailable,
} from "../../../src/errors.js";
import { JobServiceService } from "../../../src/gen/atlas/v1/job.js";
import { WorkerServiceService } from "../../../src/gen/atlas/v1/worker.js";
import { Rpc, STATUS_KEY } from "../../../src/rpc/index.js";
import { Tensor } from "../../../src/tensor/index.js";
import { MetricsFeed } from "../../../src/tensor/metrics.js";
import { newTicket, TensorPlane } from "../../../src/tensor/plane.js";
import {
  connectWorker,
  type Epoch,
  PROTOCOL_VERSION,
  type RemoteObject,
  Session,
  type Step,
  type Worker,
} from "../../../src/worker/index.js";
import { FakeWorker, failure } from "./fake-worker.js";
import { rejection } from "./rejection.js";

const architecture = { kind: "reference_cnn", params: { width: undefined } } as const;
const training = { kind: "supervised", params: { batch_size: 3, loss: undefined } } as const;

describe("session", () => {
  let fake: FakeWorker;
  let worker: Worker;
  let session: Session;
  let object: RemoteObject;

  beforeEach(async () => {
    fake = await FakeWorker.start();
    worker = await connectWorker({ worker: `grpc://${fake.address}` });
    session = await worker.openSession({ label: "test", device: "cpu" });
    const common = {
      dataset: { ...handle, handle: "d" },
      atlas: { ...handle, handle: "a" },
      seed: 2 ** 47,
    };
    object = await session.createPredictor({
      ...common,
      architecture,
      training,
      epochs: 6,
    });
  });
  afterEach(async () => {
    await worker.close();
    await fake.stop();
  });
  const handle: RemoteObject = {
    handle: "",
    type: "dataset",
    kind: "",
    epoch: 0,
    totalEpochs: 0,
    facts: {},
  };

  /** Advance to the end; what was told of it. */
  async function advance(options: Parameters<Session["advance"]>[1] = {}): Promise<Epoch[]> {
    const epochs: Epoch[] = [];
    await session.advance(object, {
      untilEpoch: 6,
      ...options,
      onEpoch: (e) => void epochs.push(e),
    });
    return epochs;
  }
  const text = (bytes: Uint8Array | undefined) =>
    bytes && Buffer.from(bytes).toString("utf8").replaceAll("\0", "");

  it("says what is charted, by a block or by the former options", async () => {
    const sent = async (options: Parameters<Session["createAtlas"]>[0]) =>
      ((await session.createAtlas(options)).facts as { atlas: { action: object } }).atlas.action;
    const planar = { charts: [{ row: 5, col: 6 }], r_in: 4, r_out: 3 };
    const sphere = { charts: [{ latitude: 5, longitude: 6 }], r_in: 4, r_out: 3, margin: 1 };
    for (const [block, former] of [
      [{ kind: "icosahedron", params: { resolution: 5 } }, { resolution: 5 }],
      [
        { kind: "vectors", params: { n: 3, vector_output: true } },
        { n: 3, vectorOutput: true },
      ],
      [
        { kind: "planar", params: planar },
        { charts: planar.charts, rIn: 4, rOut: 3 },
      ],
      [
        { kind: "planar", params: { ...planar, output_interpolation: "nearest" } },
        { charts: planar.charts, rIn: 4, rOut: 3, outputInterpolation: "nearest" },
      ],
      [
        { kind: "sphere", params: sphere },
        { charts: sphere.charts, rIn: 4, rOut: 3, margin: 1 },
      ],
    ] as const) {
      expect(await sent(block)).to.deep.equal(block);
      expect(await sent(former)).to.deep.equal(block);
    }
  });

  it("sends blocks by their present names, whatever they are called", async () => {
    const former = { kind: "paper", params: { r1: 2 } } as never;
    const common = { predictor: handle, dataset: handle, atlas: handle, epochs: 1, seed: 1 };
    const { facts } = await session.createAlgebra({ ...common, solver: former, k: 1 });
    expect((facts as { algebra: object }).algebra).to.deep.include({
      solver: { kind: "atlasd", params: { r1: 2 } },
    });
  });

  it("says what type an object is of, and the shapes of a dataset", async () => {
    expect(object).to.include({ type: "predictor", shapes: undefined });
    const dataset = await session.createDataset({ kind: "arrays", seed: 0 });
    expect(dataset).to.deep.include({
      type: "dataset",
      shapes: { inputs: [3, 2], targets: [3, 1] },
    });
  });

  it("leaves out the number of generators that the solver is to find", async () => {
    const common = { predictor: handle, dataset: handle, atlas: handle, epochs: 1, seed: 1 };
    for (const k of ["auto", 0, undefined, 2] as const) {
      const solver = { kind: "grassmann" } as const;
      const { facts } = await session.createAlgebra({ ...common, solver, k });
      expect((facts as { algebra: { k?: number } }).algebra.k).to.equal(k === 2 ? 2 : undefined);
    }
  });

  it("is known by its worker", () => {
    expect(worker.address).to.equal(`grpc://${fake.address}`);
    expect(worker.info).to.include({ threads: 2, workerVersion: "0.0.1", pid: process.pid });
    expect(session.device).to.equal("cpu");
  });

  it("renews its lease by itself until it is left, and can be attached to then", async () => {
    fake.leaseSeconds = 0.06;
    const leased = await worker.openSession();
    while (fake.renewed.length < 3) await sleep(5);
    leased.leave();
    const attached = await worker.attachSession(leased.id);
    expect(attached).to.include({ id: "session-1", device: "cpu" });
    await worker.close({ leave: true });
    await sleep(60); // for what was on its way
    const renewed = fake.renewed.length;
    await sleep(120); // six times as long as between two renewals
    expect(fake.renewed).to.have.length(renewed);
    expect(fake.sessionsClosed).to.deep.equal([]);
  });

  it("has as many ranks as asked for, or none", async () => {
    fake.ranks = 2;
    const shared = await worker.openSession({ ranks: 2 });
    expect(shared.ranks).to.equal(2);
    expect((await worker.attachSession(shared.id)).ranks).to.equal(2);
    fake.ranks = 0; // a worker of an earlier version
    expect((await worker.openSession()).ranks).to.equal(1);
    const closed = fake.sessionsClosed.length;
    expect(await rejection(worker.openSession({ ranks: 2 })))
      .to.be.instanceOf(WorkerUnavailable)
      .and.to.have.property("message")
      .that.contains("2 ranks");
    expect(fake.sessionsClosed).to.have.length(closed + 1);
  });

  it("makes objects, with the worker's defaults for what is left out", () => {
    expect(object).to.deep.include({ handle: "0", epoch: 0, totalEpochs: 6 });
    const { predictor } = object.facts as { predictor: Record<string, unknown> };
    expect(predictor).to.deep.include({
      architecture: { kind: "reference_cnn", params: {} },
      training: { kind: "supervised", params: { batch_size: 3 } },
      dataset: "d",
      atlas: "a",
      seed: 2 ** 47,
    });
  });

  it("says which field is wrong, as the user's mistake", async () => {
    const common = { predictor: handle, dataset: handle, atlas: handle, epochs: 1, seed: 1 };
    const solver = { kind: "grassmann" } as const;
    const made = session.createAlgebra({ ...common, solver, k: 17 });
    const error = (await rejection(made)) as RpcUsageError;
    expect(error).to.be.instanceOf(RpcUsageError);
    expect(error.message).to.equal("k is 17 (spec.algebra.k)");
    expect(error).to.include({
      reason: "INVALID_INPUT",
      code: "invalid_input", // the former form of the reason
      remedy: "expected: at most 16",
      exitCode: 2,
    });
  });

  it("refuses a misspelt parameter itself, and nothing is sent", async () => {
    const before = fake.epochs.length;
    const wrong = { kind: "mlp", params: { widht: 3 } } as never;
    const spec = { training, dataset: handle, atlas: handle, epochs: 1, seed: 1 };
    const error = await rejection(session.createPredictor({ ...spec, architecture: wrong }));
    expect(error).to.include({ name: "UsageError" });
    expect(error.message).to.match(/widht.*did you mean width\?/);
    expect(fake.epochs).to.have.length(before);
  });

  it("advances an object, told of every epoch and of steps", async () => {
    const steps: Step[] = [];
    fake.isHeard = (epoch) => steps.some((step) => step.epoch === epoch);
    const epochs = await advance({ snapshotEvery: 2, onStep: (s) => steps.push(s) });
    expect(epochs.map((e) => e.epoch)).to.deep.equal([1, 2, 3, 4, 5, 6]);
    expect(epochs.map((e) => text(e.snapshot))).to.deep.equal([
      undefined,
      "epoch 2",
      undefined,
      "epoch 4",
      undefined,
      "epoch 6",
    ]);
    expect(epochs[1]).to.deep.include({ totalEpochs: 6, metrics: { loss: 0.5 }, seconds: 0.5 });
    expect(steps.at(-1)).to.deep.include({
      epoch: 6,
      step: 1,
      stepsInEpoch: 2,
      metrics: { loss: 6 },
    });
    expect(
      steps.some((s) => s.epoch === 99),
      "steps of job-10 for job-1",
    ).to.equal(false);
  });

  it("advances as far as the spec asks for, where nothing else is said", async () => {
    const epochs = await advance({ untilEpoch: undefined, snapshotEvery: 4 });
    expect(epochs.map((e) => [e.epoch, text(e.snapshot)])).to.deep.equal(
      [1, 2, 3, 4, 5, 6].map((n) => [n, n === 4 || n === 6 ? `epoch ${n}` : undefined]),
    );
  });

  it("loses and repeats nothing when the connection breaks again and again", async () => {
    fake.breakWatchAfter = 2;
    expect(
      (await advance({ snapshotEvery: 1 })).map((e) => [e.epoch, text(e.snapshot)]),
    ).to.deep.equal([1, 2, 3, 4, 5, 6].map((n) => [n, `epoch ${n}`]));
    expect(fake.watches).to.deep.equal([0, 2, 4, 6]);
  });

  it("starts one job even when the answer to its start is lost", async () => {
    fake.loseStarts = 2;
    expect(await advance()).to.have.length(6);
    expect(fake.jobs.size).to.equal(1);
  });

  it("does without a snapshot that was replaced, but not without the last", async () => {
    fake.lateSnapshots = new Set([2, 3, 6]);
    const snapshots = (await advance({ snapshotEvery: 1 })).map((e) => text(e.snapshot));
    expect(snapshots).to.deep.equal([
      "epoch 1",
      undefined,
      undefined,
      "epoch 4",
      "epoch 5",
      "epoch 6",
    ]);
  });

  describe("whose worker does not answer on the tensor plane", () => {
    let parts: { rpc: Rpc; plane: TensorPlane; feed: MetricsFeed };
    beforeEach(() => {
      parts = {
        rpc: new Rpc(fake.address),
        plane: new TensorPlane(String(fake.router.lastEndpoint)),
        feed: new MetricsFeed(String(fake.publisher.lastEndpoint)),
      };
      const limits = { maxInlineBytes: 64, maxTensorBytes: 1e9 };
      session = new Session("session-1", "cpu", { ...parts, limits, silenceMs: 50 });
    });
    afterEach(() => {
      for (const part of Object.values(parts)) part.close();
    });

    it("asks again for a snapshot whose answer was lost with a connection", async () => {
      fake.loseAnswers = 1;
      const snapshots = (await advance({ snapshotEvery: 6 })).map((e) => text(e.snapshot));
      expect(snapshots.at(-1)).to.equal("epoch 6");
      expect(fake.renewed).to.deep.equal(["session-1"]);
    });

    it("ends where the worker does not know the session any more", async () => {
      Object.assign(fake, { deaf: true, forgotten: true });
      expect(await rejection(advance({ snapshotEvery: 1 }))).to.include({ field: "session_id" });
    });
  });

  it("ends a failed job with the worker's reason", async () => {
    fake.failIn = {
      epoch: 3,
      error: {
        message: "the loss is NaN in epoch 3",
        remedy: "lower the learning rate",
        reason: "DIVERGED",
      },
    };
    const error = (await rejection(advance())) as RpcError;
    expect(error).to.be.instanceOf(RpcError);
    expect(error).to.include({
      message: "the loss is NaN in epoch 3",
      remedy: "lower the learning rate",
      reason: "DIVERGED",
    });
    expect(fake.jobs.get("job-1")?.cancelled).to.equal(false);
  });

  it("cancels the job when aborted, and says why it ended", async () => {
    const controller = new AbortController();
    const reason = new Error("Ctrl-C");
    const onEpoch = ({ epoch }: Epoch) => void (epoch === 2 && controller.abort(reason));
    expect(
      await rejection(
        session.advance(object, { untilEpoch: 6, signal: controller.signal, onEpoch }),
      ),
    ).to.equal(reason);
    expect(fake.jobs.get("job-1")?.cancelled).to.equal(true);
    fake.epochMs = Number.POSITIVE_INFINITY;
    const [watches, again] = [fake.watches.length, new AbortController()];
    const silent = rejection(session.advance(object, { untilEpoch: 6, signal: again.signal }));
    while (fake.watches.length === watches) await sleep(5);
    again.abort(reason);
    expect(await silent).to.equal(reason);
    expect(fake.jobs.get("job-2")?.cancelled).to.equal(true);
  });

  it("cancels the job when an epoch cannot be saved", async () => {
    const full = new Error("disk full");
    expect(
      await rejection(
        session.advance(object, { untilEpoch: 6, onEpoch: () => Promise.reject(full) }),
      ),
    ).to.equal(full);
    expect(fake.jobs.get("job-1")?.cancelled).to.equal(true);
  });

  for (const ballast of [0, 1 << 20])
    it(`freezes and restores objects of ${ballast} bytes`, async () => {
      fake.ballast = ballast;
      await session.advance(object, { untilEpoch: 4 });
      const { bytes, epoch } = await session.snapshot(object);
      expect(epoch).to.equal(4);
      await session.advance(object, { untilEpoch: 6 });
      await session.restore(object, bytes);
      expect(fake.epochs[0]).to.equal(4);
    });

  it("reads an algebra, its tensors inline or not", async () => {
    const algebra = await session.getAlgebra(object);
    expect(algebra).to.deep.equal({
      generators: [[[0, -1], [1, 0]]], // biome-ignore format: a matrix
      losses: [0.1],
      relativeErrors: [0.2],
      noiseFloor: 0.05,
      symmetryCount: 1,
      // biome-ignore format: a matrix
      spectrum: [{ direction: [[0, -0.5], [0.5, 0]], loss: 1, relativeError: 2 }],
      startLosses: [1, 2],
      explanation: "one",
    });
  });

  it("reads components, and what became of every candidate", async () => {
    const { matrices, losses, noiseFloor, candidates } = await session.getCosets(object);
    expect({ matrices, losses, noiseFloor }).to.deep.equal({
      matrices: [[[1, 0], [0, -1]]], // biome-ignore format: a matrix
      losses: [0.5],
      noiseFloor: 0.25,
    });
    const outcomes = [
      "kept",
      "not_a_symmetry",
      "outside_support",
      "beyond_limit",
      "duplicate",
    ] as const;
    expect(candidates.map(({ outcome }) => outcome)).to.deep.equal(outcomes);
    expect(candidates.map(({ matrix }) => matrix)).to.deep.equal(outcomes.map((_, i) => [[i]]));
    expect(candidates.map(({ loss }) => loss)).to.deep.equal([0.5, null, null, null, null]);
    expect(candidates.map(({ duplicateOf }) => duplicateOf)).to.deep.equal([
      ...new Array(4).fill(undefined),
      0,
    ]);
  });

  it("leaves an empty basis out, since its matrices have no size", async () => {
    const unit = [[1, 0], [0, 1]]; // biome-ignore format: a matrix
    const { component: shapes, residuals } = await session.compareComponents([], [unit]);
    expect(shapes).to.deep.equal([1, 2, 2]);
    expect(residuals).to.deep.equal([[0]]);
  });

  it("measures equivariance on the predictor's own data, or on others", async () => {
    const unit = [[1, 0], [0, 1]]; // biome-ignore format: a matrix
    const one = { loss: 1, distance: 2, relativeError: 3, interpolationError: 4 };
    expect(await session.measureEquivariance(object, [unit, unit, unit])).to.deep.equal([
      one,
      one,
      one,
    ]);
    const atlas = { ...handle, handle: "a" };
    const dataset = { ...handle, handle: "d" };
    await session.measureEquivariance(object, [unit], {
      atlas,
      dataset,
      samples: 9,
      seed: 2 ** 47,
    });
    expect(fake.measured).to.deep.equal([
      { atlas: undefined, dataset: undefined, samples: 256, seed: 0 },
      { atlas: "a", dataset: "d", samples: 9, seed: 2 ** 47 },
    ]);
  });

  it("refuses a tensor that is too large before it is sent", async () => {
    const big = { dtype: "uint8", shape: [1e9 + 1], byteLength: 1e9 + 1, parts: () => [] } as const;
    const error = await rejection(
      session.createDataset({ kind: "arrays", seed: 0, tensors: { big } }),
    );
    expect(error.name).to.equal("UsageError");
    expect(error.message).to.contain("1000000001 bytes");
  });

  it("is closed, and so are the sessions of a worker that is left", async () => {
    await worker.close();
    expect(fake.sessionsClosed).to.deep.equal(["session-1"]);
  });

  describe("tensor plane", () => {
    let plane: TensorPlane;
    beforeEach(() => {
      plane = new TensorPlane(String(fake.router.lastEndpoint));
    });
    afterEach(() => plane.close());

    it("moves many tensors at once, each to where it belongs", async () => {
      const tensors = Array.from({ length: 20 }, (_, i) =>
        Tensor.from(new Array(10_000 + i).fill(i), "float32"),
      );
      const tickets = tensors.map(() => newTicket("session-1"));
      expect(tickets[0]).to.match(/^session-1\.[0-9a-f]{32}$/);
      await Promise.all(tensors.map((t, i) => plane.put(tickets[i] as string, t)));
      const fetched = await Promise.all(tickets.map((t) => plane.get(t)));
      expect(fetched).to.deep.equal(tensors);
      const error = (await rejection(plane.get(tickets[0] as string))) as RpcError;
      expect(error).to.be.instanceOf(RpcError);
      expect(error.reason).to.equal("NOT_FOUND");
    });

    it("moves tensors without elements", async () => {
      const empty = Tensor.from([], "int64", [0, 3]);
      await plane.put("session-1.e", empty);
      expect(await plane.get("session-1.e")).to.deep.equal(empty);
    });

    it("gives up in time, when aborted, when the worker is gone, and when closed", async () => {
      fake.deaf = true;
      const error = await rejection(plane.get("t", { timeoutMs: 20 }));
      expect(error).to.be.instanceOf(WorkerUnavailable);
      expect(error.message).to.contain(plane.endpoint).and.to.contain("0.02 s");
      const signal = AbortSignal.timeout(10);
      expect(await rejection(plane.get("t", { signal }))).to.equal(signal.reason);
      const gone = new AbortController();
      const other = new TensorPlane(plane.endpoint, gone.signal);
      const pending = rejection(other.get("t"));
      gone.abort(new Error("died"));
      expect((await pending).message).to.equal("died");
      expect((await rejection(other.get("t"))).message).to.equal("died");
      other.close();
      const last = rejection(plane.get("t"));
      plane.close();
      expect((await last).message).to.contain("closed");
      expect((await rejection(plane.get("t"))).message).to.contain("closed");
    });
  });
});

describe("connecting", () => {
  let fake: FakeWorker;
  beforeEach(async () => {
    fake = await FakeWorker.start();
  });
  afterEach(() => fake.stop());

  it("refuses a worker of another protocol version, naming both", async () => {
    fake.protocolVersion = 7;
    const error = (await rejection(
      connectWorker({ worker: `grpc://${fake.address}` }),
    )) as WorkerUnavailable;
    expect(error).to.be.instanceOf(WorkerUnavailable);
    expect(error.message)
      .to.contain("version 7")
      .and.to.contain(`version ${PROTOCOL_VERSION}`)
      .and.to.contain(fake.address);
    expect(error.remedy).to.contain("update").and.contain("package");
  });

  it("says that nothing listens, at once", async () => {
    await fake.stop();
    const error = (await rejection(
      connectWorker({ worker: `grpc://${fake.address}` }),
    )) as WorkerUnavailable;
    expect(error).to.be.instanceOf(WorkerUnavailable);
    expect(error.message).to.contain(fake.address).and.contain("refused");
  });

  for (const address of [
    "",
    "somewhere",
    "http://a:1",
    "grpc://a",
    "grpc://a:0",
    "grpc://a:70000",
    "grpc://a:b",
    "grpcs://a",
  ])
    it(`refuses --worker ${JSON.stringify(address)}, saying what is accepted`, async () => {
      const error = await rejection(connectWorker({ worker: address }));
      expect(error).to.include({
        name: "UsageError",
      });
      expect(error.message).to.contain(address);
      for (const form of ["local", "docker", "grpc://HOST:PORT", "grpcs://HOST:PORT"])
        expect((error as UsageError).remedy).to.contain(form);
    });
});

describe("rpc", () => {
  let fake: FakeWorker;
  let rpc: Rpc;
  beforeEach(async () => {
    fake = await FakeWorker.start();
    rpc = new Rpc(fake.address, { patienceMs: 500 });
  });
  afterEach(async () => {
    rpc.close();
    await fake.stop();
  });
  for (const [reason, kind] of [
    ["INVALID_INPUT", RpcUsageError],
    ["FILE_MISSING", RpcUsageError],
    ["NOT_FOUND", RpcError],
    ["NOT_READY", RpcError],
    ["LIMIT_EXCEEDED", RpcError],
    ["DIVERGED", RpcError],
    ["OUT_OF_MEMORY", RpcError],
    ["UNAUTHENTICATED", RpcUsageError],
    ["CANCELLED", RpcError],
    ["INTERNAL", RpcError],
  ] as const)
    it(`keeps what the worker says of the reason ${reason}, whatever the status`, async () => {
      fake.describeFails = failure(status.UNAVAILABLE, {
        message: "no: σ",
        field: "f",
        expected: "e",
        remedy: "r",
        reason,
      });
      const error = (await rejection(
        rpc.call(WorkerServiceService.describe, {}, { idempotent: true }),
      )) as RpcError;
      expect(error.constructor).to.equal(kind);
      expect(error).to.include({
        message: "no: σ (f)",
        field: "f",
        expected: "e",
        remedy: "expected: e; r",
        reason,
      });
    });

  for (const [code, name, reason] of [
    [status.UNAVAILABLE, "WorkerUnavailable", undefined],
    [status.UNIMPLEMENTED, "WorkerUnavailable", undefined],
    [status.INVALID_ARGUMENT, "RpcUsageError", "INVALID_INPUT"],
    [status.NOT_FOUND, "RpcError", "NOT_FOUND"],
    [status.FAILED_PRECONDITION, "RpcError", "NOT_READY"],
    [status.RESOURCE_EXHAUSTED, "RpcError", "LIMIT_EXCEEDED"],
    [status.UNAUTHENTICATED, "RpcUsageError", "UNAUTHENTICATED"],
    [status.INTERNAL, "RpcError", "INTERNAL"],
    [status.UNKNOWN, "RpcError", "INTERNAL"],
  ] as const)
    it(`explains ${status[code]} without details`, async () => {
      fake.describeFails = failure(code, undefined, "oh");
      const error = await rejection(rpc.call(WorkerServiceService.describe, {}));
      expect(error.name).to.equal(name);
      expect((error as Partial<RpcError>).reason).to.equal(reason);
      expect(error.message).to.not.contain("\n");
    });

  it("survives details that cannot be read", async () => {
    const error = failure(status.NOT_FOUND, undefined, "gone");
    error.metadata.set(STATUS_KEY, Buffer.from([0xff, 0xff, 0xff]));
    fake.describeFails = error;
    expect(await rejection(rpc.call(WorkerServiceService.describe, {}))).to.include({
      reason: "NOT_FOUND",
    });
  });

  it("gives up at the deadline, and when aborted", async () => {
    const call = {
      path: "/atlas.v1.JobService/WatchJob",
      requestSerialize: JobServiceService.watchJob.requestSerialize,
      responseDeserialize: (b: Buffer) => b,
    };
    fake.jobs.set("j", { events: [], cancelled: false, requestId: "" });
    const request = { sessionId: "", jobId: "j", afterSequence: 0 };
    const late = await rejection(rpc.call(call, request, { timeoutMs: 50 }));
    expect(late).to.be.instanceOf(WorkerUnavailable);
    expect(late.message).to.contain("WatchJob").and.contain("0.05 s");
    const signal = AbortSignal.timeout(30);
    expect(await rejection(rpc.call(call, request, { signal }))).to.equal(signal.reason);
    expect(await rejection(rpc.call(call, request, { signal }))).to.equal(signal.reason);
  });

  it("gives up a watch that cannot be taken up again for a while", async () => {
    fake.jobs.set("j", { events: [], cancelled: false, requestId: "" });
    fake.breakWatchAfter = 0;
    const error = await rejection(rpc.watchJob({ sessionId: "", jobId: "j" }).next());
    expect(error).to.be.instanceOf(WorkerUnavailable);
    expect(fake.watches.length).to.be.greaterThan(1);
  });

  it("connects anew, and gives up in the end, where nobody answers", async () => {
    const connections: Socket[] = [];
    const silent = createServer((socket) => connections.push(socket.on("error", () => {}))).listen(
      0,
    );
    const { port } = silent.address() as AddressInfo;
    const lost = new Rpc(`127.0.0.1:${port}`, { patienceMs: 500, connectMs: 100 });
    try {
      const error = await rejection(lost.watchJob({ sessionId: "", jobId: "j" }).next());
      expect(error).to.be.instanceOf(WorkerUnavailable);
      expect(error.message).to.match(/127\.0\.0\.1:\d+/);
      expect(connections.length).to.be.greaterThan(1);
    } finally {
      lost.close();
      for (const socket of connections) socket.destroy();
      silent.close();
    }
  });

  it("refuses messages beyond its limit instead of sending them", async () => {
    const label = "x".repeat(65 << 20);
    const error = await rejection(
      rpc.call(WorkerServiceService.openSession, {
        label,
        device: "",
        ranks: 1,
        protocolVersion: PROTOCOL_VERSION,
      }),
    );
    expect(error).to.include({ reason: "LIMIT_EXCEEDED" });
  });
});
