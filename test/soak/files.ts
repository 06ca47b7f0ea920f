/** Mutated files of every format that is read, here and by the worker. */
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { AtlasError } from "../../src/errors.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { readNpy, readSafetensors, type Tensor } from "../../src/tensor/index.js";

/** How the files of a format were read. */
export interface FilesRead {
  format: string;
  total: number;
  same: number;
  refused: number;
  /** Files with which the format's own library crashes or hangs too. */
  crashes: number;
  /** What else happened, each with the seed of a file that shows it. */
  faults: Record<string, number>;
  seconds: number;
  /** Largest resident memory of the process that read them. */
  peakMiB: number;
}

/** Formats that TypeScript reads, with their part of all cases. */
const HERE = {
  npy: [0.26, (bytes: Buffer) => new Map([["", readNpy(bytes)]])],
  safetensors: [0.16, (bytes: Buffer) => readSafetensors(bytes).tensors],
} as const;
type Here = keyof typeof HERE;

const BATCH = 5_000;

/** Read so many mutated files; the files follow from the seed. */
export async function measureFiles(cases: number, seed: number): Promise<FilesRead[]> {
  const read: FilesRead[] = [];
  for (const format of Object.keys(HERE) as Here[])
    read.push(await readHere(format, Math.max(1, Math.round(HERE[format][0] * cases)), seed));
  for (const line of (await python([String(cases), String(seed)])).trim().split("\n")) {
    const { format, same = 0, refused = 0, faults, seconds, ...rest } = JSON.parse(line);
    const [crashes, peakMiB] = [rest["crash of its library"] ?? 0, rest.peak_mib];
    const total = same + refused + crashes + (rest.fault ?? 0);
    read.push({ format, total, same, refused, crashes, faults, seconds, peakMiB });
  }
  return read;
}

/** Read mutated files here, and compare them with what NumPy and safetensors read. */
export async function readHere(format: Here, cases: number, seed: number): Promise<FilesRead> {
  const tally = { same: 0, refused: 0, crashes: 0 };
  const faults: Record<string, number> = {};
  const start = performance.now();
  let peak = 0;
  const folder = mkdtempSync(join(tmpdir(), "atlas-files-"));
  try {
    for (let from = 0; from < cases; from += BATCH) {
      const count = Math.min(BATCH, cases - from);
      const out = join(folder, "batch");
      await python(["--batch", format, String(count), String(seed + from), out]);
      const files = readFileSync(out);
      let at = 0;
      const lines = readFileSync(`${out}.jsonl`, "utf8").trim().split("\n");
      for (const [i, line] of lines.entries()) {
        const { bytes, holds } = JSON.parse(line) as { bytes: number; holds: unknown };
        const file = files.subarray(at, at + bytes);
        at += bytes;
        const found = attempt(format, file);
        if (found === undefined) tally.refused++;
        else if (found === JSON.stringify(holds)) tally.same++;
        else
          faults[
            found.startsWith("[") ? (holds ? "other values" : "its own library refuses it") : found
          ] ??= seed + from + i;
      }
      peak = Math.max(peak, process.memoryUsage().rss / 2 ** 20);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return {
    format: `${format}, by TypeScript`,
    total: cases,
    ...tally,
    faults,
    seconds: (performance.now() - start) / 1000,
    peakMiB: peak,
  };
}

/** Read a file. @returns its digest as mutated.py makes it; undefined if it was refused */
function attempt(format: Here, file: Buffer): string | undefined {
  try {
    const tensors = HERE[format][1](Buffer.from(file));
    const digests = [...tensors].map(([name, tensor]) => [name, tensor.shape, digest(tensor)]);
    return JSON.stringify(digests.sort(([a], [b]) => compareCodePoints(String(a), String(b))));
  } catch (error) {
    if (error instanceof AtlasError && error.exitCode === 2 && !error.message.includes("\n"))
      return undefined;
    return `${error instanceof Error ? error.name : ""}: ${String(error).split("\n")[0]}`;
  }
}

/** Python orders texts by code points, JavaScript by UTF-16. */
function compareCodePoints(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

function digest({ dtype, data }: Tensor): string {
  const md5 = createHash("md5");
  if (!dtype.startsWith("float")) return md5.update([...data].join(",")).digest("hex");
  const wide = Float64Array.from(data as Float32Array | Float64Array);
  const bits = new BigUint64Array(wide.buffer);
  for (const [i, x] of wide.entries()) if (Number.isNaN(x)) bits[i] = 0x7ff8000000000000n;
  return md5.update(Buffer.from(wide.buffer)).digest("hex");
}

async function python(args: readonly string[]): Promise<string> {
  const { python, workerDir } = await ensureVenv();
  const done = await execa(python, ["-m", "tests.numerics.mutated", ...args], {
    cwd: workerDir,
    env: { OMP_NUM_THREADS: "1" },
    stderr: "ignore",
    maxBuffer: 2 ** 26,
  });
  return done.stdout;
}
