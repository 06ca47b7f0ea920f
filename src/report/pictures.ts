/**
 * The report's sections about the data: fields with their charts, and predictions beside labels.
 */
import { chartMapFigures } from "./chart-map.js";
import { type Html, html } from "./html.js";
import {
  type Charts,
  isSpherical,
  type Picture,
  type PredictionPicture,
  type SamplePicture,
  type SphereCharts,
} from "./illustration.js";
import { type Colour, type Raster, rasterToPng } from "./png.js";
import {
  type Classes,
  classColour,
  FALSE_ALARM_COLOUR,
  NO_PREDICTION_COLOUR,
  RIGHT_COLOUR,
  shrunk,
  WRONG_COLOUR,
} from "./raster.js";
import {
  type Curve,
  chartEdge,
  type Globe,
  globeRaster,
  graticule,
  onGlobe,
  onMap,
  type Point,
  ringOnGlobe,
  ringOnMap,
  type SphereCentre,
  unitVector,
  viewsOf,
} from "./sphere.js";

type Outline = readonly [radius: number, kind: string];

/** Width in pixels of a small field; three fit beside each other. */
const FIELD_WIDTH = 320;
/** Width of a large field; two fit beside each other. */
const LARGE_WIDTH = 432;
/** Number of columns above which a field is large. */
const LARGE = 400;
/** Pixels of an image's longer side at most, so that a page with many images stays small. */
const MOST_PIXELS = 640;
/** Width of a map. A map is as high as its globes, and three globes fit beside it. */
const MAP_WIDTH = 336;
const GLOBE_RADIUS = 83;
/** Width of a field in a row of four. */
const ROW_WIDTH = 206;

/** Make the sections about the data. */
export function pictureSections(pictures: readonly Picture[]): Html[] {
  const samples = pictures.filter((p) => p.kind === "sample");
  const predictions = pictures.filter((p) => p.kind === "prediction");
  return [
    ...(samples.length > 0 ? [dataSection(samples)] : []),
    ...(predictions.length > 0 ? [predictionSection(predictions)] : []),
  ];
}

function dataSection(samples: readonly SamplePicture[]): Html {
  const spherical = samples.some((s) => sphereOf(s.charts));
  const charts = samples.flatMap((s) => (s.charts && s.charts.charts.length > 0 ? [s.charts] : []));
  const words = [
    spherical &&
      "The sphere is shown as a map, with longitude 0° at its left edge, and as globes. North is " +
        "up. A chart on the sphere becomes a square when it is unrolled.",
    charts.length > 0 &&
      (charts.every((c) => c.rIn === c.rOut)
        ? "Outlines show what a local predictor sees. Transformed fields are compared on the same " +
          "part."
        : "Outlines show what a local predictor sees (solid), and where transformed fields are " +
          "compared (dashed)."),
    samples.some((s) => s.fields.some((f) => f.classes)) &&
      "Labels have the colours of their classes.",
  ];
  return html`<section><h2>Data</h2>${paragraph(words)}${samples.map((s) => sampleFigures(s))}</section>`;
}

function sampleFigures(sample: SamplePicture): Html {
  const { fields, charts } = sample;
  const sphere = sphereOf(charts);
  const classes = fields.find((f) => f.classes)?.classes;
  const figures = fields.map(({ caption, raster, classes: own }) => {
    const name = caption;
    const map = fieldPlot(raster, {
      charts,
      name,
      shown: sphere ? MAP_WIDTH : raster.width > LARGE ? LARGE_WIDTH : FIELD_WIDTH,
      labels: own !== undefined,
    });
    if (!sphere) return figure(map, caption);
    const globes = viewsOf(sphere.charts).map((view) => {
      const seen = `from ${place(view)}`;
      return figure(
        globePlot(raster, {
          charts: sphere,
          view,
          name: `${name}, ${seen}`,
          labels: own !== undefined,
        }),
        seen,
      );
    });
    return html`<div class="row sphere">${figure(map, caption)}${globes}</div>`;
  });
  return html`<div class="sample">${sphere ? figures : html`<div class="row">${figures}</div>`}${classes && legend(classLegend(classes))}${chartMapFigures(sample)}</div>`;
}

function predictionSection(predictions: readonly PredictionPicture[]): Html {
  const kinds = [...new Set(predictions.map((p) => p.classes))];
  const background = kinds.some((c) => c.background !== undefined);
  const words = [
    "Each row shows a sample, its label, the most probable class of each pixel, and where that " +
      "class is right.",
    background &&
      "Percentages refer to the pixels whose label is not background. A false alarm is another " +
        "class predicted for a pixel of the background.",
    predictions.some((p) => p.missing) && "Nothing is predicted where there is no chart.",
  ];
  const outcomes = legend([
    [RIGHT_COLOUR, "right"],
    [WRONG_COLOUR, "wrong"],
    ...(background ? ([[FALSE_ALARM_COLOUR, "false alarm"]] as const) : []),
    [NO_PREDICTION_COLOUR, "no prediction"],
  ]);
  const groups = kinds.map(
    (classes) =>
      html`<div class="sample">${legend(classLegend(classes))}${outcomes}${predictions.filter((p) => p.classes === classes).map(predictionRow)}</div>`,
  );
  return html`<section><h2>Predictions</h2>${paragraph(words)}${groups}</section>`;
}

function predictionRow(picture: PredictionPicture): Html {
  const { sample, input, label, predicted, outcome, classes, charts } = picture;
  const { judged, right, missing, falseAlarms } = outcome;
  const alarms = classes.background === undefined ? "" : `; ${falseAlarms} false alarms`;
  const score =
    judged === 0
      ? `Nothing to judge${alarms}`
      : `Right: ${((100 * right) / judged).toFixed(1)} % of ${judged} pixels` +
        `${missing > 0 ? `; ${missing} more without a prediction` : ""}${alarms}`;
  const panels: [caption: string, raster: Raster, charts: Charts | undefined, labels: boolean][] = [
    [`Sample ${sample}, ${input.name}`, input.raster, charts, false],
    ["Label", label, undefined, true],
    ["Predicted", predicted, charts, true],
    [score, outcome.raster, undefined, true],
  ];
  return html`<div class="row predictions">${panels.map(([caption, raster, drawn, labels]) =>
    figure(
      fieldPlot(raster, {
        charts: drawn && { ...drawn, rOut: drawn.rIn },
        name: caption,
        shown: ROW_WIDTH,
        labels,
      }),
      caption,
    ),
  )}</div>`;
}

/** How a field is drawn. */
interface PlotOptions {
  charts?: Charts;
  name: string;
  /** Whether the image shows labels, where unlabelled pixels have the page's colour. */
  labels: boolean;
}

/** Draw a field with its charts: what the predictor sees (solid), and what is compared (dashed). */
export function fieldPlot(
  raster: Raster,
  { charts, name, labels, shown }: PlotOptions & { shown: number },
): Html {
  const { height, width } = raster;
  const drawn = shrunk(raster, Math.min(2 * shown, MOST_PIXELS)); // twice as fine, for fine screens
  const kinds = ["field", ...(labels ? ["labels"] : []), ...(drawn.width > shown ? ["fine"] : [])];
  const overlay =
    charts && (isSpherical(charts) ? mapOutlines(charts, height, width) : squares(charts, width));
  return html`<svg class="${kinds.join(" ")}" viewBox="0 0 ${width} ${height}" width="${shown}" height="${(shown * height) / width}" role="img" aria-label="${name}"><title>${name}</title>
<rect width="${width}" height="${height}" class="panel"/>${image(drawn, width, height)}
${overlay}</svg>`;
}

/** Draw a field of a sphere as a globe, with the near side of the charts. */
export function globePlot(
  raster: Raster,
  { charts, view, name, labels }: PlotOptions & { charts: SphereCharts; view: SphereCentre },
): Html {
  const globe: Globe = { view, radius: GLOBE_RADIUS };
  const [side, rim] = [2 * GLOBE_RADIUS, GLOBE_RADIUS];
  const drawn = globeRaster(raster, view, 2 * side); // twice as fine, so that the disc is round
  const edges = outlines(charts).map(([radius, kind]) =>
    charts.charts.map((centre) =>
      paths(ringOnGlobe(chartEdge(centre, radius, raster.width), globe), kind),
    ),
  );
  const centres = charts.charts.map((centre) => {
    const spot = onGlobe(pointOf(centre), globe);
    return spot && html`<circle cx="${spot[0]}" cy="${spot[1]}" r="1.6" class="centre"/>`;
  });
  return html`<svg class="globe${labels ? " labels" : ""}" viewBox="-1 -1 ${side + 2} ${side + 2}" width="${side + 2}" height="${side + 2}" role="img" aria-label="${name}"><title>${name}</title>
<circle cx="${rim}" cy="${rim}" r="${rim}" class="panel"/>${image(drawn, side, side)}
${graticule().map((ring) => paths(ringOnGlobe(ring, globe), "graticule"))}<circle cx="${rim}" cy="${rim}" r="${rim}" class="limb"/>
${edges}${centres}</svg>`;
}

function image(raster: Raster, width: number, height: number): Html {
  return html`<image href="data:image/png;base64,${rasterToPng(raster).toString("base64")}" width="${width}" height="${height}" preserveAspectRatio="none"/>`;
}

/** List the outlines to draw. Two that coincide are drawn once. */
function outlines({ rIn, rOut }: Pick<Charts, "rIn" | "rOut">): Outline[] {
  return rIn === rOut
    ? [[rIn, "chart"]]
    : [
        [rIn, "chart"],
        [rOut, "inner"],
      ];
}

function squares(atlas: Exclude<Charts, SphereCharts>, width: number): Html {
  const boxes = outlines(atlas).map(([radius, kind]) =>
    atlas.charts.map(
      ({ row, col }) =>
        html`<rect x="${col - radius}" y="${row - radius}" width="${2 * radius + 1}" height="${2 * radius + 1}" class="${kind}"/>`,
    ),
  );
  return html`${boxes}${atlas.charts.map(({ row, col }) => html`<circle cx="${col + 0.5}" cy="${row + 0.5}" r="${width / 110}" class="centre"/>`)}`;
}

function mapOutlines(atlas: SphereCharts, height: number, width: number): Html {
  const edges = outlines(atlas).map(([radius, kind]) =>
    atlas.charts.map((centre) =>
      paths(ringOnMap(chartEdge(centre, radius, width), height, width), kind),
    ),
  );
  const centres = atlas.charts.map((centre) => {
    const [x, y] = onMap(pointOf(centre), height, width);
    return html`<circle cx="${x}" cy="${y}" r="${width / 140}" class="centre"/>`;
  });
  return html`${edges}${centres}`;
}

function paths(curves: readonly Curve[], kind: string): Html[] {
  return curves.map(({ spots, closed }) => {
    const points = spots
      .map(([x, y]) => `${Number(x.toFixed(1))},${Number(y.toFixed(1))}`)
      .join(" ");
    return html`<path d="M${points}${closed ? "Z" : ""}" class="${kind}"/>`;
  });
}

function pointOf({ latitude, longitude }: SphereCentre): Point {
  return unitVector((latitude * Math.PI) / 180, (longitude * Math.PI) / 180);
}

function sphereOf(charts: Charts | undefined): SphereCharts | undefined {
  return charts && isSpherical(charts) ? charts : undefined;
}

/** Write a place: "12° N, 60° W". */
function place({ latitude, longitude }: SphereCentre): string {
  const east = ((Math.round(longitude) % 360) + 360) % 360;
  const side = (degrees: number, positive: string, negative: string) =>
    degrees === 0 ? "0°" : `${Math.abs(degrees)}° ${degrees > 0 ? positive : negative}`;
  const turned = east > 180 ? east - 360 : east;
  return `${side(Math.round(latitude), "N", "S")}, ${turned === 180 ? "180°" : side(turned, "E", "W")}`;
}

function classLegend(classes: Classes): [Colour | undefined, string][] {
  return Array.from({ length: classes.count }, (_, label) => [
    label === classes.background ? undefined : classColour(label),
    nameOf(classes, label),
  ]);
}

function nameOf({ names, background }: Classes, label: number): string {
  return names?.[label] ?? (label === background ? "background" : String(label));
}

function legend(entries: readonly (readonly [Colour | undefined, string])[]): Html {
  return html`<ul class="legend">${entries.map(([colour, meaning]) => {
    const fill = colour
      ? html` fill="rgb(${colour[0]},${colour[1]},${colour[2]})" fill-opacity="${(colour[3] ?? 255) / 255}"`
      : html` class="none"`;
    return html`<li><svg width="13" height="13" aria-hidden="true"><rect x="1" y="1" width="11" height="11" rx="2"${fill}/></svg>${meaning}</li>`;
  })}</ul>`;
}

function figure(plot: Html, caption: string): Html {
  return html`<figure>${plot}<figcaption>${caption}</figcaption></figure>`;
}

function paragraph(sentences: readonly (string | false)[]): Html {
  const said = sentences.filter(Boolean).join(" ");
  return said ? html`<p>${said}</p>` : html``;
}
