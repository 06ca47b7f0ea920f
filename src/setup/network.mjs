/** The proxies that variables name, and what programs say about the network. Plain Node. */

/** Variables that name a proxy: those of all programs, and those of pip and npm. */
const PROXIES = [
  ...["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
  ...["PIP_PROXY", "npm_config_https_proxy", "npm_config_proxy"],
];

/**
 * List the proxies that variables name, without user names and passwords, each once.
 *
 * @param {NodeJS.ProcessEnv} [env]
 * @returns {{variable: string, address: string}[]} address: "http://proxy:3128"
 */
export function namedProxies(env = process.env) {
  /** @type {Map<string, string>} */
  const found = new Map();
  for (const variable of PROXIES) {
    const address = withoutUser(env[variable] ?? "");
    if (address !== "" && !found.has(address)) found.set(address, variable);
  }
  return [...found].map(([address, variable]) => ({ address, variable }));
}

/** Write a proxy's address without user name, password and path. @param {string} address */
function withoutUser(address) {
  return address.trim().replace(/^(\w+:\/\/)?(?:[^/]*@)?([^/]*).*$/s, "$1$2");
}

/** Programs' words for a proxy that cannot be used. */
const PROXY_FAULT =
  /ProxyError|Tunnel connection failed|Proxy response|[Pp]roxy connection|ERR_INVALID_PROXY/;
/** Programs' words for a certificate that they do not accept. */
export const CERTIFICATE_FAULT =
  /certificate verify failed|SSLError|SELF_SIGNED_CERT|UNABLE_TO_(VERIFY|GET)_|CERT_\w+|ERR_TLS_|self.signed certificate|unable to (get|verify)[\w ]* certificate/i;
/** Programs' words for a connection that was not made, or was cut. */
const NETWORK_FAULT = new RegExp(
  [
    "(NewConnection|NameResolution|MaxRetry|ConnectTimeout|ReadTimeout)Error|(Connect|Read)Timeout",
    "Connection (refused|reset|broken)|Network is unreachable|name resolution",
    "ECONNREFUSED|ECONNRESET|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|EIDLETIMEOUT",
  ].join("|"),
);

/**
 * Find out from what pip or npm says which part of the network was in the way.
 *
 * @param {string} said
 * @param {string} setting the variable that names an authority's certificate to this program
 * @returns {{what: string, remedy: string} | undefined} undefined if it was not the network
 */
export function networkTrouble(said, setting) {
  const proxies = namedProxies();
  const names = proxies.map(({ address, variable }) => `${address} (${variable})`).join(" or ");
  const proxy = `the proxy ${names}`.trim();
  if (/407 Proxy|\(407\)|E407/.test(said))
    return {
      what: `${proxy} wants a user name and a password`,
      remedy: "write them into its address: http://USER:PASSWORD@HOST:PORT",
    };
  if (/dependencies for SOCKS/.test(said))
    return { what: `${proxy} speaks SOCKS, which pip does not`, remedy: "name a proxy for HTTP" };
  if (PROXY_FAULT.test(said) || proxies.some(({ address }) => isMeant(said, address)))
    return { what: `${proxy} cannot be used`, remedy: "check that setting, and the proxy" };
  if (CERTIFICATE_FAULT.test(said))
    return {
      what: "a certificate was not accepted",
      remedy: `if your network has an authority of its own, name its certificate in ${setting}`,
    };
  if (NETWORK_FAULT.test(said))
    return {
      what: "is there a network?",
      remedy: "check the network, and the index or registry and the proxy in its settings",
    };
  return undefined;
}

/** Whether an error names the host or the port of a proxy. @param {string} said @param {string} address */
function isMeant(said, address) {
  const [, host = "", port = "80"] = /^(?:\w+:\/\/)?(.*?)(?::(\d+))?$/.exec(address) ?? [];
  const [, where, at] =
    /\b(?:ENOTFOUND|EAI_AGAIN) (\S+)|\b(?:ECONNREFUSED|ETIMEDOUT|E\w+UNREACH) \S+:(\d+)/.exec(
      said,
    ) ?? [];
  return where === host || at === port;
}
