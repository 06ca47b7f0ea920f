/** Atomic writes of files and folders, and the meaning of the system's error codes. Plain Node. */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { open, rename, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

/** Suffix of unfinished files. One that a killed process has left may be deleted. */
export const TEMPORARY_SUFFIX = ".partial";

/**
 * Make a hidden name for a file that will replace `path`, in the same folder.
 *
 * @param {string} path
 */
export function temporaryBeside(path) {
  const name = basename(path).replace(/^\./, "");
  return join(dirname(path), `.${name}.${randomBytes(4).toString("hex")}${TEMPORARY_SUFFIX}`);
}

/**
 * @typedef {object} ReplaceOptions
 * @property {number} [mode] access rights, less the umask's bits (default: all)
 * @property {boolean} [durable] whether the file must survive a power cut (default: true)
 * @property {() => Promise<void>} [beforeRename] called when the bytes are safe on disk
 */

/**
 * Replace a file in one step: after a crash it has either its former contents or the new ones. The
 * steps are: temporary file in the same folder, fsync, rename, fsync of the folder.
 *
 * @template T
 * @param {string} path
 * @param {(temporary: string) => Promise<T>} write fills or replaces the temporary file, which
 * exists; another program may do so
 * @param {ReplaceOptions} [options]
 * @returns {Promise<T>} what `write` returns
 * @throws errors of the system and of `write`; the former file is then untouched
 */
export async function replaceFile(path, write, options = {}) {
  const { mode = 0o666, durable = true, beforeRename } = options;
  const temporary = temporaryBeside(path);
  try {
    // First make the file, so that a folder without write access is noticed before any work is
    // done.
    const made = await open(temporary, "wx", mode);
    const granted = await made.stat().finally(() => made.close());
    const result = await write(temporary);
    const file = await open(temporary, "r+");
    try {
      // Some programs make files that only their owner can read, so restore the rights.
      if ((await file.stat()).mode !== granted.mode) await file.chmod(granted.mode);
      if (durable) await file.sync();
    } finally {
      await file.close();
    }
    await beforeRename?.();
    await rename(temporary, path);
    if (durable) await syncFolder(dirname(path));
    return result;
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw error;
  }
}

/**
 * Write a file in one step, as {@link replaceFile} does.
 *
 * @param {string} path
 * @param {Uint8Array | string} contents
 * @param {ReplaceOptions} [options]
 * @returns {Promise<void>}
 */
export function writeFileAtomic(path, contents, options) {
  return replaceFile(path, (temporary) => writeFile(temporary, contents), options);
}

/**
 * Put a finished folder in the place of another. If that fails, the other folder stays. Between two
 * renames neither is in place; the former folder is then in `from`.old.
 *
 * @param {string} from
 * @param {string} to
 */
export async function replaceFolder(from, to) {
  const old = `${from}.old`;
  const replaces = existsSync(to);
  if (replaces) {
    await rm(old, { recursive: true, force: true }); // left by a process that was killed
    await rename(to, old);
  }
  try {
    await rename(from, to);
  } catch (error) {
    if (replaces) await rename(old, to);
    throw error;
  }
  await syncFolder(dirname(to));
  await rm(old, { recursive: true, force: true });
}

/**
 * Make renames in a folder survive a power cut, if the file system can sync folders.
 *
 * @param {string} path
 */
export async function syncFolder(path) {
  /** @type {import("node:fs/promises").FileHandle | undefined} */
  let folder;
  try {
    folder = await open(path, "r");
    await folder.sync();
  } catch (error) {
    if (!["EINVAL", "EPERM", "EISDIR", "ENOTSUP"].includes(errorCode(error) ?? "")) throw error;
  } finally {
    await folder?.close();
  }
}

/**
 * Get the system's code of an error, for example "ENOSPC".
 *
 * @param {unknown} error
 * @returns {string | undefined} undefined if it has none
 */
export function errorCode(error) {
  return error instanceof Error && "code" in error && typeof error.code === "string"
    ? error.code
    : undefined;
}

/**
 * Meanings of the system's codes for a file or folder.
 *
 * @type {Readonly<Record<string, string>>}
 */
export const SYSTEM_REASONS = {
  ENOSPC: "no space is left on its disk",
  EDQUOT: "the disk quota is used up",
  EFBIG: "it would exceed the limit on a file's size",
  EROFS: "it is on a read-only file system",
  EACCES: "permission is denied",
  EPERM: "it is not permitted",
  ENOTDIR: "a part of its path is a file, not a folder",
  EEXIST: "something that is not a folder is in its place",
  ENOENT: "it does not exist",
  EBUSY: "it is in use, for example as a mount point",
  EISDIR: "it is a folder, not a file",
};
