/** Reading logs in parts, and choosing points for a screen. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import fc from "fast-check";
import { thin } from "../../../src/report/thin.js";
import { readLog, readTail } from "../../../src/run/log.js";
import { epochLine } from "./folders.js";

describe("a log that is read in parts", () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-log-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  it("gives every event once, wherever the lines end", async () => {
    const line = fc.oneof(
      fc.integer({ min: 1, max: 1000 }).map((epoch) => epochLine(epoch)),
      fc.constantFrom("\n", "no event\n", `${"é".repeat(300_000)}\n`, '{"type":"finished"}\n'),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(line, { maxLength: 30 }), fc.string(), async (lines, torn) => {
        const whole = lines.join("");
        const rest = torn.replaceAll("\n", "");
        writeFileSync(join(dir, "events.jsonl"), whole + rest);
        const epochs: (number | undefined)[] = [];
        let at = 0;
        for (let more = true; more; ) {
          const part = await readLog(dir, at);
          for (const [, event] of part.events)
            epochs.push(event.type === "epoch" ? event.epoch : undefined);
          at = part.to;
          more = part.more;
        }
        const wanted = lines
          .filter((text) => text.includes('"epoch":'))
          .map((text) => JSON.parse(text));
        expect(epochs).to.deep.equal(wanted.map(({ epoch }) => epoch));
        expect(at).to.equal(Buffer.byteLength(whole));
        expect((await readTail(dir)).at).to.equal(at);
      }),
      { numRuns: 40 },
    );
  });

  it("has a tail with the newest epoch", async () => {
    const warning = `${JSON.stringify({ type: "warning", time: "", message: "w".repeat(900) })}\n`;
    writeFileSync(join(dir, "events.jsonl"), epochLine(7) + warning.repeat(50));
    const { events } = await readTail(dir);
    expect(events.find(({ type }) => type === "epoch")).to.include({ epoch: 7 });
  });
});

describe("points for a screen", () => {
  it("are points of the curve, with its ends and its extremes", () => {
    const value = fc.double({ noNaN: true, min: -1e6, max: 1e6 });
    fc.assert(
      fc.property(
        fc.array(value, { minLength: 1, maxLength: 500 }),
        fc.integer({ min: 4, max: 60 }),
        (values, most) => {
          const points = values.map((y, x): [number, number] => [x, y]);
          const chosen = thin(points, most);
          expect(chosen.length).to.be.at.most(Math.max(most, 4));
          for (const [x, y] of chosen) expect(values[x]).to.equal(y);
          expect(chosen.map(([x]) => x)).to.deep.equal(
            [...new Set(chosen.map(([x]) => x))].sort((a, b) => a - b),
          );
          expect(chosen[0]).to.deep.equal(points[0]);
          expect(chosen.at(-1)).to.deep.equal(points.at(-1));
          const extremes = (all: number[]) => [Math.min(...all), Math.max(...all)];
          expect(extremes(chosen.map(([, y]) => y))).to.deep.equal(extremes(values));
        },
      ),
    );
  });
});
