/** Writes that are either wholly there or not at all, and file-system errors in one clear line. */
import { randomBytes } from "node:crypto";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { FileError, NoSpaceError } from "../errors.js";

/** Suffix of a file that is still being written; one left behind by a killed process may be deleted. */
export const TEMPORARY_SUFFIX = ".partial";

/**
 * Write a file so that a reader, or a process killed or a machine stopped at any point, finds either the former contents or the new ones:
 * temporary file in the same folder, fsync, rename, fsync of the folder. `beforeRename` runs when the bytes are safe on disk;
 * `mode` is who may read and write it, the umask's bits taken off.
 *
 * @throws FileError when the folder cannot be written to or is full; what was there before is untouched.
 */
export async function writeFileAtomic(
  path: string,
  contents: Uint8Array | string,
  beforeRename?: () => Promise<void>,
  mode = 0o666,
): Promise<void> {
  const temporary = join(
    dirname(path),
    `.${basename(path)}.${randomBytes(4).toString("hex")}${TEMPORARY_SUFFIX}`,
  );
  try {
    const file = await open(temporary, "wx", mode);
    try {
      await file.writeFile(contents);
      await file.sync();
    } finally {
      await file.close();
    }
    await beforeRename?.();
    await rename(temporary, path);
    await syncFolder(dirname(path));
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw explainFileSystem(error, "write", path);
  }
}

/** Make renames in a folder survive a power cut. File systems that cannot sync a folder are let be. */
export async function syncFolder(path: string): Promise<void> {
  let folder: FileHandle | undefined;
  try {
    folder = await open(path, "r");
    await folder.sync();
  } catch (error) {
    if (!["EINVAL", "EPERM", "EISDIR", "ENOTSUP"].includes(errorCode(error) ?? "")) throw error;
  } finally {
    await folder?.close();
  }
}

/** The system's code of an error ("ENOSPC"), if it has one. */
export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}

const REASONS: Record<string, [reason: string, remedy: string]> = {
  ENOSPC: ["no space is left on its disk", "free some space"],
  EDQUOT: ["the disk quota is used up", "free some space"],
  EFBIG: ["it would pass the limit on a file's size", "raise the limit (ulimit -f)"],
  EROFS: ["it is on a read-only file system", "choose another folder with --runs DIR"],
  EACCES: [
    "permission is denied",
    "give yourself write permission, or choose another folder with --runs DIR",
  ],
  EPERM: ["it is not permitted", "give yourself write permission, or choose another folder with --runs DIR"],
  ENOTDIR: ["a part of its path is a file, not a folder", "choose another folder with --runs DIR"],
  EEXIST: ["something that is not a folder is in its place", "choose another folder with --runs DIR"],
  ENOENT: ["it does not exist", "check the path"],
  EBUSY: ["it is in use, as a mount point is", "choose another folder with --runs DIR"],
  EISDIR: ["it is a folder, not a file", "check the path"],
};

const NO_SPACE = ["ENOSPC", "EDQUOT", "EFBIG"];

/**
 * Turn a file-system error into a {@link FileError} that names the path, the reason and the remedy; pass any other error through.
 *
 * @param flag that says which folder it is
 */
export function explainFileSystem(
  error: unknown,
  action: "read" | "write" | "create" | "remove",
  path: string,
  flag = "--runs",
): unknown {
  const known = REASONS[errorCode(error) ?? ""];
  if (error instanceof FileError || known === undefined) return error;
  const Kind = NO_SPACE.includes(errorCode(error)!) ? NoSpaceError : FileError;
  const remedy = known[1].replace("--runs", flag);
  return new Kind(`cannot ${action} ${path}: ${known[0]}`, remedy, { cause: error });
}
