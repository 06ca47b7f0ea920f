/** A connection to a worker. */
import { WorkerUnavailable } from "../errors.js";
import {
  type DescribeResponse,
  ProtocolVersion,
  WorkerServiceService,
} from "../gen/atlas/v1/worker.js";
import { type Access, type Address, Rpc, type RpcOptions } from "../rpc/index.js";
import { MetricsFeed } from "../tensor/metrics.js";
import { TensorPlane } from "../tensor/plane.js";
import type { LocalProcess } from "./local.js";
import { reachableEndpoint } from "./remote.js";
import { Session } from "./session/index.js";

/** Version of the protocol that this client speaks. A worker must speak the same. */
export const PROTOCOL_VERSION: number = ProtocolVersion.PROTOCOL_VERSION_CURRENT;

/** Versions, devices, limits and blocks of a worker. Holds no secret. */
export type WorkerInfo = DescribeResponse;

/** A connection to a worker. Make one with `connectWorker`. */
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
   * Connect to a worker. Use `connectWorker` instead.
   *
   * @param target a running worker, or the process of a local one, which is ended if this fails
   * @throws WorkerUnavailable if it does not answer or speaks another version of the protocol
   * @throws WorkerDied if the local process ends
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
      const {
        tensors = "",
        metrics = "",
        curve,
        maxFrameBytes = 0,
        acceptsParts = false,
        acceptsFiles = false,
      } = dataPlane ?? {};
      if (tensors === "" || metrics === "")
        throw new WorkerUnavailable(
          `the worker at ${address} has no data plane`,
          "use a worker of this version",
        );
      if (options.tls && !curve)
        throw new WorkerUnavailable(
          `the worker at ${address} would send tensors unencrypted, because it does not use ` +
            "TLS itself",
          "give the certificate to the worker, not to a proxy",
        );
      const info = {
        ...described,
        dataPlane: {
          tensors,
          metrics,
          curve: undefined,
          maxFrameBytes,
          acceptsParts,
          acceptsFiles,
        },
      };
      const plane = new TensorPlane(
        process?.planes?.tensors ?? reachableEndpoint(tensors, address),
        process?.gone,
        {
          curve,
          maxFrameBytes,
          acceptsParts,
          acceptsFiles,
        },
      );
      const feed = new MetricsFeed(
        process?.planes?.metrics ?? reachableEndpoint(metrics, address),
        curve,
      );
      return new Worker(rpc, info, plane, feed, process, signal);
    } catch (error) {
      rpc.close();
      if (!process?.shared) await process?.close();
      throw error;
    }
  }

  /** Address of the worker, with the scheme: "grpc://host:port" or "grpcs://host:port". */
  get address(): string {
    return `${this.rpc.secure ? "grpcs" : "grpc"}://${this.rpc.address}`;
  }

  /**
   * Open a session.
   *
   * @throws RpcUsageError if the worker has no such device, or no room for so many ranks
   * @throws RpcError (LIMIT_EXCEEDED) if there are too many sessions
   */
  async openSession({
    label = "",
    device = "auto",
    ranks = 1,
  }: {
    /** Name of the session in the worker's log, for example a run's id. */
    label?: string;
    /** "auto" (default: the first CUDA device, else cpu), "cpu", "cuda", "cuda:1". */
    device?: string;
    /**
     * Processes that share each supervised training (default 1). On a CPU they share the worker's
     * threads, on CUDA each has a GPU.
     */
    ranks?: number;
  } = {}): Promise<Session> {
    const { signal } = this;
    const request = { label, device, ranks, protocolVersion: PROTOCOL_VERSION };
    const { sessionId, ...opened } = await this.rpc.call(
      WorkerServiceService.openSession,
      request,
      {
        signal,
      },
    );
    const session = this.session(sessionId, opened);
    if (session.ranks === ranks) return session;
    await session.close().catch(() => undefined);
    throw new WorkerUnavailable(
      `the worker at ${this.address} cannot train with ${ranks} ranks`,
      "update the worker, or train with one rank",
    );
  }

  /**
   * Attach to a session that another process has opened and not closed. Creating the same objects
   * in the same order as that process gives the objects that exist already.
   *
   * @throws RpcError (NOT_FOUND) if the session is closed, its lease has ended, or the worker was
   *   restarted
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

  /** Whether the worker and its sessions outlive this process. */
  get isPersistent(): boolean {
    return this.process === undefined;
  }

  /** Close the sessions and the connection. A local worker is ended too. */
  async close({
    leave = false,
  }: {
    /** Leave the sessions open for as long as they are leased. */
    leave?: boolean;
  } = {}): Promise<void> {
    const sessions = [...this.sessions];
    const { shared = false } = this.process ?? {};
    // A local worker's sessions end with it.
    if (leave || (this.process && !shared)) for (const session of sessions) session.leave();
    else await Promise.all(sessions.map((s) => s.close().catch(() => undefined)));
    this.plane.close();
    this.feed.close();
    this.rpc.close();
    if (!shared) await this.process?.close();
  }

  private session(
    id: string,
    { device, leaseSeconds, ranks }: { device: string; leaseSeconds: number; ranks: number },
  ): Session {
    const { rpc, plane, feed, signal, info } = this;
    const { maxInlineBytes = 0, maxTensorBytes = 0 } = info.limits ?? {};
    const limits = { maxInlineBytes, maxTensorBytes };
    const parts = { rpc, plane, feed, limits, leaseSeconds, signal };
    const session = new Session(id, device, parts, Math.max(1, ranks));
    this.sessions.add(session);
    return session;
  }
}

/**
 * Check that a worker speaks this client's version of the protocol.
 *
 * @throws WorkerUnavailable if it does not
 */
export function checkProtocol(version: number, address: string, release = ""): void {
  if (version === PROTOCOL_VERSION) return;
  const name = `the worker at ${address}${release === "" ? "" : ` (${release})`}`;
  throw new WorkerUnavailable(
    `${name} speaks protocol version ${version}, and this atlas speaks version ${PROTOCOL_VERSION}`,
    `update ${version < PROTOCOL_VERSION ? "the worker" : "this package"}`,
  );
}
