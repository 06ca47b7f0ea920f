/** One process at a time works in a run folder. */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { link, readFile, rm, stat, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
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
    for (let attempt = 0; attempt < 100; attempt++) {
      try {
        await link(temporary, path); // fails if there is one, and never shows a half-written one
        return { release: () => rm(path, { force: true }) };
      } catch (error) {
        if (errorCode(error) !== "EEXIST") throw error;
      }
      const holder = await readHolder(path);
      if (holder && isAlive(holder)) throw refuse(folder, path, holder);
      await removeStale(path);
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

/**
 * Remove a dead process's lock. One at a time, and only after looking again under a guard: a lock that another process took meanwhile is never
 * moved, not even for a moment.
 */
async function removeStale(path: string): Promise<void> {
  const guard = `${path}.takeover.partial`;
  try {
    await writeFile(guard, "", { flag: "wx" });
  } catch (error) {
    if (errorCode(error) !== "EEXIST") throw error;
    const { mtimeMs } = await stat(guard).catch(() => ({ mtimeMs: Date.now() }));
    // Its maker died within these few lines, or the clock was set back by so much.
    if (Math.abs(Date.now() - mtimeMs) > GUARD_MS) await rm(guard, { force: true });
    return sleep(10 + Math.random() * 20);
  }
  try {
    const holder = await readHolder(path);
    if (!(holder && isAlive(holder))) await rm(path, { force: true });
  } finally {
    await rm(guard, { force: true });
  }
}

/** Age at which a guard is taken for left behind, in milliseconds. */
const GUARD_MS = 10_000;

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
