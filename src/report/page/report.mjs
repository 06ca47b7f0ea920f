/**
 * What a report can do with JavaScript: curves with hover and zoom, samples that move, and matrices
 * to copy. Without it, and on paper, everything can be read too.
 */

const dark = matchMedia("(prefers-color-scheme: dark)");

/** @param {string} name */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** @type {(() => void)[]} */
const painters = [];

for (const figure of /** @type {NodeListOf<HTMLElement>} */ (
  document.querySelectorAll("figure[data-curve]")
)) {
  const still = figure.querySelector("svg");
  const { x, y, name, logarithmic } = JSON.parse(figure.dataset.curve ?? "{}");
  const place = document.createElement("div");
  place.className = "plot";
  figure.prepend(place);
  figure.classList.add("live");
  still?.classList.add("still");
  /** @type {{destroy(): void} | undefined} */
  let plot;
  const paint = () => {
    plot?.destroy();
    const axis = {
      stroke: colour("soft"),
      grid: { stroke: colour("line"), width: 1 },
      ticks: { stroke: colour("line"), width: 1 },
      font: "11px system-ui, sans-serif",
    };
    const number = (/** @type {number | null} */ v) =>
      v === null || v === undefined ? "–" : String(Number(v.toPrecision(6)));
    const uPlot = /** @type {any} */ (globalThis).uPlot;
    plot = new uPlot(
      {
        width: Math.min(330, figure.parentElement?.clientWidth ?? 330),
        height: 190,
        scales: { x: { time: false }, y: { distr: logarithmic ? 3 : 1 } },
        axes: [
          {
            ...axis,
            size: 28,
            incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 10000, 1e5],
          },
          {
            ...axis,
            size: 58,
            values: (/** @type {unknown} */ _, /** @type {(number | null)[]} */ ticks) =>
              ticks.map((t) => (t === null ? "" : String(Number(t.toPrecision(3))))),
          },
        ],
        series: [
          { label: "epoch" },
          {
            label: name,
            stroke: colour("accent"),
            width: 1.8,
            points: { show: x.length <= 40, size: 6 },
            value: (/** @type {unknown} */ _, /** @type {number | null} */ v) => number(v),
          },
        ],
      },
      [x, y],
      place,
    );
  };
  paint();
  painters.push(paint);
}
dark.addEventListener("change", () => {
  for (const paint of painters) paint();
});

for (const motion of /** @type {NodeListOf<HTMLElement>} */ (
  document.querySelectorAll(".motion")
)) {
  /** @type {string[]} */
  const labels = JSON.parse(motion.dataset.labels ?? "[]");
  const slider = document.createElement("input");
  slider.type = "range";
  slider.max = String(labels.length - 1);
  slider.value = String((labels.length - 1) / 2);
  slider.setAttribute("aria-label", `How far ${motion.dataset.name} moves the sample`);
  const told = document.createElement("output");
  const show = () => {
    const at = Number(slider.value);
    told.textContent = labels[at] ?? "";
    slider.setAttribute("aria-valuetext", told.textContent);
    for (const frames of motion.querySelectorAll(".frames"))
      for (const [i, frame] of [...frames.children].entries())
        frame.classList.toggle("now", i === at);
  };
  const place = document.createElement("p");
  place.className = "slider";
  place.append(slider, told);
  motion.querySelector("h3")?.after(place);
  motion.classList.add("live");
  slider.addEventListener("input", show);
  show();
}

for (const table of /** @type {NodeListOf<HTMLElement>} */ (
  document.querySelectorAll("table[data-matrix]")
)) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "copy";
  button.setAttribute("aria-label", `Copy ${table.querySelector("caption")?.textContent}`);
  button.addEventListener("click", async () => {
    const text = table.dataset.matrix ?? "";
    const done = await navigator.clipboard?.writeText(text).then(
      () => true,
      () => false,
    );
    if (!done) getSelection()?.selectAllChildren(table); // a page of a file may not copy by itself
    button.textContent = done ? "copied" : "selected";
    setTimeout(() => {
      button.textContent = "copy";
    }, 1500);
  });
  table.querySelector("caption")?.append(" ", button);
}
