/**
 * The pool `ssh:hostA,hostB`: a worker on each host, started by the system's ssh, which also makes
 * the tunnel. A worker ends when its ssh does, so nothing stays behind after a crash.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { UsageError, WorkerUnavailable } from "../errors.js";
import { childEnvironment } from "../setup/environment.mjs";
import { connectLocal } from "../worker/index.js";
import { type Endpoints, type LocalProcess, startProgram } from "../worker/local.js";
import { PYTHON_MODULE, type Ready, serveArguments } from "../worker/process.js";
import { threadsInWords } from "./local.js";
import type { Pool, PoolOptions, Slot } from "./pool.js";
import { installation, quote } from "./remote.js";

/** Options of every call of ssh: no questions, and a dead connection is noticed. */
const options = () => [
  ...(process.env.ATLAS_SSH_CONFIG ? ["-F", process.env.ATLAS_SSH_CONFIG] : []),
  ...["-o", "BatchMode=yes"],
  ...["-o", "ConnectTimeout=20"],
  ...["-o", "ServerAliveInterval=15"],
  ...["-o", "ServerAliveCountMax=4"],
];

/** Workers on other machines, over ssh. */
export class SshPool implements Pool {
  readonly place = "loopback"; // paths are those of this machine where they exist here
  readonly size: number;
  readonly threads: number | undefined;
  private readonly taken = new Set<number>();
  private readonly workers = new Set<LocalProcess>();

  private constructor(
    readonly name: string,
    private readonly hosts: readonly string[],
    private readonly options: PoolOptions,
  ) {
    this.size = hosts.length;
    this.threads = options.worker?.threads;
  }

  /** Open the pool. A host that is named twice has two slots. @throws UsageError */
  static open(name: string, options: PoolOptions): SshPool {
    const hosts = name
      .slice("ssh:".length)
      .split(",")
      .map((host) => host.trim());
    const wrong = hosts.find((host) => !/^[\w.@:[\]%-]+$/.test(host) || host.startsWith("-"));
    if (wrong !== undefined || !name.startsWith("ssh:"))
      throw new UsageError(
        `--pool ${name}: ${JSON.stringify(wrong ?? "")} is not a host`,
        "write ssh:HOST or ssh:HOST,HOST, with hosts as ssh takes them",
      );
    return new SshPool(name, hosts, options);
  }

  async check(): Promise<void> {
    await Promise.all(
      [...new Set(this.hosts)].map(async (host) => {
        const { exitCode, stderr, message } = await ssh([...options(), host, "--", "true"]);
        if (exitCode !== 0) throw unreachable(host, stderr || (message ?? ""));
      }),
    );
  }

  async acquire(signal: AbortSignal): Promise<Slot> {
    const index = this.hosts.findIndex((_, i) => !this.taken.has(i));
    if (index < 0) throw new WorkerUnavailable(`the pool ${this.name} has no free slot`);
    this.taken.add(index);
    const host = this.hosts[index]!;
    const same = this.hosts.slice(0, index).filter((other) => other === host).length;
    const name = same === 0 ? host : `${host}/${same + 1}`;
    try {
      const started = await this.start(host, signal);
      this.workers.add(started);
      return {
        name,
        about: threadsInWords(this.threads),
        run: {
          ...{ pool: this.name, name },
          connect: (options) => connectLocal(started, options),
        },
        release: async () => {
          await started.close();
          this.workers.delete(started);
          this.taken.delete(index);
        },
      };
    } catch (error) {
      this.taken.delete(index);
      throw error;
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.workers].map((worker) => worker.close()));
  }

  private async start(host: string, signal: AbortSignal): Promise<LocalProcess> {
    const { trustCode, onLog, worker: choice = {} } = this.options;
    const { python, workerDir } = await installation();
    const serve = serveArguments({
      ...{ device: choice.device, threads: this.threads, trustCode, logLevel: choice.logLevel },
      dataRoot: "/",
    });
    const command = [python, ...PYTHON_MODULE, ...serve, "--parent-stdin"].map(quote).join(" ");
    // The token comes by standard input: a command line can be seen by all users of the host.
    const script =
      `IFS= read -r ATLAS_TOKEN && export ATLAS_TOKEN && cd ${quote(workerDir)} && ` +
      `PYTHONUNBUFFERED=1 exec ${command}`;
    const folder = mkdtempSync(join(tmpdir(), "atlas-ssh-"));
    const control = join(folder, "control");
    return startProgram(
      {
        command: "ssh",
        args: [
          ...options(),
          ...["-o", "ControlMaster=yes", "-o", `ControlPath=${control}`],
          ...["-o", "ControlPersist=no", host, "--", `exec sh -c ${quote(script)}`],
        ],
        called: `the worker on ${host}`,
        remedy: `try: ssh ${host} true; Atlas must be set up there (ATLAS_REMOTE names its folder)`,
        folder,
        input: (token) => `${token}\n`,
        reach: (ready) => tunnel(host, control, ready),
      },
      { onLog, signal },
    ).catch((error: unknown) => {
      rmSync(folder, { recursive: true, force: true });
      throw error;
    });
  }
}

/** Lead ports of this machine to those of the worker. */
async function tunnel(
  host: string,
  control: string,
  { address, tensors, metrics }: Ready,
): Promise<Endpoints> {
  const remote = [address, tensors ?? "", metrics ?? ""].map(portOf);
  const local = await freePorts(remote.length);
  const forwards = remote.flatMap((port, i) => ["-L", `127.0.0.1:${local[i]}:127.0.0.1:${port}`]);
  const { exitCode, stderr } = await ssh([
    ...options(),
    "-S",
    control,
    "-O",
    "forward",
    ...forwards,
    host,
  ]);
  if (exitCode !== 0) throw unreachable(host, `the tunnel cannot be made: ${stderr}`);
  const [grpc, tensorPort, metricsPort] = local;
  return {
    address: `127.0.0.1:${grpc}`,
    tensors: `tcp://127.0.0.1:${tensorPort}`,
    metrics: `tcp://127.0.0.1:${metricsPort}`,
  };
}

function ssh(args: readonly string[]) {
  return execa("ssh", args, {
    ...{ env: childEnvironment(), extendEnv: false, reject: false, stdin: "ignore" },
    timeout: 60_000,
  });
}

function unreachable(host: string, said: string): WorkerUnavailable {
  const line = said.trim().split("\n").at(-1) ?? "";
  return new WorkerUnavailable(
    `the host ${host} cannot be reached: ${line.replace(/\.$/, "") || "ssh gave no reason"}`,
    `try: ssh ${host} true, which must need no password`,
    { setting: "pool" },
  );
}

function portOf(endpoint: string): number {
  return Number(/:(\d+)$/.exec(endpoint)?.[1] ?? 0);
}

/** Find free ports of the loopback interface. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports = await Promise.all(
    servers.map(
      (server) =>
        new Promise<number>((resolve, reject) => {
          server.once("error", reject).listen(0, "127.0.0.1", () => {
            const address = server.address();
            resolve(typeof address === "object" && address ? address.port : 0);
          });
        }),
    ),
  );
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
