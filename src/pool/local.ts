/** The pool `local:N`: N workers on this machine, which share its threads and devices. */
import { readFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import { UsageError, WorkerUnavailable } from "../errors.js";
import { connectLocal, startLocal } from "../worker/index.js";
import type { LocalProcess } from "../worker/local.js";
import { hasNvidiaDriver } from "../worker/process.js";
import type { Pool, PoolOptions, Slot } from "./pool.js";

/** Bytes of memory that a worker takes before it has any data. */
const WORKER_BYTES = 350e6;

/** Workers on this machine. */
export class LocalPool implements Pool {
  readonly place = "spawned";
  private readonly workers = new Map<number, LocalProcess>();
  private readonly taken = new Set<number>();

  private constructor(
    readonly name: string,
    readonly size: number,
    readonly threads: number | undefined,
    private readonly options: PoolOptions,
  ) {}

  /**
   * Open the pool. The threads of the machine are divided among the slots, unless the user gives
   * the threads of each.
   *
   * @throws UsageError if the name is wrong, or the machine has no room
   */
  static open(name: string, options: PoolOptions): LocalPool {
    const [, text = "1"] = /^local(?::(\d+))?$/.exec(name) ?? [];
    const size = Number(text);
    if (!/^local(:\d+)?$/.test(name) || size < 1)
      throw new UsageError(
        `--pool ${name}: the number of slots is missing`,
        "write local:N, for example local:2",
      );
    const wanted = Math.min(size, options.wanted ?? size);
    const free = process.availableMemory?.() ?? Number.POSITIVE_INFINITY;
    const room = Math.floor(free / WORKER_BYTES);
    if (wanted > Math.max(1, room))
      throw new UsageError(
        `--pool ${name}: this machine has no room for ${wanted} workers; its free memory is ` +
          `enough for ${room}`,
        "ask for fewer slots",
      );
    const cores = physicalCores();
    if (wanted > cores)
      options.onInfo?.(`${wanted} slots share ${cores} processors: more slots are not faster`);
    // A single slot leaves the number to the worker, as a run alone does.
    const share = size === 1 ? undefined : Math.max(1, Math.floor(cores / size));
    return new LocalPool(name, size, options.worker?.threads ?? share, options);
  }

  async acquire(signal: AbortSignal): Promise<Slot> {
    const index = this.free();
    this.taken.add(index);
    try {
      const { worker: choice = {}, trustCode, onInfo: onSetup, onLog } = this.options;
      const { device = "auto", logLevel } = choice;
      const { threads } = this;
      const started = await startLocal({
        ...{ device, threads, trustCode, logLevel },
        ...{ onLog, onSetup, signal },
      });
      this.workers.set(index, started);
      const own = await this.deviceOf(index, started, signal);
      const about = [own ?? (device === "auto" ? "" : device), threadsInWords(threads)];
      return {
        name: String(index + 1),
        about: about.filter(Boolean).join(", "),
        run: {
          pool: this.name,
          name: String(index + 1),
          device: own,
          connect: (options) => connectLocal(started, options),
        },
        release: async () => {
          await started.close();
          this.workers.delete(index);
          this.taken.delete(index);
        },
      };
    } catch (error) {
      this.taken.delete(index);
      throw error;
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.workers.values()].map((worker) => worker.close()));
  }

  private free(): number {
    for (let index = 0; index < this.size; index++) if (!this.taken.has(index)) return index;
    throw new WorkerUnavailable(`the pool ${this.name} has no free slot`);
  }

  /** Choose the GPU of a slot, if there are any and the user named none: each in its turn. */
  private async deviceOf(
    index: number,
    started: LocalProcess,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const { device = "auto" } = this.options.worker ?? {};
    if (!["auto", "cuda"].includes(device) || !hasNvidiaDriver()) return undefined;
    const worker = await connectLocal(started, { signal });
    try {
      const gpus = worker.info.devices.filter(({ name }) => name.startsWith("cuda"));
      return gpus.length < 2 ? undefined : gpus[index % gpus.length]!.name;
    } finally {
      await worker.close();
    }
  }
}

/**
 * Count the physical cores that this process may use, as the worker does: hyper-threads count once,
 * and a container's quota is respected.
 */
function physicalCores(): number {
  const allowed = availableParallelism();
  const siblings = new Set<string>();
  for (let cpu = 0; cpu < cpus().length; cpu++)
    siblings.add(
      read(`/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`) ?? `${cpu}`,
    );
  const [quota, period] = (read("/sys/fs/cgroup/cpu.max") ?? "max").split(" ").map(Number);
  const paid = quota && period ? Math.max(1, Math.floor(quota / period)) : allowed;
  return Math.max(1, Math.min(allowed, siblings.size, paid));
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined; // not Linux
  }
}

/** Write a number of threads: "1 thread". */
export function threadsInWords(threads: number | undefined): string {
  return threads === undefined ? "" : `${threads} thread${threads === 1 ? "" : "s"}`;
}
