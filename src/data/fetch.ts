/** Download published files: resumed where it was cut off, checked, and there under their names only when they are right. */
import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { FileError, Interrupted, NetworkError, NoSpaceError, UsageError } from "../errors.js";
import { errorCode, explainFileSystem, syncFolder, TEMPORARY_SUFFIX } from "../run/atomic.js";
import { acquireLock } from "../run/lock.js";
import { formatBytes, type PublishedFile, type PublishedListing, type PublishedRecord } from "./dataset.js";

export interface FetchOptions {
  /** Overwrite files of these names that are others, or that have no published checksum by which to tell. */
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
  md5?: string;
}

/** How files without a published checksum are checked. */
export const UNSURE = "checked by length and header only";
/** Questions that are asked at once of a server that lists its files. */
const ASKED_AT_ONCE = 8;
/** Bytes of the longest index page that is read. */
const LONGEST_PAGE = 20e6;

/**
 * The addresses of each file or folder, in the order in which to try; only the one that ATLAS_DATA_HOST names, if it does.
 *
 * @throws UsageError
 */
export function addressesOf(published: PublishedRecord | PublishedListing): string[][] {
  const bases = basesOf(published);
  const parts = "files" in published ? published.files : published.folders;
  return parts.map(({ path }) => bases.map((base) => base + path));
}

function basesOf({ mirrors }: Pick<PublishedRecord, "mirrors">): readonly string[] {
  const own = process.env.ATLAS_DATA_HOST;
  if (own && !(/^https?:\/\//.test(own) && URL.canParse(own)))
    throw new UsageError(
      `ATLAS_DATA_HOST is ${JSON.stringify(own)}`,
      'write it as a URL: "https://mirror.example"',
    );
  return own ? [own.replace(/\/+$/, "")] : mirrors;
}

/**
 * Download all files of a record into a folder. Files that are there already and right are left alone; right is what has the published length,
 * and checksum or beginning. Files that a listing does not have, but whose names are like those it has, must not be in its folders.
 *
 * @throws NetworkError when none of its mirrors can be reached and sends the right file; what has come is kept
 * @throws FileError, NoSpaceError when the folder cannot be written to, is full, or has other files of these names
 * @throws Interrupted
 */
export async function fetchRecord(
  published: PublishedRecord | PublishedListing,
  folder: string,
  options: FetchOptions = {},
): Promise<Fetched[]> {
  basesOf(published); // refuses what cannot be one before anything is made
  let record: PublishedRecord;
  try {
    await mkdir(folder, { recursive: true });
    const lock = await acquireLock(folder);
    try {
      record = "files" in published ? published : await listFiles(published, folder, options);
      const addresses = addressesOf(record);
      const missing: [PublishedFile, string[]][] = [];
      let unsure = 0;
      for (const [i, file] of record.files.entries())
        if (!(await isThere(join(folder, file.name), file, options))) missing.push([file, addresses[i]!]);
        else if (file.md5 === undefined) unsure++;
      if (unsure > 0)
        options.onProgress?.(`${unsure} files are there already (${UNSURE}; --force fetches them again)`);
      await checkSpace(
        folder,
        missing.map(([file]) => file),
      );
      for (const parent of new Set(missing.map(([file]) => dirname(join(folder, file.name)))))
        await mkdir(parent, { recursive: true });
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
      throw new Interrupted(
        options.force && "folders" in published
          ? "stopped; what has come is kept, but --force fetches it again"
          : "stopped; what has come is kept, and the same command goes on from there",
      );
    throw explainFileSystem(error, "write", folder, "--out");
  }
  return record.files.map(({ name, bytes, md5 }) => ({ path: join(folder, name), bytes, md5 }));
}

/** What a listing's index pages list, with the lengths that the server tells. */
async function listFiles(
  { folders, names, format, ...about }: PublishedListing,
  out: string,
  options: FetchOptions,
): Promise<PublishedRecord> {
  const bases = basesOf(about);
  const get = <T>(
    path: string,
    read: (url: string, options: FetchOptions) => Promise<T>,
    asking = options,
  ) => {
    const urls = bases.map((base) => base + path);
    const readFrom = (url: string) => persistently(url, asking, () => read(url, asking));
    return fromFirst(urls, out, about.page, asking, readFrom);
  };
  const files: PublishedFile[] = [];
  for (const { name: folder, path, count } of folders) {
    const [found, url] = await get(path, (index) => readIndex(index, names, options));
    await refuseOthers(join(out, folder), names, found, about.title);
    const others = found.length === count ? "" : `, not the ${count} that were published`;
    options.onProgress?.(`${url} has ${found.length} files${others}; asking how long they are`);
    await together(ASKED_AT_ONCE, options.signal, async (signal) => {
      for (let name = found.shift(); name !== undefined; name = found.shift()) {
        const [bytes] = await get(path + name, readLength, { ...options, signal });
        files.push({ name: `${folder}/${name}`, path: path + name, bytes, format });
      }
    });
  }
  return { ...about, files: files.sort((a, b) => (a.name < b.name ? -1 : 1)) };
}

/** Do some work several times at once. When one fails, the others are stopped; its error is thrown when they have. */
async function together(
  count: number,
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const failure = new AbortController();
  const either = AbortSignal.any([failure.signal, ...(signal ? [signal] : [])]);
  await Promise.allSettled(
    Array.from({ length: count }, () => work(either).catch((error: unknown) => failure.abort(error))),
  );
  failure.signal.throwIfAborted();
}

/** @throws FileError when a folder has files that look like those of a listing, but are not among them: who reads it would mix the two */
async function refuseOthers(
  folder: string,
  names: RegExp,
  listed: readonly string[],
  title: string,
): Promise<void> {
  const known = new Set(listed);
  const here = await readdir(folder).catch((error: unknown) => {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  });
  const other = here.sort().find((name) => names.test(name) && !known.has(name));
  if (other !== undefined)
    throw new FileError(
      `${join(folder, other)} is not one of the files of ${title}, which would be mixed with it`,
      "choose another folder with --out DIR",
    );
}

/** The names that an index page links to, of files beside it. @throws Cut when there are none */
async function readIndex(url: string, names: RegExp, options: FetchOptions): Promise<string[]> {
  const text = await ask(url, {}, options, async (response, alive) => {
    refuseStatus(response);
    const chunks: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of response.body ?? []) {
      alive();
      length += chunk.byteLength;
      if (length > LONGEST_PAGE) throw new Cut("its index page has no end", true);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString("utf8");
  });
  const found = new Set<string>();
  for (const [, link = ""] of text.matchAll(/<a\s[^>]*?href\s*=\s*["']?([^"'\s>]+)/gi)) {
    const target = URL.canParse(link, url) ? new URL(link, url).href : "";
    const name = target.startsWith(url) ? target.slice(url.length) : "";
    if (names.test(name)) found.add(name);
  }
  if (found.size === 0) throw new Cut("its index page lists no files of this data set", true);
  return [...found].sort();
}

/** A file's length, by asking for its first byte: not all servers answer a question for nothing but the length. */
function readLength(url: string, options: FetchOptions): Promise<number> {
  return ask(url, { Range: "bytes=0-0" }, options, async (response) => {
    refuseStatus(response);
    refusePage(response);
    const length = lengthIn(response, 0);
    if (!length) throw new Cut("the server does not tell how long it is", true);
    return length;
  });
}

/** Whether a file is there, and the one that is wanted. */
async function isThere(
  path: string,
  file: PublishedFile,
  { force, onProgress, signal }: FetchOptions,
): Promise<boolean> {
  const size = await sizeOf(path);
  if (size === undefined || (force && file.md5 === undefined)) return false;
  let flaw: string | undefined = `has ${size} bytes, not ${file.bytes}`;
  if (size === file.bytes) {
    if (file.md5 !== undefined) onProgress?.(`checking ${file.name}, which is there already`);
    flaw = await flawOf(path, file, { signal });
  }
  if (flaw === undefined) return true;
  if (force) return false;
  throw new FileError(
    `${path} is there already, but is not the published one (it ${flaw})`,
    "choose another folder with --out DIR, or overwrite it with --force",
  );
}

/**
 * Why a file of the right length is not the published one; undefined when nothing speaks against it.
 *
 * @param options.md5 its checksum, when it is known already
 */
async function flawOf(
  path: string,
  { md5: published, format }: PublishedFile,
  { signal, md5 }: { signal?: AbortSignal; md5?: string },
): Promise<string | undefined> {
  if (format) {
    const { name, signature } = format;
    const file = await open(path, "r");
    const head = Buffer.alloc(signature.length);
    await file.read(head, 0, head.length, 0).finally(() => file.close());
    if (!head.equals(signature)) return `does not begin as a file of ${name} does`;
  }
  if (published === undefined) return undefined;
  const own = md5 ?? (await hashFile(path, signal)).digest("hex");
  return own === published ? undefined : `has the MD5 sum ${own}, not ${published}`;
}

/** @throws NoSpaceError when there is no room for files that come one after the other, each beside the one that it replaces */
async function checkSpace(folder: string, files: readonly PublishedFile[]): Promise<void> {
  let need = 0;
  let grown = 0;
  for (const { name, bytes } of files) {
    const path = join(folder, name);
    const rest = bytes - Math.min(bytes, (await sizeOf(path + TEMPORARY_SUFFIX)) ?? 0);
    need = Math.max(need, grown + rest);
    grown += rest - ((await sizeOf(path)) ?? 0);
  }
  const { bavail, bsize } = await statfs(folder);
  if (need > bavail * bsize)
    throw new NoSpaceError(
      `${formatBytes(need)} are needed, but only ${formatBytes(bavail * bsize)} are free on the disk of ${folder}`,
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
  const [, url] = await fromFirst(urls, folder, page, options, async (url) => {
    await fetchFrom(url, file, partial, options);
    await rename(partial, path);
    await syncFolder(dirname(path));
    options.onBytes?.(file.name, file.bytes, file.bytes);
  });
  return url;
}

/**
 * Get something from the first of some addresses that has it.
 *
 * @returns it, and that address
 * @throws NetworkError that says what was wrong with each
 */
async function fromFirst<T>(
  urls: readonly string[],
  folder: string,
  page: string,
  { onProgress }: FetchOptions,
  get: (url: string) => Promise<T>,
): Promise<[got: T, url: string]> {
  const reasons: string[] = [];
  let cause: unknown;
  for (const [i, url] of urls.entries())
    try {
      return [await get(url), url];
    } catch (error) {
      if (!(error instanceof Cut)) throw error;
      reasons.push(error.message);
      cause = error;
      if (i + 1 < urls.length) onProgress?.(`cannot fetch ${url}: ${error.message}; trying ${urls[i + 1]}`);
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
  const { signal, onProgress } = options;
  const here = async () => (await sizeOf(partial)) ?? 0;
  let damaged = false;
  const bring = async (): Promise<void> => {
    const before = await here();
    const md5 = before === file.bytes ? undefined : await receive(file, url, partial, before, options);
    const flaw = await flawOf(partial, file, { signal, md5 });
    if (flaw === undefined) return;
    await rm(partial, { force: true });
    if (damaged)
      throw new Cut(`what comes ${flaw}, and is thrown away (does something in between change it?)`, true);
    damaged = true; // what was here from before may have been
    onProgress?.(`${file.name} came damaged (it ${flaw}); fetching it again`);
    await bring();
  };
  await persistently(file.name, options, bring, here);
}

/**
 * Try again what was cut off, until it has brought nothing for some attempts, or is not to be had.
 *
 * @param brought how much of it is here; more than before is a reason to go on
 * @throws Cut when it is to be given up
 */
async function persistently<T>(
  what: string,
  { signal, onProgress, attempts = 5, pauseMs = 1000 }: FetchOptions,
  attempt: () => Promise<T>,
  brought: () => Promise<number> = async () => 0,
): Promise<T> {
  let fruitless = 0;
  let reached = false;
  for (;;) {
    signal?.throwIfAborted();
    const before = await brought();
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Cut)) throw error;
      if ((await brought()) > before) fruitless = 0;
      reached ||= !error.unreachable;
      if (++fruitless >= attempts || error.final || !reached) throw error;
      onProgress?.(`${what}: ${error.message}; trying again`);
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
function receive(
  file: PublishedFile,
  url: string,
  partial: string,
  before: number,
  options: FetchOptions,
): Promise<string> {
  const { signal, onBytes } = options;
  const start = before > file.bytes ? 0 : before;
  const range: Record<string, string> = start > 0 ? { Range: `bytes=${start}-` } : {};
  return ask(url, range, options, async (response, alive) => {
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
  });
}

/**
 * Ask a server, and hang up when all is read, or nothing comes.
 *
 * @param read told what the server answers; calls `alive` whenever something has come
 * @throws Cut, errors of the file system, and the reason of an aborted signal
 */
async function ask<T>(
  url: string,
  headers: Record<string, string>,
  { signal, stallMs = 60_000 }: FetchOptions,
  read: (response: Response, alive: () => void) => Promise<T>,
): Promise<T> {
  const connection = new AbortController();
  const abort = () => connection.abort();
  signal?.addEventListener("abort", abort, { once: true });
  let timer = setTimeout(abort, stallMs);
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(abort, stallMs);
  };
  try {
    const response = await fetch(url, {
      headers: { "Accept-Encoding": "identity", ...headers },
      signal: connection.signal,
    });
    return await read(response, alive);
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
  refuseStatus(response);
  refusePage(response);
  const from = response.status === 206 ? Number(rangeIn(response)?.[1] ?? -1) : 0;
  if (response.status === 206 && from !== asked)
    throw new Cut("the server sends another part than the one asked for", true);
  const whole = lengthIn(response, from);
  if (whole !== undefined && whole !== file.bytes && !response.headers.get("content-encoding"))
    throw new Cut(`the server has a file of ${whole} bytes, not the published one of ${file.bytes}`, true);
  return from;
}

function refuseStatus({ status, statusText }: Response): void {
  if (status !== 200 && status !== 206)
    throw new Cut(
      `the server says ${status} ${statusText}`.trim(),
      status < 500 && status !== 429 && status !== 408,
    );
}

function refusePage({ headers }: Response): void {
  if (headers.get("content-type")?.startsWith("text/html"))
    throw new Cut("a web page came instead of the file (does this network want a login?)", true);
}

function rangeIn({ headers }: Response): RegExpExecArray | null {
  return /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get("content-range") ?? "");
}

/** The length of the whole file of which a response brings what begins at a byte; undefined when it does not tell. */
function lengthIn(response: Response, from: number): number | undefined {
  const whole = rangeIn(response)?.[2];
  if (whole && whole !== "*") return Number(whole);
  const length = response.headers.get("content-length");
  return length === null || (response.status === 206 && whole === "*") ? undefined : from + Number(length);
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
