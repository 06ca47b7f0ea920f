/** A result as a piece of HTML for any page. */
import type { Result } from "../result.js";
import { Html, html } from "./html.js";
import { matricesSection } from "./matrices.js";
import { headline, resultSections } from "./render.js";
import { DARK, LIGHT, PARTS } from "./style.js";

/**
 * Render a result as static HTML for any page, such as a notebook's or a paper's: one element
 * `<div class="atlas-result">` with its own style, which applies to nothing else. It has no
 * scripts, loads nothing, and every text in it is escaped.
 *
 * @example
 * ```ts
 * import { readFile, writeFile } from "node:fs/promises";
 * import { Result, renderFragment } from "atlas-symmetry";
 *
 * const result = Result.parse(JSON.parse(await readFile("result.json", "utf8")));
 * await writeFile("fragment.html", renderFragment(result));
 * ```
 */
export function renderFragment(result: Result): string {
  const [title, lead] = headline(result);
  const style = `.atlas-result { ${LIGHT} color: var(--ink); font: 16px/1.55 system-ui, sans-serif; ${PARTS} }
@media (prefers-color-scheme: dark) { .atlas-result { ${DARK} } }`;
  return html`<div class="atlas-result"><style>${new Html(style)}</style>
<h1>${title}</h1><p class="lead">${lead}</p>
${resultSections(result).map((section) => section.html)}
${matricesSection(result)}</div>`.text;
}
