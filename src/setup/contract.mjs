/**
 * Compare the contract (proto/) with earlier commits. A change must not break programs that speak
 * the same version. buf compares the .proto files, and `brokenBlocks` the block catalogues. Plain
 * Node.
 */
import { join } from "node:path";
import { execute, ROOT } from "./common.mjs";
import { GIT_OPTIONS } from "./environment.mjs";

/** The line that states the version, and the file that holds it. */
const VERSION = "PROTOCOL_VERSION_CURRENT = ";
const FILE = "proto/atlas/v1/worker.proto";
const BLOCKS = "proto/atlas/v1/blocks.json";

/**
 * Get the earlier contracts that must not be broken: the one at the last change of the version, and
 * the one before the last change of proto/, which may have additions. Other versions are left out.
 *
 * @typedef {{when: string, archive: string, blocks?: string}} Earlier
 *   archive: for `buf breaking --against`; blocks: the text of the block catalogue, if it had one
 * @param {string} folder for the archives
 * @returns {Promise<Earlier[] | string>} a text says why there is nothing to compare with
 */
export async function earlierContracts(folder, root = ROOT) {
  const git = async (/** @type {string[]} */ ...args) => {
    const { code, lines } = await execute("git", [...GIT_OPTIONS, ...args], {
      cwd: root,
      keep: Infinity,
    });
    return code === 0 ? lines : [];
  };
  if ((await git("rev-parse", "--is-shallow-repository"))[0] === "true")
    return "this clone lacks the history (git fetch --unshallow)";
  const [versioned] = await git("log", "-1", "--format=%H", `-G${VERSION}`, "--", FILE);
  if (versioned === undefined) return "there is no git history here";
  const edited = (await git("status", "--porcelain", "--", "proto")).length > 0;
  const [, last] = await git("log", "-2", "--format=%H", "--", "proto");
  const [version] = await git("grep", "-h", VERSION, "--", FILE);
  const earlier = new Map([
    [edited ? "HEAD" : last, "before its last change"],
    [versioned, "when its version was last changed"],
  ]);
  const found = [];
  for (const [commit, when] of earlier) {
    if (
      commit === undefined ||
      (await git("grep", "-h", VERSION, commit, "--", FILE))[0] !== version
    )
      continue;
    const archive = join(folder, `${commit}.tar`);
    await git("archive", "--output", archive, commit, "proto");
    const blocks = (await git("show", `${commit}:${BLOCKS}`)).join("\n");
    found.push({
      when,
      archive: `${archive}#subdir=proto`,
      ...(blocks === "" ? {} : { blocks }),
    });
  }
  return found;
}

/**
 * @typedef {{type?: string, enum?: string[], items?: Schema, properties?: Record<string, Schema>,
 *   required?: string[], default?: unknown, minimum?: number, maximum?: number, minItems?: number,
 *   maxItems?: number, "x-former"?: string}} Schema
 * @typedef {{aliases?: string[], manifolds?: string[], needs_predictor?: boolean,
 *   finds_k?: boolean, alternates?: boolean, executes_code?: boolean, params: Schema}} Entry
 */

/**
 * Find changes of a block catalogue that break programs written for the earlier one. Blocks and
 * parameters may be added, renamed with an alias, and accept more. Everything else breaks.
 *
 * @param {string} before JSON
 * @param {string} after JSON
 * @returns {string[]} a line for each such change
 */
export function brokenBlocks(before, after) {
  /** @typedef {Record<string, Record<string, Entry>>} Blocks */
  const [old, now] = [before, after].map((json) => /** @type {Blocks} */ (JSON.parse(json).blocks));
  /** @type {string[]} */
  const found = [];
  for (const [type, entries] of Object.entries(/** @type {Blocks} */ (old)))
    for (const [kind, entry] of Object.entries(entries)) {
      const block = `${type} ${kind}`;
      const rest = now?.[type] ?? {};
      const named = (/** @type {string} */ name) =>
        rest[name] ?? Object.values(rest).find((other) => other.aliases?.includes(name));
      const next = named(kind);
      if (next === undefined) {
        found.push(`${block}: it is gone`);
        continue;
      }
      for (const alias of entry.aliases ?? [])
        if (named(alias) !== next) found.push(`${block}: its alias ${alias} is gone`);
      for (const trait of /** @type {const} */ (["needs_predictor", "executes_code"]))
        if (next[trait] && !entry[trait]) found.push(`${block}: ${trait} is new`);
      for (const trait of /** @type {const} */ (["finds_k", "alternates"]))
        if (entry[trait] && !next[trait]) found.push(`${block}: ${trait} is gone`);
      const places = next.manifolds ?? [];
      if (places.length > 0) {
        const lost = (entry.manifolds ?? []).filter((manifold) => !places.includes(manifold));
        if ((entry.manifolds ?? []).length === 0)
          found.push(`${block}: it no longer works everywhere`);
        else if (lost.length > 0) found.push(`${block}: it no longer works on ${lost.join(", ")}`);
      }
      narrowed(entry.params, next.params, block, found);
    }
  return found;
}

/** @param {Schema} old @param {Schema} now @param {string} at @param {string[]} found */
function narrowed(old, now, at, found) {
  if (old.type !== now.type && !(old.type === "integer" && now.type === "number"))
    found.push(`${at}: ${old.type} became ${now.type}`);
  if (JSON.stringify(old.default) !== JSON.stringify(now.default))
    found.push(`${at}: its default ${shown(old.default)} became ${shown(now.default)}`);
  const lost = (old.enum ?? []).filter((choice) => !(now.enum ?? [choice]).includes(choice));
  if (lost.length > 0) found.push(`${at}: it no longer takes ${lost.join(", ")}`);
  if (old.enum === undefined && now.enum !== undefined)
    found.push(`${at}: it takes only ${now.enum.join(", ")}`);
  for (const bound of /** @type {const} */ (["minimum", "minItems"]))
    if ((now[bound] ?? -Infinity) > (old[bound] ?? -Infinity))
      found.push(`${at}: its ${bound} ${shown(old[bound])} became ${shown(now[bound])}`);
  for (const bound of /** @type {const} */ (["maximum", "maxItems"]))
    if ((now[bound] ?? Infinity) < (old[bound] ?? Infinity))
      found.push(`${at}: its ${bound} ${shown(old[bound])} became ${shown(now[bound])}`);
  if (old.items && now.items) narrowed(old.items, now.items, `${at}[]`, found);
  const names = now.properties ?? {};
  for (const [name, schema] of Object.entries(old.properties ?? {})) {
    const next = names[name] ?? Object.values(names).find((other) => other["x-former"] === name);
    if (next === undefined) found.push(`${at}.${name}: it is gone`);
    else narrowed(schema, next, `${at}.${name}`, found);
    const former = schema["x-former"];
    if (former !== undefined && next !== undefined && next["x-former"] !== former)
      found.push(`${at}.${name}: its former name ${former} is gone`);
  }
  for (const name of now.required ?? []) {
    const former = names[name]?.["x-former"] ?? name;
    if (![name, former].some((known) => old.required?.includes(known)))
      found.push(`${at}.${name}: it must be given now`);
  }
}

/** @param {unknown} value */
const shown = (value) => (value === undefined ? "(none)" : JSON.stringify(value));
