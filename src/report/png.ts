/** Small images with a palette, as PNG. */
import { crc32, deflateSync } from "node:zlib";

/** Red, green and blue from 0 to 255, and an opacity (default 255). */
export type Colour = readonly [red: number, green: number, blue: number, opacity?: number];

/**
 * An image as indices into a palette. Colour 0 is transparent, so that the background stands for
 * "nothing here".
 */
export interface Raster {
  height: number;
  width: number;
  /** Row-major. */
  pixels: Uint8Array;
  /** At most 256 colours. */
  palette: readonly Colour[];
  /** Whether the colours after the first are equal steps of a scale, or unrelated kinds. */
  colours: "steps" | "kinds";
}

/** The transparent colour. */
export const TRANSPARENT: Colour = [0, 0, 0, 0];

/** Encode an image as PNG. */
export function rasterToPng({ height, width, pixels, palette }: Raster): Buffer {
  const rows = Buffer.alloc(height * (width + 1)); // the first byte of each row is its filter, 0
  for (let r = 0; r < height; r++)
    rows.set(pixels.subarray(r * width, (r + 1) * width), r * (width + 1) + 1);
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 3], 8); // 8 bits for each pixel, as an index into the palette
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk("IHDR", header),
    chunk("PLTE", Buffer.from(palette.flatMap((colour) => colour.slice(0, 3) as number[]))),
    chunk("tRNS", Buffer.from(palette.map(([, , , opacity = 255]) => opacity))),
    chunk("IDAT", deflateSync(rows, { level: 9 })),
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
