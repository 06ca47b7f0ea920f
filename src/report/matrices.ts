/** Matrices as tables, to read in full and to copy. */
import type { SquareMatrix } from "../algebra/index.js";
import type { Result } from "../result.js";
import { type Html, html } from "./html.js";

/** Matrices at most; result.json has all. */
const MOST = 24;

/** Make the section with the matrices of a result. @returns undefined if it has none */
export function matricesSection({ algebra, cosets = [] }: Result): Html | undefined {
  const named: [name: string, matrix: SquareMatrix][] = [
    ...(algebra?.generators ?? []).map((b, i): [string, SquareMatrix] => [`B${i + 1}`, b]),
    ...(algebra?.invariantMetric
      ? ([["metric J", algebra.invariantMetric.matrix]] satisfies [string, SquareMatrix][])
      : []),
    ...cosets.map((c, i): [string, SquareMatrix] => [`component ${i + 1}: ${c.name}`, c.matrix]),
  ];
  if (named.length === 0) return undefined;
  return html`<section class="matrices"><details><summary><h2>Matrices</h2></summary>
<p>As learnt, row by row. Paste a table into a spreadsheet, or the copied text into a program.</p>
<div class="row">${named.slice(0, MOST).map(([name, matrix]) => matrixTable(name, matrix))}</div></details></section>`;
}

function matrixTable(name: string, matrix: SquareMatrix): Html {
  return html`<table class="matrix" data-matrix="${JSON.stringify(matrix)}"><caption>${name}</caption><tbody>${matrix.map(
    (row) => html`<tr>${row.map((x) => html`<td>${String(Number(x.toPrecision(6)))}</td>`)}</tr>`,
  )}</tbody></table>`;
}
