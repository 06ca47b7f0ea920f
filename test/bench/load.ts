/** Many calls and many small jobs on one worker, by one client and by several: how many a second, how long each takes, and what the worker's memory does. */
import { readFileSync } from "node:fs";
import { WorkerServiceService } from "../../src/gen/atlas/v1/worker.js";
import { Rpc } from "../../src/rpc/index.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { startLocalWorker } from "../../src/worker/local.js";
import { Worker } from "../../src/worker/worker.js";
import { quantile } from "./statistics.js";

const CLIENTS = [1, 16];
const SECONDS = 5;
const JOBS = 10_000;

export interface Load {
  clients: number;
  perSecond: number;
  /** Milliseconds. */
  p50: number;
  p99: number;
}

export interface Loads {
  describe: Load[];
  jobs: Load[];
  /** Resident memory of the worker in MiB, after half of the jobs and after all of them. */
  memory: { jobs: number; early: number; late: number };
}

/** A small job is a plate of 32 × 32 being made: create, start, watch to the end, delete. */
export async function measureLoad(jobs = JOBS): Promise<Loads> {
  const { python, workerDir } = await ensureVenv();
  const local = await startLocalWorker({ python, workerDir, device: "cpu", threads: 1 });
  const { address, token, pid } = local;
  const clients = Math.max(...CLIENTS);
  const rpcs = Array.from({ length: clients }, () => new Rpc(address, { token }));
  const workers: Worker[] = [];
  try {
    const describe: Load[] = [];
    for (const n of CLIENTS)
      describe.push(
        await load(rpcs.slice(0, n), SECONDS, (rpc) => rpc.call(WorkerServiceService.describe, {})),
      );
    for (let i = 0; i < clients; i++)
      workers.push(await Worker.connect({ address, secure: false }, { token }));
    const sessions = await Promise.all(workers.map((worker) => worker.openSession({ device: "cpu" })));
    const job = async (session: (typeof sessions)[number]) => {
      const params = { samples: 1, side: 32 };
      const made = await session.createDataset({ kind: "heat2d", params, seed: 0 });
      await session.advance(made);
      await session.delete(made);
    };
    const found: Load[] = [];
    for (const n of CLIENTS) found.push(await load(sessions.slice(0, n), SECONDS, job));
    const memory = { jobs, early: 0, late: 0 };
    for (let done = 0; done < jobs; done += clients) {
      await Promise.all(sessions.map(job));
      if (memory.early === 0 && done >= jobs / 2) memory.early = residentMiB(pid);
    }
    memory.late = residentMiB(pid);
    return { describe, jobs: found, memory };
  } finally {
    for (const worker of workers) await worker.close();
    for (const rpc of rpcs) rpc.close();
    await local.close();
  }
}

/** Every client does one thing after another, for some seconds. */
async function load<T>(
  clients: readonly T[],
  seconds: number,
  act: (client: T) => Promise<unknown>,
): Promise<Load> {
  await Promise.all(clients.map(act)); // connections are made
  const times: number[] = [];
  const start = performance.now();
  await Promise.all(
    clients.map(async (client) => {
      while (performance.now() - start < 1000 * seconds) {
        const begun = performance.now();
        await act(client);
        times.push(performance.now() - begun);
      }
    }),
  );
  const took = (performance.now() - start) / 1000;
  const [p50, p99] = [quantile(times, 0.5), quantile(times, 0.99)];
  return { clients: clients.length, perSecond: times.length / took, p50, p99 };
}

/** Resident memory of a process. */
export function residentMiB(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
}
