/** What pools of other machines share: where Atlas is there, and what their workers can read. */

import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import type { Access } from "../rpc/index.js";
import { readAccess } from "../worker/remote.js";

/**
 * Find the Python and the worker's package on the nodes: in the folder that ATLAS_REMOTE names, or
 * at the same paths as here.
 */
export async function installation(): Promise<{ python: string; workerDir: string }> {
  const remote = process.env.ATLAS_REMOTE;
  if (remote) {
    const workerDir = join(remote, "py-worker");
    return { python: join(workerDir, ".venv/bin/python"), workerDir };
  }
  const { ensureVenv } = await import("../setup/venv.js");
  return ensureVenv();
}

/** Files of `atlas worker keygen`, at the same path on the nodes and here. */
export interface Keys {
  /** What the worker gets. */
  serve: { tlsCert: string; tlsKey: string; tlsClientCa: string; tokenFile: string };
  /** What clients need. */
  access: Access;
}

/**
 * Read the keys in the folder that ATLAS_POOL_KEYS names, for workers that other machines reach.
 *
 * @returns undefined if it names none: workers then listen on the loopback interface
 * @throws FileError if a file is missing or wrong
 */
export async function readKeys(): Promise<Keys | undefined> {
  const folder = process.env.ATLAS_POOL_KEYS;
  if (!folder) return undefined;
  const at = (name: string) => join(resolve(folder), name);
  const tokenFile = at("token");
  const files = { ca: at("ca.pem"), cert: at("client.pem"), key: at("client-key.pem") };
  const serve = { tlsCert: at("server.pem"), tlsKey: at("server-key.pem"), tlsClientCa: files.ca };
  const access = await readAccess({ address: "node:1", secure: true }, { ...files, tokenFile });
  return { serve: { ...serve, tokenFile }, access };
}

/** Quote a word for a POSIX shell. */
export function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** A token in a file that only this user may read. */
export interface TokenFile {
  token: string;
  path: string;
  remove(): Promise<void>;
}

/**
 * Write a new token to a file. Nodes read it from a file system that they share with this machine.
 * ATLAS_POOL_FOLDER names a folder there (default: the user's state folder).
 */
export function writeToken(): TokenFile {
  const state = process.env.XDG_STATE_HOME || join(homedir(), ".local", "state");
  const folder = process.env.ATLAS_POOL_FOLDER || join(state, "atlas-symmetry", "pools");
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const path = join(folder, `token-${randomBytes(6).toString("hex")}`);
  const token = randomBytes(32).toString("base64url");
  writeFileSync(path, `${token}\n`, { mode: 0o600, flag: "wx" });
  chmodSync(path, 0o600);
  return { token, path, remove: () => rm(path, { force: true }) };
}
