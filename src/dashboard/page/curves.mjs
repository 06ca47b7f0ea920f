/** Curves by epoch and by step, with hover and zoom (uPlot). */
import { digits, fill, h } from "./dom.mjs";

/**
 * A line by epoch, or by the steps of epochs. A value that is null is a gap.
 *
 * @typedef {{label: string, colour: string, points: [number, number | null][], steps?: boolean}} Line
 * @typedef {{setData(data: (number | null | undefined)[][]): void, destroy(): void,
 *   setSize(size: {width: number, height: number}): void}} Plot
 */

const HEIGHT = 190;
/** Distances between ticks: of epochs, and of parts of them. */
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 1e5, 1e6];
const PARTS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];

/** Whether there are so few points that each is shown. @param {Line["points"]} points */
const dotted = (points) => points.length <= 30;

/** Get a colour of the style sheet. @param {string} name */
export function colourOf(name) {
  return getComputedStyle(document.body).getPropertyValue(`--${name}`).trim() || "#888";
}

/** A figure with one plot. */
export class Curves {
  /** @param {string} title @param {Line[]} lines */
  constructor(title, lines) {
    this.title = title;
    this.lines = lines;
    /** @type {Plot | undefined} */
    this.plot = undefined;
    this.logarithmic = wantsLogarithm(lines);
    this.place = h("div", { class: "plot", role: "img" });
    this.last = h("span", { class: "soft" });
    this.toggle = h(
      "button",
      {
        class: "small",
        type: "button",
        "aria-pressed": this.logarithmic,
        title: "logarithmic scale",
        "aria-label": `logarithmic scale of ${title}`,
        onclick: () => {
          this.logarithmic = !this.logarithmic;
          this.toggle.setAttribute("aria-pressed", String(this.logarithmic));
          this.draw();
        },
      },
      "log",
    );
    this.element = h(
      "figure",
      { class: "curves", "aria-label": title },
      h("figcaption", {}, h("b", {}, title), " ", this.last, this.toggle),
      this.place,
    );
    this.observer = new ResizeObserver(() => this.fit());
    this.observer.observe(this.element);
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.repaint = () => this.draw();
    this.dark.addEventListener("change", this.repaint);
    this.tell();
  }

  /** Show other points. @param {Line[]} lines */
  update(lines) {
    const same =
      lines.length === this.lines.length &&
      lines.every(({ points, label }, i) => {
        const before = /** @type {Line} */ (this.lines[i]);
        return label === before.label && dotted(points) === dotted(before.points);
      });
    this.lines = lines;
    this.tell();
    if (same && this.plot) this.plot.setData(this.data());
    else this.draw();
  }

  /** @private */
  tell() {
    this.place.setAttribute("aria-label", this.lines.map(inWords).filter(Boolean).join("; "));
    const steps = this.lines.find((line) => line.steps)?.points.at(-1);
    const [line, ...others] = this.lines.filter((line) => !line.steps);
    const last = others.length === 0 ? line?.points.at(-1) : undefined;
    const value = (/** @type {string} */ name, /** @type {number | null} */ x) =>
      h("span", { [name]: x, title: String(x) }, digits(x ?? Number.NaN));
    fill(
      this.last,
      last && value("data-value", last[1]),
      steps && [last ? " · step " : "step ", value("data-step", steps[1])],
    );
  }

  /** @private */
  data() {
    const epochs = [...new Set(this.lines.flatMap(({ points }) => points.map(([x]) => x)))];
    epochs.sort((a, b) => a - b);
    const ys = this.lines.map(({ points }) => {
      const values = new Map(points);
      return epochs.map((x) => {
        const y = values.get(x);
        return this.logarithmic && typeof y === "number" && y <= 0 ? null : y;
      });
    });
    return [epochs, ...ys];
  }

  /** @private */
  fit() {
    const width = this.place.clientWidth;
    if (width === 0) return;
    if (this.plot) this.plot.setSize({ width, height: HEIGHT });
    else this.draw();
  }

  /** @private */
  draw() {
    this.plot?.destroy();
    const width = this.place.clientWidth;
    if (width === 0) return;
    const axis = {
      stroke: colourOf("soft"),
      grid: { stroke: colourOf("line"), width: 1 },
      ticks: { stroke: colourOf("line"), width: 1 },
      font: "11px system-ui, sans-serif",
    };
    const uPlot = /** @type {any} */ (globalThis).uPlot;
    this.plot = /** @type {Plot} */ (
      new uPlot(
        {
          width,
          height: HEIGHT,
          scales: { x: { time: false }, y: { distr: this.logarithmic ? 3 : 1 } },
          legend: { live: true },
          cursor: { drag: { x: true, y: false } },
          axes: [
            {
              ...axis,
              size: 28,
              incrs: this.lines.some((line) => line.steps) ? [...PARTS, ...WHOLE] : WHOLE,
            },
            {
              ...axis,
              size: 58,
              values: (/** @type {unknown} */ _, /** @type {(number | null)[]} */ ticks) =>
                ticks.map((t) => (t === null ? "" : short(t))),
            },
          ],
          series: [
            { label: "epoch" },
            ...this.lines.map(({ label, colour, points, steps = false }) => ({
              label,
              stroke: colour,
              width: steps ? 1 : 1.6,
              spanGaps: !steps,
              points: { show: !steps && dotted(points), size: 5 },
              value: (/** @type {unknown} */ _, /** @type {number | null} */ y) =>
                y === null || y === undefined ? "–" : digits(y),
            })),
          ],
        },
        this.data(),
        this.place,
      )
    );
  }

  /** Free the plot. */
  destroy() {
    this.observer.disconnect();
    this.dark.removeEventListener("change", this.repaint);
    this.plot?.destroy();
  }
}

/** Say what a line shows. @param {Line} line @returns {string} */
function inWords({ label, points }) {
  const finite = points.filter((point) => point[1] !== null);
  const [first, last] = [finite[0], finite.at(-1)];
  if (first === undefined || last === undefined) return "";
  /** @type {(better: (a: number, b: number) => boolean) => [number, number | null]} */
  const best = (better) =>
    finite.reduce((a, b) => (better(Number(b[1]), Number(a[1])) ? b : a), first);
  const place = (/** @type {[number, number | null]} */ [epoch, value]) =>
    `${digits(Number(value))} at epoch ${digits(epoch)}`;
  const least = place(best((a, b) => a < b));
  return `${label}: from ${place(first)} to ${place(last)}; least ${least}, largest ${place(best((a, b) => a > b))}`;
}

/** Whether the values are positive and differ by much. @param {Line[]} lines */
function wantsLogarithm(lines) {
  let [least, most] = [Number.POSITIVE_INFINITY, 0];
  for (const { points } of lines)
    for (const [, y] of points) {
      if (y === null) continue;
      if (!(y > 0)) return false;
      least = Math.min(least, y);
      most = Math.max(most, y);
    }
  return most / least > 20;
}

/** @param {number} x */
function short(x) {
  if (x === 0) return "0";
  const size = Math.abs(x);
  return size >= 1e-3 && size < 1e5 ? String(Number(x.toPrecision(3))) : x.toExponential(0);
}
