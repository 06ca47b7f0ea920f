/** Certificates, keys and a token for a worker and clients on different machines. */
import "reflect-metadata"; // required by @peculiar/x509
import { KeyObject, randomBytes, webcrypto } from "node:crypto";
import { chmod, mkdir, readdir, realpath, rm } from "node:fs/promises";
import { isIP } from "node:net";
import { dirname, join } from "node:path";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  type X509Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";

import { FileError } from "../errors.js";
import {
  errorCode,
  explainFileSystem,
  replaceFolder,
  temporaryBeside,
  writeFileAtomic,
} from "../run/atomic.js";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const DAY_MS = 24 * 3600 * 1000;
const HOUR_MS = 3600 * 1000;
const TOKEN_BYTES = 32;
/** Names and addresses of a worker on its own machine. */
const HERE = ["localhost", "127.0.0.1", "::1"];

/** Options of {@link makeKeys}. */
export interface KeyOptions {
  /** Names and addresses of the worker's machine. */
  hosts: readonly string[];
  /** Days that the certificates are valid (default 825). */
  days?: number;
  /** Start of their validity (default: an hour ago, because clocks differ). */
  notBefore?: Date;
}

/** Certificates and private keys in PEM, and a token. */
export interface Keys {
  ca: string;
  caKey: string;
  server: string;
  serverKey: string;
  client: string;
  clientKey: string;
  token: string;
}

/**
 * Make an authority, its certificates for a worker and a client (X.509, ECDSA on P-256), and a
 * token of 256 random bits.
 */
export async function makeKeys({
  hosts,
  days = 825,
  notBefore = new Date(Date.now() - HOUR_MS),
}: KeyOptions): Promise<Keys> {
  const validity = { notBefore, notAfter: new Date(notBefore.getTime() + days * DAY_MS) };
  const [ca, server, client] = [await newPair(), await newPair(), await newPair()];
  const authority = await X509CertificateGenerator.createSelfSigned({
    ...validity,
    name: `CN=atlas worker authority ${randomBytes(4).toString("hex")}`,
    keys: ca,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(ca.publicKey),
    ],
  });
  const sign = async (
    pair: CryptoKeyPair,
    name: string,
    usage: ExtendedKeyUsage,
    names: readonly string[],
  ) =>
    X509CertificateGenerator.create({
      ...validity,
      subject: `CN=${name}`,
      issuer: authority.subject,
      publicKey: pair.publicKey,
      signingKey: ca.privateKey,
      signingAlgorithm: ALGORITHM,
      extensions: [
        new BasicConstraintsExtension(false, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new ExtendedKeyUsageExtension([usage]),
        ...(names.length === 0
          ? []
          : [new SubjectAlternativeNameExtension(names.map(generalName))]),
        await SubjectKeyIdentifierExtension.create(pair.publicKey),
        await AuthorityKeyIdentifierExtension.create(authority),
      ],
    });
  const all = [...new Set([...hosts, ...HERE])];
  return {
    ca: pemOf(authority),
    caKey: keyPem(ca),
    server: pemOf(await sign(server, "atlas worker", ExtendedKeyUsage.serverAuth, all)),
    serverKey: keyPem(server),
    client: pemOf(await sign(client, "atlas client", ExtendedKeyUsage.clientAuth, [])),
    clientKey: keyPem(client),
    token: randomBytes(TOKEN_BYTES).toString("base64url"),
  };
}

/** File names of the keys. Only the owner can read them, except for the certificates. */
export const KEY_FILES: Readonly<Record<keyof Keys, string>> = {
  ca: "ca.pem",
  caKey: "ca-key.pem",
  server: "server.pem",
  serverKey: "server-key.pem",
  client: "client.pem",
  clientKey: "client-key.pem",
  token: "token",
};
const PUBLIC: readonly (keyof Keys)[] = ["ca", "server", "client"];

/**
 * Write keys to the files of a folder that only its owner can enter.
 *
 * The folder always holds one complete set, even if the process is killed: the new files are made
 * in a folder beside it, which then takes its place. Between two renames the folder is missing; the
 * former set is then in `.NAME.….old`. An existing empty folder is filled in place, because it may
 * be a mount point. Only such a folder can be left with part of a set.
 *
 * @param force replace existing keys
 * @throws FileError if the folder has other files, or has keys and `force` is not given; nothing is
 *   written then
 */
export async function writeKeys(path: string, keys: Keys, { force = false } = {}): Promise<void> {
  // Replace the target of a link, not the link
  const folder = await realpath(path).catch(() => path);
  const names = Object.values(KEY_FILES);
  const present = await readdir(folder).catch((error) => {
    if (errorCode(error) === "ENOENT") return undefined;
    throw explainFileSystem(error, "create", folder);
  });
  const other = present?.find((name) => !names.includes(name));
  if (other !== undefined)
    throw new FileError(`${folder} holds other files (${other})`, "choose another folder", {
      elsewhere: true,
    });
  if (present?.[0] !== undefined && !force)
    throw new FileError(
      `${join(folder, present[0])} exists already`,
      "choose another folder, or replace it",
      { elsewhere: true, overwritable: true },
    );
  const made = temporaryBeside(folder);
  const write = async (to: string) => {
    for (const [what, name] of Object.entries(KEY_FILES) as [keyof Keys, string][])
      await writeFileAtomic(
        join(to, name),
        keys[what],
        undefined,
        PUBLIC.includes(what) ? 0o644 : 0o600,
      );
  };
  try {
    if (present?.length === 0) {
      await chmod(folder, 0o700);
      return await write(folder);
    }
    await mkdir(dirname(folder), { recursive: true });
    await mkdir(made, { mode: 0o700 });
    await write(made);
    await replaceFolder(made, folder);
  } catch (error) {
    await rm(made, { recursive: true, force: true }).catch(() => undefined);
    throw explainFileSystem(error, "create", folder);
  }
}

type CryptoKeyPair = webcrypto.CryptoKeyPair;

function newPair(): Promise<CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, [
    "sign",
    "verify",
  ]) as Promise<CryptoKeyPair>;
}

function generalName(host: string): { type: "ip" | "dns"; value: string } {
  return { type: isIP(host) ? "ip" : "dns", value: host };
}

function pemOf(certificate: X509Certificate): string {
  return `${certificate.toString("pem")}\n`;
}

function keyPem({ privateKey }: CryptoKeyPair): string {
  return KeyObject.from(privateKey).export({ type: "pkcs8", format: "pem" }).toString();
}
