/** What a worker on this machine has kept of files that are slow to read: the worker's datasets/cache.py writes these, and nobody removes them but the user. */
import { open, readdir, rm, stat } from "node:fs/promises";
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
  try {
    const entries = await readdir(folder, { recursive: true, withFileTypes: true });
    const paths = entries
      .filter((e) => e.isFile() && NAME.test(e.name))
      .map((e) => join(e.parentPath, e.name));
    const files = await Promise.all(
      paths.map(async (path) => {
        const { size: bytes, mtime: made } = await stat(path);
        return { path, bytes, made, about: await readAbout(path) };
      }),
    );
    return files.sort((a, b) => a.made.getTime() - b.made.getTime());
  } catch (error) {
    if (errorCode(error) === "ENOENT") return [];
    throw explainFileSystem(error, "read", folder);
  }
}

/** Remove caches. A run that is using one keeps what it has mapped until it ends; later ones make it anew. @throws FileError */
export async function removeCaches(files: readonly CacheFile[]): Promise<void> {
  for (const { path } of files)
    try {
      await rm(path, { force: true });
    } catch (error) {
      throw explainFileSystem(error, "remove", path);
    }
}

async function readAbout(path: string): Promise<CacheFile["about"]> {
  const file = await open(path, "r");
  try {
    const head = Buffer.alloc(LONGEST_LINE);
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    const text = head.toString("utf8", 0, bytesRead);
    return About.safeParse(JSON.parse(text.slice(0, text.indexOf("\n")))).data;
  } catch {
    return undefined;
  } finally {
    await file.close();
  }
}
