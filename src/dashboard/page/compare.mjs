/** Runs beside each other. */
import { Curves, colourOf } from "./curves.mjs";
import { chip, fill, h, markup } from "./dom.mjs";

/**
 * @typedef {import("./main.mjs").App} App
 * @typedef {{runs: {id: string, name: string, status: string}[],
 *   sections: {id: string, title: string, markup: string}[],
 *   curves: {stage: string, metric: string, points: [number, number][]}[][], left: string[]}} Comparison
 */

/** A comparison of runs. */
export class CompareView {
  /** @param {App} app @param {string[]} ids */
  constructor(app, ids) {
    this.app = app;
    this.ids = ids;
    this.title = `${ids.length} runs`;
    /** @type {Curves[]} */
    this.plots = [];
    this.gone = false;
    this.contents = h("div", {}, h("p", { class: "soft" }, "reading …"));
    this.element = h(
      "div",
      { class: "compare-page" },
      h("header", { class: "run-head" }, h("h1", {}, `Comparison of ${ids.length} runs`)),
      this.contents,
    );
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.take = (/** @type {{id: string}} */ message) => {
      if (!ids.includes(message.id)) return;
      clearTimeout(this.timer);
      this.timer = setTimeout(() => void this.load(), 1000);
    };
    app.store.messages.add(this.take);
    void this.load();
  }

  destroy() {
    this.gone = true;
    clearTimeout(this.timer);
    this.app.store.messages.delete(this.take);
    for (const plot of this.plots) plot.destroy();
  }

  /** @private */
  async load() {
    const query = new URLSearchParams(this.ids.map((id) => ["id", id]));
    try {
      const comparison = await this.app.link.ask(`/api/compare?${query}`);
      if (!this.gone) this.show(comparison);
    } catch (error) {
      fill(this.contents, h("p", { role: "alert" }, /** @type {Error} */ (error).message));
    }
  }

  /** @private @param {Comparison} comparison */
  show({ runs, sections, curves, left }) {
    for (const plot of this.plots) plot.destroy();
    this.plots = [];
    const legend = runs.map(({ id, name, status }, i) =>
      h(
        "li",
        {},
        markup(
          `<svg width="11" height="11" aria-hidden="true"><circle cx="5.5" cy="5.5" r="5" class="run${i % 8}"/></svg>`,
        ),
        h("a", { href: this.app.href({ view: "run", id }), title: id }, name),
        " ",
        status === "finished" ? "" : chip(status),
      ),
    );
    const keys = new Map(
      curves.flatMap((own) =>
        own.map(({ stage, metric }) => [JSON.stringify([stage, metric]), { stage, metric }]),
      ),
    );
    const grid = h("div", { class: "curve-grid" });
    fill(
      this.contents,
      h("ul", { class: "legend big" }, legend),
      left.map((line) => h("p", { class: "message" }, line)),
      sections.map(({ markup: text }) => markup(text)),
      keys.size > 0 && h("section", { "aria-label": "Curves" }, h("h2", {}, "Curves"), grid),
    );
    for (const { stage, metric } of [...keys.values()].slice(0, 40)) {
      const lines = curves.flatMap((own, i) => {
        const curve = own.find((c) => c.stage === stage && c.metric === metric);
        const run = /** @type {{name: string}} */ (runs[i]);
        return curve && curve.points.length > 1
          ? [{ label: run.name, colour: colourOf(`run${i % 8}`), points: curve.points }]
          : [];
      });
      if (lines.length === 0) continue;
      const plot = new Curves(`${stage}: ${metric}`, lines);
      this.plots.push(plot);
      grid.append(plot.element);
    }
  }
}
