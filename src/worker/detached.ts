/**
 * A worker in the background, which outlives the command that started it. Each user can have one.
 */
import { execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, open, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { homedir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { z } from "zod";
import { FileError, UsageError, WorkerUnavailable } from "../errors.js";
import { errorCode, explainFileSystem, writeFileAtomic } from "../run/atomic.js";
import { childEnvironment } from "../setup/environment.mjs";
import { isAlive } from "../setup/lock.mjs";
import {
  killGroup,
  LOOPBACK,
  PYTHON_MODULE,
  parseReady,
  refusal,
  type ServeOptions,
  serveArguments,
} from "./process.js";

const START_TIMEOUT_MS = 120_000;
const GRACE_MS = 10_000;
/** Milliseconds that the end of a killed process may take. */
const KILLED_MS = 2_000;

const Detached = z.object({
  /** Address from this machine: grpc://127.0.0.1:port, or with TLS grpcs://… */
  address: z.string(),
  pid: z.int().positive(),
  /** Path of its log. */
  log: z.string(),
});
/** The worker in the background. */
export type DetachedWorker = z.infer<typeof Detached>;

/** Options of {@link startDetachedWorker}. */
export interface DetachedOptions extends ServeOptions {
  /** Called with every line of the environment's set-up. */
  onLog?: (line: string) => void;
}

/**
 * Start a worker in the background and wait until it serves.
 *
 * @throws UsageError if the user has such a worker already, or the port is in use
 * @throws SetupError if the Python environment cannot be made
 * @throws WorkerUnavailable if the worker does not start
 */
export async function startDetachedWorker(options: DetachedOptions = {}): Promise<DetachedWorker> {
  const { ensureVenv } = await import("../setup/venv.js");
  const running = await detachedWorker();
  if (running)
    throw new UsageError(
      `a worker is already running at ${running.address} (process ${running.pid})`,
      "use that worker, or stop it first",
      { setting: "backgroundWorker" },
    );
  if (options.port !== undefined) await checkPort(options.port, options.host);
  return launch(await ensureVenv({ onProgress: options.onLog }), options);
}

/** Do what {@link startDetachedWorker} does, with a given interpreter. */
export async function launch(
  { python, workerDir }: { python: string; workerDir: string },
  { onLog: _, ...options }: DetachedOptions,
): Promise<DetachedWorker> {
  const folder = stateFolder();
  const log = join(folder, "worker.log");
  await mkdir(folder, { recursive: true, mode: 0o700 }).catch((error) => {
    throw explainFileSystem(error, "create", folder);
  });
  const output = await open(log, "w", 0o600).catch((error) => {
    throw explainFileSystem(error, "write", log);
  });
  try {
    const child = spawn(python, [...PYTHON_MODULE, ...serveArguments(options)], {
      cwd: workerDir,
      env: childEnvironment({ PYTHONPATH: workerDir, PYTHONUNBUFFERED: "1" }),
      stdio: ["ignore", output.fd, output.fd],
      detached: true,
    });
    let failure: string | undefined;
    child.once("error", (error) => {
      failure = error.message;
    });
    child.once("exit", (code, signal) => {
      failure = signal === null ? `exit code ${code}` : `killed by ${signal}`;
    });
    const until = performance.now() + START_TIMEOUT_MS;
    for (;;) {
      // Look before reading the log, which then has all that the process wrote before its end.
      const ended = failure;
      const lines = (await readFile(log, "utf8")).split("\n");
      const ready = lines.map(parseReady).find((r) => r !== undefined);
      if (ready && ended === undefined) {
        const scheme = options.tlsCert === undefined ? "grpc" : "grpcs";
        const address = ready.address.replace(/^(0\.0\.0\.0|\[::\]):/, "localhost:");
        const worker = { address: `${scheme}://${address}`, pid: ready.pid, log };
        await writeFileAtomic(stateFile(), `${JSON.stringify(worker)}\n`);
        child.unref();
        return worker;
      }
      const last = lines.findLast((line) => line.trim() !== "");
      const refused = ended === undefined ? undefined : refusal(child.exitCode, lines);
      if (refused) throw refused;
      if (ended !== undefined)
        throw new WorkerUnavailable(
          `the worker ended at its start (${ended})${last === undefined ? "" : `: ${last.trim()}`}`,
          `see ${log}, or check the installation with: atlas doctor`,
        );
      if (performance.now() > until) {
        killGroup(child.pid, "SIGKILL");
        throw new WorkerUnavailable(
          `the worker did not serve within ${START_TIMEOUT_MS / 1000} s`,
          `see ${log}`,
        );
      }
      await sleep(100);
    }
  } finally {
    await output.close();
  }
}

/** Find the worker in the background. @returns undefined if none runs */
export async function detachedWorker(): Promise<DetachedWorker | undefined> {
  let text: string;
  try {
    text = await readFile(stateFile(), "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw explainFileSystem(error, "read", stateFile());
  }
  const parsed = Detached.safeParse(parseJson(text));
  if (!parsed.success)
    throw new FileError(
      `${stateFile()} is damaged`,
      "delete it, and end the worker by hand if it still runs",
    );
  if (await isWorker(parsed.data.pid)) return parsed.data;
  await rm(stateFile(), { force: true });
  return undefined;
}

/** Stop the worker in the background. @returns whether there was one */
export async function stopDetachedWorker(): Promise<boolean> {
  const worker = await detachedWorker();
  if (!worker) return false;
  killGroup(worker.pid, "SIGTERM");
  const until = performance.now() + GRACE_MS;
  while (isAlive(worker) && performance.now() < until) await sleep(50);
  killGroup(worker.pid, "SIGKILL"); // its children too
  // The worker may hold its port until it is gone.
  while (isAlive(worker) && performance.now() < until + KILLED_MS) await sleep(50);
  await rm(stateFile(), { force: true });
  return true;
}

function stateFolder(): string {
  return join(process.env.XDG_STATE_HOME || join(homedir(), ".local", "state"), "atlas-symmetry");
}

function stateFile(): string {
  return join(stateFolder(), "worker.json");
}

/** @throws UsageError if a port cannot be listened on */
async function checkPort(port: number, host = LOOPBACK): Promise<void> {
  const server = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject).listen({ port, host, exclusive: true }, resolve);
    });
  } catch (error) {
    const code = errorCode(error);
    const why =
      code === "EADDRINUSE"
        ? "is in use"
        : code === "EACCES"
          ? "needs privileges"
          : "cannot be listened on";
    throw new UsageError(`port ${port} ${why}`, "choose another port, or none to get a free one", {
      cause: error,
      setting: "port",
    });
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
}

/** Whether a process is running and is a worker. Its id may have passed to another process. */
async function isWorker(pid: number): Promise<boolean> {
  if (!isAlive({ pid })) return false;
  const command = existsSync("/proc/self/cmdline")
    ? await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "") // empty while it ends
    : await promisify(execFile)("ps", ["-o", "command=", "-p", String(pid)]).then(
        ({ stdout }) => stdout,
        () => "",
      );
  return command.includes("atlas_worker");
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
