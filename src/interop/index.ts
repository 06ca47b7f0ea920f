/** What comes from, and goes to, other programs' files: PyTorch checkpoints (.pt, .pth) and safetensors. */
import { randomBytes } from "node:crypto";
import { mkdtemp, open, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, extname, join, resolve } from "node:path";
import { z } from "zod";
import { FileError, UsageError } from "../errors.js";
import { errorCode, explainFileSystem, syncFolder, TEMPORARY_SUFFIX } from "../run/atomic.js";
import { callPython } from "./bridge.js";

const Summary = z.object({
  format: z.enum(["pytorch", "safetensors"]),
  tensors: z.array(
    z.object({ name: z.string(), dtype: z.string(), shape: z.array(z.int()), bytes: z.number() }),
  ),
  left_out: z.array(z.string()),
  metadata: z.record(z.string(), z.string()),
  published: z.string().nullable(),
});

const Exported = z.object({
  format: z.enum(["pt", "safetensors", "torchscript", "export"]),
  kind: z.string(),
  parameters: z.int(),
  takes: z.array(z.int()),
  gives: z.array(z.int()),
  reach: z.int(),
});
/** A predictor that was written for other programs. Of a program, `takes` and `gives` are the shapes of one sample, float32. */
export type ExportedPredictor = z.infer<typeof Exported>;

/** What a predictor can be written as: its weights, or the function that it computes. */
export const EXPORT_FORMATS = Exported.shape.format.options;
export type ExportFormat = ExportedPredictor["format"];

/** A checkpoint without its numbers. */
export interface CheckpointSummary {
  /** Told from the file's contents, not from its name. */
  format: "pytorch" | "safetensors";
  /** By dotted name; `dtype` as PyTorch names it ("float32"), `bytes` of its numbers. */
  tensors: { name: string; dtype: string; shape: number[]; bytes: number }[];
  /** Entries that are no weights: an optimiser's state, an epoch. */
  leftOut: string[];
  /** What a .safetensors file says about itself. */
  metadata: Record<string, string>;
  /** The network of the method's published code that has such keys. */
  published: string | null;
}

export interface InteropOptions {
  /** Told what the set-up of the Python environment does, when it has to be made first. */
  onProgress?: (line: string) => void;
  /** Milliseconds that reading a file may take (default: 60 000, and 100 for each megabyte of it). */
  limitMs?: number;
}

const LIMIT_MS = 60_000;
const LIMIT_MS_PER_BYTE = 100 / 1e6;

/**
 * List the tensors in a .pt, .pth (weights only; no code is executed) or .safetensors file. No worker is needed.
 *
 * @throws FileError when it is missing, damaged, no checkpoint, or would execute code; SetupError when there is no Python to read it
 */
export async function inspectCheckpoint(
  path: string,
  options: InteropOptions = {},
): Promise<CheckpointSummary> {
  const limited = await checkReadable(path, options);
  return summary(await call("inspect_checkpoint", [resolve(path)], path, limited));
}

/**
 * A checkpoint's weights as the bytes of a .safetensors file.
 *
 * @throws as {@link inspectCheckpoint}
 */
export async function convertCheckpoint(path: string, options: InteropOptions = {}): Promise<Uint8Array> {
  const limited = await checkReadable(path, options);
  const folder = await mkdtemp(join(tmpdir(), "atlas-convert-"));
  const target = join(folder, "weights.safetensors");
  try {
    await call("convert_checkpoint", [resolve(path), target, "safetensors"], path, limited);
    return await readFile(target);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * Convert between .pt or .pth and .safetensors; `to`'s extension says which it becomes. It appears whole or not at all.
 *
 * @throws UsageError when `to` exists (unless `force`) or has another extension; else as {@link inspectCheckpoint}
 */
export async function convertCheckpointFile(
  from: string,
  to: string,
  { force = false, ...options }: InteropOptions & { force?: boolean } = {},
): Promise<CheckpointSummary> {
  const format = { ".safetensors": "safetensors", ".pt": "pytorch", ".pth": "pytorch" }[
    extname(to).toLowerCase()
  ];
  if (format === undefined)
    throw new UsageError(
      `cannot tell what ${to} is to be`,
      "give it the extension .pt, .pth or .safetensors",
    );
  const limited = await checkReadable(from, options);
  return write(to, force, async (temporary) =>
    summary(await call("convert_checkpoint", [resolve(from), temporary, format], from, limited, temporary)),
  );
}

/**
 * Write a predictor, from the bytes of a run's checkpoint of it, for other programs; `to` appears whole or not at all.
 *
 * @throws UsageError when `to` exists (unless `force`); FileError when it cannot be written in this format; SetupError
 */
export async function exportPredictor(
  checkpoint: Uint8Array,
  to: string,
  format: ExportFormat,
  { force = false, ...options }: InteropOptions & { force?: boolean } = {},
): Promise<ExportedPredictor> {
  const folder = await mkdtemp(join(tmpdir(), "atlas-export-"));
  const source = join(folder, "predictor.safetensors");
  try {
    await writeFile(source, checkpoint);
    return await write(to, force, async (temporary) =>
      Exported.parse(await call("export_predictor", [source, temporary, format], source, options, temporary)),
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Have Python write a file, as it may be larger than what Node can hold; then it is moved as src/run/atomic.ts does it. */
async function write<T>(to: string, force: boolean, work: (temporary: string) => Promise<T>): Promise<T> {
  if (!force && (await exists(to)))
    throw new UsageError(`${to} exists already`, "choose another name, or overwrite it with --force");
  const target = resolve(to);
  const temporary = join(
    dirname(target),
    `.${basename(target)}.${randomBytes(4).toString("hex")}${TEMPORARY_SUFFIX}`,
  );
  try {
    // Now, so that a folder that cannot be written to is known before anything is read.
    const created = await open(temporary, "wx");
    const { mode } = await created.stat().finally(() => created.close());
    const result = await work(temporary);
    const file = await open(temporary, "r+");
    try {
      await file.chmod(mode); // safetensors makes files that only their owner can read
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, target);
    await syncFolder(dirname(target));
    return result;
  } catch (error) {
    throw explainTarget(error, to);
  } finally {
    await rm(temporary, { force: true }).catch(() => undefined);
  }
}

async function call(
  name: Parameters<typeof callPython>[0],
  args: readonly string[],
  source: string,
  options: InteropOptions,
  target?: string,
): Promise<unknown> {
  try {
    return await callPython(name, args, options);
  } catch (error) {
    const path = error instanceof Error && "path" in error ? error.path : undefined;
    if (target !== undefined && path !== resolve(source)) throw error;
    throw explainFileSystem(error, "read", source);
  }
}

/** Missing files and folders need no Python to be refused. The options, with a limit for this file's size. */
async function checkReadable(path: string, options: InteropOptions): Promise<InteropOptions> {
  const found = await stat(path).catch((error) => {
    throw explainFileSystem(error, "read", path);
  });
  if (!found.isFile()) throw new FileError(`${path} is not a file`, "give a .pt, .pth or .safetensors file");
  return { limitMs: LIMIT_MS + LIMIT_MS_PER_BYTE * found.size, ...options };
}

function explainTarget(error: unknown, to: string): unknown {
  const explained = explainFileSystem(error, "write", to);
  if (explained === error || !(explained instanceof FileError)) return error;
  // Those are about runs.
  if (errorCode(error) === "ENOENT")
    return new FileError(
      `cannot write ${to}: its folder does not exist`,
      "make the folder, or choose another",
      {
        cause: error,
      },
    );
  const full = ["ENOSPC", "EDQUOT"].includes(errorCode(error) ?? "");
  const remedy = full ? "free some space, or choose another folder" : "choose another folder";
  return new FileError(explained.message, remedy, { cause: error });
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

function summary(value: unknown): CheckpointSummary {
  const { left_out, ...rest } = Summary.parse(value);
  return { ...rest, leftOut: left_out };
}
