/**
 * Pools whose slots are jobs of a cluster: Ray and Slurm. A job is an ordinary worker. It prints
 * where it serves, serves many runs, and ends by itself once nobody uses it.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { AtlasError, UsageError, WorkerDied, WorkerUnavailable } from "../errors.js";
import { connectLocal } from "../worker/index.js";
import type { LocalProcess } from "../worker/local.js";
import { PYTHON_MODULE, parseReady, type Ready, serveArguments } from "../worker/process.js";
import { threadsInWords } from "./local.js";
import type { Pool, PoolOptions, Slot } from "./pool.js";
import { installation, type Keys, quote, readKeys, type TokenFile, writeToken } from "./remote.js";

/** What a job needs. */
export interface Need {
  threads: number;
  gpus: number;
}

/** The state of a job. */
export interface JobState {
  state: "waiting" | "running" | "ended";
  /** In the cluster's words. */
  said: string;
}

/** A cluster that runs jobs. */
export interface Cluster {
  /** Find how many jobs fit in the whole cluster. @throws WorkerUnavailable, UsageError */
  room(need: Need): Promise<number>;
  /** Submit a command. @returns the id of the job */
  submit(command: string, need: Need): Promise<string>;
  stateOf(id: string): Promise<JobState>;
  /** Read what a job has written. */
  logOf(id: string): Promise<string>;
  /** Stop a job, whatever its state, and forget it. */
  stop(id: string): Promise<void>;
  /** Remove what was made here for the jobs. */
  close?(): Promise<void>;
}

/** Seconds in which a session of a lost client ends, and a worker without sessions. */
const LEASE_SECONDS = 30;
const IDLE_SECONDS = 20;
/** Shell variable with the address of the node. */
const NODE = "ATLAS_NODE";
/** Milliseconds between two questions about a job. */
const POLL_MS = 500;
/** Milliseconds between two questions about a job that serves. */
const WATCH_MS = 5_000;
/** Seconds for which a job may wait for a place, and then start. A queued job may wait for ever. */
const DEADLINE_SECONDS = 180;

/** A pool of jobs. */
export class JobPool implements Pool {
  readonly place = "loopback"; // paths are those of this machine where they exist here
  readonly threads: number;
  private readonly need: Need;
  private readonly jobs = new Set<Job>();
  private readonly names = new Set<number>();
  private token: TokenFile | undefined;

  private constructor(
    readonly name: string,
    readonly size: number,
    private readonly cluster: Cluster,
    private readonly keys: Keys | undefined,
    private readonly options: PoolOptions,
  ) {
    this.need = needOf(options);
    this.threads = this.need.threads;
  }

  /**
   * Open the pool. It has as many slots as the cluster has room for.
   *
   * @throws WorkerUnavailable if the cluster cannot be reached
   * @throws UsageError if it refuses the token, or has no room
   */
  static async open(name: string, cluster: Cluster, options: PoolOptions): Promise<JobPool> {
    const need = needOf(options);
    const room = await cluster.room(need);
    if (room < 1)
      throw new UsageError(
        `the pool ${name} has no room for a worker of ${threadsInWords(need.threads)}` +
          `${need.gpus > 0 ? " and a GPU" : ""}`,
        "ask for fewer --threads, or choose another pool",
      );
    return new JobPool(name, room, cluster, await readKeys(), options);
  }

  async acquire(signal: AbortSignal): Promise<Slot> {
    let index = 1;
    while (this.names.has(index)) index++;
    this.names.add(index);
    try {
      const job = await this.start(signal);
      const name = String(index);
      return {
        name,
        about: `job ${job.id}, ${threadsInWords(this.threads)}`,
        run: {
          ...{ pool: this.name, name },
          connect: (options) =>
            connectLocal(job.process, { ...options, tls: this.keys?.access.tls }),
        },
        release: async () => {
          await job.close();
          this.jobs.delete(job);
          this.names.delete(index);
        },
      };
    } catch (error) {
      this.names.delete(index);
      throw error;
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.jobs].map((job) => job.close()));
    await this.token?.remove();
    await this.cluster.close?.();
  }

  private async start(signal: AbortSignal): Promise<Job> {
    const { keys } = this;
    this.token ??= keys ? undefined : writeToken();
    const access = keys ? { host: NODE, ...keys.serve } : { tokenFile: this.token!.path };
    const { trustCode, worker = {} } = this.options;
    const { python, workerDir } = await installation();
    const serve = serveArguments({
      ...{ threads: this.threads, device: worker.device, trustCode, dataRoot: "/" },
      ...{ ...access, lease: LEASE_SECONDS, idle: IDLE_SECONDS },
    });
    const words = [python, ...PYTHON_MODULE, ...serve]
      .map((word) => (word.startsWith(`${NODE}:`) ? `"$${word}"` : quote(word)))
      .join(" ");
    const address = keys ? `${NODE}=$(hostname -I | cut -d " " -f 1) && ` : "";
    const command = `${address}cd ${quote(workerDir)} && PYTHONUNBUFFERED=1 exec ${words}`;
    const id = await this.cluster.submit(command, this.need);
    try {
      const ready = await this.served(id, signal);
      const job = new Job(id, ready, keys?.access.token ?? this.token?.token ?? "", this.cluster);
      this.jobs.add(job);
      return job;
    } catch (error) {
      await this.cluster.stop(id).catch(() => undefined);
      throw error;
    }
  }

  /** Wait until a job serves. @throws WorkerUnavailable after the deadline, or if it ends */
  private async served(id: string, signal: AbortSignal): Promise<Ready> {
    const seconds = Number(process.env.ATLAS_POOL_DEADLINE) || DEADLINE_SECONDS;
    const end = performance.now() + seconds * 1000;
    for (;;) {
      signal.throwIfAborted();
      const { state, said } = await this.cluster.stateOf(id);
      const log = state === "waiting" ? "" : await this.cluster.logOf(id);
      const ready = log.split("\n").map(parseReady).find(Boolean);
      if (ready) return ready;
      if (state === "ended")
        throw new WorkerUnavailable(
          `the job ${id} ended before it served (${said})${lastLine(log)}`,
          "Atlas must be set up on the nodes (ATLAS_REMOTE names its folder)",
        );
      if (performance.now() > end)
        throw new WorkerUnavailable(
          `the job ${id} did not serve within ${seconds} s (${said})`,
          "the cluster may be full; ATLAS_POOL_DEADLINE gives another number of seconds",
        );
      await sleep(POLL_MS, undefined, { signal }).catch(() => undefined);
    }
  }
}

/** A job that serves. Its end is noticed. */
class Job {
  readonly process: LocalProcess;
  private readonly gone = new AbortController();
  private timer: NodeJS.Timeout | undefined;
  private closed = false;

  constructor(
    readonly id: string,
    ready: Ready,
    token: string,
    private readonly cluster: Cluster,
  ) {
    this.process = {
      ...{ address: ready.address, pid: ready.pid, token, gone: this.gone.signal },
      explain: async (error) => {
        if (error instanceof WorkerUnavailable) await this.look();
        return this.gone.signal.aborted ? this.gone.signal.reason : error;
      },
      close: () => this.close(),
    };
    this.watch();
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    clearTimeout(this.timer);
    this.gone.abort(new AtlasError("the worker was stopped"));
    await this.cluster.stop(this.id).catch(() => undefined); // it ends by itself when it is idle
  }

  private watch(): void {
    this.timer = setTimeout(async () => {
      await this.look();
      if (!this.closed && !this.gone.signal.aborted) this.watch();
    }, WATCH_MS);
    this.timer.unref();
  }

  private async look(): Promise<void> {
    const found = await this.cluster.stateOf(this.id).catch(() => undefined);
    if (found?.state !== "ended") return; // the cluster may only be out of reach for a while
    const log = await this.cluster.logOf(this.id).catch(() => "");
    this.gone.abort(
      new WorkerDied(`the worker of job ${this.id} ended (${found.said})${lastLine(log)}`, log),
    );
  }
}

function needOf({ worker: { threads = 1, device = "auto" } = {} }: PoolOptions): Need {
  return { threads, gpus: device.startsWith("cuda") ? 1 : 0 };
}

function lastLine(log: string): string {
  const line = log.trim().split("\n").at(-1) ?? "";
  return line === "" ? "" : `: ${line.slice(0, 300)}`;
}
