/** The lock of a run folder, in which one process at a time may work. */
import { hostname } from "node:os";
import { join } from "node:path";
import { UsageError } from "../errors.js";
import { type Lock as HeldLock, type Holder, livingHolder, takeLock } from "../setup/lock.mjs";
import { explainFileSystem } from "./atomic.js";

export type { Holder };
/** A lock that this process holds. */
export type Lock = Pick<HeldLock, "release">;

/** Number of attempts to take over a dead process's lock, while others try the same. */
const ATTEMPTS = 100;

/**
 * Take the lock of a run. The lock of a process that has ended is taken over.
 *
 * @throws UsageError if a running process, or one on another machine, holds it
 */
export async function acquireLock(folder: string): Promise<Lock> {
  const path = join(folder, "lock");
  let attempts = 0;
  try {
    return await takeLock(path, {
      onBusy(holder) {
        if (holder) throw refuse(folder, path, holder);
        if (++attempts >= ATTEMPTS)
          throw new UsageError(
            `another process is starting work in ${folder}`,
            "try again in a moment",
          );
      },
    });
  } catch (error) {
    throw explainFileSystem(error, "write", path);
  }
}

/** Find the running process that holds a run's lock. @returns undefined if there is none */
export function lockHolder(folder: string): Promise<Holder | undefined> {
  return livingHolder(join(folder, "lock")).catch(() => undefined); // the lock cannot be read
}

function refuse(folder: string, path: string, holder: Holder): UsageError {
  return holder.host === hostname()
    ? new UsageError(
        `process ${holder.pid} is working in ${folder}`,
        "wait until it is done, or stop it",
      )
    : new UsageError(
        `process ${holder.pid} on ${holder.host} holds ${folder}`,
        `if it is no longer running there, delete ${path}`,
      );
}
