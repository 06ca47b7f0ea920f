/**
 * `atlas doctor`: check the installation, and say what is missing and what to do. Changes nothing.
 */
import { readdirSync } from "node:fs";
import { mkdtemp, rmdir, stat, statfs } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { type Command, Option } from "commander";
import pc from "picocolors";
import { z } from "zod";
import { AtlasError } from "../errors.js";
import { explainFileSystem } from "../run/atomic.js";
import { execute, IS_CLONE, SetupFailure } from "../setup/common.mjs";
import { childEnvironment, ISOLATED } from "../setup/environment.mjs";
import { hasNodeStubs, missingNodePackage } from "../setup/node.mjs";
import { findPython, venvStatus } from "../setup/python.mjs";
import { VERSION } from "../version.js";
import { hasNvidiaDriver } from "../worker/process.js";
import { addCommonOptions, commonOptions } from "./options.js";
import { nameFlag } from "./remedy.js";

/** The check of one thing that Atlas needs. */
export interface Check {
  name: string;
  /** "missing": Atlas cannot be used as it is. "warning": it can. */
  status: "ok" | "warning" | "missing";
  detail: string;
  /** What to do about it. */
  remedy?: string;
}

/** Add the command to `program`. */
export function register(program: Command): void {
  const command = program
    .command("doctor")
    .description("Check the installation, and say what is missing and what to do");
  command.addOption(new Option("--json", "Print only JSON on stdout"));
  addCommonOptions(command, ["runs", "debug"])
    .addHelpText(
      "after",
      `
The exit code is 0 if Atlas can be used, and 1 if something is missing.

Examples:
  atlas doctor
  atlas doctor --json`,
    )
    .action(async () => {
      const checks = await examine(commonOptions(command).runs);
      const usable = checks.every((c) => c.status !== "missing");
      if (!usable) process.exitCode = 1;
      if (command.getOptionValue("json") === true)
        return void process.stdout.write(
          `${JSON.stringify({ version: VERSION, usable, checks }, null, 2)}\n`,
        );
      const width = Math.max(...checks.map((c) => c.name.length));
      const { green, yellow, red } = pc.createColors(
        Boolean(process.stdout.isTTY) && pc.isColorSupported,
      ); // the variable CI alone would turn colours on
      const colour = { ok: green, warning: yellow, missing: red };
      for (const { name, status, detail, remedy } of checks)
        process.stdout.write(
          `${colour[status](status.padEnd(8))} ${name.padEnd(width)}  ` +
            `${detail}${remedy === undefined ? "" : `; ${remedy}`}\n`,
        );
      process.stdout.write(
        usable ? "Atlas is ready to use.\n" : "Atlas cannot be used yet: see above.\n",
      );
    });
}

/**
 * Do all checks, in the order in which they depend on each other.
 *
 * @param runs the runs folder
 */
export async function examine(runs: string): Promise<Check[]> {
  return [
    platformCheck(process.platform, process.arch, glibcVersion()),
    node(),
    await nodePackages(),
    stubs(),
    ...(await python()),
    await runsFolder(runs),
    await backgroundWorker(),
  ];
}

const Report = z.object({ header: z.object({ glibcVersionRuntime: z.string().optional() }) });

/** Get the version of glibc that this process uses; undefined with musl and on other systems. */
function glibcVersion(): string | undefined {
  return Report.safeParse(process.report.getReport()).data?.header.glibcVersionRuntime;
}

/**
 * Check whether PyTorch has packages for a platform.
 *
 * @param platform as `process.platform` names it
 * @param arch as `process.arch` names it
 * @param glibc version of glibc; undefined where the C library is another
 */
export function platformCheck(platform: string, arch: string, glibc: string | undefined): Check {
  const name = "platform";
  const elsewhere = "use a worker on another machine (--worker grpcs://HOST:PORT)";
  const missing = (system: string, remedy: string): Check => {
    return { name, status: "missing", detail: `${system}: PyTorch has no packages for it`, remedy };
  };
  switch (platform) {
    case "linux": {
      const known = arch === "x64" || arch === "arm64";
      if (known && glibc !== undefined) {
        const untested = arch === "x64" ? "" : " (not tested)";
        return { name, status: "ok", detail: `Linux ${arch}, glibc ${glibc}${untested}` };
      }
      return known
        ? missing(`Linux ${arch} without glibc`, `${elsewhere}, or a container (--worker docker)`)
        : missing(`Linux ${arch}`, elsewhere);
    }
    case "darwin":
      return arch === "arm64"
        ? { name, status: "ok", detail: "macOS arm64 (not tested)" }
        : missing(`macOS ${arch}`, elsewhere);
    case "win32":
      return {
        name,
        status: "missing",
        detail: `Windows ${arch} is not supported`,
        remedy: "use WSL 2 (the Windows Subsystem for Linux)",
      };
    default:
      return missing(`${platform} ${arch}`, elsewhere);
  }
}

function node(): Check {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const fits = major > 20 || (major === 20 && minor >= 19);
  return {
    name: "Node",
    status: fits ? "ok" : "missing",
    detail: process.versions.node,
    ...(fits ? {} : { remedy: "install Node 20.19 or newer" }),
  };
}

async function nodePackages(): Promise<Check> {
  const name = "Node packages";
  const missing = IS_CLONE ? missingNodePackage() : undefined;
  if (missing !== undefined)
    return {
      name,
      status: "missing",
      detail: `${missing} is not the version in package-lock.json`,
      remedy: "npm run setup",
    };
  try {
    await import("zeromq"); // the only package with a compiled part
  } catch (error) {
    const load = 'await import("zeromq")';
    const args = ["--input-type=module", "--eval", load];
    return {
      name,
      status: "missing",
      ...blaming(
        await culprit((env) => succeeds(process.execPath, args, env)),
        `zeromq cannot be loaded on this platform (${firstLine(error)})`,
        "install the packages again on this machine (npm ci)",
      ),
    };
  }
  return {
    name,
    status: "ok",
    detail: `atlas-symmetry ${VERSION}, in ${IS_CLONE ? "a clone" : "an installed package"}`,
  };
}

function stubs(): Check {
  const absent = [
    ...(IS_CLONE && !hasNodeStubs() ? ["TypeScript"] : []),
    ...(venvStatus().stubs ? [] : ["Python"]),
  ];
  return absent.length === 0
    ? { name: "stubs", status: "ok", detail: "generated from proto/" }
    : {
        name: "stubs",
        status: "missing",
        detail: `the stubs for ${absent.join(" and ")} are missing or out of date`,
        remedy: IS_CLONE
          ? "npm run setup"
          : "the first command that needs them makes them, for example atlas demo",
      };
}

const Probe = z.object({
  versions: z.record(z.string(), z.string()),
  failed: z.record(z.string(), z.string()),
  devices: z.array(z.string()),
  cuda: z.string().nullable(),
});

const PROBE = `
import importlib, json
versions, failed, devices, cuda = {}, {}, [], None
modules = ["torch", "numpy", "safetensors", "zmq"]
modules += ["grpc", "grpc_health", "grpc_reflection", "google.protobuf"]
for name in modules:
    try:
        module = importlib.import_module(name)
        versions[name] = getattr(module, "__version__", "")
    except Exception as error:
        failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
if "torch" in versions:
    import torch
    cuda = torch.version.cuda
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        p = torch.cuda.get_device_properties(i)
        devices.append(f"cuda:{i} {p.name}, {p.total_memory / 2**30:.0f} GiB")
report = {"versions": versions, "failed": failed, "devices": devices, "cuda": cuda}
print("probe " + json.dumps(report))
`;

async function python(): Promise<Check[]> {
  const again = IS_CLONE
    ? "npm run setup"
    : "the first command that needs it makes it, for example atlas demo";
  let venv: ReturnType<typeof venvStatus>;
  try {
    venv = venvStatus();
  } catch (error) {
    if (!(error instanceof SetupFailure)) throw error;
    return [{ name: "venv", status: "missing", detail: error.message, remedy: error.remedy }];
  }
  if (!venv.ready) {
    const half = venv.interrupted || venv.exists;
    const state = half ? "is incomplete, damaged or out of date" : "does not exist yet";
    const remedy =
      half && !IS_CLONE
        ? "the next command that needs it repairs it, for example atlas demo"
        : again;
    return [
      await basePython(),
      { name: "venv", status: "missing", detail: `${venv.folder} ${state}`, remedy },
      await space("disk for the venv", venv.folder, 6),
    ];
  }
  const checks: Check[] = [
    { name: "Python", status: "ok", detail: `${venv.version} in ${venv.folder}` },
  ];
  const run = (program: string, env?: NodeJS.ProcessEnv) =>
    succeeds(venv.python, [...ISOLATED, "-c", program], env);
  const anew = `delete ${venv.folder}; ${again}`;
  const { lines } = await execute(venv.python, [...ISOLATED, "-c", PROBE]);
  const line = lines.find((l) => l.startsWith("probe "));
  if (line === undefined) {
    const said = lines.at(-1)?.trim() ?? "it said nothing";
    const starts = await run("");
    const what = starts ? "its packages cannot be loaded" : `${venv.python} does not run`;
    const variable = await culprit((env) => run(starts ? PROBE : "", env));
    const base = await basePython(); // which makes the venv again
    const found = blaming(variable, `${what} (${said})`, base.remedy ?? anew);
    return [...checks, { name: "venv", status: "missing", ...found }];
  }
  const { versions, failed, devices, cuda } = Probe.parse(JSON.parse(line.slice("probe ".length)));
  for (const [module, reason] of Object.entries(failed))
    checks.push({
      name: module,
      status: "missing",
      ...blaming(
        await culprit((env) => run(`import ${module}`, env)),
        reason,
        lackingLibrary(reason, venv.folder) ?? anew,
      ),
    });
  const others = { grpc: "grpcio", zmq: "pyzmq", numpy: "numpy", safetensors: "safetensors" };
  checks.push({
    name: "Python packages",
    status: "ok",
    detail: Object.entries(others)
      .filter(([module]) => module in versions)
      .map(([module, name]) => `${name} ${versions[module]}`)
      .join(", "),
  });
  if (versions.torch !== undefined)
    checks.push({
      name: "PyTorch",
      status: "ok",
      detail: `${versions.torch}${venv.torch === undefined ? "" : ` (ATLAS_TORCH: ${venv.torch})`}`,
    });
  checks.push(devicesOf(devices, cuda, hasNvidiaDriver()));
  return checks;
}

/** Variables that can keep a sound program from running. */
const MEDDLING =
  /^(LD_|DYLD_|GLIBC_|MALLOC_|OMP_|KMP_|MKL_|OPENBLAS_|CUDA_|TORCH|PYTORCH_|HDF5_|OPENSSL_|NODE_|UV_)/;

/**
 * Find the variable of the user's environment that keeps a program from running.
 *
 * @param works runs the program in an environment, and tells whether it succeeded
 * @returns undefined if it is none of them
 */
async function culprit(
  works: (env: NodeJS.ProcessEnv) => Promise<boolean>,
): Promise<string | undefined> {
  const env = childEnvironment();
  const without = (names: readonly string[]) =>
    Object.fromEntries(Object.entries(env).filter(([name]) => !names.includes(name)));
  const suspects = Object.keys(env).filter((name) => MEDDLING.test(name));
  if (suspects.length === 0 || !(await works(without(suspects)))) return undefined;
  for (const name of suspects) if (await works(without([name]))) return name;
  return suspects.join(", ");
}

async function succeeds(command: string, args: string[], env?: NodeJS.ProcessEnv) {
  return (await execute(command, args, { env })).code === 0;
}

/** Describe a fault by the variable that causes it, or with the remedy if there is none. */
function blaming(
  variable: string | undefined,
  detail: string,
  remedy: string,
): Pick<Check, "detail" | "remedy"> {
  return variable === undefined
    ? { detail, remedy }
    : { detail: `${detail}, because of ${variable}`, remedy: `unset ${variable}` };
}

/** Advise to install a system's library, if that is what a module lacks. */
function lackingLibrary(reason: string, folder: string): string | undefined {
  const library = /(\S+\.so[\w.]*): cannot open shared object file/.exec(reason)?.[1];
  const isOwn =
    library === undefined ||
    readdirSync(folder, { recursive: true }).some((path) => basename(String(path)) === library);
  return isOwn ? undefined : `install the system's package that has ${library}`;
}

function devicesOf(devices: string[], cuda: string | null, hasDriver: boolean): Check {
  const name = "devices";
  if (devices.length > 0)
    return { name, status: "ok", detail: `cpu; ${devices.join("; ")} (CUDA ${cuda})` };
  if (!hasDriver) return { name, status: "ok", detail: "cpu (no NVIDIA GPU found)" };
  return {
    name,
    status: "warning",
    detail:
      "cpu only: an NVIDIA driver is installed, but this PyTorch " +
      `${cuda === null ? "was built without CUDA" : `(CUDA ${cuda}) cannot use it`}`,
    remedy:
      cuda === null
        ? 'install a PyTorch with CUDA: ATLAS_TORCH="torch==…"'
        : "update the driver, or install a PyTorch for an older CUDA with ATLAS_TORCH",
  };
}

async function basePython(): Promise<Check> {
  try {
    const { command, version } = await findPython();
    return { name: "Python", status: "ok", detail: `${version} (${command})` };
  } catch (error) {
    if (!(error instanceof SetupFailure)) throw error;
    return { name: "Python", status: "missing", detail: error.message, remedy: error.remedy };
  }
}

async function runsFolder(runs: string): Promise<Check> {
  const name = "runs folder";
  const folder = resolve(runs);
  try {
    const place = await existing(folder);
    // Access rights alone do not tell whether a file can be made, so make one.
    await rmdir(await mkdtemp(join(place, ".atlas-doctor-")));
    const free = await space(name, place, 0.5);
    return {
      ...free,
      detail: `${folder}${place === folder ? "" : " (the first run makes it)"}, ${free.detail}`,
    };
  } catch (error) {
    const known = nameFlag(explainFileSystem(error, "write", folder), "--runs DIR");
    if (!(known instanceof AtlasError)) throw error;
    return { name, status: "missing", detail: known.message, remedy: known.remedy };
  }
}

/** Find the nearest existing folder: a path, or one above it. */
async function existing(path: string): Promise<string> {
  try {
    await stat(path);
    return path;
  } catch (error) {
    if (dirname(path) === path) throw error;
    return existing(dirname(path));
  }
}

async function space(name: string, path: string, neededGb: number): Promise<Check> {
  const { bavail, bsize } = await statfs(await existing(path));
  const gb = (bavail * bsize) / 1e9;
  const detail = `${gb < 10 ? gb.toFixed(1) : Math.round(gb)} GB free`;
  if (gb >= neededGb) return { name, status: "ok", detail };
  return {
    name,
    status: "warning",
    detail,
    remedy: `free some space: up to ${neededGb} GB are needed`,
  };
}

async function backgroundWorker(): Promise<Check> {
  const name = "worker";
  try {
    const { detachedWorker } = await import("../worker/detached.js");
    const worker = await detachedWorker();
    return {
      name,
      status: "ok",
      detail:
        worker === undefined
          ? "none in the background; a run starts its own"
          : `runs in the background at ${worker.address} (process ${worker.pid}, log ` +
            `${worker.log})`,
    };
  } catch (error) {
    if (!(error instanceof AtlasError)) throw error;
    return { name, status: "warning", detail: error.message, remedy: error.remedy };
  }
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0]!;
}
