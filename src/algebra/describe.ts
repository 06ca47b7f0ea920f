/** Describe a result in words and numbers, for a terminal. */
import type { AlgebraResult, CosetResult, GroupResult, Result } from "../result.js";
import { describeAudit } from "./describe-audit.js";
import { describeChartMap } from "./describe-charts.js";
import { describeComparison } from "./describe-comparison.js";
import type { SquareMatrix } from "./linalg.js";

/**
 * Describe a result in lines for a terminal.
 *
 * @returns lines without colours; each begins with a label or continues the one before
 */
export function describeResult(result: Result): string[] {
  const { algebra, chartMap, cosets, group, globalRotations, downstream, equivariance, notes } =
    result;
  const lines: string[] = [];
  const { heldOut } = result.predictor;
  if (heldOut?.skill !== undefined && heldOut.skill !== null)
    lines.push(
      label(
        "skill",
        `${heldOut.skill.toFixed(3)} ± ${(heldOut.skillError ?? 0).toFixed(3)} on held-out ` +
          "samples (1 is perfect, 0 is a constant)",
      ),
    );
  if (algebra) lines.push(...describeAlgebra(algebra, componentsOf(result)));
  if (chartMap)
    lines.push(
      ...describeChartMap(chartMap).map((line, i) => label(i === 0 ? "charts" : "", line)),
    );
  if (cosets) {
    lines.push(
      label("cosets", cosets.length === 0 ? "none found" : cosets.map((c) => c.name).join(", ")),
    );
    lines.push(
      ...cosets.map((c) =>
        label("", `${formatMatrix(c.matrix)}  ${c.name}, loss ${c.loss.toPrecision(3)}${doubt(c)}`),
      ),
    );
  }
  if (group && (group.order > 1 || !group.resolved))
    lines.push(label("group", describeGroup(group)));
  for (const row of result.benchmark ?? [])
    lines.push(
      label(
        row.right ? "right" : "WRONG",
        `${row.problem}: ${row.found}${row.right ? "" : `; expected ${row.expected}`}, ` +
          `${row.seconds} s`,
      ),
    );
  for (const search of globalRotations?.searches ?? []) {
    const axes =
      search.axisSpread === null
        ? ""
        : `, axes ${search.axisSpread.toFixed(0)}° apart (at random 57°)`;
    const about = `${globalRotations!.solver}, cosine weight ${search.cosineWeight}`;
    lines.push(
      label(
        "search",
        `${about}: angles of ${search.meanMagnitude.toPrecision(2)} rad (standard ` +
          `deviation)${axes}`,
      ),
    );
    for (const { magnitude, axis, moved, toldApart } of search.runs)
      lines.push(
        label(
          "",
          `${magnitude.toPrecision(2)} rad about [${axis.map(formatEntry).join(", ")}], ` +
            `${moved.toPrecision(2)} from its start, told apart ${toldApart.toFixed(2)}`,
        ),
      );
  }
  if (result.comparison)
    lines.push(
      ...describeComparison(result.comparison).map((line, i) => label(i === 0 ? "arms" : "", line)),
    );
  if (downstream) {
    const metrics = Object.entries(downstream.metrics).map(([name, value]) => {
      if (value === null) return `${name} –`;
      return `${name} ${Number.isInteger(value) ? value : Number(value.toPrecision(4))}`;
    });
    lines.push(label("metrics", metrics.join(", ")));
    if (downstream.gauge !== undefined) lines.push(label("gauge", downstream.gauge));
  }
  if (result.audit)
    lines.push(...describeAudit(result.audit).map(([name, text]) => label(name, text)));
  const errors = equivariance?.map(
    (e) => `${e.name} ${e.relativeError.toPrecision(2)} (${e.interpolation.toPrecision(2)})`,
  );
  if (errors)
    lines.push(
      label("errors", `relative equivariance errors (interpolation alone): ${errors.join(", ")}`),
    );
  lines.push(...(notes ?? []).map((note) => label("note", note)));
  return lines;
}

function describeAlgebra(algebra: AlgebraResult, components: number): string[] {
  const {
    symmetryCount,
    losses,
    noiseFloor,
    generators,
    readableBasis,
    invariantMetric: metric,
  } = algebra;
  if (symmetryCount === 0)
    return [label("algebra", `${nothingFound(components)}: ${algebra.explanation}`)];
  const judged = algebra.evidence === undefined ? [] : [label("", algebra.evidence.words)];
  const worst = Math.max(...losses.slice(0, symmetryCount));
  const lines = [
    label(
      "algebra",
      [
        nameInWords(algebra),
        `${symmetryCount} generator${symmetryCount === 1 ? "" : "s"}`,
        `loss ${symmetryCount === 1 ? "" : "up to "}${worst.toPrecision(3)} (interpolation ` +
          `alone: ${noiseFloor.toPrecision(3)})`,
      ].join(", "),
    ),
  ];
  const { parts, about } = algebra.identified;
  if (parts !== undefined)
    lines.push(label("", parts.map(({ name, on }) => `${name} on ${on}`).join("; ")));
  if (about !== undefined) lines.push(label("", `about [${about.map(formatEntry).join(", ")}]`));
  // One generator is shown as learnt. Several are shown as a readable basis of their span.
  const shown = symmetryCount === 1 ? generators.slice(0, 1) : readableBasis;
  lines.push(...shown.map((m) => label("", formatMatrix(m))));
  const { freeDirections = 0, inertDirections = 0 } = algebra;
  const leftOut = freeDirections + inertDirections > 0;
  // For gl(n) itself the errors are the finding.
  if (judged.length > 0 && !leftOut) lines.push(...judged);
  else if (
    leftOut ||
    symmetryCount < generators.length ||
    symmetryCount === generators[0]!.length ** 2
  )
    lines.push(label("", algebra.explanation));
  if (symmetryCount > 1)
    lines.push(
      label(
        "",
        `closure ${algebra.closure.mean.toFixed(3)} (worst ${algebra.closure.max.toFixed(3)}), ` +
          `Killing signature ${formatSignature(algebra)}`,
      ),
    );
  if (metric && symmetryCount > 1) {
    const parts = [formatMatrix(metric.matrix), `residual ${metric.residual.toPrecision(2)}`];
    if (metric.conformal) parts.push("up to scale");
    if (metric.cosine !== undefined)
      parts.push(`cosine ${formatCosine(metric.cosine)} to the metric of the named algebra`);
    lines.push(label("metric", parts.join(", ")));
  }
  return lines;
}

/** Count the components of a result, or the elements of its finite group. */
export function componentsOf({ cosets = [], group }: Pick<Result, "cosets" | "group">): number {
  return Math.max(cosets.length, group?.order ?? 0);
}

/** Describe a group: "C_7, 7 elements (6 of order 7)". */
export function describeGroup(group: GroupResult): string {
  const { finite, name, abstractName, order, elementOrders, resolved, explanation } = group;
  if (!resolved) return explanation;
  if (!finite) return `the ${order} components make the group ${name}`;
  const counts = new Map<number, number>();
  for (const m of elementOrders) counts.set(m, (counts.get(m) ?? 0) + 1);
  const orders = [...counts].filter(([m]) => m > 1).sort(([a], [b]) => a - b);
  const words = orders.map(([m, many]) => `${many} of order ${m}`).join(", ");
  const abstract = [undefined, name].includes(abstractName) ? "" : ` (abstractly ${abstractName})`;
  return `${name}${abstract}, ${order} elements: the identity, ${words}`;
}

/** Say how sure a component is, if its evidence does not make it a symmetry. */
export function doubt({ evidence }: CosetResult): string {
  return evidence === undefined || evidence.verdict === "symmetry" ? "" : `; ${evidence.words}`;
}

/** Say that no generator was found. There may still be discrete symmetries. */
export function nothingFound(components: number): string {
  return components > 1 ? "no continuous symmetry found" : "no symmetry found";
}

/**
 * Name an algebra: "so(2), cosine 0.9998 (1.1°)"; if unidentified, with the nearest named algebra.
 */
export function nameInWords({ identified }: Pick<AlgebraResult, "identified">): string {
  const { name, nearest, cosine, angleDegrees } = identified;
  if (name === "none") return "no symmetry found";
  const match = `cosine ${formatCosine(cosine)} (${angleDegrees.toFixed(1)}°)`;
  if (name !== "unidentified") return `${name}, ${match}`;
  return nearest === undefined ? "unidentified" : `unidentified (nearest: ${nearest}, ${match})`;
}

/** Write a cosine, rounded down, with enough digits to differ from 1. */
export function formatCosine(cosine: number): string {
  if (cosine > 1 - 1e-9) return "1.0000";
  const digits = Math.max(4, Math.ceil(-Math.log10(1 - cosine)));
  return (Math.floor(cosine * 10 ** digits) / 10 ** digits).toFixed(digits);
}

/** Write a Killing signature: "(3, 3, 1)". */
export function formatSignature({
  killingSignature: s,
}: Pick<AlgebraResult, "killingSignature">): string {
  return `(${s.positive}, ${s.negative}, ${s.zero})`;
}

/** Write a matrix in one line: "[[-0.02, -1.00], [1.00, 0.02]]". */
export function formatMatrix(matrix: SquareMatrix): string {
  return `[${matrix.map((row) => `[${row.map(formatEntry).join(", ")}]`).join(", ")}]`;
}

/** Write an entry with two decimals, and zero without a minus. */
export function formatEntry(x: number): string {
  return x.toFixed(2).replace(/^-(0\.00)$/, "$1");
}

function label(name: string, text: string): string {
  return `${name.padEnd(8)}${text}`;
}
