/** Download published files: interrupted downloads continue, and every file is checked. */
import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { FileError, Interrupted, NetworkError, NoSpaceError, UsageError } from "../errors.js";
import { errorCode, explainFileSystem, syncFolder, TEMPORARY_SUFFIX } from "../run/atomic.js";
import { acquireLock } from "../run/lock.js";
import { CERTIFICATE_FAULT } from "../setup/network.mjs";
import {
  formatBytes,
  type PublishedFile,
  type PublishedListing,
  type PublishedRecord,
} from "./dataset.js";
import { checkProxies, connect, ProxyFault, proxyNames } from "./proxy.js";

/** Options of {@link fetchRecord}. */
export interface FetchOptions {
  /** Overwrite existing files that differ, or whose checksum is not published. */
  force?: boolean;
  /** Called with a line for the user. */
  onProgress?: (line: string) => void;
  /** Called with the number of bytes of a file that have been downloaded. */
  onBytes?: (file: string, done: number, total: number) => void;
  /** When aborted, the download stops. Downloaded parts are kept for the next time. */
  signal?: AbortSignal;
  /** Number of attempts without a new byte before an address is given up (default 5). */
  attempts?: number;
  /** Milliseconds to wait after the first of these attempts; doubled after each further one. */
  pauseMs?: number;
  /** Milliseconds without a byte after which a connection is given up. */
  stallMs?: number;
}

/** A downloaded file. */
export interface Fetched {
  path: string;
  bytes: number;
  md5?: string;
}

/** How files without a published checksum are checked. */
export const UNSURE = "checked by length and header only";
/** Number of requests at once to a server that lists its files. */
const ASKED_AT_ONCE = 8;
/** Bytes of the longest index page that is read. */
const LONGEST_PAGE = 20e6;

/**
 * List the addresses of each file or folder, in the order of trial. If ATLAS_DATA_HOST is set, it
 * replaces the mirrors.
 *
 * @throws UsageError if ATLAS_DATA_HOST is not a URL
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
 * Download all files of a publication into a folder.
 *
 * Existing files that are right are kept: they have the published length, and the published
 * checksum or the signature of the format. A folder of a listing must not hold other files with
 * similar names.
 *
 * @throws NetworkError if no mirror can be reached and sends the right file; downloaded parts are
 * kept
 * @throws FileError if the folder cannot be written to, or has other files of these names
 * @throws NoSpaceError if the disk is full
 * @throws Interrupted if `signal` was aborted
 */
export async function fetchRecord(
  published: PublishedRecord | PublishedListing,
  folder: string,
  options: FetchOptions = {},
): Promise<Fetched[]> {
  basesOf(published); // refuses wrong settings before any file is made
  checkProxies();
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
        if (!(await isThere(join(folder, file.name), file, options)))
          missing.push([file, addresses[i]!]);
        else if (file.md5 === undefined) unsure++;
      if (unsure > 0)
        options.onProgress?.(
          `${unsure} files exist already (${UNSURE}; a forced download replaces them)`,
        );
      await checkSpace(
        folder,
        missing.map(([file]) => file),
      );
      for (const parent of new Set(missing.map(([file]) => dirname(join(folder, file.name)))))
        await mkdir(parent, { recursive: true });
      let best = 0; // ask the mirror that had the last file first
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
          ? "stopped; downloaded files are kept, but a forced download fetches them again"
          : "stopped; downloaded parts are kept, and the same command continues from there",
      );
    throw explainFileSystem(error, "write", folder);
  }
  return record.files.map(({ name, bytes, md5 }) => ({ path: join(folder, name), bytes, md5 }));
}

/** List the files of a listing's index pages, and ask the server for their lengths. */
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
    const others = found.length === count ? "" : `, not ${count} as published`;
    options.onProgress?.(`${url} has ${found.length} files${others}; asking for their sizes`);
    await together(ASKED_AT_ONCE, options.signal, async (signal) => {
      for (let name = found.shift(); name !== undefined; name = found.shift()) {
        const [bytes] = await get(path + name, readLength, { ...options, signal });
        files.push({ name: `${folder}/${name}`, path: path + name, bytes, format });
      }
    });
  }
  return { ...about, files: files.sort((a, b) => (a.name < b.name ? -1 : 1)) };
}

/**
 * Do some work several times at once. If one fails, the others are stopped, and its error is
 * thrown.
 */
async function together(
  count: number,
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const failure = new AbortController();
  const either = AbortSignal.any([failure.signal, ...(signal ? [signal] : [])]);
  await Promise.allSettled(
    Array.from({ length: count }, () =>
      work(either).catch((error: unknown) => failure.abort(error)),
    ),
  );
  failure.signal.throwIfAborted();
}

/**
 * @throws FileError if a folder has similar files that a listing lacks, because readers would mix
 * them
 */
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
      `${join(folder, other)} is not one of the files of ${title}, and would be mixed with them`,
      "choose another folder",
      { elsewhere: true },
    );
}

/** List the files of an index page that are in the same folder. @throws Cut if there are none */
async function readIndex(url: string, names: RegExp, options: FetchOptions): Promise<string[]> {
  const text = await ask(url, {}, options, async (response, alive) => {
    refuseStatus(response);
    const chunks: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of response.body ?? []) {
      alive();
      length += chunk.byteLength;
      if (length > LONGEST_PAGE) throw new Cut("its index page is too long", true);
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

/**
 * Find the length of a file by asking for its first byte, because some servers refuse HEAD
 * requests.
 */
function readLength(url: string, options: FetchOptions): Promise<number> {
  return ask(url, { Range: "bytes=0-0" }, options, async (response) => {
    refuseStatus(response);
    refusePage(response);
    const length = lengthIn(response, 0);
    if (!length) throw new Cut("the server does not tell the file's length", true);
    return length;
  });
}

/** Whether a file exists and is the published one. @throws FileError if it is another file */
async function isThere(
  path: string,
  file: PublishedFile,
  { force, onProgress, signal }: FetchOptions,
): Promise<boolean> {
  const size = await sizeOf(path);
  if (size === undefined || (force && file.md5 === undefined)) return false;
  let flaw: string | undefined = `has ${size} bytes, not ${file.bytes}`;
  if (size === file.bytes) {
    if (file.md5 !== undefined) onProgress?.(`checking ${file.name}, which exists already`);
    flaw = await flawOf(path, file, { signal });
  }
  if (flaw === undefined) return true;
  if (force) return false;
  throw new FileError(
    `${path} exists already, but is not the published file (it ${flaw})`,
    "choose another folder, or overwrite it",
    { elsewhere: true, overwritable: true },
  );
}

/**
 * Find out why a file of the right length is not the published one.
 *
 * @returns undefined if no difference is found
 */
async function flawOf(
  path: string,
  { md5: published, format }: PublishedFile,
  {
    signal,
    md5,
  }: {
    signal?: AbortSignal;
    /** Checksum of the file, if it is known already. */
    md5?: string;
  },
): Promise<string | undefined> {
  if (format) {
    const { name, signature } = format;
    const file = await open(path, "r");
    const head = Buffer.alloc(signature.length);
    await file.read(head, 0, head.length, 0).finally(() => file.close());
    if (!head.equals(signature)) return `does not begin with the signature of ${name}`;
  }
  if (published === undefined) return undefined;
  const own = md5 ?? (await hashFile(path, signal)).digest("hex");
  return own === published ? undefined : `has the MD5 sum ${own}, not ${published}`;
}

/**
 * @throws NoSpaceError if the files do not fit, downloaded one by one beside the ones they replace
 */
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
      `${formatBytes(need)} are needed, but the disk of ${folder} has only ` +
        `${formatBytes(bavail * bsize)} free`,
      "free some space, or choose a folder on another disk",
      { elsewhere: true },
    );
}

/**
 * Download a file from the first address that has it. Later addresses continue.
 *
 * @returns the address
 */
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
 * Get something from the first address that has it.
 *
 * @returns what `get` returns, and the address
 * @throws NetworkError that says what was wrong with each address
 */
async function fromFirst<T>(
  urls: readonly string[],
  folder: string,
  page: string,
  { onProgress }: FetchOptions,
  get: (url: string) => Promise<T>,
): Promise<[got: T, url: string]> {
  const reasons: string[] = [];
  let cause: Cut | undefined;
  for (const [i, url] of urls.entries())
    try {
      return [await get(url), url];
    } catch (error) {
      if (!(error instanceof Cut)) throw error;
      reasons.push(error.message);
      cause = error;
      if (i + 1 < urls.length)
        onProgress?.(`cannot fetch ${url}: ${error.message}; trying ${urls[i + 1]}`);
    }
  const tried = reasons.every((reason) => reason === reasons[0])
    ? `${urls.join(" or ")}: ${reasons[0]}`
    : urls.map((url, i) => `${url}: ${reasons[i]}`).join(", nor ");
  throw new NetworkError(
    `cannot fetch ${tried}`,
    `${adviceOn(cause)}, or put the files of ${page} into ${folder} by hand and run the command ` +
      "to check them",
    { cause },
  );
}

/** Say what may help after a download failed, for the reason that the last address had. */
export function adviceOn(cause: unknown): string {
  const own = process.env.ATLAS_DATA_HOST;
  if (cause instanceof Cut && cause.remedy !== undefined)
    return `${cause.remedy} and run the same command again`;
  if (cause instanceof Cut && cause.final)
    return own ? "check ATLAS_DATA_HOST" : "try again later or from another network";
  return `check the network${own ? " and ATLAS_DATA_HOST" : ""} and try again`;
}

/** Download the rest of a file from one address, in several connections if needed. @throws Cut */
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
    const md5 =
      before === file.bytes ? undefined : await receive(file, url, partial, before, options);
    const flaw = await flawOf(partial, file, { signal, md5 });
    if (flaw === undefined) return;
    await rm(partial, { force: true });
    if (damaged)
      throw new Cut(
        `the download ${flaw}, and was thrown away (does something on the way change it?)`,
        true,
      );
    damaged = true; // the part from an earlier download may have been damaged
    onProgress?.(`${file.name} came damaged (it ${flaw}); fetching it again`);
    await bring();
  };
  await persistently(file.name, options, bring, here);
}

/**
 * Repeat an attempt that was cut off, until several attempts in a row have brought nothing.
 *
 * @param what name for the message
 * @param brought measures what has been downloaded; a growth is a reason to continue
 * @throws Cut if it is given up
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

/** A connection that brought less than it should. */
class Cut extends Error {
  constructor(
    message: string,
    /** Whether another attempt is useless. */
    readonly final = false,
    /** Whether no connection was made. Then there is no network, unless there was one before. */
    readonly unreachable = false,
    /** What helps in place of a check of the network. */
    readonly remedy?: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/**
 * Download the rest of a file, and append it to the part on disk.
 *
 * @returns the MD5 sum of the file
 */
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
        if (here > file.bytes)
          throw new Cut(`the server sends more than the ${file.bytes} bytes of ${file.name}`, true);
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
 * Ask a server. The connection is closed when the answer is read, or when nothing comes.
 *
 * @param read reads the answer, and calls `alive` whenever bytes have come
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
    const { fetch, dispatcher } = await connect();
    const response = await fetch(url, {
      dispatcher,
      headers: { "Accept-Encoding": "identity", ...headers },
      signal: connection.signal,
    });
    return await read(response, alive);
  } catch (error) {
    if (signal?.aborted || error instanceof Cut || isFileSystem(error)) throw error;
    if (connection.signal.aborted) throw new Cut(`nothing came for ${stallMs / 1000} s`);
    throw cutBy(error);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
    connection.abort();
  }
}

/** Find the byte at which the body of a response begins. @throws Cut if it is not the file's */
function startOf(response: Response, file: PublishedFile, asked: number): number {
  refuseStatus(response);
  refusePage(response);
  const from = response.status === 206 ? Number(rangeIn(response)?.[1] ?? -1) : 0;
  if (response.status === 206 && from !== asked)
    throw new Cut("the server sends another part of the file", true);
  const whole = lengthIn(response, from);
  if (whole !== undefined && whole !== file.bytes && !response.headers.get("content-encoding"))
    throw new Cut(
      `the server has a file of ${whole} bytes, not the published one of ${file.bytes}`,
      true,
    );
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
    throw new Cut("a web page came instead of the file (does the network require a login?)", true);
}

function rangeIn({ headers }: Response): RegExpExecArray | null {
  return /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get("content-range") ?? "");
}

/**
 * Find the length of the whole file from a response that begins at a byte.
 *
 * @returns undefined if unknown
 */
function lengthIn(response: Response, from: number): number | undefined {
  const whole = rangeIn(response)?.[2];
  if (whole && whole !== "*") return Number(whole);
  const length = response.headers.get("content-length");
  return length === null || (response.status === 206 && whole === "*")
    ? undefined
    : from + Number(length);
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

/** Explain why a fetch failed, by its innermost cause. */
function cutBy(error: unknown): Cut {
  let inner = error;
  let proxy: ProxyFault | undefined;
  for (;;) {
    if (inner instanceof ProxyFault) proxy = inner;
    if (!(inner instanceof Error && inner.cause instanceof Error)) break;
    inner = inner.cause;
  }
  const options = { cause: error };
  const code = errorCode(inner) ?? "";
  const said = inner instanceof Error ? inner.message : String(inner);
  const status = /^Proxy response \((\d+)\)|Proxy Authentication Required \((407)\)/.exec(said);
  const known = UNREACHABLE[code];
  if (status ?? proxy) {
    const who = `the proxy ${proxy?.proxy ?? proxyNames()}`;
    const [, tunnel = "", login = tunnel] = status ?? [];
    if (login === "407")
      return new Cut(
        `${who} wants a user name and a password`,
        true,
        true,
        "write them into its address (http://USER:PASSWORD@HOST:PORT)",
        options,
      );
    const what = status ? `refuses the connection (${login})` : `cannot be used: ${known ?? said}`;
    return new Cut(`${who} ${what}`, false, true, "check that setting, and the proxy,", options);
  }
  if (CERTIFICATE_FAULT.test(`${code} ${said}`))
    return new Cut(
      `its certificate is not accepted (${said})`,
      true,
      false,
      "if your network has an authority of its own, name its certificate in NODE_EXTRA_CA_CERTS",
      options,
    );
  if (known !== undefined) return new Cut(known, false, true, undefined, options);
  const cut = ["ECONNRESET", "UND_ERR_SOCKET"].includes(code);
  return new Cut(cut ? "the connection was cut" : said, false, false, undefined, options);
}
