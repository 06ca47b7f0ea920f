/** Charts: where they are, and which of them stand apart. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { describeChartMap } from "../../../src/algebra/describe-charts.js";
import { centresOf, judgeCharts, readCharts, tile } from "../../../src/method/charts.js";
import type { ChartFindings } from "../../../src/worker/index.js";

/** Findings of a chart whose parts all have one error, up to a given unevenness. */
function chart(
  error: number,
  { constant = 0, uneven = 0, interpolation = 0.01 } = {},
): ChartFindings {
  const parts = Array.from({ length: 9 }, (_, p) => error * (1 + uneven * Math.sin(7 * p)));
  const spread = parts.map(() => 0.03);
  return {
    error,
    low: 0.9 * error,
    high: 1.1 * error,
    interpolation,
    parts,
    spread,
    constant,
  };
}

/** Errors that vary by some percent, as those of charts with the same law do. */
const alike = (count: number, around: number) =>
  Array.from({ length: count }, (_, i) => chart(around * (1 + 0.1 * Math.sin(5 * i + 1))));

describe("the map of charts", () => {
  it("marks no chart where all have the same law", () => {
    for (const count of [1, 2, 3, 4, 9, 36, 100])
      expect(judgeCharts(alike(count, 0.05), 0.15)).to.deep.equal(Array(count).fill("holds"));
  });

  it("marks charts that stand apart, also if most do", () => {
    for (const [holding, broken] of [
      [20, 3],
      [12, 12],
      [8, 14],
    ] as const) {
      const apart = Array.from({ length: broken }, (_, i) => chart(0.12 + 0.02 * i));
      expect(judgeCharts([...alike(holding, 0.04), ...apart], 1)).to.deep.equal([
        ...Array(holding).fill("holds"),
        ...Array(broken).fill("broken"),
      ]);
    }
  });

  it("marks a chart that is broken in one part only", () => {
    const local = chart(0.05);
    local.parts[8] = 0.3;
    expect(judgeCharts([...alike(15, 0.05), local], 1).at(-1)).to.equal("broken");
  });

  it("marks no chart for an error that interpolation may cause", () => {
    const near = (interpolation: number) =>
      judgeCharts([...alike(15, 0.01), chart(0.03, { interpolation })], 0.15).at(-1);
    expect(near(0.02)).to.equal("broken");
    expect(near(0.04)).to.equal("holds");
  });

  it("marks charts above the threshold, whatever the others are", () => {
    expect(judgeCharts(alike(9, 0.4), 0.15)).to.deep.equal(Array(9).fill("broken"));
  });

  it("cannot tell where the input never varies, unless that is nearly everywhere", () => {
    const held = chart(0.05, { constant: 0.2 });
    expect(judgeCharts([...alike(8, 0.05), held], 0.15).at(-1)).to.equal("constant");
    const most = Array.from({ length: 9 }, () => held);
    expect(judgeCharts([...alike(1, 0.05), ...most], 0.15)).to.deep.equal(Array(10).fill("holds"));
  });

  it("is drawn on a terminal", () => {
    const state = (row: number, col: number) =>
      row === 10 ? "holds" : col === 10 ? ("broken" as const) : ("constant" as const);
    const charts = [10, 20].flatMap((row) =>
      [10, 20].map((col) => ({ row, col, state: state(row, col) as "holds", ...chart(0.05) })),
    );
    const lines = describeChartMap({ rIn: 6, rOut: 4, reach: 5, window: 9, charts });
    expect(lines.slice(1)).to.deep.equal([". .", "# o"]);
    expect(lines[0]).to.match(/holds on 2 of 4 .*broken on 1 .*cannot tell on 1 .*19 pixels/);
  });
});

describe("the places of charts", () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-charts-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  it("are a grid, a list, or the middle", () => {
    expect(centresOf("grid:2x3", 64, 80, 10)).to.deep.equal([
      { row: 10, col: 10 },
      { row: 10, col: 40 },
      { row: 10, col: 69 },
      { row: 53, col: 10 },
      { row: 53, col: 40 },
      { row: 53, col: 69 },
    ]);
    expect(centresOf("3,4 5,6", 64, 64, 2)).to.deep.equal([
      { row: 3, col: 4 },
      { row: 5, col: 6 },
    ]);
    expect(centresOf(undefined, 64, 80, 10)).to.deep.equal([{ row: 32, col: 40 }]);
  });

  it("tile a field, as far from its edges as a network sees", () => {
    for (const [height, width, view] of [
      [64, 64, 12],
      [128, 128, 24],
      [50, 200, 7],
      [40, 40, 16],
      [768, 1152, 48],
    ] as const) {
      const { charts, r_in, r_out } = tile(height, width, view);
      expect(r_in).to.be.at.least(r_out);
      for (const [at, size] of charts.flatMap((c) => [
        [c.row, height],
        [c.col, width],
      ]) as [number, number][]) {
        expect(at).to.be.at.least(r_out + view);
        expect(at).to.be.at.most(size - 1 - r_out - view);
      }
      const rows = [...new Set(charts.map((c) => c.row))];
      const gaps = rows.slice(1).map((row, i) => row - rows[i]!);
      for (const gap of gaps) expect(gap).to.be.within(r_out, 4 * r_out + 2);
    }
  });

  it("are read from a file", async () => {
    const file = join(dir, "charts.txt");
    writeFileSync(file, "row,col\n10, 12  # near the middle\n\n20 22\n");
    expect(await readCharts(file)).to.equal("10,12 20,22");
    expect(await readCharts(" grid:4x4 ")).to.equal("grid:4x4");
    expect(await readCharts(undefined)).to.equal(undefined);
  });

  it("are refused if they are none", async () => {
    writeFileSync(join(dir, "none.txt"), "# nothing\n");
    writeFileSync(join(dir, "words.txt"), "1,2\nhere\n");
    for (const [text, message] of [
      ["1;2", /--charts 1;2: expected row,col/],
      ["grid:0x4", /expected row,col/],
      [join(dir, "missing.txt"), /expected row,col/],
      [join(dir, "none.txt"), /lists no charts/],
      [join(dir, "words.txt"), /words\.txt: .*here/],
    ] as const) {
      const refused = await readCharts(text).then(
        () => undefined,
        (error: Error) => error.message,
      );
      expect(refused).to.match(message);
    }
  });
});
