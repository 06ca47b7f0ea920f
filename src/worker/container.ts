/**
 * A worker in a container: its image is built or fetched first, and the container is removed when
 * this process ends, in any way.
 */
import { createHash, randomBytes } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { SetupError, UsageError } from "../errors.js";
import { ROOT } from "../setup/common.mjs";
import { childEnvironment } from "../setup/environment.mjs";
import { VERSION } from "../version.js";
import { type LocalProcess, type StartOptions, startProgram } from "./local.js";
import { hasNvidiaDriver, serveArguments } from "./process.js";

const ENGINES = ["docker", "podman"] as const;
const DOCKERFILE = "docker/Dockerfile";
/** Sources of the worker's image, relative to the package's top folder. */
const CONTEXT = [
  DOCKERFILE,
  ".dockerignore",
  "proto",
  "py-worker/requirements.txt",
  "py-worker/atlas_worker",
];
/** Base of the image for machines without a GPU. The Dockerfile has the base for a GPU. */
const CPU_BASE = "python:3.11-slim-bookworm";
/** How the names of the images begin. */
const IMAGE = "atlas-symmetry-worker:";
/** Milliseconds in which an engine must answer whether it runs. */
const ENGINE_MS = 10_000;
/** Characters of an engine's error that a message shows. */
const LONGEST_REASON = 300;
/** The volume that keeps decoded fields for the next container. */
const CACHE = "atlas-cache:/var/cache/atlas";

/** Options of {@link startContainerWorker}. */
export interface ContainerOptions extends StartOptions {
  /**
   * Image to fetch; its entry point must be `python -m atlas_worker` (default: built from this
   * package).
   */
  image?: string;
  /** Absolute paths that the worker may read. They are the same inside the container. */
  files?: readonly string[];
  /** Called with every line of the image's build or download, which may take minutes. */
  onSetup?: (line: string) => void;
}

/**
 * Parse a choice of worker that is a container: "docker" or "docker:IMAGE".
 *
 * @returns the image, undefined for the image of this package; undefined if `worker` is no
 * container
 * @throws UsageError if the name of the image is not valid
 */
export function parseContainer(worker: string): { image?: string } | undefined {
  const [scheme, ...rest] = worker.split(":");
  if (scheme !== "docker") return undefined;
  if (rest.length === 0) return {};
  const image = rest.join(":");
  if (!/^[a-z\d][\w./:@-]*$/i.test(image))
    throw new UsageError(`${worker} does not name an image`, "write docker, or docker:IMAGE", {
      setting: "worker",
    });
  return { image };
}

/**
 * Start a container and wait until its worker serves.
 *
 * The container shares the host's network, and the worker listens on the loopback interface only.
 * The container sees only the named files of the host. It runs as the user of this process, or as
 * the image's own user if that is root.
 *
 * @throws SetupError if no container engine runs, or the image cannot be built or fetched
 * @throws WorkerUnavailable if the worker does not start or serve
 * @throws the signal's reason if aborted
 */
export async function startContainerWorker(options: ContainerOptions): Promise<LocalProcess> {
  const { device = "auto", threads, trustCode, logLevel, files = [], signal } = options;
  const engine = await findEngine(signal);
  const gpu = device.startsWith("cuda") || (device === "auto" && hasNvidiaDriver());
  const image = options.image ?? (await ownImageName(gpu));
  await ensureImage(engine, image, options, gpu);
  const name = `atlas-${randomBytes(8).toString("hex")}`;
  return startProgram(
    {
      command: engine.command,
      args: [
        ...[
          "run",
          "--rm",
          "--interactive",
          "--name",
          name,
          "--network",
          "host",
          "--no-healthcheck",
        ],
        ...[
          "--read-only",
          "--tmpfs",
          "/tmp",
          "--cap-drop",
          "ALL",
          "--security-opt",
          "no-new-privileges",
        ],
        // Without this, SELinux would need other labels on the user's files.
        ...["--security-opt", "label=disable"],
        // The engine takes the token from this process's environment, which other users cannot see.
        ...["--env", "ATLAS_TOKEN", "--volume", CACHE],
        ...userFlags(engine),
        ...(gpu ? (engine.podman ? ["--device", "nvidia.com/gpu=all"] : ["--gpus", "all"]) : []),
        ...files.flatMap((path) => ["--mount", readOnly(path)]),
        image,
        ...serveArguments({ device, threads, trustCode, logLevel, dataRoot: "/" }),
        "--parent-stdin",
      ],
      called: "the worker's container",
      remedy: `check that ${engine.command} can run containers, or use a local worker`,
      setting: "localWorker",
      // The engine may not have removed the container. A container that is gone is no error here.
      clear: () =>
        execa(engine.command, ["rm", "--force", name], {
          env: childEnvironment(),
          extendEnv: false,
          reject: false,
          timeout: 10_000,
        }),
    },
    options,
  );
}

/** Something that workers in containers leave with the engine. */
export interface Remainder {
  /** Name of an image, or of the volume of caches. */
  name: string;
  /** undefined for the volume: engines do not tell */
  bytes?: number;
  /** @returns why the engine keeps it; undefined if it is gone */
  remove(): Promise<string | undefined>;
}

/**
 * List the images that were built for workers, and the volume of their caches.
 *
 * @returns none if no engine is installed
 * @throws SetupError if an engine is installed but does not run
 * @throws a TimeoutError if it does not answer
 */
export async function listRemainders(): Promise<Remainder[]> {
  const engine = await lookForEngine(AbortSignal.timeout(ENGINE_MS));
  if ("reason" in engine) {
    if (engine.installed) throw new SetupError(engine.reason);
    return [];
  }
  const ask = async (...args: string[]) => {
    const { failed, lines } = await runEngine(engine.command, args, {});
    return failed ? [] : lines;
  };
  const remove =
    (...args: string[]) =>
    async () => {
      const { failed, lines } = await runEngine(engine.command, args, {});
      return failed ? lastLine(lines) : undefined;
    };
  const names = await ask("image", "ls", "--format", "{{.Repository}}:{{.Tag}}");
  const images = [...new Set(names)].filter((name) => name.split("/").at(-1)!.startsWith(IMAGE));
  const found: Remainder[] = [];
  for (const name of images) {
    const [size] = await ask("image", "inspect", "--format", "{{.Size}}", name);
    found.push({ name, bytes: Number(size) || undefined, remove: remove("image", "rm", name) });
  }
  const [volume = ""] = CACHE.split(":");
  if ((await ask("volume", "ls", "--quiet")).includes(volume))
    found.push({ name: `volume ${volume}`, remove: remove("volume", "rm", volume) });
  return found;
}

interface Engine {
  command: string;
  /** Whether it is Podman, also under the name docker. */
  podman: boolean;
}

/** @throws SetupError if no container engine runs */
async function findEngine(signal: AbortSignal | undefined): Promise<Engine> {
  const engine = await lookForEngine(signal);
  if ("command" in engine) return engine;
  throw new SetupError(
    `a worker in a container needs a container engine: ${engine.reason}`,
    engine.installed
      ? "start it, or use a local worker"
      : "install Docker or Podman, or use a local worker",
    { setting: "localWorker" },
  );
}

/** Find the first container engine that is installed and runs, or say why there is none. */
async function lookForEngine(
  signal: AbortSignal | undefined,
): Promise<Engine | { reason: string; installed: boolean }> {
  let reason = `neither ${ENGINES.join(" nor ")} is installed`;
  let installed = false;
  for (const command of ENGINES) {
    const { lines, failed, missing } = await runEngine(command, ["version"], { signal });
    if (!failed) return { command, podman: lines.some((line) => /podman/i.test(line)) };
    if (!missing && !installed) {
      reason = `${command} is installed but does not run (${lastLine(lines)})`;
      installed = true;
    }
  }
  return { reason, installed };
}

/** Build or fetch an image, unless the engine has it. */
async function ensureImage(
  { command }: Engine,
  image: string,
  { image: given, onSetup, signal }: ContainerOptions,
  gpu: boolean,
): Promise<void> {
  const known = await runEngine(command, ["image", "inspect", image], { signal });
  if (!known.failed) return;
  onSetup?.(
    `${given === undefined ? "building" : "fetching"} the image ${image} with ${command}, ` +
      "which can take some minutes",
  );
  const args =
    given === undefined
      ? [
          ...["build", "--file", join(ROOT, DOCKERFILE), "--tag", image],
          ...Object.entries(buildArguments(gpu)).flatMap(([name, value]) => [
            "--build-arg",
            `${name}=${value}`,
          ]),
          ROOT,
        ]
      : ["pull", image];
  const { failed, lines } = await runEngine(command, args, {
    onLine: (line) => onSetup?.(`  ${line}`),
    signal,
  });
  if (failed)
    throw new SetupError(
      `${command} could not ${given === undefined ? "build" : "fetch"} the image ${image} ` +
        `(${lastLine(lines)})`,
      given === undefined
        ? "check the network and the disk; ATLAS_BASE sets another base image, ATLAS_TORCH " +
            "another PyTorch"
        : "check the name of the image, the network, and that you are logged in to the registry",
    );
}

/** Get the build arguments that differ from the Dockerfile's defaults. */
function buildArguments(gpu: boolean): Record<string, string> {
  const { ATLAS_BASE, ATLAS_TORCH, PIP_INDEX_URL, PIP_EXTRA_INDEX_URL } = process.env;
  const all = {
    BASE: ATLAS_BASE || (gpu ? "" : CPU_BASE),
    TORCH: ATLAS_TORCH ?? "",
    PIP_INDEX_URL: PIP_INDEX_URL ?? "",
    PIP_EXTRA_INDEX_URL: PIP_EXTRA_INDEX_URL ?? "",
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== ""));
}

/** Name the package's image by a hash of its sources and build arguments. */
async function ownImageName(gpu: boolean): Promise<string> {
  const hash = createHash("sha256").update(JSON.stringify(buildArguments(gpu)));
  for (const part of CONTEXT)
    for (const file of await filesUnder(part))
      hash.update(`\0${file}\0`).update(await readFile(join(ROOT, file)));
  return `${IMAGE}${VERSION}-${hash.digest("hex").slice(0, 12)}`;
}

/** List the files at or below a path of the package, except generated ones. */
async function filesUnder(path: string): Promise<string[]> {
  if (/(^|\/)(gen|__pycache__)$/.test(path)) return [];
  const entries = await readdir(join(ROOT, path)).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOTDIR") return undefined;
    throw error;
  });
  if (entries === undefined) return [path];
  return (await Promise.all(entries.sort().map((entry) => filesUnder(`${path}/${entry}`)))).flat();
}

/** Get the end of the last line, because engines repeat the whole instruction before the error. */
function lastLine(lines: readonly string[]): string {
  const line = lines.at(-1)?.trim() ?? "it said nothing";
  return line.length > LONGEST_REASON ? `…${line.slice(-LONGEST_REASON)}` : line;
}

function userFlags({ podman }: Engine): string[] {
  const [uid, gid] = [process.getuid?.(), process.getgid?.()];
  if (uid === undefined || uid === 0) return [];
  return ["--user", `${uid}:${gid}`, ...(podman ? ["--userns", "keep-id"] : [])];
}

/** Write a value of --mount, which is a line of CSV. */
function readOnly(path: string): string {
  const field = (name: string) => `"${`${name}=${path}`.replaceAll('"', '""')}"`;
  return `type=bind,${field("source")},${field("target")},readonly`;
}

/**
 * Run a command of an engine to its end.
 *
 * @param onLine is called with every line of its output
 * @throws the signal's reason if aborted
 */
async function runEngine(
  command: string,
  args: readonly string[],
  { onLine, signal }: { onLine?: (line: string) => void; signal?: AbortSignal },
): Promise<{ failed: boolean; missing: boolean; lines: string[] }> {
  const child = execa(command, args, {
    env: childEnvironment(),
    extendEnv: false,
    all: true,
    stdin: "ignore",
    reject: false,
    cancelSignal: signal,
    forceKillAfterDelay: 5_000,
  });
  const lines: string[] = [];
  for await (const line of child.iterable({ from: "all" })) {
    if (line.trim() === "") continue;
    lines.push(line);
    onLine?.(line);
  }
  const { failed, code } = await child;
  signal?.throwIfAborted();
  return { failed, missing: code === "ENOENT", lines };
}
