/**
 * Errors of calls. The worker's own words are used if it sent any, else the gRPC status decides
 * what the error says.
 */
import { type Metadata, type ServiceError, status } from "@grpc/grpc-js";
import {
  AtlasError,
  type ErrorReason,
  RpcError,
  RpcUsageError,
  type SettingName,
  WorkerUnavailable,
} from "../errors.js";
import { ErrorReason as WireReason } from "../gen/atlas/v1/error.js";
import type { Any } from "../gen/google/protobuf/any.js";
import { BadRequest, ErrorInfo, Help } from "../gen/google/rpc/error_details.js";
import { Status } from "../gen/google/rpc/status.js";

/** The address of a worker. */
export interface Address {
  /** host:port of its gRPC server. */
  address: string;
  /** Whether it uses TLS. */
  secure: boolean;
}

/** Key of the trailing metadata that holds a serialized google.rpc.Status. */
export const STATUS_KEY = "grpc-status-details-bin";

/** Reasons that are mistakes of the user, for which the exit code is 2. */
const MISTAKES: readonly ErrorReason[] = ["INVALID_INPUT", "FILE_MISSING", "UNAUTHENTICATED"];

/** Make the error that a status of the worker describes; see proto/atlas/v1/error.proto. */
export function errorFromStatus({ message, details }: Status, options?: ErrorOptions): RpcError {
  const { reason } = detailOf(details, "ErrorInfo", ErrorInfo) ?? {};
  const { field = "", description: expected = "" } =
    detailOf(details, "BadRequest", BadRequest)?.fieldViolations[0] ?? {};
  const remedy = detailOf(details, "Help", Help)?.links[0]?.description ?? "";
  const where = field === "" || message.includes(field) ? "" : ` (${field})`;
  // The remedy may refer to the expected values: "choose one of them".
  const advice =
    [expected === "" ? "" : `expected: ${expected}`, remedy].filter(Boolean).join("; ") ||
    undefined;
  const known = isReason(reason) ? reason : "INTERNAL";
  const Kind = MISTAKES.includes(known) ? RpcUsageError : RpcError;
  return new Kind(
    `${message || "the worker gave no reason"}${where}`,
    known,
    field,
    expected,
    advice,
    options,
  );
}

function detailOf<T>(
  details: readonly Any[],
  name: string,
  message: { decode(bytes: Uint8Array): T },
): T | undefined {
  const found = details.find(({ typeUrl }) => typeUrl.endsWith(`/google.rpc.${name}`));
  return found && message.decode(found.value);
}

function isReason(reason: string | undefined): reason is ErrorReason {
  return reason !== undefined && `ERROR_REASON_${reason}` in WireReason;
}

/** Whether a call failed because the connection was lost or could not be made. */
export function isConnectionLoss(error: unknown): boolean {
  if (!isServiceError(error) || statusOf(error.metadata) !== undefined) return false;
  const reset = /RST_STREAM|GOAWAY|ECONNRESET|stream (was )?(removed|closed|terminated)/i.test(
    error.details,
  );
  return (
    error.code === status.UNAVAILABLE ||
    ([status.INTERNAL, status.UNKNOWN].includes(error.code) && reset)
  );
}

/**
 * Turn what a call was rejected with into an error for the user. An error that is none of gRPC's is
 * returned as it is.
 *
 * @param method name of the method, for the message
 * @param timeoutMs deadline of the call
 */
export function explainRpc(
  error: unknown,
  { address, secure }: Address,
  method: string,
  timeoutMs?: number,
): unknown {
  if (!isServiceError(error)) return error;
  const described = statusOf(error.metadata);
  const cause = { cause: error };
  if (described !== undefined) return errorFromStatus(described, cause);
  const { code, details } = error;
  if (isConnectionLoss(error)) {
    const [reason, remedy, setting] = plain(details, secure);
    const message = `cannot reach the worker at ${address}: ${reason}`;
    return new WorkerUnavailable(message, remedy, { ...cause, setting });
  }
  switch (code) {
    case status.DEADLINE_EXCEEDED:
      return new WorkerUnavailable(
        `the worker at ${address} did not answer ${method} within ${(timeoutMs ?? 0) / 1000} s`,
        "check whether it is overloaded or stopped, then try again",
        cause,
      );
    case status.UNIMPLEMENTED:
      return new WorkerUnavailable(
        `the server at ${address} does not know ${method}: it is not an atlas worker, or has ` +
          "another version",
        "give the address of an atlas worker of this version",
        cause,
      );
    case status.RESOURCE_EXHAUSTED:
      return new RpcError(
        `${method}: ${details}`,
        "LIMIT_EXCEEDED",
        "",
        "",
        "use less data at once",
        cause,
      );
    case status.UNAUTHENTICATED:
    case status.PERMISSION_DENIED:
      return new RpcUsageError(
        `the worker at ${address} refuses access: ${details}`,
        "UNAUTHENTICATED",
        "",
        "",
        undefined,
        cause,
      );
    case status.INVALID_ARGUMENT:
      return new RpcUsageError(`${method}: ${details}`, "INVALID_INPUT", "", "", undefined, cause);
    case status.NOT_FOUND:
      return new RpcError(`${method}: ${details}`, "NOT_FOUND", "", "", undefined, cause);
    case status.FAILED_PRECONDITION:
      return new RpcError(`${method}: ${details}`, "NOT_READY", "", "", undefined, cause);
    default:
      return new RpcError(
        `${method} failed in the worker: ${details}`,
        "INTERNAL",
        "",
        "",
        undefined,
        cause,
      );
  }
}

/** Read the worker's status from trailing metadata. @returns undefined if there is none */
function statusOf(metadata: Metadata | undefined): Status | undefined {
  const bytes = metadata?.get(STATUS_KEY)[0];
  if (!Buffer.isBuffer(bytes)) return undefined;
  try {
    return Status.decode(bytes);
  } catch {
    return undefined;
  }
}

function isServiceError(error: unknown): error is ServiceError {
  return (
    error instanceof Error &&
    !(error instanceof AtlasError) &&
    "code" in error &&
    "details" in error
  );
}

const CHECK = "check the address, and that the worker is running there";
const RENEW = "make a new one for the worker: atlas worker keygen";
/** An explanation of a failed connection. The setting is the one that the remedy is about. */
type Explanation = readonly [reason: string, remedy: string, setting?: SettingName];
/** Explanations of what Node and gRPC say. */
const EXPLANATIONS: readonly (readonly [says: RegExp, ...Explanation])[] = [
  [/ECONNREFUSED/, "nothing listens there (connection refused)", CHECK],
  [
    /Channel closed/,
    "it does not answer",
    "check the network, and that the worker is running there",
  ],
  [/ENOTFOUND|Name resolution failed/, "there is no host of that name", CHECK],
  [/certificate has expired/, "its certificate has expired", RENEW],
  [
    /certificate is not yet valid/,
    "its certificate is not valid yet",
    "check the clocks of both machines",
  ],
  [
    /altnames|does not match certificate/,
    "its certificate is for another host",
    "use a name that is in the certificate, or make one with this name: atlas worker keygen",
  ],
  [
    /self[- ]signed certificate|unable to (verify|get)/,
    "its certificate is by no authority that this machine trusts",
    "give the certificate of its authority",
    "ca",
  ],
  [
    /wrong version number|packet length too long/,
    "it does not use TLS",
    "write grpc:// in place of grpcs://",
  ],
];

/**
 * Explain "No connection established. Last error: connect ECONNREFUSED 127.0.0.1:1 …" in few words.
 */
function plain(details: string, secure: boolean): Explanation {
  const known = EXPLANATIONS.find(([says]) => says.test(details));
  if (known) return [known[1], known[2], known[3]];
  // With TLS 1.3, a server refuses a client only after the handshake, and gRPC misses its reason.
  if (/Failed to connect|Connection dropped/.test(details))
    return secure
      ? [
          "it ends the connection",
          "if it requires a client certificate, give one that its authority has signed",
          "clientCertificate",
        ]
      : ["it ends the connection", "if it uses TLS, write grpcs:// in place of grpc://"];
  return [details.replace(/\s*Resolution note:.*$/s, ""), CHECK];
}
