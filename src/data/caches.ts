/**
 * Fields that workers on this machine have decoded and cached. The worker writes these files
 * (datasets/cache.py), and only the user deletes them.
 */
import { type FileHandle, open, readdir, rm, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";
import { z } from "zod";
import { errorCode, explainFileSystem } from "../run/atomic.js";

const NAME = /^[0-9a-f]{32}\.arrays$/;
/** Bytes of the longest first line, which describes the contents of a file. */
const LONGEST_LINE = 1 << 16;

const About = z.object({ dataset: z.string(), folder: z.string(), files: z.int() });

/** A file of cached fields. */
export interface CacheFile {
  path: string;
  bytes: number;
  /** When the file was made. */
  made: Date;
  /** Description of its contents; undefined if it cannot be read. */
  about?: z.infer<typeof About>;
}

/** Get the folder of the user's caches. */
export function cacheFolder(): string {
  const { XDG_CACHE_HOME: given = "" } = process.env;
  return join(isAbsolute(given) ? given : join(homedir(), ".cache"), "atlas-symmetry");
}

/**
 * List the caches in a folder and its subfolders, the oldest first.
 *
 * @returns none if the folder does not exist
 * @throws FileError if a folder cannot be read
 */
export async function listCaches(folder: string): Promise<CacheFile[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch((error) => {
    if (errorCode(error) === "ENOENT") return [];
    throw explainFileSystem(error, "list", folder);
  });
  const files: CacheFile[] = [];
  for (const { name, parentPath } of entries.filter((e) => e.isFile() && NAME.test(e.name))) {
    const path = join(parentPath, name);
    const found = await stat(path).catch(() => undefined); // another process may remove it
    if (found)
      files.push({ path, bytes: found.size, made: found.mtime, about: await readAbout(path) });
  }
  return files.sort((a, b) => a.made.getTime() - b.made.getTime());
}

/**
 * Delete caches. A run that uses one keeps it until the run ends, and later runs make it again.
 *
 * @throws FileError if a file cannot be deleted
 */
export async function removeCaches(files: readonly CacheFile[]): Promise<void> {
  for (const { path } of files)
    try {
      await rm(path, { force: true });
    } catch (error) {
      throw explainFileSystem(error, "remove", path);
    }
}

async function readAbout(path: string): Promise<CacheFile["about"]> {
  let file: FileHandle | undefined;
  try {
    file = await open(path, "r");
    const head = Buffer.alloc(LONGEST_LINE);
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    const text = head.toString("utf8", 0, bytesRead);
    return About.safeParse(JSON.parse(text.slice(0, text.indexOf("\n")))).data;
  } catch {
    return undefined;
  } finally {
    await file?.close();
  }
}
