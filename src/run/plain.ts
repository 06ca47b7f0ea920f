/**
 * Reading files of run folders. A run folder is a stranger's input: links, devices and files that
 * are too large are refused, so that nothing outside the folder is read and memory stays small.
 */
import { constants } from "node:fs";
import { type FileHandle, lstat, open } from "node:fs/promises";
import { join } from "node:path";
import { FileError } from "../errors.js";
import { errorCode } from "./atomic.js";

/** Bytes of a config.json or sweep.json at most. */
export const MOST_CONFIG = 1 << 20;
/** Bytes of a result.json at most. */
export const MOST_RESULT = 16 << 20;
/** Bytes of a report.html at most. */
export const MOST_REPORT = 16 << 20;

/** Size and time of change of a file; undefined if there is no such file. */
export type Stamp = string | undefined;

/**
 * Whether a name is that of one entry of a folder, and leads nowhere else. Hidden files and names
 * that the system may not take are no names of runs.
 */
export function isPlainName(name: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is refused
  return /^[^./\\\u0000-\u001f\u007f][^/\\\u0000-\u001f\u007f]*$/.test(name) && name.length <= 255;
}

/** Whether `path` is a folder, and no link to one. */
export async function isFolder(path: string): Promise<boolean> {
  return lstat(path).then(
    (about) => about.isDirectory(),
    () => false,
  );
}

/**
 * Open a file in a folder for reading.
 *
 * @returns undefined if there is no such file
 * @throws FileError for a link, a device, or a pipe
 */
export async function openPlain(folder: string, name: string): Promise<FileHandle | undefined> {
  const path = join(folder, name);
  const { O_RDONLY, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = constants;
  let file: FileHandle;
  try {
    file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    const code = errorCode(error);
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new FileError(`${name} cannot be read (${code === "ELOOP" ? "it is a link" : code})`);
  }
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw new FileError(`${name} is not a file`);
}

/**
 * Read a file of limited size.
 *
 * @returns undefined if there is no such file
 * @throws FileError if it is larger, or no plain file
 */
export async function readPlain(
  folder: string,
  name: string,
  most: number,
): Promise<string | undefined> {
  const file = await openPlain(folder, name);
  if (file === undefined) return undefined;
  try {
    const { size } = await file.stat();
    if (size > most) throw new FileError(`${name} is too large to show (${size} bytes)`);
    return await file.readFile("utf8");
  } finally {
    await file.close();
  }
}

/** Read a JSON file of limited size. The error of a damaged one does not quote it. */
export async function readJson(folder: string, name: string, most: number): Promise<unknown> {
  const text = await readPlain(folder, name, most);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    throw new FileError(`${name} is damaged: it is not JSON`);
  }
}

/** Get the stamp of a file, which differs after each change. */
export async function stampOf(folder: string, name: string): Promise<Stamp> {
  return lstat(join(folder, name)).then(
    ({ ino, size, mtimeMs }) => `${ino} ${size} ${mtimeMs}`,
    () => undefined,
  );
}

/** Shorten a text, so that a stranger's long one costs nothing. */
export function cut(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most)}… (${text.length} characters)` : text;
}
