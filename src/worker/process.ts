/** A worker's process, as it is started, heard, and ended: what a local and a detached one have in common. */
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

/** Arguments with which a worker is started. It inherits nothing else of ours but the environment. */
export function serveArguments({
  port = 0,
  device,
  threads,
  dataRoot,
}: {
  port?: number;
  device?: string;
  threads?: number;
  /** Folder that data files must lie in (default: where the worker is started). */
  dataRoot?: string;
}): string[] {
  return [
    ...["-m", "atlas_worker", "serve", "--listen", `127.0.0.1:${port}`],
    ...(device === undefined ? [] : ["--device", device]),
    ...(threads === undefined ? [] : ["--threads", String(threads)]),
    ...(dataRoot === undefined ? [] : ["--data-root", dataRoot]),
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
