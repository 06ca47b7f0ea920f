/** What the contract (proto/) was, so that a change is seen that breaks programs which speak its version. Plain Node. */
import { join } from "node:path";
import { execute, ROOT } from "./common.mjs";

/** How a file of each says which version it speaks; both sides' are compared when they meet. */
const VERSION = "PROTOCOL_VERSION = ";
const FILE = "src/worker/worker.ts";

/**
 * The contract that must not be broken: as it was when its version was last changed, and, for what has been added since, before its own last change;
 * the latter unless it is of another version, and neither while the version is being changed.
 *
 * @param {string} folder for archives of it
 * @returns {Promise<{when: string, archive: string}[] | string>} what `buf breaking --against` takes; or why there is nothing to compare with
 */
export async function earlierContracts(folder, root = ROOT) {
  const git = async (/** @type {string[]} */ ...args) => {
    const { code, lines } = await execute("git", args, { cwd: root });
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
    if (commit === undefined || (await git("grep", "-h", VERSION, commit, "--", FILE))[0] !== version)
      continue;
    const archive = join(folder, `${commit}.tar`);
    await git("archive", "--output", archive, commit, "proto");
    found.push({ when, archive: `${archive}#subdir=proto` });
  }
  return found;
}
