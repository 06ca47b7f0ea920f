/** What `atlas data inspect` advises to type for a table. */
import { expect } from "chai";
import { advise } from "../../../src/data/advice.js";
import type { FileMember } from "../../../src/worker/index.js";

function table(...columns: string[]): FileMember {
  const numbers = {
    ...{ samples: 9, minimum: 0, maximum: 1, missing: 0, infinite: 0, first: "", whole: false },
    ...{ names: columns, minima: [], maxima: columns.map(() => 1), constant: [] },
  };
  return {
    ...{ name: "", shape: [9, columns.length], dtype: "numbers", dims: [], units: "", columns },
    ...{ coordinate: false, partOf: "", problem: "", numbers },
  };
}

describe("advice on a table", () => {
  it("takes y for a coordinate beside x and z", () => {
    const advice = advise([table("id", "x", "y", "z", "label")])!;
    expect(advice.inputs).to.deep.equal(["x", "y", "z"]);
    expect(advice.targets).to.deep.equal(["label"]);
    expect(advice.reason).to.contain("id");
    expect(advise([table("x", "y", "z")])!.targets).to.deep.equal([]);
  });

  it("takes y for the target elsewhere", () => {
    const advice = advise([table("a", "b", "y")])!;
    expect([advice.inputs, advice.targets]).to.deep.equal([["a", "b"], ["y"]]);
  });

  it("takes the columns of numbers among others of text", () => {
    const whole = { ...table("day", "a", "b", "y"), problem: "text in the column day" };
    const numbers = { ...table("a", "b", "y"), name: "a,b,y" };
    const advice = advise([whole, numbers])!;
    expect([advice.inputs, advice.targets]).to.deep.equal([["a", "b"], ["y"]]);
    const unnamed = advise([whole, { ...table("id", "a", "b"), name: "id,a,b" }])!;
    expect([unnamed.inputs, unnamed.targets]).to.deep.equal([["a", "b"], []]);
  });
});
