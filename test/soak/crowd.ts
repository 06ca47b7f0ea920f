/** More clients than a worker has room for, and one that never gives its room back. */
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { JobServiceService, JobState } from "../../src/gen/atlas/v1/job.js";
import { ObjectServiceService } from "../../src/gen/atlas/v1/objects.js";
import { WorkerServiceService } from "../../src/gen/atlas/v1/worker.js";
import type { LocalProcess } from "../../src/worker/local.js";
import { PROTOCOL_VERSION } from "../../src/worker/worker.js";
import { quantile } from "../bench/statistics.js";
import { Caller, Refused } from "./caller.js";
import { checkWell, PLATES, withWorker } from "./worker.js";

/** How much later than its lease ends a session may be closed. */
const LATE_SECONDS = 15;

export interface Crowd {
  clients: number;
  served: number;
  refused: number;
  /**
   * Milliseconds from the connection to the end of the job, of those that were served; and to the
   * refusal.
   */
  servedTimes: { p50: number; p99: number };
  refusedTimes: { p50: number; p99: number };
  seconds: number;
}

/**
 * @throws when a client is neither served nor refused in words, or the worker is not well
 * afterwards
 */
export async function measureCrowd(clients: number): Promise<Crowd> {
  return withWorker(async (local) => {
    const start = performance.now();
    const outcomes = await Promise.all(
      Array.from({ length: clients }, async () => {
        const begun = performance.now();
        const refusal = await smallJob(local);
        return { refusal, took: performance.now() - begun };
      }),
    );
    const seconds = (performance.now() - start) / 1000;
    for (const { refusal } of outcomes)
      if (refusal)
        expect(refusal.answer.refusal?.reason, refusal.message).to.equal("LIMIT_EXCEEDED");
    await checkWell(local);
    const times = (refused: boolean) => {
      const taken = outcomes.filter(({ refusal }) => (refusal !== undefined) === refused);
      const all = taken.map(({ took }) => took);
      return { count: all.length, p50: quantile(all, 0.5) ?? 0, p99: quantile(all, 0.99) ?? 0 };
    };
    const [{ count: served, ...servedTimes }, { count: refused, ...refusedTimes }] = [
      times(false),
      times(true),
    ];
    expect(served).to.be.above(0);
    return { clients, served, refused, servedTimes, refusedTimes, seconds };
  });
}

export interface Unclosed {
  asked: number;
  opened: number;
  /** What the next one was told. */
  said: string;
  /** How long until there was room again, where that was waited for. */
  roomAfter: number | undefined;
  leaseSeconds: number;
}

/**
 * Sessions are asked for and never closed.
 *
 * @param wait until their lease ends
 * @throws when more are given than the worker says that it gives, or none again after the lease
 */
export async function measureUnclosed(asked: number, wait: boolean): Promise<Unclosed> {
  return withWorker(async (local) => {
    const caller = new Caller(local.address, local.token);
    try {
      const { limits } = await caller.call(WorkerServiceService.describe, {});
      let opened = 0;
      let leaseSeconds = 0;
      let said = "";
      for (let i = 0; i < asked; i++)
        try {
          leaseSeconds = (await openSession(caller)).leaseSeconds;
          opened++;
        } catch (error) {
          const refusal = error instanceof Refused ? error.answer.refusal : undefined;
          if (refusal?.reason !== "LIMIT_EXCEEDED") throw error;
          said = `${refusal.message}; ${refusal.remedy}`;
        }
      expect(opened).to.equal(limits?.maxSessions);
      let roomAfter: number | undefined;
      if (wait) {
        const begun = performance.now();
        for (;;) {
          const room = await openSession(caller).then(
            () => true,
            () => false,
          );
          roomAfter = (performance.now() - begun) / 1000;
          if (room) break;
          expect(roomAfter).to.be.below(leaseSeconds + LATE_SECONDS, "a session was closed");
          await sleep(1_000);
        }
      }
      return { asked, opened, said, roomAfter, leaseSeconds };
    } finally {
      caller.close();
    }
  });
}

function openSession(caller: Caller) {
  const request = { label: "soak", device: "cpu", protocolVersion: PROTOCOL_VERSION };
  return caller.call(WorkerServiceService.openSession, request);
}

/**
 * Connect, open a session, make some plates by a job, close it. @returns how that was refused, if
 * it was
 */
export async function smallJob({ address, token }: LocalProcess): Promise<Refused | undefined> {
  const caller = new Caller(address, token);
  try {
    const { sessionId } = await openSession(caller);
    try {
      const { kind, params, seed } = PLATES;
      const dataset = { source: { kind, params }, seed, tensors: {} };
      const spec = { $case: "dataset" as const, dataset };
      const made = await caller.call(ObjectServiceService.createObject, {
        sessionId,
        spec,
        requestId: "",
      });
      const handle = made.object?.handle ?? "";
      const request = { sessionId, handle, untilEpoch: undefined, snapshotEvery: 0, requestId: "" };
      const { job } = await caller.call(JobServiceService.startJob, request);
      const { path, requestSerialize } = JobServiceService.watchJob;
      const watched = requestSerialize({ sessionId, jobId: job?.jobId ?? "", afterSequence: 0 });
      const end = await caller.send(path, watched, { streams: true });
      if (end.refusal !== undefined) throw new Refused(end);
      const { event } = JobServiceService.watchJob.responseDeserialize(
        end.message ?? Buffer.alloc(0),
      );
      const state =
        event?.event?.$case === "stateChanged" ? event.event.stateChanged.state : undefined;
      expect(state).to.equal(JobState.JOB_STATE_SUCCEEDED);
    } finally {
      await caller.call(WorkerServiceService.closeSession, { sessionId });
    }
  } catch (error) {
    if (error instanceof Refused) return error;
    throw error;
  } finally {
    caller.close();
  }
  return undefined;
}
