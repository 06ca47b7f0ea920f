/** One run: its stages, curves, result, settings and log, live. */
import { Curves, colourOf } from "./curves.mjs";
import {
  bar,
  chip,
  clock,
  copyButton,
  digits,
  duration,
  fill,
  h,
  markup,
  reportFrame,
  say,
} from "./dom.mjs";

/**
 * @typedef {import("./main.mjs").App} App
 * @typedef {import("./stream.mjs").Summary} Summary
 * @typedef {import("./stream.mjs").RunEvent} RunEvent
 * @typedef {import("./stream.mjs").RunMessage} RunMessage
 * @typedef {{stage: string, epoch: number, totalEpochs: number, seconds: number, left: number}} Stage
 * @typedef {{stage: string, metric: string, points: [number, number][]}} Curve
 * @typedef {{stage: string, epoch: number, totalEpochs: number, step: number, stepsInEpoch: number,
 *   curves: {metric: string, points: [number, number | null][]}[]}} Steps
 * @typedef {{summary: Summary, path: string, config: Record<string, string>, stages: Stage[],
 *   curves: Curve[], steps: Steps[], log: [number, RunEvent][], at: number, resume?: string, report: boolean,
 *   worker?: {address: string, device: string, threads: number, version: string},
 *   result?: {id: string, title: string, markup: string}[]}} Detail
 */

/** Points of a curve from which on the server is asked for fewer. */
const MOST_POINTS = 4000;
/** Events in the log at most. */
const MOST_EVENTS = 400;
/** Curves that are drawn without asking. */
const FIRST_CURVES = 12;

/** A run. */
export class RunView {
  /** @param {App} app @param {string} id */
  constructor(app, id) {
    this.app = app;
    this.id = id;
    this.title = id;
    /** @type {Detail | undefined} */
    this.detail = undefined;
    /** @type {Map<string, Curves>} */
    this.plots = new Map();
    this.gone = false;
    this.all = false;
    this.head = h("header", { class: "run-head" });
    this.stages = h("div", { class: "stages" });
    this.curves = h("div", { class: "curve-grid" });
    this.result = h("div", { class: "result" });
    this.report = h("div", {});
    this.config = h("tbody", {});
    this.log = h("ol", { class: "log", "aria-label": "Log", tabindex: "0" });
    const filter = h("input", {
      type: "search",
      placeholder: "Filter the settings",
      "aria-label": "Filter the settings",
      oninput: () => this.showConfig(filter.value),
    });
    this.stagesSection = h(
      "section",
      { "aria-label": "Stages" },
      h("h2", {}, "Stages"),
      this.stages,
    );
    this.curvesSection = h(
      "section",
      { "aria-label": "Curves" },
      h("h2", {}, "Curves"),
      this.curves,
    );
    this.contents = h(
      "div",
      { hidden: true },
      this.stagesSection,
      this.result,
      this.curvesSection,
      this.report,
      h(
        "section",
        { "aria-label": "Settings" },
        h("h2", {}, "Settings"),
        filter,
        h(
          "div",
          { class: "scroll" },
          h("table", { class: "config", "aria-label": "Settings" }, this.config),
        ),
      ),
      h("section", { "aria-label": "Log" }, h("h2", {}, "Log"), this.log),
    );
    this.element = h("div", { class: "run-page" }, this.head, this.contents);
    this.take = (/** @type {RunMessage} */ message) => this.receive(message);
    app.store.messages.add(this.take);
    this.takeSteps = (/** @type {string[]} */ ids) => {
      if (ids.includes(id)) void this.loadSteps();
    };
    app.store.steps.add(this.takeSteps);
    fill(this.head, h("h1", {}, id), h("p", { class: "soft" }, "reading …"));
    void this.load();
  }

  destroy() {
    this.gone = true;
    this.app.store.messages.delete(this.take);
    this.app.store.steps.delete(this.takeSteps);
    for (const plot of this.plots.values()) plot.destroy();
  }

  /** @private Read the whole run; at most one request at a time. */
  async load() {
    if (this.loading) {
      this.again = true;
      return;
    }
    this.loading = true;
    const before = this.detail?.summary.status;
    try {
      this.detail = await this.app.link.ask(`/api/run?id=${encodeURIComponent(this.id)}`);
      if (this.gone) return;
      this.show();
      const { status } = /** @type {Detail} */ (this.detail).summary;
      if (before !== undefined && before !== status) say(`The run is ${status}.`);
    } catch (error) {
      if (!this.gone && this.detail === undefined)
        fill(
          this.head,
          h("h1", {}, this.id),
          h("p", { role: "alert" }, String(/** @type {Error} */ (error).message)),
        );
    } finally {
      this.loading = false;
    }
    if (this.again && !this.gone) {
      this.again = false;
      await this.load();
    }
  }

  /** @private Read the steps; at most one request at a time, since others will be told of. */
  async loadSteps() {
    if (this.stepping || this.loading || this.detail === undefined) return;
    this.stepping = true;
    try {
      const { steps } = await this.app.link.ask(`/api/steps?id=${encodeURIComponent(this.id)}`);
      if (this.gone || this.detail === undefined) return;
      this.detail.steps = steps;
      this.showStages(this.detail);
      this.showCurves(this.detail);
    } catch {
      // The dashboard ends, or the run is gone; the stream says so.
    } finally {
      this.stepping = false;
    }
  }

  /** @private @param {RunMessage} message */
  receive(message) {
    const { detail } = this;
    if (message.id !== this.id) return;
    if (detail === undefined || this.loading) {
      this.again = true;
      return;
    }
    const over = message.summary.status !== detail.summary.status;
    if (over || message.from > detail.at || message.to < detail.at) return void this.load();
    detail.summary = message.summary;
    let many = false;
    for (const [at, event] of message.events) {
      if (at <= detail.at) continue; // it is shown already
      detail.log.push([at, event]);
      if (event.type === "epoch") many = this.addEpoch(detail, event) || many;
    }
    detail.at = Math.max(detail.at, message.to);
    detail.log.splice(0, detail.log.length - MOST_EVENTS);
    if (many) return void this.load();
    this.showHead(detail);
    this.showStages(detail);
    this.showCurves(detail);
    this.showLog(detail);
  }

  /** @private @param {Detail} detail @param {RunEvent} event @returns {boolean} */
  addEpoch(detail, { stage = "", epoch = 0, totalEpochs = 0, seconds = 0, metrics = {} }) {
    let known = detail.stages.find((s) => s.stage === stage);
    if (known === undefined) {
      known = { stage, epoch: 0, totalEpochs, seconds: 0, left: 0 };
      detail.stages.push(known);
    }
    const again = epoch <= known.epoch;
    const pace =
      known.epoch === 0
        ? seconds
        : 0.7 * (known.left / Math.max(1, known.totalEpochs - known.epoch)) + 0.3 * seconds;
    if (!again) known.seconds += seconds;
    Object.assign(known, { epoch, totalEpochs, left: Math.max(0, totalEpochs - epoch) * pace });
    if (epoch >= totalEpochs) detail.steps = detail.steps.filter((s) => s.stage !== stage);
    let many = again; // the epochs after it do not count any more
    for (const [metric, value] of Object.entries(metrics)) {
      let curve = detail.curves.find((c) => c.stage === stage && c.metric === metric);
      if (curve === undefined) {
        curve = { stage, metric, points: [] };
        detail.curves.push(curve);
      }
      if (!again) curve.points.push([epoch, value]);
      many ||= curve.points.length > MOST_POINTS;
    }
    return many;
  }

  /** @private */
  show() {
    const detail = /** @type {Detail} */ (this.detail);
    this.contents.hidden = false;
    this.showHead(detail);
    this.showStages(detail);
    this.showCurves(detail);
    this.showLog(detail);
    this.showConfig("");
    fill(
      this.result,
      (detail.result ?? []).map(({ markup: text }) => markup(text)),
    );
    this.showReport(detail);
  }

  /** @private @param {Detail} detail */
  showHead({ summary, path, resume, worker }) {
    const { experiment, task, preset, seed, created, status, finding, message, tags } = summary;
    const facts = [
      [experiment, task, preset && `preset ${preset}`].filter(Boolean).join(" · "),
      status !== "damaged" && `seed ${seed}`,
      worker && about(worker),
      created && `started ${new Date(created).toLocaleString()}`,
    ];
    const sweep = this.app.store.sweepOf.get(this.id);
    const metrics = Object.entries(summary.metrics);
    fill(
      this.head,
      h("p", { class: "soft" }, facts.filter(Boolean).join(" · ")),
      h("h1", {}, chip(status), " ", finding || this.id),
      h(
        "p",
        { class: "soft path" },
        path,
        " ",
        copyButton(path, "Copy the path of the folder"),
        tags.map((tag) => h("span", { class: "tag" }, tag)),
        sweep && h("a", { href: this.app.href({ view: "sweep", id: sweep }) }, ` sweep ${sweep}`),
      ),
      message !== "" && h("p", { class: "message", role: "alert" }, message),
      resume !== undefined &&
        h(
          "p",
          { class: "command" },
          "Finish it with ",
          h("code", {}, resume),
          " ",
          copyButton(resume, "Copy the command"),
        ),
      metrics.length > 0 &&
        h(
          "dl",
          { class: "metrics" },
          metrics.map(([name, value]) =>
            h(
              "div",
              {},
              h("dt", {}, name),
              h("dd", { title: String(value), "data-value": value }, digits(value)),
            ),
          ),
        ),
    );
  }

  /** @private @param {Detail} detail */
  showStages({ stages, steps, summary }) {
    const begun = steps.filter(({ stage }) => !stages.some((known) => known.stage === stage));
    this.stagesSection.hidden = stages.length + begun.length === 0;
    const running = summary.status === "running";
    fill(
      this.stages,
      stages.map(({ stage, epoch, totalEpochs, seconds, left }) => {
        const done = epoch >= totalEpochs;
        const time = done || !running ? duration(seconds) : `about ${duration(left)} left`;
        const now = running ? steps.find((s) => s.stage === stage && s.epoch === epoch) : undefined;
        return stageRow(stage, epoch, totalEpochs, now, time);
      }),
      running && begun.map((now) => stageRow(now.stage, now.epoch, now.totalEpochs, now)),
    );
  }

  /** @private @param {Detail} detail */
  showCurves({ curves, steps, summary }) {
    const running = summary.status === "running" ? steps : [];
    const live = running.flatMap(({ stage, curves: own }) =>
      own.map(({ metric, points }) => ({ stage, metric, points })),
    );
    const stepsOf = (/** @type {{stage: string, metric: string}} */ { stage, metric }) =>
      live.find((own) => own.stage === stage && own.metric === metric)?.points ?? [];
    const begun = live
      .filter(({ stage, metric }) => !curves.some((c) => c.stage === stage && c.metric === metric))
      .map(({ stage, metric }) => ({ stage, metric, points: [] }));
    const drawn = [...curves, ...begun].filter(
      (curve) => curve.points.length > 1 || stepsOf(curve).length > 1,
    );
    this.curvesSection.hidden = drawn.length === 0;
    const shown = this.all ? drawn : drawn.slice(0, FIRST_CURVES);
    for (const curve of shown) {
      const { stage, metric, points } = curve;
      const key = JSON.stringify([stage, metric]);
      /** @type {import("./curves.mjs").Line[]} */
      const lines = [{ label: metric, colour: colourOf("accent"), points }];
      const own = stepsOf(curve);
      if (own.length > 1)
        lines.unshift({ label: "steps", colour: colourOf("dup"), points: own, steps: true });
      const plot = this.plots.get(key);
      if (plot) plot.update(lines);
      else {
        const made = new Curves(`${stage}: ${metric}`, lines);
        this.plots.set(key, made);
        this.curves.append(made.element);
      }
    }
    this.more?.remove();
    if (shown.length < drawn.length) {
      this.more = h(
        "button",
        {
          type: "button",
          onclick: () => {
            this.all = true;
            if (this.detail) this.showCurves(this.detail);
          },
        },
        `Show ${drawn.length - shown.length} more`,
      );
      this.curves.append(this.more);
    }
  }

  /** @private @param {Detail} detail */
  showReport({ report }) {
    if (!report || this.report.childElementCount > 0) return;
    const query = new URLSearchParams({ id: this.id });
    this.report.append(reportFrame(this.id, () => this.app.link.ask(`/api/ticket?${query}`)));
  }

  /** @private @param {string} text */
  showConfig(text) {
    const rows = Object.entries(this.detail?.config ?? {}).filter(([name, value]) =>
      `${name} ${value}`.toLowerCase().includes(text.toLowerCase()),
    );
    fill(
      this.config,
      rows.map(([name, value]) =>
        h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, h("code", {}, value))),
      ),
    );
  }

  /** @private @param {Detail} detail */
  showLog({ log }) {
    const atEnd = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 20;
    fill(
      this.log,
      log.map(([at, event]) =>
        h("li", { class: event.type, "data-at": at }, clock(event.time), " ", describe(event)),
      ),
    );
    if (atEnd) this.log.scrollTop = this.log.scrollHeight;
  }
}

/**
 * A row with how far a stage has come.
 *
 * @param {string} stage @param {number} epoch @param {number} totalEpochs
 * @param {Steps} [now] the step within the epoch @param {string} [time]
 */
function stageRow(stage, epoch, totalEpochs, now, time) {
  const done = epoch >= totalEpochs;
  const step = now && now.stepsInEpoch > 1 ? `step ${now.step} of ${now.stepsInEpoch}` : "";
  const part = now && now.stepsInEpoch > 0 ? now.step / now.stepsInEpoch : 0;
  const words = [`${epoch}/${totalEpochs}`, done ? "" : step, time].filter(Boolean);
  return h(
    "div",
    { class: `stage ${done ? "done" : ""}` },
    h("b", {}, stage),
    bar(epoch + part, totalEpochs, `${stage}: ${epoch} of ${totalEpochs} epochs`),
    h("span", { class: "soft" }, words.join(" · ")),
  );
}

/** Say where a run computes. @param {NonNullable<Detail["worker"]>} worker */
function about({ device, threads, address }) {
  const here = /^grpc:..127\.0\.0\.1:/.test(address);
  return `${device}, ${threads} ${threads === 1 ? "thread" : "threads"}${here ? "" : `, ${address}`}`;
}

/** Say in words what happened. @param {RunEvent} event @returns {string} */
function describe({
  type,
  stage,
  epoch,
  totalEpochs,
  metrics = {},
  seconds = 0,
  message,
  remedy,
  ...more
}) {
  const numbers = Object.entries(metrics)
    .map(([name, value]) => `${name} ${digits(value)}`)
    .join("  ");
  switch (type) {
    case "epoch":
      return `${stage} ${epoch}/${totalEpochs}  ${numbers}  ${duration(seconds)}`;
    case "restored":
      return `${stage} restored at epoch ${epoch}  ${numbers}`;
    case "worker":
      return `worker ${more.address} on ${more.device}`;
    case "started":
    case "resumed":
    case "attached":
      return `${type} by process ${more.pid} on ${more.host}`;
    case "warning":
    case "failed":
      return [type, message, remedy].filter(Boolean).join(": ");
    default:
      return type;
  }
}
