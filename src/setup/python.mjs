/**
 * The Python part of the set-up: an interpreter, a venv with pinned packages, stubs. Plain Node.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve, sep } from "node:path";
import { replaceFolder } from "./atomic.mjs";
import {
  execute,
  explain,
  IS_CLONE,
  LOCK,
  protoHash,
  ROOT,
  readJson,
  readText,
  SetupFailure,
  sha256,
  WORKER,
  withLock,
  writeJson,
} from "./common.mjs";
import { ISOLATED, pipEnvironment, pipListEnvironment } from "./environment.mjs";
import { networkTrouble } from "./network.mjs";

const OLDEST = "3.10";
const CANDIDATES = ["python3", "python3.13", "python3.12", "python3.11", "python3.10", "python"];
const STUBS = join(WORKER, "atlas_worker/gen");
const STAMP = ".atlas-setup.json";
/** Names of a venv's parts. A folder with anything else is not cleared. */
const VENV_PARTS =
  /^(bin|include|lib|lib64|share|etc|Scripts|Lib|Include|pyvenv\.cfg|\.gitignore|CACHEDIR\.TAG|\.atlas-.*)$/;
/** A module of each package that the worker needs. */
const MODULES = ["torch", "numpy", "safetensors", "zmq", "grpc", "grpc_tools", "google/protobuf"];
const AGAIN = "run the same command again";

/**
 * Packages that only some commands need, which are installed when they are first used: the packages
 * of requirements-NAME.txt, and modules to import as a check.
 *
 * @type {Record<string, {what: string, notice: string, modules: string[]}>}
 */
const EXTRAS = {
  jets: {
    what: "PYTHIA 8 and FastJet",
    notice:
      "making jets needs PYTHIA 8 and FastJet, which are under the GNU GPL; they are optional, " +
      "and the rest of Atlas does not use them",
    modules: ["pythia8mc", "fastjet", "awkward", "pandas", "tables"],
  },
  files: {
    what: "pyarrow and zarr",
    notice: "Parquet and Zarr files are read with pyarrow and zarr, which are optional",
    modules: ["pyarrow", "zarr"],
  },
};

/**
 * The state of a venv, in a file. "building" is written before a command changes the venv. If it is
 * found later, that command was killed, and the venv is made again. "incomplete" means that pip
 * failed in an orderly way, and the installed packages can be kept.
 *
 * @typedef {object} Stamp
 * @property {"building" | "incomplete" | "ready"} state
 * @property {string} [requirements] hash of the installed requirements
 * @property {string} [dev] hash of requirements-dev.txt, if installed
 * @property {Record<string, string>} [extras] hashes of the installed EXTRAS
 * @property {string} [torch] the requirement in ATLAS_TORCH
 * @property {string} [python] version of Python
 * @property {string} [packages] folder site-packages, relative to the venv
 */

/** Get the venv's folder: $ATLAS_VENV, py-worker/.venv in a clone, else the user's data folder. */
export function venvFolder() {
  if (process.env.ATLAS_VENV) return resolve(process.env.ATLAS_VENV);
  if (IS_CLONE) return join(WORKER, ".venv");
  const { version } = /** @type {{version: string}} */ (readJson(join(ROOT, "package.json")));
  return join(dataFolder(), "atlas-symmetry", version, "venv");
}

function dataFolder() {
  const local =
    process.platform === "win32" ? process.env.LOCALAPPDATA : join(homedir(), ".local/share");
  return process.env.XDG_DATA_HOME || local || homedir();
}

/** List the venvs that this program made for this user: the present one, and those of other versions. */
export function madeVenvs() {
  const all = join(dataFolder(), "atlas-symmetry");
  const versions = existsSync(all) ? readdirSync(all).sort() : [];
  const folders = [venvFolder(), ...versions.map((version) => join(all, version, "venv"))];
  return [...new Set(folders)].filter((folder) => readStamp(folder) !== undefined);
}

/**
 * Remove what is in a venv's folder, and the folder unless it is a link or a mount point.
 *
 * @param {string} folder whose lock this process holds
 */
export async function clearVenv(folder) {
  await writeStamp(folder, { state: "building" }); // if this is killed, the venv is made again
  for (const entry of await readdir(folder))
    if (VENV_PARTS.test(entry) && !entry.startsWith(LOCK) && entry !== STAMP)
      await rm(join(folder, entry), { recursive: true, force: true });
  await rm(join(folder, STAMP), { force: true });
}

/** Get the path of a venv's Python. @param {string} folder */
export function venvPython(folder) {
  return process.platform === "win32"
    ? join(folder, "Scripts/python.exe")
    : join(folder, "bin/python");
}

/**
 * Find a Python that can make the venv: $ATLAS_PYTHON, or the first of python3, python3.13 …
 * python3.10 that is new enough.
 *
 * @returns {Promise<{command: string, version: string}>}
 * @throws SetupFailure if there is none, or none that is new enough
 */
export async function findPython() {
  const chosen = process.env.ATLAS_PYTHON;
  const install = `install Python ${OLDEST} or newer, or set ATLAS_PYTHON to one`;
  /** @type {string[]} */
  const unfit = [];
  for (const command of chosen ? [chosen] : CANDIDATES) {
    const { code, lines } = await execute(command, [
      "-c",
      // Python 2 must be able to run the first line. The working folder may hold a venv.py.
      "import sys; sys.path.pop(0); print('atlas %d %d %d' % sys.version_info[:3])\n" +
        "import ensurepip, venv; print('venv')",
    ]);
    const found = /^atlas (\d+) (\d+) (\d+)$/.exec(
      lines.find((line) => line.startsWith("atlas ")) ?? "",
    );
    if (found === null) {
      if (chosen)
        throw new SetupFailure(
          `ATLAS_PYTHON is ${chosen}, which does not run as Python ` +
            `(${lines.at(-1)?.trim() ?? `exit ${code}`})`,
          "set it to a Python interpreter, or unset it",
        );
      continue;
    }
    const [major, minor] = [Number(found[1]), Number(found[2])];
    const version = found.slice(1).join(".");
    if (major < 3 || (major === 3 && minor < 10)) unfit.push(`${command} is Python ${version}`);
    else if (lines.includes("venv")) return { command, version };
    else unfit.push(`${command} is Python ${version} without the modules venv and ensurepip`);
  }
  if (unfit.length === 0) throw new SetupFailure("there is no Python on the PATH", install);
  const lacking = unfit.some((text) => text.includes("without"));
  throw new SetupFailure(
    `Atlas needs Python ${OLDEST} or newer with venv, but ${unfit.join(", ")}`,
    lacking
      ? "install its venv package (Debian, Ubuntu: python3-venv), or set ATLAS_PYTHON to " +
          "another Python"
      : install,
  );
}

/** Get the state of the venv, without changing anything. */
export function venvStatus() {
  const folder = venvFolder();
  const stamp = readStamp(folder);
  return {
    folder,
    python: venvPython(folder),
    exists: existsSync(venvPython(folder)),
    ready: isReady(folder, stamp, NOTHING_MORE),
    interrupted: stamp?.state === "building",
    version: stamp?.python,
    torch: stamp?.torch,
    stubs: hasPythonStubs(),
  };
}

/**
 * Make the venv and the stubs, as far as they are missing.
 *
 * @param {object} [options]
 * @param {boolean} [options.dev] whether to install what tests and checks need
 * @param {readonly string[]} [options.extras] names of EXTRAS to install
 * @param {(line: string) => void} [options.onProgress]
 * @returns {Promise<string>} path of the venv's Python
 * @throws SetupFailure
 */
export async function ensurePython({ dev = false, extras = [], onProgress = () => {} } = {}) {
  const folder = venvFolder();
  const more = { dev, extras };
  if (!isReady(folder, readStamp(folder), more) || !hasPythonStubs()) {
    try {
      await mkdir(folder, { recursive: true });
      refuseForeign(folder);
      await withLock(folder, onProgress, async (lock) => {
        const onPid = (/** @type {number} */ pid) => void lock.child(pid);
        if (!isReady(folder, readStamp(folder), more)) await build(folder, more, onProgress, onPid);
        if (!hasPythonStubs()) await generateStubs(folder, onProgress, onPid);
      });
    } catch (error) {
      throw explain(
        error,
        `make the Python environment in ${folder}`,
        "set ATLAS_VENV to a folder with write access and some 6 GB of free space",
      );
    }
  }
  return venvPython(folder);
}

/**
 * What to install in addition to the worker's packages.
 *
 * @typedef {{dev: boolean, extras: readonly string[]}} More
 */
const NOTHING_MORE = { dev: false, extras: [] };

/**
 * Install what is missing in the venv.
 *
 * @param {string} folder
 * @param {More} more
 * @param {(line: string) => void} onProgress
 * @param {(pid: number) => void} onPid
 */
async function build(folder, { dev, extras }, onProgress, onPid) {
  let before = readStamp(folder);
  const wanted = requirements(before);
  const python = venvPython(folder);
  const begun = performance.now();
  if (!(await isSound(folder, before))) {
    const base = await findPython();
    if (before !== undefined || existsSync(join(folder, "pyvenv.cfg")))
      onProgress(`the Python environment in ${folder} is damaged or incomplete; making it again`);
    onProgress(
      `making a Python environment in ${folder} (${base.command}, Python ${base.version})`,
    );
    for (const entry of await readdir(folder))
      if (!entry.startsWith(LOCK)) await rm(join(folder, entry), { recursive: true, force: true });
    await writeStamp(folder, { state: "building" });
    const { code, lines } = await execute(base.command, [...ISOLATED, "-m", "venv", folder], {
      onPid,
    });
    if (code !== 0)
      throw new SetupFailure(
        `${base.command} -m venv could not make ${folder} (${lastLine(lines)})`,
        "install Python's venv package (Debian, Ubuntu: python3-venv), or set ATLAS_PYTHON to " +
          "another Python",
      );
    before = before && { state: before.state, torch: before.torch }; // the rest of it is gone
    await writeStamp(folder, { ...before, state: "incomplete" });
  }
  const satisfied = isReady(folder, before, { dev, extras: [] });
  const log = join(folder, ".atlas-pip.log"); // pip may say there alone why an index was left out
  await rm(log, { force: true });
  const env = { ...pipEnvironment(await pipSettings(python, onPid)), PIP_LOG: log };
  await writeStamp(folder, { ...before, state: "building" });
  // Include the worker's own requirements, so that pip does not change pinned packages.
  const files = [wanted.file, ...[...(dev ? ["dev"] : []), ...extras].map(requirementsOf)];
  if (wanted.file.startsWith(folder)) await writeFile(wanted.file, wanted.text);
  const added = extras
    .filter((name) => before?.extras?.[name] !== hashOf(name))
    .map((name) => EXTRAS[name]);
  for (const extra of added) if (extra) onProgress(extra.notice);
  const what = [
    ...(satisfied
      ? []
      : [`PyTorch and ${dev ? "the worker's and the tests'" : "the worker's"} packages`]),
    ...added.map((extra) => extra?.what),
  ];
  onProgress(`installing ${what.join(", ")} (pip); this can take some minutes`);
  const { code, lines } = await pipInstall(python, files, { env, onProgress, onPid });
  if (code !== 0) {
    const usable =
      before?.state === "ready"
        ? before
        : { ...before, state: /** @type {const} */ ("incomplete") };
    await writeStamp(folder, usable); // pip downloads everything before it changes anything
    const skipped = (readText(log) ?? "").match(/.*Could not fetch URL .*/g) ?? [];
    throw pipFailure([...skipped, ...lines], folder);
  }
  await rm(log, { force: true });
  onProgress(
    `checking that ${["PyTorch", ...added.map((extra) => extra?.what)].join(", ")} can be loaded`,
  );
  const modules = [...MODULES, ...extras.flatMap((name) => EXTRAS[name]?.modules ?? [])];
  const names = modules.map((module) => module.replace("/", "."));
  const imports = `import sysconfig, ${names.join(", ")}`;
  const check = await execute(
    python,
    [
      ...ISOLATED,
      "-c",
      `${imports}\nprint("atlas", sysconfig.get_python_version(), torch.__version__, ` +
        `sysconfig.get_path("purelib"))`,
    ],
    { onPid },
  );
  const report = check.lines.find((line) => line.startsWith("atlas "))?.split(" ");
  if (check.code !== 0 || report === undefined) {
    await writeStamp(folder, { ...before, state: "incomplete" });
    throw new SetupFailure(
      `the packages in ${folder} were installed but cannot be loaded (${lastLine(check.lines)})`,
      'install the missing libraries, or choose another PyTorch with ATLAS_TORCH="torch==…"; ' +
        "then run the same command again",
    );
  }
  await writeStamp(folder, {
    state: "ready",
    requirements: wanted.hash,
    dev: dev ? hashOf("dev") : before?.dev,
    extras: {
      ...before?.extras,
      ...Object.fromEntries(extras.map((name) => [name, hashOf(name)])),
    },
    torch: wanted.torch,
    python: report[1],
    packages: report
      .slice(3)
      .join(" ")
      .slice(folder.length + 1),
  });
  const seconds = Math.round((performance.now() - begun) / 1000);
  onProgress(
    `the Python environment is ready: Python ${report[1]}, PyTorch ${report[2]} (${seconds} s)`,
  );
}

/**
 * Install requirements with pip, and report its progress.
 *
 * @param {string} python
 * @param {readonly string[]} files
 * @param {object} how
 * @param {NodeJS.ProcessEnv} how.env
 * @param {(line: string) => void} how.onProgress
 * @param {(pid: number) => void} how.onPid
 */
async function pipInstall(python, files, { env, onProgress, onPid }) {
  const begun = performance.now();
  let quiet = 0;
  let doing = "";
  // pip can be silent for minutes during a download, so report that it is still running.
  const heartbeat = setInterval(() => {
    if (++quiet % 3 === 0)
      onProgress(`  still running${doing} (${Math.round((performance.now() - begun) / 1000)} s)`);
  }, 5000);
  try {
    return await execute(
      python,
      [
        ...ISOLATED,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
        ...files.flatMap((f) => ["-r", f]),
      ],
      {
        env,
        onPid,
        onLine: (line) => {
          quiet = 0;
          const [, verb, what, size] =
            /^\s*(Downloading|Using cached) (\S+?)(?:\.metadata)? \(([\d.]+ [MG]B)\)/.exec(line) ??
            [];
          const installing = /^Installing collected packages: (.*)/
            .exec(line)?.[1]
            ?.split(", ").length;
          if (verb !== undefined)
            onProgress(`  ${verb.toLowerCase()} ${what?.split("/").at(-1)} (${size})`);
          if (verb === "Downloading") doing = `, ${what?.split("/").at(-1)?.split("-")[0]}`;
          if (installing !== undefined) {
            onProgress(`  installing ${installing} packages`);
            doing = ", installing";
          }
        },
      },
    );
  } finally {
    clearInterval(heartbeat);
  }
}

/**
 * List the settings of pip, from variables and files. Only some of them count, see
 * {@link pipEnvironment}.
 *
 * @param {string} python
 * @param {(pid: number) => void} onPid
 */
async function pipSettings(python, onPid) {
  const { code, lines } = await execute(python, [...ISOLATED, "-m", "pip", "config", "list"], {
    env: pipListEnvironment(python),
    keep: Infinity,
    onPid,
  });
  if (code === 0) return lines;
  const error = lines.findLast((line) => line.includes("ERROR: ")) ?? lastLine(lines);
  throw new SetupFailure(
    `pip cannot read its settings (${error.replace(/^\s*ERROR: /, "").trim()})`,
    `correct them, or name another file of settings in PIP_CONFIG_FILE, and ${AGAIN}`,
  );
}

/**
 * Explain a failure of pip.
 *
 * @param {readonly string[]} lines its output
 * @param {string} folder the venv
 */
function pipFailure(lines, folder) {
  const all = lines.join("\n");
  const errors = lines
    .filter((line) => /^\s*ERROR: /.test(line))
    .map((line) => line.replace(/^\s*ERROR: /, "").trim());
  const last = errors.at(-1) ?? lastLine(lines);
  const failed = "pip could not install the Python packages";
  if (/No space left on device|Errno 28|Disk quota exceeded|Errno 122/.test(all))
    return new SetupFailure(
      `${failed}: no space is left on the disk`,
      "free some 6 GB (PyTorch with CUDA is large, and pip unpacks in $TMPDIR), or set " +
        `ATLAS_VENV to a folder on another disk; then ${AGAIN}`,
    );
  const name = /(?:No matching distribution found for|satisfies the requirement) (\S+)/.exec(
    all,
  )?.[1];
  const lacking = name === undefined ? "" : ` (${name} was not found)`;
  const kept = `${AGAIN}; installed packages are kept`;
  const trouble = networkTrouble(all, "PIP_CERT");
  if (trouble !== undefined)
    return new SetupFailure(
      `pip could not fetch the Python packages${lacking}: ${trouble.what}`,
      `${trouble.remedy}, and ${kept}`,
    );
  if (name !== undefined && /\(from versions: none\)/.test(all))
    return new SetupFailure(
      `pip could not fetch the Python packages${lacking}: is there a network?`,
      `check the network, or pip's index and proxy settings, and ${kept}`,
    );
  const torch = name?.startsWith("torch") ? ', or ATLAS_TORCH="torch==…" to another release' : "";
  if (name !== undefined)
    return new SetupFailure(
      `pip found no ${name} for this Python and platform`,
      `set ATLAS_PYTHON to another Python${torch}, and ${AGAIN}`,
    );
  const denied =
    /(?:Permission denied|Errno 13\]|Errno 30\]|Read-only file system)[^'"]*['"]([^'"]+)/.exec(all);
  if (denied !== null) {
    const path = /** @type {string} */ (denied[1]);
    const own = path.startsWith(folder + sep) ? ", or set ATLAS_VENV to another folder" : "";
    return new SetupFailure(
      `${failed}: ${path} cannot be written`,
      `give yourself write permission there${own}, and ${AGAIN}`,
    );
  }
  if (/DO NOT MATCH THE HASHES|HashMismatch/.test(all))
    return new SetupFailure(
      `${failed}: a package came damaged`,
      `empty pip's cache (pip cache purge), or use another index, and ${AGAIN}`,
    );
  if (/MemoryError|ended by SIGKILL/.test(all))
    return new SetupFailure(
      `${failed}: it was killed, or memory ran out`,
      `free some memory, and ${AGAIN}`,
    );
  return new SetupFailure(`${failed} (${last})`, `remove the cause, and ${kept}`);
}

/**
 * Get the requirements, with the PyTorch of ATLAS_TORCH or of the existing venv.
 *
 * @param {Stamp | undefined} stamp
 */
function requirements(stamp) {
  const pinned = readFileSync(join(WORKER, "requirements.txt"), "utf8");
  const torch = (process.env.ATLAS_TORCH ?? stamp?.torch ?? "").trim();
  if (torch === "")
    return {
      hash: sha256(pinned),
      file: join(WORKER, "requirements.txt"),
      text: pinned,
      torch: undefined,
    };
  if (!/^torch\b.*$/.test(torch))
    throw new SetupFailure(
      `ATLAS_TORCH is ${JSON.stringify(torch)}`,
      'write it as a requirement: ATLAS_TORCH="torch==2.9.1"',
    );
  const text = pinned.replace(/^torch\b.*$/m, torch);
  return { hash: sha256(text), file: join(venvFolder(), ".atlas-requirements.txt"), text, torch };
}

/** Get the path of a requirements file. @param {string} name "dev", or one of EXTRAS */
function requirementsOf(name) {
  return join(WORKER, `requirements-${name}.txt`);
}

/** Hash a requirements file. @param {string} name "dev", or one of EXTRAS */
function hashOf(name) {
  return sha256(readText(requirementsOf(name)) ?? "");
}

/**
 * Whether a venv has everything.
 *
 * @param {string} folder
 * @param {Stamp | undefined} stamp
 * @param {More} more
 */
function isReady(folder, stamp, { dev, extras }) {
  return (
    stamp?.state === "ready" &&
    stamp.requirements === requirements(stamp).hash &&
    (!dev || stamp.dev === hashOf("dev")) &&
    extras.every((name) => stamp.extras?.[name] === hashOf(name)) &&
    hasPackages(folder, stamp)
  );
}

/** Whether a venv has the worker's packages. @param {string} folder @param {Stamp} stamp */
function hasPackages(folder, stamp) {
  return (
    existsSync(venvPython(folder)) &&
    MODULES.every((module) => existsSync(join(folder, stamp.packages ?? "", module)))
  );
}

/**
 * Whether pip can continue in a venv.
 *
 * @param {string} folder
 * @param {Stamp | undefined} stamp
 */
async function isSound(folder, stamp) {
  if (stamp?.state === "building" || !existsSync(venvPython(folder))) return false;
  // Of packages that were deleted by hand, pip's records would still say that they are installed.
  if (stamp?.state === "ready" && !hasPackages(folder, stamp)) return false;
  const program =
    `import sys, pip; sys.exit(sys.version_info < (${OLDEST.replace(".", ", ")}) ` +
    "or sys.prefix == sys.base_prefix)";
  return (await execute(venvPython(folder), [...ISOLATED, "-c", program])).code === 0;
}

/**
 * Refuse a folder with other files, which $ATLAS_VENV may name by mistake.
 *
 * @param {string} folder
 */
function refuseForeign(folder) {
  if (existsSync(join(folder, "pyvenv.cfg")) || existsSync(join(folder, STAMP))) return;
  const foreign = readdirSync(folder).find((entry) => !VENV_PARTS.test(entry));
  if (foreign !== undefined)
    throw new SetupFailure(
      `${folder} is to be the Python environment, but holds other things (${foreign})`,
      "set ATLAS_VENV to an empty or new folder",
    );
}

/** Read the state of a venv. @param {string} folder */
function readStamp(folder) {
  return /** @type {Stamp | undefined} */ (readJson(join(folder, STAMP)));
}

/** Write the state of a venv. @param {string} folder @param {Stamp} stamp */
function writeStamp(folder, stamp) {
  return writeJson(join(folder, STAMP), stamp);
}

/** Get the last line of an output. @param {readonly string[]} lines */
function lastLine(lines) {
  return lines.at(-1)?.trim() ?? "it said nothing";
}

/** Whether the Python stubs are up to date. */
export function hasPythonStubs() {
  return readText(join(STUBS, ".stamp")) === stubsStamp();
}

function stubsStamp() {
  const tools =
    /^grpcio-tools.*$/m.exec(readText(join(WORKER, "requirements.txt")) ?? "")?.[0] ?? "";
  return protoHash(tools);
}

/**
 * Generate atlas_worker/gen from proto/. The packed package includes it, because it may be
 * read-only.
 *
 * @param {string} venv
 * @param {(line: string) => void} onProgress
 * @param {(pid: number) => void} onPid
 */
async function generateStubs(venv, onProgress, onPid) {
  onProgress("generating the Python stubs from proto/ (grpcio-tools)");
  const proto = join(ROOT, "proto");
  const files = readdirSync(proto, { recursive: true })
    .map(String)
    .filter((file) => file.endsWith(".proto") && !file.startsWith("google")); // a package has these
  // On the same disk, for a rename
  const output = join(WORKER, "atlas_worker", `.gen-${process.pid}`);
  try {
    await mkdir(output, { recursive: true });
    const { code, lines } = await execute(
      venvPython(venv),
      [
        ...ISOLATED,
        "-m",
        "grpc_tools.protoc",
        `-I${proto}`,
        `--python_out=${output}`,
        `--pyi_out=${output}`,
        `--grpc_python_out=${output}`,
        ...files,
      ],
      { cwd: proto, onPid },
    );
    if (code !== 0)
      throw new SetupFailure(
        `grpcio-tools could not generate the Python stubs (${lastLine(lines)})`,
        "check the .proto files under proto/",
      );
    // protoc makes top-level packages of the contract's folders. Move them into atlas_worker.gen.
    for (const entry of ["", ...readdirSync(output, { recursive: true }).map(String)]) {
      const path = join(output, entry);
      if (!/\.pyi?$/.test(entry)) await writeFile(join(path, "__init__.py"), "");
      else
        await writeFile(
          path,
          readFileSync(path, "utf8").replaceAll(/^from atlas\./gm, "from atlas_worker.gen.atlas."),
        );
    }
    await writeFile(join(output, ".stamp"), stubsStamp());
    await replaceFolder(output, STUBS);
  } catch (error) {
    throw explain(
      error,
      `generate the Python stubs in ${STUBS}`,
      "give yourself write permission there",
    );
  } finally {
    await rm(output, { recursive: true, force: true });
  }
}
