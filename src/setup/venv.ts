/** The worker's Python environment, made when it is first needed. */

import { SetupError } from "../errors.js";
import { SetupFailure, WORKER } from "./common.mjs";
import { ensurePython } from "./python.mjs";

/** Packages that are installed when first used: jets, PYTHIA 8 and FastJet (GPL). */
export type Extra = "jets";

export interface Venv {
  /** The venv's Python. */
  python: string;
  /** The folder with the package atlas_worker, for PYTHONPATH or as working folder. */
  workerDir: string;
}

/**
 * The Python that runs the worker, with everything it needs: $ATLAS_VENV, py-worker/.venv in a clone, else a folder of the user's. What is
 * missing is installed first; when nothing is, this takes milliseconds.
 *
 * @throws SetupError when there is no fit Python, pip fails, or the folder cannot be written to
 */
export async function ensureVenv({
  onProgress,
  extras,
}: {
  onProgress?: (line: string) => void;
  /** What only some commands need besides. */
  extras?: readonly Extra[];
} = {}): Promise<Venv> {
  try {
    return { python: await ensurePython({ onProgress, extras }), workerDir: WORKER };
  } catch (error) {
    if (error instanceof SetupFailure) throw new SetupError(error.message, error.remedy, { cause: error });
    throw error;
  }
}
