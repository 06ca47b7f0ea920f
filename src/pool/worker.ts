/** The pool that is one worker, named by `--worker`: all slots are sessions on it. */
import { connectWorker, type Place, placeOf } from "../worker/index.js";
import type { Pool, PoolOptions, Slot } from "./pool.js";

/** Slots that share a worker which runs already, or start a container for each run. */
export class WorkerPool implements Pool {
  readonly size: number;
  readonly place: Place;
  private taken = 0;

  constructor(
    readonly name: string,
    private readonly options: PoolOptions,
  ) {
    this.place = placeOf(name);
    this.size = options.wanted ?? 1;
  }

  async check(): Promise<void> {
    if (this.place === "spawned") return;
    const worker = await connectWorker({ ...this.options.worker, worker: this.name });
    await worker.close();
  }

  async acquire(): Promise<Slot> {
    const name = String(++this.taken);
    const { worker = {} } = this.options;
    const connect = ({ signal }: { signal?: AbortSignal }) =>
      connectWorker({ ...worker, worker: this.name, signal });
    return {
      name,
      about: this.name,
      run: this.place === "spawned" ? undefined : { pool: this.name, name, connect },
      release: async () => {},
    };
  }

  async close(): Promise<void> {}
}
