/**
 * Drawings of a sphere. Fields are on the worker's equirectangular lattice: row i of H has latitude
 * 90° - (i + ½) 180°/H, and column j of W has longitude 360° j/W. On a map, the pixel in row i and
 * column j fills the square from (j, i) to (j + 1, i + 1).
 */
import type { SphereCharts } from "./illustration.js";
import type { Raster } from "./png.js";

/** The centre of a chart, in degrees. */
export type SphereCentre = SphereCharts["charts"][number];
/** A unit vector: x at latitude and longitude 0, y at longitude 90°, z at the north pole. */
export type Point = readonly [x: number, y: number, z: number];
/** A place on the page. */
export type Spot = readonly [x: number, y: number];
/** A curve on the page. If it is closed, its last point is joined to the first. */
export interface Curve {
  spots: Spot[];
  closed: boolean;
}

const DEGREES = Math.PI / 180;

/** Make the point at a latitude and longitude in radians. */
export function unitVector(latitude: number, longitude: number): Point {
  const c = Math.cos(latitude);
  return [c * Math.cos(longitude), c * Math.sin(longitude), Math.sin(latitude)];
}

/** Turn a point by the rotation that takes latitude and longitude 0 to `centre` and keeps east. */
export function turnTo({ latitude, longitude }: SphereCentre, [x, y, z]: Point): Point {
  const [a, b] = [latitude * DEGREES, longitude * DEGREES];
  const [u, w] = [Math.cos(a) * x - Math.sin(a) * z, Math.sin(a) * x + Math.cos(a) * z];
  return [Math.cos(b) * u - Math.sin(b) * y, Math.sin(b) * u + Math.cos(b) * y, w];
}

/** Undo {@link turnTo}. */
export function turnFrom({ latitude, longitude }: SphereCentre, [x, y, z]: Point): Point {
  const [a, b] = [latitude * DEGREES, longitude * DEGREES];
  const [u, v] = [Math.cos(b) * x + Math.sin(b) * y, Math.cos(b) * y - Math.sin(b) * x];
  return [Math.cos(a) * u + Math.sin(a) * z, v, Math.cos(a) * z - Math.sin(a) * u];
}

/**
 * Make the edge of a chart as a ring of points: the square with half side `radius` + ½ in Lambert's
 * cylindrical projection about the chart's centre, on a sphere that is `width` pixels around. A
 * point beyond a pole of the chart is put on the pole.
 */
export function chartEdge(
  centre: SphereCentre,
  radius: number,
  width: number,
  steps = 32,
): Point[] {
  const half = (radius + 0.5) * ((2 * Math.PI) / width);
  const sides: Spot[] = Array.from({ length: steps }, (_, i) => [
    -half + (2 * half * i) / steps,
    half,
  ]);
  const square = [0, 1, 2, 3].flatMap((turns) =>
    sides.map(
      ([x, y]): Spot =>
        turns === 0 ? [x, y] : turns === 1 ? [y, -x] : turns === 2 ? [-x, -y] : [-y, x],
    ),
  );
  return square.map(([east, north]) =>
    turnTo(centre, unitVector(Math.asin(Math.max(-1, Math.min(1, north))), east)),
  );
}

/** Find a point on the map of a lattice. */
export function onMap([x, y, z]: Point, height: number, width: number): Spot {
  const column = (Math.atan2(y, x) / (2 * Math.PI)) * width + 0.5;
  const latitude = Math.asin(Math.max(-1, Math.min(1, z)));
  return [column < 0 ? column + width : column, (0.5 - latitude / Math.PI) * height];
}

/** Draw a ring of points on the map, cut where it crosses the left and right edges. */
export function ringOnMap(ring: readonly Point[], height: number, width: number): Curve[] {
  const spots = ring.map((p) => onMap(p, height, width));
  return cutRing(spots, (a, b) => {
    const dx = b[0] - a[0];
    if (Math.abs(dx) <= width / 2) return undefined;
    // The short way to b leaves the map on one side and enters it on the other.
    const [out, back] = dx > 0 ? [0, width] : [width, 0];
    const share = (out - a[0]) / (dx - Math.sign(dx) * width || 1);
    const y = a[1] + share * (b[1] - a[1]);
    return [
      [out, y],
      [back, y],
    ];
  });
}

/** A globe, seen from far above `view`, north up. The centre of its disc is at (radius, radius). */
export interface Globe {
  view: SphereCentre;
  radius: number;
}

/** Find a point on a globe. @returns undefined if it is on the far side */
export function onGlobe(point: Point, { view, radius }: Globe): Spot | undefined {
  const [towards, east, north] = turnFrom(view, point);
  return towards < 0 ? undefined : [radius * (1 + east), radius * (1 - north)];
}

/** Draw the near side's part of a ring of points. */
export function ringOnGlobe(ring: readonly Point[], { view, radius }: Globe): Curve[] {
  const seen = ring.map((p) => turnFrom(view, p));
  const place = ([, east, north]: Point): Spot => [radius * (1 + east), radius * (1 - north)];
  const curves: Curve[] = [];
  const near = (p: Point) => p[0] >= 0;
  if (seen.every(near)) return [{ spots: seen.map(place), closed: true }];
  // Begin on the far side, so that no visible part begins in its middle.
  const start = seen.findIndex((p) => !near(p));
  let previous = seen[start]!;
  for (let i = 1; i <= seen.length; i++) {
    const next = seen[(start + i) % seen.length]!;
    if (near(next) !== near(previous)) {
      const limb = place(limbBetween(previous, next));
      if (near(next)) curves.push({ spots: [limb], closed: false });
      else curves.at(-1)!.spots.push(limb);
    }
    if (near(next)) curves.at(-1)!.spots.push(place(next));
    previous = next;
  }
  return curves;
}

/** Draw a field on a globe, `size` pixels across, transparent around it. */
export function globeRaster(field: Raster, view: SphereCentre, size: number): Raster {
  const pixels = new Uint8Array(size * size);
  for (let i = 0; i < size; i++)
    for (let j = 0; j < size; j++) {
      const [east, north] = [(2 * j + 1) / size - 1, 1 - (2 * i + 1) / size];
      const rest = 1 - east * east - north * north;
      if (rest < 0) continue;
      const [x, y] = onMap(turnTo(view, [Math.sqrt(rest), east, north]), field.height, field.width);
      const row = Math.min(field.height - 1, Math.floor(y));
      pixels[i * size + j] = field.pixels[row * field.width + (Math.floor(x) % field.width)]!;
    }
  return { ...field, height: size, width: size, pixels };
}

/** Make meridians and parallels, every 30°, as rings of points. */
export function graticule(): Point[][] {
  const steps = Array.from({ length: 72 }, (_, i) => i * 5 * DEGREES);
  const meridians = [0, 1, 2, 3, 4, 5].map((m) =>
    steps.map((t) => unitVector(t, m * 30 * DEGREES)),
  );
  const parallels = [-2, -1, 0, 1, 2].map((p) => steps.map((t) => unitVector(p * 30 * DEGREES, t)));
  return [...meridians, ...parallels];
}

/** Choose views of a sphere: above each chart, or all around if there are many charts. */
export function viewsOf(charts: readonly SphereCentre[]): SphereCentre[] {
  return charts.length <= 3
    ? [...charts]
    : [0, 120, 240].map((longitude) => ({ latitude: 0, longitude }));
}

/**
 * Cut a ring between neighbours for which `cut` gives the end of one piece and the start of the
 * next.
 */
function cutRing(
  ring: readonly Spot[],
  cut: (a: Spot, b: Spot) => [end: Spot, start: Spot] | undefined,
): Curve[] {
  const pieces: Spot[][] = [[]];
  for (const [i, spot] of ring.entries()) {
    pieces.at(-1)!.push(spot);
    const parts = cut(spot, ring[(i + 1) % ring.length]!);
    if (parts) {
      pieces.at(-1)!.push(parts[0]);
      pieces.push([parts[1]]);
    }
  }
  if (pieces.length === 1) return [{ spots: pieces[0]!, closed: true }];
  const last = pieces.pop()!; // continues where the first piece begins
  return [[...last, ...pieces[0]!], ...pieces.slice(1)].map((spots) => ({ spots, closed: false }));
}

/** Find where the way from the near side to the far side crosses the limb. */
function limbBetween(a: Point, b: Point): Point {
  const share = a[0] / (a[0] - b[0]);
  const [y, z] = [a[1] + share * (b[1] - a[1]), a[2] + share * (b[2] - a[2])];
  const length = Math.hypot(y, z) || 1;
  return [0, y / length, z / length];
}
