/** A worker process of our own: started on a free loopback port, watched, and ended with us, however we end. */
import type { ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, parse, resolve } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { execa } from "execa";
import { AtlasError, WorkerDied, WorkerUnavailable } from "../errors.js";
import { onAbort } from "../rpc/index.js";
import {
  killGroup,
  type LogLevel,
  PYTHON_MODULE,
  parseReady,
  type Ready,
  refusal,
  serveArguments,
} from "./process.js";

/** Lines of its output that are kept for when it dies. */
const KEPT_LINES = 200;
/** What container engines add to their errors. */
const USAGE_HINT = /^(Run|See) '[^']* --help'/;
/** How long its last output may come after its end. */
const LAST_WORDS_MS = 1_000;
/** How long news of a process's end may come after the loss of its connection. */
const NEWS_MS = 2_000;
/** Bytes of a socket's path, on macOS; Linux takes four more. */
const LONGEST_SOCKET = 103;

export interface StartOptions {
  device?: string;
  threads?: number;
  /** Whether it executes code that it is given as a predictor. */
  trustCode?: boolean;
  logLevel?: LogLevel;
  onLog?: (line: string) => void;
  /** Gives up starting. */
  signal?: AbortSignal;
  /** Milliseconds to wait until it serves (default 120 000: loading PyTorch from a cold disk is slow). */
  startTimeoutMs?: number;
  /** Milliseconds that it is given to end in order (default 5000). */
  graceMs?: number;
}

export interface LocalOptions extends StartOptions {
  /** The interpreter of the worker's virtual environment. */
  python: string;
  /** The folder that holds the package `atlas_worker`. */
  workerDir: string;
}

/** What is executed for a worker that ends when its standard input does. */
export interface Program {
  command: string;
  args: readonly string[];
  cwd?: string;
  /** Beside our own environment and the token. */
  env?: NodeJS.ProcessEnv;
  /** What it is called in messages. */
  called: string;
  /** What helps when it does not start. */
  remedy: string;
  /** Made for it, and removed when it or we end. */
  folder?: string;
  /** Clears up what may be left of it, once it has ended. Must not fail. */
  clear?: () => Promise<unknown>;
}

/** A running worker process. */
export interface LocalProcess {
  /** host:port of its gRPC server. */
  readonly address: string;
  readonly pid: number;
  /** Without which it answers nobody: it may read what its user may, and the machine may have others. */
  readonly token: string;
  /** Aborted with a {@link WorkerDied} when it ends unasked. */
  readonly gone: AbortSignal;
  /** What is behind a lost connection: waits a moment for news of the process's end. */
  explain(error: unknown): Promise<unknown>;
  /** End it and all that it started. */
  close(): Promise<void>;
}

/**
 * Start a worker and wait until it serves.
 *
 * @throws WorkerUnavailable when it cannot be started, ends, or does not serve in time; the signal's reason when aborted
 */
export async function startLocalWorker({
  python,
  workerDir,
  ...options
}: LocalOptions): Promise<LocalProcess> {
  const { device, threads, trustCode, logLevel, signal } = options;
  signal?.throwIfAborted();
  const planeFolder = makePlaneFolder();
  // It is the user's own, and may read what they may.
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
      remedy: "see what is missing with: atlas doctor",
      folder: planeFolder,
    },
    options,
  );
}

/** A folder that only we may enter, for sockets; undefined where there can be none: the planes then have ports, and encrypt. */
function makePlaneFolder(): string | undefined {
  const prefix = join(resolve(tmpdir()), "atlas-"); // the worker is in another folder than we
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
 * @throws WorkerUnavailable when it cannot be started, ends, or does not serve in time; the signal's reason when aborted
 */
export async function startProgram(
  { command, args, cwd, env, called, remedy, folder, clear }: Program,
  { onLog, signal, startTimeoutMs = 120_000, graceMs = 5_000 }: StartOptions,
): Promise<LocalProcess> {
  signal?.throwIfAborted();
  const token = randomBytes(32).toString("base64url");
  // Its own process group, so that Ctrl-C reaches it through us only, and its children end with it. It ends by itself when its stdin does.
  const child = execa(command, args, {
    cwd,
    env: { ...env, ATLAS_TOKEN: token },
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
    buffer: false,
    reject: false,
    detached: process.platform !== "win32",
  });
  child.stdin.on("error", () => {}); // it is only ever closed
  let over = false;
  const kill = (name: NodeJS.Signals) => {
    if (!over) killGroup(child.pid, name); // its id may be another's later
  };
  const remove = () => {
    try {
      if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    } catch {} // an empty folder that stays is no reason not to tell how the worker ended
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
      kill("SIGKILL"); // whatever it started and left behind
      setTimeout(resolve, LAST_WORDS_MS).unref();
    });
  });
  // A process that could not be started has no exit; one whose output is held open by another that escaped us never ends for execa.
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
    const { address, pid } = await new Promise<Ready>((resolve, reject) => {
      ready.then(resolve);
      ended.then((died) => {
        const refused = refusal(child.exitCode, tail);
        if (refused) return reject(refused);
        const message = died.message.replace(`${called} ended`, `${called} ended at its start`);
        reject(new WorkerUnavailable(message, remedy, { cause: died }));
      });
      dispose = onAbort([signal], () => reject(signal?.reason));
      timer = setTimeout(() => {
        const message = `${called} did not serve within ${startTimeoutMs / 1000} s${lastWords(tail)}`;
        reject(new WorkerUnavailable(message, `try again when the machine is less busy; ${remedy}`));
      }, startTimeoutMs);
    });
    return {
      address,
      pid,
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
  const memory = "if the machine ran out of memory, ask for less at once";
  return new WorkerDied(
    `${called} ended (${how})${lastWords(tail)}`,
    tail.join("\n"),
    signalCode === "SIGKILL" ? memory : undefined,
  );
}

/** The last line that says something, as the end of a sentence. */
function lastWords(tail: readonly string[]): string {
  const line = tail.findLast((l) => l.trim() !== "" && !USAGE_HINT.test(l));
  return line === undefined ? "" : `: ${line.trim().slice(0, 500)}`;
}

function readLines(stream: Readable, listener: (line: string) => void): void {
  createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY }).on("line", listener);
}
