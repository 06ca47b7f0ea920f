/** Give runs to the slots of a pool: each slot takes the next run when it has finished one. */
import { setMaxListeners } from "node:events";
import { WorkerDied, WorkerUnavailable } from "../errors.js";
import type { Pool, Slot } from "./pool.js";

/** How often a run may lose its slot before it counts as failed: it may be what ends the worker. */
const MOST_LOSSES = 3;

/** Options of {@link schedule}. `T` is a run. */
export interface ScheduleOptions<T> {
  pool: Pool;
  /** Most slots at a time (default: the pool's). */
  slots?: number;
  /** How often a failed run is tried again (default 0). */
  retries?: number;
  /** Whether the first failure stops the others. */
  failFast?: boolean;
  signal: AbortSignal;
  /** Do a run in a slot. It must stop soon after the signal. */
  work(item: T, slot: Slot, signal: AbortSignal): Promise<void>;
  /** Called when a slot serves, when it is lost, and when it is given back. */
  onSlot?(slot: Slot): void;
  onLost?(slot: Slot, item: T, error: Error): void;
  onFreed?(slot: Slot): void;
  /** Called when the pool gives fewer slots than wanted. */
  onFewer?(error: Error): void;
  /** Called after a failed attempt that is repeated, and after the last one. */
  onRetry?(item: T, error: Error): void;
  onFailed?(item: T, error: Error): void;
}

/**
 * Do runs in the slots of a pool. A slot whose worker has died is replaced, and its run done again.
 *
 * @returns the runs that failed, with their errors
 * @throws the pool's error if it has no slot left for the remaining runs; the error of `work` for a
 *   fault that is not the run's own
 */
export async function schedule<T>(
  items: readonly T[],
  options: ScheduleOptions<T>,
): Promise<Map<T, Error>> {
  const { pool, signal, work, retries = 0, failFast = false } = options;
  const stop = new AbortController();
  setMaxListeners(0, stop.signal);
  const onAbort = () => stop.abort(signal.reason);
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort, { once: true });
  const queue = [...items].reverse(); // the next one is the last
  const failed = new Map<T, Error>();
  const attempts = new Map<T, { losses: number; failures: number }>();
  let serving = 0;
  let fatal: unknown;

  /** @returns whether the slot is lost */
  const attempt = async (item: T, slot: Slot): Promise<boolean> => {
    const past = attempts.get(item) ?? { losses: 0, failures: 0 };
    try {
      await work(item, slot, stop.signal);
      attempts.delete(item);
      return false;
    } catch (error) {
      if (stop.signal.aborted) return false;
      const why = error instanceof Error ? error : new Error(String(error));
      const lost = error instanceof WorkerDied || error instanceof WorkerUnavailable;
      if (lost) past.losses++;
      else past.failures++;
      attempts.set(item, past);
      if (lost && past.losses < MOST_LOSSES) {
        options.onLost?.(slot, item, why);
        queue.push(item);
      } else if (!lost && past.failures <= retries) {
        options.onRetry?.(item, why);
        queue.push(item);
      } else {
        failed.set(item, why);
        options.onFailed?.(item, why);
        if (failFast) stop.abort(why);
      }
      return lost;
    }
  };

  const serve = async (): Promise<void> => {
    while (queue.length > 0 && !stop.signal.aborted) {
      let slot: Slot;
      try {
        slot = await pool.acquire(stop.signal);
      } catch (error) {
        if (stop.signal.aborted) return;
        if (serving > 1) return options.onFewer?.(error as Error);
        throw error;
      }
      options.onSlot?.(slot);
      try {
        for (let item = queue.pop(); item !== undefined; item = queue.pop()) {
          const lost = await attempt(item, slot);
          if (lost || stop.signal.aborted) break;
        }
      } finally {
        options.onFreed?.(slot);
        await slot.release();
      }
    }
  };

  const slots = Math.min(options.slots ?? pool.size, pool.size, items.length);
  try {
    await Promise.all(
      Array.from({ length: slots }, async () => {
        serving++;
        try {
          await serve();
        } catch (error) {
          fatal ??= error;
          stop.abort(error);
        } finally {
          serving--;
        }
      }),
    );
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
  if (fatal !== undefined) throw fatal;
  return failed;
}
