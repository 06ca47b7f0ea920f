/** The audit of a network in a report: its elements and its layers. */
import { verdictOf } from "../algebra/describe-audit.js";
import type { Audit, AuditedLayer } from "../result.js";
import { type Html, html } from "./html.js";
import { type Bar, barPlot, short } from "./plots.js";

/** Make the section about an audit. */
export function auditSection(audit: Audit): Html {
  const { elements, layers, judged, worst, before } = audit;
  const at = elements[judged]?.name ?? "";
  const former = new Map(before?.layers.map((layer) => [layer.name, layer]));
  const compared = layers.filter(({ errors }) => typeof errors[judged] === "number");
  const bars = compared.map(
    (layer): Bar => ({
      value: layer.errors[judged] ?? Number.NaN,
      kind: layer.breaks ? "beyond_limit" : isClean(layer, judged) ? "symmetry" : "other",
      title: `${layer.name}: ${short(layer.errors[judged] ?? Number.NaN)}`,
    }),
  );
  const floor = Math.max(0, ...compared.map(({ floors }) => floors[judged] ?? 0));
  return html`<section><h2>Audit</h2>
<p>${verdictOf(audit)}. Errors are root mean squares, relative to the spread of what is compared. The
floor is what interpolation and rounding may cause.</p>
<h3>By element</h3>
<table><tr><th>element</th><th>size</th><th>error</th><th>floor</th>${before && html`<th>before</th>`}</tr>${elements.map(
    ({ name, size, error, floor }, i) =>
      html`<tr><td>${name}</td><td>${cell(size)}</td><td>${cell(error)}</td><td>${cell(floor)}</td>${before && html`<td>${cell(before.errors[i])}</td>`}</tr>`,
  )}</table>
<h3>By layer, under ${at}</h3>
${bars.length > 0 ? barPlot(bars, floor, "errors of the layers", { x: "layers, in their order", y: "error" }) : undefined}
<table><tr><th>layer</th><th>class</th><th>moves as</th><th>error</th><th>floor</th><th>output’s error after a repair</th>${before && html`<th>before</th>`}</tr>${layers.map(
    (layer) =>
      html`<tr><td>${layer.breaks ? html`<b>${layer.name}</b> breaks it` : layer.name}</td><td>${layer.kind}</td><td>${layer.movedAs}</td><td>${cell(layer.errors[judged])}</td><td>${cell(layer.floors[judged])}</td><td>${cell(layer.repaired)}</td>${before && html`<td>${cell(former.get(layer.name)?.errors[judged])}</td>`}</tr>`,
  )}</table>
<p>“A repair” computes the output at the moved input with the moved output of this layer. If the
output is right after that, the fault lies in this layer or before it.</p>
<h3>Worst samples</h3>
<p>${worst.map(({ sample, error }) => `sample ${sample} (${cell(error)})`).join(", ")}</p></section>`;
}

function isClean({ errors, floors }: AuditedLayer, at: number): boolean {
  return (errors[at] ?? 0) <= (floors[at] ?? 0);
}

function cell(x: number | null | undefined): string {
  return x === null || x === undefined ? "–" : short(x);
}
