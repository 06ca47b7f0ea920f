/**
 * `npm run bench -- gpu [DEVICE]`: everything that a GPU is used for, beside what the device can do.
 * It takes under 8 minutes. Without a GPU, all of it runs in miniature on the CPU.
 */
import { execa } from "execa";
import { Tensor } from "../../src/index.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { connectWorker } from "../../src/worker/index.js";
import { n, type Part, part, type Row } from "../benchmark-parts.js";
import { runPython } from "./python.js";
import { median } from "./statistics.js";

/** Something that was repeated on the device. */
interface Work {
  seconds: number;
  flops: number;
  bytes: number;
  /** The time that its work takes at the limits of the device, over its time. */
  roofline_share: number;
  compute_share: number;
  samples_per_second?: number;
  /** Seconds of the published budget, extrapolated. */
  published_seconds?: number;
}

/** A part of gpu.py; one that fails has an error in place of works. */
type Works = Record<string, Work> | { error: string };

/** What gpu.py prints. */
export interface DeviceCost {
  device: string;
  /** Name of the GPU. */
  name?: string;
  /** Whether it was measured in miniature. */
  small: boolean;
  roofline: {
    flops: number;
    bandwidth: number;
    host_to_device: number;
    pinned_to_device?: number;
  };
  predictors: Works;
  schedule: Work | { error: string };
  solvers: Works;
  downstream: Works;
}

/** How fast tensors come from a client to the device. */
export interface Transfer {
  mebibytes: number;
  gigabytesPerSecond: number;
}

/** The tests that need a GPU. */
export interface GpuTests {
  /** The last line of pytest. */
  summary: string;
  passed: boolean;
}

/** The parts of the benchmark. */
export function gpuParts([device]: readonly string[] = []): Record<string, Part> {
  return {
    device: part(() => measureDevice(device), deviceRows),
    transfer: part(
      () => measureTransfer(device),
      (found) =>
        found.map(({ mebibytes, gigabytesPerSecond }) => [
          `tensor of ${mebibytes} MiB from a client to the device, ZeroMQ`,
          `${n(gigabytesPerSecond)} GB/s`,
          "checked for NaN on the way",
        ]),
    ),
    tests: part(runGpuTests, ({ summary, passed }) => [
      ['pytest -k "cuda or gpu"', passed ? "passed" : "FAILED", summary],
    ]),
  };
}

/** Measure the numerics on a device (default: the GPU; the CPU, in miniature, if there is none). */
export function measureDevice(device?: string, threads?: number): Promise<DeviceCost> {
  return runPython("gpu.py", [
    ...(device === undefined ? [] : ["--device", device]),
    ...(threads === undefined ? [] : ["--threads", String(threads)]),
  ]);
}

const percent = (share: number) => `${n(100 * share, 2)} %`;

/** Seconds in words, as far as a table wants them. */
function duration(seconds: number): string {
  if (seconds < 120) return `${n(seconds)} s`;
  return seconds < 7200 ? `${n(seconds / 60)} min` : `${n(seconds / 3600)} h`;
}

function deviceRows(found: DeviceCost): Row[] {
  const { flops, bandwidth, host_to_device: host, pinned_to_device: pinned } = found.roofline;
  const where = found.name ?? found.device;
  const rows: Row[] = [
    [
      `matrix product, float32, on ${where}`,
      `${n(flops / 1e9)} GFLOP/s`,
      found.small ? "all in miniature: the numbers only say that it works" : undefined,
    ],
    ["copy on the device, read and written", `${n(bandwidth / 1e9)} GB/s`],
    [
      "copy to the device",
      `${n(host / 1e9)} GB/s`,
      pinned === undefined ? undefined : `from pinned memory ${n(pinned / 1e9)} GB/s`,
    ],
  ];
  const add = (what: string, works: Works | Work) => {
    if ("error" in works) rows.push([what, "failed", String(works.error)]);
    else if ("flops" in works) rows.push(workRow(what, works as Work));
    else for (const [name, work] of Object.entries(works)) add(`${what} ${name}`, work);
  };
  add("training the predictor", found.predictors);
  add("published basis pass", found.schedule);
  add("search for", found.solvers);
  add("downstream", found.downstream);
  return rows;
}

function workRow(what: string, work: Work): Row {
  const { seconds, samples_per_second: rate, published_seconds: published } = work;
  return [
    what,
    rate === undefined ? duration(seconds) : `${n(rate)} samples/s`,
    [
      `${percent(work.roofline_share)} of the roofline`,
      `${percent(work.compute_share)} of the product's rate`,
      ...(published === undefined ? [] : [`published budget ${duration(published)}, extrapolated`]),
    ].join(", "),
  ];
}

/** Time tensors from this process to a session's device, as a dataset. */
export async function measureTransfer(device = "auto", threads?: number): Promise<Transfer[]> {
  const worker = await connectWorker({ device, threads });
  try {
    const session = await worker.openSession({ device });
    const found: Transfer[] = [];
    for (const mebibytes of session.device === "cpu" ? [1] : [16, 256]) {
      const samples = mebibytes * 4;
      const { buffer } = new Float32Array(samples * 2 ** 16).map(Math.random);
      const inputs = Tensor.fromBytes("float32", [samples, 1, 256, 256], new Uint8Array(buffer));
      const seconds: number[] = [];
      for (let round = 0; round < 4; round++) {
        const start = performance.now();
        const tensors = { inputs };
        const params = { outputs: 1 };
        const dataset = await session.createDataset({ kind: "arrays", seed: 0, tensors, params });
        if (round > 0) seconds.push((performance.now() - start) / 1000);
        await session.delete(dataset);
      }
      const gigabytesPerSecond = inputs.bytes.byteLength / 1e9 / median(seconds);
      found.push({ mebibytes, gigabytesPerSecond });
    }
    return found;
  } finally {
    await worker.close();
  }
}

/** Run the worker's tests that need a GPU, which skip themselves without one. */
export async function runGpuTests(): Promise<GpuTests> {
  const { python, workerDir } = await ensureVenv();
  const args = ["-m", "pytest", "-q", "-k", "cuda or gpu", "-p", "no:cacheprovider"];
  const options = { cwd: workerDir, reject: false, timeout: 150_000, stdin: "ignore" } as const;
  const { stdout, exitCode } = await execa(python, args, options);
  const summary = stdout.trimEnd().split("\n").at(-1) ?? "";
  return { summary, passed: exitCode === 0 };
}
