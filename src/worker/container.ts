/** A worker in a container of our own: its image is built or fetched first, and it is removed with us, however we end. */
import { createHash, randomBytes } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { SetupError, UsageError } from "../errors.js";
import { ROOT } from "../setup/common.mjs";
import { VERSION } from "../version.js";
import { type LocalProcess, type StartOptions, startProgram } from "./local.js";
import { hasNvidiaDriver, serveArguments } from "./process.js";

const ENGINES = ["docker", "podman"] as const;
const DOCKERFILE = "docker/Dockerfile";
/** What our image is made of, from the package's top folder. */
const CONTEXT = [
  DOCKERFILE,
  ".dockerignore",
  "proto",
  "py-worker/requirements.txt",
  "py-worker/atlas_worker",
];
/** Of the image for machines without a GPU; the Dockerfile's own base is for those with one. */
const CPU_BASE = "python:3.11-slim-bookworm";
/** Characters of an engine's error that are shown. */
const LONGEST_REASON = 300;
/** Keeps what the worker has computed from data files for the next container. */
const CACHE = "atlas-cache:/var/cache/atlas";

export interface ContainerOptions extends StartOptions {
  /** An image to fetch, whose entry point is `python -m atlas_worker` (default: one that is built from this package). */
  image?: string;
  /** Files and folders that the worker may read, as absolute paths, which are the same inside. */
  files?: readonly string[];
  /** Told what building or fetching the image does, line by line; minutes may pass. */
  onSetup?: (line: string) => void;
}

/**
 * The image that `--worker docker` or `--worker docker:IMAGE` names: undefined inside for our own; undefined for any other text.
 *
 * @throws UsageError for a name that no image has
 */
export function parseContainer(worker: string): { image?: string } | undefined {
  const [scheme, ...rest] = worker.split(":");
  if (scheme !== "docker") return undefined;
  if (rest.length === 0) return {};
  const image = rest.join(":");
  if (!/^[a-z\d][\w./:@-]*$/i.test(image))
    throw new UsageError(`--worker ${worker}: this is no name of an image`, "write docker, or docker:IMAGE");
  return { image };
}

/**
 * Start a container and wait until its worker serves. It shares the host's network, where the worker listens on the loopback interface
 * only, sees none of the host's files but those named, and runs as the user who starts it, as the image's own when that is root.
 *
 * @throws SetupError without a container engine that runs, or when the image cannot be built or fetched
 * @throws WorkerUnavailable when it does not start or serve; the signal's reason when aborted
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
        ...["run", "--rm", "--interactive", "--name", name, "--network", "host", "--no-healthcheck"],
        ...["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"],
        // The labels of the user's files are not for us to change.
        ...["--security-opt", "label=disable"],
        // Its value comes from our environment, which other users cannot see.
        ...["--env", "ATLAS_TOKEN", "--volume", CACHE],
        ...userFlags(engine),
        ...(gpu ? (engine.podman ? ["--device", "nvidia.com/gpu=all"] : ["--gpus", "all"]) : []),
        ...files.flatMap((path) => ["--mount", readOnly(path)]),
        image,
        ...serveArguments({ device, threads, trustCode, logLevel, dataRoot: "/" }),
        "--parent-stdin",
      ],
      called: "the worker's container",
      remedy: `see whether ${engine.command} can run it, or use --worker local`,
      // The engine may have lost sight of it; one that is gone already is no error here.
      clear: () => execa(engine.command, ["rm", "--force", name], { reject: false, timeout: 10_000 }),
    },
    options,
  );
}

interface Engine {
  command: string;
  /** Also when it is called docker. */
  podman: boolean;
}

/** The first engine that is there and runs. */
async function findEngine(signal: AbortSignal | undefined): Promise<Engine> {
  let reason = `neither ${ENGINES.join(" nor ")} is installed`;
  let found = false;
  for (const command of ENGINES) {
    const { lines, failed, missing } = await runEngine(command, ["version"], { signal });
    if (!failed) return { command, podman: lines.some((line) => /podman/i.test(line)) };
    if (!missing && !found) {
      reason = `${command} is installed but does not run (${lastLine(lines)})`;
      found = true;
    }
  }
  throw new SetupError(
    `--worker docker needs a container engine: ${reason}`,
    found ? "start it, or use --worker local" : "install Docker or Podman, or use --worker local",
  );
}

/** Build or fetch an image that is not there yet. */
async function ensureImage(
  { command }: Engine,
  image: string,
  { image: given, onSetup, signal }: ContainerOptions,
  gpu: boolean,
): Promise<void> {
  const known = await runEngine(command, ["image", "inspect", image], { signal });
  if (!known.failed) return;
  onSetup?.(
    `${given === undefined ? "building" : "fetching"} the image ${image} (${command}); this can take some minutes`,
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
      `${command} could not ${given === undefined ? "build" : "fetch"} the image ${image} (${lastLine(lines)})`,
      given === undefined
        ? "check the network and the disk; ATLAS_BASE names another base image, ATLAS_TORCH another PyTorch"
        : "check its name, the network, and that you are logged in where it is",
    );
}

/** Those of the Dockerfile that differ from its defaults. */
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

/** Of our image: other sources or arguments make another one. */
async function ownImageName(gpu: boolean): Promise<string> {
  const hash = createHash("sha256").update(JSON.stringify(buildArguments(gpu)));
  for (const part of CONTEXT)
    for (const file of await filesUnder(part))
      hash.update(`\0${file}\0`).update(await readFile(join(ROOT, file)));
  return `atlas-symmetry-worker:${VERSION}-${hash.digest("hex").slice(0, 12)}`;
}

/** Files at or below a path of the package, without what is generated. */
async function filesUnder(path: string): Promise<string[]> {
  if (/(^|\/)(gen|__pycache__)$/.test(path)) return [];
  const entries = await readdir(join(ROOT, path)).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOTDIR") return undefined;
    throw error;
  });
  if (entries === undefined) return [path];
  return (await Promise.all(entries.sort().map((entry) => filesUnder(`${path}/${entry}`)))).flat();
}

/** Its end, since engines repeat the whole instruction before they say what went wrong. */
function lastLine(lines: readonly string[]): string {
  const line = lines.at(-1)?.trim() ?? "it said nothing";
  return line.length > LONGEST_REASON ? `…${line.slice(-LONGEST_REASON)}` : line;
}

function userFlags({ podman }: Engine): string[] {
  const [uid, gid] = [process.getuid?.(), process.getgid?.()];
  if (uid === undefined || uid === 0) return [];
  return ["--user", `${uid}:${gid}`, ...(podman ? ["--userns", "keep-id"] : [])];
}

/** A value of --mount, which is a line of CSV. */
function readOnly(path: string): string {
  const field = (name: string) => `"${`${name}=${path}`.replaceAll('"', '""')}"`;
  return `type=bind,${field("source")},${field("target")},readonly`;
}

/** Run a command of an engine to its end. @throws the signal's reason when aborted */
async function runEngine(
  command: string,
  args: readonly string[],
  { onLine, signal }: { onLine?: (line: string) => void; signal?: AbortSignal },
): Promise<{ failed: boolean; missing: boolean; lines: string[] }> {
  const child = execa(command, args, {
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
