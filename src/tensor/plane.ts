/**
 * The tensor plane: large tensors to and from the worker's ROUTER socket. The frames of a message
 * are
 *
 *     to the worker    [request id, "PUT", ticket, TensorHeader, elements …]
 *                      [request id, "GET", ticket, empty]
 *     from the worker  [request id, "OK"]
 *                      [request id, "OK", TensorHeader, elements …]
 *                      [request id, "ERR", google.rpc.Status]
 *
 * The elements are not copied, unless they come in several frames.
 */
import { randomBytes } from "node:crypto";
import { Dealer } from "zeromq";
import { AtlasError, WorkerUnavailable } from "../errors.js";
import { TensorHeader } from "../gen/atlas/v1/tensor.js";
import type { CurveKeys } from "../gen/atlas/v1/worker.js";
import { Status } from "../gen/google/rpc/status.js";
import { errorFromStatus, onAbort } from "../rpc/index.js";
import { Tensor, type TensorSource, typeFromWire, wireType } from "./tensor.js";

/** Options of a transfer. */
export interface TransferOptions {
  /** When aborted, the transfer is given up and rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Milliseconds to wait for the worker's answer (default 120 000). */
  timeoutMs?: number;
}

/** Options of {@link TensorPlane.put}. */
export interface PutOptions extends TransferOptions {
  /** Send the elements as a file of this name, which the worker keeps on its disk. */
  fileName?: string;
  /** Called with the number of bytes that have been sent. */
  onProgress?: (done: number) => void;
}

interface Pending {
  resolve(frames: Buffer[]): void;
  reject(error: unknown): void;
}

/** Bytes that a message brings at most, if the worker takes a tensor in several. */
const PART = 64 * 2 ** 20;

/** Make a new unguessable ticket of a session for a tensor. */
export function newTicket(sessionId: string): string {
  return `${sessionId}.${randomBytes(16).toString("hex")}`;
}

/** Cut a buffer into frames of at most `most` bytes; 0: one frame. */
function pieces(bytes: Uint8Array, most: number): Uint8Array[] {
  if (most === 0 || bytes.byteLength <= most) return [bytes];
  const count = Math.ceil(bytes.byteLength / most);
  return Array.from({ length: count }, (_, i) => bytes.subarray(i * most, (i + 1) * most));
}

/** Make the options of an encrypted ZeroMQ socket (CurveZMQ); none without keys. */
export function curveOptions(keys: CurveKeys | undefined) {
  return (
    keys && {
      curveServerKey: keys.serverPublic,
      curvePublicKey: keys.clientPublic,
      curveSecretKey: keys.clientSecret,
    }
  );
}

/** A connection to a worker's tensor plane. Several transfers can run at once. */
export class TensorPlane {
  private readonly socket: Dealer;
  private readonly pending = new Map<string, Pending>();
  private sending: Promise<void> = Promise.resolve();
  private lastId = 0n;

  /**
   * @param endpoint ZeroMQ endpoint, from Describe
   * @param gone aborted when the worker is known to be gone; every transfer then rejects
   */
  constructor(
    readonly endpoint: string,
    private readonly gone?: AbortSignal,
    private readonly options: {
      /** Keys of an encrypted plane, from Describe. */
      curve?: CurveKeys;
      /** Bytes of the largest frame that the plane accepts, from Describe (default: any). */
      maxFrameBytes?: number;
      /** Whether the plane takes a tensor in several messages, from Describe. */
      acceptsParts?: boolean;
      /** Whether the plane takes files, from Describe. */
      acceptsFiles?: boolean;
    } = {},
  ) {
    const { curve } = options;
    this.socket = new Dealer({ linger: 0, ipv6: endpoint.includes("["), ...curveOptions(curve) });
    this.socket.connect(endpoint);
    void this.receive();
  }

  /**
   * Put a tensor on the plane, under a ticket of {@link newTicket}. The elements must not change
   * until the promise resolves. A large tensor is sent in several messages, so that only a part of
   * a file is in memory at a time.
   *
   * @throws RpcError if the worker refuses the tensor
   * @throws WorkerUnavailable if the worker does not answer
   */
  async put(ticket: string, tensor: TensorSource, options: PutOptions = {}): Promise<void> {
    const { dtype, byteLength } = tensor;
    const { fileName = "", onProgress } = options;
    const { acceptsParts = false, maxFrameBytes = 0 } = this.options;
    const shape = [...tensor.shape];
    const whole = { dtype: wireType(dtype), shape, byteLength, fileName };
    const send = (header: TensorHeader, bytes: Uint8Array[]) => {
      const frames = (bytes.length > 0 ? bytes : [new Uint8Array()]).flatMap((part) =>
        pieces(part, maxFrameBytes),
      );
      return this.request(
        ["PUT", ticket, TensorHeader.encode(header).finish(), ...frames],
        options,
      );
    };
    let offset = 0;
    let waiting: Uint8Array[] = [];
    for await (const part of tensor.parts(PART)) {
      waiting.push(part);
      if (!acceptsParts) continue;
      const from = offset;
      offset += part.byteLength;
      await send({ ...whole, offset: from, more: offset < byteLength }, waiting);
      onProgress?.(offset);
      waiting = [];
    }
    if (offset === 0) await send({ ...whole, offset, more: false }, waiting);
  }

  /**
   * Fetch the tensor of a ticket. A ticket is good for one fetch.
   *
   * @throws RpcError (NOT_FOUND) if the worker does not know the ticket
   * @throws WorkerUnavailable if the worker does not answer
   */
  async get(ticket: string, options?: TransferOptions): Promise<Tensor> {
    const [header, first, ...others] = await this.request(["GET", ticket, ""], options);
    if (header === undefined || first === undefined)
      throw new AtlasError(`the worker at ${this.endpoint} sent a tensor without its elements`);
    const { dtype, shape } = TensorHeader.decode(header);
    const elements = others.length === 0 ? first : Buffer.concat([first, ...others]);
    return Tensor.fromBytes(typeFromWire(dtype), shape, elements);
  }

  /** Whether files can be put on the plane. */
  get acceptsFiles(): boolean {
    return this.options.acceptsFiles ?? false;
  }

  /** Close the connection. Running transfers are rejected. */
  close(): void {
    if (!this.socket.closed) this.socket.close();
    this.rejectAll(new AtlasError("the connection to the worker was closed"));
  }

  private async request(
    frames: (string | Uint8Array)[],
    options: TransferOptions = {},
  ): Promise<Buffer[]> {
    const { signal, timeoutMs = 120_000 } = options;
    this.gone?.throwIfAborted();
    signal?.throwIfAborted();
    if (this.socket.closed) throw new AtlasError("the connection to the worker was closed");
    const id = Buffer.alloc(8);
    id.writeBigUInt64BE(++this.lastId);
    const key = id.toString("hex");
    let timer: NodeJS.Timeout | undefined;
    let dispose = () => {};
    const answer = new Promise<Buffer[]>((resolve, reject) => {
      this.pending.set(key, { resolve, reject });
      timer = setTimeout(() => reject(this.silence(timeoutMs)), timeoutMs);
      dispose = onAbort([signal, this.gone], () =>
        reject(signal?.aborted ? signal.reason : this.gone?.reason),
      );
    });
    // A ZeroMQ socket sends one message at a time.
    this.sending = this.sending.then(() =>
      this.pending.has(key) ? this.socket.send([id, ...frames]) : undefined,
    );
    this.sending = this.sending.catch((error: unknown) => this.pending.get(key)?.reject(error));
    try {
      return await answer;
    } finally {
      this.pending.delete(key);
      clearTimeout(timer);
      dispose();
    }
  }

  private async receive(): Promise<void> {
    try {
      for await (const [id, status, ...rest] of this.socket) {
        const pending = id && this.pending.get(id.toString("hex"));
        if (!pending) continue; // the request was given up
        if (status?.toString() === "OK") pending.resolve(rest);
        else pending.reject(this.refusal(rest[0]));
      }
    } catch (error) {
      this.rejectAll(error);
    }
  }

  private silence(timeoutMs: number): WorkerUnavailable {
    return new WorkerUnavailable(
      `the worker's tensor plane at ${this.endpoint} did not answer within ${timeoutMs / 1000} s`,
      "check that the worker is running, and that its tensor port can be reached from here",
    );
  }

  private refusal(frame: Buffer | undefined): Error {
    try {
      return errorFromStatus(Status.decode(frame ?? Buffer.alloc(0)));
    } catch (error) {
      return new AtlasError(
        `the worker at ${this.endpoint} sent an answer that cannot be read`,
        undefined,
        {
          cause: error,
        },
      );
    }
  }

  private rejectAll(error: unknown): void {
    for (const { reject } of this.pending.values()) reject(error);
  }
}
