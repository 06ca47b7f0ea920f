import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { expect } from "chai";
import { z } from "zod";
import { namedAlgebra } from "../../../src/algebra/index.js";
import { UsageError } from "../../../src/errors.js";
import { Context } from "../../../src/experiment/context.js";
import { Progress } from "../../../src/experiment/progress.js";
import { Runs } from "../../../src/experiment/sources.js";
import {
  amount,
  discoverAlgebra,
  discoverCosets,
  givenBasis,
  lookUpIdentity,
  paperFields,
  score,
  symmetries,
  whole,
} from "../../../src/experiment/stages.js";
import { RunFolder } from "../../../src/run/folder.js";
import { Tensor, writeNpy } from "../../../src/tensor/index.js";
import { type Place, placeOf } from "../../../src/worker/index.js";
import { found } from "../algebra/helpers.js";
import { rejection } from "../worker/rejection.js";
import { FakeSession } from "./fake-session.js";

const QUARTER = [[0, -1], [1, 0]]; // biome-ignore format: a matrix
const UNIT = [[1, 0], [0, 1]]; // biome-ignore format: a matrix
const SPEC = {
  experiment: "x",
  seed: 5,
  config: {},
  worker: { address: "local", device: "cpu" },
  versions: {},
};
const component = { kind: "fake", params: {} };

describe("stages", () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-stages-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  describe("config fields", () => {
    it("take what their name says, and default to what is given", () => {
      const schema = z.object({
        n: whole(4, "Whole"),
        x: amount(0.5, "Any"),
        ...paperFields({ r1: 0.1, r3: 2 }),
      });
      expect(schema.parse({})).to.deep.equal({ n: 4, x: 0.5, basis_lr: 5e-4, r1: 0.1, r2: 1, r3: 2 });
      expect(schema.parse({ x: 0 }).x).to.equal(0);
      for (const wrong of [{ n: 0 }, { n: 1.5 }, { x: -1 }, { r1: -0.1 }, { r2: Number.NaN }])
        expect(schema.safeParse(wrong).success, JSON.stringify(wrong)).to.equal(false);
    });
  });

  /** A task on a fake worker, and the order in which its objects are advanced. */
  async function fakeTask() {
    const fake = new FakeSession();
    const generators = [QUARTER, UNIT];
    Object.assign(fake, {
      getAlgebra: async () => found(generators, { found: 1 }),
      getCosets: async () => ({ matrices: [UNIT], losses: [0.5], noiseFloor: 0, candidates: [] }),
    });
    const run = await RunFolder.create(dir, SPEC);
    const signal = new AbortController().signal;
    const progress = new Progress({ quiet: true });
    const ctx = new Context({ session: fake.session, run, seed: 5, progress, signal });
    const dataset = await ctx.dataset(component);
    const atlas = await ctx.atlas({ n: 2 });
    const predictor = await ctx.predictor({
      architecture: component,
      training: component,
      dataset,
      atlas,
      epochs: 2,
    });
    return { ctx, fake, run, task: { predictor, dataset, atlas } };
  }

  it("find an algebra with the predictor as it is, or with both trained in turn", async () => {
    for (const [train, log] of [
      [false, ["algebra 1", "algebra 2"]],
      [true, ["predictor 1", "algebra 1", "predictor 2", "algebra 2"]],
    ] as const) {
      const { ctx, fake, run, task } = await fakeTask();
      const algebra = await discoverAlgebra(ctx, task, { solver: component, k: 0, epochs: 2, train });
      await run.close();
      expect(fake.log.slice(1)).to.deep.equal(log);
      expect(algebra.identified.name).to.equal("so(2)");
      expect(algebra.generators).to.have.length(2);
      expect(symmetries(algebra)).to.deep.equal([QUARTER]);
      expect(Object.keys(ctx.timings)).to.include("algebra");
    }
  });

  it("find cosets, which are named by the identity component, and keep the search", async () => {
    const { ctx, fake, run, task } = await fakeTask();
    const found = await discoverCosets(ctx, task, { params: {}, identity: [QUARTER], epochs: 1 });
    await run.close();
    expect(fake.log.slice(1)).to.deep.equal(["cosets 1"]);
    expect(found.cosets.map(({ name, loss }) => [name, loss])).to.deep.equal([["identity", 0.5]]);
    expect(found.cosetSearch).to.deep.equal({
      matrices: [UNIT],
      losses: [0.5],
      noiseFloor: 0,
      candidates: [],
    });
  });

  it("score a classifier by names in order, whatever order the worker has, and count the time", async () => {
    const { ctx, fake, run, task } = await fakeTask();
    const asked: unknown[] = [];
    Object.assign(fake, {
      scorePredictor: async (...objects: unknown[]) => {
        asked.push(objects);
        return { auc: 0.9, accuracy: 0.8, "recall 10": 0.1, Recall: 0.2 };
      },
    });
    const scores = await score(ctx, task.predictor, task.dataset);
    await run.close();
    expect(asked).to.deep.equal([[task.predictor, task.dataset]]);
    expect(Object.entries(scores)).to.deep.equal([
      ["Recall", 0.2],
      ["accuracy", 0.8],
      ["auc", 0.9],
      ["recall 10", 0.1],
    ]);
    expect(Object.keys(ctx.timings)).to.include("scores");
  });

  describe("a folder with data", () => {
    const runs = (place: Place) => new Runs(dir, "x", place);

    it("is known from anywhere, where a worker here reads it, even before it is there", () => {
      for (const given of ["no/such/folder", ".", dir])
        expect(runs("ours").workerPath(given)).to.equal(resolve(given));
    });

    it("of a worker that runs already near by is left as it is, unless it is here", () => {
      const here = relative(process.cwd(), dir);
      expect(existsSync(here)).to.equal(true);
      expect(runs("near").workerPath(here)).to.equal(dir);
      for (const given of ["no/such/folder", "/no/such/folder", "C:\\no\\such"])
        expect(runs("near").workerPath(given)).to.equal(given);
    });

    it("of a worker on another machine is left as it is, whatever is here", () => {
      for (const given of [relative(process.cwd(), dir), "no/such/folder", "/no/such/folder", dir])
        expect(runs("far").workerPath(given)).to.equal(given);
    });

    it("is of the machine that the worker's address says", () => {
      const places = {
        ours: ["local", "docker", "docker:image"],
        near: ["grpc://127.0.0.1:1", "grpc://[::1]:1", "grpcs://localhost:1"],
        far: ["grpcs://gpu-box:1", "grpc://192.168.1.7:1", "grpcs://localhost.example.org:1"],
      };
      for (const [place, addresses] of Object.entries(places))
        for (const address of addresses) expect(placeOf(address), address).to.equal(place);
    });
  });

  describe("the identity component", () => {
    const runs = () => new Runs(dir, "x");

    it("is looked up once, and is empty where there is none", async () => {
      expect(await lookUpIdentity(runs(), undefined, 4)).to.equal(undefined);
      expect(givenBasis(undefined)).to.deep.equal([]);
      const lorentz = await lookUpIdentity(runs(), "so(1,3)", 4, "--task x");
      expect(lorentz).to.deep.equal({ source: "so(1,3)", basis: namedAlgebra("so(1,3)", 4) });
      expect(givenBasis(lorentz)).to.have.length(6);
      const none = await lookUpIdentity(runs(), "none", 4, "--task x");
      expect(givenBasis(none)).to.deep.equal([]);
      expect(await lookUpIdentity(runs(), lorentz, 4)).to.equal(lorentz);
    });

    it("must be given where it is needed", async () => {
      const error = await rejection(lookUpIdentity(runs(), undefined, 4, "--task x"));
      expect(error).to.be.instanceOf(UsageError);
      expect((error as UsageError).message).to.equal("--task x needs an algebra");
    });

    it("of another dimension is refused, even where it has no generators", async () => {
      const file = join(dir, "plane.npy");
      writeFileSync(file, writeNpy(Tensor.from([QUARTER])));
      const message = async (given: string, n: number) =>
        ((await rejection(runs().identity(given, n))) as UsageError).message;
      expect(await message(file, 4)).to.equal(`--identity ${file}: its matrices are 2x2`);
      expect((await runs().identity(file, 2)).basis).to.deep.equal([QUARTER]);
      expect(await message("so(2)", 4)).to.match(/^--identity so\(2\): no run "so\(2\)" in /);

      const direction = { direction: QUARTER, loss: 1, relativeError: 1 };
      for (const [generators, spectrum] of [
        [[], [direction]],
        [[QUARTER], [direction]],
        [[QUARTER], []],
      ]) {
        const run = await RunFolder.create(dir, SPEC);
        await run.close();
        const result = { algebra: { generators, found: generators!.length, spectrum } };
        mkdirSync(run.path, { recursive: true });
        const { writeFile } = await import("node:fs/promises");
        await writeFile(join(run.path, "result.json"), JSON.stringify(fullResult(result)));
        expect(await message(run.path, 4)).to.match(
          spectrum!.length > 0
            ? /^--identity .*: the algebra of run \S+ is of 2x2 matrices$/
            : /^--identity .*: its matrices are 2x2$/,
        );
        expect((await runs().identity(run.path, 2)).basis).to.deep.equal(generators);
      }
    });
  });
});

/** A result document around an algebra of which only some is given. */
function fullResult({ algebra }: { algebra: object }) {
  return {
    schema: "atlas.result/1",
    experiment: "x",
    task: "discover",
    seed: 5,
    algebra: {
      losses: [],
      relativeErrors: [],
      noiseFloor: 0,
      closure: { max: 0, mean: 0 },
      killingSignature: { positive: 0, negative: 0, zero: 0 },
      identified: { name: "none", cosine: 1, grassmannDistance: 0, angleDegrees: 0 },
      readableBasis: [],
      verdict: "",
      ...algebra,
    },
    predictor: { loss: null, epochs: 0, source: "trained" },
    timings: {},
    environment: { device: "cpu", threads: 1, versions: {} },
  };
}
