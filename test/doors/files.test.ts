/** Files of users, of any format: discovered on, inspected, sent to a worker, or refused. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { connectWorker, RpcError } from "../../src/index.js";
import { givePaths } from "../../src/method/files.js";
import type { Result } from "../../src/result.js";
import { ensureVenv } from "../../src/setup/venv.js";
import type { FileReport } from "../../src/worker/index.js";
import { atlas, json, LONG, ROOT, refuses, sharedWorker } from "../e2e/atlas.js";

const SETS = {
  ".npy": ["x.npy", "y.npy"],
  ".npz": ["packed.npz:x", "packed.npz:y"],
  HDF5: ["sets.h5:/x", "sets.h5:/labels/y"],
  PyTorch: ["sets.pt:x", "sets.pt:y"],
  safetensors: ["sets.safetensors:x", "sets.safetensors:y"],
  "MATLAB 5": ["old.mat:x", "old.mat:y"],
  "MATLAB 7.3": ["new.mat:x", "new.mat:y"],
  Zarr: ["sets.zarr:x", "sets.zarr:y"],
} as const;
const COLUMNS = "x0,y0,z0,x1,y1,z1";
const TABLES = {
  CSV: [`sets.csv:${COLUMNS}`, "sets.csv:y"],
  text: ["plain.txt", "y.npy"],
  Parquet: [`sets.parquet:${COLUMNS}`, "sets.parquet:y"],
} as const;
const FIELDS = {
  ".npy": ["f.npy", "g.npy"],
  "NetCDF-3": ["storms3.nc:U,V", "storms3.nc:RAIN", "--axes=time,y,x"],
  "NetCDF-4": ["storms4.nc:U,V", "storms4.nc:RAIN"],
  Zarr: ["storms.zarr:U,V", "storms.zarr:RAIN"],
} as const;

/** Damaged and wrong files, beside those that file_formats.py writes. */
const BAD = `
import os, h5py, numpy as np, torch
x = np.random.default_rng(0).normal(size=(60, 2, 3)).astype("f4")
np.savez("complex.npz", x=x.astype("c8"), t=x.astype("U8"), y=np.ones(60))
gaps = x.copy(); gaps[40, 1, 2] = np.nan; gaps[41, 0, 0] = np.inf
np.savez("gaps.npz", x=gaps)
np.save("short.npy", np.arange(50.0))
for name in ("sets.h5", "storms3.nc", "sets.parquet", "old.mat", "sets.safetensors", "packed.npz"):
    data = open(name, "rb").read()
    open("cut-" + name, "wb").write(data[: len(data) // 2])
torch.save({"x": torch.ones(3), "code": os.system}, "code.pt")
with h5py.File("empty.h5", "w") as h:
    h.create_dataset("x", (10000, 1, 500, 500), "f4", chunks=(1, 1, 500, 500))
`;

describe("files of users", function () {
  this.timeout(LONG);
  let dir: string;
  let worker: string;
  let where: { cwd: string };
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-files-"));
    where = { cwd: dir };
    const { python } = await ensureVenv();
    const formats = join(ROOT, "py-worker/tests/numerics/file_formats.py");
    execFileSync(python, ["-W", "ignore", formats, dir]);
    execFileSync(python, ["-c", BAD], { cwd: dir });
    worker = await sharedWorker();
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const FAST =
    "--evidence none --epochs 1 --algebra-epochs 1 --solver.starts 1 --solver.steps 2 --fixed-seed";
  const flags = (files: readonly string[]) => {
    const [inputs, targets, ...more] = files;
    return ["discover", "--worker", worker, `--inputs=${inputs}`, `--targets=${targets}`, ...more];
  };

  for (const [what, formats, more] of [
    ["sets", SETS, ""],
    ["tables", TABLES, ""],
    ["fields", FIELDS, "--r-in 8 --r-out 5"],
  ] as const)
    it(`give the same result to the bit, whatever the format: ${what}`, async () => {
      const results = new Map<string, string>();
      for (const [format, files] of Object.entries(formats)) {
        const words = `--task discover_algebra ${FAST} ${more}`.trim().split(" ");
        const {
          timings: _,
          data,
          ...rest
        } = await json<Result>([...flags(files), ...words], where);
        // Small arrays are sent by this process, other files are read by the worker.
        const hashes = data?.map(({ samples, sha256 }) => ({ samples, sha256 }));
        results.set(format, JSON.stringify({ ...rest, hashes }));
      }
      const [first] = results.values();
      for (const [format, result] of results) expect(result, format).to.equal(first);
    });

  it("are inspected: arrays, axes and their reason, gaps, and the command to type", async () => {
    const inspect = (file: string, ...more: string[]) =>
      atlas(["data", "inspect", file, "--worker", worker, ...more], where);
    const storms = await inspect("storms4.nc");
    expect(storms.code, storms.stderr).to.equal(0);
    expect(storms.stdout).to.match(/U +\[12, 24, 24\] +<f4 +m s-1/);
    expect(storms.stdout).to.include("n,y,x: the file names its axes time, lat, lon");
    expect(storms.stdout).to.include(
      "atlas discover --inputs storms4.nc:-V,U --targets storms4.nc:RAIN --inputs-as V\n",
    );
    const gaps = await inspect("gaps.npz");
    expect(gaps.stdout).to.match(/1 missing or NaN, 1 infinite; the first in n 40, items 1, f.* 2/);
    const ambiguous = await inspect("g.npy");
    expect(ambiguous.stdout).to.match(/--axes n,y,x or --axes n,items,features/);
    type Advised = FileReport & { advice: { targets: string[] }; command: string[] };
    const table = JSON.parse((await inspect("sets.csv", "--json")).stdout) as Advised;
    expect(table.advice.targets).to.deep.equal(["y"]);
    expect(table.command).to.deep.equal([
      `atlas discover --inputs sets.csv:${COLUMNS} --targets sets.csv:y`,
    ]);
    expect(table.members[0]!.numbers!.rank).to.equal(7);
    const named = JSON.parse((await inspect("x.npy", "--axes=n,items,features", "--json")).stdout);
    expect(named.members[0].layout.axes).to.equal("n,items,features");
  });

  it("come with the commands that inspecting them tells", async () => {
    const { stdout } = await atlas(["data", "inspect", "packed.npz", "--worker", worker], where);
    const [, line] = /^ {2}atlas (discover .*)$/m.exec(stdout)!;
    const words = [...line!.split(" "), ...FAST.split(" "), "--worker", worker];
    await json<Result>([...words, "--task", "discover_algebra"], where);
  });

  it("go to a worker that does not see them, with a folder's files, and leave with the session", async () => {
    const connected = await connectWorker({ worker });
    try {
      const session = await connected.openSession({ device: "cpu" });
      const read = async (name: string) => {
        let last = [0, 0];
        const inputs = await session.upload(join(dir, name), {
          onProgress: (done, total) => {
            last = [done, total];
          },
        });
        expect(last[0]).to.equal(last[1]);
        const params = { inputs, inputs_members: name === "x.npy" ? [] : ["x"], outputs: 1 };
        const made = await session.createDataset({ kind: "files", seed: 0, params });
        await session.advance(made);
        return [...(await session.readDataset(made, { start: 0, count: 60 })).inputs.data];
      };
      const plain = await read("x.npy");
      expect(await read("sets.h5")).to.deep.equal(plain);
      expect(await read("sets.zarr")).to.deep.equal(plain);
      mkdirSync(join(dir, "linked.zarr"));
      symlinkSync(join(dir, "x.npy"), join(dir, "linked.zarr/x"));
      await session.upload(join(dir, "linked.zarr")).then(
        () => expect.fail("a link was followed"),
        (error: Error) => expect(error.message).to.include("symbolic link"),
      );
      const other = await connected.openSession({ device: "cpu" });
      const stolen = await session.upload(join(dir, "x.npy"));
      await other.inspectFile(stolen).then(
        () => expect.fail("another session read the file"),
        (error: RpcError) => expect(error.reason).to.equal("NOT_FOUND"),
      );
    } finally {
      await connected.close();
    }
  });

  it("are sent when a worker at an address of this machine does not have them", async () => {
    const asked: string[] = [];
    const missing = new RpcError("no such file", "FILE_MISSING", "dataset.source.params.inputs");
    const used = await givePaths([{ role: "inputs", file: join(dir, "x.npy") }], "loopback", {
      upload: async (file) => `upload:${file}`,
      use: async ({ inputs }) => {
        asked.push(inputs!);
        if (asked.length === 1) throw missing;
        return inputs;
      },
    });
    expect(used).to.equal(`upload:${join(dir, "x.npy")}`);
    await givePaths([{ role: "inputs", file: join(dir, "x.npy") }], "spawned", {
      upload: async () => expect.fail("sent to a worker on this machine"),
      use: async () => {
        throw missing;
      },
    }).then(
      () => expect.fail("no error"),
      (error: unknown) => expect(error).to.equal(missing),
    );
  });

  it("are refused in one line that says what is wrong", async () => {
    writeFileSync(join(dir, "words.csv"), "a,b\n1,red\n2,blue\n");
    const cases: [inputs: string, targets: string, line: RegExp, more?: string][] = [
      ["sets.h5:/spam", "y.npy", /no '\/spam'; it has labels\/y, .*x \(--inputs\)/],
      ["packed.npz", "y.npy", /3 arrays: x \[60, 2, 3\].*\(--inputs\).*packed\.npz:x/],
      ["sets.h5:", "y.npy", /names no array after the colon/],
      ["gaps.npz", "y.npy", /2 numbers .* in 2 of 60 samples, first in sample 40.*\(--inputs\)/],
      ["complex.npz:x", "y.npy", /complex numbers \(--inputs\).*real and the imaginary/],
      ["complex.npz:t", "y.npy", /holds text \(--inputs\)/],
      ["words.csv", "y.npy", /text in the column b \(--inputs\)/],
      ["sets.csv", "sets.csv:y", /would be inputs and targets \(--inputs\)/],
      ["sets.h5:x", "short.npy", /60 samples of inputs and 50 of targets \(--targets\)/],
      ["packed.npz:x", "y.npy", /no axes of inputs \(--axes\)/, "--axes=n,z,spam"],
      ["packed.npz:x", "y.npy", /not the 2 axes.*\(--axes\)/, "--axes=n,features"],
      ["storms4.nc:U,V", "g.npy", /in this order \(--axes\)/, "--axes=lat,time,lon"],
      ["empty.h5", "y.npy", /declares 10 GB for x, but stores 0 bytes of it \(--inputs\)/],
      ["code.pt", "y.npy", /would execute code.*\(--inputs\)/],
      ["cut-sets.h5:x", "y.npy", /truncated.*\(--inputs\)/],
      ["cut-storms3.nc:U", "g.npy", /damaged.*\(--inputs\)/],
      ["cut-sets.parquet", "y.npy", /damaged.*\(--inputs\)/],
      ["cut-old.mat", "y.npy", /damaged.*\(--inputs\)/],
      ["cut-sets.safetensors:x", "y.npy", /damaged.*\(--inputs\)/],
      ["cut-packed.npz:x", "y.npy", /damaged.*\(--inputs\)/],
      ["absent.h5:x", "y.npy", /no file .*absent\.h5.*\(--inputs\)/],
      ["packed.npz:x", "packed.npz:y", /--r-in has no effect on sets/, "--r-in=3"],
    ];
    await refuses(
      cases.map(([inputs, targets, line, more]) => [
        flags([inputs, targets, ...(more === undefined ? [] : [more])]),
        line,
      ]),
      where,
    );
  });
});
