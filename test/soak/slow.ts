/** Clients that are slow: a run whose process stands still, and watchers that never read. */
import { setTimeout as sleep } from "node:timers/promises";
import { Client, type ClientReadableStream, credentials, Metadata } from "@grpc/grpc-js";
import { expect } from "chai";
import { Subscriber } from "zeromq";
import { JobServiceService, type WatchJobResponse } from "../../src/gen/atlas/v1/job.js";
import { connectWorker, Worker } from "../../src/worker/index.js";
import { residentMiB } from "../bench/load.js";
import { quantile } from "../bench/statistics.js";
import { n } from "../benchmark-parts.js";
import { epochs, logged } from "../e2e/atlas.js";
import { smallJob } from "./crowd.js";
import type { Trials } from "./faults.js";
import { type Background, did, type Ground, LONG_RUN, repeated, said } from "./runs.js";
import { PLATES, withWorker } from "./worker.js";

const STILL_SECONDS = 30;
const WATCHERS = 16;
/** Events of so many epochs are several times what gRPC takes from a worker before it is read. */
const EPOCHS = 3_000;
/** Being told to the watchers too, a job may take so many times as long. */
const SLOWER = 4;
/** MiB that the worker's memory may grow by for each watcher, beyond what it grows by without. */
const GROWTH_EACH = 2;

export function measureSlow(ground: Ground): Trials {
  return {
    [`orchestrator stopped for ${STILL_SECONDS} s (SIGSTOP), worker of one's own`]: async () => {
      const worker = await ground.startWorker();
      const args = [...LONG_RUN, "--worker", worker.address];
      const wanted = await ground.undisturbed(args);
      const alone = jobSeconds(worker, 0);
      const { process, run } = await ground.begin(args, did("predictor 5"));
      process.kill("SIGSTOP");
      const known = epochs(run).length;
      await sleep(1000 * STILL_SECONDS);
      expect(epochs(run).length, "epochs logged meanwhile").to.equal(known);
      const reached = await epochThere(worker, run);
      process.kill("SIGCONT");
      const since = performance.now();
      const { code, stderr } = await process.done;
      const caughtUp = (performance.now() - since) / 1000;
      expect(code, stderr.trimEnd().split("\n").at(-1)).to.equal(0);
      expect(reached).to.be.above(known);
      expect(epochs(run)).to.deep.equal(epochs(wanted));
      expect(repeated(run, wanted)).to.equal(0);
      const beside = jobSeconds(worker, 1);
      expect(beside - alone, "seconds that training waited").to.be.below(STILL_SECONDS / 2);
      return {
        backAfter: caughtUp,
        lost:
          `nothing: the worker was at epoch ${reached} when it went on, ` +
          `after ${n(beside)} s in place of ${n(alone)} s`,
      };
    },

    [`${WATCHERS} watchers of a job that never read`]: () =>
      withWorker(async (local) => {
        const worker = await Worker.connect(
          { address: local.address, secure: false },
          { token: local.token },
        );
        try {
          const session = await worker.openSession({ device: "cpu" });
          const work = async (beside: (jobId: string) => Promise<void>) => {
            const object = await smallPredictor(session);
            const [before, begun] = [residentMiB(local.pid), performance.now()];
            let other: Promise<void> | undefined;
            let told = 0;
            await session.advance(object, {
              onEpoch: ({ job, epoch }) => {
                expect(epoch).to.equal(++told);
                other ??= beside(job.id);
              },
            });
            const seconds = (performance.now() - begun) / 1000;
            const grown = residentMiB(local.pid) - before;
            await other;
            expect(told).to.equal(EPOCHS);
            return { seconds, grown };
          };
          const served: number[] = [];
          const others = async () => {
            for (let i = 0; i < 10; i++) {
              const begun = performance.now();
              expect(await smallJob(local), "another client's job").to.equal(undefined);
              served.push(performance.now() - begun);
            }
          };
          await work(others); // the first has memory to take that the others find there
          served.length = 0;
          const alone = await work(others);
          const without = quantile(served.splice(0), 0.5);
          const metrics = worker.info.dataPlane!.metrics;
          const watchers: Unread[] = [];
          const deaf: Subscriber[] = [];
          try {
            const beside = await work(async (jobId) => {
              for (let i = 0; i < WATCHERS; i++) {
                watchers.push(new Unread(local, session.id, jobId));
                deaf.push(unreadMetrics(metrics));
              }
              await others();
            });
            for (const sequences of await Promise.all(watchers.map((watcher) => watcher.read())))
              expect(sequences)
                .to.deep.equal(sequences.map((_, i) => i + 1))
                .and.have.length.above(EPOCHS);
            const toldMs = (1000 * (beside.seconds - alone.seconds)) / EPOCHS;
            expect(beside.seconds).to.be.below(SLOWER * alone.seconds);
            expect(beside.grown - alone.grown).to.be.below(GROWTH_EACH * WATCHERS);
            return {
              lost:
                `nothing: all ${n(EPOCHS)} epochs told to who reads, ` +
                `and to the others once they do, at ${n(toldMs)} ms more an epoch; ` +
                `the worker's memory grew by ${n(beside.grown)} MiB ` +
                `(without them by ${n(alone.grown)}); ` +
                `small jobs of others took ${n(quantile(served, 0.5))} ms (without ${n(without)})`,
            };
          } finally {
            for (const socket of [...watchers, ...deaf]) socket.close();
          }
        } finally {
          await worker.close();
        }
      }),
  };
}

type Session = Awaited<ReturnType<Worker["openSession"]>>;

/** A predictor whose epochs take milliseconds. */
async function smallPredictor(session: Session) {
  const dataset = await session.createDataset(PLATES);
  await session.advance(dataset);
  const charts = [{ row: 16, col: 16 }];
  const atlas = await session.createAtlas({
    kind: "planar",
    params: { charts, r_in: 5, r_out: 3 },
  });
  const architecture = { kind: "strided_cnn" } as const;
  const training = { kind: "supervised", params: { learning_rate: 1e-3 } } as const;
  return session.createPredictor({
    architecture,
    training,
    dataset,
    atlas,
    epochs: EPOCHS,
    seed: 0,
  });
}

/** A watch of a job that is not read. */
class Unread {
  private readonly client: Client;
  private readonly stream: ClientReadableStream<WatchJobResponse>;

  constructor(
    { address, token }: { address: string; token: string },
    sessionId: string,
    jobId: string,
  ) {
    this.client = new Client(address, credentials.createInsecure(), {
      "grpc.use_local_subchannel_pool": 1,
    });
    const metadata = new Metadata();
    metadata.set("authorization", `Bearer ${token}`);
    const { path, requestSerialize, responseDeserialize } = JobServiceService.watchJob;
    const request = { sessionId, jobId, afterSequence: 0 };
    this.stream = this.client.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      metadata,
    );
    this.stream.on("error", () => {}); // reading it reports it
  }

  /** Read it after all. @returns the numbers of the events, to the end of the job */
  async read(): Promise<number[]> {
    const sequences: number[] = [];
    for await (const { event } of this.stream as AsyncIterable<WatchJobResponse>)
      sequences.push(event!.sequence);
    return sequences;
  }

  close(): void {
    this.stream.cancel();
    this.client.close();
  }
}

/** A subscription to all live metrics that is not read. */
function unreadMetrics(endpoint: string): Subscriber {
  const socket = new Subscriber({ linger: 0, receiveHighWaterMark: 1 });
  socket.connect(endpoint);
  socket.subscribe();
  return socket;
}

/** Where the predictor of a run stands on its worker. */
async function epochThere(worker: Background, run: string): Promise<number> {
  const { session } = logged(run, "worker").at(-1) as { session: string };
  const connected = await connectWorker({ worker: worker.address });
  try {
    const objects = await (await connected.attachSession(session)).list();
    return objects.find(({ type }) => type === "predictor")?.epoch ?? 0;
  } finally {
    await connected.close({ leave: true });
  }
}

/** How long a worker's n-th predictor took to train, from its log. */
function jobSeconds(worker: Background, index: number): number {
  const [begun, ended] = ["running", "succeeded"].map(
    (state) => said(worker, new RegExp(`^${state}: predictor-`))[index],
  );
  return ((ended?.time ?? Number.NaN) - (begun?.time ?? Number.NaN)) / 1000;
}
