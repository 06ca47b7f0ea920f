/**
 * Workers that are measured and put to the test: one as runs start it, and one as it is started for
 * other machines.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createSecureContext, type SecureContext } from "node:tls";
import type { Access } from "../src/rpc/index.js";
import { ensureVenv } from "../src/setup/venv.js";
import { makeKeys } from "../src/worker/keys.js";
import { type LocalProcess, startLocalWorker, startProgram } from "../src/worker/local.js";
import { type LogLevel, PYTHON_MODULE, serveArguments } from "../src/worker/process.js";
import { Worker } from "../src/worker/worker.js";

/**
 * "plain": for this machine, with a token, its planes sockets in a folder of its user's.
 * "encrypted": on all of them, with TLS, a token, and CURVE on its planes.
 */
export const GUARDS = ["plain", "encrypted"] as const;
export type Guard = (typeof GUARDS)[number];

export interface Guarded extends LocalProcess {
  /** What it asks for. */
  readonly access: Access;
}

/** Start a worker of one thread on the CPU. */
export async function startGuarded(guard: Guard, logLevel: LogLevel = "info"): Promise<Guarded> {
  const { python, workerDir } = await ensureVenv();
  const options = { device: "cpu", threads: 1, logLevel };
  if (guard === "plain") {
    const local = await startLocalWorker({ python, workerDir, ...options });
    return { ...local, access: { token: local.token } };
  }
  return withCertificate(async ({ tls, tlsCert, tlsKey }) => {
    const args = serveArguments({ ...options, host: "0.0.0.0", tlsCert, tlsKey });
    const local = await startProgram(
      {
        command: python,
        args: [...PYTHON_MODULE, ...args, "--parent-stdin"],
        cwd: workerDir,
        env: { PYTHONPATH: workerDir, PYTHONUNBUFFERED: "1" },
        called: "the worker",
        remedy: "see what is missing with: atlas doctor",
      },
      {},
    );
    const address = local.address.replace("0.0.0.0", "127.0.0.1");
    return { ...local, address, access: { token: local.token, tls } };
  });
}

/**
 * Have a server started with new keys: the files of its certificate and key, which are gone
 * afterwards, and what its clients trust.
 */
export async function withCertificate<T>(
  start: (keys: { tls: SecureContext; tlsCert: string; tlsKey: string }) => Promise<T>,
): Promise<T> {
  const { ca, server, serverKey } = await makeKeys({ hosts: [] });
  const dir = await mkdtemp(join(tmpdir(), "atlas-keys-"));
  try {
    const [tlsCert, tlsKey] = [join(dir, "server.pem"), join(dir, "server-key.pem")];
    await writeFile(tlsCert, server);
    await writeFile(tlsKey, serverKey, { mode: 0o600 });
    return await start({ tls: createSecureContext({ ca }), tlsCert, tlsKey });
  } finally {
    await rm(dir, { recursive: true });
  }
}

/** A client of it, with a connection of its own. */
export function connectTo({ address, access }: Guarded): Promise<Worker> {
  return Worker.connect({ address, secure: access.tls !== undefined }, access);
}
