import { expect } from "chai";
import {
  type Block,
  type BlockType,
  blocksOf,
  checkBlock,
  checkValue,
  describeParam,
  findBlock,
  type ParamSchema,
  paramsOf,
} from "../../src/blocks.js";
import { UsageError } from "../../src/errors.js";
import { CATALOGUE } from "../../src/gen/blocks.js";
import type { PredictorOptions, RemoteObject, Session } from "../../src/worker/index.js";

const TYPES = Object.keys(CATALOGUE) as BlockType[];

/** What checking a block refuses it with. */
function refusal(type: BlockType, block: { kind: string; params?: object }): string {
  try {
    checkBlock(type, block as never);
  } catch (error) {
    if (error instanceof UsageError) return `${error.message}; ${error.remedy}`;
    throw error;
  }
  throw new Error("expected a UsageError");
}

/** Never called: it compiles, or does not, as its comments say. */
export function compiles(session: Session, dataset: RemoteObject, atlas: RemoteObject) {
  const spec = { dataset, atlas, epochs: 1, seed: 0, training: { kind: "supervised" } } as const;
  return [
    session.createPredictor({ ...spec, architecture: { kind: "mlp", params: { width: 3 } } }),
    session.createPredictor({
      ...spec,
      architecture: { kind: "mlp", params: { width: undefined } },
    }),
    session.createPredictor({
      ...spec,
      // @ts-expect-error a misspelt parameter
      architecture: { kind: "mlp", params: { widht: 3 } },
    }),
    session.createPredictor({
      ...spec,
      // @ts-expect-error a misspelt kind
      architecture: { kind: "mpl" },
    }),
    session.createPredictor({
      ...spec,
      // @ts-expect-error a value of another type
      architecture: { kind: "mlp", params: { width: "3" } },
    }),
    session.createPredictor({
      ...spec,
      // @ts-expect-error another kind's parameter
      architecture: { kind: "mlp", params: { stride: 3 } },
    }),
    session.createPredictor({
      ...spec,
      // @ts-expect-error a block of another type
      architecture: { kind: "grassmann" },
    }),
    // @ts-expect-error a parameter is missing
    session.createAtlas({ kind: "vectors", params: {} } satisfies Block<"action">),
  ] satisfies Promise<RemoteObject>[];
}
export type Architecture = PredictorOptions["architecture"];

describe("a block", () => {
  it("is checked: a misspelt parameter is named, and the right one with it", () => {
    const wrong = { kind: "mlp", params: { widht: 3 } };
    const names = Object.keys(paramsOf(blocksOf("architecture").mlp!)).join(", ");
    expect(refusal("architecture", wrong))
      .to.match(/^mlp .*widht .*did you mean width\?.*; /)
      .and.contain(names);
    const unlike = refusal("architecture", { kind: "mlp", params: { zzz: 3 } });
    expect(unlike)
      .to.match(/^mlp .*zzz/)
      .and.not.contain("did you mean");
    expect(refusal("architecture", { kind: "mpl" })).to.contain("did you mean mlp?");
    expect(refusal("architecture", { kind: "toString" })).to.contain("toString");
    expect(refusal("architecture", { kind: "mlp", params: { constructor: 1 } })).to.contain(
      "constructor",
    );
  });

  it("is given back by its present names, without what is undefined", () => {
    const params = { published: true, width: undefined, m: 2 };
    expect(checkBlock("architecture", { kind: "cgnet", params })).to.deep.equal({
      kind: "cgnet",
      params: { reference: true, m: 2 },
    });
    for (const type of TYPES)
      for (const [kind, { aliases = [] }] of Object.entries(blocksOf(type)))
        for (const alias of aliases) expect(findBlock(type, alias).kind).to.equal(kind);
    expect(findBlock("architecture", "wide").kind).to.equal("strided_cnn");
    expect(findBlock("algebra_solver", "paper").kind).to.equal("atlasd");
    expect(findBlock("dataset", "heat2d").kind).to.equal("heat_equation");
  });

  it("is refused without a parameter that it needs", () => {
    expect(refusal("action", { kind: "vectors" })).to.match(/^vectors .* n\b/);
    expect(refusal("action", { kind: "vectors", params: { n: undefined } })).to.match(
      /^vectors .* n\b/,
    );
  });

  it("takes, of every parameter, its default, and what the schema says", () => {
    let seen = 0;
    for (const type of TYPES)
      for (const [kind, entry] of Object.entries(blocksOf(type)))
        for (const [name, schema] of Object.entries(paramsOf(entry))) {
          const called = `${type} ${kind}.${name}`;
          expect(schema.description, called).to.be.a("string").and.not.equal("");
          if (schema.default !== undefined) checkValue(called, schema.default, schema);
          for (const bound of [schema.minimum, schema.maximum])
            if (bound !== undefined) checkValue(called, bound, schema);
          for (const wrong of [Number.NaN, null, undefined, () => 0, Symbol.iterator])
            expect(() => checkValue(called, wrong, schema), called).to.throw(UsageError);
          seen++;
        }
    expect(seen).to.be.greaterThan(100);
  });

  const RADIUS: ParamSchema = { type: "integer", minimum: 1, maximum: 256 };
  const CHARTS: ParamSchema = {
    type: "array",
    minItems: 1,
    items: { type: "object", properties: { row: RADIUS, col: RADIUS }, required: ["row"] },
  };
  const NO_CHARTS = [[], [{ col: 1 }], [{ row: 0 }], [{ row: 1, x: 1 }], {}];
  for (const [schema, accepted, refused, expected] of [
    [RADIUS, [1, 256], [0, 257, 1.5, "1", true, [1]], "a whole number from 1 to 256"],
    [{ type: "number", minimum: 0 }, [0, 1e300], [-1e-9, "0"], "a number of at least 0"],
    [{ type: "number", maximum: 1 }, [-5, 1], [1.001], "a number of at most 1"],
    [{ type: "number" }, [-1e9, 0.5], ["1", Number.POSITIVE_INFINITY], "a number"],
    [{ type: "boolean" }, [true, false], [0, "true"], "true or false"],
    [{ type: "string", enum: ["a", "b"] }, ["a"], ["c", "", 1], "one of a, b"],
    [{ type: "string" }, ["", "x"], [1, ["x"]], "text"],
    [{ type: "string", format: "path" }, ["/x"], [1], "a path"],
    [CHARTS, [[{ row: 1 }], [{ row: 1, col: 2 }]], NO_CHARTS, "a list of 1 or more"],
  ] as [ParamSchema, unknown[], unknown[], string][]) // biome-ignore format: a table
    it(`takes ${expected}, and nothing else`, () => {
      expect(describeParam(schema)).to.equal(expected);
      for (const value of accepted) checkValue("p", value, schema);
      for (const value of refused)
        expect(() => checkValue("p", value, schema), JSON.stringify(value)).to.throw(
          `expected ${expected}`,
        );
    });
});
