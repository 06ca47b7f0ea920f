/**
 * What the set-up steps share: paths, running commands, one set-up at a time, errors. Plain Node.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { hostname, setPriority } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { errorCode, SYSTEM_REASONS, writeFileAtomic } from "./atomic.mjs";
import { childEnvironment } from "./environment.mjs";
import { killChild, takeLock } from "./lock.mjs";

/** The package's top folder. This file is in src/setup/, or compiled in dist/src/setup/. */
export const ROOT = fileURLToPath(
  new URL(
    existsSync(new URL("../../package.json", import.meta.url)) ? "../../" : "../../../",
    import.meta.url,
  ),
);
/** The folder of the worker's package. */
export const WORKER = join(ROOT, "py-worker");
/** Whether this is a clone, which can generate stubs and compile. The packed package is not. */
export const IS_CLONE = existsSync(join(ROOT, "tsconfig.build.json"));

/** A set-up step failed. */
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
 * @param {object} [options]
 * @param {string} [options.cwd]
 * @param {NodeJS.ProcessEnv} [options.env] all of its environment (default: {@link
 * childEnvironment})
 * @param {number} [options.keep] number of last lines to keep (default 200)
 * @param {(line: string) => void} [options.onLine] called with every line
 * @param {(pid: number) => void} [options.onPid] called with the id of the process
 * @returns {Promise<{code: number, lines: string[]}>} exit code (127 if it cannot be started), and
 *   its last lines
 */
export function execute(command, args, { cwd, env, keep = 200, onLine, onPid } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd,
      env: env ?? childEnvironment(),
      stdio: ["ignore", "pipe", "pipe"],
    });
    if (child.pid !== undefined) onPid?.(child.pid);
    /** @type {string[]} */
    const lines = [];
    const take = (/** @type {string} */ line) => {
      if (line.trim() === "") return;
      lines.push(line);
      if (lines.length > keep) lines.shift();
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
    child.on("close", (code, signal) => {
      for (const flush of flushers) flush();
      if (signal !== null) take(`it was ended by ${signal}`);
      resolve({ code: code ?? 1, lines });
    });
  });
}

/**
 * Run a command in the foreground. Ctrl-C goes to the command.
 *
 * @param {string} command
 * @param {readonly string[]} args
 * @param {object} [options]
 * @param {string} [options.cwd]
 * @param {NodeJS.ProcessEnv} [options.env] variables in place of the user's
 * @param {number} [options.output] file descriptor for its output (default: this process's output)
 * @param {number} [options.niceness] 1 to 19, for a command that may wait
 * @returns {Promise<number>} its exit code
 */
export function foreground(command, args, { cwd = ROOT, env, output, niceness } = {}) {
  return new Promise((resolve) => {
    const stdio =
      output === undefined ? "inherit" : [/** @type {const} */ ("ignore"), output, output];
    const child = spawn(command, args, {
      cwd,
      env: childEnvironment(env, { forUser: true }),
      stdio,
    });
    if (niceness !== undefined && child.pid !== undefined) setPriority(child.pid, niceness);
    const ignore = () => {}; // the terminal signals the whole group; wait for the child to end
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
    child.on("close", (code, signal) => {
      if (signal !== null && signal !== "SIGINT")
        process.stderr.write(`error: ${[command, ...args].join(" ")} was ended by ${signal}\n`);
      done(code ?? (signal === "SIGINT" ? 130 : 1));
    });
  });
}

/** Compute the SHA-256 of a text. @param {string} text */
export function sha256(text) {
  return createHash("sha256").update(text).digest("hex");
}

/**
 * Hash the contract, with other texts that decide what is generated from it.
 *
 * @param {readonly string[]} others
 */
export function protoHash(...others) {
  const folder = join(ROOT, "proto");
  const files = readdirSync(folder, { recursive: true })
    .map(String)
    .filter((file) => file.endsWith(".proto"))
    .sort();
  return sha256(
    [
      ...files.map((file) => `${file}\n${readFileSync(join(folder, file), "utf8")}`),
      ...others,
    ].join("\0"),
  );
}

/**
 * Read a file.
 *
 * @param {string} path
 * @returns {string | undefined} undefined if it cannot be read
 */
export function readText(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/** Read JSON. @param {string} path @returns {unknown} undefined if it is missing or damaged */
export function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return undefined;
  }
}

/** Write JSON. @param {string} path @param {unknown} value */
export function writeJson(path, value) {
  return writeFileAtomic(path, `${JSON.stringify(value, null, 2)}\n`);
}

/**
 * Turn a file-system error into a {@link SetupFailure}; return any other error as it is.
 *
 * @param {unknown} error
 * @param {string} what was tried: "make the folder …"
 * @param {string} remedy
 */
export function explain(error, what, remedy) {
  const code = errorCode(error) ?? "";
  const reason = SYSTEM_REASONS[code];
  // A file that is missing in the middle of a step is a bug of the step.
  if (reason === undefined || code === "ENOENT") return error;
  return new SetupFailure(`cannot ${what}: ${reason}`, remedy);
}

/** File name of the lock of a set-up. */
export const LOCK = ".atlas-lock";

/** Milliseconds between two looks at a lock that another process holds. */
const PAUSE_MS = 200;

/**
 * Run an action while holding a folder's lock. If another process holds it, wait. The lock of a
 * process that has ended is taken over. A command that this process left running is killed first,
 * because it would go on writing into the folder.
 *
 * @template T
 * @param {string} folder made if it is missing
 * @param {(line: string) => void} onProgress
 * @param {(lock: import("./lock.mjs").Lock) => Promise<T>} action records the commands that it
 * starts
 * @returns {Promise<T>}
 */
export async function withLock(folder, onProgress, action) {
  await mkdir(folder, { recursive: true });
  const path = join(folder, LOCK);
  let told = false;
  const lock = await takeLock(path, {
    async onBusy(holder) {
      if (holder === undefined) return;
      const where =
        holder.host === hostname() ? "" : ` on ${holder.host} (if it is gone, delete ${path})`;
      if (!told) onProgress(`waiting for the set-up that process ${holder.pid}${where} is doing`);
      told = true;
      await sleep(PAUSE_MS);
    },
    onStale: killChild,
  });
  try {
    return await action(lock);
  } finally {
    await lock.release();
  }
}
