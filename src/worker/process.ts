/** A worker's process, as it is started, heard, and ended: what local, contained and detached ones have in common. */
import { existsSync } from "node:fs";
import { z } from "zod";
import { UsageError } from "../errors.js";

const REFUSAL = "atlas_worker: ";

/** The line on stdout with which a worker says that it serves. */
const Ready = z.object({
  event: z.literal("ready"),
  address: z.string(),
  protocol_version: z.int(),
  pid: z.int(),
});
export type Ready = z.infer<typeof Ready>;

/** The {@link Ready} that a line of output is, if it is one. */
export function parseReady(line: string): Ready | undefined {
  if (!line.startsWith("{")) return undefined;
  try {
    return Ready.safeParse(JSON.parse(line)).data;
  } catch {
    return undefined;
  }
}

export const LOOPBACK = "127.0.0.1";

export const LOG_LEVELS = ["debug", "info", "warning", "error"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export const LOG_FORMATS = ["text", "json"] as const;

/** How a worker is to serve. Paths are absolute. */
export interface ServeOptions {
  /** Address to listen on (default: the loopback interface's; any other needs TLS and a token). */
  host?: string;
  /** Of the gRPC server (default: a free one). */
  port?: number;
  device?: string;
  threads?: number;
  /** Folder that data files must lie in (default: where the worker is started). */
  dataRoot?: string;
  /** Of the tensor plane (default: a free one). */
  tensorPort?: number;
  /** Of the live metrics (default: a free one). */
  metricsPort?: number;
  /** A folder of our own for the planes' sockets, in place of ports: for clients on this machine. */
  planeFolder?: string;
  /** Certificate and private key, in PEM. */
  tlsCert?: string;
  tlsKey?: string;
  /** Who must have signed the clients' certificates. */
  tlsClientCa?: string;
  /** The token that clients must have (default: that in ATLAS_TOKEN). */
  tokenFile?: string;
  /** Whether it executes code that its clients send or name (default: as ATLAS_TRUST_CODE says). */
  trustCode?: boolean;
  /** Seconds that a session is kept without a call, a watch or an unfinished job (default 600). */
  lease?: number;
  /** The least that it logs (default "info"). */
  logLevel?: LogLevel;
  /** As what: text (default), or an object of JSON a line. */
  logFormat?: (typeof LOG_FORMATS)[number];
}

/** Before {@link serveArguments}, what makes a Python interpreter a worker. */
export const PYTHON_MODULE = ["-m", "atlas_worker"] as const;

/** Arguments with which a worker is started. It inherits nothing else of ours but the environment. */
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

/** Why a worker that has ended would not do as its arguments say, if that is why: it then exits with 2 after a line that says so. */
export function refusal(exitCode: number | null, output: readonly string[]): UsageError | undefined {
  const line = output.findLast((l) => l.startsWith(REFUSAL));
  return exitCode === 2 && line !== undefined ? new UsageError(line.slice(REFUSAL.length)) : undefined;
}

/** Send a signal to a process that leads its own group, and to all that it started. */
export function killGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(process.platform === "win32" ? pid : -pid, signal);
  } catch {
    // It has ended already.
  }
}

/** Whether this machine has an NVIDIA GPU, as far as its driver's files tell. */
export function hasNvidiaDriver(): boolean {
  return existsSync("/dev/nvidia0") || existsSync("/proc/driver/nvidia/version");
}
