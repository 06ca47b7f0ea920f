/** The Node part of the set-up in a clone: packages, TypeScript stubs, compilation. Plain Node. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { chmod, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { replaceFolder } from "./atomic.mjs";
import { CATALOGUE, generateBlocks } from "./blocks.mjs";
import {
  execute,
  explain,
  IS_CLONE,
  protoHash,
  ROOT,
  readJson,
  readText,
  SetupFailure,
  sha256,
  withLock,
} from "./common.mjs";
import { NPM_OPTIONS, npmCommand } from "./environment.mjs";
import { networkTrouble } from "./network.mjs";

const MODULES = join(ROOT, "node_modules");
const STUBS = join(ROOT, "src/gen");
const STAMP = join(STUBS, ".stamp");

/**
 * Get the path of a package's program, which Node runs.
 *
 * @param {"biome" | "buf" | "mocha" | "tsc" | "typedoc"} name
 */
export function program(name) {
  const files = {
    biome: "@biomejs/biome/bin/biome",
    buf: "@bufbuild/buf/bin/buf",
    mocha: "mocha/bin/mocha.js",
    tsc: "typescript-native/bin/tsc", // typedoc needs the older package "typescript"
    typedoc: "typedoc/bin/typedoc",
  };
  return join(MODULES, files[name]);
}

/**
 * Install the packages of package-lock.json, unless they are installed.
 *
 * @param {(line: string) => void} onProgress
 */
export async function ensureNodePackages(onProgress) {
  if (missingNodePackage() === undefined) return;
  // The lock is in a folder that npm ci does not clear, unlike node_modules.
  await locked("install the Node packages", onProgress, async (lock) => {
    if (missingNodePackage() === undefined) return;
    onProgress("installing the Node packages (npm ci)");
    const [command, ...first] = npmCommand();
    const { code, lines } = await execute(command, [...first, "ci", ...NPM_OPTIONS], {
      cwd: ROOT,
      onPid: (pid) => void lock.child(pid),
    });
    if (code === 127)
      throw new SetupFailure(
        "there is no npm on the PATH",
        "install npm (it comes with Node) and run the same command again",
      );
    if (code !== 0) throw npmFailure(lines);
    const missing = missingNodePackage();
    if (missing !== undefined)
      throw new SetupFailure(
        `npm says that it installed the Node packages, but ${missing} is not there ` +
          `(${lines.at(-1)?.trim() ?? "it said nothing else"})`,
        "see which of your settings leave it out: npm config list",
      );
  });
}

/** Explain a failure of npm. @param {readonly string[]} lines its output */
function npmFailure(lines) {
  const said = lines
    .filter((line) => /^npm (error|ERR!) /.test(line))
    .map((line) => line.replace(/^npm \S+ /, ""));
  const code = /^code (\w+)/m.exec(said.join("\n"))?.[1] ?? "";
  const reason = (
    said.find((line) => !/^(code|errno|network|syscall|path|A complete log)\b/.test(line)) ??
    lines.at(-1) ??
    "it said nothing"
  ).trim();
  const again = "run the same command again";
  const failed = "npm could not install the Node packages";
  const failure = (/** @type {string} */ why, /** @type {string} */ remedy) =>
    new SetupFailure(`${failed} (${reason})${why}`, `${remedy}, and ${again}`);
  switch (code) {
    case "ENOSPC":
    case "EDQUOT":
      return new SetupFailure(`${failed}: no space is left on the disk`, `free some, and ${again}`);
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return failure("", "give yourself write permission there");
    case "EINTEGRITY":
      return failure(": a package came damaged", "empty npm's cache (npm cache clean --force)");
    case "E401":
    case "E403":
    case "ENEEDAUTH":
      return failure("", "log in to the registry, or name another in npm's settings");
    case "E404":
    case "ETARGET":
      return failure("", "name a registry that has all packages in npm's settings");
    case "EUSAGE":
      return failure("", "restore package-lock.json (git checkout package-lock.json)");
  }
  const trouble = networkTrouble(said.join("\n"), "NODE_EXTRA_CA_CERTS");
  if (trouble !== undefined) return failure(`: ${trouble.what}`, trouble.remedy);
  return new SetupFailure(`${failed} (${reason})`, `remove the cause, and ${again}`);
}

/**
 * Find the first package of package-lock.json that is not installed in its version.
 *
 * npm's own record counts, which is written when an installation is complete. So an interrupted
 * installation is noticed, and an installation by hand is accepted.
 *
 * @returns {string | undefined}
 */
export function missingNodePackage() {
  const wanted = packagesOf(join(ROOT, "package-lock.json"));
  const installed = packagesOf(join(MODULES, ".package-lock.json"));
  for (const [path, { version, optional, link }] of Object.entries(wanted)) {
    if (path === "" || optional || link) continue; // optional packages are for other platforms
    if (installed[path]?.version !== version || !existsSync(join(ROOT, path, "package.json")))
      return path;
  }
  return undefined;
}

/**
 * @param {string} file
 * @returns {Record<string, {version?: string, optional?: boolean, link?: boolean}>}
 */
function packagesOf(file) {
  return (
    /** @type {{packages?: ReturnType<typeof packagesOf>} | undefined} */ (readJson(file))
      ?.packages ?? {}
  );
}

/**
 * Generate src/gen from proto/, unless it is up to date.
 *
 * @param {(line: string) => void} onProgress
 */
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
        /\.proto:\d/.test(lines.join("\n")) ? "correct the .proto files under proto/" : undefined,
      );
    await writeFile(join(output, "src/gen/blocks.ts"), generateBlocks());
    await writeFile(join(output, "src/gen/.stamp"), stamp());
    await replaceFolder(join(output, "src/gen"), STUBS);
  });
}

/** Whether the TypeScript stubs are up to date. */
export function hasNodeStubs() {
  return readText(STAMP) === stamp();
}

function stamp() {
  const version =
    packagesOf(join(ROOT, "package-lock.json"))["node_modules/ts-proto"]?.version ?? "";
  const generator = readText(join(ROOT, "src/setup/blocks.mjs")) ?? "";
  return protoHash(
    readText(join(ROOT, "buf.gen.yaml")) ?? "",
    version,
    readText(CATALOGUE) ?? "",
    generator,
  );
}

const DIST = join(ROOT, "dist");
/** Path of the compiled command. */
export const MAIN = join(DIST, "src/cli/main.js");

/**
 * Compile src/ and experiments/ to dist/, unless it is up to date. Commands then start quickly.
 *
 * @param {(line: string) => void} onProgress
 */
export async function ensureCompiled(onProgress) {
  if (isCompiled()) return;
  await locked("compile the TypeScript sources", onProgress, async (lock) => {
    const wanted = sourcesStamp();
    if (isCompiled()) return;
    onProgress("compiling the TypeScript sources (tsc)");
    const output = join(MODULES, ".cache/atlas-dist");
    await rm(output, { recursive: true, force: true });
    const { code, lines } = await execute(
      process.execPath,
      [program("tsc"), "-p", "tsconfig.build.json", "--outDir", output],
      { cwd: ROOT, onPid: (pid) => void lock.child(pid) },
    );
    if (code !== 0)
      throw new SetupFailure(
        `the TypeScript sources do not compile (${lines[0]?.trim() ?? `exit ${code}`})`,
        "see all errors with: npm run check",
      );
    await chmod(join(output, "src/cli/main.js"), 0o755);
    await writeFile(join(output, ".stamp"), wanted);
    await replaceFolder(output, DIST);
  });
}

/** List the folders of a clone that hold compiled code, which is made when it is needed. */
export function compiledFolders() {
  if (!IS_CLONE) return [];
  return [join(MODULES, ".cache"), DIST].filter(
    (folder) => existsSync(folder) && readdirSync(folder).length > 0,
  );
}

/** Whether dist/ is up to date. */
export function isCompiled() {
  return readText(join(DIST, ".stamp")) === sourcesStamp();
}

/** List names, sizes and times of change of all sources, which is faster than reading them. */
function sourcesStamp() {
  const about = (/** @type {string} */ path) => {
    const { size, mtimeMs } = statSync(path);
    return `${path} ${size} ${mtimeMs}`;
  };
  const sources = ["src", "experiments"].flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && /\.(ts|mjs)$/.test(entry.name))
      .map((entry) => about(join(entry.parentPath, entry.name))),
  );
  const settings = ["tsconfig.json", "tsconfig.build.json", "package-lock.json"].map((file) =>
    about(join(ROOT, file)),
  );
  return sha256([...sources.sort(), ...settings].join("\n"));
}

/**
 * @param {string} what
 * @param {(line: string) => void} onProgress
 * @param {Parameters<typeof withLock<void>>[2]} action
 */
async function locked(what, onProgress, action) {
  const folder = join(ROOT, "py-worker/.venv"); // the lock is that of the whole set-up
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
