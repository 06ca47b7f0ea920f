/** Connections to servers, as the environment has them: through a proxy, with authorities. */
import { readFileSync } from "node:fs";
import * as tls from "node:tls";
import type { buildConnector, Dispatcher, fetch } from "undici";
import { UsageError } from "../errors.js";

/** Files of authorities that curl, OpenSSL and Python know. Node itself knows another. */
const AUTHORITIES = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] as const;
/** Variables that name a proxy, for addresses that begin with http and https. The first counts. */
const PROXIES = {
  http: ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
  https: ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY"],
} as const;

interface Proxy {
  variable: string;
  url: URL;
}

/** A connection to a proxy was not made. */
export class ProxyFault extends Error {
  constructor(
    /** The proxy, without user name and password, and its variable. */
    readonly proxy: string,
    options: ErrorOptions,
  ) {
    super(`no connection to the proxy ${proxy}`, options);
  }
}

/**
 * Check the variables that name proxies.
 *
 * @throws UsageError if one does not name a proxy that can be used
 */
export function checkProxies(): void {
  for (const scheme of ["http", "https"] as const) proxyFor(scheme);
}

/** Name the proxies in use, without user names and passwords. */
export function proxyNames(): string {
  const used = [proxyFor("https"), proxyFor("http")].filter((proxy) => proxy !== undefined);
  return [...new Set(used.map(nameOf))].join(" or ");
}

function proxyFor(scheme: keyof typeof PROXIES): Proxy | undefined {
  const variable = PROXIES[scheme].find((name) => process.env[name]?.trim());
  if (variable === undefined) return undefined;
  const given = process.env[variable]!.trim();
  const text = given.includes("://") ? given : `http://${given}`;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url?.hostname || !["http:", "https:", "socks5:", "socks:"].includes(url.protocol))
    throw new UsageError(
      `${variable} does not name a proxy that can be used`,
      "write it as http://HOST:PORT",
    );
  return { variable, url };
}

function nameOf({ variable, url }: Proxy): string {
  return `${url.protocol}//${url.host} (${variable})`;
}

interface Connection {
  fetch: typeof fetch;
  dispatcher: Dispatcher;
}
let made: { key: string; connection: Connection } | undefined;

/** Get what makes requests. HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY count, in any case. */
export async function connect(): Promise<Connection> {
  const { EnvHttpProxyAgent, Pool, fetch } = await import("undici");
  const [http, https] = [proxyFor("http"), proxyFor("https")];
  const ca = authorities();
  const key = JSON.stringify([http, https, ca]);
  if (made?.key === key) return made.connection;
  const known = [http, https].filter((proxy) => proxy !== undefined);
  const dispatcher = new EnvHttpProxyAgent({
    httpProxy: http?.url.href ?? "",
    httpsProxy: https?.url.href ?? "",
    ...(ca && { connect: { ca }, requestTls: { ca }, proxyTls: { ca } }),
    // Connections to the proxy itself, whose errors are told from those of servers behind it
    clientFactory(url: URL, { connect: make }: { connect: buildConnector.connector }) {
      const proxy = known.find((other) => other.url.host === url.host);
      return new Pool(url, {
        connect: (options, callback) =>
          make(options, (...[cause, socket]) =>
            cause
              ? callback(new ProxyFault(proxy ? nameOf(proxy) : url.host, { cause }), null)
              : callback(null, socket!),
          ),
      });
    },
  } as ConstructorParameters<typeof EnvHttpProxyAgent>[0]);
  made = { key, connection: { fetch, dispatcher } };
  return made.connection;
}

/** List all authorities, if the environment names further ones. A missing file adds none. */
function authorities(): string[] | undefined {
  const read = (name: string) => {
    try {
      return [readFileSync(process.env[name] ?? "", "utf8")];
    } catch {
      return [];
    }
  };
  const more = AUTHORITIES.flatMap(read);
  if (more.length === 0) return undefined;
  // Node from 22.15 on tells what it trusts, with NODE_EXTRA_CA_CERTS and the system's store.
  const trusted =
    "getCACertificates" in tls
      ? (tls.getCACertificates as (type: string) => string[])("default")
      : [...tls.rootCertificates, ...read("NODE_EXTRA_CA_CERTS")];
  return [...new Set([...trusted, ...more])];
}
