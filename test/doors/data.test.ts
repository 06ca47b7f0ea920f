/** Data of the user: what is there is seen, and what cannot be used is said before a training. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { expect } from "chai";
import { execa } from "execa";
import { completeConfig } from "../../src/experiment/config.js";
import { builtinExperiments, loadExperiment } from "../../src/experiment/load.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { Tensor, writeNpy } from "../../src/tensor/index.js";
import { atlas, finish, LONG, refuses, sharedWorker } from "../e2e/atlas.js";

const TABLES = fileURLToPath(new URL("make_tables.py", import.meta.url));
const JETS = ["toptagging", "--task=discover_algebra", "--constituents=5", "--N=100"];
const DIGITS = ["mnist", "--task=downstream_baseline", "--N=4", "--test=2"];
const SHORT = ["--epochs=1", "--fixed-seed"];

/** An IDX file of bytes. */
function idx(dims: number[], value: (i: number) => number): Buffer {
  const head = Buffer.alloc(4 + 4 * dims.length);
  head.writeUInt32BE(0x0800 + dims.length);
  for (const [i, d] of dims.entries()) head.writeUInt32BE(d, 4 + 4 * i);
  const count = dims.reduce((a, b) => a * b);
  return Buffer.concat([head, Uint8Array.from({ length: count }, (_, i) => value(i) % 256)]);
}

/** Write four files of twenty digits, named by a function. */
function writeDigits(name: (part: string, dims: number) => string, pack = (b: Buffer) => b) {
  for (const [i, split] of ["train", "t10k"].entries()) {
    const image = (k: number) => (k % 784 > 300 && k % 784 < 500 ? k + 7 * i : 0);
    for (const [part, file] of [
      [`${split}-images`, idx([20, 28, 28], image)],
      [`${split}-labels`, idx([20], (k) => k % 10)],
    ] as const) {
      const path = name(part, part.endsWith("images") ? 3 : 1);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, pack(file));
    }
  }
}

function npy(path: string, shape: number[], value: (i: number) => number): void {
  const data = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => value(i));
  writeFileSync(path, writeNpy(new Tensor("float32", shape, data)));
}

describe("data of the user", function () {
  this.timeout(LONG);
  let dir: string;
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  let here: string[];
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-data-doors-"));
    where = { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state") } };
    here = ["--worker", await sharedWorker()];
    await execa((await ensureVenv()).python, [TABLES, dir]);
    const noise = (i: number) => Math.sin(12.9898 * i) * 43758.5453;
    const wave = (i: number) => noise(i) - Math.floor(noise(i));
    npy("fields", [4, 2, 64, 64], wave);
    npy("half", [4, 2, 64, 64], (i) => (i % 8192 < 4096 ? wave(i) : 3));
    npy("same", [4, 1, 64, 64], () => 1);
    npy("swapped", [4, 64, 64, 2], (i) => (i % 128 < 2 ? 0 : Math.floor(i / 128)));
    npy("nan", [4, 2, 64, 64], (i) => (i === 9000 ? Number.NaN : wave(i)));
    npy("small", [4, 2, 40, 40], wave);
    function npy(name: string, shape: number[], value: (i: number) => number) {
      writeArray(join(dir, `${name}.npy`), shape, value);
    }
  });
  const writeArray = npy;
  after(() => rmSync(dir, { recursive: true, force: true }));

  let count = 0;
  const run = (args: string[]) => finish([...args, ...SHORT, ...here], `${dir}/${++count}`, where);

  it("are digits, whatever mirrors call them", async () => {
    writeDigits((part, dims) => join(dir, `plain/${part}-idx${dims}-ubyte`));
    writeDigits((part, dims) => join(dir, `dotted/${part}.idx${dims}-ubyte`));
    writeDigits((part, dims) => join(dir, `vision/MNIST/raw/${part}-idx${dims}-ubyte`));
    writeDigits((part, dims) => join(dir, `unpacked/${part}-idx${dims}-ubyte.gz`));
    writeDigits((part, dims) => join(dir, `packed/${part}-idx${dims}-ubyte`), gzipSync);
    const losses = [];
    for (const name of ["plain", "dotted", "vision", "unpacked", "packed"]) {
      const { result } = await run([...DIGITS, `--data=${name}`]);
      losses.push(result.predictor.loss);
      expect(result.notes?.join()).not.to.match(/training images/);
    }
    expect(new Set(losses).size).to.equal(1);
  });

  it("are not joined by others from the network", async () => {
    mkdirSync(join(dir, "others"));
    writeFileSync(join(dir, "others/digits.mat"), "");
    const env = { ...where.env, ATLAS_DATA_HOST: "http://127.0.0.1:65534" };
    const [args, line] = [
      [...DIGITS, "--data=others", "--device=cpu"],
      /^error: \S+others has no digits; it holds digits\.mat \(--data\).*train-images-idx3-ubyte/,
    ] as const;
    await refuses([[[...args], line]], { cwd: dir, env });
    expect(readdirSync(join(dir, "others"))).to.deep.equal(["digits.mat"]);
  });

  it("are jets from the whole of a file that is sorted", async () => {
    const { result } = await run([...JETS, "--data=sorted"]);
    expect(result.predictor.scores!.accuracy).to.be.above(0.5);
    expect(result.notes!.join()).not.to.match(/class \d/);
    const again = await run([...JETS, "--data=sorted"]);
    expect(again.result.predictor).to.deep.equal(result.predictor);
    const all = await run([...JETS, "--data=sorted", "--N=300"]);
    const first = await run([...JETS, "--data=sorted", "--N=300", "--order=file"]);
    expect(all.result.predictor).to.deep.equal(first.result.predictor);
  });

  it("are the first jets where a run was recorded before they were drawn", async () => {
    const { path } = builtinExperiments().find(({ name }) => name === "toptagging")!;
    const experiment = await loadExperiment(path);
    const given = { task: "discover_algebra" };
    const complete = completeConfig(experiment, given).config;
    const { order: _, ...recorded } = complete;
    expect(complete.order).to.equal("drawn");
    const before = completeConfig(experiment, { ...given, ...recorded }, { recorded: true });
    expect(before.config.order).to.equal("file");
    const since = completeConfig(experiment, { ...given, ...complete }, { recorded: true });
    expect(since.config.order).to.equal("drawn");
  });

  it("are tables of another name, and odd ones are noted in the result", async () => {
    const [key, shared, flat] = [
      await run([...JETS, "--data=key"]),
      await run([...JETS, "--data=shared", "--N=0"]),
      await run([
        "discover",
        "--task=discover_algebra",
        "--inputs=half.npy",
        "--targets=fields.npy",
        "--evidence=none",
      ]),
    ];
    expect(key.result.notes!.join()).to.match(/'jets'/);
    expect(shared.result.notes!.join()).to.match(/80 of the 80 jets/);
    expect(flat.result.notes!.join()).to.match(/channel 1 of inputs/);
    const { code, stderr } = await atlas(
      [...JETS, ...SHORT, "--data=two", "--table=others/jets", "--quiet", ...here],
      { ...where, cwd: join(dir) },
    );
    expect(code, stderr).to.equal(0);
    expect(stderr).to.equal("");
    rmSync(join(dir, "runs"), { recursive: true });
  });

  it("are refused before a training, in one line, where nothing can be learnt", async () => {
    const jets = (...args: string[]) => [...JETS, ...args];
    const own = (inputs: string, targets: string) => [
      ...["own-data", `--inputs=${inputs}.npy`, `--targets=${targets}.npy`, "--evidence=none"],
    ];
    writeDigits((part, dims) => join(dir, `part/${part}-idx${dims}-ubyte`));
    rmSync(join(dir, "part/train-labels-idx1-ubyte"));
    writeDigits((part, dims) => join(dir, `pair/${part}-idx${dims}-ubyte`));
    writeDigits((part, dims) => join(dir, `pair/fashion-${part}-idx${dims}-ubyte`));
    writeFileSync(
      join(dir, "pair/fashion-t10k-labels-idx1-ubyte"),
      idx([20], () => 3),
    );
    const cases: [args: string[], line: RegExp][] = [
      [jets("--data=one_class"), /of class 1/],
      [jets("--data=sorted", "--order=file"), /of class 0/],
      [jets("--data=fixed"), /format='fixed'.*\(--table\).*format='table'/],
      [jets("--data=two"), /jets, others\/jets \(--table\)/],
      [jets("--data=two", "--table=jet"), /jets, others\/jets \(--table\)/],
      [jets("--data=odd_name"), /train\.h5; .*test\.hdf5, train\.hdf5, val\.hdf5 \(--data\)/],
      [jets("--data=plain", "--label=y"), /the column y; it has .*ttv.* \(--label\)/],
      [jets("--data=plain", "--N=301"), /300 rows, .* \(--N\)/],
      [own("same", "fields"), /all entries of inputs are 1 \(--inputs\)/],
      [own("fields", "same"), /all targets are equal/],
      [own("nan", "fields"), /in 1 of 4 samples, first in sample 1 \(--inputs\)/],
      [[...DIGITS, "--data=part"], /train-images-idx3-ubyte.* no training labels \(--data\)/],
      [
        [...DIGITS, "--data=pair"],
        /several .*pair\/fashion-train-images.* and .*pair\/train-images/,
      ],
    ];
    await refuses(
      cases.map(([args, line]) => [[...args, ...SHORT, ...here], line]),
      where,
    );
  });

  it("are findings that fit, or the field is named", async () => {
    const file = join(dir, "bad.mjs");
    const { href } = new URL("../../src/index.js", import.meta.url);
    writeFileSync(
      file,
      `import { defineExperiment, task } from ${JSON.stringify(href.replace(/\.js$/, ".ts"))};
      const run = async () => ({ task: "t", predictor: { loss: "low", epochs: 1, source: "x" } });
      export default defineExperiment({
        name: "bad", summary: "", tasks: { t: task({ summary: "", config: {}, run }) },
      });`,
    );
    const { code, stderr } = await atlas(["run", file, ...here], where);
    expect(code, stderr).to.equal(2);
    expect(stderr.trim().split("\n").at(-1)).to.match(/^error: .*predictor\.loss/);
  });
});
