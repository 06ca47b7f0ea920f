/** HTML and SVG text in which nothing is left unescaped by accident. */

/** Text that is markup. */
export class Html {
  constructor(readonly text: string) {}
  /** Get the markup. */
  toString(): string {
    return this.text;
  }
}

type Part = string | number | Html | undefined | readonly Part[];

/**
 * Make markup from a template. Strings and numbers in it are escaped, {@link Html} is not, lists
 * are joined, and undefined is left out.
 */
export function html(strings: TemplateStringsArray, ...parts: Part[]): Html {
  return new Html(strings.reduce((text, string, i) => text + render(parts[i - 1]) + string));
}

/** Escape a text for HTML. */
export function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;");
}

function render(part: Part): string {
  if (part === undefined) return "";
  if (typeof part === "number")
    return Number.isInteger(part) ? String(part) : String(Number(part.toFixed(2)));
  if (typeof part === "string") return escapeHtml(part);
  return part instanceof Html ? part.text : part.map(render).join("");
}
