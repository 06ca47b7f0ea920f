/** Files of this machine for a worker on another. */
import { lstat, readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { FileError, UsageError } from "../../errors.js";
import { FileBytes } from "../../tensor/file.js";
import { newTicket } from "../../tensor/plane.js";
import type { Link } from "./link.js";

/** Options of `Session.upload`. */
export interface UploadOptions {
  /** Called with the numbers of bytes that have been sent, and of all bytes. */
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/**
 * Send a file, or a folder with its files, to the worker, which keeps it on its disk until the
 * session is closed.
 *
 * @returns what a dataset takes for the path of the file
 * @throws UsageError if the worker takes no files
 * @throws FileError if the folder has a symbolic link in it, or a file becomes shorter
 * @throws RpcError (LIMIT_EXCEEDED) if the worker has no room for it
 */
export async function uploadFile(
  link: Link,
  path: string,
  { onProgress, signal = link.parts.signal }: UploadOptions = {},
): Promise<string> {
  const { plane } = link.parts;
  if (!plane.acceptsFiles)
    throw new UsageError(
      `${path} is on this machine, and the worker takes no files`,
      "update the worker, or put the file onto its machine",
    );
  const ticket = newTicket(link.id);
  const files = await listFiles(path, basename(path));
  const total = files.reduce((sum, { size }) => sum + size, 0);
  let before = 0;
  for (const file of files) {
    await plane.put(ticket, new FileBytes(file.path, file.size), {
      fileName: file.name,
      signal,
      onProgress: (done) => onProgress?.(before + done, total),
    });
    before += file.size;
  }
  return `upload:${ticket}`;
}

interface Sent {
  path: string;
  /** Name on the worker: "data.zarr/x/0". */
  name: string;
  size: number;
}

async function listFiles(path: string, name: string): Promise<Sent[]> {
  const found = await stat(path);
  if (!found.isDirectory()) return [{ path, name, size: found.size }];
  const files: Sent[] = [];
  for (const entry of (await readdir(path)).sort()) {
    if ((await lstat(join(path, entry))).isSymbolicLink())
      throw new FileError(
        `${path} has a symbolic link in it: ${entry}`,
        "copy it with the files that its links lead to: cp -rL OLD NEW",
      );
    files.push(...(await listFiles(join(path, entry), `${name}/${entry}`)));
  }
  return files;
}
