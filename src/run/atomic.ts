/** The atomic writes of src/setup/atomic.mjs, with errors for the user. */
import { FileError, NoSpaceError } from "../errors.js";
import * as atomic from "../setup/atomic.mjs";

export {
  errorCode,
  replaceFile,
  replaceFolder,
  syncFolder,
  TEMPORARY_SUFFIX,
  temporaryBeside,
} from "../setup/atomic.mjs";

/**
 * Write a file in one step: after a crash it has either its former contents or the new ones.
 *
 * @param beforeRename called when the bytes are safe on disk
 * @param mode access rights, less the umask's bits
 * @throws FileError if the folder cannot be written to or is full; the former file is untouched
 */
export async function writeFileAtomic(
  path: string,
  contents: Uint8Array | string,
  beforeRename?: () => Promise<void>,
  mode?: number,
): Promise<void> {
  try {
    await atomic.writeFileAtomic(path, contents, { beforeRename, mode });
  } catch (error) {
    throw explainFileSystem(error, "write", path);
  }
}

/** What was tried with a file or folder. */
type Action = "read" | "list" | "write" | "create" | "remove";

const FREE_SPACE = "free some space";
const NO_SPACE: Readonly<Record<string, string>> = {
  ENOSPC: FREE_SPACE,
  EDQUOT: FREE_SPACE,
  EFBIG: "raise the limit (ulimit -f)",
};

/** Turn a file-system error into a {@link FileError} with a path, a reason and a remedy. */
export function explainFileSystem(error: unknown, action: Action, path: string): unknown {
  const code = atomic.errorCode(error) ?? "";
  const reason = atomic.SYSTEM_REASONS[code];
  if (error instanceof FileError || reason === undefined) return error;
  const message = `cannot ${action} ${path}: ${reason}`;
  const full = NO_SPACE[code];
  return full === undefined
    ? new FileError(message, ...remedyFor(code, action, error))
    : new NoSpaceError(message, full, { cause: error });
}

function remedyFor(
  code: string,
  action: Action,
  cause: unknown,
): [remedy: string, details: { cause: unknown; elsewhere: boolean }] {
  const denied = code === "EACCES" || code === "EPERM";
  if (action === "read" || code === "ENOENT" || code === "EISDIR")
    return [
      denied ? "check the path, and that you may read it" : "check the path",
      { cause, elsewhere: false },
    ];
  const permission = action === "list" ? "read" : "write";
  return [
    `${denied ? `give yourself ${permission} permission, or ` : ""}choose another folder`,
    { cause, elsewhere: true },
  ];
}
