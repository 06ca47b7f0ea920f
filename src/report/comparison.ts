/** The section of a report that compares networks with and without a symmetry. */
import { comparisonRows, namedSize } from "../algebra/describe-comparison.js";
import type { Comparison } from "../result.js";
import { type Html, html } from "./html.js";

/** Show a table for each number of samples, and say what follows. */
export function comparisonSection({ arms, repeats, sizes }: Comparison): Html {
  return html`<section><h2>Comparison</h2>
<p>Networks with and without a symmetry, ${String(repeats)} trainings of each. In a repeat all of them have the
same samples and the same test. The skill on held-out samples is 1 for perfect predictions and 0 for
a constant. The last column divides what a network leaves unexplained by what the network without a
symmetry leaves: below 1 is better. Brackets are 95 % intervals over the repeats,
which draw from the same data.</p>
<ul>${arms.map(({ arm, architecture, symmetry }) => html`<li>${arm}: ${architecture}, ${symmetry}</li>`)}</ul>
${sizes.map((size) => {
  const [head, ...rows] = comparisonRows(size);
  return html`<h3>${namedSize(size)}</h3>
<div class="scroll"><table><thead><tr>${head!.map((cell) => html`<th>${cell}</th>`)}</tr></thead><tbody>${rows.map(
    ([first, ...cells]) =>
      html`<tr><th scope="row">${first!}</th>${cells.map((cell) => html`<td>${cell}</td>`)}</tr>`,
  )}</tbody></table></div>
${size.words.map((words) => html`<p>${words}.</p>`)}`;
})}</section>`;
}
