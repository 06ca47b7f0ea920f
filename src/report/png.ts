/** A field of numbers as a small PNG, in colours that are read alike by all eyes. */
import { crc32, deflateSync } from "node:zlib";

/** Viridis (Smith & van der Walt 2015) at equal steps. */
const VIRIDIS = [
  [68, 1, 84],
  [72, 40, 120],
  [62, 74, 137],
  [49, 104, 142],
  [38, 130, 142],
  [31, 158, 137],
  [53, 183, 121],
  [109, 205, 89],
  [180, 222, 44],
  [253, 231, 37],
] as const;

/** An indexed PNG of a field [height, width], least value darkest. Values that are not numbers are black. */
export function fieldToPng(field: readonly (readonly number[])[]): Buffer {
  const [height, width] = [field.length, field[0]?.length ?? 0];
  const finite = field.flat().filter(Number.isFinite);
  const least = finite.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const most = finite.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const scale = most > least ? 254 / (most - least) : 0;
  const pixels = Buffer.alloc(height * (width + 1)); // each row begins with its filter, 0
  for (const [r, row] of field.entries())
    for (const [c, x] of row.entries())
      pixels[r * (width + 1) + 1 + c] = Number.isFinite(x) ? 1 + Math.round((x - least) * scale) : 0;
  const palette = Buffer.from([0, 0, 0, ...Array.from({ length: 255 }, (_, i) => colour(i / 254)).flat()]);
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 3], 8); // 8 bits a pixel, an index into the palette
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk("IHDR", header),
    chunk("PLTE", palette),
    chunk("IDAT", deflateSync(pixels, { level: 9 })),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
  const frame = Buffer.alloc(8);
  frame.writeUInt32BE(data.length, 0);
  frame.writeUInt32BE(crc32(body), 4);
  return Buffer.concat([frame.subarray(0, 4), body, frame.subarray(4)]);
}

function colour(share: number): number[] {
  const at = share * (VIRIDIS.length - 1);
  const i = Math.min(VIRIDIS.length - 2, Math.floor(at));
  return VIRIDIS[i]!.map((x, c) => Math.round(x + (at - i) * (VIRIDIS[i + 1]![c]! - x)));
}
