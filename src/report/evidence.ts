/** The evidence for an algebra in a report: the verdict, and what each direction loses. */
import { interval, ofSizes } from "../algebra/interval.js";
import type { AlgebraEvidence } from "../result.js";
import { type Html, html } from "./html.js";
import { short, svg } from "./plots.js";

const WIDTH = 560;
const LEFT = 96;
const ROW = 22;
/** Skill lost at the left end of the axis, which is logarithmic. */
const LEAST = 1e-4;

/** Draw the skill that each direction loses, with its interval, and tell the verdict. */
export function evidenceSection(evidence: AlgebraEvidence, symmetries: number): Html {
  const { verdict, words, skill, skillError, scenes, heldOut, targets, size } = evidence;
  const rows = evidence.directions.flatMap(({ sizes }, i) => {
    const near = (at: number | null) => Math.abs(Math.log((at ?? 1) / (size ?? 1)));
    const [judged] = ofSizes(sizes).sort((a, b) => near(a.size) - near(b.size));
    const lost = judged && interval(judged);
    if (lost === undefined || !Object.values(lost).every(Number.isFinite)) return [];
    const kept = i < symmetries;
    return [{ ...lost, kept, name: `${kept ? "generator" : "direction"} ${i + 1}` }];
  });
  const judge = heldOut ? "held-out scenes" : "scenes that the predictor was fitted to";
  const about = targets
    ? `Skill of the predictor ${short(skill ?? Number.NaN)} ± ${short(skillError ?? Number.NaN)}, on ${scenes} ${judge}.`
    : `No targets: the predictor's own outputs, on ${scenes} scenes, take their place.`;
  return html`<h3>Evidence: ${verdict}</h3>
<p>${words}.</p>
<p>${about} The skill lost is 0 for an exact symmetry, and 1 if no more is left than a constant knows.
Bars are 95 % intervals at moves of about the same size (${short(size ?? Number.NaN)}).</p>
${lostPlot(rows, "skill lost along each direction")}`;
}

/** Skill lost, with its interval. */
export interface LostRow {
  name: string;
  value: number;
  low: number;
  high: number;
  /** Whether it is lost by a symmetry. */
  kept: boolean;
}

/** Draw skill lost as bars on a logarithmic axis. */
export function lostPlot(rows: readonly LostRow[], label: string, left = LEFT): Html {
  const most = Math.max(1, ...rows.map(({ high }) => high));
  const x = (lost: number) => {
    const share = Math.log(Math.max(lost, LEAST) / LEAST) / Math.log(most / LEAST);
    return left + share * (WIDTH - left - 24);
  };
  const ticks = [1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100].filter((tick) => tick <= most);
  const height = rows.length * ROW + 34;
  return svg(WIDTH, height, label, [
    html`${ticks.map((tick) => html`<line class="grid" x1="${x(tick)}" x2="${x(tick)}" y1="4" y2="${height - 26}"/><text class="tick middle" x="${x(tick)}" y="${height - 10}">${String(tick)}</text>`)}
${rows.map(({ value, low, high, name, kept }, i) => {
  const y = i * ROW + 16;
  const kind = kept ? "symmetry" : "other";
  return html`<text class="tick" x="0" y="${y + 4}">${name}</text><rect class="${kind}" x="${x(low)}" y="${y - 3}" width="${Math.max(2, x(high) - x(low))}" height="6" rx="3"><title>${name}: ${short(value)}, from ${short(low)} to ${short(high)}</title></rect><circle class="head" cx="${x(value)}" cy="${y}" r="3.5"/>`;
})}`,
  ]);
}
