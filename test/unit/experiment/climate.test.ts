import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect } from "chai";
import climate from "../../../experiments/climate.js";
import { namedAlgebra } from "../../../src/algebra/index.js";
import { FileError, UsageError } from "../../../src/errors.js";
import { Context } from "../../../src/experiment/context.js";
import { completeConfig } from "../../../src/experiment/define.js";
import { Progress } from "../../../src/experiment/progress.js";
import { Runs } from "../../../src/experiment/sources.js";
import type { Findings } from "../../../src/result.js";
import { RunFolder } from "../../../src/run/folder.js";
import type { Tensor } from "../../../src/tensor/index.js";
import { found } from "../algebra/helpers.js";
import { rejection } from "../worker/rejection.js";
import { FakeSession } from "./fake-session.js";

type Given = Parameters<typeof completeConfig<typeof climate.config>>[1];
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
    fake.facts = { dataset: { inputs: [5, 4, 96, 144] }, predictor: { parameters: 7, gauge: "SO(2)" } };
    Object.assign(fake, {
      getAlgebra: async () => found(GL2, { found: 4 }),
      scorePredictor: async () => SCORES,
      measureEquivariance: async (_: object, matrices: number[][][]) =>
        matrices.map((_, i) => ({ loss: 1, distance: 0.2, relativeError: i / 10, resampling: 0.1 })),
    });
  });
  const prepared = (given: Given, preset?: string) =>
    climate.prepare!(completeConfig(climate, given, preset).config, new Runs(dir, "climate"));

  /** A run on a fake worker: what is found, and what was made for it. */
  async function live(given: Given, preset?: string): Promise<Findings> {
    const config = await prepared(given, preset);
    const run = await RunFolder.create(dir, {
      experiment: "climate",
      seed: 5,
      config: {},
      worker: { address: "local", device: "cpu" },
      versions: {},
    });
    const signal = new AbortController().signal;
    const progress = new Progress({ quiet: true });
    const ctx = new Context({ session: fake.session, run, seed: 5, progress, signal });
    return climate.run(ctx, config).finally(() => run.close());
  }
  const made = (role: string) => fake.made.filter((m) => m.role === role).map(({ options }) => options);

  it("says where files are from anywhere, the cache's too", async () => {
    const { data, cache } = await prepared({ data: "maps", cache: "cache" });
    expect([data, cache]).to.deep.equal([resolve("maps"), resolve("cache")]);
    expect((await prepared({})).cache).to.equal(undefined);
  });

  it("places its charts on the lattice that the files have at its stride", async () => {
    const { algebra, equivariance, predictor } = await live({ stride: 8 });
    expect(equivariance![1]).to.include({ name: "rotation by 180°", relativeError: 0.1 });
    expect(equivariance![1]!.interpolation).to.be.closeTo(0.05, 1e-12);
    expect(algebra!.identified.name).to.equal("gl(2)");
    expect(predictor.scores).to.deep.equal(SCORES);
    const [atlas] = made("atlas");
    expect(atlas).to.deep.include({ rIn: 25, rOut: 19, margin: 6, outputInterpolation: "nearest" });
    expect(atlas!.charts).to.deep.equal([34, 43, 53, 62].map((row) => ({ row, col: 72 })));
  });

  it("reads both folders before it trains, and takes the published settings when asked for", async () => {
    fake.facts.dataset = { inputs: [398, 4, 768, 1152] };
    const { notes } = await live({ solver: "paper", data: "x" });
    const [train, test] = made("dataset");
    const variables = "TMQ,U850,V850,PSL";
    expect(train!.params).to.deep.include({ path: join(resolve("x"), "train"), variables, stride: 1 });
    expect(test!.params).to.deep.include({ path: join(resolve("x"), "test") });
    expect(fake.log.slice(0, 4)).to.deep.equal(["dataset 1", "dataset 1", "predictor 1", "algebra 1"]);
    expect(fake.log).to.have.length(2 + 2 * 30);
    expect(made("atlas")[0]).to.deep.include({ rIn: 200, rOut: 150 });
    expect(made("predictor")[0]!.architecture).to.deep.include({
      params: { m: 3, n: 21, width: 32, published: false, upside_down: false },
    });
    const { kind, params } = made("algebra")[0]!.solver as { kind: string; params: object };
    expect(kind).to.equal("paper");
    expect(params).to.deep.include({ r3: 5, batch_size: 4 });
    expect(notes!.join()).to.contain("mean IoU of 0.450").and.contain("0.520").and.contain("0.310");
  });

  it("builds both networks from an algebra: the frames' own, and the one that was found", async () => {
    for (const [given, basis] of [
      [{ task: "downstream_baseline" }, namedAlgebra("so(2)", 2)],
      [{ task: "downstream_discovered", identity: "gl(2)" }, GL2],
    ] as const) {
      fake.made.length = 0;
      const { downstream } = await live(given, "published");
      expect(downstream).to.deep.equal({ metrics: { ...SCORES, parameters: 7 }, gauge: "SO(2)" });
      expect(made("atlas")).to.deep.equal([{ resolution: 6 }]);
      const [{ architecture, tensors, training, epochs }] = made("predictor") as [Record<string, unknown>];
      expect(architecture).to.deep.equal({ kind: "icosahedral_unet", params: { levels: 5 } });
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
    expect(await refusal({ task })).to.equal("--task downstream_discovered needs an algebra");
    expect(await refusal({ task, identity: "none" })).to.match(/^the algebra none has no generators/);
  });

  it("says how to come by files that are not there, and nothing of others", async () => {
    for (const [message, remedied] of [
      ["there is no folder x/test (dataset.source.params.path)", true],
      ["x/train has no files of ClimateNet (dataset.source.params.path)", true],
      ["x/train/data-2000-01-01-01-1_0.nc has no LABELS (dataset.source.params.path)", false],
      ["there is no folder for caches (dataset.source.params.cache)", false],
    ] as const) {
      fake.createDataset = async () => {
        throw new FileError(message, "look at it");
      };
      const error = (await rejection(live({ data: "x" }))) as FileError;
      expect(error.message).to.equal(message);
      if (remedied)
        expect(error.remedy)
          .to.contain(`--generate 24 --out ${resolve("x")}`)
          .and.contain("--fetch");
      else expect(error.remedy).to.equal("look at it");
    }
  });
});
