/**
 * Many calls and many small jobs, by one client and by several, with and without TLS: how many a
 * second, how long each takes, and what the worker's memory does.
 */
import { readFileSync } from "node:fs";
import { WorkerServiceService } from "../../src/gen/atlas/v1/worker.js";
import { Rpc } from "../../src/rpc/index.js";
import type { Session } from "../../src/worker/index.js";
import { connectTo, GUARDS, type Guard, type Guarded, startGuarded } from "../workers.js";
import { median, quantile } from "./statistics.js";

const CLIENTS = [1, 16];
const ROUNDS = 5;
const SECONDS = 2;
const JOBS = 10_000;

export interface Load {
  what: "describe" | "job";
  guard: Guard;
  clients: number;
  /** Median over the rounds. */
  perSecond: number;
  /** Milliseconds, of all rounds. */
  p50: number;
  p99: number;
}

export interface Loads {
  loads: Load[];
  /** Resident memory of the worker in MiB, after half of the jobs and after all of them. */
  memory: { guard: Guard; jobs: number; early: number; late: number }[];
}

/** Those who ask one worker for something. */
interface Crowd {
  local: Guarded;
  rpcs: Rpc[];
  sessions: Session[];
  leave(): Promise<void>;
}

/** Both workers run all the time, and are asked in turns. */
export async function measureLoad(jobs = JOBS): Promise<Loads> {
  const crowds: { guard: Guard; crowd: Crowd }[] = [];
  try {
    for (const guard of GUARDS)
      crowds.push({ guard, crowd: await gather(await startGuarded(guard)) });
    const loads: Load[] = [];
    for (const what of ["describe", "job"] as const)
      for (const clients of CLIENTS) {
        const found = crowds.map(() => ({ rates: [] as number[], times: [] as number[] }));
        for (let round = 0; round < ROUNDS; round++)
          for (const [i, { crowd }] of crowds.entries()) {
            const { rpcs, sessions } = crowd;
            const { rate, times } = await (what === "describe"
              ? load(rpcs.slice(0, clients), (rpc) => rpc.call(WorkerServiceService.describe, {}))
              : load(sessions.slice(0, clients), smallJob));
            found[i]!.rates.push(rate);
            found[i]!.times.push(...times);
          }
        for (const [i, { rates, times }] of found.entries()) {
          const [p50, p99] = [quantile(times, 0.5), quantile(times, 0.99)];
          loads.push({
            what,
            guard: crowds[i]!.guard,
            clients,
            perSecond: median(rates),
            p50,
            p99,
          });
        }
      }
    const memory: Loads["memory"] = [];
    for (const { guard, crowd } of crowds) {
      const { sessions, local } = crowd;
      let early = 0;
      for (let done = 0; done < jobs; done += sessions.length) {
        await Promise.all(sessions.map(smallJob));
        if (early === 0 && done >= jobs / 2) early = residentMiB(local.pid);
      }
      memory.push({ guard, jobs, early, late: residentMiB(local.pid) });
    }
    return { loads, memory };
  } finally {
    for (const { crowd } of crowds) await crowd.leave();
  }
}

async function gather(local: Guarded): Promise<Crowd> {
  const count = Math.max(...CLIENTS);
  const rpcs = Array.from({ length: count }, () => new Rpc(local.address, local.access));
  const workers = await Promise.all(rpcs.map(() => connectTo(local)));
  const sessions = await Promise.all(
    workers.map((worker) => worker.openSession({ device: "cpu" })),
  );
  const leave = async () => {
    await Promise.all(workers.map((worker) => worker.close()));
    for (const rpc of rpcs) rpc.close();
    await local.close();
  };
  return { local, rpcs, sessions, leave };
}

/**
 * A plate of 32 × 32 is made, by five steps, so that most of the time is ours: create, start, watch
 * to the end, delete.
 */
async function smallJob(session: Session): Promise<void> {
  const params = { samples: 1, side: 32, steps: 5 };
  const made = await session.createDataset({ kind: "heat_equation", params, seed: 0 });
  await session.advance(made);
  await session.delete(made);
}

/**
 * Every client does one thing after another, for some seconds. @returns how many a second, and the
 * milliseconds of each
 */
async function load<T>(
  clients: readonly T[],
  act: (client: T) => Promise<unknown>,
): Promise<{ rate: number; times: number[] }> {
  await Promise.all(clients.map(act)); // connections are made
  const times: number[] = [];
  const start = performance.now();
  await Promise.all(
    clients.map(async (client) => {
      while (performance.now() - start < 1000 * SECONDS) {
        const begun = performance.now();
        await act(client);
        times.push(performance.now() - begun);
      }
    }),
  );
  return { rate: (1000 * times.length) / (performance.now() - start), times };
}

/** Resident memory of a process. */
export function residentMiB(pid: number): number {
  return (
    Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024
  );
}
