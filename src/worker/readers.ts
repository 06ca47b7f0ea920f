/** Files that a worker reads with packages of its own (requirements-files.txt). */
import { closeSync, existsSync, openSync, readSync, statSync } from "node:fs";
import { join } from "node:path";

/** Names of the files at the top of a Zarr store. */
const ZARR = [".zgroup", ".zarray", "zarr.json"];

/** Whether some of the files need further packages to be read: Parquet files and Zarr stores. */
export function needsReaders(paths: readonly string[]): boolean {
  return paths.some((path) => {
    const found = statSync(path, { throwIfNoEntry: false });
    if (found?.isDirectory()) return ZARR.some((name) => existsSync(join(path, name)));
    return found?.isFile() ? /\.zarr(\.zip)?$/i.test(path) || isParquet(path) : false;
  });
}

function isParquet(path: string): boolean {
  const head = Buffer.alloc(4);
  try {
    const file = openSync(path, "r");
    try {
      return readSync(file, head, 0, 4, 0) === 4 && head.toString("latin1") === "PAR1";
    } finally {
      closeSync(file);
    }
  } catch {
    return false; // the worker says what is wrong with the file
  }
}
