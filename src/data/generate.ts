/** Data made by a program of the worker's package, in a process of its own in the worker's venv. */
import { resolve } from "node:path";
import { execa } from "execa";
import { z } from "zod";
import { AtlasError, FileError, Interrupted, NoSpaceError, UsageError } from "../errors.js";
import { ensureVenv } from "../setup/venv.js";
import { killGroup } from "../worker/process.js";
import type { Generator } from "./dataset.js";

const Step = z.object({ file: z.string(), done: z.int(), total: z.int() });
const Complaint = z.object({ error: z.string(), remedy: z.string(), kind: z.string() });
const Generated = z.object({
  files: z.array(z.object({ path: z.string(), rows: z.int(), bytes: z.int() })),
  seconds: z.number(),
  seed: z.int(),
});
export type Generated = z.infer<typeof Generated>;

export interface GenerateOptions {
  count: number;
  /** Folder for the files; made when missing. */
  out: string;
  seed: number;
  /** Processes to make them in (default: as many as there are cores). */
  processes?: number;
  /** Overwrite files that are there. */
  force?: boolean;
  /** Tells where the set-up reports to. */
  onProgress?: (line: string) => void;
  onStep?: (step: z.infer<typeof Step>) => void;
  /** Whatever else the program prints. */
  onLog?: (line: string) => void;
  /** Stops it; nothing is left of the files then. */
  signal?: AbortSignal;
}

/**
 * Make the files of a data set. They appear together, when all are whole.
 *
 * @throws UsageError, FileError for a folder that cannot be written to or has the files already
 * @throws NoSpaceError, SetupError, Interrupted
 */
export async function generate(generator: Generator, options: GenerateOptions): Promise<Generated> {
  const { count, out, seed, processes, force, onProgress, onStep, onLog, signal } = options;
  const { python, workerDir } = await ensureVenv({ extras: generator.extras, onProgress });
  if (signal?.aborted) throw new Interrupted("stopped; nothing was written");
  const args = [
    ...["-m", generator.module, "--parent-stdin", generator.countFlag, String(count)],
    ...["--out", resolve(out), "--seed", String(seed)],
    ...(processes === undefined ? [] : ["--processes", String(processes)]),
    ...(force ? ["--force"] : []),
  ];
  // Its own process group, so that Ctrl-C reaches it through us only. It ends by itself when its stdin does.
  const child = execa(python, args, {
    cwd: workerDir,
    env: { PYTHONPATH: workerDir, PYTHONDONTWRITEBYTECODE: "1" },
    stdin: "pipe",
    buffer: false,
    reject: false,
    detached: process.platform !== "win32",
  });
  child.stdin.on("error", () => {}); // it is only ever closed
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr = (stderr + text).slice(-10_000);
  });
  const stop = () => void child.kill("SIGTERM");
  const killAtExit = () => killGroup(child.pid, "SIGKILL");
  signal?.addEventListener("abort", stop, { once: true });
  process.once("exit", killAtExit);
  let generated: Generated | undefined;
  let complaint: z.infer<typeof Complaint> | undefined;
  try {
    for await (const text of child) {
      const line = parse(String(text));
      const step = Step.safeParse(line).data;
      if (step) onStep?.(step);
      else if (line === undefined) onLog?.(String(text));
      generated ??= Generated.safeParse(line).data;
      complaint ??= Complaint.safeParse(line).data;
    }
    const ended = await child;
    if (ended.exitCode === 0 && generated) return generated;
    if (signal?.aborted) throw new Interrupted("stopped; nothing was written");
    if (complaint) throw explain(complaint, ended.exitCode);
    const lines = stderr.trim().split("\n");
    for (const line of lines) onLog?.(line);
    const said = lines.at(-1) || "it said nothing";
    throw new AtlasError(
      `${generator.module} ended with ${ended.signal ?? `exit code ${ended.exitCode}`} (${said})`,
      "was there enough memory? run with --debug to see all that it said",
    );
  } finally {
    signal?.removeEventListener("abort", stop);
    process.off("exit", killAtExit);
  }
}

function explain({ error, remedy, kind }: z.infer<typeof Complaint>, exitCode?: number): AtlasError {
  if (kind === "no_space") return new NoSpaceError(error, remedy);
  if (exitCode !== 2) return new AtlasError(error, remedy);
  return kind === "file" ? new FileError(error, remedy) : new UsageError(error, remedy);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
