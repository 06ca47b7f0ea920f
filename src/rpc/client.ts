/**
 * Calls to a worker: promises with a deadline and an AbortSignal over the generated service
 * definitions, and a watch of a job that survives lost connections.
 */
import { isIP } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { checkServerIdentity, type SecureContext } from "node:tls";
import {
  Client,
  type ClientReadableStream,
  connectivityState,
  credentials,
  Metadata,
} from "@grpc/grpc-js";
import { WorkerUnavailable } from "../errors.js";
import {
  type JobEvent,
  JobServiceService,
  JobState,
  type WatchJobRequest,
  type WatchJobResponse,
} from "../gen/atlas/v1/job.js";
import { explainRpc, isConnectionLoss } from "./errors.js";

/** Bytes of the largest message. Larger tensors go over the tensor plane. */
const MAX_MESSAGE_BYTES = 64 * 2 ** 20;

/** A method of a generated service definition. */
export interface Method<Request, Response> {
  path: string;
  requestSerialize(value: Request): Buffer;
  responseDeserialize(bytes: Buffer): Response;
}

/** Options of a call. */
export interface CallOptions {
  /** Milliseconds until the call is given up (default 60 000). */
  timeoutMs?: number;
  /** When aborted, the call is given up and rejects with the signal's reason. */
  signal?: AbortSignal;
  /**
   * Whether the call may be made twice. It is then repeated for a while if the connection is lost.
   */
  idempotent?: boolean;
}

/** Credentials: what a client shows to a worker, and what the worker must show. */
export interface Access {
  /** TLS with these trusted authorities and, if the worker asks, this client certificate. */
  tls?: SecureContext;
  /** Token that is sent with every call. */
  token?: string;
}

/** Options of {@link Rpc}. */
export interface RpcOptions extends Access {
  /** Aborted when the worker is known to be gone. Every call then rejects with its reason. */
  gone?: AbortSignal;
  /** Looks at an error once more, to find the cause of a lost connection. */
  explain?: (error: unknown) => Promise<unknown>;
  /** Milliseconds for which a lost connection is tried again (default 60 000). */
  patienceMs?: number;
  /** Milliseconds after which an unfinished connection attempt is begun anew (default 20 000). */
  connectMs?: number;
}

/** A gRPC client of a worker. */
export class Rpc {
  private client: Client;
  private readonly newClient: () => Client;
  private readonly gone: AbortSignal | undefined;
  private readonly patienceMs: number;
  private readonly metadata = new Metadata();

  /** @param address host:port; the first call makes the connection */
  constructor(
    readonly address: string,
    private readonly options: RpcOptions = {},
  ) {
    this.gone = options.gone;
    this.patienceMs = options.patienceMs ?? 60_000;
    const { tls, token } = options;
    if (token !== undefined) this.metadata.set("authorization", `Bearer ${token}`);
    const host = address.slice(0, address.lastIndexOf(":")).replace(/^\[(.*)\]$/, "$1");
    const channel = tls
      ? credentials.createFromSecureContext(tls, {
          checkServerIdentity: (_, cert) => checkServerIdentity(host, cert),
        })
      : credentials.createInsecure();
    const settings = {
      // A server's name may not be an address (RFC 6066). The certificate is checked for the
      // address.
      ...(isIP(host) ? { "grpc.ssl_target_name_override": "localhost" } : {}),
      "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
      "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
      "grpc.initial_reconnect_backoff_ms": 200,
      "grpc.max_reconnect_backoff_ms": 3_000,
      // A new client would otherwise share the connection that the replaced client waits for.
      "grpc.use_local_subchannel_pool": 1,
      ...(isLoopback(address)
        ? { "grpc.enable_http_proxy": 0 }
        : // A watch may be silent for a whole epoch. Without pings, a vanished peer goes unnoticed.
          { "grpc.keepalive_time_ms": 30_000, "grpc.keepalive_timeout_ms": 20_000 }),
    };
    this.newClient = () => new Client(address, channel, settings);
    this.client = this.newClient();
  }

  /** Whether the client uses TLS. */
  get secure(): boolean {
    return this.options.tls !== undefined;
  }

  /**
   * Make a call.
   *
   * @throws RpcError, RpcUsageError if the worker refuses the call
   * @throws WorkerUnavailable if the worker cannot be reached or does not answer in time
   */
  async call<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    { timeoutMs = 60_000, signal, idempotent = false }: CallOptions = {},
  ): Promise<Response> {
    const retry = new Retry(idempotent ? this.patienceMs : 0);
    for (;;)
      try {
        return await this.attempt(method, request, timeoutMs, signal);
      } catch (error) {
        if (isConnectionLoss(error) && (await retry.again([signal, this.gone]))) continue;
        throw await this.explained(error, nameOf(method), signal, timeoutMs);
      }
  }

  /** Ask the standard health service whether the worker serves. @throws as {@link call} does */
  async isHealthy(options?: CallOptions): Promise<boolean> {
    const check: Method<void, Buffer> = {
      path: "/grpc.health.v1.Health/Check",
      requestSerialize: () => Buffer.alloc(0), // asks about the server as a whole
      responseDeserialize: (bytes) => bytes,
    };
    const serving = Buffer.from([0x08, 0x01]);
    return (await this.call(check, undefined, options)).equals(serving);
  }

  /**
   * Watch the events of a job after `afterSequence`, each once and in order, up to its final state.
   * If the connection is lost, it is made anew, and the watch continues after the last event.
   *
   * @throws WorkerUnavailable if the worker cannot be reached again for a while
   */
  async *watchJob(
    {
      sessionId,
      jobId,
      afterSequence = 0,
    }: { sessionId: string; jobId: string; afterSequence?: number },
    signal?: AbortSignal,
  ): AsyncGenerator<JobEvent, void> {
    let last = afterSequence;
    let retry = new Retry(this.patienceMs);
    for (;;) {
      let error: unknown;
      try {
        for await (const event of this.watchOnce(
          { sessionId, jobId, afterSequence: last },
          signal,
        )) {
          if (event.sequence <= last) continue;
          last = event.sequence;
          retry = new Retry(this.patienceMs);
          yield event;
          if (event.event?.$case === "stateChanged" && isFinal(event.event.stateChanged.state))
            return;
        }
        error = new WorkerUnavailable(
          `the worker at ${this.address} ended the watch of a job that is still running`,
          "check for a proxy on the way, which may limit the length of a stream",
        );
      } catch (thrown) {
        if (!isConnectionLoss(thrown)) throw await this.explained(thrown, "WatchJob", signal);
        error = thrown;
      }
      if (!(await retry.again([signal, this.gone])))
        throw await this.explained(error, "WatchJob", signal);
    }
  }

  /** Close the connection. */
  close(): void {
    this.client.close();
  }

  private attempt<Request, Response>(
    { path, requestSerialize, responseDeserialize }: Method<Request, Response>,
    request: Request,
    timeoutMs: number,
    signal: AbortSignal | undefined,
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      const deadline = Date.now() + timeoutMs;
      const call = this.client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        this.metadata.clone(),
        { deadline },
        (error, response) => {
          dispose();
          if (error) reject(error);
          else resolve(response as Response);
        },
      );
      const disposers = [onAbort([signal, this.gone], () => call.cancel()), this.connectInTime()];
      const dispose = () => {
        for (const d of disposers) d();
      };
    });
  }

  private async *watchOnce(
    request: WatchJobRequest,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<JobEvent> {
    const { path, requestSerialize, responseDeserialize } = JobServiceService.watchJob;
    const stream: ClientReadableStream<WatchJobResponse> = this.client.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      this.metadata.clone(),
    );
    // The iteration reports errors; those after a cancel do not matter
    stream.on("error", () => {});
    const dispose = onAbort([signal, this.gone], () => stream.cancel());
    const connected = this.connectInTime();
    try {
      for await (const { event } of stream as AsyncIterable<WatchJobResponse>)
        if (event) yield event;
    } finally {
      dispose();
      connected();
      stream.cancel();
    }
  }

  /**
   * Replace the client if it is still connecting after a while; the call then fails as if its
   * connection were lost. Otherwise grpc-js waits as long as the system does: minutes, or for ever
   * if a tunnel accepts the connection and its other end is cut.
   *
   * @returns stops watching
   */
  private connectInTime(): () => void {
    const { client } = this;
    const timer = setTimeout(() => {
      const state = client.getChannel().getConnectivityState(false);
      if (client !== this.client || state !== connectivityState.CONNECTING) return;
      this.client = this.newClient();
      client.close();
    }, this.options.connectMs ?? 20_000);
    return () => clearTimeout(timer);
  }

  private async explained(
    error: unknown,
    method: string,
    signal: AbortSignal | undefined,
    timeoutMs?: number,
  ): Promise<unknown> {
    if (this.gone?.aborted) return this.gone.reason;
    if (signal?.aborted) return signal.reason;
    const explained = explainRpc(error, this, method, timeoutMs);
    return this.options.explain?.(explained) ?? explained;
  }
}

/** Retries with growing pauses, for a limited time from the first failure. */
class Retry {
  private since: number | undefined;
  private delay = 100;

  constructor(private readonly patienceMs: number) {}

  /** Wait before the next try. @returns false if it is time to give up, or a signal is aborted */
  async again(signals: readonly (AbortSignal | undefined)[]): Promise<boolean> {
    this.since ??= performance.now(); // unlike Date.now(), not changed by setting the clock
    if (performance.now() + this.delay - this.since > this.patienceMs) return false;
    const waiting = new AbortController();
    const dispose = onAbort(signals, () => waiting.abort());
    const waited = await sleep(this.delay, true, { signal: waiting.signal }).catch(() => false);
    dispose();
    this.delay = Math.min(2 * this.delay, 3_000);
    return waited;
  }
}

/** Call a function once when any of the signals is aborted, or at once. @returns stops listening */
export function onAbort(
  signals: readonly (AbortSignal | undefined)[],
  listener: () => void,
): () => void {
  // AbortSignal.any would hold on to memory for as long as a long-lived signal lives.
  for (const signal of signals)
    if (signal?.aborted) listener();
    else signal?.addEventListener("abort", listener, { once: true });
  return () => {
    for (const signal of signals) signal?.removeEventListener("abort", listener);
  };
}

/** Whether a job in this state has ended. */
export function isFinal(state: JobState): boolean {
  return [
    JobState.JOB_STATE_SUCCEEDED,
    JobState.JOB_STATE_FAILED,
    JobState.JOB_STATE_CANCELLED,
  ].includes(state);
}

function nameOf({ path }: { path: string }): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** Whether "host:port" is an address of this machine. */
export function isLoopback(address: string): boolean {
  return /^(localhost|127\.\d+\.\d+\.\d+|\[::1\]):/.test(address);
}
