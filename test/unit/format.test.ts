import { expect } from "chai";
import fc from "fast-check";
import { formatMetrics, formatNumber, formatSeconds, wrap } from "../../src/format.js";

describe("text in lines", () => {
  it("is filled up to the width, and indented", () => {
    expect(wrap("one two three", 9, 2)).to.deep.equal(["  one two", "  three"]);
    expect(wrap("one two three", 10, 2)).to.deep.equal(["  one two", "  three"]);
    expect(wrap("one two three", 13, 0)).to.deep.equal(["one two three"]);
    expect(wrap("", 10, 4)).to.deep.equal(["    "]);
  });

  it("keeps every word, and no line is too long but for one long word", () => {
    const words = fc.array(fc.stringMatching(/^[a-z]{1,15}$/), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(
        words,
        fc.integer({ min: 5, max: 40 }),
        fc.integer({ min: 0, max: 4 }),
        (list, width, indent) => {
          const lines = wrap(list.join(" "), width, indent);
          expect(lines.flatMap((line) => line.trim().split(" "))).to.deep.equal(list);
          for (const [i, line] of lines.entries()) {
            expect(line.slice(0, indent)).to.equal(" ".repeat(indent));
            if (line.includes(" ", indent)) expect(line.length).to.be.at.most(width);
            // The next word would not have fitted.
            const [next] = lines[i + 1]?.trim().split(" ") ?? [];
            if (next !== undefined) expect(line.length + 1 + next.length).to.be.above(width);
          }
        },
      ),
    );
  });
});

describe("numbers and times", () => {
  it("are short", () => {
    expect([0, 12, -3, 123456.5, 1e9, 0.000012345].map(formatNumber)).to.deep.equal([
      "0",
      "12",
      "-3",
      "1.235e+5",
      "1.000e+9",
      "0.00001234",
    ]);
    for (const [seconds, text] of [
      [0.04, "0.0 s"],
      [4.24, "4.2 s"],
      [59.94, "59.9 s"],
      [59.96, "1 min 0 s"],
      [90, "1 min 30 s"],
      [3599.4, "59 min 59 s"],
      [3599.6, "1 h 0 min"],
      [7199, "2 h 0 min"],
      [7500, "2 h 5 min"],
      [90_000, "25 h 0 min"],
    ] as const)
      expect(formatSeconds(seconds)).to.equal(text);
  });

  it("of metrics are three, the loss first, those that are none left out", () => {
    expect(formatMetrics({ b: 2, a: 0.5, loss: 1, z: 3 })).to.equal("loss 1  a 0.5000  b 2");
    expect(formatMetrics({ loss: Number.NaN, lr: 0.125 })).to.equal("lr 0.1250");
    expect(formatMetrics()).to.equal("");
  });
});
