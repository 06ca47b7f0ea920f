/** Workers that run already: how their addresses are written, and what is shown to one that asks who comes. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createSecureContext, type SecureContext } from "node:tls";
import { FileError, UsageError } from "../errors.js";
import { type Access, type Address, isLoopback } from "../rpc/index.js";
import { errorCode, explainFileSystem } from "../run/atomic.js";

const REMEDY = "give local, docker, grpc://HOST:PORT, or grpcs://HOST:PORT";

/** Where systems keep the authorities they trust; the list is that of Go's crypto/x509. */
const SYSTEM_AUTHORITIES = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

/** Files (in PEM, but for the token) with what a worker that listens beyond its own machine asks for. */
export interface Credentials {
  /** Authorities to trust (default: what ATLAS_CA names, or the system's). */
  ca?: string;
  /** Our certificate, for a worker that asks for one (default: what ATLAS_CERT names). */
  cert?: string;
  /** Its private key (default: what ATLAS_KEY names). */
  key?: string;
  /** The worker's token (default: that in ATLAS_TOKEN itself). */
  tokenFile?: string;
}

/**
 * Where the worker is that `--worker` names.
 *
 * @throws UsageError for anything but grpc://host:port and grpcs://host:port
 */
export function parseAddress(text: string): Address {
  const [, scheme, host, port] = /^(grpcs?):\/\/([\w.-]+|\[[\da-f:.]+\]):(\d+)\/?$/i.exec(text) ?? [];
  if (scheme === undefined || !(Number(port) >= 1 && Number(port) <= 65535))
    throw new UsageError(`--worker ${text}: this is no address of a worker`, REMEDY);
  return { address: `${host}:${Number(port)}`, secure: scheme.toLowerCase() === "grpcs" };
}

/**
 * Read what is shown to a worker.
 *
 * @throws UsageError when it would go to a worker without TLS on another machine, or is not for one without TLS
 * @throws FileError naming the file that cannot be read or is not what it should be
 */
export async function readAccess({ address, secure }: Address, given: Credentials): Promise<Access> {
  for (const name of ["ca", "cert", "key"] as const)
    if (!secure && given[name] !== undefined)
      throw new UsageError(`--${name} is for TLS, which grpc://${address} goes without`, "write grpcs://");
  const { ATLAS_CA, ATLAS_CERT, ATLAS_KEY, ATLAS_TOKEN } = process.env;
  const token =
    given.tokenFile === undefined
      ? ATLAS_TOKEN || undefined
      : (await read(given.tokenFile)).toString().trim();
  if (token !== undefined && !/^[!-~]+$/.test(token))
    throw new FileError(`${given.tokenFile ?? "ATLAS_TOKEN"} holds no token`, "it is one word on one line");
  if (!secure) {
    if (token !== undefined && !isLoopback(address))
      throw new UsageError(
        `the token would go to ${address} unencrypted`,
        "write grpcs://, or leave out --token-file and ATLAS_TOKEN",
      );
    return { token };
  }
  const ca = given.ca ?? (ATLAS_CA || undefined);
  const cert = given.cert ?? (ATLAS_CERT || undefined);
  const key = given.key ?? (ATLAS_KEY || undefined);
  if ((cert === undefined) !== (key === undefined))
    throw new UsageError("--cert and --key are only good together", "give both");
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
    throw new FileError(`${key} is no private key`, "give one in PEM, not encrypted", { cause: error });
  }
  throw new FileError(`${key} is not the key of ${cert}`, "give the two files that belong together");
}

/** The first certificate of a PEM file. */
function certificate(pem: Buffer, path: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (error) {
    throw new FileError(`${path} is no certificate`, "give one in PEM", { cause: error });
  }
}

/** Undefined, which stands for the list that Node comes with, where the system has none. */
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
    const explained = explainFileSystem(error, "read", path);
    if (explained instanceof FileError) explained.remedy = "check the path, and that you may read it";
    throw explained;
  }
}

/** A ZeroMQ endpoint as it is reached from here: on the host where the worker's gRPC server is, whatever the worker calls it. */
export function reachableEndpoint(endpoint: string, address: string): string {
  const host = address.slice(0, address.lastIndexOf(":"));
  return endpoint.replace(/^tcp:\/\/(\[[^\]]*\]|[^:]*):/, `tcp://${host}:`);
}
