/** The style of the page, light or dark as the reader's system. */

/** Colours of the light page. */
export const LIGHT = `color-scheme: light dark; --page: #fbfbfa; --card: #fff; --ink: #1d2128; --soft: #656d78; --line: #e3e5e8; --panel: #f4f5f7;
  --accent: #2a6fb5; --plus: #d9603b; --minus: #3575c1; --good: #2e8b6d; --bad: #b8bcc4; --warn: #c98a1b; --dup: #86b7d6;
  --good-ink: #1f6f55; --plus-ink: #b0421d; --run0: #0072b2; --run1: #d55e00; --run2: #009e73; --run3: #b8559a; --run4: #c48a00; --run5: #3aa0dd; --run6: #7a5fd0; --run7: #6b7280;`;

/** Colours of the dark page. */
export const DARK = `--page: #14171c; --card: #1b1f26; --ink: #e7e9ed; --soft: #9aa3af; --line: #2d333d; --panel: #222832;
  --accent: #6fb1ee; --plus: #e8754f; --minus: #4f93e0; --good: #4fbf98; --bad: #4d5562; --warn: #e0a840; --dup: #3f6f91;
  --good-ink: #6fd0ae; --plus-ink: #f0926f; --run0: #4aa8e0; --run1: #f08a4b; --run2: #3fc79c; --run3: #dd8cc4; --run4: #e6b84a; --run5: #8acbf2; --run6: #a994ef; --run7: #a3abb8;`;

/** The style of what is in a page's sections. */
export const PARTS = `
* { box-sizing: border-box; }
h1 { font-size: 30px; line-height: 1.25; margin: 6px 0 10px; letter-spacing: -.01em; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 22px 26px 24px; margin-top: 22px; break-inside: avoid; }
h2 { font-size: 19px; margin: 0 0 4px; }
h3 { font-size: 15px; margin: 22px 0 8px; }
section p { margin: 4px 0 12px; color: var(--soft); max-width: 62em; }
.row { display: flex; flex-wrap: wrap; gap: 22px; align-items: flex-start; }
figure { margin: 0; }
figcaption { font-size: 13px; color: var(--soft); margin-top: 6px; max-width: 320px; }
figcaption b { color: var(--ink); font-weight: 600; }
svg { display: block; max-width: 100%; height: auto; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--ink); }
svg text.entry { text-anchor: middle; font-size: 12.5px; font-variant-numeric: tabular-nums; }
svg text.tick { fill: var(--soft); font-size: 11.5px; } .middle { text-anchor: middle; } .end { text-anchor: end; }
.cell, .panel { fill: var(--panel); } .plus { fill: var(--plus); } .minus { fill: var(--minus); }
.axis { stroke: var(--line); } .axis.strong { stroke: var(--soft); } .grid { stroke: var(--line); }
.orbit { fill: none; stroke: var(--accent); stroke-opacity: .35; stroke-width: 1.2; }
:is(.run0, .run1, .run2, .run3, .run4, .run5, .run6, .run7) { fill: var(--run); stroke: none; } :is(.orbit, .curve):is(.run0, .run1, .run2, .run3, .run4, .run5, .run6, .run7) { fill: none; stroke: var(--run); stroke-opacity: .8; }
.run0 { --run: var(--run0); } .run1 { --run: var(--run1); } .run2 { --run: var(--run2); } .run3 { --run: var(--run3); } .run4 { --run: var(--run4); } .run5 { --run: var(--run5); } .run6 { --run: var(--run6); } .run7 { --run: var(--run7); }
.chip { white-space: nowrap; } .chip svg { display: inline-block; margin-right: 6px; vertical-align: -1px; } .comparison { display: flex; flex-wrap: wrap; gap: 18px 36px; } details { margin-top: 12px; color: var(--soft); } .matrices details { margin: 0; color: inherit; } summary { cursor: pointer; } summary h2 { display: inline; }
.matrix caption { padding-bottom: 4px; color: var(--soft); font-size: 13px; text-align: left; } .matrix td { padding: 3px 10px; border: 1px solid var(--line); text-align: right; font: 13px ui-monospace, "DejaVu Sans Mono", monospace; }
.shaft { stroke: var(--ink); stroke-width: 1.3; } .head { fill: var(--ink); }
.before { fill: none; stroke: var(--soft); stroke-opacity: .7; stroke-dasharray: 3 3; }
.after { fill: none; stroke: var(--accent); stroke-width: 1.8; stroke-linejoin: round; } .after.filled { fill: var(--accent); fill-opacity: .3; }
.curve { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round; } .dot { fill: var(--accent); }
.kept, .symmetry { fill: var(--good); } .not_a_symmetry, .other { fill: var(--bad); } .beyond_limit, .outside_support { fill: var(--warn); } .duplicate { fill: var(--dup); }
.floor { stroke: var(--plus); stroke-width: 1.5; stroke-dasharray: 5 4; }
.field { border-radius: 6px; image-rendering: pixelated; } .field.fine { image-rendering: auto; } .field :is(path, rect) { vector-effect: non-scaling-stroke; }
.chart { fill: none; stroke: #fff; stroke-width: 1.6; stroke-linejoin: round; } .inner { fill: none; stroke: #fff; stroke-opacity: .55; stroke-dasharray: 3 3; } .centre { fill: #fff; }
:is(.field, .globe) :is(.chart, .inner) { filter: drop-shadow(0 0 .4px #000); } .labels :is(.chart, .inner) { filter: none; stroke: var(--ink); stroke-opacity: .6; } .labels .chart { stroke-width: 1.2; } .labels .centre { fill: none; }
.mapped { fill-opacity: .5; stroke: #fff; stroke-opacity: .8; } .map text { text-anchor: middle; dominant-baseline: central; fill: #fff; paint-order: stroke; stroke: #000; stroke-opacity: .5; stroke-width: .6px; }
.limb { fill: none; stroke: var(--soft); stroke-width: 1.2; } .graticule { fill: none; stroke: #fff; stroke-opacity: .2; stroke-width: .6; } .labels .graticule { stroke: var(--soft); stroke-opacity: .35; }
.frames { display: flex; flex-wrap: wrap; gap: 8px; } .frame { display: none; } .frame.key { display: block; } .frame p { margin: 2px 0 0; font-size: 12px; } .arrow { stroke: var(--accent); stroke-width: 1.5; } .ring { fill: none; stroke: var(--plus); stroke-width: 2.5; }
.motion.live .frame { display: none; } .motion.live .frame.now { display: block; } .motion.live .frame p { display: none; } .motion input { width: min(480px, 100%); accent-color: var(--accent); vertical-align: middle; } .motion output { margin-left: 12px; font-variant-numeric: tabular-nums; }
.sample + .sample { margin-top: 28px; } .none { fill: var(--panel); stroke: var(--soft); stroke-opacity: .6; } .row.sphere { margin-top: 16px; gap: 18px; } .row.predictions { margin-top: 18px; gap: 22px; } .predictions figcaption { max-width: 206px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; color: var(--soft); margin: 8px 0 0; padding: 0; list-style: none; }
.legend svg { display: inline-block; vertical-align: -1px; margin-right: 6px; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; color: var(--soft); padding: 4px 22px 4px 0; vertical-align: top; white-space: nowrap; }
td { padding: 4px 22px 4px 0; vertical-align: top; overflow-wrap: anywhere; }
thead th { border-bottom: 1px solid var(--line); } table.full { width: 100%; }
.scroll { overflow-x: auto; } .scroll > svg { min-width: 500px; } .broad > svg { min-width: 680px; }
@media print { .scroll > svg { min-width: 0 !important; } }
`;

/** The style sheet of the page. */
export const STYLE = `
:root { ${LIGHT} }
@media (prefers-color-scheme: dark) { :root { ${DARK} } }
${PARTS}
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 40px 24px 64px; }
header p.run { margin: 0; color: var(--soft); font-size: 14px; }
header p.lead { margin: 0; font-size: 18px; color: var(--soft); max-width: 46em; }
.still { display: none; } button.copy { border: 1px solid var(--line); border-radius: 6px; background: var(--card); color: var(--soft); font: 12px system-ui, sans-serif; cursor: pointer; } .u-legend { color: var(--soft); font-size: 12px; text-align: left; }
footer { color: var(--soft); font-size: 13px; margin-top: 22px; }
@media print { body { background: #fff; } main { padding: 0; max-width: none; } section { border-color: #ccc; } .plot, button.copy, .slider { display: none; } .motion.live .frame.now { display: none; } .motion.live .frame.key, .motion.live .frame p { display: block; } .still { display: block; } details:not([open])::details-content { content-visibility: visible; block-size: auto; } }
`;
