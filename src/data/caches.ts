/** What a worker on this machine has kept of files that are slow to read: the worker's datasets/cache.py writes these, and nobody removes them but the user. */
import { type FileHandle, open, readdir, rm, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";
import { z } from "zod";
import { errorCode, explainFileSystem } from "../run/atomic.js";

const NAME = /^[0-9a-f]{32}\.arrays$/;
/** A file's first line says what it is of. */
const LONGEST_LINE = 1 << 16;

const About = z.object({ dataset: z.string(), folder: z.string(), files: z.int() });

export interface CacheFile {
  path: string;
  bytes: number;
  /** When it was made. */
  made: Date;
  /** What it is of; undefined when it does not say. */
  about?: z.infer<typeof About>;
}

/** Where the workers of this user have them. */
export function cacheFolder(): string {
  const { XDG_CACHE_HOME: given = "" } = process.env;
  return join(isAbsolute(given) ? given : join(homedir(), ".cache"), "atlas-symmetry");
}

/** The caches in a folder and those below it, the oldest first; none where there is no such folder. @throws FileError */
export async function listCaches(folder: string): Promise<CacheFile[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch((error) => {
    if (errorCode(error) === "ENOENT") return [];
    throw explainFileSystem(error, "read", folder, "--folder");
  });
  const files: CacheFile[] = [];
  for (const { name, parentPath } of entries.filter((e) => e.isFile() && NAME.test(e.name))) {
    const path = join(parentPath, name);
    const found = await stat(path).catch(() => undefined); // it may be removed meanwhile
    if (found) files.push({ path, bytes: found.size, made: found.mtime, about: await readAbout(path) });
  }
  return files.sort((a, b) => a.made.getTime() - b.made.getTime());
}

/** Remove caches. A run that is using one keeps what it has mapped until it ends; later ones make it anew. @throws FileError */
export async function removeCaches(files: readonly CacheFile[]): Promise<void> {
  for (const { path } of files)
    try {
      await rm(path, { force: true });
    } catch (error) {
      throw explainFileSystem(error, "remove", path, "--folder");
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
