/**
 * Draws README's picture from a finished run of pde: `npx tsx test/bench/picture.ts RUN_FOLDER >
 * .github/pde.svg`.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { flowPlot, imagePlot } from "../../src/report/plots.js";
import { Result } from "../../src/result.js";

const CSS = `
svg { --ink: #1d2128; --soft: #656d78; --line: #d9dce0; --panel: #f4f5f7; --accent: #2a6fb5; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e7e9ed; --soft: #9aa3af; --line: #2d333d; --panel: #222832; --accent: #6fb1ee; }
}
text {
  font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
  fill: var(--ink); text-anchor: middle;
}
text.tick, text.soft { fill: var(--soft); font-size: 11.5px; } text.end { text-anchor: end; }
text.arrow { font-size: 24px; fill: var(--soft); }
.panel { fill: var(--panel); } .axis { stroke: var(--line); }
.orbit { fill: none; stroke: var(--accent); stroke-opacity: .4; stroke-width: 1.2; }
.shaft { stroke: var(--ink); stroke-width: 1.3; } .head { fill: var(--ink); }
.before { fill: none; stroke: var(--soft); stroke-dasharray: 3 3; }
.after { fill: none; stroke: var(--accent); stroke-width: 1.8; }
.after.filled { fill: var(--accent); fill-opacity: .3; }
.chart { fill: none; stroke: #fff; stroke-width: .7; } .inner { display: none; }
.centre { fill: #fff; } image { image-rendering: pixelated; }
`;
const SIZE = 210;
const STEP = SIZE + 44;

const folder = process.argv[2]!;
const { algebra, cosets } = Result.parse(
  JSON.parse(readFileSync(join(folder, "result.json"), "utf8")),
);
const report = readFileSync(join(folder, "report.html"), "utf8");
const field = /<svg class="field"[\s\S]*?<\/svg>/.exec(report)![0];
const generator = algebra!.generators[0]!;
const coset = cosets!.find((c) => c.determinant < 0)!;

const panels: [svg: string, caption: string, detail: string][] = [
  [field, "data, seen through charts", "heat on a plate with a hole"],
  [
    flowPlot(generator, "flow of the generator").text,
    `a generator of ${algebra!.identified.name}`,
    `${algebra!.identified.angleDegrees.toFixed(1)}° from exact, as learnt`,
  ],
  [
    imagePlot(coset.matrix, "the further component").text,
    `and a ${coset.name}`,
    "the one further component",
  ],
];
const text = (x: number, y: number, words: string, kind?: string) =>
  `<text x="${x}" y="${y}"${kind === undefined ? "" : ` class="${kind}"`}>${words}</text>`;
const placed = panels.map(([svg, caption, detail], i) => {
  const at = svg.replace(
    / width="[^"]*" height="[^"]*"/,
    ` x="${i * STEP}" y="0" width="${SIZE}" height="${SIZE}"`,
  );
  const middle = i * STEP + SIZE / 2;
  const sign = i === 0 ? "" : text(i * STEP - 22, SIZE / 2 + 8, i === 1 ? "→" : "+", "arrow");
  const below = [text(middle, SIZE + 22, caption), text(middle, SIZE + 40, detail, "soft")];
  return [sign, at, ...below].join("");
});
const [width, height] = [2 * STEP + SIZE, SIZE + 48];
process.stdout.write(
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" ` +
    `width="${width}" height="${height}"><style>${CSS}</style>${placed.join("")}</svg>\n`,
);
