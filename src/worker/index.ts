/** Workers: starting one or finding it, and the sessions opened on it. */
import { UsageError } from "../errors.js";
import { startLocalWorker } from "./local.js";
import type { LogLevel } from "./process.js";
import { type Credentials, parseAddress, readAccess } from "./remote.js";
import { Worker } from "./worker.js";

export type { LogLevel } from "./process.js";
export type { Credentials } from "./remote.js";
export * from "./session.js";
export { PROTOCOL_VERSION, Worker, type WorkerInfo } from "./worker.js";

export interface ConnectOptions extends Credentials {
  /** "local" (default): start one that ends with us. "grpc://host:port" (with TLS: "grpcs://host:port"): one that runs already. */
  worker?: string;
  /** Default device of a local worker: "auto" (default), "cpu", "cuda", "cuda:1". */
  device?: string;
  /** Threads that a local worker's CPU work uses (default: the worker's choice). One that runs already keeps its own. */
  threads?: number;
  /** Whether a local worker executes predictors that are code (default: only when ATLAS_TRUST_CODE=1 says so). One that runs already decides itself. */
  trustCode?: boolean;
  /** The least that a local worker logs (default "info"). */
  logLevel?: LogLevel;
  /** Told every line that a local worker writes, and what its set-up has to say. */
  onLog?: (line: string) => void;
  /** Told what set-up does when a local worker's environment must first be installed, line by line; minutes may pass. */
  onSetup?: (line: string) => void;
  /** Aborted: connecting is given up, and so is every later call but those that cancel or close something. */
  signal?: AbortSignal;
}

/** @throws UsageError when `worker` is neither "local" nor an address */
export function checkAddress(worker: string): void {
  if (worker !== "local") parseAddress(worker);
}

/**
 * Connect to a worker, starting it first where it is local.
 *
 * @throws UsageError for an address of no known form; FileError for credentials that cannot be read; SetupError when what a local worker needs cannot be installed
 * @throws WorkerUnavailable when it does not start or answer, or speaks another protocol version
 */
export async function connectWorker(options: ConnectOptions = {}): Promise<Worker> {
  const { worker = "local", device = "auto", threads, trustCode, logLevel, onLog, onSetup, signal } = options;
  signal?.throwIfAborted();
  if (worker !== "local") {
    const address = parseAddress(worker);
    return Worker.connect(address, { ...(await readAccess(address, options)), signal });
  }
  for (const name of ["ca", "cert", "key", "tokenFile"] as const)
    if (options[name] !== undefined)
      throw new UsageError(
        `--${name === "tokenFile" ? "token-file" : name} is for a worker that runs already`,
        "name it with --worker grpcs://HOST:PORT",
      );
  const { ensureVenv } = await import("../setup/venv.js");
  const { python, workerDir } = await ensureVenv({ onProgress: onSetup });
  return Worker.connect(
    await startLocalWorker({ python, workerDir, device, threads, trustCode, logLevel, onLog, signal }),
    {
      signal,
    },
  );
}
