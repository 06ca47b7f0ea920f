/** The worker's Python environment, which is made when it is first needed. */

import { SetupError } from "../errors.js";
import { SetupFailure, WORKER } from "./common.mjs";
import { ensurePython } from "./python.mjs";

/**
 * Packages that are installed when they are first used. jets: PYTHIA 8 and FastJet (GPL). files:
 * pyarrow and zarr.
 */
export type Extra = "jets" | "files";

/** The worker's Python environment. */
export interface Venv {
  /** Path of the venv's Python. */
  python: string;
  /** Folder with the package atlas_worker, for PYTHONPATH or as working folder. */
  workerDir: string;
}

/**
 * Get the worker's Python environment: $ATLAS_VENV, py-worker/.venv in a clone, else a folder of
 * the user. Missing packages are installed first. If nothing is missing, this takes milliseconds.
 *
 * @throws SetupError if no Python fits, pip fails, or the folder cannot be written to
 */
export async function ensureVenv({
  onProgress,
  extras,
}: {
  /** Called with every line of the set-up. */
  onProgress?: (line: string) => void;
  /** Names of further packages to install. */
  extras?: readonly Extra[];
} = {}): Promise<Venv> {
  try {
    return { python: await ensurePython({ onProgress, extras }), workerDir: WORKER };
  } catch (error) {
    if (error instanceof SetupFailure)
      throw new SetupError(error.message, error.remedy, { cause: error });
    throw error;
  }
}
