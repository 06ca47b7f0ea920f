/** A worker that is connected to. */
import { WorkerUnavailable } from "../errors.js";
import { type DescribeResponse, WorkerServiceService } from "../gen/atlas/v1/worker.js";
import { type Access, type Address, Rpc, type RpcOptions } from "../rpc/index.js";
import { MetricsFeed } from "../tensor/metrics.js";
import { TensorPlane } from "../tensor/plane.js";
import type { LocalProcess } from "./local.js";
import { reachableEndpoint } from "./remote.js";
import { Session } from "./session.js";

/** The protocol version that this client speaks; a worker must speak the same. */
export const PROTOCOL_VERSION = 2;

/** What a worker is and can do: versions, devices, limits, registered building blocks. Holds no secret. */
export type WorkerInfo = DescribeResponse;

export class Worker {
  private readonly sessions = new Set<Session>();

  private constructor(
    private readonly rpc: Rpc,
    readonly info: WorkerInfo,
    private readonly plane: TensorPlane,
    private readonly feed: MetricsFeed,
    private readonly process: LocalProcess | undefined,
    private readonly signal: AbortSignal | undefined,
  ) {}

  /**
   * Use `connectWorker`.
   *
   * @param target a running worker, or the process of a local one, which is ended when this fails
   * @throws WorkerUnavailable when it does not answer or speaks another protocol version; WorkerDied
   */
  static async connect(
    target: Address | LocalProcess,
    { signal, ...options }: Access & { signal?: AbortSignal; patienceMs?: number } = {},
  ): Promise<Worker> {
    const process = "pid" in target ? target : undefined;
    const { address } = target;
    const token = process?.token ?? options.token;
    const known: RpcOptions = { ...options, token, gone: process?.gone, explain: process?.explain };
    const rpc = new Rpc(address, known);
    try {
      const { dataPlane, ...described } = await rpc.call(
        WorkerServiceService.describe,
        {},
        { timeoutMs: 20_000, signal },
      );
      checkProtocol(described.protocolVersion, address, described.workerVersion);
      if (!(await rpc.isHealthy({ timeoutMs: 20_000, signal })))
        throw new WorkerUnavailable(
          `the worker at ${address} is not serving`,
          "wait until it has started, or restart it",
        );
      const { tensors = "", metrics = "", curve, maxFrameBytes = 0 } = dataPlane ?? {};
      if (tensors === "" || metrics === "")
        throw new WorkerUnavailable(
          `the worker at ${address} has no data plane`,
          "use a worker of this version",
        );
      if (options.tls && !curve)
        throw new WorkerUnavailable(
          `the worker at ${address} would send tensors unencrypted: it does not use TLS itself`,
          "give it its certificate, in place of a proxy's",
        );
      const info = { ...described, dataPlane: { tensors, metrics, curve: undefined, maxFrameBytes } };
      const plane = new TensorPlane(reachableEndpoint(tensors, address), process?.gone, {
        curve,
        maxFrameBytes,
      });
      const feed = new MetricsFeed(reachableEndpoint(metrics, address), curve);
      return new Worker(rpc, info, plane, feed, process, signal);
    } catch (error) {
      rpc.close();
      await process?.close();
      throw error;
    }
  }

  /** As `--worker` takes it. */
  get address(): string {
    return `${this.rpc.secure ? "grpcs" : "grpc"}://${this.rpc.address}`;
  }

  /**
   * Open a session.
   *
   * @param label shown in the worker's log, e.g. the run's id
   * @param device "auto" (the first CUDA device, else cpu), "cpu", "cuda", "cuda:1"
   * @throws RpcUsageError when there is no such device; RpcError ("limit_exceeded") when there are too many sessions
   */
  async openSession({
    label = "",
    device = "auto",
  }: {
    label?: string;
    device?: string;
  } = {}): Promise<Session> {
    const { signal } = this;
    const request = { label, device, protocolVersion: PROTOCOL_VERSION };
    const { sessionId, ...opened } = await this.rpc.call(WorkerServiceService.openSession, request, {
      signal,
    });
    return this.session(sessionId, opened);
  }

  /**
   * Take up a session that another process has opened and not closed. Whoever makes the same objects in the same order as that process did gets
   * those that there are.
   *
   * @throws RpcError ("not_found") when it is closed, its lease has ended, or the worker was restarted
   */
  async attachSession(sessionId: string): Promise<Session> {
    const { signal } = this;
    const renewed = await this.rpc.call(
      WorkerServiceService.renewLease,
      { sessionId },
      { signal, idempotent: true },
    );
    return this.session(sessionId, renewed);
  }

  /** Whether it lives on when we end, and its sessions with it. */
  get outlivesUs(): boolean {
    return this.process === undefined;
  }

  /**
   * Close its sessions and the connection; end it too when it is local.
   *
   * @param options.leave leave the sessions open, for as long as they are leased
   */
  async close({ leave = false }: { leave?: boolean } = {}): Promise<void> {
    const sessions = [...this.sessions];
    // A local worker's sessions end with it.
    if (leave || !this.outlivesUs) for (const session of sessions) session.leave();
    else await Promise.all(sessions.map((s) => s.close().catch(() => undefined)));
    this.plane.close();
    this.feed.close();
    this.rpc.close();
    await this.process?.close();
  }

  private session(id: string, { device, leaseSeconds }: { device: string; leaseSeconds: number }): Session {
    const { rpc, plane, feed, signal, info } = this;
    const { maxInlineBytes = 0, maxTensorBytes = 0 } = info.limits ?? {};
    const limits = { maxInlineBytes, maxTensorBytes };
    const session = new Session(id, device, { rpc, plane, feed, limits, leaseSeconds, signal });
    this.sessions.add(session);
    return session;
  }
}

/** @throws WorkerUnavailable when a worker speaks another protocol version than we */
export function checkProtocol(version: number, address: string, release = ""): void {
  if (version === PROTOCOL_VERSION) return;
  const its = `the worker at ${address}${release === "" ? "" : ` (${release})`} speaks protocol version ${version}`;
  throw new WorkerUnavailable(
    `${its}, and this atlas version ${PROTOCOL_VERSION}`,
    `update ${version < PROTOCOL_VERSION ? "the worker" : "this package"}`,
  );
}
