/** `atlas doctor`: what is installed, what is missing, what to do. Changes nothing. */
import { mkdtemp, rmdir, stat, statfs } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { type Command, Option } from "commander";
import pc from "picocolors";
import { z } from "zod";
import { AtlasError } from "../errors.js";
import { explainFileSystem } from "../run/atomic.js";
import { execute, IS_CLONE, SetupFailure } from "../setup/common.mjs";
import { hasNodeStubs, missingNodePackage } from "../setup/node.mjs";
import { findPython, venvStatus } from "../setup/python.mjs";
import { VERSION } from "../version.js";
import { hasNvidiaDriver } from "../worker/process.js";
import { addCommonOptions, commonOptions } from "./options.js";

/** One thing that Atlas needs. */
export interface Check {
  name: string;
  /** "missing" means that it cannot be used as it is; a warning does not. */
  status: "ok" | "warning" | "missing";
  detail: string;
  /** What to do about it. */
  remedy?: string;
}

export function register(program: Command): void {
  const command = program.command("doctor").description("What is installed, what is missing, what to do");
  command.addOption(new Option("--json", "Print the checks as JSON, and nothing else, on stdout"));
  addCommonOptions(command, ["runs", "debug"])
    .addHelpText(
      "after",
      "\nExit code 0 when everything that is needed is there, else 1.\n\nExamples:\n  atlas doctor\n  atlas doctor --json",
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
      const { green, yellow, red } = pc.createColors(Boolean(process.stdout.isTTY) && pc.isColorSupported); // CI alone would turn them on
      const colour = { ok: green, warning: yellow, missing: red };
      for (const { name, status, detail, remedy } of checks)
        process.stdout.write(
          `${colour[status](status.padEnd(8))} ${name.padEnd(width)}  ${detail}${remedy === undefined ? "" : `; ${remedy}`}\n`,
        );
      process.stdout.write(usable ? "Atlas is ready to use.\n" : "Atlas cannot be used yet: see above.\n");
    });
}

/** All checks, in the order in which they depend on each other. */
export async function examine(runs: string): Promise<Check[]> {
  return [
    node(),
    await nodePackages(),
    stubs(),
    ...(await python()),
    await runsFolder(runs),
    await backgroundWorker(),
  ];
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
      detail: `${missing} is not as package-lock.json says`,
      remedy: "npm run setup",
    };
  try {
    await import("zeromq"); // the one with a compiled part
  } catch (error) {
    const detail = `zeromq cannot be loaded on this platform (${firstLine(error)})`;
    return { name, status: "missing", detail, remedy: "install the packages again on this machine (npm ci)" };
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
    ? { name: "stubs", status: "ok", detail: "as proto/ says" }
    : {
        name: "stubs",
        status: "missing",
        detail: `those for ${absent.join(" and ")} are missing or not those of proto/`,
        remedy: IS_CLONE ? "npm run setup" : "they are made when a command first needs them, e.g. atlas demo",
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
for name in ("torch", "numpy", "safetensors", "zmq", "grpc", "grpc_health", "grpc_reflection", "google.protobuf"):
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
print("probe " + json.dumps({"versions": versions, "failed": failed, "devices": devices, "cuda": cuda}))
`;

async function python(): Promise<Check[]> {
  const again = IS_CLONE ? "npm run setup" : "it is made when a command first needs it, e.g. atlas demo";
  let venv: ReturnType<typeof venvStatus>;
  try {
    venv = venvStatus();
  } catch (error) {
    if (!(error instanceof SetupFailure)) throw error;
    return [{ name: "venv", status: "missing", detail: error.message, remedy: error.remedy }];
  }
  if (!venv.ready) {
    const half = venv.interrupted || venv.exists;
    const state = half ? "is half-made, damaged or out of date" : "is not there yet";
    const remedy = half && !IS_CLONE ? "it is mended when a command next needs it, e.g. atlas demo" : again;
    return [
      await basePython(),
      { name: "venv", status: "missing", detail: `${venv.folder} ${state}`, remedy },
      await space("disk for the venv", venv.folder, 6),
    ];
  }
  const checks: Check[] = [{ name: "Python", status: "ok", detail: `${venv.version} in ${venv.folder}` }];
  const { lines } = await execute(venv.python, ["-c", PROBE]);
  const line = lines.find((l) => l.startsWith("probe "));
  if (line === undefined) {
    const detail = `${venv.python} does not run (${lines.at(-1)?.trim() ?? "it said nothing"})`;
    return [
      ...checks,
      { name: "venv", status: "missing", detail, remedy: `delete ${venv.folder}; ${again}` },
    ];
  }
  const { versions, failed, devices, cuda } = Probe.parse(JSON.parse(line.slice("probe ".length)));
  for (const [module, reason] of Object.entries(failed))
    checks.push({
      name: module,
      status: "missing",
      detail: reason,
      remedy: `delete ${venv.folder}; ${again}`,
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
      detail: `${versions.torch}${venv.torch === undefined ? "" : ` (as ATLAS_TORCH asked: ${venv.torch})`}`,
    });
  checks.push(devicesOf(devices, cuda, hasNvidiaDriver()));
  return checks;
}

function devicesOf(devices: string[], cuda: string | null, hasDriver: boolean): Check {
  const name = "devices";
  if (devices.length > 0) return { name, status: "ok", detail: `cpu; ${devices.join("; ")} (CUDA ${cuda})` };
  if (!hasDriver) return { name, status: "ok", detail: "cpu (no NVIDIA GPU seen)" };
  return {
    name,
    status: "warning",
    detail: `cpu only: there is an NVIDIA driver, but this PyTorch ${cuda === null ? "was built without CUDA" : `(CUDA ${cuda}) cannot use it`}`,
    remedy:
      cuda === null
        ? 'choose a build with CUDA: ATLAS_TORCH="torch==…"'
        : "update the driver, or choose a PyTorch for an older CUDA with ATLAS_TORCH",
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
    await rmdir(await mkdtemp(join(place, ".atlas-doctor-"))); // asking for permission is not the same as having it
    const free = await space(name, place, 0.5);
    return {
      ...free,
      detail: `${folder}${place === folder ? "" : " (made at the first run)"}, ${free.detail}`,
    };
  } catch (error) {
    const known = explainFileSystem(error, "write", folder);
    if (!(known instanceof AtlasError)) throw error;
    return { name, status: "missing", detail: known.message, remedy: known.remedy };
  }
}

/** A path, or the nearest folder above it that is there. */
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
  return { name, status: "warning", detail, remedy: `free some: ${neededGb} GB may be needed` };
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
          : `one runs in the background at ${worker.address} (process ${worker.pid}, log ${worker.log})`,
    };
  } catch (error) {
    if (!(error instanceof AtlasError)) throw error;
    return { name, status: "warning", detail: error.message, remedy: error.remedy };
  }
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0]!;
}
