/**
 * Look up what an experiment takes from elsewhere: weights or an algebra, of a run, a file or a
 * name.
 */
import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { extname, join, resolve } from "node:path";
import { z } from "zod";
import { namedAlgebra, namedAlgebras } from "../algebra/index.js";
import { ensureFiles } from "../data/ensure.js";
import { DATA_SETS } from "../data/index.js";
import { AtlasError, FileError, NetworkError, UsageError } from "../errors.js";
import {
  convertCheckpoint,
  inspectCheckpoint,
  type OwnTensors,
  selectWeights,
} from "../interop/index.js";
import { printable } from "../interop/printable.js";
import { explainFileSystem } from "../run/atomic.js";
import { type Checkpoint, findRun, listRuns, Run } from "../run/folder.js";
import { choices } from "../suggest.js";
import { readWhole } from "../tensor/file.js";
import {
  type NpyOptions,
  openNpy,
  readOneTensor,
  readSafetensors,
  Tensor,
  type TensorSource,
} from "../tensor/index.js";
import type { Place } from "../worker/index.js";
import { Progress } from "./progress.js";

const Matrices = z.array(z.array(z.array(z.number())));

/** A basis of a Lie algebra, [k, n, n] with k ≥ 0, and its source. */
export const Identity = z.object({ source: z.string(), basis: Matrices });
/** A basis of a Lie algebra, and its source. */
export type Identity = z.infer<typeof Identity>;

/** Forms in which a result.json, or a file of the user, can hold a basis. */
const HoldsBasis = z.union([
  Matrices,
  z.array(z.array(z.number())).transform((matrix) => [matrix]),
  z
    .object({
      algebra: z.object({
        generators: Matrices,
        symmetryCount: z.int().optional(),
        found: z.int().optional(), // of version 0.1
      }),
    })
    .transform(({ algebra: { generators, symmetryCount, found } }) =>
      generators.slice(0, symmetryCount ?? found),
    ),
  z.object({ generators: Matrices }).transform((o) => o.generators),
  z.object({ basis: Matrices }).transform((o) => o.basis),
]);

/** A result with a spectrum, which tells the size of the matrices even without generators. */
const Measured = z.object({
  algebra: z.object({ spectrum: z.array(z.object({ direction: z.array(z.unknown()) })) }),
});

/** A complete config of a run, with the name of its task. */
export type RecordedConfig = Readonly<Record<string, unknown>> & { readonly task: string };

/** Looks up the runs, files and names that a config refers to. */
export class RunLookup {
  constructor(
    readonly dir: string,
    /**
     * Reads the config of a run of the experiment, with its present names; undefined if it is of
     * another experiment, or cannot be understood. {@link configReader} makes it.
     */
    private readonly configOf: (run: Run) => RecordedConfig | undefined,
    /** Where the worker is. A spawned worker sees the files of this machine. */
    readonly worker: Place = "spawned",
    private readonly options: { progress?: Progress; signal?: AbortSignal } = {},
  ) {}

  /**
   * Fetch the files of a published data set that a folder lacks. If the worker is elsewhere, it has
   * its own files, and nothing is fetched.
   *
   * @param name of the data set, as in `atlas data NAME`
   * @param alternative what the user can do instead; added to the error if there is no network
   * @throws NetworkError, FileError, NoSpaceError, Interrupted
   */
  async fetchRecord(name: string, folder: string, alternative?: string): Promise<void> {
    const sets = DATA_SETS.filter((set) => set.record);
    const record = sets.find((set) => set.name === name)?.record;
    if (!record)
      throw new UsageError(
        `there is no published data set ${JSON.stringify(name)}`,
        `choose one of ${sets.map((set) => set.name).join(", ")}`,
      );
    if (this.worker !== "spawned") return;
    const { progress = new Progress(), signal } = this.options;
    try {
      await ensureFiles(record, folder, { onProgress: (line) => progress.info(line), signal });
    } catch (error) {
      if (error instanceof AtlasError && error.elsewhere) {
        error.remedy = `${error.remedy} with --data DIR`;
        error.elsewhere = false; // so that no caller adds a flag again
      }
      if (error instanceof NetworkError && alternative !== undefined)
        error.remedy = `${error.remedy}; ${alternative}`;
      throw error;
    }
  }

  /**
   * Get the path of a file for the worker. Remote worker: the path is on the worker, relative to
   * its data root. Loopback worker: resolved here if it exists here. Spawned worker: made absolute,
   * so that the run can be resumed from another folder.
   */
  workerPath(given: string): string {
    const here = this.worker === "spawned" || (this.worker === "loopback" && existsSync(given));
    return here ? resolve(given) : given;
  }

  /**
   * Look up a predictor for `--reuse-predictor`: the path of a file or of a run folder.
   *
   * @param given FILE, RUN, or true for the newest finished run with a `compatible` config
   * @throws UsageError if there is no such predictor
   */
  async predictor(
    given: string | true,
    compatible: (config: RecordedConfig) => boolean,
  ): Promise<string> {
    if (given === true) {
      for await (const run of this.finishedRuns(compatible))
        if (await fittedIn(run)) return run.path;
      throw new UsageError(
        `no finished run in ${resolve(this.dir)} has a predictor for these settings`,
        "leave out --reuse-predictor to train one, or give a FILE or RUN",
      );
    }
    if (await isFile(given)) return resolve(given);
    if (looksLikeFile(given)) throw missingFile("--reuse-predictor", given);
    const run = await findRun(this.dir, given);
    const config = this.configOf(run);
    if (config === undefined || !compatible(config))
      throw new UsageError(
        `the predictor of run ${run.id} was trained with other ` +
          `settings${summarise(config ?? run.config.config)}`,
        "give the same settings, or choose another run",
      );
    return run.path;
  }

  /**
   * Find the algebra of the newest finished run of this experiment that has a `compatible` config
   * and at least one generator.
   *
   * @returns undefined if there is no such run
   */
  async newestAlgebra(
    compatible: (config: RecordedConfig) => boolean,
  ): Promise<Identity | undefined> {
    for await (const run of this.finishedRuns(compatible)) {
      const basis = HoldsBasis.safeParse(await run.result()).data;
      if (basis !== undefined && basis.length > 0) return { source: run.id, basis };
    }
    return undefined;
  }

  /** List the finished runs of this experiment, the newest first. */
  private async *finishedRuns(
    compatible: (config: RecordedConfig) => boolean,
  ): AsyncGenerator<Run> {
    for (const run of (await listRuns(this.dir)).runs.reverse()) {
      const config = this.configOf(run);
      if (config && compatible(config) && (await run.status()) === "finished") yield run;
    }
  }

  /**
   * Look up an algebra for `--identity`: the generators of a run, a file (.json, .npy,
   * .safetensors), or a named algebra.
   *
   * @param n size of the matrices
   * @throws UsageError or FileError if there is no such algebra, or its matrices are not n by n
   */
  async identity(given: string, n: number): Promise<Identity> {
    const named = namedAlgebra(given, n);
    const names = `one of ${choices(given, namedAlgebras(n))}`;
    const found: Identity = named
      ? { source: given, basis: named }
      : (await isFile(given))
        ? { source: resolve(given), basis: await readBasis(resolve(given)) }
        : await this.identityOfRun(given, "--identity", names, n);
    const wrong = found.basis.find((m) => m.length !== n || m.some((row) => row.length !== n));
    if (wrong)
      throw new UsageError(
        `--identity ${given}: its matrices are ${wrong.length}x${wrong[0]?.length ?? 0}`,
        `give a basis of shape [k, ${n}, ${n}]`,
      );
    if (found.basis.flat(2).some((x) => !Number.isFinite(x)))
      throw new UsageError(`--identity ${given}: it has entries that are not finite numbers`);
    return found;
  }

  /**
   * Look up the generators of a run, or of a file, of any size.
   *
   * @param flag that refers to them
   * @param others what else the flag may be, for errors
   * @throws UsageError or FileError if there is no such algebra, or its matrices are not square
   */
  async algebra(given: string, flag: string, others: string): Promise<Identity> {
    const found: Identity = (await isFile(given))
      ? { source: resolve(given), basis: await readBasis(resolve(given)) }
      : await this.identityOfRun(given, flag, others);
    const size = found.basis[0]?.length ?? 0;
    const isSquare = (m: number[][]) => m.length === size && m.every((row) => row.length === size);
    if (!found.basis.every(isSquare))
      throw new UsageError(
        `${flag} ${given}: its matrices are not square, or of different sizes`,
        "give a basis of shape [d, n, n]",
      );
    if (found.basis.flat(2).some((x) => !Number.isFinite(x)))
      throw new UsageError(`${flag} ${given}: it has entries that are not finite numbers`);
    return found;
  }

  private async identityOfRun(
    given: string,
    flag: string,
    others: string,
    n?: number,
  ): Promise<Identity> {
    if (looksLikeFile(given)) throw missingFile(flag, given);
    let run: Run;
    try {
      run = await findRun(this.dir, given);
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      throw new UsageError(
        `${flag} ${given}: ${error.message}`,
        `give a run, a .json, .npy or .safetensors file, or ${others}`,
      );
    }
    const result = await run.result();
    if (result === undefined)
      throw new UsageError(
        `run ${run.id} is not finished`,
        `finish it with: atlas resume ${run.id}`,
      );
    const of = Measured.safeParse(result).data?.algebra.spectrum[0]?.direction.length ?? n;
    if (n !== undefined && of !== n)
      throw new UsageError(
        `${flag} ${given}: the algebra of run ${run.id} has ${of}x${of} matrices`,
        `give a basis of shape [k, ${n}, ${n}]`,
      );
    const parsed = HoldsBasis.safeParse(result);
    if (!parsed.success)
      throw new UsageError(
        `run ${run.id} has no algebra in its result`,
        "give a run of task discover_algebra or discover",
      );
    return { source: run.id, basis: parsed.data };
  }
}

const HoldsStage = z.object({ predictor: z.object({ stage: z.string().optional() }) });

/** Read the predictor that a run used, which another stage than "predictor" may have fitted. */
async function fittedIn(run: Run): Promise<Checkpoint | undefined> {
  const { stage = "predictor" } = HoldsStage.safeParse(await run.result()).data?.predictor ?? {};
  return run.checkpoint(stage);
}

/** Options of {@link readPredictor}. */
export interface ReadPredictorOptions {
  /** The predictor's tensors, which tell where in a file its weights are (default: unknown). */
  own?: () => Promise<OwnTensors>;
  /** Name of the entry with the weights, if several fit. */
  key?: string;
  /** Called with what else is in the file. */
  warn?: (line: string) => void;
}

/**
 * Read the weights of a predictor as safetensors bytes, from a run folder or a file (.safetensors,
 * .pt, .pth, or the .index.json of a file in parts).
 *
 * @throws FileError if the file is missing or truncated, reading it would execute code, or no entry
 *   of it fits the predictor, or several do
 */
export async function readPredictor(
  source: string,
  { own, key, warn = () => undefined }: ReadPredictorOptions = {},
): Promise<Uint8Array> {
  if (await isFile(join(source, "config.json"))) {
    const checkpoint = await fittedIn(await Run.open(source));
    if (checkpoint) return checkpoint.bytes;
    throw new FileError(
      `run ${source} has no undamaged predictor`,
      "train a new one without --reuse-predictor",
    );
  }
  if (own) {
    const { bytes, entry, averages, ignored } = await selectWeights(source, await own(), { key });
    if (averages.length > 0)
      warn(
        `the weights are those of ${printable(entry) || "the outermost entry"} in ${source}; it ` +
          `also holds ${abridge(averages)}, to be chosen with --weights-key`,
      );
    if (ignored.length > 0) warn(`not used of ${source}: ${abridge(ignored)}`);
    return bytes;
  }
  if ([".pt", ".pth", ".bin", ".ckpt"].includes(extname(source).toLowerCase()))
    return convertCheckpoint(source);
  const bytes = await readBytes(source);
  readSafetensors(bytes, source); // throws for a truncated file
  return bytes;
}

/**
 * List the tensors of a predictor from {@link RunLookup.predictor} that is a file in the layout of
 * the reference code.
 *
 * @returns undefined if it is a run, or a file in another layout
 * @throws as {@link readPredictor}
 */
export async function referenceTensors(
  source: string | false,
  key?: string,
): Promise<string[] | undefined> {
  if (source === false || !(await isFile(source))) return undefined;
  const { reference, tensors } = await inspectCheckpoint(source, { key });
  return reference === null ? undefined : tensors.map(({ name }) => name);
}

async function readBasis(path: string): Promise<number[][][]> {
  const basis = HoldsBasis.safeParse(await readBasisValue(path));
  if (basis.success) return basis.data;
  throw new FileError(
    `${path} holds no basis of a Lie algebra`,
    "give matrices of shape [k, n, n] (.json, .npy, .safetensors) or a result.json with an algebra",
  );
}

async function readBasisValue(path: string): Promise<unknown> {
  if (path.endsWith(".npy")) return nested(path, await openArray(path));
  if (path.endsWith(".safetensors")) {
    const choose = (names: string[]) => (names.includes("generators") ? "generators" : names[0]);
    return nested(path, await explained(path, () => readOneTensor(path, choose)));
  }
  const bytes = await readBytes(path);
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new FileError(
      `${path} is not JSON: ${(error as Error).message}`,
      "give a .json, .npy or .safetensors file",
    );
  }
}

/**
 * Open an array of the user, in a .npy file of any size. A large one is read when it is sent.
 *
 * @throws FileError if it cannot be read
 */
export async function openArray(path: string, options?: NpyOptions): Promise<TensorSource> {
  return explained(path, () => openNpy(path, options));
}

/** Read a file. @throws FileError if it cannot be read */
export function readBytes(path: string): Promise<Uint8Array> {
  return explained(path, () => readWhole(path));
}

async function explained<T>(path: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    throw explainFileSystem(error, "read", path);
  }
}

/** Numbers of the largest basis that is read. */
const LARGEST_BASIS = 1e6;

function nested(path: string, tensor: TensorSource | undefined): unknown {
  if (tensor === undefined) return undefined;
  const { shape } = tensor;
  if (!(tensor instanceof Tensor) || tensor.data.length > LARGEST_BASIS)
    throw new FileError(
      `${path} holds an array of shape [${shape.join(", ")}], too large for a basis`,
      "give matrices of shape [k, n, n]",
    );
  return tensor.toNested();
}

function abridge(names: readonly string[]): string {
  const shown = names.slice(0, 5).map((name) => printable(name));
  return shown.join(", ") + (names.length > 5 ? ` and ${names.length - 5} more` : "");
}

export async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() ?? false;
}

/** Whether a text that is no existing file looks like the name of one. */
function looksLikeFile(text: string): boolean {
  return [".json", ".npy", ".safetensors", ".pt", ".pth", ".bin", ".ckpt"].includes(
    extname(text).toLowerCase(),
  );
}

function missingFile(flag: string, path: string): UsageError {
  return new UsageError(`${flag} ${path}: there is no such file`, "check the path");
}

/**
 * Write the settings of a run in short: " (layout 1, architecture mlp)", without block parameters.
 */
function summarise(config: Readonly<Record<string, unknown>>): string {
  const told = Object.entries(config)
    .filter(([key, value]) => !key.includes(".") && ["string", "number"].includes(typeof value))
    .map(([key, value]) => `${key} ${String(value)}`);
  return told.length === 0 ? "" : ` (${told.join(", ")})`;
}
