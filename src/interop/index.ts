/**
 * Files of other programs: PyTorch checkpoints (.pt, .pth), safetensors files, exported predictors.
 */
import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { extname, join, resolve } from "node:path";
import { z } from "zod";
import { FileError, NoSpaceError, UsageError } from "../errors.js";
import { errorCode, explainFileSystem, replaceFile } from "../run/atomic.js";
import { readWhole } from "../tensor/file.js";
import { callPython } from "./bridge.js";

const Summary = z.object({
  format: z.enum(["pytorch", "safetensors"]),
  tensors: z.array(
    z.object({ name: z.string(), dtype: z.string(), shape: z.array(z.int()), bytes: z.number() }),
  ),
  left_out: z.array(z.string()),
  metadata: z.record(z.string(), z.string()),
  reference: z.string().nullable(),
});

const Exported = z.object({
  format: z.enum(["pt", "safetensors", "torchscript", "export"]),
  kind: z.string(),
  parameters: z.int(),
  takes: z.array(z.int()),
  gives: z.array(z.int()),
  halo: z.int(),
});
/**
 * A predictor that was exported. For a program, `takes` and `gives` are shapes of one sample,
 * float32.
 */
export type ExportedPredictor = z.infer<typeof Exported>;

/** Formats of an exported predictor: its weights, or a program that computes it. */
export const EXPORT_FORMATS = Exported.shape.format.options;
/** A format of an exported predictor. */
export type ExportFormat = ExportedPredictor["format"];

/** The contents of a checkpoint, without the numbers. */
export interface CheckpointSummary {
  /** Format, found from the file's contents. */
  format: "pytorch" | "safetensors";
  /** Tensors by dotted name; `dtype` as in PyTorch ("float32"), `bytes` of the numbers. */
  tensors: { name: string; dtype: string; shape: number[]; bytes: number }[];
  /** Entries that are not weights, such as an optimiser's state. */
  leftOut: string[];
  /** Metadata of a .safetensors file. */
  metadata: Record<string, string>;
  /** The network of the reference code with these tensor names. */
  reference: string | null;
}

/** Options for reading checkpoints. */
export interface InteropOptions {
  /** Called with every line of the Python environment's set-up, if it must be made first. */
  onProgress?: (line: string) => void;
  /** Milliseconds that reading a file may take (default: 60 000, plus 100 for each megabyte). */
  limitMs?: number;
}

const LIMIT_MS = 60_000;
const LIMIT_MS_PER_BYTE = 100 / 1e6;

/**
 * List the tensors in a .pt, .pth or .safetensors file. No worker is needed, and no code in the
 * file is executed.
 *
 * @param options.key name of the entry to list (default: the weights)
 * @throws FileError if the file is missing, damaged, not a checkpoint, or would execute code
 * @throws SetupError if Python is not available
 */
export async function inspectCheckpoint(
  path: string,
  { key = "", ...options }: InteropOptions & { key?: string } = {},
): Promise<CheckpointSummary> {
  const limited = await checkReadable(path, options);
  return summary(await call("inspect_checkpoint", [resolve(path), key], path, limited));
}

/** The tensors of a network: whether their numbers are real, and their shapes. */
export type OwnTensors = Readonly<Record<string, readonly [floating: boolean, shape: number[]]>>;

const Chosen = z.object({
  entry: z.string(),
  averages: z.array(z.string()),
  ignored: z.array(z.string()),
});
/**
 * Weights that were chosen from a checkpoint: the bytes of a .safetensors file, the entry that held
 * them, entries with averages of them, and other tensors that were left out.
 */
export type ChosenWeights = z.infer<typeof Chosen> & { bytes: Uint8Array };

/**
 * Find a network's weights in a checkpoint. Their names may have a prefix that all share, and they
 * may lie in an entry of any name.
 *
 * @param options.key name of the entry (default: the only one that fits)
 * @throws FileError if no entry fits, or several do
 * @throws as {@link inspectCheckpoint}
 */
export async function selectWeights(
  path: string,
  own: OwnTensors,
  { key = "", ...options }: InteropOptions & { key?: string } = {},
): Promise<ChosenWeights> {
  const limited = await checkReadable(path, options);
  return inTemporary(async (target) => {
    const args = [resolve(path), target, JSON.stringify(own), key];
    const chosen = Chosen.parse(await call("select_weights", args, path, limited));
    return { ...chosen, bytes: await readWhole(target) };
  });
}

/**
 * Convert the weights in a checkpoint to the bytes of a .safetensors file.
 *
 * @throws as {@link inspectCheckpoint}
 */
export async function convertCheckpoint(
  path: string,
  options: InteropOptions = {},
): Promise<Uint8Array> {
  const limited = await checkReadable(path, options);
  return inTemporary(async (target) => {
    await call("convert_checkpoint", [resolve(path), target, "safetensors"], path, limited);
    return readWhole(target);
  });
}

/** Do some work with a file that exists only meanwhile. */
async function inTemporary<T>(work: (path: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), "atlas-convert-"));
  try {
    return await work(join(folder, "weights.safetensors"));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * Convert a file between .pt or .pth and .safetensors. The extension of `to` decides the format.
 * The new file appears when it is complete.
 *
 * @throws UsageError if `to` exists (unless `force`) or has another extension
 * @throws as {@link inspectCheckpoint}
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
      `cannot tell the format of ${to}`,
      "give it the extension .pt, .pth or .safetensors",
    );
  const limited = await checkReadable(from, options);
  return write(to, force, async (temporary) =>
    summary(
      await call(
        "convert_checkpoint",
        [resolve(from), temporary, format],
        from,
        limited,
        temporary,
      ),
    ),
  );
}

/**
 * Export a predictor for other programs. The new file appears when it is complete.
 *
 * @param checkpoint bytes of a run's checkpoint of the predictor
 * @throws UsageError if `to` exists (unless `force`)
 * @throws FileError if the predictor cannot be written in this format
 * @throws SetupError if Python is not available
 */
export async function exportPredictor(
  checkpoint: Uint8Array,
  to: string,
  format: ExportFormat,
  { force = false, ...options }: InteropOptions & { force?: boolean } = {},
): Promise<ExportedPredictor> {
  return inTemporary(async (source) => {
    await writeFile(source, checkpoint);
    return write(to, force, async (temporary) =>
      Exported.parse(
        await call("export_predictor", [source, temporary, format], source, options, temporary),
      ),
    );
  });
}

/** Let Python write a file, because it may be too large for Node's memory. */
async function write<T>(
  to: string,
  force: boolean,
  work: (temporary: string) => Promise<T>,
): Promise<T> {
  if (!force && (await exists(to)))
    throw new UsageError(`${to} exists already`, "choose another name, or overwrite it", {
      overwritable: true,
    });
  try {
    return await replaceFile(resolve(to), work);
  } catch (error) {
    throw explainTarget(error, to);
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

/** Refuse missing files and folders without starting Python. @returns options with a time limit */
async function checkReadable(path: string, options: InteropOptions): Promise<InteropOptions> {
  const found = await stat(path).catch((error) => {
    throw explainFileSystem(error, "read", path);
  });
  if (!found.isFile())
    throw new FileError(`${path} is not a file`, "give a .pt, .pth or .safetensors file");
  return { limitMs: LIMIT_MS + LIMIT_MS_PER_BYTE * found.size, ...options };
}

function explainTarget(error: unknown, to: string): unknown {
  if (error instanceof FileError) return error; // it is about the source
  if (errorCode(error) === "ENOENT")
    return new FileError(
      `cannot write ${to}: its folder does not exist`,
      "make the folder, or choose another",
      { cause: error, elsewhere: true },
    );
  const explained = explainFileSystem(error, "write", to);
  if (explained instanceof NoSpaceError) {
    explained.remedy = `${explained.remedy}, or choose another folder`;
    explained.elsewhere = true;
  }
  return explained;
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
