/** `atlas data toptagging`: jets by PYTHIA 8 and FastJet, which are installed first. */
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { execa } from "execa";
import { HDF5 } from "../../src/data/dataset.js";
import { toptagging } from "../../src/data/toptagging.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { serve } from "../unit/data/server.js";
import { atlas, complaint, json, LONG, start } from "./atlas.js";

interface Made {
  files: { path: string; rows: number; bytes: number }[];
  seconds: number;
  seed: number;
}

describe("atlas data toptagging --generate", function () {
  this.timeout(LONG);
  let dir: string;
  let python: string;
  before(async () => {
    ({ python } = await ensureVenv({ extras: toptagging.generator!.extras }));
    dir = mkdtempSync(join(tmpdir(), "atlas-data-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));
  const generate = ["data", "toptagging", "--generate"];

  it("makes files that pandas reads as it does the reference dataset's", async () => {
    const out = join(dir, "jets");
    const made = await json<Made>([...generate, "60", "--out", out, "--seed", "3"]);
    expect(made.seed).to.equal(3);
    expect(made.files.map(({ path, rows }) => [path, rows])).to.deep.equal([
      [join(out, "train.h5"), 36],
      [join(out, "val.h5"), 12],
      [join(out, "test.h5"), 12],
    ]);
    expect(readdirSync(out).sort()).to.deep.equal(["test.h5", "train.h5", "val.h5"]);
    const program = `
import json, pandas, sys
t = pandas.read_hdf(sys.argv[1], key="table")
columns = [list(t.columns[:4]), list(t.columns[-7:])]
signals = int(t.is_signal_new.sum())
print(json.dumps([list(t.shape), *columns, signals, t.isna().values.any().item()]))`;
    const { stdout } = await execa(python, ["-c", program, join(out, "train.h5")]);
    expect(JSON.parse(stdout)).to.deep.equal([
      [36, 806],
      ["E_0", "PX_0", "PY_0", "PZ_0"],
      ["PZ_199", "truthE", "truthPX", "truthPY", "truthPZ", "ttv", "is_signal_new"],
      18,
      false,
    ]);
    const again = complaint(await atlas([...generate, "60", "--out", out]), 2);
    expect(again).to.match(/^error: .*jets has train\.h5, val\.h5, test\.h5 already; .*--force/);
  });

  it("says that a folder cannot be written to", async () => {
    writeFileSync(join(dir, "file"), "");
    const line = complaint(await atlas([...generate, "60", "--out", join(dir, "file/x")]), 2);
    expect(line).to.match(/^error: cannot write .*file\/x: not a directory; .*folder/);
  });

  it("ends at once on Ctrl-C, and leaves nothing", async () => {
    const out = join(dir, "stopped");
    const begun = performance.now();
    const run = start([...generate, "100000", "--out", out]);
    await run.says(/train\.h5 {2}[\d,]+ of 60,000/);
    const first = performance.now() - begun; // to the first hundredth of the jets
    expect(existsSync(join(out, "train.h5.partial"))).to.equal(true);
    run.kill("SIGINT");
    expect(complaint(await run.done, 130)).to.equal("error: stopped; nothing was written");
    expect(performance.now() - begun, "milliseconds").to.be.below(3 * first);
    expect(readdirSync(out)).to.deep.equal([]);
  });
});

describe("atlas data --fetch", function () {
  this.timeout(LONG);

  it("says which files these are, without a network", async () => {
    const { code, stdout } = await atlas(["data", "toptagging", "--fetch"]);
    expect(code).to.equal(0);
    expect(stdout)
      .to.contain("https://zenodo.org/records/2603256  DOI 10.5281/zenodo.2603256")
      .and.match(/^train\.h5 +1038496555 bytes +md5 [0-9a-f]{32} +https:/m);
  });

  it("knows MNIST too, and that it is at two places", async () => {
    const { code, stdout } = await atlas(["data", "mnist", "--fetch"]);
    expect(code).to.equal(0);
    expect(stdout)
      .to.contain("http://yann.lecun.com/exdb/mnist/  CC BY-SA 3.0  11.6 MB")
      .and.match(/^train-images-idx3-ubyte\.gz +9912422 bytes +md5 [0-9a-f]{32} +https:\/\/ossci/m)
      .and.match(/^or from https:\/\/storage\.googleapis\.com\/cvdf-datasets\/mnist\/$/m);
    const help = await atlas(["data", "mnist", "--help"]);
    expect(help.stdout)
      .to.contain("atlas data mnist --fetch --out data/mnist")
      .and.not.contain("--generate");
  });

  it("says how files were checked that have no checksum", async () => {
    const file = "data-1996-06-09-01-1_0.nc";
    const index = Buffer.from(`<a href="${file}">`);
    const path = "/project/ClimateNet/climatenet_new";
    const server = await serve({
      [`${path}/train/`]: index,
      [`${path}/test/`]: index,
      [file]: Buffer.from(HDF5.signature),
    });
    const dir = mkdtempSync(join(tmpdir(), "atlas-data-"));
    try {
      const done = await atlas(["data", "climate", "--fetch", "--out", dir], {
        env: { ATLAS_DATA_HOST: server.host },
      });
      expect(done.stdout.split("\n")[0]).to.equal(
        `${join(dir, "test")}  1 files  8 bytes  checked by length and header only`,
      );
    } finally {
      await server.close();
      rmSync(dir, { recursive: true, force: true });
    }
  });

  it("says in one line that the server does not have them", async () => {
    const server = await serve({});
    const dir = mkdtempSync(join(tmpdir(), "atlas-data-"));
    try {
      const done = await atlas(["data", "toptagging", "--fetch", "--out", dir, "--json"], {
        env: { ATLAS_DATA_HOST: server.host },
      });
      expect(complaint(done, 1)).to.match(
        /^error: cannot fetch http:.*train\.h5\?download=1: .* 404 Not Found; check ATLAS_DATA_HOST/,
      );
    } finally {
      await server.close();
      rmSync(dir, { recursive: true, force: true });
    }
  });
});
