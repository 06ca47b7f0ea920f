/** Workers that are already running: their addresses, and the credentials for them. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createSecureContext, type SecureContext } from "node:tls";
import { FileError, UsageError } from "../errors.js";
import { type Access, type Address, isLoopback } from "../rpc/index.js";
import { errorCode, explainFileSystem } from "../run/atomic.js";

const REMEDY = "give local, docker, docker:IMAGE, grpc://HOST:PORT, or grpcs://HOST:PORT";
/** Names of the credentials for TLS in messages. */
const TLS_FILES = {
  ca: "an authority's certificate",
  cert: "a client certificate",
  key: "a private key",
} as const;

/** Where systems keep the authorities that they trust. The list is that of Go's crypto/x509. */
const SYSTEM_AUTHORITIES = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

/** Credentials for a worker on another machine, as files in PEM; the token as text. */
export interface Credentials {
  /** Certificates of trusted authorities (default: the file in ATLAS_CA, or the system's). */
  ca?: string;
  /** Client certificate, for a worker that requires one (default: the file in ATLAS_CERT). */
  cert?: string;
  /** Private key of the client certificate (default: the file in ATLAS_KEY). */
  key?: string;
  /** File with the worker's token (default: the token in ATLAS_TOKEN). */
  tokenFile?: string;
}

/**
 * Parse the address of a worker.
 *
 * @throws UsageError unless it is grpc://host:port or grpcs://host:port
 */
export function parseAddress(text: string): Address {
  const [, scheme, host, port] =
    /^(grpcs?):\/\/([\w.-]+|\[[\da-f:.]+\]):(\d+)\/?$/i.exec(text) ?? [];
  if (scheme === undefined || !(Number(port) >= 1 && Number(port) <= 65535))
    throw new UsageError(`${JSON.stringify(text)} is not the address of a worker`, REMEDY, {
      setting: "worker",
    });
  return { address: `${host}:${Number(port)}`, secure: scheme.toLowerCase() === "grpcs" };
}

/**
 * Read the credentials for a worker.
 *
 * @throws UsageError if they would be sent unencrypted to another machine, or are for TLS and the
 *   worker does not use it
 * @throws FileError if a file cannot be read or has other contents; the error names it
 */
export async function readAccess(
  { address, secure }: Address,
  given: Credentials,
): Promise<Access> {
  for (const name of ["ca", "cert", "key"] as const)
    if (!secure && given[name] !== undefined)
      throw new UsageError(
        `${TLS_FILES[name]} is for TLS, which grpc://${address} does not use`,
        "write grpcs://, or leave it out",
        { setting: name },
      );
  const { ATLAS_CA, ATLAS_CERT, ATLAS_KEY, ATLAS_TOKEN } = process.env;
  const token =
    given.tokenFile === undefined
      ? ATLAS_TOKEN || undefined
      : (await read(given.tokenFile)).toString().trim();
  if (token !== undefined && !/^[!-~]+$/.test(token))
    throw new FileError(
      `${given.tokenFile ?? "ATLAS_TOKEN"} holds no token`,
      "write one word on one line",
    );
  if (!secure) {
    if (token !== undefined && !isLoopback(address))
      throw new UsageError(
        `the token would go to ${address} unencrypted`,
        "write grpcs://, or leave out the token file and ATLAS_TOKEN",
      );
    return { token };
  }
  const ca = given.ca ?? (ATLAS_CA || undefined);
  const cert = given.cert ?? (ATLAS_CERT || undefined);
  const key = given.key ?? (ATLAS_KEY || undefined);
  if ((cert === undefined) !== (key === undefined))
    throw new UsageError(
      `a ${cert === undefined ? "private key" : "client certificate"} is given without its ` +
        `${cert === undefined ? "certificate" : "private key"}`,
      "give both",
      { setting: "clientCertificate" },
    );
  return { token, tls: await secureContext(ca, cert, key) };
}

async function secureContext(
  ca: string | undefined,
  cert: string | undefined,
  key: string | undefined,
): Promise<SecureContext> {
  const authorities = ca === undefined ? await systemAuthorities() : await read(ca);
  if (ca !== undefined) certificate(authorities!, ca);
  if (cert === undefined || key === undefined) return createSecureContext({ ca: authorities });
  const [certPem, keyPem] = [await read(cert), await read(key)];
  try {
    if (certificate(certPem, cert).checkPrivateKey(createPrivateKey(keyPem)))
      return createSecureContext({ ca: authorities, cert: certPem, key: keyPem });
  } catch (error) {
    if (error instanceof FileError) throw error;
    throw new FileError(`${key} is not a private key`, "give a key in PEM that is not encrypted", {
      cause: error,
    });
  }
  throw new FileError(`${key} does not belong to ${cert}`, "give a certificate and its own key");
}

/** Parse the first certificate of a PEM file. */
function certificate(pem: Buffer, path: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (error) {
    throw new FileError(`${path} is not a certificate`, "give a certificate in PEM", {
      cause: error,
    });
  }
}

/**
 * Read the system's authorities.
 *
 * @returns undefined if it has none; Node's own list is used then
 */
async function systemAuthorities(): Promise<Buffer | undefined> {
  for (const path of SYSTEM_AUTHORITIES)
    try {
      return await readFile(path);
    } catch (error) {
      if (errorCode(error) === undefined) throw error;
    }
  return undefined;
}

async function read(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    throw explainFileSystem(error, "read", path);
  }
}

/**
 * Write a ZeroMQ endpoint with the host of the worker's gRPC server, which may have other names.
 */
export function reachableEndpoint(endpoint: string, address: string): string {
  const host = address.slice(0, address.lastIndexOf(":"));
  return endpoint.replace(/^tcp:\/\/(\[[^\]]*\]|[^:]*):/, `tcp://${host}:`);
}
