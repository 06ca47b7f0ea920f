/** Arrays of users: .npy files by NumPy's rules, of any size. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { connectWorker, openNpy, Tensor } from "../../src/index.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { atlas, LONG, ROOT, refuses, sharedWorker } from "../e2e/atlas.js";
import { readHere } from "../soak/files.js";

const GIB = 2 ** 30;

describe("arrays of users", function () {
  this.timeout(LONG);
  let dir: string;
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  let args: (inputs: string) => string[];
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-arrays-"));
    where = { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state") } };
    const { python } = await ensureVenv();
    execFileSync(python, [join(ROOT, "test/doors/arrays.py"), dir], { stdio: "pipe" });
    const address = await sharedWorker();
    args = (inputs) => [
      "discover",
      `--inputs=${inputs}`,
      "--targets=y.npy",
      "--task=discover_algebra",
      "--epochs=1",
      "--evidence=none",
      "--solver.starts=1",
      "--solver.steps=2",
      "--seed=0",
      `--worker=${address}`,
    ];
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  async function result(inputs: string): Promise<{ found: string; said: string }> {
    const { code, stdout, stderr } = await atlas([...args(inputs), "--json"], where);
    expect(code, `${inputs}: ${stderr}`).to.equal(0);
    const { timings: _, ...found } = JSON.parse(stdout);
    return { found: JSON.stringify(found), said: stderr };
  }

  it("give the same run, and several in a file that of the first", async () => {
    const { found } = await result("x.npy");
    const two = await result("two.npy");
    expect(two.found).to.equal(found);
    expect(two.said).to.match(/warning: .*two\.npy holds several arrays/);
  });

  it("hold the same numbers in every form", async () => {
    const values = async (name: string) => {
      const source = await openNpy(join(dir, `${name}.npy`));
      const parts: Uint8Array[] = [];
      for await (const part of source.parts(GIB)) parts.push(part);
      const bytes = new Uint8Array(Buffer.concat(parts));
      return [...Tensor.fromBytes(source.dtype, source.shape, bytes).data].map(Number);
    };
    const plain = await values("x");
    for (const name of [
      "big-endian",
      "big-endian-integers",
      "big-endian-doubles",
      "halves",
      "fortran",
      "version-2",
      "version-3",
    ])
      expect(await values(name), name).to.deep.equal(plain);
    expect(await values("unsigned")).to.deep.equal(await values("shifted"));
  });

  it("are refused with what to save instead", async () => {
    await refuses(
      [
        [args("complex.npy"), /complex numbers \(<c8\).*x\.real, x\.imag/],
        [args("long.npy"), /<f16.*astype\("float64"\)/],
        [args("texts.npy"), /<U8.*astype/],
        [args("objects.npy"), /Python objects, which are never loaded.*numpy\.stack/],
        [args("records.npy"), /records; save one field/],
        [args("too-large.npy"), /18446744073709551615 is too large for int64.*astype/],
        [args("cut.npy"), /cut\.npy is damaged: .* takes 98304 bytes, but the file has 98204/],
        [args("longer.npy"), /longer\.npy is damaged: .* takes 98304 bytes/],
        [args("absent.npy"), /absent\.npy.*check the path/],
        [args("too-many.npy"), /300,000 samples of inputs and 6 of targets/],
      ],
      where,
    );
  });

  it("beyond 2 GiB are read in parts, and never whole", async () => {
    const before = process.memoryUsage().rss;
    let [largest, bytes, last] = [before, 0, 0];
    const source = await openNpy(join(dir, "large.npy"));
    expect(source.byteLength).to.be.greaterThan(2 * GIB);
    for await (const part of source.parts(GIB / 16)) {
      bytes += part.byteLength;
      last = new Float32Array(part.buffer, part.byteOffset, part.byteLength / 4).at(-1)!;
      largest = Math.max(largest, process.memoryUsage().rss);
    }
    expect(bytes).to.equal(source.byteLength);
    expect(last).to.equal(7);
    expect(largest - before).to.be.lessThan(GIB);
  });

  it("are the same on the worker when they were sent in parts", async () => {
    const worker = await connectWorker({ worker: await sharedWorker() });
    try {
      const session = await worker.openSession({ device: "cpu" });
      for (const name of ["several-parts", "several-parts-fortran"]) {
        const inputs = await openNpy(join(dir, `${name}.npy`));
        expect(inputs.byteLength).to.be.greaterThan(GIB / 16);
        const arrays = { kind: "arrays", seed: 0, params: { outputs: 1 } } as const;
        const made = await session.createDataset({ ...arrays, tensors: { inputs } });
        for (const at of [0, 2_999, 4_199]) {
          const read = await session.readDataset(made, { start: at, count: 1 });
          expect(read.inputs.data.at(0), name).to.equal(at + 1);
          expect(read.inputs.data.at(-1), name).to.equal(at + 2);
        }
      }
      await session.close();
    } finally {
      await worker.close();
    }
  });

  for (const format of ["npy", "safetensors"] as const)
    it(`are read alike or refused: mutated ${format} files`, async () => {
      const { same, refused, faults } = await readHere(format, 300, 1);
      expect(faults).to.deep.equal({});
      expect(same + refused).to.equal(300);
      expect(same).to.be.greaterThan(0);
    });
});
