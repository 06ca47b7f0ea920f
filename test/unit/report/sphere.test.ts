import { expect } from "chai";
import fc from "fast-check";
import type { Raster } from "../../../src/report/png.js";
import {
  chartEdge,
  globeRaster,
  onGlobe,
  onMap,
  type Point,
  ringOnGlobe,
  ringOnMap,
  turnFrom,
  turnTo,
  unitVector,
  viewsOf,
} from "../../../src/report/sphere.js";

const [HEIGHT, WIDTH] = [60, 120];
const centre = fc.record({
  latitude: fc.double({ min: -90, max: 90, noNaN: true }),
  longitude: fc.double({ min: -360, max: 360, noNaN: true }),
});
const edgeOnMap = (latitude: number, longitude: number, radius = 14) =>
  ringOnMap(chartEdge({ latitude, longitude }, radius, WIDTH), HEIGHT, WIDTH);

describe("sphere on paper", () => {
  it("puts the lattice's pixels in their rows and columns", () => {
    const pixel = (row: number, col: number) =>
      onMap(
        unitVector(
          ((90 - ((row + 0.5) * 180) / HEIGHT) * Math.PI) / 180,
          (2 * Math.PI * col) / WIDTH,
        ),
        HEIGHT,
        WIDTH,
      );
    for (const [row, col] of [
      [0, 0],
      [59, 119],
      [30, 60],
      [12, 77],
    ] as const) {
      const [x, y] = pixel(row, col);
      expect(x).to.be.closeTo(col + 0.5, 1e-9);
      expect(y).to.be.closeTo(row + 0.5, 1e-9);
    }
  });

  it("turns north up and east staying east, and back", () => {
    const up = turnTo({ latitude: 50, longitude: 0 }, [1, 0, 0]);
    expect(up[2]).to.be.closeTo(Math.sin((50 * Math.PI) / 180), 1e-12);
    expect(turnTo({ latitude: 50, longitude: 0 }, [0, 1, 0])).to.deep.equal([0, 1, 0]);
    const point: Point = [0.6, 0, 0.8];
    fc.assert(
      fc.property(centre, (c) => {
        for (const [i, x] of turnFrom(c, turnTo(c, point)).entries())
          expect(x).to.be.closeTo(point[i]!, 1e-12);
      }),
    );
  });

  it("outlines a chart on the equator where the projection has its edge", () => {
    const curves = edgeOnMap(0, 180);
    expect(curves).to.have.length(1);
    expect(curves[0]!.closed).to.equal(true);
    const { spots } = curves[0]!;
    const latitude = Math.asin((14.5 * 2 * Math.PI) / WIDTH) / Math.PI;
    const [top, bottom] = [(0.5 - latitude) * HEIGHT, (0.5 + latitude) * HEIGHT];
    for (const [x, y] of spots) {
      const [toSide, toEnd] = [
        Math.min(Math.abs(x - 46), Math.abs(x - 75)),
        Math.min(Math.abs(y - top), Math.abs(y - bottom)),
      ];
      expect(Math.min(toSide, toEnd)).to.be.lessThan(1e-9);
      expect(x).to.be.within(46 - 1e-9, 75 + 1e-9);
      expect(y).to.be.within(top - 1e-9, bottom + 1e-9);
    }
  });

  it("splits the outline of a chart across longitude 0", () => {
    const curves = edgeOnMap(0, 0);
    expect(curves).to.have.length(2);
    const spans = curves.map(({ spots }) => {
      const xs = spots.map(([x]) => x);
      return [Math.min(...xs), Math.max(...xs)].map((x) => Number(x.toFixed(6)));
    });
    expect(spans.sort((a, b) => a[0]! - b[0]!)).to.deep.equal([
      [0, 15],
      [106, 120],
    ]);
    for (const { spots, closed } of curves) {
      expect(closed).to.equal(false);
      for (const end of [spots[0]!, spots.at(-1)!]) expect(end[0] % WIDTH).to.be.closeTo(0, 1e-9);
    }
  });

  it("never draws an outline across the whole map, wherever the chart is", () => {
    fc.assert(
      fc.property(centre, fc.integer({ min: 1, max: 19 }), ({ latitude, longitude }, radius) => {
        for (const { spots, closed } of edgeOnMap(latitude, longitude, radius)) {
          const ring = closed ? [...spots, spots[0]!] : spots;
          for (const [i, [x, y]] of ring.entries()) {
            expect(x).to.be.within(-1e-9, WIDTH + 1e-9);
            expect(y).to.be.within(-1e-9, HEIGHT + 1e-9);
            if (i > 0) expect(Math.abs(x - ring[i - 1]![0])).to.be.at.most(WIDTH / 2);
          }
        }
      }),
    );
  });

  it("shows a chart's outline on the near side of a globe only, and ends it at the limb", () => {
    const globe = { view: { latitude: 0, longitude: 60 }, radius: 50 };
    const ring = (longitude: number) => chartEdge({ latitude: 0, longitude }, 14, WIDTH);
    expect(ringOnGlobe(ring(60), globe).map((c) => c.closed)).to.deep.equal([true]);
    expect(ringOnGlobe(ring(240), globe)).to.deep.equal([]);
    const cut = ringOnGlobe(ring(150), globe);
    expect(cut).to.have.length(1);
    const { spots } = cut[0]!;
    for (const [x, y] of [spots[0]!, spots.at(-1)!])
      expect(Math.hypot(x - 50, y - 50)).to.be.closeTo(50, 1e-9);
    for (const [x] of spots) expect(x).to.be.greaterThan(50); // east of the centre
    expect(
      onGlobe(unitVector(0, Math.PI / 3), globe)!.map((x) => Number(x.toFixed(9))),
    ).to.deep.equal([50, 50]);
    expect(onGlobe(unitVector(0, (4 * Math.PI) / 3), globe)).to.equal(undefined);
  });

  it("shows on a globe the pixel under its centre, west to the left, north up", () => {
    // Quadrants about latitude 0, longitude 60 (column 20), and its own colour for that pixel.
    const palette = Array.from({ length: 6 }, (_, i): [number, number, number] => [i, i, i]);
    const pixels = Uint8Array.from({ length: 61 * WIDTH }, (_, i) => {
      const [row, col] = [Math.floor(i / WIDTH), i % WIDTH];
      if (row === 30 && col === 20) return 5;
      return 1 + (col < 20 ? 0 : 1) + (row < 30 ? 0 : 2);
    });
    const field: Raster = { height: 61, width: WIDTH, pixels, palette, colours: "kinds" };
    const size = 101;
    const globe = globeRaster(field, { latitude: 0, longitude: 60 }, size);
    const at = (east: number, north: number) => globe.pixels[(50 - north) * size + 50 + east];
    expect(at(0, 0)).to.equal(5);
    expect([at(-10, 10), at(10, 10), at(-10, -10), at(10, -10)]).to.deep.equal([1, 2, 3, 4]);
    expect([at(-50, 50), at(50, 50), at(-40, -40)]).to.deep.equal([0, 0, 0]);
  });

  it("looks at few charts one by one, and at many from all around", () => {
    const charts = [60, 180, 300, 0].map((longitude) => ({ latitude: 0, longitude }));
    expect(viewsOf(charts.slice(0, 3))).to.deep.equal(charts.slice(0, 3));
    expect(viewsOf(charts).map((v) => v.longitude)).to.deep.equal([0, 120, 240]);
  });
});
