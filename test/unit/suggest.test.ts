import { expect } from "chai";
import fc from "fast-check";
import { choices, nearest, suggestion } from "../../src/suggest.js";

describe("a suggestion", () => {
  it("is what was meant: a letter wrong, left out, doubled, or two swapped", () => {
    const solvers = ["atlasd", "grassmann"];
    for (const typed of ["grasmann", "grassmannn", "grassmamn", "rgassmann", "GRASSMANN", "atlas"])
      expect(nearest(typed, solvers)).to.equal(typed.startsWith("atlas") ? "atlasd" : "grassmann");
    expect(nearest("pdf", ["pde", "runs"])).to.equal("pde");
  });

  it("is none for what was not meant, or for too few letters to tell", () => {
    expect(nearest("banana", ["pde", "runs"])).to.equal(undefined);
    expect(nearest("pd", ["pde"])).to.equal(undefined);
    expect(nearest("", ["pde"])).to.equal(undefined);
    expect(nearest("pde", [])).to.equal(undefined);
  });

  it("is the nearest of several, and the first of equally near ones", () => {
    expect(nearest("epoch", ["epics", "epochs", "epoxy"])).to.equal("epochs");
    expect(nearest("bat", ["cat", "hat"])).to.equal("cat");
  });

  it("lists few names whole, and of many those that are near", () => {
    expect(choices("x", ["ab", "cd"])).to.equal("ab, cd");
    const names = Array.from({ length: 70 }, (_, i) => `so(${i})`);
    const said = choices("so(41)", [...names, "lorentz"]);
    expect(said)
      .to.match(/^so\(41\), /)
      .and.to.contain("71")
      .and.not.contain("lorentz");
    expect(said.split(",")).to.have.length.below(11);
  });

  it("is said in brackets, or not at all", () => {
    expect(suggestion("widht", ["width", "layers"])).to.equal(" (did you mean width?)");
    expect(suggestion("zzz", ["width", "layers"])).to.equal("");
  });

  it("is the word itself where that is among them, whatever else is", () => {
    const words = fc.array(fc.string({ minLength: 3, maxLength: 12 }), { minLength: 1 });
    fc.assert(
      fc.property(words, fc.nat(), (list, i) => {
        const word = list[i % list.length]!;
        expect(nearest(word, list)!.toLowerCase()).to.equal(word.toLowerCase());
      }),
    );
  });
});
