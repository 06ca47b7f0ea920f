/** What an experiment takes from elsewhere: a predictor's weights, an identity component; from a run, a file, or by name. */
import { existsSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { extname, join, resolve } from "node:path";
import { z } from "zod";
import { namedAlgebra, namedAlgebras } from "../algebra/index.js";
import { ensureFiles } from "../data/ensure.js";
import { DATA_SETS } from "../data/index.js";
import { FileError, UsageError } from "../errors.js";
import { convertCheckpoint, inspectCheckpoint } from "../interop/index.js";
import { explainFileSystem } from "../run/atomic.js";
import { findRun, listRuns, Run } from "../run/folder.js";
import { readNpy, readSafetensors } from "../tensor/index.js";
import type { Place } from "../worker/index.js";
import { Progress } from "./progress.js";

const Matrices = z.array(z.array(z.array(z.number())));

/** A basis of a Lie algebra and where it came from; `basis` is [k, n, n], k may be 0. */
export const Identity = z.object({ source: z.string(), basis: Matrices });
export type Identity = z.infer<typeof Identity>;

/** Parts of a result.json, or of a file a user wrote, that hold a basis. */
const HoldsBasis = z.union([
  Matrices,
  z.array(z.array(z.number())).transform((matrix) => [matrix]),
  z
    .object({ algebra: z.object({ generators: Matrices, found: z.int().optional() }) })
    .transform(({ algebra }) => algebra.generators.slice(0, algebra.found)),
  z.object({ generators: Matrices }).transform((o) => o.generators),
  z.object({ basis: Matrices }).transform((o) => o.basis),
]);

/** A result whose algebra has a spectrum, which tells the size of its matrices even when it has no generators. */
const Measured = z.object({
  algebra: z.object({ spectrum: z.array(z.object({ direction: z.array(z.unknown()) })) }),
});

/** The runs folder, and what can be looked up in it. */
export class Runs {
  constructor(
    readonly dir: string,
    /** Name of the experiment that asks. */
    private readonly experiment: string,
    /** Where what computes is: if it is ours, it sees the same files. */
    private readonly worker: Place = "ours",
    private readonly options: { progress?: Progress; signal?: AbortSignal } = {},
  ) {}

  /**
   * See to it that a folder has the files of a published data set: those that it lacks are fetched. A worker elsewhere has files of its own, and
   * is left alone.
   *
   * @param name as `atlas data` knows it
   * @throws NetworkError, FileError, NoSpaceError, Interrupted
   */
  async published(name: string, folder: string): Promise<void> {
    const sets = DATA_SETS.filter((set) => set.record);
    const record = sets.find((set) => set.name === name)?.record;
    if (!record)
      throw new UsageError(
        `there is no published data set ${JSON.stringify(name)}`,
        `choose one of ${sets.map((set) => set.name).join(", ")}`,
      );
    if (this.worker !== "ours") return;
    const { progress = new Progress(), signal } = this.options;
    await ensureFiles(record, folder, { onProgress: (line) => progress.info(line), signal });
  }

  /**
   * A path that the worker is to read: made absolute when it is one of this machine, so that the run can be resumed from elsewhere. On another
   * machine it is of its files, and a relative one starts in its data root; near by it is what there is here.
   */
  workerPath(given: string): string {
    return this.worker === "ours" || (this.worker === "near" && existsSync(given)) ? resolve(given) : given;
  }

  /**
   * What `--reuse-predictor` refers to: a path of a file or of a run folder.
   *
   * @param given FILE, RUN, or true for the newest finished run whose config satisfies `compatible`
   * @throws UsageError when there is no such thing
   */
  async predictor(
    given: string | true,
    compatible: (config: Run["config"]["config"]) => boolean,
  ): Promise<string> {
    if (given === true) {
      for (const run of (await listRuns(this.dir)).runs.reverse())
        if (
          run.config.experiment === this.experiment &&
          compatible(run.config.config) &&
          (await run.status()) === "finished" &&
          (await run.checkpoint("predictor"))
        )
          return run.path;
      throw new UsageError(
        `no finished run in ${resolve(this.dir)} has a predictor for these settings`,
        "leave out --reuse-predictor to train one, or give a FILE or RUN",
      );
    }
    if (await isFile(given)) return resolve(given);
    if (looksLikeFile(given)) throw missingFile("--reuse-predictor", given);
    const run = await findRun(this.dir, given);
    if (!compatible(run.config.config))
      throw new UsageError(
        `the predictor of run ${run.id} was trained for other settings${summarise(run.config.config)}`,
        "choose the same ones, or another run",
      );
    return run.path;
  }

  /**
   * The identity component that `--identity` refers to: a run's discovered generators, a file (.json, .npy, .safetensors), or a named algebra.
   *
   * @param n size of its matrices
   * @throws UsageError or FileError when there is none, or its matrices are not n by n
   */
  async identity(given: string, n: number): Promise<Identity> {
    const named = namedAlgebra(given, n);
    const found: Identity = named
      ? { source: given, basis: named }
      : (await isFile(given))
        ? { source: resolve(given), basis: await readBasis(resolve(given)) }
        : await this.identityOfRun(given, n);
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

  private async identityOfRun(given: string, n: number): Promise<Identity> {
    if (looksLikeFile(given)) throw missingFile("--identity", given);
    let run: Run;
    try {
      run = await findRun(this.dir, given);
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      throw new UsageError(
        `--identity ${given}: ${error.message}`,
        `give a run, a .json, .npy or .safetensors file, or one of ${namedAlgebras(n).join(", ")}`,
      );
    }
    const result = await run.result();
    if (result === undefined)
      throw new UsageError(`run ${run.id} is not finished`, `finish it with: atlas resume ${run.id}`);
    const of = Measured.safeParse(result).data?.algebra.spectrum[0]?.direction.length ?? n;
    if (of !== n)
      throw new UsageError(
        `--identity ${given}: the algebra of run ${run.id} is of ${of}x${of} matrices`,
        `give a basis of shape [k, ${n}, ${n}]`,
      );
    const parsed = HoldsBasis.safeParse(result);
    if (!parsed.success)
      throw new UsageError(
        `run ${run.id} has no algebra in its result`,
        "give a run of --task discover_algebra or discover",
      );
    return { source: run.id, basis: parsed.data };
  }
}

/**
 * A predictor's weights as safetensors bytes, from a run folder or a file (.safetensors; .pt and .pth are converted, weights only).
 *
 * @throws FileError when it is missing, truncated, or would need code to be executed
 */
export async function readPredictor(source: string): Promise<Uint8Array> {
  if (await isFile(join(source, "config.json"))) {
    const checkpoint = await (await Run.open(source)).checkpoint("predictor");
    if (checkpoint) return checkpoint.bytes;
    throw new FileError(
      `run ${source} has no undamaged predictor`,
      "train one anew without --reuse-predictor",
    );
  }
  if ([".pt", ".pth", ".bin", ".ckpt"].includes(extname(source).toLowerCase()))
    return convertCheckpoint(source);
  const bytes = await readBytes(source);
  readSafetensors(bytes, source); // refuses a truncated one, naming it
  return bytes;
}

/**
 * The architecture for a predictor that {@link Runs.predictor} found: `published` for a file in the layout of the method's published code, else the
 * one that was asked for. So a checkpoint is never read into a network that computes something else.
 *
 * @throws as {@link readPredictor}
 */
export async function architectureFor<T extends string>(
  source: string | false,
  given: T,
  published: T,
): Promise<T> {
  return (await publishedTensors(source)) === undefined ? given : published;
}

/**
 * The names of the tensors of a predictor that {@link Runs.predictor} found, if it is a file in the layout of the method's published code.
 *
 * @throws as {@link readPredictor}
 */
export async function publishedTensors(source: string | false): Promise<string[] | undefined> {
  if (source === false || !(await isFile(source))) return undefined;
  const { published, tensors } = await inspectCheckpoint(source);
  return published === null ? undefined : tensors.map(({ name }) => name);
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
  const bytes = await readBytes(path);
  if (path.endsWith(".npy")) return readNpy(bytes, path).toNested();
  if (path.endsWith(".safetensors")) {
    const { tensors } = readSafetensors(bytes, path);
    return (tensors.get("generators") ?? [...tensors.values()][0])?.toNested();
  }
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new FileError(
      `${path} is not JSON: ${(error as Error).message}`,
      "give a .json, .npy or .safetensors file",
    );
  }
}

/** A file's bytes. @throws FileError when it cannot be read */
export async function readBytes(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    throw explainFileSystem(error, "read", path);
  }
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() ?? false;
}

/** Whether text that names no existing file was meant to. */
function looksLikeFile(text: string): boolean {
  return [".json", ".npy", ".safetensors", ".pt", ".pth", ".bin", ".ckpt"].includes(
    extname(text).toLowerCase(),
  );
}

function missingFile(flag: string, path: string): UsageError {
  return new UsageError(`${flag} ${path}: there is no such file`, "check the path");
}

/** Those settings of a run that decide whose predictor it is: " (atlas 1, predictor wide)". */
function summarise(config: Run["config"]["config"]): string {
  const told = Object.entries(config)
    .filter(([key]) =>
      ["task", "atlas", "predictor", "digits", "kernel", "stride", "r_in", "resolution"].includes(key),
    )
    .map(([key, value]) => `${key} ${String(value)}`);
  return told.length === 0 ? "" : ` (${told.join(", ")})`;
}
