/** Render the report of a run: one self-contained HTML page. */
import {
  componentsOf,
  describeGroup,
  doubt,
  formatCosine,
  formatSignature,
  nothingFound,
} from "../algebra/describe.js";
import { verdictOf } from "../algebra/describe-audit.js";
import { namedAlgebra, type SquareMatrix } from "../algebra/index.js";
import { inner } from "../algebra/linalg.js";
import { frame, project } from "../algebra/span.js";
import { formatSeconds } from "../format.js";
import type {
  AlgebraResult,
  CosetOutcome,
  CosetResult,
  CosetSearch,
  Equivariance,
  GroupResult,
  Result,
} from "../result.js";
import type { RunEvent } from "../run/events.js";
import type { RunConfig } from "../run/folder.js";
import { auditSection } from "./audit.js";
import { comparisonSection } from "./comparison.js";
import { chiefCurves, stagesOf } from "./curves.js";
import { evidenceSection } from "./evidence.js";
import { Html, html } from "./html.js";
import type { Picture } from "./illustration.js";
import { interactiveParts } from "./interactive.js";
import { matricesSection } from "./matrices.js";
import { type MotionPicture, motionSection } from "./motion.js";
import { pictureSections } from "./pictures.js";
import { type Bar, barPlot, curvePlot, flowPlot, imagePlot, matrixPlot, short } from "./plots.js";
import { rotationsSection } from "./rotations.js";
import { STYLE } from "./style.js";

/** The contents of a report. */
export interface ReportParts {
  result: Result;
  config: RunConfig;
  /** The run's log, whose epochs give the loss curves. */
  events?: readonly RunEvent[];
  /** Drawings of the data. */
  pictures?: readonly Picture[];
  /** Samples that move along generators. */
  motions?: readonly MotionPicture[];
  /** Drawings of the data as markup, from an earlier report of the run. */
  formerPictures?: string;
}

/** Render the report as an HTML page. */
export function renderReport({
  result,
  config,
  events = [],
  pictures = [],
  motions = [],
  formerPictures,
}: ReportParts): string {
  const former = formerPictures === undefined ? undefined : new Html(formerPictures);
  const [title, lead] = headline(result);
  const interactive = interactiveParts();
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title} · ${config.id}</title>${interactive.head}<style>${new Html(STYLE)}</style>
</head>
<body><main>
<header><p class="run">${config.experiment} · ${result.task} · seed ${result.seed} · ${config.created.slice(0, 16).replace("T", " ")} UTC</p><h1>${title}</h1><p class="lead">${lead}</p></header>
${resultSections(result).map((section) => section.html)}
${PICTURES[0]}${former ?? [motionSection(motions), ...pictureSections(pictures)]}${PICTURES[1]}
${trainingSection(result, events)}
${matricesSection(result)}
${settingsSection(result, config)}
<footer>Run ${config.id}. All numbers are in result.json beside this page. config.json has the
settings for running it again.</footer>
</main>${interactive.scripts}</body></html>
`.text;
}

/** What stands before and after the drawings of the data. */
const PICTURES = [new Html("<!--pictures-->"), new Html("<!--/pictures-->")] as const;

/** Take the drawings of the data from a report, which only a worker could make again. */
export function picturesOf(report: string): string | undefined {
  const [from, to] = [report.indexOf(PICTURES[0].text), report.lastIndexOf(PICTURES[1].text)];
  return from < 0 || to < from ? undefined : report.slice(from + PICTURES[0].text.length, to);
}

/** A section of a page. */
export interface Section {
  /** Its name in addresses. */
  id: string;
  title: string;
  html: Html;
}

/** Make the sections about a result. */
export function resultSections(result: Result): Section[] {
  const { algebra, cosets, cosetSearch, group, globalRotations, downstream, equivariance } = result;
  const { notes = [], comparison } = result;
  const sections: [id: string, title: string, html: Html | undefined | false][] = [
    ["notes", "Notes", notes.length > 0 && notesSection(notes)],
    ["algebra", "Lie algebra", algebra && algebraSection(algebra)],
    ["components", "Components", cosets && cosetSection(cosets, cosetSearch)],
    ["group", "Group", group && groupSection(group)],
    ["rotations", "Rotations", globalRotations && rotationsSection(globalRotations)],
    ["comparison", "Comparison", comparison && comparisonSection(comparison)],
    ["downstream", "Downstream", downstream && downstreamSection(downstream)],
    ["audit", "Audit", result.audit && auditSection(result.audit)],
    ["equivariance", "Equivariance", equivariance && equivarianceSection(equivariance)],
  ];
  return sections.flatMap(([id, title, html]) => (html ? [{ id, title, html }] : []));
}

function notesSection(notes: readonly string[]): Html {
  return html`<section><h2>Notes</h2>${notes.map((note) => html`<p>${note}</p>`)}</section>`;
}

/** Make a title and a sentence about the findings. */
export function headline({
  algebra,
  cosets,
  group,
  globalRotations,
  downstream,
  audit,
  task,
}: Result): [string, string] {
  if (audit)
    return [
      audit.broken ? `Broken in layer ${audit.layer}` : "No layer breaks the symmetry",
      `${capital(verdictOf(audit))}.`,
    ];
  const components = cosets && list(cosets.map((c) => c.name));
  const tail =
    components === undefined
      ? ""
      : cosets!.length === 1
        ? `One component: ${components}.`
        : `${cosets!.length} components: ${components}.`;
  if (!algebra) {
    if (cosets)
      return [
        `${capital(components!) || "No component"}`,
        "The components of the symmetry group that were found for the given Lie algebra.",
      ];
    return [
      capital(task.replaceAll("_", " ")),
      downstream
        ? "The scores of the model."
        : globalRotations
          ? "Where searches for rotations of the whole sphere ended, seed by seed."
          : "",
    ];
  }
  const { name, angleDegrees, nearest, cosine } = algebra.identified;
  if (algebra.symmetryCount === 0)
    return [
      capital(nothingFound(componentsOf({ cosets, group }))),
      `${capital(algebra.explanation)}. ${tail}`,
    ];
  const count = `${algebra.symmetryCount} generator${algebra.symmetryCount === 1 ? "" : "s"}`;
  if (name === "unidentified") {
    const named =
      nearest === undefined
        ? "No named algebra has this dimension."
        : `The nearest named algebra is ${nearest}, at ${angleDegrees.toFixed(1)}°, which is too far.`;
    return [`An unidentified algebra, ${count}`, `${named} ${tail}`];
  }
  return [
    cosets && cosets.length > 1
      ? `${name}, with ${list(cosets.map((c) => c.name).filter((c) => c !== "identity"))}`
      : name,
    `${count}, ${angleDegrees.toFixed(1)}° from the exact algebra (cosine ${formatCosine(cosine)}). ${tail}`,
  ];
}

function algebraSection(algebra: AlgebraResult): Html {
  const {
    generators,
    losses,
    symmetryCount,
    identified,
    readableBasis,
    invariantMetric: metric,
    closure,
    noiseFloor,
  } = algebra;
  const n = generators[0]?.length ?? 0;
  const facts: [string, string][] = [
    [
      "Identified",
      identified.name === "unidentified" && identified.nearest
        ? `unidentified (nearest: ${identified.nearest})`
        : identified.name,
    ],
    [
      "Cosine, largest angle",
      `${formatCosine(identified.cosine)}, ${identified.angleDegrees.toFixed(2)}°`,
    ],
    ["Grassmann distance", `${short(identified.grassmannDistance)} rad`],
    ["Closure (mean, worst)", `${closure.mean.toFixed(3)}, ${closure.max.toFixed(3)}`],
    ["Killing signature (+, −, 0)", formatSignature(algebra)],
    ["Loss from interpolation alone", short(noiseFloor)],
    ["Explanation", algebra.explanation],
  ];
  return html`<section><h2>Lie algebra</h2>
<p>Generators of the action on points, u ↦ exp(tB)u, as learnt. They are never replaced by a known
algebra.</p>
<div class="row">${generators.map(
    (b, i) =>
      html`<figure>${matrixPlot(b, `generator ${i + 1}`)}<figcaption><b>B${sub(i + 1)}</b>${i < symmetryCount ? "" : " (not a symmetry)"}, loss ${short(losses[i] ?? Number.NaN)}</figcaption></figure>`,
  )}${n === 2 && symmetryCount > 0 ? flows(algebra) : undefined}</div>
${symmetryCount > 1 ? html`<h3>A readable basis of the same span</h3><div class="row">${readableBasis.map((b, i) => html`<figure>${matrixPlot(b, `readable generator ${i + 1}`)}</figure>`)}</div>` : undefined}
${metric && html`<h3>Invariant metric</h3><p>The symmetric J with BᵀJ + JB = 0${metric.conformal ? ", up to scale" : ""}: signature (${metric.signature[0]}, ${metric.signature[1]}), residual ${short(metric.residual)}.</p>${matrixPlot(metric.matrix, "invariant metric")}`}
${algebra.evidence && evidenceSection(algebra.evidence, symmetryCount)}
<h3>In numbers</h3>${symmetryCount > 0 ? table(facts) : table(facts.slice(-2))}
${spectrum(algebra)}</section>`;
}

/** Draw the flows of planar generators, each beside the nearest element of the named algebra. */
function flows({ generators, readableBasis, identified, symmetryCount }: AlgebraResult): Html[] {
  const exact = frame(namedAlgebra(identified.name, 2) ?? []);
  return (symmetryCount === 1 ? generators.slice(0, 1) : readableBasis).flatMap((b, i) => {
    const nearest: SquareMatrix = project(b, exact);
    const which = symmetryCount === 1 ? "B₁" : `readable generator ${i + 1}`;
    return [
      html`<figure>${flowPlot(b, `flow of ${which}`)}<figcaption><b>Learnt</b>: u ↦ Bu for ${which}, with its orbits</figcaption></figure>`,
      inner(nearest, nearest) > 0
        ? html`<figure>${flowPlot(nearest, `flow in ${identified.name}`)}<figcaption><b>Exact</b>: the nearest element of ${identified.name}</figcaption></figure>`
        : html``,
    ];
  });
}

function spectrum({
  spectrum: entries,
  losses,
  relativeErrors,
  symmetryCount,
  noiseFloor,
}: AlgebraResult): Html {
  const measured = entries && entries.length > 0;
  const values = measured
    ? entries
    : losses.map((loss, i) => ({ loss, relativeError: relativeErrors[i] ?? Number.NaN }));
  if (values.length === 0) return html``;
  const bars = values.map(
    ({ loss, relativeError }, i): Bar => ({
      value: loss,
      kind: i < symmetryCount ? "symmetry" : "other",
      title: `loss ${short(loss)}, relative error ${short(relativeError)}`,
    }),
  );
  const x = measured ? "directions of gl(n), least loss first" : "generators";
  return html`<h3>Spectrum</h3>
<p>Equivariance loss along each direction. The loss along a symmetry is far below the loss along other
directions. The remaining loss comes from the predictor's own error and, up to the dashed line, from
interpolation.</p>
${barPlot(bars, noiseFloor, "spectrum of equivariance losses", { x, y: "loss" })}${legend(
  [
    ["symmetry", "counts as a symmetry"],
    ["other", "does not count as a symmetry"],
  ],
  noiseFloor,
)}`;
}

function cosetSection(cosets: readonly CosetResult[], search: CosetSearch | undefined): Html {
  return html`<section><h2>Components</h2>
<p>One matrix for each connected component that was found, as learnt. The name below a matrix is the
name of its component.</p>
<div class="row">${cosets.map(
    (
      c,
      i,
    ) => html`<figure>${c.matrix.length === 2 ? imagePlot(c.matrix, `what component ${i + 1} does`) : undefined}${matrixPlot(c.matrix, `component ${i + 1}`)}
<figcaption><b>${capital(c.name)}</b><br>det ${short(c.determinant)}, loss ${short(c.loss)}${doubt(c)}<br>${order(c)}${c.preservesMetric === null ? "" : html`<br>${c.preservesMetric ? "keeps" : "does not keep"} the metric`}</figcaption></figure>`,
  )}</div>${search && searchPlot(search, cosets)}</section>`;
}

function groupSection(group: GroupResult): Html {
  const { finite, order: size, losses, spread, smallestDistance, explanation } = group;
  const facts: [string, string][] = [
    [finite ? "Group" : "Group of the components", describeGroup(group)],
    ["Products", explanation],
  ];
  if (finite && size > 1)
    facts.push(
      ["Error of an element (Frobenius)", short(spread)],
      ["Smallest distance of two elements", short(smallestDistance)],
      ["Largest loss of an element", short(Math.max(...losses))],
    );
  return html`<section><h2>Group</h2>
<p>All products of the matrices found, each refined and tested like these.</p>${table(facts)}</section>`;
}

function order({ order: own, orderModuloIdentity: modulo }: CosetResult): string {
  const words = (m: number | null) => (m === null ? "none up to 12" : String(m));
  return own === modulo
    ? `order ${words(own)}`
    : `order ${words(own)}, up to the identity component ${words(modulo)}`;
}

const OUTCOMES: Record<CosetOutcome, string> = {
  kept: "kept",
  duplicate: "in the component of a kept candidate",
  beyond_limit: "over the limit on components",
  not_a_symmetry: "not a symmetry",
  outside_support: "moves the data to where there are none",
};

function searchPlot({ candidates, noiseFloor }: CosetSearch, cosets: readonly CosetResult[]): Html {
  const bars = candidates.map(({ loss: measured, outcome, duplicateOf }): Bar => {
    const loss = measured ?? Number.POSITIVE_INFINITY; // the start diverged
    const of =
      duplicateOf === undefined
        ? ""
        : ` (${cosets[duplicateOf]?.name ?? `component ${duplicateOf + 1}`})`;
    return {
      value: loss,
      kind: outcome,
      title: `loss ${short(loss)}: ${OUTCOMES[outcome]}${of}`,
    };
  });
  const present = Object.entries(OUTCOMES).filter(([outcome]) =>
    candidates.some((c) => c.outcome === outcome),
  );
  return html`<h3>Candidates</h3>
<p>Every start of the search, in ascending order of loss, with its outcome.</p>
${barPlot(bars, noiseFloor, "losses of the candidates", { x: "candidates", y: "loss" })}${legend(present, noiseFloor)}`;
}

function downstreamSection({ metrics, gauge }: NonNullable<Result["downstream"]>): Html {
  const rows = Object.entries(metrics).map(([name, value]): [string, string] => [
    name,
    value === null ? "–" : String(Number.isInteger(value) ? value : Number(value.toPrecision(5))),
  ]);
  if (gauge !== undefined) rows.push(["gauge group", gauge]);
  return html`<section><h2>Downstream</h2>${table(rows)}</section>`;
}

function equivarianceSection(equivariance: Equivariance): Html {
  return html`<section><h2>Equivariance</h2>
<p>The distance is the mean distance between the model's output for a transformed input and its
transformed output for the original input. The relative error divides it by the sum of their
distances from the untransformed output: 0 for an equivariant model, about 0.5 if the three outputs
are unrelated, at most 1. All transformations but quarter turns interpolate. The third column is the
part of the error that interpolation may cause.</p>
<div class="scroll"><table><thead><tr><th>transformation</th><th>relative error</th><th>interpolation</th><th>distance</th></tr></thead><tbody>${equivariance.map(
    ({ name, relativeError, interpolation, distance }) =>
      html`<tr><th scope="row">${name}</th><td>${short(relativeError)}</td><td>${short(interpolation)}</td><td>${short(distance)}</td></tr>`,
  )}</tbody></table></div></section>`;
}

function trainingSection(result: Result, events: readonly RunEvent[]): Html {
  const stages = stagesOf(events);
  const curves = chiefCurves(events);
  const last = [...stages].map(([stage, epochs]): [string, string] => {
    const epoch = Math.max(...epochs.keys());
    const metrics = Object.entries(epochs.get(epoch)!).map(([name, x]) => `${name} ${short(x)}`);
    return [`${stage}, epoch ${epoch}`, metrics.join(", ") || "–"];
  });
  const { loss, epochs, source, heldOut } = result.predictor;
  const predictor = [
    source,
    `${epochs} epoch${epochs === 1 ? "" : "s"}`,
    loss === null ? "" : `loss ${short(loss)}`,
    heldOut?.skill == null
      ? ""
      : `skill ${heldOut.skill.toFixed(3)} ± ${(heldOut.skillError ?? 0).toFixed(3)} on held-out ` +
        "samples (1 is perfect, 0 is a constant)",
  ];
  return html`<section><h2>Training</h2>
<div class="row">${curves.map(({ stage, name, points }) => html`<figure data-curve="${curveData(points, name)}">${curvePlot(points, `${stage}: ${name}`)}<figcaption><b>${capital(stage)}</b>, ${name}</figcaption></figure>`)}</div>
<h3>Last epochs</h3>${table([["predictor", predictor.filter(Boolean).join(", ")], ...last])}</section>`;
}

/** Write a curve for the script of the page. */
function curveData(points: readonly { epoch: number; value: number }[], name: string): string {
  const values = points.map((p) => p.value);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const logarithmic = least > 0 && most / least > 8; // as in the drawing
  return JSON.stringify({ x: points.map((p) => p.epoch), y: values, name, logarithmic });
}

function settingsSection(result: Result, config: RunConfig): Html {
  const { device, threads, ranks, processor, blas, versions } = result.environment;
  const processes = ranks === undefined ? undefined : String(ranks);
  const machine = Object.entries({ ranks: processes, processor, blas }).filter(
    (entry): entry is [string, string] => entry[1] !== undefined,
  );
  const settings = Object.entries(config.config).map(([name, value]): [string, string] => [
    name,
    abbreviated(typeof value === "string" ? value : JSON.stringify(value)),
  ]);
  const times = Object.entries(result.timings).map(([stage, s]): [string, string] => [
    stage,
    formatSeconds(s),
  ]);
  return html`<section><h2>Settings</h2><div class="row">
<div><h3>Parameters${config.preset === undefined ? "" : ` (preset ${config.preset})`}</h3>${table(settings)}</div>
<div><h3>Time</h3>${table(times)}<h3>Environment</h3>${table([["device", device], ["threads", String(threads)], ...machine, ...Object.entries(versions)])}</div>
</div></section>`;
}

function table(rows: readonly (readonly [string, string])[]): Html {
  return html`<div class="scroll"><table><tbody>${rows.map(([name, value]) => html`<tr><th scope="row">${name}</th><td>${value}</td></tr>`)}</tbody></table></div>`;
}

/** Explain the colours of bars, and the dashed line. */
function legend(
  entries: readonly (readonly [kind: string, meaning: string])[],
  noiseFloor: number,
): Html {
  return html`<ul class="legend">${entries.map(
    ([kind, meaning]) =>
      html`<li><svg width="11" height="11" aria-hidden="true"><rect width="11" height="11" rx="2" class="${kind}"/></svg>${meaning}</li>`,
  )}${
    noiseFloor > 0
      ? html`<li><svg width="24" height="11" aria-hidden="true"><line x1="0" y1="6" x2="24" y2="6" class="floor"/></svg>interpolation ${short(noiseFloor)}</li>`
      : undefined
  }</ul>`;
}

/** Write a list: "a, b and c". */
function list(items: readonly string[]): string {
  return items.length < 2
    ? (items[0] ?? "")
    : `${items.slice(0, -1).join(", ")} and ${items.at(-1)}`;
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function abbreviated(text: string): string {
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}

function sub(i: number): string {
  return [...String(i)].map((digit) => "₀₁₂₃₄₅₆₇₈₉"[Number(digit)]).join("");
}
