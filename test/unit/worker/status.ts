/** What a worker says of an error, as it sends it: see proto/atlas/v1/error.proto. */
import { BadRequest, ErrorInfo, Help } from "../../../src/gen/google/rpc/error_details.js";
import type { Status } from "../../../src/gen/google/rpc/status.js";

export interface Described {
  message: string;
  /** A name of `ErrorReason`; left out, there is no ErrorInfo. */
  reason?: string;
  field?: string;
  expected?: string;
  remedy?: string;
}

/** @param code of gRPC */
export function statusOf(described: Described, code = 0): Status {
  const { message, reason, field = "", expected = "", remedy } = described;
  const details: Status["details"] = [];
  const add = (name: string, value: Uint8Array) =>
    details.push({ typeUrl: `type.googleapis.com/google.rpc.${name}`, value: Buffer.from(value) });
  if (reason !== undefined)
    add("ErrorInfo", ErrorInfo.encode({ reason, domain: "atlas-symmetry", metadata: {} }).finish());
  if (field !== "" || expected !== "") {
    const fieldViolations = [{ field, description: expected }];
    add("BadRequest", BadRequest.encode({ fieldViolations }).finish());
  }
  if (remedy !== undefined)
    add("Help", Help.encode({ links: [{ description: remedy, url: "" }] }).finish());
  return { code, message, details };
}
