/** The Node half of the set-up, in a clone: packages from the lock file, and the TypeScript stubs from proto/. Plain Node. */
import { existsSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  execute,
  explain,
  protoHash,
  ROOT,
  readJson,
  readText,
  replaceFolder,
  SetupFailure,
  withLock,
} from "./common.mjs";

const MODULES = join(ROOT, "node_modules");
const STUBS = join(ROOT, "src/gen");
const STAMP = join(STUBS, ".stamp");

/** The program of a package in node_modules, to be run by Node. @param {"biome" | "buf" | "mocha" | "tsc"} name */
export function program(name) {
  const files = {
    biome: "@biomejs/biome/bin/biome",
    buf: "@bufbuild/buf/bin/buf",
    mocha: "mocha/bin/mocha.js",
    tsc: "typescript/bin/tsc",
  };
  return join(MODULES, files[name]);
}

/**
 * Install the packages that package-lock.json names, unless they are there.
 *
 * @param {(line: string) => void} onProgress
 */
export async function ensureNodePackages(onProgress) {
  if (missingNodePackage() === undefined) return;
  // In a folder that npm ci leaves alone, unlike node_modules.
  await locked("install the Node packages", onProgress, async (lock) => {
    if (missingNodePackage() === undefined) return;
    onProgress("installing the Node packages (npm ci)");
    const npm = process.env.npm_execpath;
    const [command, ...first] = npm?.endsWith("js") ? [process.execPath, npm] : ["npm"];
    const { code, lines } = await execute(
      /** @type {string} */ (command),
      [...first, "ci", "--no-audit", "--no-fund", "--no-progress", "--loglevel=error"],
      { cwd: ROOT, onPid: (pid) => void lock.child(pid) },
    );
    if (code === 127)
      throw new SetupFailure(
        "there is no npm on the PATH",
        "install npm (it comes with Node) and run the same command again",
      );
    if (code !== 0) {
      const said = lines
        .filter((line) => /^npm (error|ERR!) /.test(line))
        .map((line) => line.replace(/^npm \S+ /, ""));
      const reason =
        said.find((line) => !/^(code|errno|network|syscall|A complete log)\b/.test(line)) ?? lines[0] ?? "";
      throw new SetupFailure(
        `npm could not install the Node packages (${reason.trim()})`,
        "check the network, or npm's registry and proxy settings, and run the same command again",
      );
    }
  });
}

/**
 * The first package of package-lock.json that is not installed as it says. npm's own record, written when an installation is complete, is what
 * counts; so an installation that was killed, or made from another lock file, is seen, and one made by hand is as good as ours.
 *
 * @returns {string | undefined}
 */
export function missingNodePackage() {
  const wanted = packagesOf(join(ROOT, "package-lock.json"));
  const installed = packagesOf(join(MODULES, ".package-lock.json"));
  for (const [path, { version, optional, link }] of Object.entries(wanted)) {
    if (path === "" || optional || link) continue; // optional: those of other platforms
    if (installed[path]?.version !== version || !existsSync(join(ROOT, path, "package.json"))) return path;
  }
  return undefined;
}

/** @param {string} file @returns {Record<string, {version?: string, optional?: boolean, link?: boolean}>} */
function packagesOf(file) {
  return (
    /** @type {{packages?: ReturnType<typeof packagesOf>} | undefined} */ (readJson(file))?.packages ?? {}
  );
}

/** Generate src/gen from proto/, unless it is there. @param {(line: string) => void} onProgress */
export async function ensureNodeStubs(onProgress) {
  if (hasNodeStubs()) return;
  await locked("generate the TypeScript stubs", onProgress, async (lock) => {
    if (hasNodeStubs()) return;
    onProgress("generating the TypeScript stubs from proto/ (buf)");
    const output = join(MODULES, ".cache/atlas-stubs");
    await rm(output, { recursive: true, force: true });
    const { code, lines } = await execute(
      process.execPath,
      [program("buf"), "generate", "--output", output],
      {
        cwd: ROOT,
        onPid: (pid) => void lock.child(pid),
      },
    );
    if (code !== 0)
      throw new SetupFailure(
        `buf could not generate the TypeScript stubs (${lines.at(-1)?.trim() ?? `exit ${code}`})`,
        "check the .proto files under proto/",
      );
    await writeFile(join(output, "src/gen/.stamp"), stamp());
    await replaceFolder(join(output, "src/gen"), STUBS);
  });
}

export function hasNodeStubs() {
  return readText(STAMP) === stamp();
}

function stamp() {
  const version = packagesOf(join(ROOT, "package-lock.json"))["node_modules/ts-proto"]?.version ?? "";
  return protoHash(readText(join(ROOT, "buf.gen.yaml")) ?? "", version);
}

/**
 * @param {string} what
 * @param {(line: string) => void} onProgress
 * @param {Parameters<typeof withLock<void>>[2]} action
 */
async function locked(what, onProgress, action) {
  const folder = join(ROOT, "py-worker/.venv"); // ignored by git and by npm; the lock of the whole set-up
  try {
    await mkdir(folder, { recursive: true });
    await withLock(folder, onProgress, action);
  } catch (error) {
    throw explain(
      error,
      `${what} in ${ROOT}`,
      "give yourself write permission there, or clone into another folder",
    );
  }
}
