/** Calls as strangers may make them: any bytes to any method, with any token or none. */
import type { SecureContext } from "node:tls";
import { Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import type { RpcError } from "../../src/errors.js";
import { Status } from "../../src/gen/google/rpc/status.js";
import { errorFromStatus, type Method, STATUS_KEY } from "../../src/rpc/index.js";

const TIMEOUT_MS = 60_000;

export interface Answer {
  code: status;
  /** What gRPC says. */
  text: string;
  /** What the worker says when it refuses. */
  refusal: RpcError | undefined;
  /** The answer, or the last one of a stream. */
  message: Buffer | undefined;
}

const identity = (bytes: Buffer) => bytes;

/** A client with a connection of its own. */
export class Caller {
  private readonly client: Client;

  constructor(
    address: string,
    private readonly token?: string,
    tls?: SecureContext,
  ) {
    const channel = tls ? credentials.createFromSecureContext(tls) : credentials.createInsecure();
    this.client = new Client(address, channel, {
      "grpc.use_local_subchannel_pool": 1, // clients of one process would share a connection
      "grpc.ssl_target_name_override": "localhost",
    });
  }

  /**
   * Send bytes to a method. Resolves whatever the worker does; a stream is read to its end.
   *
   * @param token in place of the client's own; "" for none
   */
  send(
    path: string,
    request: Buffer,
    { streams = false, token = this.token ?? "" } = {},
  ): Promise<Answer> {
    const metadata = new Metadata();
    if (token !== "") metadata.set("authorization", `Bearer ${token}`);
    const deadline = Date.now() + TIMEOUT_MS;
    const parts = [path, identity, identity, request, metadata, { deadline }] as const;
    return new Promise((resolve) => {
      let message: Buffer | undefined;
      const end = (error?: ServiceError | null) => resolve(answer(error, message));
      if (streams)
        this.client
          .makeServerStreamRequest(...parts)
          .on("data", (bytes: Buffer) => {
            message = bytes;
          })
          .on("error", end)
          .on("end", () => end());
      else
        this.client.makeUnaryRequest(...parts, (error, bytes) => {
          message = bytes;
          end(error);
        });
    });
  }

  /** A proper call. @throws with what the worker says when it refuses */
  async call<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
  ): Promise<Response> {
    const answer = await this.send(method.path, method.requestSerialize(request));
    if (answer.message === undefined) throw new Refused(answer);
    return method.responseDeserialize(answer.message);
  }

  close(): void {
    this.client.close();
  }
}

export class Refused extends Error {
  constructor(readonly answer: Answer) {
    super(`${status[answer.code]}: ${answer.refusal?.message ?? answer.text}`);
  }
}

function answer(error: ServiceError | null | undefined, message: Buffer | undefined): Answer {
  const [bytes] = error?.metadata?.get(STATUS_KEY) ?? [];
  const refusal = bytes instanceof Buffer ? errorFromStatus(Status.decode(bytes)) : undefined;
  return { code: error?.code ?? status.OK, text: error?.details ?? "", refusal, message };
}
