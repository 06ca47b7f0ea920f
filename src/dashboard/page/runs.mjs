/** The list of runs: filter, sort, group. Only the rows that can be seen are in the page. */
import { ago, bar, chip, digits, fill, h } from "./dom.mjs";

/**
 * @typedef {import("./main.mjs").App} App
 * @typedef {import("./stream.mjs").Summary} Summary
 * @typedef {{group: string, count: number, sweep?: string} | Summary} Row
 */

/** What is shown, which lasts as long as the page. */
const choice = {
  text: "",
  status: "",
  experiment: "",
  tag: "",
  group: "",
  sort: "created",
  down: true,
  metric: "",
};

/** Rows above and below the window that are in the page too. */
const MARGIN = 12;

/** @type {[key: string, title: string, className: string][]} */
const COLUMNS = [
  ["status", "Status", "c-status"],
  ["id", "Run", "c-run"],
  ["finding", "Found", "c-found"],
  ["progress", "Progress", "c-progress"],
  ["metric", "", "c-metric"],
  ["seed", "Seed", "c-seed"],
  ["created", "Started", "c-age"],
];

/** The list of runs. */
export class RunsView {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.title = "";
    /** @type {Row[]} */
    this.rows = [];
    this.focused = -1;
    this.count = h("p", { class: "soft count", role: "status" });
    this.compare = h("a", { class: "button", hidden: true }, "Compare");
    this.search = h("input", {
      type: "search",
      placeholder: "Search: name, experiment, found, tag …",
      "aria-label": "Search the runs",
      value: choice.text,
      oninput: () => this.set("text", this.search.value),
    });
    this.selects = {
      status: this.select("status", "Status"),
      experiment: this.select("experiment", "Experiment"),
      tag: this.select("tag", "Tag"),
      metric: this.select("metric", "Metric"),
      group: this.select("group", "Group"),
    };
    this.head = h("tr", {});
    this.body = h("tbody", {});
    this.table = h(
      "table",
      { class: "runs", "aria-label": "Runs" },
      h("thead", {}, this.head),
      this.body,
    );
    this.element = h(
      "div",
      { class: "list" },
      h("h1", { class: "hidden" }, "Runs"),
      h("div", { class: "tools" }, this.search, Object.values(this.selects), this.compare),
      this.count,
      this.table,
    );
    this.refresh = () => this.update();
    this.draw = () => this.drawRows();
    app.store.listeners.add(this.refresh);
    addEventListener("scroll", this.draw, { passive: true });
    addEventListener("resize", this.draw);
    this.update();
    requestAnimationFrame(this.draw); // the page knows its height only now
  }

  destroy() {
    this.app.store.listeners.delete(this.refresh);
    removeEventListener("scroll", this.draw);
    removeEventListener("resize", this.draw);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const { key } = event;
    if (key === "/") {
      event.preventDefault();
      return this.search.focus();
    }
    if (key === "c" && this.app.chosen.size > 1) return this.compare.click();
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[key];
    if (step !== undefined) {
      event.preventDefault();
      let at = this.focused + step;
      while (this.rows[at] && "group" in /** @type {Row} */ (this.rows[at])) at += step;
      if (this.rows[at]) this.focusRow(at);
    }
    const row = this.rows[this.focused];
    if (key === "x" && row && "id" in row) this.choose(row.id);
    if (key === "Enter" && row && "id" in row && document.activeElement === document.body)
      location.hash = this.app.href({ view: "run", id: row.id });
  }

  /** @private @param {"status" | "experiment" | "tag" | "metric" | "group"} name @param {string} label */
  select(name, label) {
    return h("select", {
      "aria-label": label,
      onchange: (/** @type {Event} */ event) =>
        this.set(name, /** @type {HTMLSelectElement} */ (event.target).value),
    });
  }

  /** @private @param {keyof typeof choice} name @param {string | boolean} value */
  set(name, value) {
    Reflect.set(choice, name, value);
    this.focused = -1;
    this.update();
  }

  /** @private */
  update() {
    const { store, chosen } = this.app;
    const all = [...store.runs.values()];
    this.options(all);
    const shown = all.filter((run) => this.matches(run)).sort((a, b) => this.order(a, b));
    this.rows = choice.group === "" ? shown : this.grouped(shown);
    const words = [
      shown.length === all.length ? `${all.length} runs` : `${shown.length} of ${all.length} runs`,
      store.complete ? "" : `reading ${all.length} of ${store.total} …`,
    ];
    if (store.complete && all.length === 0)
      words.push("none yet; start one in another terminal, for example: atlas demo");
    this.count.textContent = words.filter(Boolean).join(" · ");
    for (const id of chosen) if (!store.runs.has(id)) chosen.delete(id);
    this.compare.hidden = chosen.size < 2;
    this.compare.href = this.app.href({ view: "compare", id: [...chosen].slice(0, 20) });
    this.compare.textContent =
      chosen.size > 20 ? "Compare the first 20" : `Compare ${chosen.size} runs`;
    this.drawHead();
    this.drawRows();
  }

  /** @private @param {Summary[]} all */
  options(all) {
    const counted = (/** @type {(run: Summary) => string[]} */ of) => {
      /** @type {Map<string, number>} */
      const counts = new Map();
      for (const run of all)
        for (const value of of(run)) if (value) counts.set(value, (counts.get(value) ?? 0) + 1);
      return [...counts].sort(([a], [b]) => (a < b ? -1 : 1));
    };
    const names = counted((run) => Object.keys(run.metrics));
    names.sort(([, a], [, b]) => b - a);
    if (choice.metric === "" && names[0]) choice.metric = names[0][0];
    this.fillSelect(
      "status",
      "any status",
      counted((run) => [run.status]),
    );
    this.fillSelect(
      "experiment",
      "any experiment",
      counted((run) => [run.experiment]),
    );
    const tags = counted((run) => run.tags);
    this.fillSelect("tag", "any tag", tags);
    this.selects.tag.hidden = tags.length === 0;
    this.fillSelect("metric", undefined, names.slice(0, 200));
    this.fillSelect("group", "no groups", [
      ["sweep", 0],
      ["experiment", 0],
      ["status", 0],
      ["found", 0],
    ]);
  }

  /**
   * @private
   * @param {"status" | "experiment" | "tag" | "metric" | "group"} name
   * @param {string | undefined} none
   * @param {[string, number][]} values
   */
  fillSelect(name, none, values) {
    const select = this.selects[name];
    const first = none === undefined ? [] : [["", none]];
    const prefix = { metric: "metric: ", group: "by " }[/** @type {string} */ (name)] ?? "";
    const wanted = [
      ...first,
      ...values.map(([v, n]) => [v, `${prefix}${v}${n > 0 && name !== "metric" ? ` (${n})` : ""}`]),
    ];
    const key = JSON.stringify(wanted);
    if (select.dataset.key !== key) {
      select.dataset.key = key;
      fill(
        select,
        wanted.map(([value, text]) => h("option", { value }, text)),
      );
    }
    select.value = choice[name];
  }

  /** @private @param {Summary} run */
  matches(run) {
    const { text, status, experiment, tag } = choice;
    if (status !== "" && run.status !== status) return false;
    if (experiment !== "" && run.experiment !== experiment) return false;
    if (tag !== "" && !run.tags.includes(tag)) return false;
    if (text === "") return true;
    const hay = [
      run.id,
      run.experiment,
      run.task,
      run.preset,
      run.finding,
      run.status,
      `seed ${run.seed}`,
      this.app.store.sweepOf.get(run.id) ?? "",
      ...run.tags,
    ]
      .join("\n")
      .toLowerCase();
    return text
      .toLowerCase()
      .split(/\s+/)
      .every((word) => hay.includes(word));
  }

  /** @private @param {Summary} a @param {Summary} b */
  order(a, b) {
    const value = (/** @type {Summary} */ run) => {
      if (choice.sort === "metric") return run.metrics[choice.metric];
      if (choice.sort === "progress")
        return run.progress && run.progress.epoch / Math.max(1, run.progress.totalEpochs);
      const own = Reflect.get(run, choice.sort);
      return own === "" ? undefined : own;
    };
    const [x, y] = [value(a), value(b)];
    if (x === undefined || y === undefined)
      return x === y ? compareIds(a, b) : x === undefined ? 1 : -1; // those without come last
    const sign = choice.down ? -1 : 1;
    return x < y ? -sign : x > y ? sign : compareIds(a, b);
  }

  /** @private @param {Summary[]} runs @returns {Row[]} */
  grouped(runs) {
    const { sweepOf } = this.app.store;
    /** @type {Map<string, Summary[]>} */
    const groups = new Map();
    for (const run of runs) {
      const key =
        choice.group === "sweep"
          ? (sweepOf.get(run.id) ?? "")
          : choice.group === "found"
            ? run.finding
            : /** @type {string} */ (Reflect.get(run, choice.group));
      groups.set(key, [...(groups.get(key) ?? []), run]);
    }
    const empty = { sweep: "no sweep", found: "nothing found yet" }[choice.group] ?? "other";
    return [...groups].flatMap(([name, own]) => [
      {
        group: name || empty,
        count: own.length,
        sweep: choice.group === "sweep" && name !== "" ? name : undefined,
      },
      ...own,
    ]);
  }

  /** @private */
  drawHead() {
    const cells = COLUMNS.map(([key, title, className]) => {
      const sorted = choice.sort === key;
      return h(
        "th",
        {
          scope: "col",
          class: className,
          "aria-sort": sorted ? (choice.down ? "descending" : "ascending") : undefined,
        },
        h(
          "button",
          {
            type: "button",
            class: "sort",
            onclick: () => {
              choice.down = sorted ? !choice.down : key === "created" || key === "progress";
              choice.sort = key;
              this.update();
            },
          },
          key === "metric" ? choice.metric || "Metric" : title,
          sorted ? (choice.down ? " ↓" : " ↑") : "",
        ),
      );
    });
    const key = JSON.stringify([choice.sort, choice.down, choice.metric]);
    if (this.head.dataset.key === key) return;
    this.head.dataset.key = key;
    fill(
      this.head,
      h("th", { class: "c-choose" }, h("span", { class: "hidden" }, "Choose")),
      cells,
    );
  }

  /** @private */
  get height() {
    return innerWidth < 700 ? 84 : 52;
  }

  /** @private Draw the rows in the window, and room for the others. */
  drawRows() {
    const { height, rows } = this;
    const above = -this.body.getBoundingClientRect().top;
    const from = Math.max(0, Math.floor(above / height) - MARGIN);
    const to = Math.min(rows.length, Math.ceil((above + innerHeight) / height) + MARGIN);
    const active = document.activeElement?.closest("tr")?.dataset.id;
    const shown = [];
    for (let i = from; i < to; i++) shown.push(this.row(/** @type {Row} */ (rows[i]), i));
    fill(this.body, room(from * height), shown, room((rows.length - to) * height));
    this.table.setAttribute("aria-rowcount", String(rows.length + 1));
    if (active) this.linkOf(active)?.focus({ preventScroll: true });
  }

  /** @private @param {Row} row @param {number} index */
  row(row, index) {
    if ("group" in row)
      return h(
        "tr",
        { class: "group", "aria-rowindex": index + 2 },
        h(
          "th",
          { colspan: COLUMNS.length + 1, scope: "colgroup" },
          row.sweep === undefined
            ? row.group
            : h(
                "a",
                { href: this.app.href({ view: "sweep", id: row.sweep }) },
                `sweep ${row.group}`,
              ),
          h("span", { class: "soft" }, ` ${row.count} ${row.count === 1 ? "run" : "runs"}`),
        ),
      );
    const { id, experiment, task, preset, progress, metrics, created, status } = row;
    const value = metrics[choice.metric];
    const about = [experiment, task, preset].filter(Boolean).join(" · ");
    const chosen = this.app.chosen.has(id);
    return h(
      "tr",
      {
        "data-id": id,
        "aria-rowindex": index + 2,
        class: `${status}${this.focused === index ? " focused" : ""}`,
      },
      h(
        "td",
        { class: "c-choose" },
        h("input", {
          type: "checkbox",
          checked: chosen,
          "aria-label": `Choose ${id} for a comparison`,
          onchange: () => this.choose(id),
        }),
      ),
      h("td", { class: "c-status" }, chip(status)),
      h(
        "td",
        { class: "c-run" },
        h(
          "a",
          { href: this.app.href({ view: "run", id }), title: id, onfocus: () => this.mark(index) },
          id,
        ),
        h(
          "span",
          { class: "soft" },
          about,
          row.tags.map((tag) => h("span", { class: "tag" }, tag)),
        ),
      ),
      h(
        "td",
        { class: "c-found", title: row.finding || row.message },
        row.finding || h("span", { class: "soft" }, row.message),
      ),
      h(
        "td",
        { class: "c-progress" },
        progress && status !== "finished"
          ? [
              bar(progress.epoch, progress.totalEpochs, progress.stage),
              h(
                "span",
                { class: "soft" },
                `${progress.stage} ${progress.epoch}/${progress.totalEpochs}`,
              ),
            ]
          : "",
      ),
      h(
        "td",
        { class: "c-metric", title: value === undefined ? "" : `${choice.metric}: ${value}` },
        value === undefined ? "" : digits(value),
      ),
      h("td", { class: "c-seed" }, row.status === "damaged" ? "" : String(row.seed)),
      h("td", { class: "c-age", title: created }, ago(created)),
    );
  }

  /** @private @param {string} id */
  choose(id) {
    const { chosen } = this.app;
    if (!chosen.delete(id)) chosen.add(id);
    this.update();
  }

  /** @private @param {number} index */
  mark(index) {
    this.focused = index;
    for (const row of this.body.querySelectorAll("tr"))
      row.classList.toggle("focused", row.getAttribute("aria-rowindex") === String(index + 2));
  }

  /** @private @param {number} index */
  focusRow(index) {
    const { height } = this;
    this.focused = index;
    const top = this.body.getBoundingClientRect().top + scrollY + index * height;
    if (top < scrollY + 120) scrollTo(0, top - 120);
    if (top + height > scrollY + innerHeight) scrollTo(0, top + height - innerHeight + 8);
    this.drawRows();
    const row = /** @type {Summary} */ (this.rows[index]);
    this.linkOf(row.id)?.focus({ preventScroll: true });
  }

  /** @private @param {string} id */
  linkOf(id) {
    const row = [...this.body.querySelectorAll("tr")].find((tr) => tr.dataset.id === id);
    return /** @type {HTMLElement | null | undefined} */ (row?.querySelector("a"));
  }
}

/** @param {Summary} a @param {Summary} b */
function compareIds(a, b) {
  return a.id < b.id ? 1 : -1;
}

/** @param {number} height */
function room(height) {
  const cell = h("td", { colspan: COLUMNS.length + 1 });
  cell.style.height = `${height}px`;
  return h("tr", { class: "room", "aria-hidden": "true" }, cell);
}
