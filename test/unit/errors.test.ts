/** The tables of errors in proto/README.md say what the code does. */
import { readFileSync } from "node:fs";
import { status } from "@grpc/grpc-js";
import { expect } from "chai";
import * as errors from "../../src/errors.js";
import { ErrorReason } from "../../src/gen/atlas/v1/error.js";
import { ErrorInfo } from "../../src/gen/google/rpc/error_details.js";
import { errorFromStatus } from "../../src/rpc/errors.js";

const README = readFileSync(new URL("../../proto/README.md", import.meta.url), "utf8");
/** Rows of the table whose first heading is `heading`; code marks are taken off. */
const rows = (heading: string) => {
  const table = new RegExp(`^\\| ${heading} \\|.*\\n\\|[-|]+\\n((?:\\|.*\\n)+)`, "m").exec(README);
  return table![1]!
    .trim()
    .split("\n")
    .map((row) =>
      row
        .split("|")
        .slice(1, -1)
        .map((cell) => cell.trim().replaceAll("`", "")),
    );
};

describe("the tables of errors", () => {
  it("have each reason of the contract, with its exit code", () => {
    const listed = rows("reason").map(([reason, , , exit]) => [reason, Number(exit)]);
    const reasons = Object.keys(ErrorReason)
      .filter((name) => /^ERROR_REASON_(?!UNSPECIFIED)/.test(name))
      .map((name) => name.replace("ERROR_REASON_", ""));
    const actual = reasons.map((reason) => {
      const info = ErrorInfo.encode(ErrorInfo.fromPartial({ reason, domain: "atlas-symmetry" }));
      const details = [
        { typeUrl: "type.googleapis.com/google.rpc.ErrorInfo", value: Buffer.from(info.finish()) },
      ];
      const error = errorFromStatus({ code: status.UNKNOWN, message: "no", details });
      expect(error.reason).to.equal(reason);
      return [reason, error.exitCode];
    });
    expect(listed).to.have.deep.members(actual);
  });

  it("name gRPC codes that exist", () => {
    for (const [, code] of rows("reason")) expect(status).to.have.property(code!);
  });

  it("have each class of error of the orchestrator, with its exit code", () => {
    const remote = ["AtlasError", "RpcError", "RpcUsageError"]; // the base, and those with a reason
    const actual = Object.entries(errors)
      .filter(([name]) => !remote.includes(name))
      .map(([name, Kind]) => [
        name,
        new (Kind as new (message: string) => errors.AtlasError)("").exitCode,
      ]);
    const listed = rows("class").map(([name, , exit]) => [name, Number(exit)]);
    expect(listed).to.have.deep.members(actual);
  });
});
