/** Describe an audit in words and numbers, for a terminal. */
import type { Audit, AuditedLayer } from "../result.js";

/** Layers that are listed at most. */
const MOST = 40;

/**
 * Describe an audit in lines for a terminal.
 *
 * @returns a label and a text for each line; an empty label continues the line before
 */
export function describeAudit(audit: Audit): [label: string, text: string][] {
  const { elements, judged, worst, before } = audit;
  const lines: [string, string][] = [["audit", verdictOf(audit)]];
  for (const { name, size, error, floor } of elements)
    lines.push([
      "",
      `${name}: error ${number(error)} (floor ${number(floor)}), moves ${number(size)} of the spread`,
    ]);
  const at = elements[judged]?.name ?? "";
  const former = new Map(before?.layers.map((layer) => [layer.name, layer]));
  const width = Math.max(...audit.layers.map((layer) => layer.name.length), 5);
  const shown = shortened(audit.layers);
  for (const [i, layer] of shown.entries()) {
    const old = former.get(layer.name);
    lines.push([
      i === 0 ? "layers" : "",
      [
        layer.breaks ? "→" : " ",
        layer.name.padEnd(width),
        `${number(layer.errors[judged])} (floor ${number(layer.floors[judged])})`,
        before === undefined ? "" : `before ${number(old?.errors[judged])}`,
        `${layer.kind}, ${layer.movedAs}`,
      ]
        .filter((part) => part !== "")
        .join("  "),
    ]);
  }
  if (shown.length < audit.layers.length)
    lines.push(["", `… all ${audit.layers.length} layers are in result.json`]);
  if (worst.length > 0)
    lines.push([
      "worst",
      `under ${at}: ${worst.map(({ sample, error }) => `sample ${sample} (${number(error)})`).join(", ")}`,
    ]);
  return lines;
}

/** Say in a sentence whether and where a network breaks a symmetry. */
export function verdictOf({
  symmetry,
  broken,
  layer,
  layers,
  elements,
  judged,
  before,
}: Audit): string {
  const { name = "", error = null, floor = null } = elements[judged] ?? {};
  const largest = `largest at ${name}: ${number(error)} (floor ${number(floor)})`;
  const of = symmetry === "discovered" ? "the symmetry that was discovered" : symmetry;
  const found = layers.find((one) => one.name === layer);
  const now = broken
    ? `${of} is broken, first in layer ${layer}${found ? `, a ${found.kind}` : ""}; ${largest}`
    : `${of} holds in the output, as far as interpolation and rounding allow; ${largest}`;
  if (before === undefined) return now;
  const then = before.broken ? `broken, first in layer ${before.layer}` : "kept";
  return `${now}; before the training it was ${then} (${number(before.errors[judged])})`;
}

/** Keep the first layers, the one that breaks, and the last. */
function shortened(layers: readonly AuditedLayer[]): AuditedLayer[] {
  if (layers.length <= MOST) return [...layers];
  const at = layers.findIndex((layer) => layer.breaks);
  return layers.filter(
    (_, i) => i < MOST / 2 || i === layers.length - 1 || Math.abs(i - at) < MOST / 5,
  );
}

function number(x: number | null | undefined): string {
  if (x === null || x === undefined) return "–";
  return x !== 0 && Math.abs(x) < 1e-3 ? x.toExponential(1) : x.toPrecision(2);
}
