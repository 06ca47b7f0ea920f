/** A worker's process, as it is started, heard, and ended: what a local and a detached one have in common. */
import { z } from "zod";

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
}: {
  port?: number;
  device?: string;
  threads?: number;
}): string[] {
  return [
    ...["-m", "atlas_worker", "serve", "--host", "127.0.0.1", "--port", String(port)],
    ...(device === undefined ? [] : ["--device", device]),
    ...(threads === undefined ? [] : ["--threads", String(threads)]),
  ];
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
