import { inflateSync } from "node:zlib";
import { expect } from "chai";
import fc from "fast-check";
import { rasterToPng } from "../../../src/report/png.js";
import {
  classColour,
  classRaster,
  fieldOf,
  fieldRaster,
  labelsOf,
  outcomeOf,
  predictionsOf,
  shrunk,
} from "../../../src/report/raster.js";
import { type DType, Tensor } from "../../../src/tensor/index.js";

const row = (...values: number[]) => ({ height: 1, width: values.length, values });
const DIGITS = { count: 11, background: 10 };

/** The bytes of a PNG's chunk. */
function chunk(png: Buffer, type: string): Buffer {
  const start = png.indexOf(type) + 4;
  return png.subarray(start, start + png.readUInt32BE(start - 8));
}

describe("PNG of a field", () => {
  it("holds the field: least value first in the palette, and gaps transparent", () => {
    const png = rasterToPng(
      fieldRaster({
        height: 2,
        width: 3,
        values: [-1, 0, 1, Number.NaN, 1, Number.NEGATIVE_INFINITY],
      }),
    );
    expect(png.subarray(1, 4).toString()).to.equal("PNG");
    expect([png.readUInt32BE(16), png.readUInt32BE(20)]).to.deep.equal([3, 2]);
    expect([...inflateSync(chunk(png, "IDAT"))]).to.deep.equal([0, 1, 128, 255, 0, 0, 255, 0]);
    expect([...chunk(png, "PLTE").subarray(3, 6)]).to.deep.equal([68, 1, 84]);
    expect([...chunk(png, "tRNS").subarray(0, 3)]).to.deep.equal([0, 255, 255]);
  });

  it("may be flat or empty of numbers", () => {
    expect([...fieldRaster(row(5, 5)).pixels]).to.deep.equal([1, 1]);
    expect([...fieldRaster(row(Number.NaN)).pixels]).to.deep.equal([0]);
  });

  it("is made small by the mean of its pixels when it is large, and only then", () => {
    const large = fieldRaster({
      height: 768,
      width: 1152,
      values: Float32Array.from({ length: 768 * 1152 }, (_, i) => Math.floor(i / 1152 / 384)),
    });
    const { height, width, pixels } = shrunk(large, 360);
    expect([height, width, pixels.length]).to.deep.equal([240, 360, 240 * 360]);
    expect(new Set(pixels.subarray(0, 120 * 360))).to.deep.equal(new Set([1]));
    expect(new Set(pixels.subarray(120 * 360))).to.deep.equal(new Set([255]));
    const small = fieldRaster(row(1, 2));
    expect(shrunk(small, 2)).to.equal(small);
    const [low, high] = small.pixels as unknown as [number, number];
    const mixed = shrunk(
      fieldRaster(row(1, 2, 1, 1, 2, 2, Number.NaN, 2, Number.NaN, Number.NaN)),
      5,
    );
    const mean = Math.round((low + high) / 2);
    expect([...mixed.pixels]).to.deep.equal([mean, low, high, high, 0]);
  });

  it("keeps to its classes when it is made small, and rather any than none", () => {
    const classes = { count: 4, background: 0 };
    const [one, three] = [1, 3].map((k) => classRaster(row(k), classes).pixels[0]!);
    const large = classRaster(row(1, 3, 3, 0, 0, 0, 0, 1, 1, 1, 0, 0), classes);
    expect([...shrunk(large, 4).pixels]).to.deep.equal([three, 0, one, 0]);
    expect([...shrunk(classRaster(row(0, 1), classes), 1).pixels]).to.deep.equal([one]);
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 20 }),
        (height, width, limit) => {
          const values = Float32Array.from({ length: height * width }, (_, i) => (i * i) % 3);
          const made = shrunk(classRaster({ height, width, values }, { count: 3 }), limit);
          expect(Math.max(made.height, made.width)).to.be.at.most(Math.max(limit, 1));
          expect(made.pixels.every((pixel) => pixel > 0)).to.equal(true);
        },
      ),
    );
  });
});

describe("fields of a tensor", () => {
  it("are a channel of the first sample, whatever the elements are", () => {
    const dtypes: DType[] = ["float32", "float64", "int64", "int32", "uint8"];
    for (const dtype of dtypes) {
      const tensor = Tensor.from(
        [
          [[[0]], [[7]]],
          [[[1]], [[2]]],
        ],
        dtype,
      );
      expect([...Array.from(fieldOf(tensor, 1)!.values)], dtype).to.deep.equal([7]);
      expect(fieldOf(tensor, 2)).to.equal(undefined);
      const labels = Tensor.from([[[3, 10]]], dtype);
      expect(Array.from(labelsOf(labels)!.values), dtype).to.deep.equal([3, 10]);
      expect(Array.from(labelsOf(Tensor.from([[[[3, 10]]]], dtype))!.values)).to.deep.equal([
        3, 10,
      ]);
    }
    expect(fieldOf(Tensor.zeros("float32", [1, 30, 4]), 0)).to.equal(undefined);
    expect(labelsOf(Tensor.zeros("int64", [1]))).to.equal(undefined);
  });

  it("are predicted where there is a chart", () => {
    const { height, width, values } = predictionsOf(Tensor.from([[[2, 0, -1]]], "int64"))!;
    expect([height, width]).to.deep.equal([1, 3]);
    expect(Array.from(values)).to.deep.equal([2, 0, Number.NaN]);
  });
});

describe("class colours", () => {
  it("are ten, and a class has the same one whatever else is drawn", () => {
    const colours = Array.from({ length: 10 }, (_, k) => classColour(k).join());
    expect(new Set(colours).size).to.equal(10);
    const all = classRaster(row(0, 1, 2, 3, 4, 5, 6, 7, 8, 9), DIGITS);
    expect([...all.pixels].map((p) => all.palette[p]!.join())).to.deep.equal(colours);
    const climate = classRaster(row(2, 0, 1), { count: 3, background: 0 });
    expect(climate.palette[climate.pixels[0]!]!.join()).to.equal(colours[2]);
    expect(climate.pixels[1]).to.equal(0);
  });

  it("leave the background transparent, and show where nothing is predicted", () => {
    const { pixels, palette } = classRaster(row(10, -1, 11, 0.5, Number.NaN), DIGITS);
    expect([...pixels.subarray(0, 4)]).to.deep.equal([0, 0, 0, 0]);
    expect(palette[0]![3]).to.equal(0);
    expect(palette[pixels[4]!]![3]).to.be.within(1, 254);
  });
});

describe("outcome of a prediction", () => {
  it("counts the pixels that have a label, and apart from them the false alarms", () => {
    const { raster, ...counts } = outcomeOf(
      row(10, 3, 3, 4, 10, 5),
      row(3, 3, 10, 4, Number.NaN, Number.NaN),
      DIGITS,
    );
    expect(counts).to.deep.equal({ judged: 3, right: 2, missing: 1, falseAlarms: 1 });
    expect([...raster.pixels]).to.deep.equal([4, 1, 2, 1, 0, 3]);
  });

  it("counts every pixel where no class is background", () => {
    expect(outcomeOf(row(0, 1), row(0, 0), { count: 2 })).to.include({ judged: 2, right: 1 });
  });
});
