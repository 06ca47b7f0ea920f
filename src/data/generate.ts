/** Generate data with a program of the worker's package, in its own process. */
import { resolve } from "node:path";
import { execa } from "execa";
import { z } from "zod";
import { AtlasError, FileError, Interrupted, NoSpaceError, UsageError } from "../errors.js";
import { childEnvironment } from "../setup/environment.mjs";
import { ensureVenv } from "../setup/venv.js";
import { killGroup } from "../worker/process.js";
import type { Generator } from "./dataset.js";

const Step = z.object({ file: z.string(), done: z.int(), total: z.int() });
/** The remedy if the program ends without an explanation. */
export const UNEXPLAINED = "check that there is enough memory";
const Complaint = z.object({ error: z.string(), remedy: z.string(), kind: z.string() });
const Generated = z.object({
  files: z.array(z.object({ path: z.string(), rows: z.int(), bytes: z.int() })),
  seconds: z.number(),
  seed: z.int(),
});
/** The generated files. */
export type Generated = z.infer<typeof Generated>;

/** Options of {@link generate}. */
export interface GenerateOptions {
  count: number;
  /** Folder for the files, which is made if it is missing. */
  out: string;
  seed: number;
  /** Number of processes (default: one for each core). */
  processes?: number;
  /** Overwrite existing files. */
  force?: boolean;
  /** Make the control, which lacks the symmetry. */
  control?: boolean;
  /** Called with every line of the environment's set-up. */
  onProgress?: (line: string) => void;
  /** Called when rows of a file are done. */
  onStep?: (step: z.infer<typeof Step>) => void;
  /** Called with all other output of the program. */
  onLog?: (line: string) => void;
  /** When aborted, the program stops, and no file is left. */
  signal?: AbortSignal;
}

/**
 * Generate the files of a data set. They appear together, when all are complete.
 *
 * @throws UsageError, FileError if the folder cannot be written to or has the files already
 * @throws NoSpaceError, SetupError, Interrupted
 */
export async function generate(generator: Generator, options: GenerateOptions): Promise<Generated> {
  const { count, out, seed, processes, force, control, onProgress, onStep, onLog, signal } =
    options;
  const { python, workerDir } = await ensureVenv({ extras: generator.extras, onProgress });
  if (signal?.aborted) throw new Interrupted("stopped; nothing was written");
  const args = [
    ...["-m", generator.module, "--parent-stdin", generator.countFlag, String(count)],
    ...["--out", resolve(out), "--seed", String(seed)],
    ...(processes === undefined ? [] : ["--processes", String(processes)]),
    ...(force ? ["--force"] : []),
    ...(control ? ["--control"] : []),
  ];
  // With its own process group, Ctrl-C reaches it only through this process. It ends with its
  // stdin.
  const child = execa(python, args, {
    cwd: workerDir,
    env: childEnvironment({ PYTHONPATH: workerDir, PYTHONDONTWRITEBYTECODE: "1" }),
    extendEnv: false,
    stdin: "pipe",
    buffer: false,
    reject: false,
    detached: process.platform !== "win32",
  });
  child.stdin.on("error", () => {}); // stdin is only closed, never written
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
      UNEXPLAINED,
    );
  } finally {
    signal?.removeEventListener("abort", stop);
    process.off("exit", killAtExit);
  }
}

function explain(
  { error, remedy, kind }: z.infer<typeof Complaint>,
  exitCode?: number,
): AtlasError {
  if (kind === "no_space") return new NoSpaceError(error, remedy, { elsewhere: true });
  if (kind === "process_killed") return new AtlasError(error, remedy, { setting: "processes" });
  if (exitCode !== 2) return new AtlasError(error, remedy);
  if (kind === "file") return new FileError(error, remedy, { elsewhere: true });
  if (kind === "exists")
    return new FileError(error, remedy, { elsewhere: true, overwritable: true });
  return new UsageError(error, remedy);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
