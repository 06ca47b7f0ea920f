/** Jobs of a session: advance an object epoch by epoch. */
import { randomUUID } from "node:crypto";
import { RpcError, WorkerUnavailable } from "../../errors.js";
import { type EpochFinished, JobServiceService, JobState } from "../../gen/atlas/v1/job.js";
import type { StepMetrics } from "../../gen/atlas/v1/tensor.js";
import { errorFromStatus } from "../../rpc/index.js";
import { type Link, malformed } from "./link.js";
import { type RemoteObject, snapshotObject } from "./objects.js";

/** Options of `Session.advance`. */
export interface AdvanceOptions {
  /** Number of finished epochs at which to stop (default: the object's own). */
  untilEpoch?: number;
  /** Give a snapshot with every n-th epoch and with the last; 0 (default): give none. */
  snapshotEvery?: number;
  /** When aborted, the job is cancelled, and `advance` rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Identifies the job: calls with the same id, also of different processes, are for one job. */
  requestId?: string;
  /**
   * Jobs whose events are known from before the session was attached to, with the last known
   * sequence number. `onEpoch` is not called for these events again.
   */
  known?: ReadonlyMap<string, number>;
  /** Called for steps within an epoch as they happen. Some may be missed. */
  onStep?: (step: Step) => void;
  /** Called for every epoch, in order. The next epoch waits until the call is done. */
  onEpoch?: (epoch: Epoch) => void | Promise<void>;
  /**
   * Called with a line when a process that shares the training has ended. The training goes on from
   * the last finished epoch, with new processes.
   */
  onReplaced?: (message: string) => void;
}

/** A step within an epoch. `epoch` counts from 1 and is not finished yet. */
export type Step = Omit<StepMetrics, "jobId">;

/** A finished epoch of a job. */
export interface Epoch {
  /** Number of finished epochs, this one included. */
  epoch: number;
  totalEpochs: number;
  metrics: Record<string, number>;
  seconds: number;
  job: {
    /** Id of the job, as in the worker's log. */
    id: string;
    /** Sequence number of the event that reported this epoch. */
    sequence: number;
  };
  /** The object after this epoch; undefined if not asked for, or replaced by a newer snapshot. */
  snapshot?: Uint8Array;
}

/** Advance an object by a job, as `Session.advance` does. */
export async function advance(
  link: Link,
  object: RemoteObject,
  options: AdvanceOptions,
): Promise<void> {
  const { untilEpoch, snapshotEvery = 0, signal = link.parts.signal, onStep, onEpoch } = options;
  const { requestId = randomUUID(), known } = options;
  const { rpc, feed } = link.parts;
  const sessionId = link.id;
  const request = { sessionId, handle: object.handle, untilEpoch, snapshotEvery, requestId };
  signal?.throwIfAborted();
  const { job } = await link.call(JobServiceService.startJob, request, {
    signal,
    idempotent: true,
  });
  if (!job) throw malformed("a job");
  const { jobId } = job;
  const unsubscribe = onStep && feed.subscribe(jobId, onStep);
  let running = true;
  try {
    const watch = { sessionId, jobId, afterSequence: known?.get(jobId) ?? 0 };
    for await (const { event, sequence } of rpc.watchJob(watch, signal)) {
      if (event?.$case === "epochFinished") {
        const { epoch, totalEpochs, metrics, seconds } = event.epochFinished;
        const last = epoch === (untilEpoch ?? object.totalEpochs);
        const snapshot =
          snapshotEvery > 0
            ? await epochSnapshot(link, object, event.epochFinished, last, signal)
            : undefined;
        const job = { id: jobId, sequence };
        await onEpoch?.({ epoch, totalEpochs, metrics, seconds, job, snapshot });
        signal?.throwIfAborted();
      } else if (event?.$case === "rankReplaced") {
        const { message, epoch } = event.rankReplaced;
        options.onReplaced?.(`${message}; the training goes on from epoch ${epoch}`);
      } else if (event?.$case === "stateChanged") {
        const { state, error } = event.stateChanged;
        running = [JobState.JOB_STATE_QUEUED, JobState.JOB_STATE_RUNNING].includes(state);
        if (state === JobState.JOB_STATE_FAILED)
          throw error ? errorFromStatus(error) : malformed("a failure");
        if (state === JobState.JOB_STATE_CANCELLED) {
          signal?.throwIfAborted();
          throw new RpcError(`job ${jobId} was cancelled from elsewhere`, "CANCELLED");
        }
      }
    }
  } catch (error) {
    // A job on a worker that cannot be reached continues, so that a client can attach to it.
    if (running && !(error instanceof WorkerUnavailable)) await cancel(link, jobId);
    throw error;
  } finally {
    unsubscribe?.();
  }
}

/** Fetch the snapshot of an epoch. If the last epoch's is gone, ask for a new one. */
async function epochSnapshot(
  link: Link,
  object: RemoteObject,
  { epoch, snapshot }: EpochFinished,
  last: boolean,
  signal: AbortSignal | undefined,
): Promise<Uint8Array | undefined> {
  try {
    if (snapshot) return (await link.fetch(snapshot, signal)).bytes;
  } catch (error) {
    // Go on if a newer snapshot replaced it, but not if the session itself is gone.
    if (
      !(error instanceof RpcError && error.reason === "NOT_FOUND") ||
      error.field === "session_id"
    )
      throw error;
  }
  if (!last) return undefined;
  const now = await snapshotObject(link, object, signal);
  return now.epoch === epoch ? now.bytes : undefined;
}

/**
 * Cancel a job. If this fails, the worker is gone, or the session ends soon and the job with it.
 */
async function cancel(link: Link, jobId: string): Promise<void> {
  await link.parts.rpc
    .call(JobServiceService.cancelJob, { sessionId: link.id, jobId }, { timeoutMs: 5_000 })
    .catch(() => undefined);
}
