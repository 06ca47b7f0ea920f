import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { z } from "zod";
import { namedAlgebra } from "../../../src/algebra/index.js";
import { FileError, UsageError } from "../../../src/errors.js";
import { configReader } from "../../../src/experiment/config.js";
import { defineExperiment, task } from "../../../src/experiment/define.js";
import { type RecordedConfig, RunLookup, readPredictor } from "../../../src/experiment/lookup.js";
import { type Findings, withFormerNames } from "../../../src/result.js";
import { type RunConfig, RunFolder } from "../../../src/run/folder.js";
import { Tensor, writeNpy, writeSafetensors } from "../../../src/tensor/index.js";
import { type Place, placeOf } from "../../../src/worker/index.js";
import { analyse } from "../algebra/helpers.js";
import { result } from "../report/results.js";
import { rejection } from "../worker/rejection.js";
import { SPEC } from "./live.js";

const QUARTER = [[0, -1], [1, 0]]; // biome-ignore format: a matrix
const SO2 = namedAlgebra("so(2)", 2)!;
const run = async () => ({}) as never;
const layout = z
  .int()
  .default(1)
  .meta({ former: ["atlas"] });
const experiment = defineExperiment({
  name: "x",
  summary: "",
  tasks: {
    discover: task({ summary: "", config: { layout }, run }),
    downstream: task({ summary: "", config: { width: z.int().default(8) }, run }),
  },
});

describe("what a config refers to", () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-lookup-"));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));
  const lookup = () => new RunLookup(dir, configReader(experiment));

  /** A run that has found something, or is not finished. */
  async function made(
    findings: Partial<Findings> | undefined,
    {
      config = {},
      name = "x",
      predictor = true,
    }: {
      config?: RunConfig["config"];
      name?: string;
      predictor?: boolean;
    } = {},
  ): Promise<RunFolder> {
    await sleep(2); // the newest is known by its time, in milliseconds
    const folder = await RunFolder.create(dir, { ...SPEC, experiment: name, config });
    if (predictor)
      await folder.saveCheckpoint("predictor", Buffer.from(folder.id), {
        epoch: 1,
        totalEpochs: 1,
        metrics: {},
        seconds: 1,
      });
    if (findings) await folder.writeResult(withFormerNames(result(findings)));
    await folder.close();
    return folder;
  }

  describe("as a folder with data", () => {
    const at = (place: Place) => new RunLookup(dir, configReader(experiment), place);

    it("is known from anywhere, where a worker here reads it, even before it is there", () => {
      for (const given of ["no/such/folder", ".", dir])
        expect(at("spawned").workerPath(given)).to.equal(resolve(given));
    });

    it("of a worker that runs already near by is left as it is, unless it is here", () => {
      const here = relative(process.cwd(), dir);
      expect(existsSync(here)).to.equal(true);
      expect(at("loopback").workerPath(here)).to.equal(dir);
      for (const given of ["no/such/folder", "/no/such/folder", "C:\\no\\such"])
        expect(at("loopback").workerPath(given)).to.equal(given);
    });

    it("of a worker on another machine is left as it is, whatever is here", () => {
      for (const given of [relative(process.cwd(), dir), "no/such/folder", "/no/such/folder", dir])
        expect(at("remote").workerPath(given)).to.equal(given);
    });

    it("is of the machine that the worker's address says", () => {
      const places = {
        spawned: ["local", "docker", "docker:image"],
        loopback: ["grpc://127.0.0.1:1", "grpc://[::1]:1", "grpcs://localhost:1"],
        remote: ["grpcs://gpu-box:1", "grpc://192.168.1.7:1", "grpcs://localhost.example.org:1"],
      };
      for (const [place, addresses] of Object.entries(places))
        for (const address of addresses) expect(placeOf(address), address).to.equal(place);
    });

    it("is fetched by a name of a published data set only", async () => {
      const error = await rejection(lookup().fetchRecord("minst", dir));
      expect(error).to.be.instanceOf(UsageError);
      expect((error as UsageError).remedy).to.contain("mnist");
      await new RunLookup(dir, configReader(experiment), "remote").fetchRecord(
        "mnist",
        join(dir, "data"),
      );
      expect(existsSync(join(dir, "data"))).to.equal(false); // the worker has its own
    });
  });

  describe("as an identity component", () => {
    const message = async (given: string, n: number) =>
      ((await rejection(lookup().identity(given, n))) as UsageError).message;

    it("is a name, or matrices in a file of one of several kinds", async () => {
      expect(await lookup().identity("so(2)", 2)).to.deep.equal({ source: "so(2)", basis: SO2 });
      const files: [name: string, bytes: string | Uint8Array][] = [
        ["stack.npy", writeNpy(Tensor.from([QUARTER]))],
        ["one.npy", writeNpy(Tensor.from(QUARTER))],
        ["a.safetensors", writeSafetensors(new Map([["generators", Tensor.from([QUARTER])]]))],
        ["stack.json", JSON.stringify([QUARTER])],
        ["one.json", JSON.stringify(QUARTER)],
        ["basis.json", JSON.stringify({ basis: [QUARTER] })],
        ["generators.json", JSON.stringify({ generators: [QUARTER] })],
        ["result.json", JSON.stringify(result({ algebra: analyse([QUARTER]) }))],
        ["former.json", JSON.stringify({ algebra: { generators: [QUARTER, QUARTER], found: 1 } })],
      ];
      for (const [name, bytes] of files) {
        writeFileSync(join(dir, name), bytes);
        const found = await lookup().identity(join(dir, name), 2);
        expect(found, name).to.deep.equal({ source: join(dir, name), basis: [QUARTER] });
      }
    });

    it("is refused in words where a file holds none, or is not there", async () => {
      for (const [name, text, says] of [
        ["text.json", "not JSON", /JSON/],
        ["other.json", '{"a": 1}', /other\.json/],
        ["short.npy", "\x93NUMPY", /short\.npy/],
      ] as const) {
        writeFileSync(join(dir, name), text);
        const error = await rejection(lookup().identity(join(dir, name), 2));
        expect(error, name).to.be.instanceOf(FileError);
        expect(error.message).to.match(says);
      }
      expect(await message(join(dir, "absent.npy"), 2)).to.contain("absent");
      const bad = Tensor.from([[[Number.NaN, 0], [0, 0]]]); // biome-ignore format: a matrix
      writeFileSync(join(dir, "nan.npy"), writeNpy(bad));
      expect(await message(join(dir, "nan.npy"), 2)).to.contain("nan.npy");
    });

    it("of another dimension is refused, even where it has no generators", async () => {
      const file = join(dir, "plane.npy");
      writeFileSync(file, writeNpy(Tensor.from([QUARTER])));
      expect(await message(file, 4))
        .to.contain(`--identity ${file}`)
        .and.contain("2x2");
      expect(await message("so(2)", 4)).to.match(/^--identity so\(2\): .*run "so\(2\)"/);

      const direction = { direction: QUARTER, loss: 1, relativeError: 1 };
      for (const { generators, spectrum } of [
        { generators: [], spectrum: [direction] },
        { generators: [QUARTER], spectrum: [direction] },
        { generators: [QUARTER], spectrum: [] },
      ]) {
        const { path } = await made({ algebra: { ...analyse(generators), spectrum } });
        expect(await message(path, 4)).to.match(
          spectrum.length > 0
            ? /^--identity .*: the algebra of run \S+ .*2x2 matrices$/
            : /^--identity .*2x2$/,
        );
        expect((await lookup().identity(path, 2)).basis).to.deep.equal(generators);
      }
    });

    it("is of a finished run with an algebra, and of its symmetries only", async () => {
      const unfinished = await made(undefined);
      expect(await message(unfinished.id, 2))
        .to.contain(unfinished.id)
        .and.contain("finished");
      const without = await made({});
      expect(await message(without.id, 2))
        .to.contain(without.id)
        .and.contain("algebra");
      const { algebra } = result({ algebra: { ...analyse([QUARTER, QUARTER]), symmetryCount: 1 } });
      const half = await made({ algebra });
      expect(await lookup().identity(half.id, 2)).to.deep.equal({
        source: half.id,
        basis: [QUARTER],
      });
    });
  });

  describe("as what the newest run has found", () => {
    const algebra = analyse([QUARTER]);
    const newest = (layout: number) =>
      lookup().newestAlgebra((other) => other.task === "discover" && other.layout === layout);

    it("is of the newest that is finished, fits, and found a generator", async () => {
      expect(await newest(1)).to.equal(undefined);
      await made({ algebra });
      const wanted = await made({ algebra });
      await made({ algebra: analyse([]) });
      await made({ algebra }, { config: { layout: 2 } });
      await made({ algebra }, { config: { task: "downstream" } });
      await made({ algebra }, { name: "y" });
      await made({ algebra }, { config: { of_another_version: 3 } });
      await made(undefined);
      expect(await newest(1)).to.deep.equal({ source: wanted.id, basis: [QUARTER] });
    });

    it("is compared by the present names of what was recorded", async () => {
      const former = await made({ algebra }, { config: { atlas: 2 } });
      expect(await newest(2)).to.include({ source: former.id });
      expect(await newest(1)).to.equal(undefined);
    });
  });

  describe("as a predictor", () => {
    const fits = ({ layout }: RecordedConfig) => layout === 1;

    it("is a file, or a run of the same settings", async () => {
      const file = join(dir, "weights.safetensors");
      writeFileSync(file, writeSafetensors(new Map([["w", Tensor.from([1])]])));
      expect(await lookup().predictor(relative(process.cwd(), file), fits)).to.equal(file);
      const { id, path } = await made(undefined);
      expect(await lookup().predictor(id, fits)).to.equal(path);
      expect(Buffer.from(await readPredictor(path)).toString()).to.equal(id);
      expect(await readPredictor(file)).to.have.length.above(8);
    });

    it("is refused where it is not there, or was trained for other settings", async () => {
      const absent = await rejection(lookup().predictor(join(dir, "absent.pt"), fits));
      expect(absent.message).to.contain("absent");
      const other = await made({}, { config: { layout: 2 } });
      const error = await rejection(lookup().predictor(other.id, fits));
      expect(error).to.be.instanceOf(UsageError);
      expect(error.message).to.contain(`run ${other.id}`).and.contain("layout 2");
      const foreign = await made({}, { name: "y", config: { layout: 1 } });
      expect(await rejection(lookup().predictor(foreign.id, fits))).to.be.instanceOf(UsageError);
    });

    it("without a name is that of the newest finished run that has one and fits", async () => {
      const none = await rejection(lookup().predictor(true, fits));
      expect(none).to.be.instanceOf(UsageError);
      const wanted = await made({});
      await made({}, { predictor: false });
      await made({}, { config: { layout: 2 } });
      await made(undefined);
      expect(await lookup().predictor(true, fits)).to.equal(wanted.path);
    });

    it("is refused where its file is damaged", async () => {
      const folder = await made({});
      writeFileSync(folder.checkpointPath("predictor"), "damaged");
      const error = await rejection(readPredictor(folder.path));
      expect(error).to.be.instanceOf(FileError);
      expect(error.message).to.contain(folder.path);
      const file = join(dir, "cut.safetensors");
      writeFileSync(file, "cut");
      expect(await rejection(readPredictor(file))).to.be.instanceOf(FileError);
    });
  });
});
