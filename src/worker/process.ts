/**
 * What local workers, workers in containers and background workers share: arguments, output, and
 * end.
 */
import { existsSync } from "node:fs";
import { z } from "zod";
import { UsageError } from "../errors.js";

const REFUSAL = "atlas_worker: ";

/** The line on stdout in which a worker says that it serves. */
const Ready = z.object({
  event: z.literal("ready"),
  address: z.string(),
  protocol_version: z.int(),
  pid: z.int(),
  /** Endpoints of the planes, which a tunnel must lead to. */
  tensors: z.string().optional(),
  metrics: z.string().optional(),
});
/** The line on stdout in which a worker says that it serves. */
export type Ready = z.infer<typeof Ready>;

/** Parse a line of output as {@link Ready}. @returns undefined if it is another line */
export function parseReady(line: string): Ready | undefined {
  if (!line.startsWith("{")) return undefined;
  try {
    return Ready.safeParse(JSON.parse(line)).data;
  } catch {
    return undefined;
  }
}

/** Address of the loopback interface. */
export const LOOPBACK = "127.0.0.1";

/** Levels of log messages, from the least. */
export const LOG_LEVELS = ["debug", "info", "warning", "error"] as const;
/** A level of log messages. */
export type LogLevel = (typeof LOG_LEVELS)[number];
/** Formats of a worker's log. */
export const LOG_FORMATS = ["text", "json"] as const;

/** How a worker serves. Paths are absolute. */
export interface ServeOptions {
  /** Address to listen on (default: loopback; any other needs TLS and a token). */
  host?: string;
  /** Port of the gRPC server (default: a free one). */
  port?: number;
  device?: string;
  threads?: number;
  /** Folder that must hold the data files (default: the folder in which the worker is started). */
  dataRoot?: string;
  /** Port of the tensor plane (default: a free one). */
  tensorPort?: number;
  /** Port of the live metrics (default: a free one). */
  metricsPort?: number;
  /** Folder for the sockets of both, in place of ports, for clients on this machine. */
  planeFolder?: string;
  /** Certificate, in PEM. */
  tlsCert?: string;
  /** Private key of the certificate, in PEM. */
  tlsKey?: string;
  /** Authority that must have signed the clients' certificates. */
  tlsClientCa?: string;
  /** File with the token that clients must send (default: the token in ATLAS_TOKEN). */
  tokenFile?: string;
  /** Whether it executes code that clients send or name (default: as ATLAS_TRUST_CODE says). */
  trustCode?: boolean;
  /** Seconds that a session is kept without a call, a watch or an unfinished job (default 600). */
  lease?: number;
  /** Seconds without a session after which it ends (default: never). */
  idle?: number;
  /** The least level of messages that it logs (default "info"). */
  logLevel?: LogLevel;
  /** Format of its log: text (default), or JSON with an object in each line. */
  logFormat?: (typeof LOG_FORMATS)[number];
}

/** The first arguments of a Python interpreter that runs a worker. */
export const PYTHON_MODULE = ["-m", "atlas_worker"] as const;

/** Make the arguments that start a worker. It inherits only the environment from this process. */
export function serveArguments({ host = LOOPBACK, port = 0, ...options }: ServeOptions): string[] {
  const flags = {
    listen: `${host.includes(":") ? `[${host}]` : host}:${port}`,
    device: options.device,
    threads: options.threads,
    "data-root": options.dataRoot,
    "tensor-port": options.tensorPort,
    "metrics-port": options.metricsPort,
    "plane-folder": options.planeFolder,
    "tls-cert": options.tlsCert,
    "tls-key": options.tlsKey,
    "tls-client-ca": options.tlsClientCa,
    "token-file": options.tokenFile,
    lease: options.lease,
    idle: options.idle,
    "log-level": options.logLevel,
    "log-format": options.logFormat,
  };
  return [
    "serve",
    ...Object.entries(flags).flatMap(([name, value]) =>
      value === undefined ? [] : [`--${name}`, `${value}`],
    ),
    ...(options.trustCode ? ["--trust-code"] : []),
  ];
}

/**
 * Find the reason for which a worker refused its arguments.
 *
 * @returns undefined if it ended for another reason; a refusing worker exits with 2 after a message
 */
export function refusal(
  exitCode: number | null,
  output: readonly string[],
): UsageError | undefined {
  const line = output.findLast((l) => l.startsWith(REFUSAL));
  return exitCode === 2 && line !== undefined
    ? new UsageError(line.slice(REFUSAL.length))
    : undefined;
}

/** Send a signal to a process that leads its own group, and to all processes of the group. */
export function killGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(process.platform === "win32" ? pid : -pid, signal);
  } catch {
    // It has ended already.
  }
}

/** Whether this machine has an NVIDIA GPU, judging by the files of its driver. */
export function hasNvidiaDriver(): boolean {
  return existsSync("/dev/nvidia0") || existsSync("/proc/driver/nvidia/version");
}
