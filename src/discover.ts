/** Find the symmetries of data in one call, as `atlas discover` does. */
import { createHash } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { defineExperiment, type GivenOf } from "./experiment/define.js";
import { DEFAULT_RUNS, type Outcome, type RunOptions, runExperiment } from "./experiment/runner.js";
import { ownTasks } from "./method/index.js";
import { explainFileSystem, writeFileAtomic } from "./run/atomic.js";
import { Tensor, writeNpy } from "./tensor/index.js";

const experiment = defineExperiment({
  name: "discover",
  summary: "Symmetries of your own data, or of a predictor of your own",
  tasks: ownTasks,
});

/** An array: a tensor, or a file as `FILE` or `FILE:ARRAY`. */
export type ArraySource = string | Tensor;
type Arrays = { inputs: ArraySource; targets?: ArraySource; mask?: ArraySource };
type WithArrays<T> = T extends unknown ? Omit<T, keyof Arrays> & Arrays : never;

/**
 * What {@link discover} works on. Fields are the flags of `atlas discover` with `_` for `-`:
 * `inputs_as: "2V"` is `--inputs-as 2V`. The field `task` is `discover` (default),
 * `discover_algebra` or `discover_cosets`.
 */
export type DiscoverInput = WithArrays<GivenOf<typeof ownTasks>>;

/**
 * Find the symmetries of data, or of a predictor: start a worker, fit a predictor where none is
 * given, find the Lie algebra and the components, and write the folder of the run with its report.
 * A tensor is kept in a file beside the runs, so that the run can be resumed.
 *
 * @example
 * const { result } = await discover({ inputs: "wind.npy", targets: "flow.npy", inputs_as: "V" });
 * console.log(result.algebra?.identified.name);
 *
 * @throws UsageError, FileError, RpcError if the data are missing or do not fit
 * @throws Interrupted if `options.signal` was aborted
 */
export async function discover(input: DiscoverInput, options: RunOptions = {}): Promise<Outcome> {
  const given: Record<string, unknown> = { ...input };
  for (const field of ["inputs", "targets", "mask"] as const) {
    const array = input[field];
    if (array instanceof Tensor) given[field] = await keep(array, options.runs ?? DEFAULT_RUNS);
  }
  return runExperiment(experiment, given as GivenOf<typeof ownTasks>, options);
}

/** Keep an array in a file that is named by its contents. @returns the path */
async function keep(array: Tensor, runs: string): Promise<string> {
  const bytes = writeNpy(array);
  const name = createHash("sha256").update(bytes).digest("hex").slice(0, 16);
  const path = join(runs, "arrays", `${name}.npy`);
  try {
    await mkdir(join(runs, "arrays"), { recursive: true });
    await writeFileAtomic(path, bytes);
  } catch (error) {
    throw explainFileSystem(error, "write", path);
  }
  return path;
}
