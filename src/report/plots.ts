/** Drawings for the report: inline SVG in the colours of the page, which suit light and dark. */
import { formatEntry } from "../algebra/describe.js";
import { expm, type SquareMatrix } from "../algebra/index.js";
import { combine, norm } from "../algebra/linalg.js";
import { type Html, html } from "./html.js";

/** Draw a matrix as a heat map with its numbers. Colours show signs, their strength the sizes. */
export function matrixPlot(matrix: SquareMatrix, name: string): Html {
  const n = matrix.length;
  const cell = n <= 2 ? 58 : n === 3 ? 46 : 42;
  const largest = Math.max(1e-12, ...matrix.flat().map(Math.abs));
  const cells = matrix.flatMap((row, r) =>
    row.map(
      (
        x,
        c,
      ) => html`<rect x="${c * cell + 1}" y="${r * cell + 1}" width="${cell - 2}" height="${cell - 2}" rx="4" class="cell"/>
<rect x="${c * cell + 1}" y="${r * cell + 1}" width="${cell - 2}" height="${cell - 2}" rx="4" class="${x < 0 ? "minus" : "plus"}" fill-opacity="${0.75 * (Math.abs(x) / largest)}"/>
<text x="${(c + 0.5) * cell}" y="${(r + 0.5) * cell + 4}" class="entry">${formatEntry(x)}</text>`,
    ),
  );
  return svg(n * cell, n * cell, name, cells);
}

/**
 * Draw the flow of a planar generator: arrows of u ↦ Bu, and orbits exp(tB)u. The first coordinate
 * points to the right, the second upwards.
 */
export function flowPlot(generator: SquareMatrix, name: string, size = 216): Html {
  const unit = unitOf(generator);
  const arrows = [];
  for (let i = -4; i <= 4; i++)
    for (let j = -4; j <= 4; j++) {
      const u: Point = [i / 4, j / 4];
      const v = apply(unit, u).map((x) => 0.15 * x) as Point;
      if (Math.hypot(...v) > 0.01)
        arrows.push(
          arrow(
            place([u[0] - v[0] / 2, u[1] - v[1] / 2], size),
            place([u[0] + v[0] / 2, u[1] + v[1] / 2], size),
          ),
        );
    }
  return plane(size, name, [...orbits(unit, size, "orbit"), ...arrows]);
}

/** A flow of {@link flowsPlot}, and the CSS class for its colour. */
export interface KindOfFlow {
  generator: SquareMatrix;
  kind: string;
}

/** Draw the orbits of several planar generators over each other. */
export function flowsPlot(flows: readonly KindOfFlow[], name: string, size = 216): Html {
  const lines = flows.flatMap(({ generator, kind }) =>
    orbits(unitOf(generator), size, `orbit ${kind}`),
  );
  return plane(size, name, lines);
}

type Point = [x: number, y: number];

/** Half the width of the plane that is drawn. */
const REACH = 1.25;

function plane(size: number, name: string, content: Html[]): Html {
  const middle = size / 2;
  return svg(size, size, name, [
    html`<rect width="${size}" height="${size}" rx="6" class="panel"/>
<line x1="0" y1="${middle}" x2="${size}" y2="${middle}" class="axis"/><line x1="${middle}" y1="0" x2="${middle}" y2="${size}" class="axis"/>`,
    ...content,
    html`<text x="${size - 6}" y="${middle - 5}" class="tick end">u₁</text><text x="${middle + 5}" y="13" class="tick">u₂</text>`,
  ]);
}

function unitOf(generator: SquareMatrix): SquareMatrix {
  return combine([1 / (norm(generator) || 1)], [generator], 2);
}

function place([x, y]: Point, size: number): Point {
  return [(0.5 + x / (2 * REACH)) * size, (0.5 - y / (2 * REACH)) * size];
}

function apply(m: SquareMatrix, [x, y]: Readonly<Point>): Point {
  return [m[0]![0]! * x + m[0]![1]! * y, m[1]![0]! * x + m[1]![1]! * y];
}

/** Draw orbits of a generator of norm 1 from fixed starts, in both senses. */
function orbits(unit: SquareMatrix, size: number, kind: string): Html[] {
  return orbitStarts().flatMap((start) =>
    [1, -1].map((sense) => {
      const step = expm(combine([0.06 * sense], [unit], 2));
      const points: string[] = [];
      let u = start;
      for (let i = 0; i <= 75 && Math.max(...u.map(Math.abs)) <= REACH; i++) {
        const shown = place(u, size).map((x) => x.toFixed(1));
        points.push(shown.join(","));
        u = apply(step, u);
      }
      return html`<polyline points="${points.join(" ")}" class="${kind}"/>`;
    }),
  );
}

function orbitStarts(): [number, number][] {
  return [0.35, 0.7, 1].flatMap((r) =>
    [0, 1, 2, 3].map((i): [number, number] => [
      r * Math.cos((i * Math.PI) / 2 + 0.4),
      r * Math.sin((i * Math.PI) / 2 + 0.4),
    ]),
  );
}

function arrow([x1, y1]: [number, number], [x2, y2]: [number, number]): Html {
  const [dx, dy] = [x2 - x1, y2 - y1];
  const length = Math.hypot(dx, dy);
  const head = Math.min(4.5, length * 0.5) / length;
  const side = (s: number) =>
    `${(x2 - head * (dx - s * 0.6 * dy)).toFixed(1)},${(y2 - head * (dy + s * 0.6 * dx)).toFixed(1)}`;
  return html`<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" class="shaft"/><polygon points="${x2.toFixed(1)},${y2.toFixed(1)} ${side(1)} ${side(-1)}" class="head"/>`;
}

/** Draw what a planar matrix does to a letter F in a square; this shows turns and reflections. */
export function imagePlot(matrix: SquareMatrix, name: string, size = 150): Html {
  const square: [number, number][] = [
    [-1, -1],
    [1, -1],
    [1, 1],
    [-1, 1],
  ];
  const letter: [number, number][] = [
    [-0.5, -0.75],
    [-0.2, -0.75],
    [-0.2, -0.1],
    [0.3, -0.1],
    [0.3, 0.2],
    [-0.2, 0.2],
    [-0.2, 0.45],
    [0.55, 0.45],
    [0.55, 0.75],
    [-0.5, 0.75],
  ];
  const moved = (points: [number, number][]) =>
    points.map(([x, y]): [number, number] => [
      matrix[0]![0]! * x + matrix[0]![1]! * y,
      matrix[1]![0]! * x + matrix[1]![1]! * y,
    ]);
  const reach = 1.1 * Math.max(1.3, ...moved(square).flat().map(Math.abs));
  const path = (points: [number, number][]) =>
    points
      .map(
        ([x, y]) =>
          `${((0.5 + x / (2 * reach)) * size).toFixed(1)},${((0.5 - y / (2 * reach)) * size).toFixed(1)}`,
      )
      .join(" ");
  return svg(size, size, name, [
    html`<rect width="${size}" height="${size}" rx="6" class="panel"/>
<polygon points="${path(square)}" class="before"/><polygon points="${path(letter)}" class="before"/>
<polygon points="${path(moved(square))}" class="after"/><polygon points="${path(moved(letter))}" class="after filled"/>`,
  ]);
}

/** A bar of {@link barPlot}. */
export interface Bar {
  value: number;
  /** CSS class for its colour. */
  kind: string;
  /** Text that appears on pointing at the bar. */
  title: string;
}

/**
 * Draw losses as bars, with a line for the level that interpolation alone may cause. The scale is
 * logarithmic if the losses differ by much.
 */
export function barPlot(
  bars: readonly Bar[],
  floor: number,
  name: string,
  labels: { x: string; y: string },
): Html {
  const [height, left, bottom, top] = [240, 58, 34, 20];
  const width = Math.min(880, Math.max(330, left + 8 + 90 * bars.length));
  const values = bars.map((b) => b.value).filter((x) => Number.isFinite(x));
  const scale = makeScale([...values, ...(floor > 0 ? [floor] : [])], height - bottom, top, true);
  const slot = (width - left - 8) / Math.max(1, bars.length);
  const room = Math.min(slot * 0.72, 56);
  const base = height - bottom;
  return svg(width, height, name, [
    ...gridLines(scale, left, width - 8),
    ...bars.map(({ value, kind, title }, i) => {
      const y = Number.isFinite(value) ? scale.at(value) : top;
      const x = left + (i + 0.5) * slot - room / 2;
      const number =
        slot > 44 && Number.isFinite(value)
          ? html`<text x="${x + room / 2}" y="${y - 5}" class="tick middle">${short(value)}</text>`
          : undefined;
      return html`<rect x="${x}" y="${y}" width="${room}" height="${Math.max(1, base - y)}" rx="${Math.min(3, room / 4)}" class="${kind}"><title>${title}</title></rect>${number}`;
    }),
    floor > 0
      ? html`<line x1="${left}" y1="${scale.at(floor)}" x2="${width - 8}" y2="${scale.at(floor)}" class="floor"/>`
      : html``,
    html`<line x1="${left}" y1="${base}" x2="${width - 8}" y2="${base}" class="axis strong"/>
<text x="${(left + width) / 2}" y="${height - 10}" class="tick middle">${labels.x}</text>
<text transform="translate(13 ${(top + base) / 2}) rotate(-90)" class="tick middle">${labels.y}${scale.logarithmic ? " (log)" : ""}</text>`,
  ]);
}

/** A value after an epoch. */
export interface CurvePoint {
  epoch: number;
  value: number;
}

/** Draw one metric over the epochs of a stage. */
export function curvePlot(points: readonly CurvePoint[], name: string): Html {
  return curvesPlot([{ points, kind: "" }], name);
}

/** Draw a metric of several runs; `kind` is the CSS class for the colour of a line. */
export function curvesPlot(
  lines: readonly { points: readonly CurvePoint[]; kind: string }[],
  name: string,
): Html {
  const [width, height, left, bottom, top] = [330, 190, 58, 30, 14];
  const all = lines.flatMap(({ points }) => points);
  const scale = makeScale(
    all.map((p) => p.value),
    height - bottom,
    top,
    false,
  );
  const [first, last] = [
    all.reduce((least, p) => Math.min(least, p.epoch), Number.POSITIVE_INFINITY),
    all.reduce((most, p) => Math.max(most, p.epoch), Number.NEGATIVE_INFINITY),
  ];
  const x = (epoch: number) =>
    left + ((epoch - first) / Math.max(1, last - first)) * (width - left - 14);
  const drawn = lines.flatMap(({ points, kind }) => {
    const path = points
      .map((p) => `${x(p.epoch).toFixed(1)},${scale.at(p.value).toFixed(1)}`)
      .join(" ");
    const marks = points.length <= 40 ? points : points.slice(-1);
    return [
      html`<polyline points="${path}" class="${kind === "" ? "curve" : `curve ${kind}`}"/>`,
      ...marks.map(
        (p) =>
          html`<circle cx="${x(p.epoch)}" cy="${scale.at(p.value)}" r="3" class="${kind === "" ? "dot" : kind}"><title>epoch ${p.epoch}: ${short(p.value)}</title></circle>`,
      ),
    ];
  });
  return svg(width, height, name, [
    ...gridLines(scale, left, width - 8),
    ...drawn,
    html`<text x="${left}" y="${height - 9}" class="tick middle">${first}</text><text x="${x(last)}" y="${height - 9}" class="tick middle">${last}</text>
<text x="${(left + width) / 2}" y="${height - 9}" class="tick middle">epoch${scale.logarithmic ? ", log scale" : ""}</text>`,
  ]);
}

/** A group of dots of {@link dotPlot}: the runs of one cell. */
export interface DotGroup {
  label: string;
  dots: readonly { value: number; title: string }[];
}

/** Draw a figure of all runs: one column of dots for each group, with a line at its median. */
export function dotPlot(groups: readonly DotGroup[], name: string): Html {
  const [width, height, left, bottom, top] = [880, 230, 58, 40, 14];
  const scale = makeScale(
    groups.flatMap(({ dots }) => dots.map(({ value }) => value)),
    height - bottom,
    top,
    false,
  );
  const slot = (width - left - 8) / Math.max(1, groups.length);
  const half = Math.min(slot * 0.35, 60);
  return svg(width, height, name, [
    ...gridLines(scale, left, width - 8),
    ...groups.map(({ label, dots }, i) => {
      const middle = left + (i + 0.5) * slot;
      const sorted = dots.map(({ value }) => value).sort((a, b) => a - b);
      const median = (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
      const across = (j: number) =>
        middle + (dots.length < 2 ? 0 : (j / (dots.length - 1) - 0.5) * 1.6 * half);
      return html`${dots.map(
        ({ value, title }, j) =>
          html`<circle cx="${across(j)}" cy="${scale.at(value)}" r="4" class="dot"><title>${title}: ${short(value)}</title></circle>`,
      )}${
        dots.length > 0
          ? html`<line x1="${middle - half}" y1="${scale.at(median)}" x2="${middle + half}" y2="${scale.at(median)}" class="floor"/>`
          : undefined
      }${
        slot > 30
          ? html`<text x="${middle}" y="${height - 22}" class="tick middle">${label.slice(0, Math.floor(slot / 6))}</text>`
          : undefined
      }`;
    }),
    html`<text x="${(left + width) / 2}" y="${height - 5}" class="tick middle">${name}${scale.logarithmic ? " (log scale)" : ""}; a dot is a run, the dashed line the median</text>`,
  ]);
}

interface Scale {
  logarithmic: boolean;
  ticks: number[];
  at(value: number): number;
}

/** Map values to heights. Bars start at 0, unless the scale is logarithmic. */
function makeScale(values: readonly number[], low: number, high: number, fromZero: boolean): Scale {
  const finite = values.filter(Number.isFinite);
  const [least, most] = finite.length > 0 ? [Math.min(...finite), Math.max(...finite)] : [0, 1];
  if (least > 0 && most / least > (fromZero ? 30 : 8)) {
    const [from, to] = [Math.log10(least) - 0.15, Math.log10(most) + 0.05];
    const decades = Math.ceil(to) - Math.floor(from) + 1;
    const steps = decades > 4 ? [1] : [1, 2, 5];
    const ticks = Array.from({ length: decades }, (_, i) => Math.floor(from) + i)
      .flatMap((e) => steps.map((s) => s * 10 ** e))
      .filter((t) => Math.log10(t) >= from && Math.log10(t) <= to);
    const at = (value: number) =>
      low - ((Math.log10(Math.max(value, 10 ** from)) - from) / (to - from)) * (low - high);
    return { logarithmic: true, ticks, at };
  }
  const spread = most - least || Math.abs(most) || 1;
  const from = fromZero ? Math.min(0, least) : least - 0.08 * spread;
  const to = most + (fromZero ? 0.02 : 0.08) * spread;
  const raw = (to - from) / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((s) => s * power).find((s) => s >= raw) ?? raw;
  const ticks = [];
  for (let t = Math.ceil(from / step) * step; t <= to + 1e-9 * step; t += step) ticks.push(t);
  return {
    logarithmic: false,
    ticks,
    at: (value) => low - ((value - from) / (to - from)) * (low - high),
  };
}

function gridLines(scale: Scale, left: number, right: number): Html[] {
  return scale.ticks.map(
    (t) =>
      html`<line x1="${left}" y1="${scale.at(t)}" x2="${right}" y2="${scale.at(t)}" class="grid"/><text x="${left - 6}" y="${scale.at(t) + 4}" class="tick end">${short(t)}</text>`,
  );
}

/** Write a number with three digits, or a dash if it is not finite. */
export function short(x: number): string {
  if (!Number.isFinite(x)) return "–";
  if (x === 0) return "0";
  return Math.abs(x) >= 1e-3 && Math.abs(x) < 1e5
    ? String(Number(x.toPrecision(3)))
    : x.toExponential(1);
}

/** Width of a drawing above which it is scrolled on a narrow screen, so that its texts stay legible. */
const NARROW = 500;

/** Make an SVG with a name for readers who cannot see it. */
export function svg(width: number, height: number, name: string, content: readonly Html[]): Html {
  const drawing = html`<svg viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${name}"><title>${name}</title>
${content}</svg>`;
  if (width <= NARROW) return drawing;
  return html`<div class="${width > 1.3 * NARROW ? "scroll broad" : "scroll"}">${drawing}</div>`;
}
