/**
 * Pools: where the workers of many runs come from. A pool gives slots. A slot is an ordinary worker
 * that serves one run after the other.
 */
import { UsageError } from "../errors.js";
import type { RunSlot, WorkerChoice } from "../experiment/runner.js";
import { choices } from "../suggest.js";
import type { Place } from "../worker/index.js";

/** A place where one run at a time computes. */
export interface Slot {
  /** Name in the pool: "1", or with the host "gpu-box/1". */
  readonly name: string;
  /** What it is, for the display: "cpu, 1 thread". */
  readonly about: string;
  /** How a run gets its worker; undefined if each run starts one, in a container. */
  readonly run?: RunSlot;
  /** Give the slot back. Its worker ends. */
  release(): Promise<void>;
}

/** A source of slots. */
export interface Pool {
  /** As the user named it: "local:2". */
  readonly name: string;
  /** The most slots. */
  readonly size: number;
  /** Where its workers are, for the paths of files. */
  readonly place: Place;
  /** CPU threads of each slot, if the pool decides them. */
  readonly threads?: number;
  /**
   * Check that the pool can be reached, before a sweep is written.
   *
   * @throws UsageError, WorkerUnavailable
   */
  check?(): Promise<void>;
  /**
   * Get a slot, and wait until its worker serves.
   *
   * @throws WorkerUnavailable if there is none within the pool's own deadline
   * @throws the signal's reason if aborted
   */
  acquire(signal: AbortSignal): Promise<Slot>;
  /** End all workers, and give everything back. */
  close(): Promise<void>;
}

/** Options of {@link openPool}. */
export interface PoolOptions {
  /** What the user said of workers: device, threads, credentials. */
  worker?: WorkerChoice;
  /** Whether the workers execute code that runs name. */
  trustCode?: boolean;
  /** Slots that the sweep can use (default: the pool's). */
  wanted?: number;
  /** Called with lines about the pool. */
  onInfo?: (line: string) => void;
  /** Called with each line that a worker writes. */
  onLog?: (line: string) => void;
}

/** Kinds of pools, and how each is written. */
const KINDS = {
  local: "local:N",
  ssh: "ssh:HOST,HOST",
  slurm: "slurm:PARTITION",
  ray: "ray:http://HOST:8265",
} as const;

/** Everything that `--pool` accepts, in words. */
export const POOLS = Object.values(KINDS).join(", ");

/**
 * Open a pool. Its workers are started when slots are acquired.
 *
 * @param name "local:2", …; undefined for the worker that `options.worker` names
 * @throws UsageError if there is no such pool, or it cannot serve
 */
export async function openPool(name: string | undefined, options: PoolOptions): Promise<Pool> {
  const address = options.worker?.address ?? "local";
  if (name === undefined) {
    const { LocalPool } = await import("./local.js");
    const { WorkerPool } = await import("./worker.js");
    return address === "local"
      ? LocalPool.open("local:1", options)
      : new WorkerPool(address, options);
  }
  if (address !== "local")
    throw new UsageError(
      `--pool ${name} starts its own workers, and --worker ${address} names another`,
      "give one of them",
    );
  const [, kind = name] = /^([a-z]+)(?::|$)/i.exec(name) ?? [];
  switch (kind) {
    case "local":
      return (await import("./local.js")).LocalPool.open(name, options);
    case "ssh":
      return (await import("./ssh.js")).SshPool.open(name, options);
    case "ray": {
      const { RayCluster } = await import("./ray.js");
      const { JobPool } = await import("./jobs.js");
      return JobPool.open(name, await RayCluster.open(name), options);
    }
    case "slurm": {
      const { SlurmCluster } = await import("./slurm.js");
      const { JobPool } = await import("./jobs.js");
      return JobPool.open(name, SlurmCluster.open(name), options);
    }
    default:
      throw new UsageError(
        `there is no pool ${JSON.stringify(name)}`,
        `choose ${choices(kind, Object.values(KINDS))}`,
        { setting: "pool" },
      );
  }
}
