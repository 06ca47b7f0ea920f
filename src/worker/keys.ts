/** What two machines need to trust each other: an authority, the certificates that it signs, and a token. */
import "reflect-metadata"; // which @peculiar/x509 asks for
import { KeyObject, randomBytes, webcrypto } from "node:crypto";
import { chmod, mkdir, readdir, realpath, rename, rm } from "node:fs/promises";
import { isIP } from "node:net";
import { basename, dirname, join } from "node:path";
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
  syncFolder,
  TEMPORARY_SUFFIX,
  writeFileAtomic,
} from "../run/atomic.js";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const DAY_MS = 24 * 3600 * 1000;
const HOUR_MS = 3600 * 1000;
const TOKEN_BYTES = 32;
/** Under which a worker is reached from its own machine. */
const HERE = ["localhost", "127.0.0.1", "::1"];

export interface KeyOptions {
  /** Names and addresses under which the worker is reached from elsewhere. */
  hosts: readonly string[];
  /** For how long the certificates are valid (default 825). */
  days?: number;
  /** From when on they are (default: an hour ago, since clocks differ). */
  notBefore?: Date;
}

/** PEM texts, and a token. */
export interface Keys {
  ca: string;
  caKey: string;
  server: string;
  serverKey: string;
  client: string;
  clientKey: string;
  token: string;
}

/** Make an authority, a server's and a client's certificate of it (X.509, ECDSA on P-256), and a token of 256 random bits. */
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
  const sign = async (pair: CryptoKeyPair, name: string, usage: ExtendedKeyUsage, names: readonly string[]) =>
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
        ...(names.length === 0 ? [] : [new SubjectAlternativeNameExtension(names.map(generalName))]),
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

/** File name by what it holds; all but the certificates are for their owner's eyes only. */
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
 * Write keys as the files of a folder that only its owner may enter. Whatever happens to the process, they are all of one set: the new files are
 * made in a folder beside it, which then takes its place. Between two renames there is none; the former set is then in `.NAME.….old`. An empty
 * folder stays the one that it is, which a shell may stand in, or be a mount point; only there may a part of the set be left.
 *
 * @throws FileError when there are keys already, unless `force`, or anything else is in the folder; nothing is then written
 */
export async function writeKeys(path: string, keys: Keys, { force = false } = {}): Promise<void> {
  const folder = await realpath(path).catch(() => path); // of a link, what it leads to is replaced
  const names = Object.values(KEY_FILES);
  const present = await readdir(folder).catch((error) => {
    if (errorCode(error) === "ENOENT") return undefined;
    throw explainFileSystem(error, "create", folder, "--out");
  });
  const other = present?.find((name) => !names.includes(name));
  if (other !== undefined)
    throw new FileError(`${folder} has other files in it (${other})`, "choose another folder with --out");
  if (present?.[0] !== undefined && !force)
    throw new FileError(
      `${join(folder, present[0])} is there already`,
      "choose another folder with --out, or replace it with --force",
    );
  const beside = join(dirname(folder), `.${basename(folder)}.${randomBytes(4).toString("hex")}`);
  const [made, old] = [`${beside}${TEMPORARY_SUFFIX}`, `${beside}.old`];
  const write = async (to: string) => {
    for (const [what, name] of Object.entries(KEY_FILES) as [keyof Keys, string][])
      await writeFileAtomic(join(to, name), keys[what], undefined, PUBLIC.includes(what) ? 0o644 : 0o600);
  };
  try {
    if (present?.length === 0) {
      await chmod(folder, 0o700);
      return await write(folder);
    }
    await mkdir(dirname(folder), { recursive: true });
    await mkdir(made, { mode: 0o700 });
    await write(made);
    if (present) await rename(folder, old);
    await rename(made, folder).catch(async (error) => {
      if (present) await rename(old, folder);
      throw error;
    });
    await syncFolder(dirname(folder));
    await rm(old, { recursive: true, force: true });
  } catch (error) {
    await rm(made, { recursive: true, force: true }).catch(() => undefined);
    throw explainFileSystem(error, "create", folder, "--out");
  }
}

type CryptoKeyPair = webcrypto.CryptoKeyPair;

function newPair(): Promise<CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]) as Promise<CryptoKeyPair>;
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
