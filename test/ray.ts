/** Ray in a venv of its own, made at first need, and the head of a cluster of this machine. */
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { ensureVenv } from "../src/setup/venv.js";

const VENV = fileURLToPath(new URL("../node_modules/.cache/ray", import.meta.url));
const REQUIREMENT = "ray[default]==2.60.0";
/** Milliseconds for the installation, and for the start of a head. */
const INSTALL_MS = 170_000;
const START_MS = 120_000;

/** The head of a Ray cluster, which is a node too. */
export interface RayHead {
  /** Address of the dashboard. */
  readonly url: string;
  readonly pid: number;
  /** Process id of the raylet, which runs the jobs. */
  readonly raylet: number;
  /** End everything, and remove its files. */
  stop(): Promise<void>;
}

/** Install Ray, unless it is there. @returns its program; undefined if it cannot be had */
export async function ensureRay(): Promise<string | undefined> {
  const ray = join(VENV, "bin/ray");
  if (existsSync(ray)) return ray;
  const { python } = await ensureVenv();
  await execa(python, ["-m", "venv", VENV], { reject: false });
  const install = ["-m", "pip", "install", "-q", REQUIREMENT];
  await execa(join(VENV, "bin/python"), install, { reject: false, timeout: INSTALL_MS });
  return existsSync(ray) ? ray : undefined;
}

/** Start a head with two CPUs, on ports that are free. @throws Error if it does not serve */
export async function startRayHead(ray: string): Promise<RayHead> {
  const [dashboard, gcs] = [await freePort(), await freePort()];
  const folder = mkdtempSync("/tmp/atlas-ray-"); // Ray's sockets need short paths
  const args = [
    ...["start", "--head", "--block", "--num-cpus=2", "--object-store-memory=100000000"],
    ...["--dashboard-host=127.0.0.1", `--dashboard-port=${dashboard}`, `--port=${gcs}`],
    ...["--disable-usage-stats", `--temp-dir=${folder}`],
  ];
  const child = spawn(ray, args, { stdio: "ignore", detached: true });
  const ended = new Promise<void>((resolve) => void child.once("exit", () => resolve()));
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) process.kill(-child.pid!, "SIGKILL");
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
  const url = `http://127.0.0.1:${dashboard}`;
  const raylets = () =>
    pidsOf((program, line) => program.endsWith("/raylet") && line.includes(folder));
  const end = performance.now() + START_MS;
  while (performance.now() < end && child.exitCode === null) {
    const answer = await fetch(`${url}/api/version`).catch(() => undefined);
    const [raylet] = raylets();
    if (answer?.status === 200 && raylet !== undefined)
      return { url, pid: child.pid!, raylet, stop };
    await sleep(300);
  }
  await stop();
  throw new Error(`the head of Ray did not serve within ${START_MS / 1000} s`);
}

/** Find the processes of this machine whose program and arguments are as wanted. */
export function pidsOf(wanted: (program: string, args: string) => boolean): number[] {
  return execFileSync("ps", ["-A", "-o", "pid=,command="], { encoding: "utf8" })
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter(([, program = "", ...args]) => wanted(program, args.join(" ")))
    .map(([pid]) => Number(pid));
}

/** Find a port of the loopback interface that nobody listens on. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}
