/** Files of this machine for a worker on another. */
import { lstat, readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { FileError, UsageError } from "../../errors.js";
import { ObjectServiceService } from "../../gen/atlas/v1/objects.js";
import { FileBytes } from "../../tensor/file.js";
import { newTicket } from "../../tensor/plane.js";
import { type Link, LONG_READ } from "./link.js";

/** What is in a file: its arrays, how they may lie, and what their numbers are like. */
export interface FileReport {
  /** The format, as people call it. */
  format: string;
  /** If members were asked for, the last one is what they are joined to. */
  members: FileMember[];
  /** What the user should know. */
  warnings: string[];
}

/** An array in a file. */
export interface FileMember {
  /** Empty if the file holds one array without a name. */
  name: string;
  shape: number[];
  /** Type as it is stored. */
  dtype: string;
  /** Names of the axes; empty if the file names none. */
  dims: (string | undefined)[];
  units: string;
  /** Names of the columns of a table. */
  columns: string[];
  /** Whether the array holds the coordinates of an axis of others. */
  coordinate: boolean;
  /** Name of the table that the array is a column of. */
  partOf: string;
  /** What it holds instead of numbers, or why it cannot be read; empty if it can. */
  problem: string;
  layout?: FileLayout;
  numbers?: NumberSummary;
}

/** How an array lies, and why. */
export interface FileLayout {
  /** Names of the axes in their order; empty if they are ambiguous. */
  axes: string;
  reason: string;
  /** Values of `axes` among which the user must choose. */
  readings: string[];
  /** Types of the features; empty for the default of the layout. */
  features: string;
  featuresReason: string;
  /** The members in the order in which to give them; empty for that of the request. */
  members: string[];
}

/** What the numbers of an array are like. */
export interface NumberSummary {
  /** Number of samples that were looked at. */
  samples: number;
  /** NaN if there is no finite number. */
  minimum: number;
  maximum: number;
  /** Numbers that are missing or NaN. */
  missing: number;
  infinite: number;
  /** Where the first number is that is not finite. */
  first: string;
  /** Features or channels, one by one; empty if there is one, or very many. */
  names: string[];
  minima: number[];
  maxima: number[];
  /** Those that have one value everywhere. */
  constant: string[];
  /** Dimension of the space that the features span, if it is known. */
  rank?: number;
  /** Whether all numbers are whole. */
  whole: boolean;
}

/** Options of `Session.inspectFile`. */
export interface InspectOptions {
  /** Arrays to look at, which are joined (default: each array by itself). */
  members?: readonly string[];
  /** Names of the axes (default: those that the file or the shape tells). */
  axes?: string;
  /** Whether to look at the numbers, which takes as long as reading them (default: true). */
  numbers?: boolean;
}

/**
 * Look at a file on the worker's machine.
 *
 * @param path on the worker's machine, or what {@link uploadFile} returned
 * @throws RpcUsageError if there is no such file, or it is damaged
 */
export async function inspectFile(
  link: Link,
  path: string,
  { members = [], axes = "", numbers = true }: InspectOptions = {},
): Promise<FileReport> {
  const request = { sessionId: link.id, path, members: [...members], axes };
  const report = await link.call(
    ObjectServiceService.inspectFile,
    { ...request, withoutNumbers: !numbers },
    LONG_READ,
  );
  return {
    ...report,
    members: report.members.map((member) => ({
      ...member,
      dims: member.dims.map((name) => name || undefined),
    })),
  };
}

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
