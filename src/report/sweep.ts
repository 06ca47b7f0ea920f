/** Render the report of a sweep: one self-contained HTML page with the seeds drawn together. */
import { Html, html } from "./html.js";
import { dotPlot, flowPlot, flowsPlot, matrixPlot, short } from "./plots.js";
import { STYLE } from "./style.js";

/** A cell in the report. */
export interface SweepReportCell {
  values: Readonly<Record<string, unknown>>;
  runs: number;
  finished: number;
  failed: number;
  agree: number;
  answers: readonly { answer: string; count: number }[];
  figures: Readonly<Record<string, { median: number; worst: number; spread: number }>>;
  mean?: {
    basis: readonly number[][][];
    name: string;
    angleDegrees: number;
    spreadDegrees: number;
    worstDegrees: number;
    count: number;
  };
  rows: readonly {
    seed: number;
    span?: readonly number[][][];
    figures: Readonly<Record<string, number>>;
  }[];
}

/** The contents of the report of a sweep. */
export interface SweepReport {
  file: {
    id: string;
    created: string;
    experiment: string;
    grid: Readonly<Record<string, unknown>>;
    config: Readonly<Record<string, unknown>>;
  };
  runs: readonly { id: string; status: string; error?: string }[];
  cells: readonly SweepReportCell[];
}

/** Most cells that have pictures of their own. */
const MOST_DRAWN = 30;
/** Most figures that are drawn. */
const MOST_FIGURES = 8;

/** Render the report of a sweep as an HTML page. */
export function renderSweep({ file, runs, cells }: SweepReport): string {
  const finished = runs.filter(({ status }) => status === "finished").length;
  const failed = runs.filter(({ status }) => status === "failed");
  const task = String(file.config.task ?? "");
  const title = `${file.experiment}${task === "" ? "" : ` · ${task}`}: ${finished} of ${runs.length} runs`;
  const lead =
    cells.length === 1 && cells[0]!.answers.length > 0
      ? `${cells[0]!.agree} of ${cells[0]!.finished} seeds agree: ${cells[0]!.answers[0]!.answer}.`
      : `${cells.length} combinations of settings.`;
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title} · ${file.id}</title><style>${new Html(STYLE)}</style>
</head>
<body><main>
<header><p class="run">sweep ${file.id} · ${file.created.slice(0, 16).replace("T", " ")} UTC</p><h1>${title}</h1><p class="lead">${lead}</p></header>
${tableSection(cells)}
${figureSection(cells)}
${cells.slice(0, MOST_DRAWN).map(cellSection)}
${
  failed.length === 0
    ? undefined
    : html`<section><h2>Failed runs</h2><table class="full">${failed.map(({ id, error }) => html`<tr><th>${id}</th><td>${error ?? ""}</td></tr>`)}</table></section>`
}
<section><h2>Settings</h2><p>All runs share these settings.</p><table>${Object.entries(file.config).map(([name, value]) => html`<tr><th>${name}</th><td>${written(value)}</td></tr>`)}</table></section>
<footer>Sweep ${file.id}. sweep.json beside this page has the plan. Each run has a report of its
own.</footer>
</main></body></html>
`.text;
}

function tableSection(cells: readonly SweepReportCell[]): Html {
  const fields = [...new Set(cells.flatMap(({ values }) => Object.keys(values)))];
  const names = figureNames(cells);
  const row = (
    cell: SweepReportCell,
  ) => html`<tr>${fields.map((field) => html`<td>${written(cell.values[field])}</td>`)}
<td>${cell.finished}/${cell.runs}${cell.failed > 0 ? ` (${cell.failed} failed)` : ""}</td>
<td>${cell.answers.map(({ answer, count }) => html`<div>${answer} ×${count}</div>`)}</td>
${names.map((name) => {
  const figure = cell.figures[name];
  return html`<td>${figure ? `${short(figure.median)} (worst ${short(figure.worst)}, ± ${short(figure.spread)})` : ""}</td>`;
})}</tr>`;
  return html`<section><h2>All combinations</h2><p>Each figure is the median over the seeds, with
the worst and the standard deviation.</p><div class="scroll"><table class="full">
<thead><tr>${[...fields, "runs", "found", ...names].map((name) => html`<th>${name}</th>`)}</tr></thead>
<tbody>${cells.map(row)}</tbody></table></div></section>`;
}

function figureSection(cells: readonly SweepReportCell[]): Html | undefined {
  const names = figureNames(cells);
  if (names.length === 0) return undefined;
  const plots = names.map((name) =>
    dotPlot(
      cells.map((cell) => ({
        label: labelOf(cell),
        dots: cell.rows.flatMap(({ seed, figures }) =>
          figures[name] === undefined ? [] : [{ value: figures[name], title: `seed ${seed}` }],
        ),
      })),
      name,
    ),
  );
  return html`<section><h2>The seeds together</h2>${plots}</section>`;
}

function cellSection(cell: SweepReportCell): Html | undefined {
  const { mean, rows } = cell;
  if (!mean) return undefined;
  const planar = mean.basis[0]?.length === 2;
  const k = mean.basis.length;
  const label = labelOf(cell);
  const spans = rows.flatMap(({ span }) => (span?.length === k ? [span] : []));
  return html`<section><h2>${label === "" ? "The mean of the seeds" : label}</h2>
<p>The mean span of ${mean.count} runs is ${mean.name} (${mean.angleDegrees.toFixed(2)}°). The runs
are ${mean.spreadDegrees.toFixed(2)}° from it (root mean square), and at most
${mean.worstDegrees.toFixed(2)}°.</p><div class="row">
${mean.basis.map((b, i) => html`<figure>${matrixPlot(b as number[][], `mean generator ${i + 1}`)}<figcaption>mean generator ${i + 1}</figcaption></figure>`)}
${
  planar && k === 1
    ? html`<figure>${flowPlot(mean.basis[0]!, "flow of the mean")}<figcaption>flow of the mean</figcaption></figure><figure>${flowsPlot(
        spans.map((span) => ({ generator: span[0]!, kind: "" })),
        "orbits of all seeds",
      )}<figcaption>orbits of all ${spans.length} seeds</figcaption></figure>`
    : undefined
}
</div></section>`;
}

function figureNames(cells: readonly SweepReportCell[]): string[] {
  return [...new Set(cells.flatMap(({ figures }) => Object.keys(figures)))].slice(0, MOST_FIGURES);
}

function labelOf({ values }: SweepReportCell): string {
  return Object.entries(values)
    .map(([name, value]) => `${name} ${written(value)}`)
    .join(", ");
}

function written(value: unknown): string {
  if (value === undefined) return "";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
