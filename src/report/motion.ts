/** A real sample that moves along a generator, beside what the predictor says of it. */
import type { SquareMatrix } from "../algebra/index.js";
import type { Tensor } from "../tensor/index.js";
import type {
  MotionFrames,
  RemoteObject,
  Session as WholeSession,
} from "../worker/session/index.js";
import { type Html, html } from "./html.js";
import { fieldPlot } from "./pictures.js";
import type { Raster } from "./png.js";
import { classRaster, type Field, fieldRaster } from "./raster.js";

/** A motion for the report to show. The worker makes its frames when the report is written. */
export interface MotionIllustration {
  /** Name of the generator. */
  name: string;
  /** What is to be said of it beside its name; nothing if it is a symmetry. */
  doubt: string | undefined;
  predictor: RemoteObject;
  /** Samples to choose from (default: those held back from the training). */
  dataset?: RemoteObject;
  /** Whether inputs are sets of vectors, [m, n], not fields. */
  vectors: boolean;
  /** Generator of norm 1. */
  direction: SquareMatrix;
  /** Largest length of exp(tB). */
  longest: number;
}

/** The frames of a motion. */
export interface MotionPicture {
  name: string;
  doubt: string | undefined;
  direction: SquareMatrix;
  lengths: readonly number[];
  panels: readonly MotionPanel[];
  /** Mean difference of the predictions in units of the expected one's spread, for each frame. */
  apart: readonly number[];
}

/** One thing that is shown in all frames. */
export type MotionPanel = { caption: string } & (
  | { kind: "fields"; frames: readonly Raster[] }
  | {
      kind: "vectors";
      frames: readonly (readonly [x: number, y: number])[][];
      axes: readonly [number, number];
    }
  | { kind: "numbers"; frames: readonly { predicted: number[]; expected: number[] }[] }
);

type Point = readonly [x: number, y: number];

/** Frames of a motion; odd, so that the sample as it is stands in the middle. */
const FRAMES = 13;
/** Frames that are shown on paper, and without scripts. */
const KEY = [0, (FRAMES - 1) / 2, FRAMES - 1];
/** Width in pixels of a frame. */
const WIDTH = 150;
/** Vectors, or outputs, that are drawn at most. */
const MOST = 32;

/** Let the worker make the frames of motions. Samples that cannot be drawn are left out. */
export async function drawMotions(
  session: Pick<WholeSession, "moveSample">,
  motions: readonly MotionIllustration[],
): Promise<MotionPicture[]> {
  const pictures: MotionPicture[] = [];
  for (const { name, doubt, predictor, dataset, vectors, direction, longest } of motions) {
    const lengths = Array.from(
      { length: FRAMES },
      (_, i) => (longest * (2 * i - FRAMES + 1)) / (FRAMES - 1),
    );
    const frames = await session.moveSample(predictor, { dataset, direction, lengths });
    const panels = [
      vectors ? vectorPanel(frames.inputs, direction) : fieldPanel(frames.inputs, "moved sample"),
      ...outputPanels(frames),
    ].filter((panel) => panel !== undefined);
    const { apart } = frames;
    if (panels.length > 1) pictures.push({ name, doubt, direction, lengths, panels, apart });
  }
  return pictures;
}

function fieldPanel(tensor: Tensor, caption: string): MotionPanel | undefined {
  const frames = channelsOf(tensor)[0];
  return frames && { kind: "fields", caption, frames: rasters(frames) };
}

/** Take the channels of fields [T, channels, height, width]. */
function channelsOf({ shape, data }: Tensor): Field[][] {
  if (shape.length !== 4) return [];
  const [count = 0, channels = 0, height = 0, width = 0] = shape;
  const size = height * width;
  return Array.from({ length: channels }, (_, channel) =>
    Array.from({ length: count }, (_, t) => {
      const start = (t * channels + channel) * size;
      return {
        height,
        width,
        values: Float32Array.from(data.subarray(start, start + size) as Float32Array),
      };
    }),
  );
}

/** Draw fields with one scale of colours. */
function rasters(fields: readonly Field[]): Raster[] {
  const [{ height, width }] = fields as [Field];
  const size = height * width;
  const values = new Float32Array(fields.length * size);
  fields.forEach((field, i) => {
    values.set(Array.from(field.values), i * size);
  });
  const whole = fieldRaster({ height: fields.length * height, width, values });
  return fields.map((_, i) => ({
    ...whole,
    height,
    pixels: whole.pixels.slice(i * size, (i + 1) * size),
  }));
}

function outputPanels({ predicted, expected, classes }: MotionFrames): (MotionPanel | undefined)[] {
  const said = "what the predictor says of it";
  const turned = "what it says of the unmoved sample, moved";
  const [a, b] = [channelsOf(predicted), channelsOf(expected)];
  if (a.length === 0) return [numberPanel(predicted, expected)];
  const drawn = classes
    ? [a, b].flatMap((channels) => likeliest(channels))
    : rasters([...a[0]!, ...b[0]!]);
  return [
    { kind: "fields", caption: said, frames: drawn.slice(0, a[0]!.length) },
    { kind: "fields", caption: turned, frames: drawn.slice(a[0]!.length) },
  ];
}

function likeliest(channels: readonly Field[][]): Raster[] {
  return channels[0]!.map(({ height, width, values }, t) => {
    const labels = Array.from(values, (_, i) => {
      const shares = channels.map((frames) => frames[t]!.values[i]!);
      return shares.indexOf(Math.max(...shares));
    });
    return classRaster({ height, width, values: labels }, { count: channels.length });
  });
}

/** Draw vectors in the plane that the generator moves most. */
function vectorPanel({ shape, data }: Tensor, direction: SquareMatrix): MotionPanel | undefined {
  const [count = 0, items = 0, n = 0] = shape;
  if (shape.length !== 3 || n < 2 || n !== direction.length) return undefined;
  let axes: [number, number] = [0, 1];
  const strength = (i: number, j: number) =>
    Math.abs(direction[i]![j]!) + Math.abs(direction[j]![i]!);
  for (let i = 0; i < n; i++)
    for (let j = i + 1; j < n; j++) if (strength(i, j) > strength(...axes)) axes = [i, j];
  const frames = Array.from({ length: count }, (_, t) =>
    Array.from({ length: Math.min(items, MOST) }, (_, item): Point => {
      const start = (t * items + item) * n;
      return [Number(data[start + axes[0]]), Number(data[start + axes[1]])];
    }),
  );
  const plane = `coordinates ${axes[0] + 1} (right) and ${axes[1] + 1} (up)`;
  return { kind: "vectors", caption: `moved sample, ${plane}`, frames, axes };
}

function numberPanel(predicted: Tensor, expected: Tensor): MotionPanel | undefined {
  const [count = 0] = predicted.shape;
  const size = predicted.data.length / Math.max(1, count);
  if (size === 0 || predicted.data.length !== expected.data.length) return undefined;
  const of = ({ data }: Tensor, t: number) =>
    Array.from({ length: Math.min(size, MOST) }, (_, i) => Number(data[t * size + i]));
  return {
    kind: "numbers",
    caption: "what the predictor says of it (dots), and what it should say (rings)",
    frames: Array.from({ length: count }, (_, t) => ({
      predicted: of(predicted, t),
      expected: of(expected, t),
    })),
  };
}

/** Make the section with the moving samples. @returns undefined if there are none */
export function motionSection(pictures: readonly MotionPicture[]): Html | undefined {
  if (pictures.length === 0) return undefined;
  return html`<section><h2>A sample that moves</h2>
<p>A sample is moved by exp(tB), B of norm 1. Where B is a symmetry, what the predictor says of the moved sample is what it says of the unmoved one, moved.</p>${pictures.map(motion)}</section>`;
}

function motion({ name, doubt, direction, lengths, panels, apart }: MotionPicture): Html {
  const labels = lengths.map((t, i) => label(t, direction, apart[i]));
  return html`<div class="motion" data-name="${name}" data-labels="${JSON.stringify(labels)}"><h3>${name}${doubt === undefined ? "" : ` (${doubt})`}</h3><div class="row">${panels.map(
    (panel) =>
      html`<figure><div class="frames">${lengths.map(
        (_, i) =>
          html`<div class="frame${KEY.includes(i) ? " key" : ""}">${frame(panel, i)}<p>${labels[i]!}</p></div>`,
      )}</div><figcaption>${panel.caption}</figcaption></figure>`,
  )}</div></div>`;
}

function label(t: number, direction: SquareMatrix, apart?: number): string {
  const angle = direction.length === 2 ? turn(direction) : undefined;
  const moved = angle === undefined ? `t = ${number(t)}` : `${number(angle * t)}°`;
  return apart === undefined ? moved : `${moved}: ${(100 * apart).toFixed(1)} % apart`;
}

/** Degrees for a unit of t by which a planar generator turns, if that is nearly all that it does. */
function turn(generator: SquareMatrix): number | undefined {
  const [a = 0, b = 0, c = 0, d = 0] = generator.flat();
  const turning = (c - b) / 2;
  const rest = Math.hypot(a, d, (b + c) / Math.SQRT2);
  return rest < 0.1 * Math.abs(turning) ? (turning * 180) / Math.PI : undefined;
}

function number(x: number): string {
  return String(Number(x.toPrecision(2)) + 0);
}

function frame(panel: MotionPanel, i: number): Html {
  switch (panel.kind) {
    case "fields":
      return fieldPlot(panel.frames[i]!, { name: panel.caption, labels: false, shown: WIDTH });
    case "vectors":
      return vectorPlot(panel, i);
    case "numbers":
      return numberPlot(panel, i);
  }
}

function vectorPlot({ frames, caption }: MotionPanel & { kind: "vectors" }, i: number): Html {
  const most = Math.max(1e-300, ...frames.flat(2).map(Math.abs).filter(Number.isFinite));
  const at = (x: number) => Number(((x / most) * 92).toFixed(2));
  return html`<svg viewBox="-100 -100 200 200" width="${WIDTH}" height="${WIDTH}" role="img" aria-label="${caption}"><title>${caption}</title><rect x="-100" y="-100" width="200" height="200" class="panel"/>${frames[
    i
  ]!.map(
    ([x, y]) =>
      html`<path d="M0 0L${at(x)} ${-at(y)}" class="arrow"/><circle cx="${at(x)}" cy="${-at(y)}" r="4" class="dot"/>`,
  )}</svg>`;
}

function numberPlot({ frames, caption }: MotionPanel & { kind: "numbers" }, i: number): Html {
  const all = frames.flatMap(({ predicted, expected }) => [...predicted, ...expected]);
  const [least, most] = [Math.min(...all), Math.max(...all)];
  const y = (v: number) => Number((90 - (180 * (v - least)) / (most - least || 1)).toFixed(2));
  const { predicted, expected } = frames[i]!;
  const x = (k: number) => Number((((k + 0.5) / predicted.length) * 180 - 90).toFixed(2));
  return html`<svg viewBox="-100 -100 200 200" width="${WIDTH}" height="${WIDTH}" role="img" aria-label="${caption}"><title>${caption}: ${predicted.map((v) => v.toPrecision(3)).join(", ")}; expected ${expected.map((v) => v.toPrecision(3)).join(", ")}</title><rect x="-100" y="-100" width="200" height="200" class="panel"/>${expected.map(
    (v, k) => html`<circle cx="${x(k)}" cy="${y(v)}" r="7" class="ring"/>`,
  )}${predicted.map((v, k) => html`<circle cx="${x(k)}" cy="${y(v)}" r="4" class="dot"/>`)}</svg>`;
}
