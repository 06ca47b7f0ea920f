/**
 * A local worker: started on a free loopback port, watched, and ended with this process, in any
 * way.
 */
import type { ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, parse, resolve } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { execa } from "execa";
import { AtlasError, type SettingName, WorkerDied, WorkerUnavailable } from "../errors.js";
import { onAbort } from "../rpc/index.js";
import { childEnvironment } from "../setup/environment.mjs";
import {
  killGroup,
  type LogLevel,
  PYTHON_MODULE,
  parseReady,
  type Ready,
  refusal,
  serveArguments,
} from "./process.js";

/** Lines of output that are kept for the case that the worker dies. */
const KEPT_LINES = 200;
/** A hint that container engines add to their errors. */
const USAGE_HINT = /^(Run|See) '[^']* --help'/;
/** Milliseconds in which the last output may come after the end of the process. */
const LAST_WORDS_MS = 1_000;
/** Milliseconds in which the end of the process may be noticed after its connection is lost. */
const NEWS_MS = 2_000;
/** Bytes of the longest path of a socket on macOS. Linux allows four more. */
const LONGEST_SOCKET = 103;

/** Options of a worker that is started. */
export interface StartOptions {
  device?: string;
  threads?: number;
  /** Whether the worker executes predictors that are code. */
  trustCode?: boolean;
  logLevel?: LogLevel;
  onLog?: (line: string) => void;
  /** When aborted, starting is given up. */
  signal?: AbortSignal;
  /**
   * Milliseconds to wait until it serves (default 120 000, because loading PyTorch can be slow).
   */
  startTimeoutMs?: number;
  /** Milliseconds that the worker has to end in order (default 5000). */
  graceMs?: number;
}

/** Options of {@link startLocalWorker}. */
export interface LocalOptions extends StartOptions {
  /** Interpreter of the worker's virtual environment. */
  python: string;
  /** Folder of the package `atlas_worker`. */
  workerDir: string;
}

/** A program that runs a worker and ends when its standard input does. */
export interface Program {
  command: string;
  args: readonly string[];
  cwd?: string;
  /** Variables beside those of this process and the token. */
  env?: NodeJS.ProcessEnv;
  /** Its name in messages. */
  called: string;
  /** Advice if it does not start. */
  remedy: string;
  /** The setting that the advice is about. */
  setting?: SettingName;
  /** Its own folder, which is removed when it or this process ends. */
  folder?: string;
  /** What it reads from its standard input at its start, given the token. */
  input?: (token: string) => string;
  /**
   * Makes the worker reachable once it serves, for example by a tunnel.
   *
   * @returns where this process finds its gRPC server and its planes
   */
  reach?: (ready: Ready) => Promise<Endpoints>;
  /** Cleans up after its end. Must not fail. */
  clear?: () => Promise<unknown>;
}

/** Where this process finds a worker. */
export interface Endpoints {
  /** host:port of its gRPC server. */
  address: string;
  /** ZeroMQ endpoints (default: as the worker says). */
  tensors?: string;
  metrics?: string;
}

/** A running worker's process. */
export interface LocalProcess {
  /** host:port of its gRPC server. */
  readonly address: string;
  readonly pid: number;
  /** The token that every call must have, because other users of the machine may reach the port. */
  readonly token: string;
  /** ZeroMQ endpoints of its planes (default: as the worker says). */
  readonly planes?: Pick<Endpoints, "tensors" | "metrics">;
  /** Whether other runs use it too. Closing a connection then closes its sessions only. */
  readonly shared?: boolean;
  /** Aborted with a {@link WorkerDied} if the process ends unasked. */
  readonly gone: AbortSignal;
  /** Find the cause of a lost connection; waits a moment to see whether the process has ended. */
  explain(error: unknown): Promise<unknown>;
  /** End the process and all that it started. */
  close(): Promise<void>;
}

/**
 * Start a local worker and wait until it serves.
 *
 * @throws WorkerUnavailable if it cannot be started, ends, or does not serve in time
 * @throws the signal's reason if aborted
 */
export async function startLocalWorker({
  python,
  workerDir,
  ...options
}: LocalOptions): Promise<LocalProcess> {
  const { device, threads, trustCode, logLevel, signal } = options;
  signal?.throwIfAborted();
  const planeFolder = makePlaneFolder();
  // The worker belongs to the user, so it may read all that the user may.
  const dataRoot = parse(process.cwd()).root;
  return startProgram(
    {
      command: python,
      args: [
        ...PYTHON_MODULE,
        ...serveArguments({ device, threads, trustCode, logLevel, dataRoot, planeFolder }),
        "--parent-stdin",
      ],
      cwd: workerDir,
      env: { PYTHONPATH: workerDir, PYTHONUNBUFFERED: "1" },
      called: "the local worker",
      remedy: "check the installation with: atlas doctor",
      folder: planeFolder,
    },
    options,
  );
}

/**
 * Make a folder for sockets that only this user may enter.
 *
 * @returns undefined if no such folder can be made; the worker then uses ports, with encryption
 */
function makePlaneFolder(): string | undefined {
  const prefix = join(resolve(tmpdir()), "atlas-"); // absolute, because the worker runs elsewhere
  const longest = join(`${prefix}XXXXXX`, "metrics");
  if (process.platform === "win32" || Buffer.byteLength(longest) > LONGEST_SOCKET) return undefined;
  try {
    return mkdtempSync(prefix);
  } catch {
    return undefined;
  }
}

/**
 * Start a program that runs a worker, with a token in ATLAS_TOKEN, and wait until it serves.
 *
 * @throws WorkerUnavailable if it cannot be started, ends, or does not serve in time
 * @throws the signal's reason if aborted
 */
export async function startProgram(
  { command, args, cwd, env, called, remedy, setting, folder, input, reach, clear }: Program,
  { onLog, signal, startTimeoutMs = 120_000, graceMs = 5_000 }: StartOptions,
): Promise<LocalProcess> {
  signal?.throwIfAborted();
  const token = randomBytes(32).toString("base64url");
  // With its own process group, Ctrl-C reaches it only through this process, and its children end
  // with
  // it. The worker also ends when its stdin does.
  const child = execa(command, args, {
    cwd,
    env: childEnvironment({ ...env, ATLAS_TOKEN: token }),
    extendEnv: false,
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
    buffer: false,
    reject: false,
    detached: process.platform !== "win32",
  });
  child.stdin.on("error", () => {}); // the process may end before it reads
  if (input) child.stdin.write(input(token));
  let over = false;
  const kill = (name: NodeJS.Signals) => {
    if (!over) killGroup(child.pid, name); // later the id may belong to another process
  };
  const remove = () => {
    try {
      if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    } catch {} // a folder that stays must not hide how the worker ended
  };
  const killAtExit = () => {
    kill("SIGKILL");
    remove();
  };
  process.once("exit", killAtExit);

  const tail: string[] = [];
  const keep = (line: string) => {
    onLog?.(line);
    tail.push(line);
    if (tail.length > KEPT_LINES) tail.shift();
  };
  readLines(child.stderr, keep);
  const ready = new Promise<Ready>((resolve) => {
    readLines(child.stdout, (line) => {
      const parsed = parseReady(line);
      if (parsed) resolve(parsed);
      else onLog?.(line);
    });
  });

  const gone = new AbortController();
  let closing = false;
  const exit = new Promise((resolve) => {
    child.once("exit", () => {
      kill("SIGKILL"); // the processes that it started
      setTimeout(resolve, LAST_WORDS_MS).unref();
    });
  });
  // A process that could not be started never exits. Execa waits for ever if an escaped child
  // process
  // holds the output open.
  const ended = Promise.race([child.then(({ code }) => code), exit]).then((code) => {
    over = true;
    process.off("exit", killAtExit);
    remove();
    const why = describeEnd(called, child, code, tail);
    gone.abort(closing ? new AtlasError("the worker was stopped") : why);
    return why;
  });
  const cleared = ended.then(clear);
  const close = async () => {
    closing = true;
    child.stdin.end();
    kill("SIGTERM");
    const timer = setTimeout(kill, graceMs, "SIGKILL");
    await ended;
    clearTimeout(timer);
    await cleared;
  };

  let dispose = () => {};
  let timer: NodeJS.Timeout | undefined;
  try {
    const served = await new Promise<Ready>((resolve, reject) => {
      ready.then(resolve);
      ended.then((died) => {
        const refused = refusal(child.exitCode, tail);
        if (refused) return reject(refused);
        const message = died.message.replace(`${called} ended`, `${called} ended at its start`);
        reject(new WorkerUnavailable(message, remedy, { cause: died, setting }));
      });
      dispose = onAbort([signal], () => reject(signal?.reason));
      timer = setTimeout(() => {
        const message =
          `${called} did not serve within ${startTimeoutMs / 1000} ` + `s${lastWords(tail)}`;
        reject(
          new WorkerUnavailable(message, `try again when the machine is less busy; ${remedy}`, {
            setting,
          }),
        );
      }, startTimeoutMs);
    });
    const { address, ...planes } = reach ? await reach(served) : { address: served.address };
    return {
      address,
      planes,
      pid: served.pid,
      token,
      gone: gone.signal,
      explain: async (error) => {
        if (error instanceof WorkerUnavailable)
          await Promise.race([ended, sleep(NEWS_MS, undefined, { ref: false })]);
        return gone.signal.aborted ? gone.signal.reason : error;
      },
      close,
    };
  } catch (error) {
    kill("SIGKILL");
    await close();
    throw error;
  } finally {
    dispose();
    clearTimeout(timer);
  }
}

function describeEnd(
  called: string,
  { pid, exitCode, signalCode }: Pick<ChildProcess, "pid" | "exitCode" | "signalCode">,
  spawnError: unknown,
  tail: readonly string[],
): WorkerDied {
  const how =
    pid === undefined
      ? `it cannot be executed: ${spawnError}`
      : signalCode === null
        ? `exit code ${exitCode}`
        : `killed by ${signalCode}`;
  const memory = "if the machine ran out of memory, use less data or smaller batches";
  return new WorkerDied(
    `${called} ended (${how})${lastWords(tail)}`,
    tail.join("\n"),
    signalCode === "SIGKILL" ? memory : undefined,
  );
}

/** Get the last line that says something, as the end of a sentence. */
function lastWords(tail: readonly string[]): string {
  const line = tail.findLast((l) => l.trim() !== "" && !USAGE_HINT.test(l));
  return line === undefined ? "" : `: ${line.trim().slice(0, 500)}`;
}

function readLines(stream: Readable, listener: (line: string) => void): void {
  createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY }).on("line", listener);
}
