/** Download published files: resumed where it was cut off, checked, and there under their names only when they are right. */
import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, rename, rm, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { FileError, Interrupted, NetworkError, NoSpaceError, UsageError } from "../errors.js";
import { errorCode, explainFileSystem, syncFolder, TEMPORARY_SUFFIX } from "../run/atomic.js";
import { acquireLock } from "../run/lock.js";
import { formatBytes, type PublishedFile, type PublishedRecord } from "./dataset.js";

export interface FetchOptions {
  /** Overwrite files of these names that are others. */
  force?: boolean;
  onProgress?: (line: string) => void;
  /** Bytes of a file that are here. */
  onBytes?: (file: string, done: number, total: number) => void;
  /** Stops it; what has come is kept, and is gone on from the next time. */
  signal?: AbortSignal;
  /** Attempts that may bring nothing before it is given up (default 5). */
  attempts?: number;
  /** Pause after the first of them, doubled after each further one, in milliseconds. */
  pauseMs?: number;
  /** Time without a byte after which a connection is given up, in milliseconds. */
  stallMs?: number;
}

export interface Fetched {
  path: string;
  bytes: number;
  md5: string;
}

/** Each file's addresses, in the order in which to try; only the one that ATLAS_DATA_HOST names, if it does. @throws UsageError */
export function addressesOf({ mirrors, files }: PublishedRecord): string[][] {
  const own = process.env.ATLAS_DATA_HOST;
  if (own && !(/^https?:\/\//.test(own) && URL.canParse(own)))
    throw new UsageError(
      `ATLAS_DATA_HOST is ${JSON.stringify(own)}`,
      'write it as a URL: "https://mirror.example"',
    );
  const bases = own ? [own.replace(/\/+$/, "")] : mirrors;
  return files.map(({ path }) => bases.map((base) => base + path));
}

/**
 * Download all files of a record into a folder. Files that are there already and right are left alone.
 *
 * @throws NetworkError when none of its mirrors can be reached and sends the right file; what has come is kept
 * @throws FileError, NoSpaceError when the folder cannot be written to, is full, or has other files of these names
 * @throws Interrupted
 */
export async function fetchRecord(
  record: PublishedRecord,
  folder: string,
  options: FetchOptions = {},
): Promise<Fetched[]> {
  const addresses = addressesOf(record);
  try {
    await mkdir(folder, { recursive: true });
    const lock = await acquireLock(folder);
    try {
      const missing: [PublishedFile, string[]][] = [];
      for (const [i, file] of record.files.entries())
        if (!(await isThere(join(folder, file.name), file, options))) missing.push([file, addresses[i]!]);
      await checkSpace(
        folder,
        missing.map(([file]) => file),
      );
      let best = 0; // the mirror that had the last file is asked first for the next
      for (const [file, urls] of missing) {
        const inTurn = [...urls.slice(best), ...urls.slice(0, best)];
        best = urls.indexOf(await fetchFile(file, inTurn, folder, record.page, options));
      }
    } finally {
      await lock.release();
    }
  } catch (error) {
    if (options.signal?.aborted)
      throw new Interrupted("stopped; what has come is kept, and the same command goes on from there");
    const explained = explainFileSystem(error, "write", folder);
    if (explained instanceof FileError)
      explained.remedy = explained.remedy?.replace("--runs DIR", "--out DIR");
    throw explained;
  }
  return record.files.map(({ name, bytes, md5 }) => ({ path: join(folder, name), bytes, md5 }));
}

/** Whether a file is there, and the one that is wanted. */
async function isThere(
  path: string,
  { name, bytes, md5 }: PublishedFile,
  { force, onProgress, signal }: FetchOptions,
): Promise<boolean> {
  const size = await sizeOf(path);
  if (size === undefined) return false;
  if (size === bytes) {
    onProgress?.(`checking ${name}, which is there already`);
    if ((await hashFile(path, signal)).digest("hex") === md5) return true;
  }
  if (force) return false;
  throw new FileError(
    `${path} is there already, but is not the published one (${size === bytes ? "its MD5 sum differs" : `it has ${size} bytes, not ${bytes}`})`,
    "choose another folder with --out DIR, or overwrite it with --force",
  );
}

async function checkSpace(folder: string, files: readonly PublishedFile[]): Promise<void> {
  let need = 0;
  for (const { name, bytes } of files)
    need += bytes - Math.min(bytes, (await sizeOf(join(folder, name + TEMPORARY_SUFFIX))) ?? 0);
  const { bavail, bsize } = await statfs(folder);
  if (need > bavail * bsize)
    throw new NoSpaceError(
      `${formatBytes(need)} are still to come, but only ${formatBytes(bavail * bsize)} are free on the disk of ${folder}`,
      "free some space, or choose a folder on another disk with --out DIR",
    );
}

/** Fetch a file from the first address that has it; each goes on with what came from those before it. @returns that address */
async function fetchFile(
  file: PublishedFile,
  urls: readonly string[],
  folder: string,
  page: string,
  options: FetchOptions,
): Promise<string> {
  const path = join(folder, file.name);
  const partial = path + TEMPORARY_SUFFIX;
  const reasons: string[] = [];
  let cause: unknown;
  for (const [i, url] of urls.entries())
    try {
      await fetchFrom(url, file, partial, options);
      await rename(partial, path);
      await syncFolder(folder);
      options.onBytes?.(file.name, file.bytes, file.bytes);
      return url;
    } catch (error) {
      if (!(error instanceof Cut)) throw error;
      reasons.push(error.message);
      cause = error;
      if (i + 1 < urls.length)
        options.onProgress?.(`cannot fetch ${url}: ${error.message}; trying ${urls[i + 1]}`);
    }
  const tried = reasons.every((reason) => reason === reasons[0])
    ? `${urls.join(" or ")}: ${reasons[0]}`
    : urls.map((url, i) => `${url}: ${reasons[i]}`).join(", nor ");
  throw new NetworkError(
    `cannot fetch ${tried}`,
    `check the network, and run the same command again; or put the files of ${page} into ${folder} by hand, and run it again to have them checked`,
    { cause },
  );
}

/** Bring what is missing of a file from one address, in as many connections as it takes. @throws Cut when it is to be given up there */
async function fetchFrom(
  url: string,
  file: PublishedFile,
  partial: string,
  options: FetchOptions,
): Promise<void> {
  const { signal, onProgress, attempts = 5, pauseMs = 1000 } = options;
  let fruitless = 0;
  let reached = false;
  let damaged = false;
  for (;;) {
    signal?.throwIfAborted();
    const before = (await sizeOf(partial)) ?? 0;
    try {
      const md5 =
        before === file.bytes
          ? (await hashFile(partial, signal)).digest("hex")
          : await receive(file, url, partial, before, options);
      if (md5 === file.md5) return;
      await rm(partial, { force: true });
      if (damaged)
        throw new Cut(
          `what comes has the MD5 sum ${md5}, not ${file.md5}, and is thrown away (does something in between change it?)`,
          true,
        );
      damaged = true; // what was here from before may have been
      onProgress?.(`${file.name} came damaged (its MD5 sum differs); fetching it again`);
    } catch (error) {
      if (!(error instanceof Cut)) throw error;
      if (((await sizeOf(partial)) ?? 0) > before) fruitless = 0;
      reached ||= !error.unreachable;
      if (++fruitless >= attempts || error.final || !reached) throw error;
      onProgress?.(`${file.name}: ${error.message}; trying again`);
      await sleep(pauseMs * 2 ** (fruitless - 1), undefined, { signal });
    }
  }
}

/** A connection that brought less than it should have. */
class Cut extends Error {
  constructor(
    message: string,
    /** Whether there is no use in trying again. */
    readonly final = false,
    /** Whether there was no connection at all: then there is no network, unless there was one before. */
    readonly unreachable = false,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** Have the rest of a file sent and append it to what is here. @returns the MD5 sum of it all */
async function receive(
  file: PublishedFile,
  url: string,
  partial: string,
  before: number,
  { signal, onBytes, stallMs = 60_000 }: FetchOptions,
): Promise<string> {
  const connection = new AbortController();
  const abort = () => connection.abort();
  signal?.addEventListener("abort", abort, { once: true });
  let timer = setTimeout(abort, stallMs);
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(abort, stallMs);
  };
  const start = before > file.bytes ? 0 : before;
  try {
    const response = await fetch(url, {
      headers: { "Accept-Encoding": "identity", ...(start > 0 ? { Range: `bytes=${start}-` } : {}) },
      signal: connection.signal,
    });
    const from = startOf(response, file, start);
    const hash = from > 0 ? await hashFile(partial, signal) : createHash("md5");
    const out = await open(partial, from > 0 ? "a" : "w");
    try {
      let here = from;
      for await (const chunk of response.body ?? []) {
        alive();
        here += chunk.byteLength;
        if (here > file.bytes) throw new Cut(`more came than the ${file.bytes} bytes of ${file.name}`, true);
        hash.update(chunk);
        await out.appendFile(chunk);
        onBytes?.(file.name, here, file.bytes);
      }
      await out.sync();
      if (here < file.bytes) throw new Cut(`it ended after ${here} of ${file.bytes} bytes`);
    } finally {
      await out.close();
    }
    return hash.digest("hex");
  } catch (error) {
    if (signal?.aborted || error instanceof Cut || isFileSystem(error)) throw error;
    if (connection.signal.aborted) throw new Cut(`nothing came for ${stallMs / 1000} s`);
    const [reason, unreachable] = reasonOf(error);
    throw new Cut(reason, false, unreachable, { cause: error });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
    connection.abort();
  }
}

/** The byte at which what a response brings begins. @throws Cut when it is not the file */
function startOf(response: Response, file: PublishedFile, asked: number): number {
  const { status, statusText, headers } = response;
  const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get("content-range") ?? "");
  const from = status === 206 ? Number(range?.[1] ?? -1) : 0;
  if (status !== 200 && status !== 206)
    throw new Cut(
      `the server says ${status} ${statusText}`.trim(),
      status < 500 && status !== 429 && status !== 408,
    );
  if (headers.get("content-type")?.startsWith("text/html"))
    throw new Cut("a web page came instead of the file (does this network want a login?)", true);
  if (status === 206 && from !== asked)
    throw new Cut("the server sends another part than the one asked for", true);
  const length = headers.get("content-length");
  const whole =
    range?.[2] && range[2] !== "*" ? Number(range[2]) : length === null ? undefined : from + Number(length);
  if (whole !== undefined && whole !== file.bytes && !headers.get("content-encoding"))
    throw new Cut(`the server has a file of ${whole} bytes, not the published one of ${file.bytes}`, true);
  return from;
}

async function hashFile(path: string, signal?: AbortSignal): Promise<Hash> {
  const hash = createHash("md5");
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20, signal }))
    hash.update(chunk as Buffer);
  return hash;
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

function isFileSystem(error: unknown): boolean {
  return error instanceof Error && "syscall" in error && "path" in error;
}

const UNREACHABLE: Record<string, string> = {
  ENOTFOUND: "its name is not known (is there a network?)",
  EAI_AGAIN: "its name cannot be looked up (is there a network?)",
  ECONNREFUSED: "the connection is refused",
  ETIMEDOUT: "it does not answer",
  UND_ERR_CONNECT_TIMEOUT: "it does not answer",
  ENETUNREACH: "there is no network",
  EHOSTUNREACH: "it cannot be reached",
};

/** Why a fetch failed, by the innermost cause, which knows most; and whether that is that there is no connection. */
function reasonOf(error: unknown): [reason: string, unreachable: boolean] {
  let inner = error;
  while (inner instanceof Error && inner.cause instanceof Error) inner = inner.cause;
  const code = errorCode(inner) ?? "";
  if (code in UNREACHABLE) return [UNREACHABLE[code]!, true];
  if (["ECONNRESET", "UND_ERR_SOCKET"].includes(code)) return ["the connection was cut", false];
  return [inner instanceof Error ? inner.message : String(inner), false];
}
