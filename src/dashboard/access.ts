/**
 * Who may ask the dashboard's server. It listens on loopback only, but every page that the user's
 * browser shows can send requests there, and so can other users of the machine.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { chmod, readFile, writeFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { homedir } from "node:os";
import { join } from "node:path";
import { makeFolder } from "../run/folder.js";

/** What a page may do, for all answers: run our scripts, and talk to this server alone. */
export const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "frame-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** What a report may do, which comes from a stranger's folder: be looked at. */
export const REPORT_POLICY =
  "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'";

/** Headers of every answer. */
export const HEADERS = {
  "Cache-Control": "no-store",
  "Content-Security-Policy": POLICY,
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
};

/**
 * Check the address that a request names, and the page that it comes from. A page of another site
 * can reach this server under a name of its own (DNS rebinding).
 *
 * @returns why it is refused, or undefined
 */
export function refusal(
  { headers, method, url }: IncomingMessage,
  port: number,
): string | undefined {
  const hosts = ["127.0.0.1", "localhost", "[::1]"].map((name) => `${name}:${port}`);
  const { host = "", origin, "sec-fetch-site": site } = headers;
  if (!hosts.includes(host)) return "the request names another host";
  if (origin !== undefined && origin !== `http://${host}`) return "the request has another origin";
  // A link on another page may open this one, which has nothing of the runs without the token.
  const opened = headers["sec-fetch-dest"] === "document" && method === "GET" && url === "/";
  if (site !== undefined && site !== "same-origin" && site !== "none" && !opened)
    return "the request comes from another site";
  return undefined;
}

/** Whether a request has the token. */
export function hasToken({ headers }: IncomingMessage, token: string): boolean {
  const given = /^Bearer (.+)$/.exec(headers.authorization ?? "")?.[1] ?? "";
  return same(given, token);
}

/** Compare two texts in a time that does not depend on where they differ. */
export function same(a: string, b: string): boolean {
  const [x, y] = [a, b].map((text) => createHash("sha256").update(text).digest());
  return timingSafeEqual(x!, y!);
}

const TOKEN = /^[\w-]{43}$/;

/** Make a token that cannot be guessed. */
export const newToken = () => randomBytes(32).toString("base64url");

/**
 * Get the token for a folder of runs. It is kept in the user's state folder, so that open pages
 * find the dashboard again after a restart. If it cannot be kept, a new one is made.
 */
export async function tokenFor(runs: string): Promise<string> {
  const state = process.env.XDG_STATE_HOME || join(homedir(), ".local", "state");
  const folder = join(state, "atlas-symmetry", "dashboard");
  const file = join(folder, createHash("sha256").update(runs).digest("hex").slice(0, 32));
  const kept = await readFile(file, "utf8").catch(() => "");
  if (TOKEN.test(kept)) {
    await chmod(file, 0o600).catch(() => undefined);
    return kept;
  }
  const token = newToken();
  try {
    await makeFolder(folder);
    await writeFile(file, token, { mode: 0o600, flag: kept === "" ? "wx" : "w" });
    return token;
  } catch {
    // Another dashboard has just made one, or this token lasts as long as this process.
    const other = await readFile(file, "utf8").catch(() => "");
    return TOKEN.test(other) ? other : token;
  }
}
