/** What went wrong with a call, as one of our errors: the worker's own words where it sent them, else what the gRPC status means here. */
import { type Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { AtlasError, RpcError, RpcUsageError, WorkerUnavailable } from "../errors.js";
import { ErrorDetail } from "../gen/atlas/v1/error.js";

/** Where a worker is. */
export interface Address {
  /** host:port of its gRPC server. */
  address: string;
  /** Whether it speaks TLS. */
  secure: boolean;
}

/** Key of the trailing metadata that holds a serialized ErrorDetail. */
export const DETAIL_KEY = "atlas-error-bin";

/** Codes of what is the user's mistake, and exits with 2. */
const MISTAKES = ["invalid_input", "unauthenticated"];

/** The error that the worker describes. */
export function errorFromDetail(detail: ErrorDetail, options?: ErrorOptions): RpcError {
  const { message, field, expected, remedy, code } = detail;
  const where = field === "" || message.includes(field) ? "" : ` (${field})`;
  // The remedy may refer to what was expected: "choose one of them".
  const advice =
    [expected === "" ? "" : `expected: ${expected}`, remedy].filter(Boolean).join("; ") || undefined;
  const Kind = MISTAKES.includes(code) ? RpcUsageError : RpcError;
  return new Kind(
    `${message || "the worker gave no reason"}${where}`,
    code || "internal",
    field,
    expected,
    advice,
    options,
  );
}

/** Whether trying the same again may help: the connection was lost, or could not be made. */
export function isConnectionLoss(error: unknown): boolean {
  if (!isServiceError(error) || detailOf(error.metadata) !== undefined) return false;
  const reset = /RST_STREAM|GOAWAY|ECONNRESET|stream (was )?(removed|closed|terminated)/i.test(error.details);
  return (
    error.code === status.UNAVAILABLE || ([status.INTERNAL, status.UNKNOWN].includes(error.code) && reset)
  );
}

/** Turn what a call was rejected with into one of our errors. */
export function explainRpc(
  error: unknown,
  { address, secure }: Address,
  method: string,
  timeoutMs?: number,
): unknown {
  if (!isServiceError(error)) return error;
  const detail = detailOf(error.metadata);
  const cause = { cause: error };
  if (detail !== undefined) return errorFromDetail(detail, cause);
  const { code, details } = error;
  if (isConnectionLoss(error)) {
    const [reason, remedy] = plain(details, secure);
    return new WorkerUnavailable(`cannot reach the worker at ${address}: ${reason}`, remedy, cause);
  }
  switch (code) {
    case status.DEADLINE_EXCEEDED:
      return new WorkerUnavailable(
        `the worker at ${address} did not answer ${method} within ${(timeoutMs ?? 0) / 1000} s`,
        "see whether it is overloaded or stopped, then try again",
        cause,
      );
    case status.UNIMPLEMENTED:
      return new WorkerUnavailable(
        `what answers at ${address} does not know ${method}: it is no atlas worker, or one of another version`,
        "give the address of an atlas worker of this version",
        cause,
      );
    case status.RESOURCE_EXHAUSTED:
      return new RpcError(`${method}: ${details}`, "limit_exceeded", "", "", "ask for less at once", cause);
    case status.UNAUTHENTICATED:
    case status.PERMISSION_DENIED:
      return new RpcUsageError(
        `the worker at ${address} refuses us: ${details}`,
        "unauthenticated",
        "",
        "",
        undefined,
        cause,
      );
    case status.INVALID_ARGUMENT:
      return new RpcUsageError(`${method}: ${details}`, "invalid_input", "", "", undefined, cause);
    case status.NOT_FOUND:
      return new RpcError(`${method}: ${details}`, "not_found", "", "", undefined, cause);
    case status.FAILED_PRECONDITION:
      return new RpcError(`${method}: ${details}`, "not_ready", "", "", undefined, cause);
    default:
      return new RpcError(`${method} failed in the worker: ${details}`, "internal", "", "", undefined, cause);
  }
}

/** The detail in trailing metadata, if there is one that can be read. */
function detailOf(metadata: Metadata | undefined): ErrorDetail | undefined {
  const bytes = metadata?.get(DETAIL_KEY)[0];
  if (!Buffer.isBuffer(bytes)) return undefined;
  try {
    return ErrorDetail.decode(bytes);
  } catch {
    return undefined;
  }
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && !(error instanceof AtlasError) && "code" in error && "details" in error;
}

const CHECK = "check the address, and that the worker is running there";
const RENEW = "give the worker one that is valid: atlas worker keygen";
/** What Node and gRPC say, what it means, and what to do about it. */
const REASONS: readonly [says: RegExp, reason: string, remedy: string][] = [
  [/ECONNREFUSED/, "nothing listens there (connection refused)", CHECK],
  [/Channel closed/, "it does not answer", "check the network, and that the worker is running there"],
  [/ENOTFOUND|Name resolution failed/, "there is no host of that name", CHECK],
  [/certificate has expired/, "its certificate has expired", RENEW],
  [/certificate is not yet valid/, "its certificate is not valid yet", "check the clocks of both machines"],
  [
    /altnames|does not match certificate/,
    "its certificate is for another host",
    "use a name that is in the certificate, or make one with this name: atlas worker keygen",
  ],
  [
    /self[- ]signed certificate|unable to (verify|get)/,
    "its certificate is by no authority that we trust",
    "give the one that signed it with --ca",
  ],
  [
    /wrong version number|packet length too long/,
    "it does not speak TLS",
    "write grpc:// in place of grpcs://",
  ],
];

/** "No connection established. Last error: connect ECONNREFUSED 127.0.0.1:1 …" in few words, and what to do. */
function plain(details: string, secure: boolean): [reason: string, remedy: string] {
  const [, reason, remedy] = REASONS.find(([says]) => says.test(details)) ?? [];
  if (reason !== undefined && remedy !== undefined) return [reason, remedy];
  // TLS 1.3 tells a client what its server has against it only after the handshake, when gRPC no longer listens.
  if (/Failed to connect|Connection dropped/.test(details))
    return secure
      ? [
          "it ends the connection",
          "if it asks for a certificate, give one that it knows with --cert and --key",
        ]
      : ["it ends the connection", "if it uses TLS, write grpcs:// in place of grpc://"];
  return [details.replace(/\s*Resolution note:.*$/s, ""), CHECK];
}
