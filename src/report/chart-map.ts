/** The report's map of where on the fields the symmetry holds. */
import type { ChartMap, MappedChart } from "../result.js";
import { type Html, html } from "./html.js";
import type { SamplePicture } from "./illustration.js";
import { short } from "./plots.js";
import { type Raster, rasterToPng } from "./png.js";
import { shrunk } from "./raster.js";

/** Width of the map in pixels. */
const WIDTH = 432;

/** What the states mean, for people. */
const STATES: Readonly<Record<MappedChart["state"], [kind: string, meaning: string]>> = {
  holds: ["kept", "the symmetry holds"],
  broken: ["not_a_symmetry", "it is broken"],
  constant: ["beyond_limit", "cannot tell: some of the input never varies"],
};

/** Draw the map over a sample, with the error of each chart and its interval as a table. */
export function chartMapFigures({ fields, map }: SamplePicture): Html {
  const [field] = fields;
  if (map === undefined || field === undefined) return html``;
  const present = Object.entries(STATES).filter(([state]) =>
    map.charts.some((chart) => chart.state === state),
  );
  const share = map.charts.filter((chart) => chart.state === "holds").length;
  return html`<h3>Where the symmetry holds</h3>
<p>The error of the discovered symmetry on each chart by itself: on ${share} of ${map.charts.length} charts it holds.
Coloured squares are the parts that are compared. They depend on the input up to ${map.reach} pixels further out.</p>
<div class="row"><figure>${mapPlot(field.raster, map)}<figcaption>Relative error in percent, over ${field.caption.toLowerCase()}</figcaption></figure></div>
<ul class="legend">${present.map(
    ([, [kind, meaning]]) =>
      html`<li><svg width="11" height="11" aria-hidden="true"><rect width="11" height="11" rx="2" class="${kind}"/></svg>${meaning}</li>`,
  )}</ul>
<details><summary>Errors of all charts</summary><div class="scroll"><table><thead><tr><th>row, column</th><th>error</th><th>95 % interval</th><th>interpolation</th><th></th></tr></thead><tbody>${map.charts.map(
    (c) =>
      html`<tr><th scope="row">${c.row}, ${c.col}</th><td>${short(c.error)}</td><td>${short(c.low)} to ${short(c.high)}</td><td>${short(c.interpolation)}</td><td>${STATES[c.state][1]}</td></tr>`,
  )}</tbody></table></div></details>`;
}

function mapPlot(raster: Raster, { charts, rOut }: ChartMap): Html {
  const { height, width } = raster;
  const side = 2 * rOut + 1;
  const image = rasterToPng(shrunk(raster, 2 * WIDTH)).toString("base64");
  const squares = charts.map((c) => {
    const [kind, meaning] = STATES[c.state];
    const said = `row ${c.row}, column ${c.col}: ${short(c.error)} (${short(c.low)} to ${short(c.high)}), ${meaning}`;
    return html`<g><title>${said}</title><rect x="${c.col - rOut}" y="${c.row - rOut}" width="${side}" height="${side}" class="mapped ${kind}"/><text x="${c.col + 0.5}" y="${c.row + 0.5}" style="font-size:${(side / 3).toFixed(1)}px">${Math.round(100 * c.error)}</text></g>`;
  });
  return html`<svg class="field map" viewBox="0 0 ${width} ${height}" width="${WIDTH}" height="${Math.round((WIDTH * height) / width)}" role="img" aria-label="where the symmetry holds"><title>where the symmetry holds</title>
<image href="data:image/png;base64,${image}" width="${width}" height="${height}" preserveAspectRatio="none"/>${squares}</svg>`;
}
