/** Workers: start one or connect to one, and open sessions on it. */
import { UsageError } from "../errors.js";
import { type Access, isLoopback } from "../rpc/index.js";
import { parseContainer, startContainerWorker } from "./container.js";
import { type LocalProcess, startLocalWorker } from "./local.js";
import type { LogLevel } from "./process.js";
import { needsReaders } from "./readers.js";
import { type Credentials, parseAddress, readAccess } from "./remote.js";
import { Worker } from "./worker.js";

export type { LogLevel } from "./process.js";
export type { Credentials } from "./remote.js";
export * from "./session/index.js";
export { PROTOCOL_VERSION, Worker, type WorkerInfo } from "./worker.js";

/** Options of {@link connectWorker}. */
export interface ConnectOptions extends Credentials {
  /**
   * The worker:
   * - "local" (default): started for this process, and ended with it;
   * - "docker": the same in a container, whose image is built when it is first needed;
   * - "docker:IMAGE": the same with another image;
   * - "grpc://host:port", or with TLS "grpcs://host:port": a worker that is already running.
   */
  worker?: string;
  /**
   * Absolute paths that a worker in a container may read (default: none). A local worker gets the
   * packages that read them.
   */
  files?: readonly string[];
  /** Default device of a started worker: "auto" (default), "cpu", "cuda", "cuda:1". */
  device?: string;
  /** CPU threads of a started worker (default: the worker's choice). */
  threads?: number;
  /**
   * Whether a started worker executes predictors that are code (default: as ATLAS_TRUST_CODE says).
   */
  trustCode?: boolean;
  /** The least level of messages that a started worker logs (default "info"). */
  logLevel?: LogLevel;
  /** Called with every line that a started worker writes. */
  onLog?: (line: string) => void;
  /** Called with every line of the set-up of its environment or image, which may take minutes. */
  onSetup?: (line: string) => void;
  /**
   * When aborted, connecting is given up, and later calls fail, except those that cancel or close.
   */
  signal?: AbortSignal;
}

/** Names of the credentials in messages. */
const CREDENTIALS = {
  ca: "an authority's certificate",
  cert: "a client certificate",
  key: "a private key",
  tokenFile: "a token file",
} as const;

/**
 * Whether a worker is started for this process.
 *
 * @throws UsageError if an image's name is not valid
 */
function isStartedHere(worker: string): boolean {
  return worker === "local" || parseContainer(worker) !== undefined;
}

/**
 * Where a worker is. "spawned": started for this process, on the files of this machine. "loopback":
 * already running, at an address of this machine, which may be a tunnel. "remote": on another
 * machine.
 */
export type Place = "spawned" | "loopback" | "remote";

/**
 * Tell where a worker is.
 *
 * @throws UsageError if `worker` is neither "local" nor a container nor an address
 */
export function placeOf(worker: string): Place {
  if (isStartedHere(worker)) return "spawned";
  return isLoopback(parseAddress(worker).address) ? "loopback" : "remote";
}

/**
 * Connect to a worker. A local worker, or one in a container, is started first.
 *
 * @throws UsageError if the address is not valid
 * @throws FileError if credentials cannot be read
 * @throws SetupError if required software cannot be installed
 * @throws WorkerUnavailable if the worker does not start or answer, or speaks another version of
 * the protocol
 */
export async function connectWorker(options: ConnectOptions = {}): Promise<Worker> {
  const {
    worker = "local",
    device = "auto",
    threads,
    files,
    trustCode,
    logLevel,
    onLog,
    onSetup,
    signal,
  } = options;
  signal?.throwIfAborted();
  if (!isStartedHere(worker)) {
    const address = parseAddress(worker);
    return Worker.connect(address, { ...(await readAccess(address, options)), signal });
  }
  for (const name of ["ca", "cert", "key", "tokenFile"] as const)
    if (options[name] !== undefined)
      throw new UsageError(
        `${CREDENTIALS[name]} is for a worker that is already running`,
        "leave it out, or give the address of such a worker",
        { setting: name },
      );
  const container = parseContainer(worker);
  if (container) {
    const started = {
      ...container,
      files,
      device,
      threads,
      trustCode,
      logLevel,
      onLog,
      onSetup,
      signal,
    };
    return Worker.connect(await startContainerWorker(started), { signal });
  }
  return Worker.connect(
    await startLocal({ files, device, threads, trustCode, logLevel, onLog, onSetup, signal }),
    { signal },
  );
}

/**
 * Start a local worker for many runs. {@link connectLocal} connects to it. It ends with this
 * process.
 *
 * @throws SetupError, WorkerUnavailable
 */
export async function startLocal(
  options: Omit<ConnectOptions, "worker" | keyof Credentials>,
): Promise<LocalProcess> {
  const { onSetup, files = [], ...rest } = options;
  const { ensureVenv } = await import("../setup/venv.js");
  const extras = needsReaders(files) ? (["files"] as const) : [];
  const { python, workerDir } = await ensureVenv({ onProgress: onSetup, extras });
  return startLocalWorker({ python, workerDir, ...rest });
}

/** Connect to a worker of {@link startLocal}. Closing the connection leaves it running. */
export function connectLocal(
  started: LocalProcess,
  { signal, tls }: { signal?: AbortSignal; tls?: Access["tls"] } = {},
): Promise<Worker> {
  return Worker.connect({ ...started, shared: true }, { signal, tls });
}
