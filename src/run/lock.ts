/** One process at a time works in a run folder. */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { link, readFile, rename, rm, unlink, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { UsageError } from "../errors.js";
import { errorCode, explainFileSystem } from "./atomic.js";

const Holder = z.object({
  pid: z.int(),
  host: z.string(),
  /** When that process started, as the system counts it: tells it from a later one with the same pid. */
  birth: z.string().optional(),
});
export type Holder = z.infer<typeof Holder>;

export interface Lock {
  release(): Promise<void>;
}

/**
 * Take the run's lock. A lock whose process is gone (kill -9, power cut) is taken over.
 *
 * @throws UsageError when a live process, or one on another machine, holds it.
 */
export async function acquireLock(folder: string): Promise<Lock> {
  const path = join(folder, "lock");
  const self: Holder = { pid: process.pid, host: hostname(), birth: birthOf(process.pid) };
  const temporary = join(folder, `.lock.${randomBytes(4).toString("hex")}.partial`);
  try {
    await writeFile(temporary, JSON.stringify(self), { flag: "wx" });
    for (let attempt = 0; attempt < 3; attempt++) {
      try {
        await link(temporary, path); // fails if there is one, and never shows a half-written one
        return { release: () => rm(path, { force: true }) };
      } catch (error) {
        if (errorCode(error) !== "EEXIST") throw error;
      }
      const holder = await readHolder(path);
      if (holder && isAlive(holder)) throw refuse(folder, path, holder);
      await removeStale(path, holder);
    }
    throw new UsageError(`another process is starting work in ${folder}`, "try again in a moment");
  } catch (error) {
    throw explainFileSystem(error, "write", path);
  } finally {
    await rm(temporary, { force: true }).catch(() => undefined);
  }
}

/** Who holds a run's lock, or undefined when nobody living does. */
export async function lockHolder(folder: string): Promise<Holder | undefined> {
  const holder = await readHolder(join(folder, "lock"));
  return holder && isAlive(holder) ? holder : undefined;
}

function refuse(folder: string, path: string, holder: Holder): UsageError {
  return holder.host === hostname()
    ? new UsageError(`process ${holder.pid} is working in ${folder}`, "wait until it is done, or stop it")
    : new UsageError(
        `process ${holder.pid} on ${holder.host} holds ${folder}`,
        `if it is no longer running there, delete ${path}`,
      );
}

/** Move a dead process's lock aside, unless another process did so first and the lock is now its own. */
async function removeStale(path: string, stale: Holder | undefined): Promise<void> {
  const aside = `${path}.${randomBytes(4).toString("hex")}.partial`;
  try {
    await rename(path, aside);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    throw error;
  }
  const moved = await readHolder(aside);
  if (JSON.stringify(moved) !== JSON.stringify(stale)) await link(aside, path).catch(() => undefined);
  await unlink(aside);
}

async function readHolder(path: string): Promise<Holder | undefined> {
  try {
    const parsed = Holder.safeParse(JSON.parse(await readFile(path, "utf8")));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}

function isAlive(holder: Holder): boolean {
  if (holder.host !== hostname()) return true; // cannot be known from here
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    return errorCode(error) === "EPERM";
  }
  const birth = birthOf(holder.pid);
  return birth === undefined || holder.birth === undefined || birth === holder.birth;
}

/** Start time of a process in clock ticks since boot (Linux; undefined elsewhere). */
function birthOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat
      .slice(stat.lastIndexOf(")") + 2) // the command's name may hold spaces
      .split(" ")[19];
  } catch {
    return undefined;
  }
}
