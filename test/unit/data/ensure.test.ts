import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { ensureFiles } from "../../../src/data/ensure.js";
import { addressesOf } from "../../../src/data/fetch.js";
import { mnist } from "../../../src/data/mnist.js";
import { FileError, Interrupted, NetworkError, UsageError } from "../../../src/errors.js";
import { configReader } from "../../../src/experiment/config.js";
import { defineExperiment } from "../../../src/experiment/define.js";
import { RunLookup } from "../../../src/experiment/lookup.js";
import { Progress } from "../../../src/experiment/progress.js";
import type { Place } from "../../../src/worker/index.js";
import { rejection } from "../worker/rejection.js";
import { type FileServer, recordOf, serve } from "./server.js";

const FILES = { "images.gz": Buffer.alloc(2000, 1), "labels.gz": Buffer.alloc(100, 2) };

describe("files that are fetched on first use", () => {
  let dir: string;
  let server: FileServer;
  const lines: string[] = [];
  beforeEach(async () => {
    dir = join(mkdtempSync(join(tmpdir(), "atlas-ensure-")), "data");
    server = await serve(FILES);
    lines.length = 0;
  });
  afterEach(async () => {
    await server.close();
    rmSync(join(dir, ".."), { recursive: true, force: true });
  });
  const ensure = (options: Parameters<typeof ensureFiles>[2] = {}) =>
    ensureFiles(recordOf(server.host, FILES), dir, {
      pauseMs: 1,
      onProgress: (line) => lines.push(line),
      ...options,
    });
  const put = (name: string, contents: Buffer | string) => {
    mkdirSync(dir, { recursive: true });
    writeFileSync(join(dir, name), contents);
  };

  it("come all when there are none, and only once", async () => {
    await ensure();
    expect(readdirSync(dir).sort()).to.deep.equal(Object.keys(FILES));
    expect(readFileSync(join(dir, "labels.gz")).equals(FILES["labels.gz"])).to.equal(true);
    expect(lines).to.deep.equal([
      `fetching 2 files (2.1 kB) of Some files, none, from ${server.host}/records/1/files/ into ${dir}`,
    ]);
    await ensure();
    expect(server.ranges).to.have.length(2);
    expect(lines).to.have.length(1);
  });

  it("are not looked into when all are there, unpacked or not", async () => {
    put("images.gz", "my own");
    put("labels", "my own");
    await ensure();
    expect(server.ranges).to.deep.equal([]);
    expect(lines).to.deep.equal([]);
  });

  it("come when they are missing among others that are right", async () => {
    put("images.gz", FILES["images.gz"]);
    put(".DS_Store", "");
    put("labels.gz.partial", FILES["labels.gz"].subarray(0, 50));
    await ensure();
    expect(readdirSync(dir).sort()).to.deep.equal([".DS_Store", ...Object.keys(FILES)]);
    expect(lines[0]).to.match(/^fetching labels\.gz \(100 bytes\) of /);
    expect(server.ranges).to.deep.equal(["bytes=50-"]);
  });

  for (const name of ["images", "digits.zip", "images.idx.gz", "raw/images"])
    it(`do not come beside the user's ${name}`, async () => {
      mkdirSync(join(dir, "raw"), { recursive: true });
      put(name, "my own");
      await ensure();
      expect(server.ranges).to.deep.equal([]);
      expect(lines).to.deep.equal([]);
    });

  it("are not mixed with those of another data set", async () => {
    put("labels.gz", "my own");
    const error = (await rejection(ensure())) as FileError;
    expect(error).to.be.instanceOf(FileError);
    expect(error.message).to.contain("labels.gz exists already");
    expect(error).to.include({ elsewhere: true, overwritable: false });
    expect(error.remedy).to.contain("put images.gz beside it").and.not.contain("overwrite");
    expect(readdirSync(dir)).to.deep.equal(["labels.gz"]);
  });

  it("leave a clear word when there is no network", async () => {
    await server.close();
    const error = (await rejection(ensure())) as NetworkError;
    expect(error).to.be.instanceOf(NetworkError);
    expect(error.exitCode).to.equal(1);
    expect(error.message).to.match(
      /^cannot fetch http:\S+images\.gz\S+: the connection is refused$/,
    );
    expect(error.elsewhere).to.equal(true);
    expect(error.remedy).to.contain(`into ${dir} by hand`).and.not.contain("--");
    expect(lines).to.have.length(1);
    server = await serve(FILES);
  });

  it("leave a clear word when the folder cannot be", async () => {
    writeFileSync(dir, "a file");
    const error = (await rejection(ensure())) as FileError;
    expect(error).to.be.instanceOf(FileError);
    expect(error.elsewhere).to.equal(true);
  });

  it("stop coming when told to", async () => {
    const stop = new AbortController();
    server.faults.push((_, response, all) => {
      response.writeHead(200, { "Content-Length": all.length }).write(all.subarray(0, 500));
    });
    const onBytes = () => stop.abort();
    expect(await rejection(ensure({ signal: stop.signal, onBytes }))).to.be.instanceOf(Interrupted);
    expect(readdirSync(dir)).to.deep.equal(["images.gz.partial"]);
    await ensure();
    expect(server.ranges).to.deep.equal([undefined, "bytes=500-", undefined]);
  });

  describe("for an experiment", () => {
    const mirror = process.env.ATLAS_DATA_HOST;
    afterEach(() => {
      if (mirror === undefined) delete process.env.ATLAS_DATA_HOST;
      else process.env.ATLAS_DATA_HOST = mirror;
    });
    const out = { write: (text: string) => lines.push(text) > 0 } as unknown as NodeJS.WriteStream;
    const experiment = defineExperiment({
      name: "x",
      summary: "",
      tasks: { discover: { summary: "", config: {}, run: () => expect.fail("it is not run") } },
    });

    it("are said by name, and fetched for a worker on this machine only", async () => {
      process.env.ATLAS_DATA_HOST = server.host;
      const { signal } = new AbortController();
      const lookup = (place: Place) =>
        new RunLookup(dir, configReader(experiment), place, {
          progress: new Progress({ out }),
          signal,
        });
      await lookup("remote").fetchRecord("mnist", dir);
      expect(server.ranges).to.deep.equal([]);
      const missing = await rejection(lookup("spawned").fetchRecord("mnist", dir, "or go without"));
      expect(missing).to.be.instanceOf(NetworkError); // it has others
      expect((missing as NetworkError).remedy).to.match(/ with --data DIR; or go without$/);
      expect(lines).to.deep.equal([
        `fetching 4 files (11.6 MB) of MNIST (LeCun, Cortes, Burges 1998), CC BY-SA 3.0, from ${server.host}/mnist/ into ${dir}\n`,
      ]);
      const error = (await rejection(lookup("spawned").fetchRecord("minst", dir))) as UsageError;
      expect(error).to.be.instanceOf(UsageError);
      expect(error.remedy).to.contain("mnist");
    });

    it("stop coming when the run is stopped", async () => {
      process.env.ATLAS_DATA_HOST = server.host;
      const lookup = new RunLookup(dir, configReader(experiment), "spawned", {
        progress: new Progress({ out }),
        signal: AbortSignal.abort(),
      });
      expect(await rejection(lookup.fetchRecord("mnist", dir))).to.be.instanceOf(Interrupted);
      expect(server.ranges).to.deep.equal([]);
    });
  });
});

describe("MNIST", () => {
  it("is at two places", () => {
    const mirror = process.env.ATLAS_DATA_HOST;
    delete process.env.ATLAS_DATA_HOST;
    expect(addressesOf(mnist.record!)[1]).to.deep.equal([
      "https://ossci-datasets.s3.amazonaws.com/mnist/train-labels-idx1-ubyte.gz",
      "https://storage.googleapis.com/cvdf-datasets/mnist/train-labels-idx1-ubyte.gz",
    ]);
    if (mirror !== undefined) process.env.ATLAS_DATA_HOST = mirror;
  });
});
