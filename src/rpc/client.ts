/** Calls to a worker: promises with a deadline and an AbortSignal over the generated service definitions, and a watch that survives disconnection. */
import { isIP } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { checkServerIdentity, type SecureContext } from "node:tls";
import { Client, type ClientReadableStream, connectivityState, credentials, Metadata } from "@grpc/grpc-js";
import { WorkerUnavailable } from "../errors.js";
import {
  type JobEvent,
  JobServiceService,
  JobState,
  type WatchJobRequest,
  type WatchJobResponse,
} from "../gen/atlas/v1/job.js";
import { explainRpc, isConnectionLoss } from "./errors.js";

/** Large tensors go over the tensor plane, so a message beyond this is a mistake. */
const MAX_MESSAGE_BYTES = 64 * 2 ** 20;

/** A method of a generated service definition. */
export interface Method<Request, Response> {
  path: string;
  requestSerialize(value: Request): Buffer;
  responseDeserialize(bytes: Buffer): Response;
}

export interface CallOptions {
  /** Milliseconds until the call is given up (default 60 000). */
  timeoutMs?: number;
  /** Gives up when aborted; the call is then rejected with the signal's reason. */
  signal?: AbortSignal;
  /** The call may be made twice: try again for a while when the connection is lost. */
  idempotent?: boolean;
}

/** What we show to a worker, and what it must show to us. */
export interface Access {
  /** Speak TLS, trusting these authorities and, where it asks, showing this certificate. */
  tls?: SecureContext;
  /** Sent with every call. */
  token?: string;
}

export interface RpcOptions extends Access {
  /** Aborted when the worker is known to be gone; every call is then rejected with its reason. */
  gone?: AbortSignal;
  /** A last look at an error, to say what is behind a lost connection. */
  explain?: (error: unknown) => Promise<unknown>;
  /** Milliseconds for which a lost connection is tried again (default 60 000). */
  patienceMs?: number;
  /** Milliseconds until a connection that is not made is begun anew (default 20 000). */
  connectMs?: number;
}

export class Rpc {
  private client: Client;
  private readonly newClient: () => Client;
  private readonly gone: AbortSignal | undefined;
  private readonly patienceMs: number;
  private readonly metadata = new Metadata();

  /** @param address host:port; the connection is made with the first call */
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
      // An address may not be sent as the server's name (RFC 6066). The certificate is checked for the address all the same.
      ...(isIP(host) ? { "grpc.ssl_target_name_override": "localhost" } : {}),
      "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
      "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
      "grpc.initial_reconnect_backoff_ms": 200,
      "grpc.max_reconnect_backoff_ms": 3_000,
      // A client that is made in place of another would share the connection that the other waits for.
      "grpc.use_local_subchannel_pool": 1,
      ...(isLoopback(address)
        ? { "grpc.enable_http_proxy": 0 }
        : // A watch may be silent for as long as an epoch takes; without pings a vanished peer would never be noticed.
          { "grpc.keepalive_time_ms": 30_000, "grpc.keepalive_timeout_ms": 20_000 }),
    };
    this.newClient = () => new Client(address, channel, settings);
    this.client = this.newClient();
  }

  /** Whether it speaks TLS. */
  get secure(): boolean {
    return this.options.tls !== undefined;
  }

  /**
   * One call.
   *
   * @throws RpcError, RpcUsageError as the worker says; WorkerUnavailable when it cannot be reached or does not answer in time
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

  /** Whether the standard health service says that the worker serves. @throws as {@link call} does */
  async isHealthy(options?: CallOptions): Promise<boolean> {
    const check: Method<void, Buffer> = {
      path: "/grpc.health.v1.Health/Check",
      requestSerialize: () => Buffer.alloc(0), // of the server as a whole
      responseDeserialize: (bytes) => bytes,
    };
    return (await this.call(check, undefined, options)).equals(Buffer.from([0x08, 0x01])); // status: SERVING
  }

  /**
   * Every event of a job after `afterSequence`, each once and in order, up to and including the state in which it ends. A lost connection is made
   * anew and the watch goes on after the last event that came.
   *
   * @throws WorkerUnavailable when the worker cannot be reached again for a while
   */
  async *watchJob(
    { sessionId, jobId, afterSequence = 0 }: { sessionId: string; jobId: string; afterSequence?: number },
    signal?: AbortSignal,
  ): AsyncGenerator<JobEvent, void> {
    let last = afterSequence;
    let retry = new Retry(this.patienceMs);
    for (;;) {
      let error: unknown;
      try {
        for await (const event of this.watchOnce({ sessionId, jobId, afterSequence: last }, signal)) {
          if (event.sequence <= last) continue;
          last = event.sequence;
          retry = new Retry(this.patienceMs);
          yield event;
          if (event.event?.$case === "stateChanged" && isFinal(event.event.stateChanged.state)) return;
        }
        error = new WorkerUnavailable(
          `the worker at ${this.address} ends the watch of a job that goes on`,
          "see what stands between us and it: a proxy may limit the length of a stream",
        );
      } catch (thrown) {
        if (!isConnectionLoss(thrown)) throw await this.explained(thrown, "WatchJob", signal);
        error = thrown;
      }
      if (!(await retry.again([signal, this.gone]))) throw await this.explained(error, "WatchJob", signal);
    }
  }

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
    stream.on("error", () => {}); // the iteration reports it; what cancelling brings afterwards is of no interest
    const dispose = onAbort([signal, this.gone], () => stream.cancel());
    const connected = this.connectInTime();
    try {
      for await (const { event } of stream as AsyncIterable<WatchJobResponse>) if (event) yield event;
    } finally {
      dispose();
      connected();
      stream.cancel();
    }
  }

  /**
   * Connect anew should a call that is made now still wait for a connection after a while: it then fails as when that is lost. grpc-js waits for as
   * long as the system does, which is minutes, and for ever where a tunnel accepts the connection whose other end is cut.
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

/** Tries again sooner at first, then less often, for a limited time from the first failure. */
class Retry {
  private since: number | undefined;
  private delay = 100;

  constructor(private readonly patienceMs: number) {}

  /** Wait before the next try. @returns false when it is time to give up, or a signal is aborted */
  async again(signals: readonly (AbortSignal | undefined)[]): Promise<boolean> {
    this.since ??= performance.now(); // the clock on the wall may be set meanwhile
    if (performance.now() + this.delay - this.since > this.patienceMs) return false;
    const waiting = new AbortController();
    const dispose = onAbort(signals, () => waiting.abort());
    const waited = await sleep(this.delay, true, { signal: waiting.signal }).catch(() => false);
    dispose();
    this.delay = Math.min(2 * this.delay, 3_000);
    return waited;
  }
}

/** Do something once when any of the signals is aborted (at once if one is). @returns stops listening */
export function onAbort(signals: readonly (AbortSignal | undefined)[], listener: () => void): () => void {
  // Not AbortSignal.any: it holds on to memory for as long as a long-lived signal lives.
  for (const signal of signals)
    if (signal?.aborted) listener();
    else signal?.addEventListener("abort", listener, { once: true });
  return () => {
    for (const signal of signals) signal?.removeEventListener("abort", listener);
  };
}

/** Whether a job in this state goes no further. */
export function isFinal(state: JobState): boolean {
  return [JobState.JOB_STATE_SUCCEEDED, JobState.JOB_STATE_FAILED, JobState.JOB_STATE_CANCELLED].includes(
    state,
  );
}

function nameOf({ path }: { path: string }): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** Whether "host:port" is on this machine. */
export function isLoopback(address: string): boolean {
  return /^(localhost|127\.\d+\.\d+\.\d+|\[::1\]):/.test(address);
}
