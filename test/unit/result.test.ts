import { expect } from "chai";
import { CosetOutcome, RESULT_SCHEMA, Result, withFormerNames } from "../../src/result.js";
import { lorentz, planar, result } from "./report/results.js";

/** A result as version 0.1 wrote it. */
function former(document: Result): Record<string, unknown> {
  const { algebra, cosetSearch, ...rest } = JSON.parse(JSON.stringify(document)) as Result;
  const NAMES: Record<string, string> = {
    not_a_symmetry: "loss",
    outside_support: "unseen",
    beyond_limit: "rank",
  };
  const { symmetryCount, explanation, ...measured } = algebra ?? {};
  return {
    ...rest,
    schema: "atlas.result/1",
    algebra: algebra && { ...measured, found: symmetryCount, verdict: explanation },
    cosetSearch: cosetSearch && {
      ...cosetSearch,
      candidates: cosetSearch.candidates.map(({ outcome, ...candidate }) => ({
        ...candidate,
        verdict: NAMES[outcome] ?? outcome,
      })),
    },
  };
}

describe("a result of version 0.1", () => {
  it("is read by the present names", () => {
    for (const document of [planar(), lorentz(), result()]) {
      const upgraded = Result.parse(former(document));
      expect(upgraded.schema).to.equal(RESULT_SCHEMA);
      const present = JSON.parse(JSON.stringify(withFormerNames(document)));
      expect(JSON.parse(JSON.stringify(upgraded))).to.deep.equal(present);
    }
  });

  it("has the outcomes of candidates, each by its present name", () => {
    const document = planar();
    const [candidate] = document.cosetSearch!.candidates;
    document.cosetSearch!.candidates = CosetOutcome.options.map((outcome) => ({
      ...candidate!,
      outcome,
    }));
    const { cosetSearch } = Result.parse(former(document));
    expect(cosetSearch!.candidates.map(({ outcome }) => outcome)).to.deep.equal(
      CosetOutcome.options,
    );
  });

  it("is refused where it is damaged", () => {
    const damaged = { ...former(planar()), algebra: { found: 1 } };
    expect(Result.safeParse(damaged).success).to.equal(false);
    const unknown = former(planar()) as { cosetSearch: { candidates: { verdict: string }[] } };
    unknown.cosetSearch.candidates[0]!.verdict = "who knows";
    expect(Result.safeParse(unknown).success).to.equal(false);
  });
});

describe("a result", () => {
  it("has the former names of its algebra beside the present ones, and is read back", () => {
    const document = planar();
    const { algebra } = withFormerNames(document);
    expect(algebra).to.deep.equal({
      ...document.algebra,
      found: document.algebra!.symmetryCount,
      verdict: document.algebra!.explanation,
    });
    expect(Result.parse(JSON.parse(JSON.stringify(withFormerNames(document)))).algebra).to.include({
      symmetryCount: document.algebra!.symmetryCount,
    });
    expect(withFormerNames(result())).to.deep.equal(result());
  });

  it("has null for a start that diverged, and no starts where the solver has none", () => {
    const { algebra } = planar();
    const losses = [0.5, Number.NaN, Number.POSITIVE_INFINITY];
    const read = result({ algebra: { ...algebra!, startLosses: losses } });
    expect(read.algebra!.startLosses).to.deep.equal([0.5, null, null]);
    expect(planar().algebra!.startLosses).to.equal(undefined);
  });
});
