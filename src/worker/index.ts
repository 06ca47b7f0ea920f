/** Workers: starting one or finding it, and the sessions opened on it. */
import { UsageError } from "../errors.js";
import { isLoopback } from "../rpc/index.js";
import { parseContainer, startContainerWorker } from "./container.js";
import { startLocalWorker } from "./local.js";
import type { LogLevel } from "./process.js";
import { type Credentials, parseAddress, readAccess } from "./remote.js";
import { Worker } from "./worker.js";

export type { LogLevel } from "./process.js";
export type { Credentials } from "./remote.js";
export * from "./session.js";
export { PROTOCOL_VERSION, Worker, type WorkerInfo } from "./worker.js";

export interface ConnectOptions extends Credentials {
  /**
   * "local" (default): start one that ends with us. "docker": the same in a container, from an image that is built when first needed, or from
   * that of "docker:IMAGE". "grpc://host:port" (with TLS: "grpcs://host:port"): one that runs already.
   */
  worker?: string;
  /** Files and folders that a worker in a container may read, as absolute paths (default: none). Others see all, or their own. */
  files?: readonly string[];
  /** Default device of a worker that is started: "auto" (default), "cpu", "cuda", "cuda:1". */
  device?: string;
  /** Threads that its CPU work uses (default: the worker's choice). One that runs already keeps its own. */
  threads?: number;
  /** Whether a local worker executes predictors that are code (default: only when ATLAS_TRUST_CODE=1 says so). One that runs already decides itself. */
  trustCode?: boolean;
  /** The least that a local worker logs (default "info"). */
  logLevel?: LogLevel;
  /** Told every line that a worker that is started writes. */
  onLog?: (line: string) => void;
  /** Told what set-up does when its environment or image must first be made, line by line; minutes may pass. */
  onSetup?: (line: string) => void;
  /** Aborted: connecting is given up, and so is every later call but those that cancel or close something. */
  signal?: AbortSignal;
}

/** Whether it is started for us on this machine, and so works on its files. @throws UsageError for no name of an image */
function isStartedHere(worker: string): boolean {
  return worker === "local" || parseContainer(worker) !== undefined;
}

/** Where a worker is: started here for us; one that runs already, at an address of this machine (or a tunnel's end there); or on another machine. */
export type Place = "ours" | "near" | "far";

/** @throws UsageError when `worker` is neither "local" nor a container nor an address */
export function placeOf(worker: string): Place {
  if (isStartedHere(worker)) return "ours";
  return isLoopback(parseAddress(worker).address) ? "near" : "far";
}

/**
 * Connect to a worker, starting it first where it is local or in a container.
 *
 * @throws UsageError for an address of no known form; FileError for credentials that cannot be read; SetupError when what it needs cannot be installed
 * @throws WorkerUnavailable when it does not start or answer, or speaks another protocol version
 */
export async function connectWorker(options: ConnectOptions = {}): Promise<Worker> {
  const { worker = "local", device = "auto", threads, trustCode, logLevel, onLog, onSetup, signal } = options;
  signal?.throwIfAborted();
  if (!isStartedHere(worker)) {
    const address = parseAddress(worker);
    return Worker.connect(address, { ...(await readAccess(address, options)), signal });
  }
  for (const name of ["ca", "cert", "key", "tokenFile"] as const)
    if (options[name] !== undefined)
      throw new UsageError(
        `--${name === "tokenFile" ? "token-file" : name} is for a worker that runs already`,
        "name it with --worker grpcs://HOST:PORT",
      );
  const container = parseContainer(worker);
  if (container) {
    const { files } = options;
    const started = { ...container, files, device, threads, trustCode, logLevel, onLog, onSetup, signal };
    return Worker.connect(await startContainerWorker(started), { signal });
  }
  const { ensureVenv } = await import("../setup/venv.js");
  const { python, workerDir } = await ensureVenv({ onProgress: onSetup });
  return Worker.connect(
    await startLocalWorker({ python, workerDir, device, threads, trustCode, logLevel, onLog, signal }),
    {
      signal,
    },
  );
}
