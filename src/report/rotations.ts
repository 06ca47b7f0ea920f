/** The report's section about searches for rotations of a whole sphere. */
import { formatEntry } from "../algebra/describe.js";
import type { GlobalRotations } from "../result.js";
import { type Html, html } from "./html.js";
import { short, svg } from "./plots.js";

/** Draw where each search ended, in one plot for each weight. */
export function rotationsSection({ solver, searches }: GlobalRotations): Html {
  return html`<section><h2>Rotations of the whole sphere</h2>
<p>Where ${solver} ended with each seed. Every dot is an axis, seen from above the north pole in an
equal-area projection. The sign of an axis means nothing. Larger dots are larger angles. A symmetry
is a rotation on which all seeds agree.</p>
<div class="row">${searches.map(
    (search) =>
      html`<figure>${axesPlot(search.runs, `axes with cosine weight ${search.cosineWeight}`)}<figcaption><b>Cosine weight ${search.cosineWeight}</b><br>angles of ${short(search.meanMagnitude)} rad (standard deviation)${search.axisSpread === null ? "" : html`<br>axes ${search.axisSpread.toFixed(0)}° apart on average; at random 57°`}</figcaption></figure>`,
  )}</div>
<h3>Every seed</h3>
<p>“Angle” is a standard deviation. “Moved” is the distance of the generator from the start of its
search. A search that has hardly moved is no evidence. “Told apart” says how well the adversary tells
rotated samples from others: 0 never, 1 always.</p>
<div class="scroll"><table><thead><tr><th>cosine weight</th><th>seed</th><th>angle, rad</th><th>axis</th><th>moved, rad</th><th>told apart</th></tr></thead><tbody>${searches.flatMap(
    ({ cosineWeight, runs }) =>
      runs.map(
        ({ seed, magnitude, axis, moved, toldApart }) =>
          html`<tr><td>${cosineWeight}</td><td>${seed}</td><td>${short(magnitude)}</td><td>${axis.map(formatEntry).join(", ")}</td><td>${short(moved)}</td><td>${short(toldApart)}</td></tr>`,
      ),
  )}</tbody></table></div></section>`;
}

/** Draw axes as points of the northern hemisphere, in Lambert's azimuthal projection. */
function axesPlot(
  runs: GlobalRotations["searches"][number]["runs"],
  name: string,
  size = 216,
): Html {
  const radius = size / 2 - 12;
  const dots = runs.map(({ axis, magnitude, seed }) => {
    const sense = axis[2] < 0 ? -1 : 1;
    const [x, y, z] = axis.map((a) => a * sense) as [number, number, number];
    const stretch = radius / Math.sqrt(1 + z);
    return html`<circle cx="${size / 2 + stretch * x}" cy="${size / 2 - stretch * y}" r="${2 + 8 * Math.min(1, magnitude)}" class="dot" fill-opacity="0.7"><title>seed ${seed}: ${short(magnitude)} rad about ${axis.map(formatEntry).join(", ")}</title></circle>`;
  });
  const middle = size / 2;
  return svg(size, size, name, [
    html`<circle cx="${middle}" cy="${middle}" r="${radius}" class="panel"/><circle cx="${middle}" cy="${middle}" r="${radius}" class="limb"/>
<line x1="${middle - radius}" y1="${middle}" x2="${middle + radius}" y2="${middle}" class="axis"/><line x1="${middle}" y1="${middle - radius}" x2="${middle}" y2="${middle + radius}" class="axis"/>`,
    ...dots,
  ]);
}
