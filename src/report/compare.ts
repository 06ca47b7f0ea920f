/** Compare runs: what differs in their settings, their algebras, their evidence, their metrics. */
import { principalAngles, type SquareMatrix } from "../algebra/index.js";
import type { Result } from "../result.js";
import type { RunEvent } from "../run/events.js";
import type { RunConfig } from "../run/folder.js";
import { chiefCurves } from "./curves.js";
import { type LostRow, lostPlot } from "./evidence.js";
import { Html, html } from "./html.js";
import { curvesPlot, flowsPlot, matrixPlot, short } from "./plots.js";
import type { Section } from "./render.js";
import { STYLE } from "./style.js";

/** A run to compare. */
export interface Compared {
  id: string;
  status: string;
  config: RunConfig;
  result?: Result;
  /** The run's log, for curves. */
  events?: readonly RunEvent[];
}

/** Render a comparison of runs as an HTML page, which needs no scripts. */
export function renderComparison(runs: readonly Compared[]): string {
  const title = `Comparison of ${runs.length} runs`;
  const names = shortNames(runs.map((run) => run.id));
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${title}</title><style>${new Html(STYLE)} main { max-width: 1300px; }</style>
</head>
<body><main>
<header><h1>${title}</h1><ul class="legend">${runs.map(({ status }, i) => html`<li>${chip(i, names[i]!)} ${status === "finished" ? undefined : status}</li>`)}</ul></header>
${compareSections(runs).map((section) => section.html)}
${curvesSection(runs)}
</main></body></html>
`.text;
}

function curvesSection(runs: readonly Compared[]): Html | undefined {
  const curves = runs.map(({ events = [] }) => chiefCurves(events));
  const keys = [...new Set(curves.flat().map(({ stage, name }) => `${stage}: ${name}`))];
  if (keys.length === 0) return undefined;
  const plots = keys.map((key) => {
    const lines = curves.flatMap((own, run) =>
      own
        .filter(({ stage, name }) => `${stage}: ${name}` === key)
        .map(({ points }) => ({ points, kind: kindOf(run) })),
    );
    return html`<figure>${curvesPlot(lines, key)}<figcaption>${key}</figcaption></figure>`;
  });
  return html`<section><h2>Training</h2><div class="row">${plots}</div></section>`;
}

/** Number of runs with a colour of their own; further runs repeat them. */
const COLOURS = 8;
/** Characters of a setting in a cell. */
const CELL = 160;

/** Make the sections of a comparison: the differences of the settings first. */
export function compareSections(runs: readonly Compared[]): Section[] {
  const names = shortNames(runs.map((run) => run.id));
  const sections: [id: string, title: string, html: Html | undefined][] = [
    ["settings", "Settings", settingsSection(runs, names)],
    ["algebras", "Algebras", algebrasSection(runs, names)],
    ["evidence", "Evidence", evidenceSection(runs, names)],
    ["metrics", "Metrics", metricsSection(runs, names)],
  ];
  return sections.flatMap(([id, title, html]) => (html ? [{ id, title, html }] : []));
}

/** Leave out the beginning that all ids share, up to a dash. */
export function shortNames(ids: readonly string[]): string[] {
  const [first = "", ...others] = ids;
  let same = 0;
  for (const [i, letter] of [...first].entries()) {
    if (!others.every((id) => id[i] === letter)) break;
    if (letter === "-") same = i + 1;
  }
  return others.length === 0 ? [first] : ids.map((id) => id.slice(same) || id);
}

function settingsSection(runs: readonly Compared[], names: readonly string[]): Html {
  const all = runs.map(({ config }) => ({
    experiment: config.experiment,
    preset: config.preset,
    seed: config.seed,
    worker: config.worker.address,
    device: config.worker.device,
    threads: config.worker.threads,
    ...(config.worker.ranks !== undefined && { ranks: config.worker.ranks }),
    ...config.versions,
    ...config.config,
  }));
  const keys = [...new Set(all.flatMap((settings) => Object.keys(settings)))];
  const text = (value: unknown) =>
    value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value);
  const rows = keys.map((key): [string, string[]] => [
    key,
    all.map((settings) => text((settings as Record<string, unknown>)[key])),
  ]);
  const [differ, same] = [
    rows.filter(([, values]) => new Set(values).size > 1),
    rows.filter(([, values]) => new Set(values).size === 1),
  ];
  const table =
    differ.length === 0
      ? html`<p>The runs have the same settings.</p>`
      : wide(
          ["setting", ...names.map((name, i) => chip(i, name))],
          differ.map(([key, values]) => [key, ...values.map((v) => clipped(v))]),
        );
  const rest =
    same.length === 0
      ? undefined
      : html`<details><summary>${same.length} settings are the same</summary>${wide(
          ["setting", "value"],
          same.map(([key, [value = ""]]) => [key, clipped(value)]),
        )}</details>`;
  return html`<section><h2>Differences of the settings</h2>${table}${rest}</section>`;
}

/** The algebra of a run, if it has one. */
interface Found {
  run: number;
  basis: SquareMatrix[];
  n: number;
  name: string;
}

function algebrasOf(runs: readonly Compared[]): Found[] {
  return runs.flatMap(({ result }, run) => {
    const algebra = result?.algebra;
    if (algebra === undefined || algebra.symmetryCount === 0) return [];
    const basis = algebra.generators.slice(0, algebra.symmetryCount);
    return [{ run, basis, n: basis[0]?.length ?? 0, name: algebra.identified.name }];
  });
}

function algebrasSection(runs: readonly Compared[], names: readonly string[]): Html | undefined {
  const found = algebrasOf(runs);
  if (found.length === 0) return undefined;
  const rows = runs.map(({ result, status }, i) => {
    const algebra = result?.algebra;
    if (algebra === undefined) return [chip(i, names[i]!), status === "finished" ? "none" : status];
    const { identified: own, symmetryCount } = algebra;
    const components = result?.cosets?.map((c) => c.name).join(", ") ?? "–";
    return symmetryCount === 0
      ? [chip(i, names[i]!), "no symmetry", "0", "–", components]
      : [
          chip(i, names[i]!),
          own.name === "unidentified" && own.nearest ? `unidentified (${own.nearest})` : own.name,
          String(symmetryCount),
          `${own.angleDegrees.toFixed(2)}°`,
          components,
        ];
  });
  return html`<section><h2>Algebras</h2>
${wide(["run", "algebra", "generators", "angle to the exact one", "components"], rows)}
${anglesTable(found, names)}
${overlay(found)}
<h3>Generators</h3><div class="comparison">${runs.map(({ result }, i) => {
    const algebra = result?.algebra;
    if (!algebra) return undefined;
    return html`<div><p>${chip(i, names[i]!)}</p><div class="row">${algebra.generators
      .slice(0, 12)
      .map(
        (b, k) =>
          html`<figure>${matrixPlot(b, `generator ${k + 1} of ${names[i]!}`)}<figcaption>loss ${short(algebra.losses[k] ?? Number.NaN)}</figcaption></figure>`,
      )}</div></div>`;
  })}</div></section>`;
}

function anglesTable(found: readonly Found[], names: readonly string[]): Html | undefined {
  if (found.length < 2) return undefined;
  const cells = found.map((a) =>
    found.map((b) => {
      if (a === b) return "";
      if (a.n !== b.n) return "other space";
      const angles = principalAngles(a.basis, b.basis).map((x) => (180 * x) / Math.PI);
      const largest = angles.length === 0 ? "–" : `${Math.max(...angles).toFixed(2)}°`;
      const shown = angles.map((x) => `${x.toFixed(2)}°`).join(", ");
      const other = a.basis.length === b.basis.length ? "" : " (other dimension)";
      return html`<span title="principal angles ${shown}">${largest}${other}</span>`;
    }),
  );
  return html`<h3>Principal angles</h3>
<p>The largest principal angle between the spans of two runs. It is 0° for equal algebras. If one
span is smaller, it is 0° when the larger one contains it.</p>
${wide(
  ["run", ...found.map(({ run }) => chip(run, names[run]!))],
  found.map(({ run }, i) => [chip(run, names[run]!), ...cells[i]!]),
)}`;
}

/** Draw the planar generators of all runs over each other. */
function overlay(found: readonly Found[]): Html | undefined {
  const planar = found.filter(({ n, basis }) => n === 2 && basis.length === 1);
  if (planar.length < 2) return undefined;
  const plot = flowsPlot(
    planar.map(({ basis, run }) => ({ generator: basis[0]!, kind: kindOf(run) })),
    "flows of all runs over each other",
    320,
  );
  return html`<h3>Overlaid</h3><figure>${plot}<figcaption>Orbits u ↦ exp(tB)u of the generators of all runs with one generator</figcaption></figure>`;
}

function evidenceSection(runs: readonly Compared[], names: readonly string[]): Html | undefined {
  const rows = runs.flatMap(({ result }, i) => {
    const algebra = result?.algebra;
    if (!algebra) return [];
    const { relativeErrors, symmetryCount, spectrum, noiseFloor } = algebra;
    const others = (spectrum ?? []).slice(symmetryCount).map((s) => s.relativeError);
    return [
      [
        chip(i, names[i]!),
        relativeErrors.slice(0, symmetryCount).map(short).join(", ") || "–",
        others.length > 0 ? short(Math.min(...others)) : "–",
        short(noiseFloor),
        algebra.closure.max.toFixed(3),
        clipped(algebra.explanation),
      ],
    ];
  });
  if (rows.length === 0) return undefined;
  return html`<section><h2>Evidence</h2>
${judgedTable(runs, names)}
<p>Relative errors along the symmetries, and the least error along any other direction. A wide gap
between them is evidence that the symmetries are real.</p>
${wide(["run", "errors of symmetries", "least other error", "loss from interpolation", "closure", "explanation"], rows)}</section>`;
}

/** The verdicts of runs that measured evidence, and what their symmetries lose beside others. */
function judgedTable(runs: readonly Compared[], names: readonly string[]): Html | undefined {
  const judged = runs.flatMap(({ result }, i) => {
    const evidence = result?.algebra?.evidence;
    return evidence === undefined ? [] : [{ evidence, cosets: result?.cosets ?? [], i }];
  });
  if (judged.length === 0) return undefined;
  const share = (x: number | null) => (x === null ? "–" : `${short(100 * x)} %`);
  const rows = judged.map(({ evidence, cosets, i }) => {
    const { verdict, skill, size, lost, elsewhere, broken, scenes } = evidence;
    return [
      chip(i, names[i]!),
      verdict,
      skill === null ? "–" : short(skill),
      String(scenes),
      size === null ? "–" : short(size),
      `${share(lost.value)} [${share(lost.low)}, ${share(lost.high)}]`,
      share(elsewhere),
      verdict === "symmetry" || verdict === "approximate" ? share(broken.high) : "–",
      cosets.map((c) => `${c.name}: ${c.evidence?.verdict ?? "not judged"}`).join("; ") || "–",
    ];
  });
  const bars = judged.flatMap(({ evidence: { lost, elsewhere, verdict }, i }): LostRow[] => {
    const { value, low, high } = lost;
    if (value === null || low === null || high === null) return [];
    const kept = verdict === "symmetry" || verdict === "approximate";
    const best = { name: `${names[i]}: best`, value, low, high, kept };
    const [least, other] = [elsewhere, { name: `${names[i]}: others`, kept: false }];
    return least === null ? [best] : [best, { ...other, value: least, low: least, high: least }];
  });
  const left = 24 + 6 * Math.max(0, ...bars.map(({ name }) => name.length));
  return html`<p>The skill that moves along the best directions cost, on scenes that judge, with 95 %
intervals, and the least that any other direction costs. A symmetry costs next to nothing.</p>
${bars.length > 0 ? lostPlot(bars, "skill lost by each run's best directions", Math.min(left, 280)) : undefined}
${wide(["run", "verdict", "skill", "scenes", "size of moves", "skill lost", "others lose at least", "broken by at most", "components"], rows)}`;
}

function metricsSection(runs: readonly Compared[], names: readonly string[]): Html | undefined {
  const all = runs.map(({ result }) => numbersOf(result));
  const keys = [...new Set(all.flatMap((numbers) => Object.keys(numbers)))];
  if (keys.length === 0) return undefined;
  const rows = keys.map((key) => {
    const values = all.map((numbers) => numbers[key]);
    const known = values.filter((x) => x !== undefined);
    return [key, ...values.map((x) => (x === undefined ? "–" : digits(x))), spread(known)];
  });
  return html`<section><h2>Metrics</h2>
<p>The last column is the mean, with the standard deviation over the runs.</p>
${wide(["metric", ...names.map((name, i) => chip(i, name)), "mean ± deviation"], rows)}</section>`;
}

/** Get the numbers of a result by name. */
function numbersOf(result: Result | undefined): Record<string, number> {
  if (result === undefined) return {};
  const { predictor, downstream, timings } = result;
  const all = {
    "predictor loss": predictor.loss,
    ...predictor.scores,
    ...downstream?.metrics,
    ...Object.fromEntries(Object.entries(timings).map(([name, s]) => [`time, ${name} (s)`, s])),
  };
  return Object.fromEntries(
    Object.entries(all).filter((entry): entry is [string, number] => typeof entry[1] === "number"),
  );
}

/** Write a number with six digits at most. */
function digits(x: number): string {
  return Number.isInteger(x) ? String(x) : String(Number(x.toPrecision(6)));
}

/** Write a mean and a standard deviation. */
function spread(values: readonly number[]): string {
  if (values.length < 2) return "–";
  const mean = values.reduce((a, b) => a + b) / values.length;
  const variance = values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (values.length - 1);
  const deviation = Math.sqrt(variance);
  const rounding = 1e-12 * Math.abs(mean); // the mean of equal numbers may differ from them
  return `${short(mean)} ± ${short(deviation < rounding ? 0 : deviation)}`;
}

/** The CSS class for the colour of a run. */
export const kindOf = (run: number) => `run${run % COLOURS}`;

function chip(run: number, name: string): Html {
  return html`<span class="chip"><svg width="11" height="11" aria-hidden="true"><circle cx="5.5" cy="5.5" r="5" class="${kindOf(run)}"/></svg>${name}</span>`;
}

function clipped(text: string): string {
  return text.length > CELL ? `${text.slice(0, CELL)}…` : text;
}

function wide(head: readonly (string | Html)[], rows: readonly (readonly (string | Html)[])[]) {
  return html`<div class="scroll"><table class="wide"><thead><tr>${head.map((cell) => html`<th scope="col">${cell}</th>`)}</tr></thead><tbody>${rows.map(
    ([name, ...cells]) =>
      html`<tr><th scope="row">${name}</th>${cells.map((cell) => html`<td>${cell}</td>`)}</tr>`,
  )}</tbody></table></div>`;
}
