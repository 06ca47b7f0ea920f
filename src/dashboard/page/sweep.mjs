/** A sweep: a row for each combination of values, with its seeds drawn together. */
import { bar, digits, fill, h, reportFrame } from "./dom.mjs";

/**
 * @typedef {import("./main.mjs").App} App
 * @typedef {{values: Record<string, string>, runs: string[], states: Record<string, number>,
 *   findings: Record<string, number>,
 *   metrics: Record<string, {median: number, least: number, largest: number, count: number}>}} Cell
 * @typedef {{id: string, created: string, experiment: string, grid: string, runs: string[],
 *   pool: string, message: string, report: boolean, cells: Cell[]}} Table
 */

/** A sweep. */
export class SweepView {
  /** @param {App} app @param {string} id */
  constructor(app, id) {
    this.app = app;
    this.id = id;
    this.title = `sweep ${id}`;
    this.gone = false;
    this.contents = h("div", {}, h("p", { class: "soft" }, "reading …"));
    this.report = h("div", {});
    this.element = h("div", { class: "sweep-page" }, this.contents, this.report);
    /** @type {Set<string>} */
    this.runs = new Set();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.take = (/** @type {{id: string}} */ message) => {
      if (!this.runs.has(message.id) || this.timer !== undefined) return;
      this.timer = setTimeout(() => {
        this.timer = undefined;
        void this.load();
      }, 1000);
    };
    app.store.messages.add(this.take);
    void this.load();
  }

  destroy() {
    this.gone = true;
    clearTimeout(this.timer);
    this.app.store.messages.delete(this.take);
  }

  /** @private */
  async load() {
    try {
      const table = await this.app.link.ask(`/api/sweep?id=${encodeURIComponent(this.id)}`);
      this.runs = new Set(table.runs);
      if (!this.gone) this.show(table);
    } catch (error) {
      fill(
        this.contents,
        h("h1", {}, this.title),
        h("p", { role: "alert" }, /** @type {Error} */ (error).message),
      );
    }
  }

  /** @private @param {Table} table */
  show({ id, experiment, grid, pool, message, created, cells, runs, report }) {
    const done = cells.reduce((sum, { states }) => sum + (states.finished ?? 0), 0);
    const failed = cells.reduce((sum, { states }) => sum + (states.failed ?? 0), 0);
    const fields = [...new Set(cells.flatMap(({ values }) => Object.keys(values)))];
    const metrics = [...new Set(cells.flatMap((cell) => Object.keys(cell.metrics)))].slice(0, 12);
    if (report && this.report.childElementCount === 0) {
      const query = new URLSearchParams({ sweep: id });
      this.report.append(reportFrame(id, () => this.app.link.ask(`/api/ticket?${query}`)));
    }
    fill(
      this.contents,
      h(
        "header",
        { class: "run-head" },
        h(
          "p",
          { class: "soft" },
          [experiment, pool, created && new Date(created).toLocaleString()]
            .filter(Boolean)
            .join(" · "),
        ),
        h("h1", {}, `Sweep ${id}`),
        h("p", { class: "soft" }, h("code", {}, grid)),
        message !== "" && h("p", { class: "message", role: "alert" }, message),
        h(
          "div",
          { class: "stage" },
          h("b", {}, `${done} of ${runs.length} finished${failed > 0 ? `, ${failed} failed` : ""}`),
          bar(done, runs.length, "runs that are finished"),
        ),
      ),
      h(
        "section",
        { "aria-label": "Cells" },
        h("h2", {}, "Cells"),
        h("p", {}, "Numbers are medians over the seeds, with the least and the largest."),
        h(
          "div",
          { class: "scroll" },
          h(
            "table",
            { class: "wide", "aria-label": "Cells" },
            h(
              "thead",
              {},
              h(
                "tr",
                {},
                [...fields, "runs", "found", ...metrics].map((name) =>
                  h("th", { scope: "col" }, name),
                ),
              ),
            ),
            h(
              "tbody",
              {},
              cells.map((cell) => this.row(cell, fields, metrics)),
            ),
          ),
        ),
      ),
    );
  }

  /** @private @param {Cell} cell @param {string[]} fields @param {string[]} metrics */
  row({ values, runs, states, findings, metrics: numbers }, fields, metrics) {
    const ids = runs.slice(0, 20);
    const words = Object.entries(states).map(([state, n]) => `${n} ${state}`);
    const names = Object.entries(findings).map(([name, n]) => `${n} × ${name}`);
    return h(
      "tr",
      {},
      fields.map((name) => h("th", { scope: "row" }, values[name] ?? "–")),
      h(
        "td",
        {},
        ids.length > 1
          ? h("a", { href: this.app.href({ view: "compare", id: ids }) }, words.join(", "))
          : ids[0] !== undefined
            ? h("a", { href: this.app.href({ view: "run", id: ids[0] }) }, words.join(", "))
            : words.join(", "),
      ),
      h(
        "td",
        {},
        names.map((name) => h("div", {}, name)),
      ),
      metrics.map((name) => {
        const own = numbers[name];
        if (own === undefined) return h("td", {}, "–");
        const { median, least, largest, count } = own;
        return h(
          "td",
          { title: `${count} runs`, "data-value": median },
          digits(median),
          count > 1 ? h("span", { class: "soft" }, ` (${digits(least)} – ${digits(largest)})`) : "",
        );
      }),
    );
  }
}
