/** Both sides of proto/atlas/v1: this client and the real worker. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import { expect } from "chai";
import { type BlockType, blocksOf } from "../../src/blocks.js";
import { type RpcError, RpcUsageError, WorkerDied } from "../../src/errors.js";
import { type JobEvent, JobServiceService } from "../../src/gen/atlas/v1/job.js";
import { ObjectServiceService } from "../../src/gen/atlas/v1/objects.js";
import { WorkerServiceService } from "../../src/gen/atlas/v1/worker.js";
import { CATALOGUE } from "../../src/gen/blocks.js";
import { Rpc } from "../../src/rpc/index.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { Tensor } from "../../src/tensor/index.js";
import { newTicket, TensorPlane } from "../../src/tensor/plane.js";
import {
  type AtlasOptions,
  connectWorker,
  type Epoch,
  PROTOCOL_VERSION,
  type PredictorOptions,
  type RemoteObject,
  type Session,
  type Step,
  Worker,
} from "../../src/worker/index.js";
import { startLocalWorker } from "../../src/worker/local.js";
import { rejection } from "../unit/worker/rejection.js";

const MATRICES = {
  unit: [[1, 0], [0, 1]],
  quarter: [[0, -1], [1, 0]],
  flip: [[1, 0], [0, -1]],
}; // biome-ignore format: matrices

/** One chart in the middle of a plate. */
const PLANE = {
  kind: "planar",
  params: { charts: [{ row: 16, col: 16 }], r_in: 6, r_out: 4 },
} as const;

/** Spacing of float32 numbers at 1. */
const EPS = 2 ** -23;

describe("the worker", function () {
  this.timeout(120_000);
  let worker: Worker;
  let session: Session;
  let rpc: Rpc;
  let plane: TensorPlane;

  before(async () => {
    const local = await startLocalWorker({ ...(await ensureVenv()), device: "cpu", threads: 1 });
    worker = await Worker.connect(local);
    session = await worker.openSession({ label: "contract", device: "cpu" });
    rpc = new Rpc(local.address, { token: local.token });
    plane = new TensorPlane(worker.info.dataPlane?.tensors as string);
  });
  after(async () => {
    rpc?.close();
    plane?.close();
    await worker?.close();
  });

  /** Some plates, and a small predictor on one chart of them. */
  async function heat(): Promise<{ dataset: RemoteObject; atlas: RemoteObject }> {
    const dataset = await session.createDataset({
      kind: "heat_equation",
      params: { samples: 48, side: 32, steps: 5 },
      seed: 3,
    });
    await session.advance(dataset);
    return { dataset, atlas: await session.createAtlas(PLANE) };
  }
  /** A dataset of a block that this client does not look at first. */
  const raw = async (source: { kind: string; params: Record<string, unknown> }) => {
    const spec = { $case: "dataset", dataset: { source, seed: 0, tensors: {} } } as const;
    const request = { sessionId: session.id, spec, requestId: "" };
    return (await rpc.call(ObjectServiceService.createObject, request)).object;
  };
  const rawAtlas = async (action: { kind: string; params: Record<string, unknown> }) => {
    const spec = { $case: "atlas", atlas: { action } } as const;
    return rpc.call(ObjectServiceService.createObject, {
      sessionId: session.id,
      spec,
      requestId: "",
    });
  };
  const makePredictor = async (epochs = 3, params = { batch_size: 8 }) =>
    session.createPredictor({
      ...(await heat()),
      architecture: { kind: "reference_cnn", params: { width: 4 } },
      training: { kind: "supervised", params },
      epochs,
      seed: 5,
    });
  async function epochsOf(
    object: RemoteObject,
    options: Parameters<Session["advance"]>[1] = {},
  ): Promise<Epoch[]> {
    const epochs: Epoch[] = [];
    await session.advance(object, { ...options, onEpoch: (e) => void epochs.push(e) });
    return epochs;
  }

  it("says what it is", () => {
    const { info } = worker;
    expect(info).to.include({ protocolVersion: PROTOCOL_VERSION, threads: 1 });
    expect(info.versions).to.include.keys("python", "torch", "numpy", "grpcio", "platform");
    expect(info.devices.map((d) => d.name)).to.include("cpu");
    expect(info.pid).to.be.above(0);
    expect(session.device).to.equal("cpu");
  });

  it("has the blocks of the catalogue, each with the parameters that it says", () => {
    const own = new Map(
      worker.info.blocks.map(({ type, kind, schema }) => [`${type} ${kind}`, schema]),
    );
    const committed = (Object.keys(CATALOGUE) as BlockType[]).flatMap((type) =>
      Object.entries(blocksOf(type)).map(([kind, entry]) => [`${type} ${kind}`, entry] as const),
    );
    expect([...own.keys()]).to.have.members(committed.map(([name]) => name));
    for (const [name, entry] of committed) expect(own.get(name), name).to.deep.equal(entry);
  });

  it("knows blocks and parameters by their former names", async () => {
    const source = { kind: "heat2d", params: { samples: 2, side: 32, steps: 1 } };
    const made = await raw(source);
    expect(made).to.include({ kind: "heat_equation" });
    const dataset = (await session.list()).find(({ handle }) => handle === made!.handle)!;
    await session.advance(dataset);
    const spec = { dataset: dataset.handle, epochs: 0, seed: 0, tensors: {} };
    const { handle: atlas } = await session.createAtlas(PLANE);
    const make = async (kind: string, params: Record<string, unknown> = {}) => {
      const training = { kind: "supervised", params: {} };
      const predictor = { ...spec, atlas, architecture: { kind, params }, training };
      const { object } = await rpc.call(ObjectServiceService.createObject, {
        sessionId: session.id,
        spec: { $case: "predictor", predictor },
        requestId: "",
      });
      return object!.kind;
    };
    expect(await make("wide")).to.equal("strided_cnn");
    expect(await make("published")).to.equal("reference_cnn");
    // Charts of 13 pixels are too small for the reference code's network, and for it alone.
    const error = await rejection(make("encoder_decoder", { published: true }));
    expect(error).to.be.instanceOf(RpcUsageError);
    expect((error as RpcError).field).to.match(/\.params\.reference$/);
  });

  for (const side of [4, 64])
    it(`takes arrays ${side} pixels wide and gives them back, inside messages or not`, async () => {
      const count = 5 * 2 * side * side;
      const inputs = new Tensor(
        "float32",
        [5, 2, side, side],
        Float32Array.from({ length: count }, Math.random),
      );
      const targets = new Tensor(
        "float32",
        [5, 1, side, side],
        Float32Array.from({ length: count / 2 }, Math.random),
      );
      const dataset = await session.createDataset({
        kind: "arrays",
        params: {},
        seed: 0,
        tensors: { inputs, targets },
      });
      const whole = await session.readDataset(dataset, { start: 0, count: 5 });
      expect(whole.inputs).to.deep.equal(inputs);
      expect(whole.targets).to.deep.equal(targets);
      const part = await session.readDataset(dataset, { start: 3, count: 2 });
      expect(part.targets.data).to.deep.equal(targets.data.slice(3 * side * side));
      await session.delete(dataset);
      const gone = await rejection(session.readDataset(dataset, { start: 0, count: 1 }));
      expect(gone).to.include({ reason: "NOT_FOUND" });
    });

  it("keeps tickets to their session, and each for one fetch", async () => {
    const tensor = Tensor.from([1, 2, 3], "int64");
    const ticket = newTicket(session.id);
    await plane.put(ticket, tensor);
    expect(await plane.get(ticket)).to.deep.equal(tensor);
    expect(await rejection(plane.get(ticket))).to.include({ reason: "NOT_FOUND" });
    const foreign = (await rejection(plane.put(newTicket("nobody"), tensor))) as RpcError;
    expect(foreign.reason).to.be.oneOf(["NOT_FOUND", "INVALID_INPUT"]);
    expect(await rejection(plane.put("no-ticket", tensor))).to.be.instanceOf(RpcUsageError);
  });

  it("advances by jobs: every epoch, a snapshot of each, steps in between", async () => {
    const predictor = await makePredictor();
    expect(predictor).to.include({
      type: "predictor",
      kind: "reference_cnn",
      epoch: 0,
      totalEpochs: 3,
    });
    const steps: Step[] = [];
    const epochs = await epochsOf(predictor, { snapshotEvery: 1, onStep: (s) => steps.push(s) });
    expect(epochs.map((e) => e.epoch)).to.deep.equal([1, 2, 3]);
    expect(
      epochs.every((e) => e.totalEpochs === 3 && e.seconds > 0 && Number.isFinite(e.metrics.loss)),
    ).to.equal(true);
    expect(epochs.at(-1)?.snapshot).to.not.equal(undefined);
    for (const { epoch, totalEpochs, step, stepsInEpoch } of steps) {
      expect(totalEpochs).to.equal(3);
      expect(stepsInEpoch).to.equal(6);
      expect(epoch).to.be.within(1, 3);
      expect(step).to.be.within(1, 6);
    }
    expect(await epochsOf(predictor), "an object that is there already").to.deep.equal([]);
    const outputs = await session.predict(predictor, { start: 1, count: 2 });
    expect(outputs.shape).to.deep.equal([2, 1, 1, 13, 13]);
  });

  it("goes on from a snapshot to the same bytes", async () => {
    const first = await makePredictor();
    await session.advance(first, { untilEpoch: 1 });
    const { bytes, epoch } = await session.snapshot(first);
    expect(epoch).to.equal(1);
    await session.advance(first);
    const second = await makePredictor();
    await session.restore(second, bytes);
    expect((await session.list()).find((o) => o.handle === second.handle)?.epoch).to.equal(1);
    await session.advance(second);
    expect((await session.snapshot(second)).bytes).to.deep.equal(
      (await session.snapshot(first)).bytes,
    );
    const third = await makePredictor();
    await session.loadWeights(third, (await session.snapshot(first)).bytes);
    const range = { start: 0, count: 2 };
    expect(await session.predict(third, range)).to.deep.equal(await session.predict(first, range));
  });

  it("stops a job that is aborted, at the end of a finished epoch", async () => {
    const predictor = await makePredictor(10_000);
    const controller = new AbortController();
    const reason = new Error("Ctrl-C");
    const onEpoch = ({ epoch }: Epoch) => void (epoch === 2 && controller.abort(reason));
    expect(
      await rejection(session.advance(predictor, { signal: controller.signal, onEpoch })),
    ).to.equal(reason);
    const { epoch } = await session.snapshot(predictor); // waits for the job's end
    expect(epoch).to.be.within(2, 9_999);
    await sleep(200);
    expect((await session.snapshot(predictor)).epoch).to.equal(epoch);
  });

  it("starts a job once for one request id, and shows it again from any event on", async () => {
    const { handle } = await makePredictor(4);
    const request = {
      sessionId: session.id,
      handle,
      untilEpoch: 4,
      snapshotEvery: 0,
      requestId: "once",
    };
    const { job } = await rpc.call(JobServiceService.startJob, request);
    expect((await rpc.call(JobServiceService.startJob, request)).job?.jobId).to.equal(job?.jobId);
    const watch = async (afterSequence: number) => {
      const events: JobEvent[] = [];
      const watched = { sessionId: session.id, jobId: job?.jobId as string, afterSequence };
      for await (const event of rpc.watchJob(watched)) events.push(event);
      return events;
    };
    const all = await watch(0);
    expect(all.map((e) => e.sequence)).to.deep.equal(all.map((_, i) => i + 1));
    expect(all.filter((e) => e.event?.$case === "epochFinished")).to.have.length(4);
    expect(await watch(3)).to.deep.equal(all.slice(3));
  });

  it("finds an algebra and cosets, and says how sure it is", async () => {
    const inputs = { ...(await heat()), predictor: await makePredictor(1) };
    await session.advance(inputs.predictor);
    const algebra = await session.createAlgebra({
      ...inputs,
      solver: { kind: "grassmann", params: {} },
      k: 1,
      epochs: 1,
      seed: 1,
    });
    await session.advance(algebra, { snapshotEvery: 1 });
    const found = await session.getAlgebra(algebra);
    expect(found.generators.map((m) => m.map((row) => row.length))).to.deep.equal([[2, 2]]);
    for (const list of [found.losses, found.relativeErrors]) expect(list).to.have.length(1);
    expect(found.symmetryCount).to.be.within(0, 1);
    expect(found.noiseFloor).to.satisfy(Number.isFinite);
    expect(found.explanation).to.not.equal("");
    const starts = found.startLosses!.map((loss) => loss ?? Number.POSITIVE_INFINITY);
    expect(starts).to.deep.equal(starts.toSorted((a, b) => a - b));
    expect(found.spectrum).to.have.length(4);
    for (const { direction } of found.spectrum!)
      expect(Math.hypot(...direction.flat())).to.be.closeTo(1, 64 * EPS);

    for (const identityAlgebra of [found.generators, []]) {
      const solver = { kind: "multistart", params: { candidates: 4, max_components: 2 } } as const;
      const cosets = await session.createCosets({
        ...inputs,
        solver,
        identityAlgebra,
        epochs: 1,
        seed: 1,
      });
      await session.advance(cosets);
      const { matrices, losses, candidates } = await session.getCosets(cosets);
      expect(losses).to.have.length(matrices.length);
      // With an identity component, a start or two of each other component are enough.
      expect(candidates.length).to.be.within(identityAlgebra.length > 0 ? 1 : 4, 4);
      for (const { outcome, duplicateOf } of candidates) {
        expect(outcome).to.be.oneOf(["kept", "not_a_symmetry", "beyond_limit", "duplicate"]);
        expect(duplicateOf !== undefined).to.equal(outcome === "duplicate");
      }
    }
  });

  it("tells components of a group apart", async () => {
    const { unit, quarter, flip } = MATRICES;
    const list = [unit, flip, quarter];
    expect((await session.compareComponents([quarter], list)).component).to.deep.equal([0, 1, 0]);
    const { component, residuals } = await session.compareComponents([], list);
    expect(component).to.deep.equal([0, 1, 2]);
    expect(residuals[0]?.[0]).to.be.closeTo(0, 1e-9);
    const many = new Array(100).fill(unit); // residuals beyond what fits a message
    expect((await session.compareComponents([quarter], many)).component).to.deep.equal(
      new Array(100).fill(0),
    );
  });

  describe("with sets of vectors", () => {
    const LORENTZ = "t**2 - x**2 - y**2 - z**2";
    const supervised = { kind: "supervised" } as const;
    const space = (n: number) => session.createAtlas({ kind: "vectors", params: { n } });
    const points = (n: number) =>
      session.createDataset({ kind: "gaussian_points", params: { samples: 512, n }, seed: 3 });
    /** A given function of points, which needs no training. */
    async function given(expression: string, coordinates: string) {
      const n = coordinates.split(",").length;
      const dataset = await points(n);
      const atlas = await space(n);
      const architecture = { kind: "expression", params: { expression, coordinates } } as const;
      const predictor = await session.createPredictor({
        dataset,
        atlas,
        architecture,
        training: supervised,
        epochs: 0,
        seed: 5,
      });
      return { dataset, atlas, predictor };
    }

    it("makes points, and all of R^n as one chart", async () => {
      const dataset = await points(3);
      expect(dataset).to.deep.include({
        type: "dataset",
        kind: "gaussian_points",
        epoch: 0,
        totalEpochs: 0,
        shapes: { inputs: [512, 1, 3], targets: [512, 1] },
      });
      const { inputs, targets } = await session.readDataset(dataset, { start: 500, count: 12 });
      expect(inputs.shape).to.deep.equal([12, 1, 3]);
      expect(targets.shape).to.deep.equal([12, 1]);
      const again = await session.readDataset(await points(3), { start: 500, count: 12 });
      expect(again.inputs).to.deep.equal(inputs);
      const params = { n: 3, vector_output: true };
      const atlas = await session.createAtlas({ kind: "vectors", params });
      expect(atlas).to.include({ type: "atlas", kind: "vectors" });
      expect(atlas.facts).to.deep.include({ charts: 1, n: 3, vector_output: true });
      expect((await space(3)).facts).to.deep.include({ vector_output: false });
    });

    it("evaluates a given function", async () => {
      const { predictor, dataset } = await given("abs(x) - 2*y**2", "x, y");
      expect(predictor).to.include({ type: "predictor", kind: "expression", totalEpochs: 0 });
      const { inputs } = await session.readDataset(dataset, { start: 4, count: 3 });
      const outputs = await session.predict(predictor, { start: 4, count: 3 });
      const values = (inputs.toNested() as [[number, number]][]).map(
        ([[x, y]]) => Math.abs(x) - 2 * y * y,
      );
      expect(outputs.shape[0]).to.equal(3);
      // In float32, each term with its own rounding.
      const sizes = (inputs.toNested() as [[number, number]][]).map(
        ([[x, y]]) => Math.abs(x) + 2 * y * y,
      );
      for (const [i, value] of values.entries())
        expect(Number(outputs.data[i])).to.be.closeTo(value, 8 * EPS * sizes[i]!);
    });

    it("finds as many generators as there are, when it is not asked for a number", async () => {
      for (const [expression, coordinates, k] of [
        [LORENTZ, "t,x,y,z", 6],
        ["x**2 + 3*y**2", "x,y", 1],
        ["x + sin(3*y)", "x,y", 0],
      ] as const) {
        const inputs = await given(expression, coordinates);
        const sampling = { batch_size: 64, charts: 1, evaluation: 256 };
        const params = { ...sampling, start: "spectral", steps: 0 } as const;
        const solver = { kind: "grassmann", params } as const;
        const algebra = await session.createAlgebra({
          ...inputs,
          solver,
          k: "auto",
          epochs: 1,
          seed: 1,
        });
        await session.advance(algebra);
        const found = await session.getAlgebra(algebra);
        // The best direction is proposed even where it is no symmetry.
        const proposed = Math.max(k, 1);
        expect([found.symmetryCount, found.generators.length]).to.deep.equal([k, proposed]);
        for (const list of [found.losses, found.relativeErrors])
          expect(list).to.have.length(proposed);
        expect(found.spectrum).to.have.length(coordinates.split(",").length ** 2);
        expect(found.explanation).to.not.equal("");
      }
    });

    it("builds a predictor around tensors that are given", async () => {
      const dataset = await points(4);
      const atlas = await space(4);
      const make = (tensors?: Record<string, Tensor>) =>
        session.createPredictor({
          dataset,
          atlas,
          architecture: { kind: "lorentznet" },
          training: supervised,
          epochs: 1,
          seed: 5,
          tensors,
        });
      const metric = (...d: number[]) =>
        Tensor.from(
          d.map((x, i) => d.map((_, j) => (i === j ? x : 0))),
          "float32",
        );
      const output = async (...d: number[]) =>
        session.predict(await make({ metric: metric(...d) }), { start: 0, count: 4 });
      const lorentz = await output(1, -1, -1, -1);
      expect(await output(1, -1, -1, -1)).to.deep.equal(lorentz);
      expect(await output(1, 1, 1, 1)).to.not.deep.equal(lorentz);
      for (const [tensors, message] of [
        [undefined, /metric is missing/],
        [{ metric: metric(1, 1) }, /metric/],
        [{ metric: metric(1, -1, -1, -1), other: metric(1) }, /no tensor 'other'/],
      ] as const) {
        const error = await rejection(make(tensors));
        expect(error).to.be.instanceOf(RpcUsageError);
        expect(error.message).to.match(message);
      }
    });

    it("measures equivariance at matrices", async () => {
      const { predictor, dataset, atlas } = await given("x**2 + y**2", "x,y");
      const { unit, quarter, flip } = MATRICES;
      const shear = [[1, 0.5], [0, 1]]; // biome-ignore format: a matrix
      const few = [unit, quarter, flip, shear];
      const measured = await session.measureEquivariance(predictor, few, {
        dataset,
        atlas,
        samples: 64,
      });
      expect(measured.map((m) => m.distance > 0.1)).to.deep.equal([false, false, false, true]);
      // The function is invariant up to the rounding of its values, which are of the size of the
      // shear's effect.
      for (const [i, expected] of [0, 0, 0, 1].entries())
        expect(measured[i]?.relativeError).to.be.closeTo(expected, 16 * EPS);
      expect(measured[0]).to.deep.equal({
        loss: 0,
        distance: 0,
        relativeError: 0,
        interpolationError: 0,
      });
      const list = new Array(3000).fill(quarter); // beyond what fits a message
      expect(await session.measureEquivariance(predictor, list, { samples: 1 })).to.have.length(
        3000,
      );
    });

    it("measures evidence by the weights as they are", async () => {
      const predictor = await makePredictor();
      const turn = [[0, -1], [1, 0]]; // biome-ignore format: a matrix
      const ask = async () =>
        session.measureEvidence(predictor, { directions: [turn], sizes: [0.2], samples: 40 });
      await session.advance(predictor, { untilEpoch: 1 });
      const first = await ask();
      expect(await ask()).to.deep.equal(first);
      const { bytes } = await session.snapshot(predictor);
      await session.advance(predictor, { untilEpoch: 2 });
      const second = await ask();
      expect(second.skill).to.not.equal(first.skill);
      await session.restore(predictor, bytes);
      expect(await ask()).to.deep.equal(first);
    });

    it("scores nothing but a classifier", async () => {
      const { predictor, dataset, atlas } = await given(LORENTZ, "t,x,y,z");
      const planar = await makePredictor(0);
      for (const [scored, on, reason] of [
        [predictor, dataset, "INVALID_INPUT"],
        [planar, dataset, "INVALID_INPUT"],
        [atlas, dataset, "INVALID_INPUT"],
        [{ ...predictor, handle: "nothing" }, dataset, "NOT_FOUND"],
        [predictor, atlas, "INVALID_INPUT"],
      ] as const) {
        const error = (await rejection(session.scorePredictor(scored, on))) as RpcError;
        expect(error.reason, error.stack).to.equal(reason);
        expect(error.message).to.not.match(/\n|Traceback/);
      }
      const error = await rejection(session.scorePredictor(predictor, dataset));
      expect(error.message).to.equal("only a classifier has scores (handle)");
    });

    it("refuses what does not fit", async () => {
      const dataset = await points(2);
      const atlas = await space(2);
      const make = (
        over: Partial<PredictorOptions>,
        params = { expression: "x*y", coordinates: "x,y" },
      ) =>
        session.createPredictor({
          dataset,
          atlas,
          architecture: { kind: "expression", params },
          training: supervised,
          epochs: 0,
          seed: 5,
          ...over,
        });
      for (const attempt of [
        async () => make({ atlas: await space(3) }),
        async () => make({ dataset: (await heat()).dataset }),
        async () => make({ atlas: (await heat()).atlas }),
        () => make({ architecture: { kind: "reference_cnn" } }),
        () => make({}, { expression: "x*y", coordinates: "x,y,z" }),
        () => make({}, { expression: "open('x')", coordinates: "x,y" }),
        () => rawAtlas({ kind: "vectors", params: { n: 0 } }),
      ]) {
        const error = await rejection(attempt());
        expect(error, attempt.toString()).to.be.instanceOf(RpcUsageError);
        expect(error.message).to.not.match(/\n|Traceback/);
      }
    });
  });

  describe("refuses in words", () => {
    const heatOf = (params: Record<string, unknown>) => raw({ kind: "heat_equation", params });
    const refusals: [what: string, call: () => Promise<unknown>, reason: string, field: RegExp][] =
      [
        ["an unknown kind", () => raw({ kind: "heat3d", params: {} }), "INVALID_INPUT", /kind/],
        ["an unknown parameter", () => heatOf({ sides: 3 }), "INVALID_INPUT", /sides/],
        ["an ill-typed parameter", () => heatOf({ side: "x" }), "INVALID_INPUT", /side/],
        ["a parameter beyond its bounds", () => heatOf({ side: 3 }), "INVALID_INPUT", /side/],
        [
          "a parameter that is missing",
          () => rawAtlas({ kind: "vectors", params: {} }),
          "INVALID_INPUT",
          /n$/,
        ],
        [
          "no charts",
          () => rawAtlas({ kind: "planar", params: { ...PLANE.params, charts: [] } }),
          "INVALID_INPUT",
          /charts/,
        ],
        [
          "charts off the lattice",
          async () => {
            const { dataset } = await heat();
            const off: AtlasOptions = {
              ...PLANE,
              params: { ...PLANE.params, charts: [{ row: 0, col: 0 }] },
            };
            const atlas = await session.createAtlas(off);
            const [architecture, training] = [
              { kind: "reference_cnn" },
              { kind: "supervised" },
            ] as const;
            return session.createPredictor({
              dataset,
              atlas,
              architecture,
              training,
              epochs: 1,
              seed: 0,
            });
          },
          "INVALID_INPUT",
          /./,
        ],
        [
          "a handle of nothing",
          () => session.snapshot({ handle: "x" } as RemoteObject),
          "NOT_FOUND",
          /handle/,
        ],
        [
          "a snapshot that is none",
          async () => session.restore(await makePredictor(), Buffer.from("not a snapshot")),
          "INVALID_INPUT",
          /./,
        ],
        [
          "weights that do not fit",
          async () => {
            const { writeSafetensors } = await import("../../src/tensor/index.js");
            return session.loadWeights(
              await makePredictor(),
              writeSafetensors(new Map([["w", Tensor.from([1])]])),
            );
          },
          "INVALID_INPUT",
          /./,
        ],
        [
          "samples beyond the last",
          async () => session.readDataset((await heat()).dataset, { start: 40, count: 9 }),
          "INVALID_INPUT",
          /./,
        ],
        [
          "a folder that is not there",
          () => raw({ kind: "climatenet", params: { path: "/no/such/folder" } }),
          "FILE_MISSING",
          /path/,
        ],
        [
          "a device that is not there",
          () => worker.openSession({ device: "cuda:99" }),
          "INVALID_INPUT",
          /device/,
        ],
        [
          "a session of nobody",
          () => rpc.call(ObjectServiceService.listObjects, { sessionId: "nobody" }),
          "NOT_FOUND",
          /session/,
        ],
        [
          "a ticket of nothing",
          () =>
            rpc.call(ObjectServiceService.restoreSnapshot, {
              sessionId: session.id,
              handle: "x",
              snapshot: Tensor.from([1]).toTicket(newTicket(session.id)),
            }),
          "NOT_FOUND",
          /./,
        ],
        [
          "another protocol version",
          () =>
            rpc.call(WorkerServiceService.openSession, {
              label: "",
              device: "cpu",
              ranks: 1,
              protocolVersion: 9,
            }),
          "NOT_READY",
          /protocol/,
        ],
      ];
    for (const [what, call, reason, field] of refusals)
      it(what, async () => {
        const error = (await rejection(call())) as RpcError;
        expect(error.reason, error.stack).to.equal(reason);
        const mistake = ["INVALID_INPUT", "FILE_MISSING"].includes(reason);
        expect(error instanceof RpcUsageError).to.equal(mistake);
        expect(error.field).to.match(field);
        expect(error.message).to.not.match(/\n|Traceback/);
        expect((error.cause as { code?: status } | undefined)?.code).to.be.oneOf([
          status.INVALID_ARGUMENT,
          status.NOT_FOUND,
          status.FAILED_PRECONDITION,
        ]);
      });
  });

  it("frees a session's objects when it is closed, twice if need be", async () => {
    const other = await worker.openSession({ label: "short", device: "cpu" });
    const atlas = await other.createAtlas(PLANE);
    await other.close();
    await other.close();
    expect(await rejection(other.delete(atlas))).to.include({ reason: "NOT_FOUND" });
  });
});

describe("the worker's process", function () {
  this.timeout(120_000);

  /** Whether a process runs; one that nobody has collected yet does not. */
  const runs = (pid: number) => {
    try {
      return !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
    } catch {
      return false;
    }
  };

  /** Where the sockets of a local worker's planes are. */
  const planeFolder = (endpoint = "") => dirname(endpoint.slice("ipc://".length));

  it("killed in the middle of a job is reported as such, and leaves no sockets", async () => {
    const worker = await connectWorker({ device: "cpu", threads: 1 });
    const folder = planeFolder(worker.info.dataPlane?.tensors);
    expect(statSync(folder).mode & 0o777).to.equal(0o700);
    expect(readdirSync(folder)).to.have.members(["tensors", "metrics"]);
    try {
      const session = await worker.openSession({ device: "cpu" });
      const dataset = await session.createDataset({
        kind: "heat_equation",
        params: { samples: 8, side: 32, steps: 5 },
        seed: 3,
      });
      await session.advance(dataset);
      const atlas = await session.createAtlas(PLANE);
      const predictor = await session.createPredictor({
        dataset,
        atlas,
        architecture: { kind: "reference_cnn", params: { width: 4 } },
        training: { kind: "supervised" },
        epochs: 100_000,
        seed: 1,
      });
      const onEpoch = ({ epoch }: Epoch) =>
        void (epoch === 3 && process.kill(worker.info.pid, "SIGKILL"));
      expect(
        await rejection(session.advance(predictor, { snapshotEvery: 1, onEpoch })),
      ).to.be.instanceOf(WorkerDied);
      expect(await rejection(session.snapshot(predictor))).to.be.instanceOf(WorkerDied);
    } finally {
      await worker.close();
    }
    expect(existsSync(folder)).to.equal(false);
  });

  it("has ports, and asks for keys, where a socket's path would be too long", async () => {
    const before = process.env.TMPDIR;
    process.env.TMPDIR = join(tmpdir(), "x".repeat(90));
    const worker = await connectWorker({ device: "cpu", threads: 1 }).finally(() => {
      if (before === undefined) delete process.env.TMPDIR;
      else process.env.TMPDIR = before;
    });
    try {
      const { tensors = "", maxFrameBytes = 0 } = worker.info.dataPlane ?? {};
      expect(tensors).to.match(/^tcp:/);
      expect(maxFrameBytes).to.be.above(0);
      const session = await worker.openSession({ device: "cpu" });
      const numbers = Float32Array.from({ length: 200_001 }, (_, i) => i);
      const inputs = Tensor.fromBytes(
        "float32",
        [200_001, 1, 1, 1],
        new Uint8Array(numbers.buffer),
      );
      const made = await session.createDataset({
        kind: "arrays",
        params: {},
        seed: 0,
        tensors: { inputs, targets: inputs },
      });
      const read = await session.readDataset(made, { start: 0, count: 200_001 });
      expect(Buffer.compare(read.inputs.bytes, inputs.bytes)).to.equal(0);
    } finally {
      await worker.close();
    }
  });

  it("ends when its parent is killed by kill -9, whatever it is doing", async () => {
    // Busy with a job of minutes, which it must not finish first.
    const module = new URL("../../src/worker/index.ts", import.meta.url);
    const code = `
      const { connectWorker } = await import(${JSON.stringify(module.href)});
      const worker = await connectWorker({ device: "cpu", threads: 1 });
      const session = await worker.openSession({ device: "cpu" });
      const params = { samples: 100000, steps: 1000 };
      const dataset = await session.createDataset({ kind: "heat_equation", params, seed: 1 });
      session.advance(dataset).catch(() => {});
      setTimeout(() => console.log(worker.info.pid, worker.info.dataPlane.tensors), 500);`;
    const options = ["--import", import.meta.resolve("tsx"), "--input-type=module", "-e", code];
    const parent = spawn(process.execPath, options, { stdio: ["ignore", "pipe", "inherit"] });
    const [line] = await once(createInterface({ input: parent.stdout }), "line");
    const [pid, tensors] = String(line).split(" ");
    expect(runs(Number(pid))).to.equal(true);
    expect(existsSync(planeFolder(tensors))).to.equal(true);
    parent.kill("SIGKILL");
    for (let i = 0; i < 1200 && runs(Number(pid)); i++) await sleep(50);
    expect(runs(Number(pid))).to.equal(false);
    expect(existsSync(planeFolder(tensors))).to.equal(false);
  });
});
