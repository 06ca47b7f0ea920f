import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { expect } from "chai";
import { AtlasError, RpcError, RpcUsageError, WorkerUnavailable } from "../../../src/errors.js";
import { ErrorReason as WireReason } from "../../../src/gen/atlas/v1/error.js";
import { Status } from "../../../src/gen/google/rpc/status.js";
import {
  errorFromStatus,
  explainRpc,
  isConnectionLoss,
  STATUS_KEY,
} from "../../../src/rpc/index.js";
import { type Described, statusOf } from "../worker/status.js";

const HERE = { address: "127.0.0.1:1", secure: false };

/** A call that failed with a code of gRPC. */
function failed(code: status, details = "oh", described?: Described): ServiceError {
  const metadata = new Metadata();
  if (described)
    metadata.set(STATUS_KEY, Buffer.from(Status.encode(statusOf(described, code)).finish()));
  return Object.assign(new Error(details), { code, details, metadata });
}
const explained = (error: unknown) => explainRpc(error, HERE, "Predict", 1500);

/**
 * What each code of gRPC means where the worker says no more: the class of our error, its reason,
 * the exit code.
 */
const CODES = {
  CANCELLED: [RpcError, "INTERNAL", 1],
  UNKNOWN: [RpcError, "INTERNAL", 1],
  INVALID_ARGUMENT: [RpcUsageError, "INVALID_INPUT", 2],
  DEADLINE_EXCEEDED: [WorkerUnavailable, undefined, 1],
  NOT_FOUND: [RpcError, "NOT_FOUND", 1],
  ALREADY_EXISTS: [RpcError, "INTERNAL", 1],
  PERMISSION_DENIED: [RpcUsageError, "UNAUTHENTICATED", 2],
  RESOURCE_EXHAUSTED: [RpcError, "LIMIT_EXCEEDED", 1],
  FAILED_PRECONDITION: [RpcError, "NOT_READY", 1],
  ABORTED: [RpcError, "INTERNAL", 1],
  OUT_OF_RANGE: [RpcError, "INTERNAL", 1],
  UNIMPLEMENTED: [WorkerUnavailable, undefined, 1],
  INTERNAL: [RpcError, "INTERNAL", 1],
  UNAVAILABLE: [WorkerUnavailable, undefined, 1],
  DATA_LOSS: [RpcError, "INTERNAL", 1],
  UNAUTHENTICATED: [RpcUsageError, "UNAUTHENTICATED", 2],
} as const;

describe("what a call failed with", () => {
  for (const [name, [kind, reason, exitCode]] of Object.entries(CODES))
    it(`is, where gRPC says ${name} and the worker nothing, ${reason ?? kind.name}`, () => {
      const error = failed(status[name as keyof typeof CODES]);
      const made = explained(error) as RpcError;
      expect(made.constructor).to.equal(kind);
      expect([made.reason, made.exitCode]).to.deep.equal([reason, exitCode]);
      expect(made.cause).to.equal(error);
    });

  it("is known of every code that gRPC has", () => {
    const codes = Object.values(status).filter((code) => typeof code === "string");
    expect(["OK", ...Object.keys(CODES)]).to.have.members(codes);
  });

  it("is by the reason that the worker gives, whatever the code", () => {
    const reasons = Object.keys(WireReason)
      .flatMap((name) => /^ERROR_REASON_(.*)/.exec(name)?.[1] ?? [])
      .filter((reason) => reason !== "UNSPECIFIED");
    expect(reasons).to.have.length.above(5);
    for (const reason of reasons)
      for (const code of [status.UNAVAILABLE, status.INTERNAL, status.UNAUTHENTICATED]) {
        const made = explained(failed(code, "oh", { message: "no", reason })) as RpcError;
        expect(made).to.include({ message: "no", reason, code: reason.toLowerCase() });
        const mistake = ["INVALID_INPUT", "FILE_MISSING", "UNAUTHENTICATED"].includes(reason);
        expect(made.exitCode, reason).to.equal(mistake ? 2 : 1);
        expect(made instanceof RpcUsageError, reason).to.equal(mistake);
      }
  });

  it("is our fault where the worker's reason is none that we know", () => {
    for (const reason of ["NEWER_THAN_WE", "UNRECOGNIZED?", "", "toString", undefined])
      expect(errorFromStatus(statusOf({ message: "no", reason }))).to.include({
        message: "no",
        reason: "INTERNAL",
        exitCode: 1,
      });
    expect(errorFromStatus(statusOf({ message: "" })).message).to.not.equal("");
  });

  it("says the field once, and what was expected before what to do", () => {
    const reason = "INVALID_INPUT";
    const said = (described: Partial<Described>) => {
      const { message, field, expected, remedy } = errorFromStatus(
        statusOf({ message: "no", reason, ...described }),
      );
      return { message, field, expected, remedy };
    };
    expect(said({})).to.deep.equal({ message: "no", field: "", expected: "", remedy: undefined });
    expect(said({ field: "k", expected: "e", remedy: "r" })).to.deep.equal({
      message: "no (k)",
      field: "k",
      expected: "e",
      remedy: "expected: e; r",
    });
    expect(said({ message: "no k", field: "k", remedy: "r" })).to.include({
      message: "no k",
      remedy: "r",
    });
    expect(said({ expected: "e" })).to.include({ field: "", remedy: "expected: e" });
  });

  it("passes over details that it does not know", () => {
    const sent = statusOf({ message: "no", reason: "NOT_READY", field: "k" });
    sent.details.unshift({
      typeUrl: "type.googleapis.com/google.rpc.RetryInfo",
      value: Buffer.of(0xff),
    });
    expect(errorFromStatus(sent)).to.include({ reason: "NOT_READY", field: "k" });
  });

  it("may be tried again where the connection was lost, not after an answer", () => {
    const { UNAVAILABLE, INTERNAL, UNKNOWN, NOT_FOUND } = status;
    const lost = [
      failed(UNAVAILABLE),
      failed(INTERNAL, "Received RST_STREAM with code 2"),
      failed(UNKNOWN, "stream terminated"),
    ];
    const answered = [
      failed(INTERNAL),
      failed(UNKNOWN),
      failed(NOT_FOUND, "ECONNRESET"),
      failed(UNAVAILABLE, "oh", { message: "no", reason: "INTERNAL" }),
      new Error("ECONNRESET"),
      new AtlasError("no"),
    ];
    expect(lost.map(isConnectionLoss)).to.deep.equal(lost.map(() => true));
    expect(answered.map(isConnectionLoss)).to.deep.equal(answered.map(() => false));
  });

  it("is told in few words where there is no connection, with what to do", () => {
    const told = (details: string, secure = false) => {
      const made = explainRpc(failed(status.UNAVAILABLE, details), { ...HERE, secure }, "Predict");
      expect(made).to.be.instanceOf(WorkerUnavailable);
      const { message, remedy } = made as WorkerUnavailable;
      expect(message).to.contain(HERE.address).and.not.contain("\n");
      expect(remedy).to.be.a("string").and.not.equal("");
      return `${message}; ${remedy}`;
    };
    const known = [
      "No connection established. Last error: connect ECONNREFUSED 127.0.0.1:1",
      "Channel closed",
      "Name resolution failed for target dns:nowhere:1",
      "self-signed certificate in certificate chain: certificate has expired",
      "CERT_NOT_YET_VALID: certificate is not yet valid",
      "Hostname/IP does not match certificate's altnames",
      "Error: self-signed certificate in certificate chain",
      "ssl3_get_record:wrong version number",
      "Connection dropped",
    ];
    // Each is said in our words, none as another is.
    const said = known.map((details) => told(details));
    expect(new Set(said)).to.have.property("size", known.length);
    for (const [i, text] of said.entries()) expect(text).to.not.contain(known[i]);
    const other = told("something else Resolution note: long and windy\nlines");
    expect(other).to.contain("something else").and.not.contain("windy");
    expect(told("Connection dropped", true)).to.contain("certificate");
    expect(told("Connection dropped", false)).to.contain("grpcs://");
  });

  it("is left as it is where it is no failure of gRPC", () => {
    for (const error of [new Error("bug"), new AtlasError("no"), "text", undefined])
      expect(explained(error)).to.equal(error);
  });

  it("says how long was waited, and for what", () => {
    const { message } = explained(failed(status.DEADLINE_EXCEEDED)) as AtlasError;
    expect(message).to.contain("Predict").and.contain("1.5 s").and.contain(HERE.address);
  });
});
