/**
 * `atlas clean`: list or remove what Atlas made for itself. Runs, and data of the user, are not
 * touched.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { lstat, readdir, rm, rmdir } from "node:fs/promises";
import { join, sep } from "node:path";
import type { Command } from "commander";
import { z } from "zod";
import { cacheFolder, listCaches, removeCaches } from "../data/caches.js";
import { formatBytes } from "../data/dataset.js";
import { SetupError, UsageError } from "../errors.js";
import { flagsOf } from "../experiment/flags.js";
import { printable } from "../interop/printable.js";
import { explainFileSystem } from "../run/atomic.js";
import { LOCK, WORKER } from "../setup/common.mjs";
import { type Lock, takeLock } from "../setup/lock.mjs";
import { compiledFolders } from "../setup/node.mjs";
import { clearVenv, madeVenvs } from "../setup/python.mjs";
import { listRemainders } from "../worker/container.js";
import { addCommonOptions, givenValues } from "./options.js";

const KINDS = ["venv", "cache", "code", "image"] as const;

const Options = z.object({
  dry_run: z.boolean().default(false).describe("Only list what would be removed"),
  only: z
    .enum(KINDS)
    .optional()
    .describe(
      "Only this: Python environments, workers' caches, compiled code, or container images",
    ),
  json: z.boolean().default(false).describe("Print only JSON on stdout"),
});

/** Something that can be removed. */
interface Item {
  kind: (typeof KINDS)[number];
  /** Path, or name of an image. */
  name: string;
  /** undefined if it is not known */
  bytes?: number;
  /** @returns why it is still there; undefined if it is gone */
  remove(): Promise<string | undefined>;
}

/** Add the command to `program`. */
export function register(program: Command): void {
  const flags = flagsOf(Options);
  const command = program
    .command("clean")
    .description(
      "Remove what Atlas made for itself: Python environments, caches, compiled code and " +
        "container images. Runs and your data stay. The next command makes again what it needs, " +
        "for which it may need the network.",
    );
  for (const flag of flags) command.addOption(flag.option);
  addCommonOptions(command, ["debug"])
    .addHelpText("after", "\nExamples:\n  atlas clean --dry-run\n  atlas clean --only cache")
    .action(async () => {
      const { dry_run, only, json } = Options.parse(givenValues(command, flags));
      const kinds = only === undefined ? KINDS : [only];
      const items = await list(kinds);
      const kept = new Map<Item, string>();
      if (!dry_run)
        await holding(items, async () => {
          for (const item of items) {
            const reason = await item.remove();
            if (reason !== undefined) kept.set(item, reason);
          }
        });
      if (kept.size > 0) process.exitCode = 1;
      const freed = items.filter((item) => !kept.has(item));
      const bytes = freed.reduce((sum, item) => sum + (item.bytes ?? 0), 0);
      if (json) {
        const listed = items.map((item) => {
          const { kind, name, bytes } = item;
          return { kind, name, bytes, removed: !dry_run && !kept.has(item), kept: kept.get(item) };
        });
        process.stdout.write(`${JSON.stringify({ bytes, items: listed }, null, 2)}\n`);
        return;
      }
      for (const item of items) {
        const size = item.bytes === undefined ? "?" : formatBytes(item.bytes);
        const reason = kept.has(item) ? `  kept: ${printable(kept.get(item)!)}` : "";
        process.stdout.write(
          `${item.kind.padEnd(5)}  ${size.padStart(8)}  ${printable(item.name)}${reason}\n`,
        );
      }
      const end = dry_run
        ? `${formatBytes(bytes)} would be freed; nothing was removed`
        : `${formatBytes(bytes)} freed`;
      process.stdout.write(`${items.length === 0 ? "there is nothing to remove" : end}\n`);
    });
}

/** List what there is, in the order in which it is removed: the code of this program last. */
async function list(kinds: readonly Item["kind"][]): Promise<Item[]> {
  const items: Item[] = [];
  if (kinds.includes("image"))
    for (const { name, bytes, remove } of await images())
      items.push({ kind: "image", name, bytes, remove });
  if (kinds.includes("cache"))
    for (const file of await listCaches(cacheFolder()))
      items.push({
        kind: "cache",
        name: file.path,
        bytes: file.bytes,
        remove: async () => void (await removeCaches([file])),
      });
  if (kinds.includes("venv"))
    for (const name of madeVenvs())
      items.push({
        kind: "venv",
        name,
        bytes: await sizeOf(name),
        remove: () => removing(name, () => clearVenv(name)),
      });
  if (kinds.includes("code"))
    for (const name of compiledFolders())
      items.push({
        kind: "code",
        name,
        bytes: await sizeOf(name),
        remove: () => removing(name, () => rm(name, { recursive: true, force: true })),
      });
  return items;
}

async function images(): Promise<Awaited<ReturnType<typeof listRemainders>>> {
  try {
    return await listRemainders();
  } catch (error) {
    const why = error instanceof SetupError ? error.message : "the engine does not answer";
    process.stderr.write(`warning: container images were not looked for: ${why}\n`);
    return [];
  }
}

async function removing(path: string, work: () => Promise<unknown>): Promise<undefined> {
  try {
    await work();
  } catch (error) {
    throw explainFileSystem(error, "remove", path);
  }
}

/**
 * Do some work while no set-up and no worker uses the folders of some items.
 *
 * @throws UsageError if one does
 */
async function holding(items: readonly Item[], work: () => Promise<void>): Promise<void> {
  const venvs = items.filter(({ kind }) => kind === "venv").map(({ name }) => name);
  for (const folder of venvs) refuseUsed(folder);
  // The set-up of a clone compiles while it holds the lock of the clone's own folder.
  const own = items.some(({ kind }) => kind === "code") ? [join(WORKER, ".venv")] : [];
  const folders = [...new Set([...venvs, ...own])].filter((folder) => existsSync(folder));
  const locks: Lock[] = [];
  try {
    for (const folder of folders)
      locks.push(
        await takeLock(join(folder, LOCK), {
          onBusy(holder) {
            if (holder === undefined) return;
            throw new UsageError(
              `process ${holder.pid} on ${holder.host} is setting up ${folder}`,
              "wait until it is done, or stop it",
            );
          },
        }).catch((error: unknown) => {
          throw explainFileSystem(error, "write", folder);
        }),
      );
    await work();
  } finally {
    for (const lock of locks) await lock.release();
    // A folder with other things, a link or a mount point stays.
    for (const folder of folders) await rmdir(folder).catch(() => undefined);
  }
}

/** @throws UsageError if a program of a venv runs */
function refuseUsed(folder: string): void {
  for (const name of existsSync("/proc/self/cmdline") ? readdirSync("/proc") : []) {
    if (!/^\d+$/.test(name)) continue;
    let command = "";
    try {
      command = readFileSync(`/proc/${name}/cmdline`, "utf8");
    } catch {} // it has ended, or belongs to another user
    if (command.startsWith(folder + sep))
      throw new UsageError(
        `process ${name} is a worker or another program of ${folder}`,
        "wait until it is done, or stop it; a worker in the background stops with: atlas worker stop",
      );
  }
}

/** Measure what a folder takes on the disk. */
async function sizeOf(folder: string): Promise<number> {
  let bytes = 0;
  for (const entry of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) bytes += await sizeOf(path);
    else bytes += ((await lstat(path).catch(() => undefined))?.blocks ?? 0) * 512;
  }
  return bytes;
}
