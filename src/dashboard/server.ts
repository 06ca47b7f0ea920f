/** The server of the dashboard. It reads run folders, and writes nothing there. */
import { readFile, realpath } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo, Socket } from "node:net";
import { join, resolve } from "node:path";
import { UsageError } from "../errors.js";
import { STYLE } from "../report/style.js";
import { errorCode } from "../run/atomic.js";
import { isFolder, isPlainName, MOST_REPORT, readPlain } from "../run/plain.js";
import { ROOT } from "../setup/common.mjs";
import { HEADERS, hasToken, newToken, REPORT_POLICY, refusal, tokenFor } from "./access.js";
import { compareRuns, MOST_COMPARED } from "./compare.js";
import { readDetail, readSteps } from "./detail.js";
import { Feed } from "./feed.js";
import { parseCursor, Stream } from "./stream.js";
import { readSweep, readSweeps } from "./sweeps.js";

/** Options of {@link serveDashboard}. */
export interface DashboardOptions {
  /** Folder of run folders. */
  runs: string;
  /** Port on loopback (default: {@link DEFAULT_PORT}, or a free one if that is taken). */
  port?: number;
}

/** A dashboard that is being served. */
export interface Dashboard {
  /** The address to open, with the token in its fragment. */
  url: string;
  port: number;
  /**
   * Stop. Open pages get what happened last.
   *
   * @param lingerMs how long pages may go on asking
   */
  close(lingerMs?: number): Promise<void>;
}

/** The port without another wish. */
export const DEFAULT_PORT = 8137;
/** Runs in the first part of the list, which is shown at once, and in each other. */
const [FIRST, PART] = [60, 250];
/** Bytes of a request's body at most: a cursor over some hundred thousand runs. */
const MOST_BODY = 1 << 24;
/** Milliseconds for which a ticket for a report is good. */
const TICKET_MS = 30_000;
const PAGE = join(ROOT, "src/dashboard/page");
const LOOPBACK = "127.0.0.1";

/** An answer other than 200. */
class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

interface Asset {
  type: string;
  load(): Promise<string | Buffer>;
}

/** The files that make up the page, by path. */
const ASSETS: Readonly<Record<string, Asset>> = {
  "/": page("index.html", "text/html"),
  "/style.css": {
    type: "text/css",
    load: async () => `${STYLE}\n${await readFile(join(PAGE, "style.css"), "utf8")}`,
  },
  "/icon.svg": page("icon.svg", "image/svg+xml"),
  ...Object.fromEntries(
    ["main", "dom", "stream", "store", "runs", "run", "compare", "sweep", "curves"].map((name) => [
      `/${name}.mjs`,
      page(`${name}.mjs`, "text/javascript"),
    ]),
  ),
  "/uplot.js": uplot("uPlot.iife.min.js", "text/javascript"),
  "/uplot.css": uplot("uPlot.min.css", "text/css"),
};

function page(name: string, type: string): Asset {
  return { type, load: () => readFile(join(PAGE, name)) };
}

function uplot(name: string, type: string): Asset {
  const path = () => createRequire(import.meta.url).resolve(`uplot/dist/${name}`);
  return { type, load: () => readFile(path()) };
}

/**
 * Serve the dashboard of a folder of runs on loopback.
 *
 * @throws UsageError if the port cannot be had
 */
export async function serveDashboard({ runs, port }: DashboardOptions): Promise<Dashboard> {
  const folder = await realpath(runs).catch(() => resolve(runs)); // it may come later
  const token = await tokenFor(folder);
  const feed = new Feed(folder);
  const streams = new Set<Stream>();
  const tickets = new Map<string, { of: string; until: number }>();
  let own = 0;
  let ending = false;

  const answers: Record<string, (query: URLSearchParams, body: unknown) => Promise<unknown>> = {
    async "/api/runs"(query) {
      const names = await feed.names();
      const after = query.get("after");
      const rest = after === null ? names : names.filter((name) => name < after);
      const part = rest.slice(0, after === null ? FIRST : PART);
      const next = rest.length > part.length ? part.at(-1) : undefined;
      return { total: names.length, next, runs: await feed.summaries(part), folder };
    },
    async "/api/run"(query) {
      const id = await known(query.get("id"));
      return readDetail(folder, id);
    },
    async "/api/steps"(query) {
      return { steps: await readSteps(folder, await known(query.get("id"))) };
    },
    async "/api/compare"(query) {
      const ids = [...new Set(query.getAll("id"))];
      if (ids.length < 2 || ids.length > MOST_COMPARED)
        throw new Refused(400, `compare 2 to ${MOST_COMPARED} runs`);
      return compareRuns(folder, await Promise.all(ids.map(known)));
    },
    "/api/sweeps": async () => ({ sweeps: await readSweeps(folder) }),
    async "/api/sweep"(query) {
      const sweep = await readSweep(folder, query.get("id") ?? "", (ids) => feed.summaries(ids));
      if (sweep === undefined) throw new Refused(404, "there is no such sweep");
      return sweep;
    },
    async "/api/ticket"(query) {
      const sweep = query.get("sweep");
      const of =
        sweep === null
          ? join(folder, await known(query.get("id")))
          : join(folder, "sweeps", await knownSweep(sweep));
      const now = Date.now();
      for (const [ticket, { until }] of tickets) if (until < now) tickets.delete(ticket);
      const ticket = newToken();
      tickets.set(ticket, { of, until: now + TICKET_MS });
      return { ticket };
    },
  };

  async function known(id: string | null): Promise<string> {
    if (id === null || !isPlainName(id)) throw new Refused(400, "this is no name of a run");
    if ((await feed.folderOf(id)) === undefined || (await feed.summary(id)) === undefined)
      throw new Refused(404, "there is no such run");
    return id;
  }

  async function knownSweep(id: string): Promise<string> {
    if (isPlainName(id) && (await isFolder(join(folder, "sweeps", id)))) return id;
    throw new Refused(404, "there is no such sweep");
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
    const refused = refusal(request, own);
    if (refused !== undefined) throw new Refused(403, refused);
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://localhost");
    const asset = Object.hasOwn(ASSETS, pathname) ? ASSETS[pathname] : undefined;
    const { method } = request;
    if (asset && (method === "GET" || method === "HEAD")) {
      response.setHeader("Content-Type", `${asset.type}; charset=utf-8`);
      const contents = await asset.load();
      return void response.end(method === "HEAD" ? undefined : contents);
    }
    if (pathname === "/report" && method === "GET") return report(searchParams, response);
    if (!pathname.startsWith("/api/")) throw new Refused(404, "there is no such page");
    if (!hasToken(request, token)) throw new Refused(401, "the token is missing or wrong");
    if (method !== "GET" && method !== "POST") throw new Refused(405, "ask with GET or POST");
    const body = method === "POST" ? await bodyOf(request) : undefined;
    if (pathname === "/api/events") {
      if (ending) throw new Refused(503, "the dashboard ends");
      const stream = new Stream(feed, response, cursorOf(body, request));
      streams.add(stream);
      response.on("close", () => streams.delete(stream));
      return stream.open();
    }
    if (!Object.hasOwn(answers, pathname)) throw new Refused(404, "there is no such question");
    const value = await answers[pathname]!(searchParams, body);
    response.setHeader("Content-Type", "application/json; charset=utf-8");
    response.end(JSON.stringify(value));
  }

  /** Answer with a report. A frame cannot send the token, so it has a ticket for one request. */
  async function report(query: URLSearchParams, response: ServerResponse): Promise<void> {
    const ticket = query.get("ticket") ?? "";
    const good = tickets.get(ticket);
    tickets.delete(ticket);
    if (good === undefined || good.until < Date.now())
      throw new Refused(401, "the ticket is missing or used");
    const contents = await readPlain(good.of, "report.html", MOST_REPORT);
    if (contents === undefined) throw new Refused(404, "the run has no report");
    response.setHeader("Content-Security-Policy", REPORT_POLICY);
    response.setHeader("Content-Type", "text/html; charset=utf-8");
    response.end(contents);
  }

  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      if (response.headersSent) return void response.destroy();
      response.statusCode = error instanceof Refused ? error.status : 500;
      const message = error instanceof Error ? error.message : String(error);
      response.setHeader("Content-Type", "application/json; charset=utf-8");
      response.end(JSON.stringify({ error: message }));
    });
  });
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  own = await listen(server, port);
  return {
    url: `http://${LOOPBACK}:${own}/#token=${token}`,
    port: own,
    async close(lingerMs = 0) {
      if (lingerMs > 0 && streams.size > 0) {
        ending = true;
        await feed.refresh();
        await Promise.all([...streams].map((stream) => stream.end()));
        const until = performance.now() + lingerMs;
        while (streams.size > 0 && performance.now() < until)
          await new Promise((done) => setTimeout(done, 50));
      }
      for (const stream of streams) stream.close();
      const closed = new Promise((done) => server.close(done));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** Get the cursor of a page that comes back: in the body, or as other clients send it. */
function cursorOf(body: unknown, { headers }: IncomingMessage) {
  const last = headers["last-event-id"];
  if (typeof last === "string" && last !== "") {
    try {
      return parseCursor(JSON.parse(last));
    } catch {
      return undefined;
    }
  }
  return parseCursor((body as { cursor?: unknown } | undefined)?.cursor);
}

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of request) {
    size += (part as Buffer).length;
    if (size > MOST_BODY) throw new Refused(413, "the request is too large");
    parts.push(part as Buffer);
  }
  try {
    return size === 0 ? undefined : JSON.parse(Buffer.concat(parts).toString("utf8"));
  } catch {
    throw new Refused(400, "the request is not JSON");
  }
}

async function listen(server: Server, port: number | undefined): Promise<number> {
  const attempt = (number: number) =>
    new Promise<number>((done, reject) => {
      server.once("error", reject).listen({ port: number, host: LOOPBACK, exclusive: true }, () => {
        server.off("error", reject);
        done((server.address() as AddressInfo).port);
      });
    });
  try {
    return await attempt(port ?? DEFAULT_PORT);
  } catch (error) {
    const code = errorCode(error);
    if (port === undefined && code === "EADDRINUSE") return attempt(0);
    const why =
      code === "EADDRINUSE"
        ? "is in use"
        : code === "EACCES"
          ? "needs privileges"
          : "cannot be listened on";
    throw new UsageError(`port ${port} ${why}`, "choose another one, or none to get a free one", {
      cause: error,
    });
  }
}
