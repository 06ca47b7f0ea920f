/** What the set-up steps share: where things are, running a command, one set-up at a time, one clear line when it fails. Plain Node. */
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { link, mkdir, rename, rm, unlink, writeFile } from "node:fs/promises";
import { hostname, setPriority } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** The package's top folder: this file is in src/setup/, or compiled in dist/src/setup/. */
export const ROOT = fileURLToPath(
  new URL(
    existsSync(new URL("../../package.json", import.meta.url)) ? "../../" : "../../../",
    import.meta.url,
  ),
);
export const WORKER = join(ROOT, "py-worker");
/** Whether this is a clone, which can generate stubs and compile; the packed package leaves tsconfig.build.json out. */
export const IS_CLONE = existsSync(join(ROOT, "tsconfig.build.json"));

/** A set-up step that failed: what, and what to do. */
export class SetupFailure extends Error {
  /**
   * @param {string} message
   * @param {string} [remedy]
   */
  constructor(message, remedy) {
    super(message);
    this.remedy = remedy;
  }
}

/**
 * Run a command to its end, without standard input.
 *
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{cwd?: string, env?: NodeJS.ProcessEnv, onLine?: (line: string) => void, onPid?: (pid: number) => void}} [options]
 * @returns {Promise<{code: number, lines: string[]}>} exit code (127 when it cannot be started) and its last 200 lines
 */
export function execute(command, args, { cwd, env, onLine, onPid } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, env: env ?? process.env, stdio: ["ignore", "pipe", "pipe"] });
    if (child.pid !== undefined) onPid?.(child.pid);
    /** @type {string[]} */
    const lines = [];
    const take = (/** @type {string} */ line) => {
      if (line.trim() === "") return;
      lines.push(line);
      if (lines.length > 200) lines.shift();
      onLine?.(line);
    };
    const flushers = [child.stdout, child.stderr].map((stream) => {
      let rest = "";
      stream.setEncoding("utf8").on("data", (chunk) => {
        const parts = `${rest}${chunk}`.split(/\r\n|\n|\r/);
        rest = parts.pop() ?? "";
        parts.forEach(take);
      });
      return () => take(rest);
    });
    child.on("error", (error) => resolve({ code: 127, lines: [error.message] }));
    child.on("close", (code) => {
      for (const flush of flushers) flush();
      resolve({ code: code ?? 1, lines });
    });
  });
}

/**
 * Run a command in the foreground; Ctrl-C goes to it, and its exit code comes back.
 *
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{cwd?: string, env?: NodeJS.ProcessEnv, output?: number, niceness?: number}} [options] output: a file descriptor for all it prints,
 *   instead of ours; niceness: 1 to 19, for what may wait
 * @returns {Promise<number>}
 */
export function foreground(command, args, { cwd = ROOT, env, output, niceness } = {}) {
  return new Promise((resolve) => {
    const stdio = output === undefined ? "inherit" : [/** @type {const} */ ("ignore"), output, output];
    const child = spawn(command, args, { cwd, env: env ?? process.env, stdio });
    if (niceness !== undefined && child.pid !== undefined) setPriority(child.pid, niceness);
    const ignore = () => {}; // the terminal signals the whole group; we wait for the child to end
    const forward = () => void child.kill("SIGTERM");
    process.on("SIGINT", ignore).on("SIGTERM", forward);
    const done = (/** @type {number} */ code) => {
      process.off("SIGINT", ignore).off("SIGTERM", forward);
      resolve(code);
    };
    child.on("error", (error) => {
      process.stderr.write(`error: cannot run ${command}: ${error.message}\n`);
      done(127);
    });
    child.on("close", (code, signal) => done(code ?? (signal === "SIGINT" ? 130 : 1)));
  });
}

/** @param {string} text */
export function sha256(text) {
  return createHash("sha256").update(text).digest("hex");
}

/** A hash of the contract, and of anything else that decides what is generated from it. @param {readonly string[]} others */
export function protoHash(...others) {
  const folder = join(ROOT, "proto");
  const files = readdirSync(folder, { recursive: true })
    .map(String)
    .filter((file) => file.endsWith(".proto"))
    .sort();
  return sha256(
    [...files.map((file) => `${file}\n${readFileSync(join(folder, file), "utf8")}`), ...others].join("\0"),
  );
}

/** @param {string} path */
export function readText(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/** @param {string} path @returns {unknown} undefined when it is missing or damaged */
export function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return undefined;
  }
}

/** Write a small file so that it is either wholly there or not at all. @param {string} path @param {unknown} value */
export async function writeJson(path, value) {
  const temporary = `${path}.${randomBytes(4).toString("hex")}`;
  await writeFile(temporary, `${JSON.stringify(value, null, 2)}\n`);
  await rename(temporary, path);
}

/** Put a finished folder in the place of another, which is there until the last moment. @param {string} from @param {string} to */
export async function replaceFolder(from, to) {
  const old = `${from}.old`;
  if (existsSync(to)) await rename(to, old);
  await rename(from, to);
  await rm(old, { recursive: true, force: true });
}

const REASONS = {
  EACCES: "permission is denied",
  EPERM: "it is not permitted",
  EROFS: "it is on a read-only file system",
  ENOSPC: "no space is left on its disk",
  EDQUOT: "the disk quota is used up",
  EEXIST: "something that is not a folder is in its place",
  ENOTDIR: "a part of its path is a file, not a folder",
};

/**
 * Explain a file-system error as a failed step; pass anything else through.
 *
 * @param {unknown} error
 * @param {string} what "make the folder …"
 * @param {string} remedy
 */
export function explain(error, what, remedy) {
  const code = /** @type {NodeJS.ErrnoException} */ (error)?.code ?? "";
  if (!(code in REASONS)) return error;
  return new SetupFailure(`cannot ${what}: ${REASONS[/** @type {keyof typeof REASONS} */ (code)]}`, remedy);
}

export const LOCK = ".atlas-lock";

/**
 * Hold a folder's lock while an action runs; wait for another process that holds it. The lock of a process that is gone (kill -9) is taken
 * over, and a command that it left running is ended first, since it would go on writing into the same folder.
 *
 * @template T
 * @param {string} folder made when missing
 * @param {(line: string) => void} onProgress
 * @param {(lock: {child(pid: number): Promise<void>}) => Promise<T>} action tells the lock of commands it starts
 * @returns {Promise<T>}
 */
export async function withLock(folder, onProgress, action) {
  await mkdir(folder, { recursive: true });
  const path = join(folder, LOCK);
  const temporary = `${path}.${randomBytes(4).toString("hex")}`;
  const self = { pid: process.pid, birth: birthOf(process.pid), host: hostname() };
  await writeFile(temporary, JSON.stringify(self), { flag: "wx" });
  try {
    for (let told = false; ; ) {
      try {
        await link(temporary, path); // fails if there is one, and never shows a half-written one
        break;
      } catch (error) {
        if (/** @type {NodeJS.ErrnoException} */ (error).code !== "EEXIST") throw error;
      }
      const holder = /** @type {Holder | undefined} */ (readJson(path));
      if (holder !== undefined && (holder.host !== hostname() || isAlive(holder.pid, holder.birth))) {
        const where = holder.host === hostname() ? "" : ` on ${holder.host} (if it is gone, delete ${path})`;
        if (!told) onProgress(`waiting for the set-up that process ${holder.pid}${where} is doing`);
        told = true;
        await new Promise((resolve) => setTimeout(resolve, 200));
      } else await takeOver(path, holder);
    }
  } finally {
    await rm(temporary, { force: true });
  }
  try {
    return await action({
      child: (pid) => writeJson(path, { ...self, child: { pid, birth: birthOf(pid) } }),
    });
  } finally {
    await rm(path, { force: true });
  }
}

/** @typedef {{pid: number, birth?: string, host: string, child?: {pid: number, birth?: string}}} Holder */

/** @param {string} path @param {Holder | undefined} stale */
async function takeOver(path, stale) {
  const aside = `${path}.${randomBytes(4).toString("hex")}`;
  try {
    await rename(path, aside);
  } catch {
    return; // another process was quicker, or its holder let go of it
  }
  const moved = /** @type {Holder | undefined} */ (readJson(aside));
  if (JSON.stringify(moved) !== JSON.stringify(stale)) await link(aside, path).catch(() => undefined);
  else if (stale?.child && isAlive(stale.child.pid, stale.child.birth))
    process.kill(stale.child.pid, "SIGKILL");
  await unlink(aside);
}

/** @param {number} pid @param {string} [birth] */
function isAlive(pid, birth) {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== "EPERM") return false;
  }
  const now = birthOf(pid);
  return now === undefined || birth === undefined || now === birth;
}

/** Start time of a process in clock ticks since boot (Linux; undefined elsewhere): tells it from a later one with the same pid. @param {number} pid */
function birthOf(pid) {
  const stat = readText(`/proc/${pid}/stat`);
  return stat?.slice(stat.lastIndexOf(")") + 2).split(" ")[19]; // the command's name may hold spaces
}
