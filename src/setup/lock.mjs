/** Locks, which one process at a time holds. A lock is a file that names its holder. Plain Node. */
import { existsSync, readFileSync } from "node:fs";
import { link, readFile, rm, stat, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { errorCode, temporaryBeside, writeFileAtomic } from "./atomic.mjs";

/**
 * A process. `birth` is the time of its start, as the system counts it, which tells the process
 * from a later one with the same pid.
 *
 * @typedef {{pid: number, birth?: string}} Process
 */

/**
 * The holder of a lock. `child` is a command that the holder started.
 *
 * @typedef {Process & {host: string, child?: Process}} Holder
 */

/**
 * @typedef {object} Lock
 * @property {(pid: number) => Promise<void>} child records a command of the holder; never rejects
 * @property {() => Promise<void>} release
 */

/** Age in milliseconds at which a guard counts as abandoned. */
const GUARD_MS = 10_000;

/**
 * Take a lock. The lock of a process that has ended is taken over.
 *
 * @param {string} path of the lock, in an existing folder
 * @param {object} options
 * @param {(holder: Holder | undefined) => void | Promise<void>} options.onBusy called before each
 *   further attempt with the holder, or without one while a dead process's lock is taken over; it
 *   waits, or throws to give up
 * @param {(dead: Holder) => void} [options.onStale] called with the dead process whose lock is
 * removed
 * @returns {Promise<Lock>}
 */
export async function takeLock(path, { onBusy, onStale }) {
  /** @type {Holder} */
  const self = { pid: process.pid, host: hostname(), birth: birthOf(process.pid) };
  const temporary = temporaryBeside(path);
  try {
    await writeFile(temporary, JSON.stringify(self), { flag: "wx" });
    for (;;) {
      try {
        await link(temporary, path); // fails if the lock exists, and never shows a half-written one
        return held(path, self);
      } catch (error) {
        if (errorCode(error) !== "EEXIST") throw error;
      }
      const holder = await livingHolder(path);
      await onBusy(holder);
      if (holder === undefined) await removeStale(path, onStale);
    }
  } finally {
    await rm(temporary, { force: true }).catch(() => undefined);
  }
}

/**
 * Find the running process that holds a lock.
 *
 * @param {string} path
 * @returns {Promise<Holder | undefined>}
 */
export async function livingHolder(path) {
  const holder = await readHolder(path);
  return holder && mayLive(holder) ? holder : undefined;
}

/**
 * Whether a process is running on this machine. A zombie is not running.
 *
 * @param {Process} candidate
 */
export function isAlive({ pid, birth }) {
  let isOurs = true;
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (errorCode(error) !== "EPERM") return false;
    isOurs = false;
  }
  const found = statOf(pid);
  // The process has ended, unless this system hides processes, or those of other users.
  if (found === undefined)
    return !isOurs || existsSync(`/proc/${pid}`) || !existsSync("/proc/self");
  return !["Z", "X"].includes(found.state) && (birth === undefined || birth === found.birth);
}

/** Kill the command that a dead process left running. @param {Holder} dead */
export function killChild({ child }) {
  if (child === undefined || !isAlive(child)) return;
  try {
    process.kill(child.pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}

/** Make the handle of a lock. @param {string} path @param {Holder} self @returns {Lock} */
function held(path, self) {
  let written = Promise.resolve();
  return {
    child(pid) {
      const text = JSON.stringify({ ...self, child: { pid, birth: birthOf(pid) } });
      written = written
        .then(() => writeFileAtomic(path, text, { durable: false }))
        .catch(() => undefined); // on a full disk the command fails too, with its own message
      return written;
    },
    async release() {
      await written; // a later write would make a new lock
      await rm(path, { force: true });
    },
  };
}

/**
 * Remove a dead process's lock. A guard lets one process at a time do so, after another look at the
 * lock, so that a lock that another process has taken since is never moved.
 *
 * @param {string} path
 * @param {((dead: Holder) => void) | undefined} onStale
 */
async function removeStale(path, onStale) {
  const guard = `${path}.takeover.partial`;
  try {
    await writeFile(guard, "", { flag: "wx" });
  } catch (error) {
    if (errorCode(error) !== "EEXIST") throw error;
    const { mtimeMs } = await stat(guard).catch(() => ({ mtimeMs: Date.now() }));
    // The maker of the guard died within these few lines, or the clock was set back.
    if (Math.abs(Date.now() - mtimeMs) > GUARD_MS) await rm(guard, { force: true });
    return sleep(10 + Math.random() * 20);
  }
  try {
    const holder = await readHolder(path);
    if (holder && mayLive(holder)) return;
    if (holder) onStale?.(holder);
    await rm(path, { force: true });
  } finally {
    await rm(guard, { force: true });
  }
}

/**
 * Read a lock.
 *
 * @param {string} path
 * @returns {Promise<Holder | undefined>} undefined if it does not exist or is damaged
 */
async function readHolder(path) {
  let text;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(errorCode(error) ?? "")) return undefined;
    throw error;
  }
  try {
    const { host, child, ...self } = JSON.parse(text);
    if (typeof host !== "string" || !isProcess(self)) return undefined;
    return { ...self, host, ...(isProcess(child) ? { child } : {}) };
  } catch {
    return undefined;
  }
}

/** Whether a value describes a process. @param {unknown} value @returns {value is Process} */
function isProcess(value) {
  const { pid, birth } = /** @type {Record<string, unknown>} */ (value ?? {});
  // 0 and negative numbers stand for groups of processes.
  return (
    Number.isSafeInteger(pid) && Number(pid) > 0 && ["string", "undefined"].includes(typeof birth)
  );
}

/**
 * Whether a holder may be running. On another machine that cannot be known.
 *
 * @param {Holder} holder
 */
function mayLive(holder) {
  return holder.host !== hostname() || isAlive(holder);
}

/** Get the start of a process. @param {number} pid */
function birthOf(pid) {
  return statOf(pid)?.birth;
}

/** Get a process's state and start in clock ticks since boot (Linux only). @param {number} pid */
function statOf(pid) {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" "); // the name may hold spaces
    return { state: fields[0] ?? "", birth: fields[19] };
  } catch {
    return undefined;
  }
}
