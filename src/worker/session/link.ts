/** What every resource of a session needs: calls in its name, and tensors in both directions. */
import { setTimeout as sleep } from "node:timers/promises";
import { AtlasError, UsageError } from "../../errors.js";
import type { Tensor as WireTensor } from "../../gen/atlas/v1/tensor.js";
import { WorkerServiceService } from "../../gen/atlas/v1/worker.js";
import { type CallOptions, type Method, onAbort, type Rpc } from "../../rpc/index.js";
import type { MetricsFeed } from "../../tensor/metrics.js";
import { newTicket, type TensorPlane } from "../../tensor/plane.js";
import { Tensor, type TensorSource, ticketFor } from "../../tensor/tensor.js";

/** The parts of a worker that a session needs. */
export interface SessionParts {
  rpc: Rpc;
  plane: TensorPlane;
  feed: MetricsFeed;
  limits: {
    /** Bytes of the largest tensor that travels inside a message. */
    maxInlineBytes: number;
    /** Bytes of the largest tensor that the worker accepts. */
    maxTensorBytes: number;
  };
  /** Seconds that the session lives without a call. It is renewed in time. 0: for ever. */
  leaseSeconds?: number;
  /** Milliseconds after which a missing tensor is asked for again (default 10 000). */
  silenceMs?: number;
  /** When aborted, every call fails, except those that end something. */
  signal?: AbortSignal;
}

/** Options of calls that compute for long. */
export const LONG = { timeoutMs: 600_000 };

/** Options of calls that compute for long and may be repeated. */
export const LONG_READ = { ...LONG, idempotent: true };

/** A square matrix, or a stack of them, as nested arrays. */
export type Matrices = readonly (readonly (readonly number[])[])[];

/** A session's connection to its worker. */
export class Link {
  /** @param id of the session */
  constructor(
    readonly id: string,
    readonly parts: SessionParts,
  ) {}

  /** Make a call. Aborting `options.signal`, or by default the session's signal, gives it up. */
  call<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions = {},
  ): Promise<Response> {
    return this.parts.rpc.call(method, request, {
      ...options,
      signal: options.signal ?? this.parts.signal,
    });
  }

  /** Send a stack of matrices. An empty stack has no matrix size and is left out. */
  sendMatrices(matrices: Matrices): Promise<WireTensor | undefined> {
    return matrices.length === 0 ? Promise.resolve(undefined) : this.send(Tensor.from(matrices));
  }

  /** Send tensors by name. */
  async sendAll(
    tensors: Readonly<Record<string, TensorSource>>,
  ): Promise<Record<string, WireTensor>> {
    const sent: Record<string, WireTensor> = {};
    for (const [name, tensor] of Object.entries(tensors)) sent[name] = await this.send(tensor);
    return sent;
  }

  /** Send bytes. */
  sendBytes(bytes: Uint8Array): Promise<WireTensor> {
    return this.send(Tensor.fromBytes("uint8", [bytes.byteLength], bytes));
  }

  /** Send a tensor: inside the message, or over the tensor plane if it is large. */
  async send(tensor: TensorSource): Promise<WireTensor> {
    const { maxInlineBytes, maxTensorBytes } = this.parts.limits;
    const size = tensor.byteLength;
    if (tensor instanceof Tensor && size <= maxInlineBytes) return tensor.toWire();
    if (size > maxTensorBytes)
      throw new UsageError(
        `a tensor of ${size} bytes (shape [${tensor.shape.join(", ")}]) is too large for the ` +
          "worker",
        `use at most ${maxTensorBytes} bytes`,
      );
    const ticket = newTicket(this.id);
    await this.parts.plane.put(ticket, tensor, { signal: this.parts.signal });
    return ticketFor(tensor, ticket);
  }

  /** Get the tensor of a message, from the tensor plane if the message has a ticket. */
  async fetch(wire: WireTensor | undefined, signal = this.parts.signal): Promise<Tensor> {
    if (!wire) throw malformed("a tensor");
    return wire.data?.$case === "ticket"
      ? this.take(wire.data.ticket, signal)
      : Tensor.fromWire(wire);
  }

  /** Replace all tensors in a message of the worker by nested arrays, at any depth. */
  async decode(message: unknown): Promise<unknown> {
    if (Array.isArray(message)) {
      const decoded: unknown[] = [];
      for (const entry of message) decoded.push(await this.decode(entry)); // few and small
      return decoded;
    }
    if (typeof message !== "object" || message === null) return message;
    if (isTensor(message)) return (await this.fetch(message)).toNested();
    const decoded: Record<string, unknown> = {};
    for (const [name, value] of Object.entries(message)) decoded[name] = await this.decode(value);
    return decoded;
  }

  /**
   * Fetch the tensor of a ticket. If it does not come for a while, the connection may have lost the
   * answer, or a restarted worker may not know the ticket. The tensor plane learns of neither. So
   * ask the worker for the session, and then for the tensor again.
   */
  private async take(ticket: string, signal: AbortSignal | undefined): Promise<Tensor> {
    const { rpc, plane, silenceMs = 10_000 } = this.parts;
    const over = new AbortController();
    const options = { signal: over.signal };
    const dispose = onAbort([signal], () => over.abort(signal?.reason));
    const again = async () => {
      await sleep(silenceMs, undefined, options).catch(() => over.signal.throwIfAborted());
      await rpc.call(
        WorkerServiceService.renewLease,
        { sessionId: this.id },
        { ...LONG_READ, ...options },
      );
      return plane.get(ticket, options);
    };
    try {
      return await Promise.race([plane.get(ticket, options), again()]);
    } finally {
      dispose();
      over.abort();
    }
  }
}

function isTensor(message: object): message is WireTensor {
  return "dtype" in message && "shape" in message;
}

/** Make the error for an answer without a required part. */
export function malformed(what: string): AtlasError {
  return new AtlasError(`the worker's answer lacks ${what}`, "use a worker of the same version");
}
