import { expect } from "chai";
import { z } from "zod";
import { flagName, metaOf } from "../../../src/experiment/names.js";

describe("a field's name", () => {
  it("is a flag, with dashes between words", () => {
    for (const [field, flag] of [
      ["batch_size", "batch-size"],
      ["batchSize", "batch-size"],
      ["r2Limit", "r2-limit"],
      ["N", "N"],
      ["k", "k"],
      ["solver.batch_size", "solver.batch-size"],
      ["batch-size", "batch-size"],
    ] as const)
      expect(flagName(field)).to.equal(flag);
  });

  it("has what was said of it, whatever stands around it", () => {
    const meta = { former: ["keep"], file: true, formerValues: { 0: "auto" } };
    expect(metaOf(z.string().meta(meta))).to.deep.include(meta);
    expect(metaOf(z.string().default("x").meta(meta))).to.deep.include(meta);
    expect(metaOf(z.string().describe("Which"))).to.not.have.any.keys("former", "file");
    expect(metaOf(z.string())).to.deep.equal({});
    expect(metaOf(undefined)).to.deep.equal({});
  });
});
