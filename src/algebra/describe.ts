/** A result in words and numbers, for a terminal. */
import type { AlgebraResult, Result } from "../result.js";
import type { SquareMatrix } from "./linalg.js";

/** Lines without colours, each beginning with what it is about. */
export function describeResult(result: Result): string[] {
  const { algebra, cosets, globalRotations, downstream, equivariance, notes } = result;
  const lines: string[] = [];
  if (algebra) lines.push(...describeAlgebra(algebra, cosets?.length ?? 0));
  if (cosets) {
    lines.push(label("cosets", cosets.length === 0 ? "none found" : cosets.map((c) => c.name).join(", ")));
    lines.push(
      ...cosets.map((c) => label("", `${formatMatrix(c.matrix)}  ${c.name}, loss ${c.loss.toPrecision(3)}`)),
    );
  }
  for (const search of globalRotations?.searches ?? []) {
    const axes =
      search.axisSpread === null ? "" : `, axes ${search.axisSpread.toFixed(0)}° apart (at random 57°)`;
    const about = `${globalRotations!.solver}, cosine weight ${search.cosineWeight}`;
    lines.push(
      label(
        "search",
        `${about}: angles of ${search.meanMagnitude.toPrecision(2)} rad (standard deviation)${axes}`,
      ),
    );
    for (const { magnitude, axis, moved, toldApart } of search.runs)
      lines.push(
        label(
          "",
          `${magnitude.toPrecision(2)} rad about [${axis.map(formatEntry).join(", ")}], ${moved.toPrecision(2)} from its start, told apart ${toldApart.toFixed(2)}`,
        ),
      );
  }
  if (downstream) {
    const metrics = Object.entries(downstream.metrics).map(
      ([name, value]) =>
        `${name} ${value === null ? "–" : Number.isInteger(value) ? value : Number(value.toPrecision(4))}`,
    );
    lines.push(label("metrics", metrics.join(", ")));
    if (downstream.gauge !== undefined) lines.push(label("gauge", downstream.gauge));
  }
  const errors = equivariance?.map(
    (e) => `${e.name} ${e.relativeError.toPrecision(2)} (${e.interpolation.toPrecision(2)})`,
  );
  if (errors)
    lines.push(label("errors", `of equivariance, relative (interpolation alone): ${errors.join(", ")}`));
  lines.push(...(notes ?? []).map((note) => label("note", note)));
  return lines;
}

function describeAlgebra(algebra: AlgebraResult, components: number): string[] {
  const { found, losses, noiseFloor, generators, readableBasis, invariantMetric: metric } = algebra;
  if (found === 0) return [label("algebra", `${nothingFound(components)}: ${algebra.verdict}`)];
  const worst = Math.max(...losses.slice(0, found));
  const lines = [
    label(
      "algebra",
      [
        nameInWords(algebra),
        `${found} generator${found === 1 ? "" : "s"}`,
        `loss ${found === 1 ? "" : "up to "}${worst.toPrecision(3)} (interpolation alone: ${noiseFloor.toPrecision(3)})`,
      ].join(", "),
    ),
  ];
  // One generator is shown as learnt; of several, a basis of the same span that can be read.
  const shown = found === 1 ? generators.slice(0, 1) : readableBasis;
  lines.push(...shown.map((m) => label("", formatMatrix(m))));
  // Of all of gl(n) it is the errors that say something.
  if (found < generators.length || found === generators[0]!.length ** 2)
    lines.push(label("", algebra.verdict));
  if (found > 1)
    lines.push(
      label(
        "",
        `closure ${algebra.closure.mean.toFixed(3)} (worst ${algebra.closure.max.toFixed(3)}), Killing signature ${formatSignature(algebra)}`,
      ),
    );
  if (metric && found > 1)
    lines.push(
      label(
        "metric",
        `${formatMatrix(metric.matrix)}, residual ${metric.residual.toPrecision(2)}${metric.conformal ? ", up to scale" : ""}${metric.cosine === undefined ? "" : `, cosine ${formatCosine(metric.cosine)} to the named one's`}`,
      ),
    );
  return lines;
}

/** No generator; there may be discrete symmetries all the same. */
export function nothingFound(components: number): string {
  return components > 1 ? "no continuous symmetry found" : "no symmetry found";
}

/** "so(2), cosine 0.9998 (1.1°)"; the nearest name with its angle when there is none. */
export function nameInWords({ identified }: Pick<AlgebraResult, "identified">): string {
  const { name, nearest, cosine, angleDegrees } = identified;
  if (name === "none") return "no symmetry found";
  const match = `cosine ${formatCosine(cosine)} (${angleDegrees.toFixed(1)}°)`;
  if (name !== "unidentified") return `${name}, ${match}`;
  return nearest === undefined ? "unidentified" : `unidentified (nearest: ${nearest}, ${match})`;
}

/** Rounded down, with as many digits as tell it from 1. */
export function formatCosine(cosine: number): string {
  if (cosine > 1 - 1e-9) return "1.0000";
  const digits = Math.max(4, Math.ceil(-Math.log10(1 - cosine)));
  return (Math.floor(cosine * 10 ** digits) / 10 ** digits).toFixed(digits);
}

export function formatSignature({ killingSignature: s }: Pick<AlgebraResult, "killingSignature">): string {
  return `(${s.positive}, ${s.negative}, ${s.zero})`;
}

/** "[[-0.02, -1.00], [1.00, 0.02]]" */
export function formatMatrix(matrix: SquareMatrix): string {
  return `[${matrix.map((row) => `[${row.map(formatEntry).join(", ")}]`).join(", ")}]`;
}

/** Two decimals, and no minus before a zero. */
export function formatEntry(x: number): string {
  return x.toFixed(2).replace(/^-(0\.00)$/, "$1");
}

function label(name: string, text: string): string {
  return `${name.padEnd(8)}${text}`;
}
