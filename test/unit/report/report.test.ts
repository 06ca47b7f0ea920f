import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import fc from "fast-check";
import { principalAngles } from "../../../src/algebra/span.js";
import { Context, type StageSession } from "../../../src/experiment/context.js";
import { illustrate } from "../../../src/experiment/illustrate.js";
import { Progress } from "../../../src/experiment/progress.js";
import { writeReport } from "../../../src/experiment/report.js";
import { html } from "../../../src/report/html.js";
import {
  picturesOf,
  type ReportParts,
  renderComparison,
  renderFragment,
  renderReport,
} from "../../../src/report/index.js";
import { barPlot, curvePlot, flowPlot, imagePlot, matrixPlot } from "../../../src/report/plots.js";
import type { RunEvent } from "../../../src/run/events.js";
import { RunFolder } from "../../../src/run/folder.js";
import { Tensor } from "../../../src/tensor/index.js";
import type { RemoteObject } from "../../../src/worker/index.js";
import { FakeSession } from "../experiment/fake-session.js";
import {
  CONFIG,
  equivariant,
  judged,
  lorentz,
  nothing,
  planar,
  result,
  rotations,
} from "./results.js";

const EVENTS: RunEvent[] = [1, 2, 2, 3].map((epoch) => ({
  type: "epoch",
  time: "",
  stage: "predictor",
  epoch,
  totalEpochs: 3,
  metrics: { loss: 1 / epoch },
  seconds: 1,
}));
const render = (parts: Partial<ReportParts> & Pick<ReportParts, "result">) =>
  renderReport({ config: CONFIG, events: EVENTS, ...parts });

const VOID = new Set(["meta", "link", "br", "img", "hr"]);

/** Fails when tags are not nested and closed, a bare < or & is in the text, or a number is none. */
function expectWellFormed(page: string): void {
  const body = page.replace(/^<!doctype html>/, "").replaceAll(/<style>.*?<\/style>/gs, "");
  const open: string[] = [];
  let rest = body;
  for (const [tag, close, name, attributes, self] of body.matchAll(
    /<(\/?)([a-z][a-z0-9]*)((?:\s+[a-zA-Z][a-zA-Z0-9-]*(?:="[^"<>]*")?)*)\s*(\/?)>/g,
  )) {
    rest = rest.replace(tag, "");
    if (close) expect(open.pop(), `</${name}>`).to.equal(name);
    else if (!self && !VOID.has(name!)) open.push(name!);
    expect(attributes).to.not.match(/NaN|undefined|Infinity|\[object/);
  }
  expect(open).to.deep.equal([]);
  expect(rest).to.not.match(/[<>]/);
  expect(rest.replaceAll(/&(amp|lt|gt|quot|#39);/g, "")).to.not.contain("&");
  expect(rest).to.not.match(/\bNaN\b|\bundefined\b|\bInfinity\b|\[object/);
}

const DOCUMENTS = () => [planar(), lorentz(), nothing(), rotations(), equivariant(), result()];

/** Take out the page's own scripts and policy; what its policy does not name stays. */
function withoutScripts(page: string): string {
  const [, policy = ""] = /http-equiv="Content-Security-Policy" content="([^"]*)"/.exec(page)!;
  expect(policy)
    .to.match(/^default-src 'none';/)
    .and.not.contain("script-src 'unsafe");
  return page
    .replaceAll(/<script>(.*?)<\/script>/gs, (whole, text: string) =>
      policy.includes(createHash("sha256").update(text).digest("base64")) ? "" : whole,
    )
    .replace(/<meta http-equiv[^>]*>/, "")
    .replaceAll(/<!--\/?pictures-->/g, "")
    .replaceAll(/<style>.*?<\/style>/gs, "");
}

describe("report", () => {
  it("is one well-formed page with its own scripts only, and nothing from elsewhere", () => {
    for (const document of DOCUMENTS()) {
      const page = withoutScripts(render({ result: document })).replaceAll("undefined_here", "");
      expectWellFormed(page);
      expect(page).to.not.match(/<script|<link|@import|url\(|https?:\/\/(?!www\.w3\.org)/i);
    }
  });

  it("has the matrices as tables, with all digits to copy", () => {
    const page = render({ result: lorentz() });
    const copies = [...page.matchAll(/data-matrix="([^"]*)"/g)].map(([, text]) =>
      JSON.parse(text!),
    );
    const { algebra, cosets } = lorentz();
    expect(copies.slice(0, 7)).to.deep.equal(algebra!.generators);
    expect(copies.slice(-2)).to.deep.equal(cosets!.map((c) => c.matrix));
  });

  it("keeps the drawings of a former report, which need a worker", () => {
    const pictures = "<section><h2>Data</h2></section>";
    const page = render({ result: planar(), formerPictures: pictures });
    expect(picturesOf(page)).to.equal(pictures);
    expect(render({ result: planar(), formerPictures: picturesOf(page) })).to.equal(page);
    expect(picturesOf("<html>of an older version</html>")).to.equal(undefined);
  });

  it("stays under 2 MB with the longest of logs", () => {
    const events = Array.from({ length: 50_000 }, (_, i) => ({
      ...(EVENTS[0] as Extract<RunEvent, { type: "epoch" }>),
      epoch: i + 1,
    }));
    expect(render({ result: lorentz(), events }).length).to.be.below(500_000);
  });

  it("can be a fragment of any page, whose style applies to it alone", () => {
    for (const document of DOCUMENTS()) {
      const fragment = renderFragment(document);
      const [style = ""] = /<style>.*?<\/style>/s.exec(fragment)!;
      expect(style)
        .to.match(/^<style>\.atlas-result \{/)
        .and.not.match(/^(body|main|:root)/m);
      expectWellFormed(fragment.replaceAll("undefined_here", ""));
      expect(fragment)
        .to.match(/^<div class="atlas-result">/)
        .and.not.contain("<script");
    }
  });

  it("escapes every text of a result", () => {
    const document = planar();
    const text = `<script>alert("1")</script>&`;
    document.notes = [text];
    document.algebra!.explanation = text;
    document.cosets![1]!.name = text;
    const page = withoutScripts(
      render({ result: document, config: { ...CONFIG, config: { [text]: text } } }),
    );
    expectWellFormed(page);
    expectWellFormed(renderFragment(document));
    const run = { id: "a", status: "finished", config: CONFIG, result: document, events: EVENTS };
    expectWellFormed(withoutScripts(renderComparison([run, { ...run, id: text }])));
  });

  it("compares runs: what differs in the settings first, then the algebras' angles", () => {
    const turned = planar();
    const angle = 0.1;
    turned.algebra!.generators = [[[Math.sin(angle), -Math.cos(angle)], [Math.cos(angle), Math.sin(angle)]]]; // biome-ignore format: a matrix
    const runs = [planar(), turned, lorentz()].map((document, i) => ({
      id: `20260101-${i}`,
      status: "finished",
      config: { ...CONFIG, seed: i, config: { ...CONFIG.config, lr: 0.1 * i } },
      result: document,
      events: EVENTS,
    }));
    const page = renderComparison(runs);
    expectWellFormed(withoutScripts(page).replaceAll("undefined_here", ""));
    expect(page.match(/<h2>/g)!.length).to.be.at.least(5);
    expect(page.indexOf("Differences of the settings")).to.be.below(page.indexOf("Algebras"));
    expect(page).to.match(/<th scope="row">lr<\/th><td>0<\/td><td>0.1<\/td><td>0.2<\/td>/);
    const degrees = (angles: number[]) => `${((180 / Math.PI) * Math.max(...angles)).toFixed(2)}°`;
    const between = principalAngles(planar().algebra!.generators, turned.algebra!.generators);
    expect(page)
      .to.contain(`>${degrees(between)}<`)
      .and.contain("other space");
  });

  it("compares the evidence of runs", () => {
    const runs = [judged(), planar()].map((document, i) => ({
      id: `20260101-run${i}`,
      status: "finished",
      config: CONFIG,
      result: document,
    }));
    const page = renderComparison(runs);
    expectWellFormed(page);
    const row =
      /<td>symmetry<\/td><td>0.92<\/td><td>160<\/td><td>0.05<\/td><td>1.3 % \[1.1 %, 1.7 %\]<\/td><td>29.3 %<\/td><td>13 %<\/td><td>identity: symmetry; reflection: cannot tell<\/td>/;
    expect(page).to.match(row);
    expect(page.match(row)).to.have.length(1);
    expect(page).to.contain("<title>run0: best: 0.013, from 0.011 to 0.017</title>");
    expect(renderComparison(runs.slice(1))).not.to.contain("skill lost by each");
  });

  it("says what was found in its title, and shows every part", () => {
    const page = render({ result: planar() });
    expect(page).to.contain("<h1>so(2), with reflection</h1>");
    for (const part of [
      "Lie algebra",
      "Spectrum",
      "Components",
      "Candidates",
      "Training",
      "Settings",
    ])
      expect(page, part).to.match(new RegExp(`<h[23]>${part}`));
    expect(page).to.contain('aria-label="flow of B₁"').and.contain('aria-label="flow in so(2)"');
    expect(page).to.contain("interpolation 0.03");
    expect(render({ result: nothing() })).to.contain("<h1>No symmetry found</h1>");
    expect(render({ result: lorentz() })).to.contain("<h1>so(1,3)⊕R, with parity</h1>");
  });

  it("shows the axis of every search of a whole sphere, within the disc of its setting", () => {
    const { searches } = rotations().globalRotations!;
    const page = render({ result: rotations() });
    expect(page).to.contain("<h1>Global baseline</h1>").and.contain("seed by seed");
    const plots = page.match(/<svg [^>]*aria-label="axes with cosine weight .*?<\/svg>/gs)!;
    expect(plots).to.have.length(searches.length);
    for (const [i, { runs, cosineWeight }] of searches.entries()) {
      expect(plots[i]).to.contain(`aria-label="axes with cosine weight ${cosineWeight}"`);
      const circles = [
        ...plots[i]!.matchAll(/<circle cx="([-\d.]+)" cy="([-\d.]+)" r="([-\d.]+)" class="(\w+)"/g),
      ].map(([, cx, cy, r, kind]) => ({ x: Number(cx), y: Number(cy), r: Number(r), kind }));
      const disc = circles.find(({ kind }) => kind === "limb")!;
      const dots = circles.filter(({ kind }) => kind === "dot");
      expect(dots).to.have.length(runs.length);
      for (const { x, y, r } of dots) {
        expect(Math.hypot(x - disc.x, y - disc.y)).to.be.at.most(disc.r + 0.01);
        expect(Math.min(x, y) - r, "all of it is in the drawing").to.be.at.least(0);
        expect(Math.max(x, y) + r).to.be.at.most(2 * disc.x);
      }
    }
    // In the third search, at 37° from the pole: on the right, sin(37°/2) of the way that is
    // sin(90°/2) to the rim.
    const [, x, y] = plots[2]!
      .match(/cx="([\d.]+)" cy="([\d.]+)" r="[\d.]+" class="dot"/)!
      .map(Number);
    const [centre, radius] = plots[2]!
      .match(/cx="([\d.]+)" cy="[\d.]+" r="([\d.]+)" class="limb"/)!
      .slice(1)
      .map(Number) as [number, number];
    expect((x! - centre) / radius).to.be.closeTo(Math.sin(Math.acos(0.8) / 2) * Math.SQRT2, 1e-3);
    expect(y).to.equal(centre);
  });

  it("says how far apart the axes of several seeds are, and nothing of one's", () => {
    const { searches } = rotations().globalRotations!;
    const page = render({ result: rotations() });
    for (const { axisSpread } of searches.slice(0, 2))
      expect(page).to.contain(`axes ${axisSpread!.toFixed(0)}° apart on average; at random 57°`);
    expect(page.match(/apart on average/g)).to.have.length(2);
    // Every seed with every weight.
    expect(page.match(/<tr><td>[\d.]+<\/td><td>\d<\/td>/g)).to.have.length(11);
    expect(page).to.not.contain("-0.00");
  });

  it("says how equivariant a model is, matrix by matrix", () => {
    const page = render({ result: equivariant() });
    expect(page).to.contain("<h1>Downstream gcnn</h1>").and.contain("<h2>Equivariance</h2>");
    expect(page).to.contain("<td>1234567</td>"); // what is counted is not rounded
    expect(page).to.match(/rotation by 90°<\/t[hd]><td>0<\/td><td>0<\/td><td>0<\/td>/);
    expect(page).to.match(
      /shear &amp; &lt;stretch&gt;<\/t[hd]><td>0\.543<\/td><td>0\.123<\/td><td>0\.0123<\/td>/,
    );
    expect(render({ result: lorentz() })).to.not.contain("<h2>Equivariance</h2>");
  });

  it("draws an epoch that was done twice once", () => {
    expect(render({ result: planar() }).match(/<title>epoch 2: /g)).to.have.length(1);
  });

  it("escapes what comes from the user and the worker", () => {
    const evil = '<script>alert("1")</script>&<i>';
    const document = result({
      task: evil,
      notes: [evil],
      predictor: { loss: null, epochs: 1, source: evil },
    });
    const config = {
      ...CONFIG,
      id: evil,
      preset: evil,
      config: { [evil]: evil, nested: { [evil]: [evil] } },
    };
    const page = withoutScripts(render({ result: document, config }));
    expect(page).to.not.contain("<script").and.not.contain("<i>");
    expectWellFormed(page);
    expectWellFormed(html`<p title="${evil}">${evil} ${[evil, evil]} ${undefined}</p>`.text);
  });

  it("escapes any text", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        fc.pre(!/NaN|undefined|Infinity|object/.test(text));
        expectWellFormed(html`<p title="${text}">${text}</p>`.text);
      }),
    );
  });

  it("has drawings for any numbers", () => {
    const number = fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e6, max: 1e6 });
    const matrix = fc.array(fc.array(number, { minLength: 2, maxLength: 2 }), {
      minLength: 2,
      maxLength: 2,
    });
    fc.assert(
      fc.property(
        matrix,
        fc.array(fc.double(), { minLength: 1, maxLength: 5 }),
        number,
        (m, values, floor) => {
          expectWellFormed(matrixPlot(m, "m").text);
          expectWellFormed(flowPlot(m, "m").text);
          expectWellFormed(imagePlot(m, "m").text);
          const finite = values.filter((x) => Number.isFinite(x) && Math.abs(x) < 1e6);
          const points = [0, ...finite].map((value, epoch) => ({ epoch, value }));
          expectWellFormed(curvePlot(points, "c").text);
          const bars = [0, ...finite].map((x) => ({
            value: Math.abs(x),
            kind: "kept",
            title: "bar",
          }));
          expectWellFormed(barPlot(bars, Math.abs(floor), "b", { x: "x", y: "y" }).text);
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe("writing the report", () => {
  let dir: string;
  let run: RunFolder;
  const warnings: string[] = [];
  const progress = new Progress({ quiet: true });
  progress.warn = (line) => void warnings.push(line);
  const contextWith = (
    readDataset?: StageSession["readDataset"],
    predict?: StageSession["predict"],
  ) =>
    new Context({
      session: Object.assign(new FakeSession(), { readDataset, predict }).session,
      run,
      seed: 0,
      progress,
      signal: new AbortController().signal,
    });
  const field = Tensor.zeros("float32", [1, 2, 4, 6]);
  const dataset: RemoteObject = {
    handle: "d",
    type: "dataset",
    kind: "heat_equation",
    epoch: 1,
    totalEpochs: 1,
    facts: {},
  };

  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-report-"));
    const { schema: _schema, id: _id, created: _created, ...config } = CONFIG;
    run = await RunFolder.create(dir, config);
    warnings.length = 0;
  });
  afterEach(async () => {
    await run.close();
    rmSync(dir, { recursive: true, force: true });
  });

  it("puts it into the run folder, with the fields that the experiment pointed at", async () => {
    const context = contextWith(async () => ({ inputs: field, targets: field }));
    const charts = [{ row: 2, col: 3 }];
    const block = { kind: "planar", params: { charts, r_in: 2, r_out: 1 } } as const;
    for (const [i, atlas] of [block, { charts, rIn: 2, rOut: 1 }].entries()) {
      context.illustrations.length = 0;
      if (i === 0) context.illustrate({ dataset, atlas });
      else illustrate(context, { dataset, atlas }); // as experiments of version 0.1 do
      const path = await writeReport(run, planar(), context, progress);
      expect(path).to.equal(run.reportPath);
      const page = readFileSync(run.reportPath, "utf8");
      expect(page.match(/data:image\/png;base64,/g)).to.have.length(2);
      expect(page).to.contain('<rect x="1" y="0" width="5" height="5" class="chart"/>');
      expectWellFormed(withoutScripts(page));
      expect(warnings).to.deep.equal([]);
    }
  });

  it("shows a sphere as map and globes, and predictions of its label's classes", async () => {
    const [height, width] = [12, 24];
    const labels = Tensor.from(
      Array.from({ length: height * width }, (_, i) => (i % 5 === 0 ? 2 : 10)),
      "uint8",
    );
    // Nothing is predicted in row 0.
    const predicted = Array.from({ length: height * width }, (_, i) => (i < width ? -1 : 2));
    const classes = new Tensor("int64", [1, height, width], Tensor.from(predicted, "int64").data);
    const asked: unknown[] = [];
    const context = contextWith(
      async (_, range) => {
        asked.push(range);
        return {
          inputs: Tensor.zeros("float32", [1, 1, height, width]),
          targets: new Tensor("uint8", [1, height, width], labels.data),
        };
      },
      async (object, input, options) => {
        asked.push([object.handle, input, options]);
        return classes;
      },
    );
    const predictor: RemoteObject = { ...dataset, handle: "p", type: "predictor" };
    context.illustrate({
      dataset,
      sample: 1,
      atlas: { charts: [0, 180].map((longitude) => ({ latitude: 0, longitude })), rIn: 3, rOut: 2 },
      classes: { count: 11, background: 10, names: ["zero & <nought>"] },
      predictions: { predictor, samples: 2 },
    });
    await writeReport(run, planar(), context, progress);
    expect(warnings).to.deep.equal([]);
    const page = readFileSync(run.reportPath, "utf8");
    expectWellFormed(withoutScripts(page));
    expect(asked).to.deep.equal([
      { start: 1, count: 1 },
      ...[1, 2].flatMap((start) => [
        { start, count: 1 },
        ["p", { start, count: 1, dataset }, { classes: true }],
      ]),
    ]);
    expect(page.match(/class="globe/g)).to.have.length(4); // input and label, from each chart
    expect(page.match(/class="field/g)).to.have.length(2 + 2 * 4);
    expect(page).to.contain("from 0°, 180°").and.contain("zero &amp; &lt;nought&gt;");
    expect(page).to.contain("Nothing is predicted where there is no chart.");
    // Of 58 labelled pixels, 5 are in row 0; all others are predicted to be 2, as they are.
    expect(page.match(/Right: 100\.0 % of 53 pixels; 5 more without a prediction/g)).to.not.equal(
      null,
    );
  });

  it("shows predictions on a plain lattice too, but no more samples than there are", async () => {
    const context = contextWith(
      async () => ({ inputs: field, targets: Tensor.zeros("int64", [1, 1, 4, 6]) }),
      async () => Tensor.zeros("int64", [1, 4, 6]),
    );
    context.illustrate({
      dataset: { ...dataset, shapes: { inputs: [2, 2, 4, 6], targets: [2, 1, 4, 6] } },
      atlas: { charts: [{ row: 2, col: 3 }], rIn: 1, rOut: 1 },
      classes: { count: 3, names: ["land", "sea", "ice"] },
      predictions: { predictor: dataset },
    });
    await writeReport(run, planar(), context, progress);
    const page = readFileSync(run.reportPath, "utf8");
    expectWellFormed(withoutScripts(page));
    expect(page.match(/<figcaption>Right: 100\.0 % of 24 pixels</g)).to.have.length(2);
    expect(page).to.contain("Sample 0, input, channel 0").and.contain("Sample 0, label");
  });

  it("shows large maps of several channels by name, on a page that stays small", async () => {
    const [height, width] = [768, 1152];
    const storm = (i: number) => Math.hypot(Math.floor(i / width) - 300, (i % width) - 500) < 60;
    const values = Float32Array.from(
      { length: 2 * height * width },
      (_, i) => ((i * 7919) % 1009) / 1009,
    );
    const labels = Uint8Array.from({ length: height * width }, (_, i) => (storm(i) ? 1 : 0));
    const guesses = BigInt64Array.from({ length: height * width }, (_, i) =>
      storm(i - 20) ? 1n : 0n,
    );
    const context = contextWith(
      async () => ({
        inputs: new Tensor("float32", [1, 2, height, width], values),
        targets: new Tensor("uint8", [1, 1, height, width], labels),
      }),
      async () => new Tensor("int64", [1, height, width], guesses),
    );
    const charts = { charts: [{ row: 269, col: 576 }], rIn: 200, rOut: 150 };
    context.illustrate({
      dataset,
      atlas: charts,
      channels: ["TMQ", "U850"],
      classes: {
        count: 3,
        background: 0,
        names: ["background", "tropical cyclone", "atmospheric river"],
      },
      predictions: { predictor: dataset, samples: 3 },
    });
    await writeReport(run, planar(), context, progress);
    const page = readFileSync(run.reportPath, "utf8");
    expectWellFormed(withoutScripts(page));
    const images = page.match(/data:image\/png;base64,/g)!.length;
    expect(page.length, "a bit for each pixel").to.be.below((images * height * width) / 8);
    expect(page).to.contain("Sample 0, input, TMQ").and.not.contain("channel 0");
    expect(page).to.contain("false alarm</li>").and.contain("tropical cyclone");
    expect(page).to.contain('viewBox="0 0 1152 768"');
    expect(page).to.contain('<rect x="376" y="69" width="401" height="401" class="chart"/>');
    const [, share, alarms] = page
      .match(/Right: ([\d.]+) % of \d+ pixels; (\d+) false alarms/)!
      .map(Number);
    expect(share).to.be.within(70, 90);
    expect(alarms).to.be.within(2000, 3000); // 20 columns of 120 rows
  });

  it("leaves out samples that are not fields", async () => {
    const context = contextWith(async () => ({
      inputs: Tensor.zeros("float32", [1, 30, 4]),
      targets: Tensor.zeros("float32", [1]),
    }));
    context.illustrate({ dataset });
    await writeReport(run, lorentz(), context, progress);
    expect(readFileSync(run.reportPath, "utf8")).to.not.contain("data:image");
  });

  for (const [what, shape, out, vectors] of [
    ["fields", [13, 1, 8, 8], [13, 1, 6, 6], false],
    ["vectors and numbers", [13, 4, 2], [13, 3], true],
  ] as const)
    it(`shows ${what} that move along a generator`, async () => {
      const full = (sizes: readonly number[], from: number) =>
        Tensor.fromBytes(
          "float32",
          [...sizes],
          new Uint8Array(
            Float32Array.from({ length: sizes.reduce((a, b) => a * b) }, (_, i) =>
              Math.sin(i + from),
            ).buffer,
          ),
        );
      const asked: unknown[] = [];
      const context = contextWith();
      Object.assign(context.session, {
        moveSample: async (_: unknown, options: { lengths: number[] }) => {
          asked.push(options.lengths);
          const outputs = { predicted: full(out, 0), expected: full(out, 0.01) };
          const apart = options.lengths.map(() => 0.01);
          return { inputs: full(shape, 0), ...outputs, classes: false, apart };
        },
      });
      const direction = [
        [0, -Math.SQRT1_2],
        [Math.SQRT1_2, 0],
      ];
      const motion = { predictor: dataset, dataset, vectors, direction, longest: 2 };
      context.illustrateMotions([{ ...motion, name: "B1", doubt: "no symmetry" }]);
      await writeReport(run, planar(), context, progress);
      expect(warnings).to.deep.equal([]);
      expect(asked).to.deep.equal([Array.from({ length: 13 }, (_, i) => (i - 6) / 3)]);
      const page = withoutScripts(readFileSync(run.reportPath, "utf8"));
      expectWellFormed(page);
      expect(page).to.contain("B1 (no symmetry)").and.contain("% apart");
      expect(page).to.match(/data-labels="\[&quot;-81°/); // 2 / √2 radians
      expect(page.match(/class="frame key"/g)).to.have.length(3 * (vectors ? 2 : 3));
    });

  it("does without pictures, or without a report, and warns", async () => {
    const context = contextWith(() => Promise.reject(new Error("the worker died")));
    context.illustrate({ dataset });
    expect(await writeReport(run, planar(), context, progress)).to.equal(run.reportPath);
    expect(warnings).to.have.length(1);
    expect(warnings[0]).to.match(/pictures.*: the worker died$/);
    rmSync(dir, { recursive: true });
    expect(await writeReport(run, planar(), contextWith(), progress)).to.equal(undefined);
    expect(warnings[1]).to.match(/report.*: .*report\.html/);
  });
});
