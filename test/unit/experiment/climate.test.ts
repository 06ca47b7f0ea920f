import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect } from "chai";
import climate from "../../../experiments/climate.js";
import { namedAlgebra } from "../../../src/algebra/index.js";
import { RpcError, RpcUsageError, UsageError } from "../../../src/errors.js";
import type { Experiment, GivenOf } from "../../../src/experiment/define.js";
import { flagsOf } from "../../../src/experiment/flags.js";
import { metaOf } from "../../../src/experiment/names.js";
import type { Tensor } from "../../../src/tensor/index.js";
import { measured } from "../algebra/helpers.js";
import { rejection } from "../worker/rejection.js";
import { FakeSession } from "./fake-session.js";
import { live as liveOn, prepared as preparedOf } from "./live.js";

type Given = typeof climate extends Experiment<infer T> ? GivenOf<T> : never;
const GL2 = namedAlgebra("gl(2)", 2)!;
const SCORES = { mean_iou: 0.45, experts_mean_iou: 0.52, trivial_mean_iou: 0.31 };

describe("the climate experiment", () => {
  let dir: string;
  let fake: FakeSession;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-climate-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));
  beforeEach(() => {
    fake = new FakeSession();
    fake.lostAlong = () => 0.001;
    fake.shapes = { inputs: [5, 4, 96, 144], targets: [5, 2, 96, 144] };
    fake.facts = { predictor: { parameters: 7, gauge: "SO(2)" } };
    Object.assign(fake, {
      getAlgebra: async () => measured(GL2),
      scorePredictor: async () => SCORES,
      measureEquivariance: async (_: object, matrices: number[][][]) =>
        matrices.map((_, i) => ({
          loss: 1,
          distance: 0.2,
          relativeError: i / 10,
          interpolationError: 0.1,
        })),
    });
  });
  const prepared = (given: Given) => preparedOf(climate, given, { dir });
  const live = (given: Given, preset?: string) => liveOn(climate, given, fake, { dir, preset });
  const made = (type: string) =>
    fake.made.filter((m) => m.type === type).map(({ options }) => options);

  it("says which fields name folders of the worker, the cache among them", () => {
    for (const { name, config } of Object.values(climate.tasks)) {
      const folders = Object.keys(config).filter((field) => metaOf(config[field]).file);
      expect(folders, name).to.deep.equal(["data", "cache"]);
    }
  });

  it("places its charts on the lattice that the files have at its stride", async () => {
    const { algebra, equivariance, predictor } = await live({ stride: 8 });
    expect(equivariance![1]).to.include({ name: "rotation by 180°", relativeError: 0.1 });
    expect(equivariance![1]!.interpolation).to.be.closeTo(0.05, 1e-12);
    expect(algebra!.identified.name).to.equal("gl(2)");
    expect(predictor.scores).to.deep.equal(SCORES);
    expect(made("atlas")).to.deep.equal([
      {
        kind: "planar",
        params: {
          charts: [34, 43, 53, 62].map((row) => ({ row, col: 72 })),
          r_in: 25,
          r_out: 19,
          margin: 6,
          output_interpolation: "nearest",
        },
      },
    ]);
  });

  it("reads both folders before it trains, and takes the published settings", async () => {
    fake.shapes = { inputs: [398, 4, 768, 1152], targets: [398, 2, 768, 1152] };
    const { notes } = await live({ solver: "atlasd", data: "x" });
    const [train, test] = made("dataset");
    const variables = "TMQ,U850,V850,PSL";
    expect(train!.params).to.deep.include({ path: join("x", "train"), variables, stride: 1 });
    expect(test!.params).to.deep.include({ path: join("x", "test") });
    expect(fake.log.slice(0, 4)).to.deep.equal([
      "dataset 1",
      "dataset 1",
      "predictor 1",
      "algebra 1",
    ]);
    expect(fake.log).to.have.length(2 + 2 * 30);
    expect(made("atlas")[0]!.params).to.deep.include({ r_in: 200, r_out: 150 });
    expect(made("predictor")[0]!.architecture).to.deep.equal({
      kind: "cgnet",
      params: { m: 3, n: 21, width: 32, reference: false, upside_down: false },
    });
    const { kind, params } = made("algebra")[0]!.solver as { kind: string; params: object };
    expect(kind).to.equal("atlasd");
    expect(params).to.deep.include({ r3: 5, batch_size: 4, scale: 1 });
    expect(notes!.join()).to.contain("mean IoU 0.450").and.contain("0.520").and.contain("0.310");
  });

  it("takes the command line of version 0.1, and says what it is called now", async () => {
    const flags = flagsOf(climate.tasks.discover);
    const parsed = (name: string, text: string | true) => {
      const { field, parse } = flags.find((flag) => flag.name === name)!;
      return [field, parse(text)];
    };
    const given = Object.fromEntries([
      parsed("solver", "paper"),
      parsed("predictor", "published"),
      parsed("keep", "memory"),
      parsed("predictor-lr", "0.5"),
    ]) as Given;
    const { config, warned } = await prepared(given);
    expect(config).to.deep.include({
      solver: "atlasd",
      architecture: "cgnet",
      "architecture.reference": true,
      "architecture.upside_down": false,
      storage: "memory",
      "training.learning_rate": 0.5,
    });
    expect(warned).to.have.length(2);
    expect(warned.join("; ")).to.contain("--solver atlasd").and.contain("--architecture cgnet");
  });

  it("builds both networks from an algebra: the frames' own, and a given one", async () => {
    for (const [given, basis] of [
      [{ task: "downstream_baseline" }, namedAlgebra("so(2)", 2)],
      [{ task: "downstream_discovered", identity: "gl(2)" }, GL2],
    ] as const) {
      fake.made.length = 0;
      const { downstream } = await live(given, "published");
      expect(downstream).to.deep.equal({ metrics: { ...SCORES, parameters: 7 }, gauge: "SO(2)" });
      expect(made("atlas")).to.deep.equal([{ kind: "icosahedron", params: { resolution: 6 } }]);
      const [{ architecture, tensors, training, epochs }] = made("predictor") as [
        Record<string, unknown>,
      ];
      expect(architecture).to.deep.equal({
        kind: "icosahedral_unet",
        params: { width: 16, levels: 5 },
      });
      expect((tensors as { algebra: Tensor }).algebra.toMatrices()).to.deep.equal(basis);
      expect((training as { params: object }).params).to.deep.include({
        loss: "jaccard",
        batch_size: 4,
        learning_rate: 1e-3,
      });
      expect(epochs).to.equal(20);
      const [{ params }] = made("dataset") as [{ params: { variables: string } }];
      expect(params.variables.split(",")).to.have.length(16);
    }
  });

  it("refuses none where an algebra is needed, and one to build nothing from", async () => {
    const refusal = async (given: Given) => {
      const error = await rejection(prepared(given));
      expect(error).to.be.instanceOf(UsageError);
      return error.message;
    };
    const task = "downstream_discovered";
    expect(await refusal({ task })).to.contain("--task downstream_discovered");
    expect(await refusal({ task, identity: "none" })).to.contain("algebra none");
  });

  it("says how to come by files that are not there, and nothing of others", async () => {
    const field = "dataset.source.params.path";
    for (const [error, remedied] of [
      [new RpcUsageError("there is no folder x/test", "FILE_MISSING", field), true],
      [new RpcUsageError("x/train has no LABELS", "INVALID_INPUT", field, "", "look at it"), false],
      [new RpcError("no space for caches", "LIMIT_EXCEEDED", "", "", "look at it"), false],
    ] as const) {
      fake.createDataset = async () => {
        throw error;
      };
      expect(await rejection(live({ data: resolve("x") }))).to.equal(error);
      if (remedied) expect(error.remedy).to.contain(`--generate 24 --out ${resolve("x")}`);
      else expect(error.remedy).to.equal("look at it");
    }
  });
});
