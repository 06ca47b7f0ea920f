/**
 * Safetensors files: 8 bytes with the length of a JSON header, the header, then the tensors' bytes.
 * The header gives the place of each tensor. The tensors fill the rest without gaps or overlaps.
 * Nothing in the file is ever executed.
 */
import { z } from "zod";
import { FileError } from "../errors.js";
import { readInto, withFile } from "./file.js";
import { fromStored, reading, type StoredType, storedBytes } from "./formats.js";
import { type DType, itemSize, type Tensor } from "./tensor.js";

const STORED: Record<string, StoredType> = {
  F64: "f8",
  F32: "f4",
  F16: "f2",
  BF16: "bf2",
  I64: "i8",
  I32: "i4",
  I16: "i2",
  I8: "i1",
  U64: "u8",
  U32: "u4",
  U16: "u2",
  U8: "u1",
  BOOL: "b1",
};
const NAMES: Record<DType, string> = {
  float64: "F64",
  float32: "F32",
  int64: "I64",
  int32: "I32",
  uint8: "U8",
  bool: "BOOL",
};
/** Bytes of the longest header, as in the reference implementation. */
const MAX_HEADER = 100_000_000;
const REMEDY = "write or download the file again";

const extent = z.int().min(0);
const Entry = z.object({
  dtype: z.string(),
  shape: z.array(extent),
  data_offsets: z.tuple([extent, extent]),
});
/** Metadata. (z.record would copy the object without a key named __proto__.) */
const Metadata = z.custom<Record<string, string>>(
  (value) =>
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((text) => typeof text === "string"),
);

/** The contents of a safetensors file. */
export interface Safetensors {
  tensors: Map<string, Tensor>;
  metadata: Record<string, string>;
}

/**
 * Read a safetensors file. Tensors are views of `bytes` if alignment allows it. F16 and BF16 are
 * widened to float32, and small integers likewise.
 *
 * @param name of the file in errors
 * @throws FileError if the file is truncated or damaged, or holds a type that is not supported
 */
export function readSafetensors(bytes: Uint8Array, name = "the safetensors file"): Safetensors {
  const start = bodyStart(bytes, bytes.byteLength, name);
  const { places, metadata } = layOut(bytes.subarray(8, start), bytes.byteLength - start, name);
  const body = bytes.subarray(start);
  const tensors = places.map(
    ({ key, from, to, ...place }) =>
      [key, tensorOf({ key, ...place }, body.subarray(from, to), name)] as const,
  );
  return { tensors: new Map(tensors), metadata };
}

/**
 * Read one tensor of a safetensors file of any size.
 *
 * @param choose chooses its name among those in the file
 * @returns undefined if none is chosen
 * @throws as {@link readSafetensors}
 * @throws file-system errors
 */
export function readOneTensor(
  path: string,
  choose: (names: string[]) => string | undefined,
): Promise<Tensor | undefined> {
  return withFile(path, async (file, size) => {
    const head = Buffer.alloc(Math.min(size, 8));
    await readInto(file, head, 0, path);
    const start = bodyStart(head, size, path);
    const header = Buffer.alloc(start - 8);
    await readInto(file, header, 8, path);
    const { places } = layOut(header, size - start, path);
    const chosen = choose(places.map(({ key }) => key));
    const place = places.find(({ key }) => key === chosen);
    if (place === undefined) return undefined;
    const bytes = Buffer.allocUnsafeSlow(place.to - place.from);
    await readInto(file, bytes, start + place.from, path);
    return tensorOf(place, bytes, path);
  });
}

/** Where a tensor lies in a file's body, in bytes. */
interface Place {
  key: string;
  type: StoredType;
  shape: readonly number[];
  from: number;
  to: number;
}

function damage(name: string): (what: string) => FileError {
  return (what) => new FileError(`${name} is damaged: ${what}`, REMEDY);
}

function tensorOf(
  { type, shape }: Pick<Place, "key" | "type" | "shape">,
  bytes: Uint8Array,
  name: string,
): Tensor {
  return reading(name, REMEDY, () => fromStored(type, shape, bytes));
}

/** Find where the body of a file of `size` bytes begins, from its first 8 bytes. */
function bodyStart(head: Uint8Array, size: number, name: string): number {
  if (size < 8)
    throw new FileError(`${name} is not a safetensors file: it has only ${size} bytes`, REMEDY);
  const length = new DataView(head.buffer, head.byteOffset).getBigUint64(0, true);
  if (length > MAX_HEADER)
    throw new FileError(
      `${name} is not a safetensors file, or is damaged: it claims a header of ${length} bytes`,
      REMEDY,
    );
  if (8 + Number(length) > size)
    throw damage(name)(
      `it is truncated: its header has ${length} bytes, but only ${size - 8} follow`,
    );
  return 8 + Number(length);
}

/** Check a header, and list the tensors in the order in which they lie in the body. */
function layOut(
  bytes: Uint8Array,
  bodyLength: number,
  name: string,
): { places: Place[]; metadata: Record<string, string> } {
  const damaged = damage(name);
  const header = parseHeader(bytes, damaged);
  const entries: [name: string, z.infer<typeof Entry>][] = [];
  let metadata: Record<string, string> = {};
  for (const [key, value] of Object.entries(header)) {
    if (key === "__metadata__") {
      const parsed = Metadata.safeParse(value);
      if (!parsed.success) throw damaged("its metadata are not texts");
      metadata = parsed.data;
    } else {
      const parsed = Entry.safeParse(value);
      if (!parsed.success) throw damaged(`its header does not describe tensor ${quote(key)}`);
      entries.push([key, parsed.data]);
    }
  }
  const places: Place[] = [];
  let end = 0;
  for (const [key, { dtype, shape, data_offsets }] of entries.sort(
    ([, a], [, b]) =>
      a.data_offsets[0] - b.data_offsets[0] || a.data_offsets[1] - b.data_offsets[1],
  )) {
    const type = Object.hasOwn(STORED, dtype) ? STORED[dtype] : undefined;
    if (type === undefined)
      throw new FileError(
        `${name}: tensor ${quote(key)} has elements of type ${quote(dtype)}, which is not ` +
          "supported",
        `convert it to one of ${Object.keys(STORED).join(", ")}`,
      );
    const [from, to] = data_offsets;
    if (from !== end)
      throw damaged(
        `tensor ${quote(key)} ${from < end ? "overlaps another" : "lies after a gap"} at byte ` +
          `${from}`,
      );
    if (to > bodyLength)
      throw damaged(`it is truncated: tensor ${quote(key)} ends at byte ${to} of ${bodyLength}`);
    const needed = reading(name, REMEDY, () => storedBytes(type, shape));
    if (to - from !== needed)
      throw damaged(
        `tensor ${quote(key)} of type ${dtype} and shape [${shape.join(", ")}] has ` +
          `${to - from} bytes`,
      );
    places.push({ key, type, shape, from, to });
    end = to;
  }
  if (end !== bodyLength) throw damaged(`the last ${bodyLength - end} bytes belong to no tensor`);
  return { places, metadata };
}

/** Write tensors as a safetensors file. The widest types come first, so that all are aligned. */
export function writeSafetensors(
  tensors: ReadonlyMap<string, Tensor>,
  metadata: Readonly<Record<string, string>> = {},
): Buffer {
  const sorted = [...tensors].sort(
    ([a, { dtype: x }], [b, { dtype: y }]) =>
      itemSize(y) - itemSize(x) || (a < b ? -1 : Number(a > b)),
  );
  let end = 0;
  const entries = sorted.map(([key, { dtype, shape, data }]) => {
    const from = end;
    end += data.byteLength;
    return [key, { dtype: NAMES[dtype], shape, data_offsets: [from, end] }] as const;
  });
  const meta = Object.keys(metadata).length > 0 ? [["__metadata__", metadata] as const] : [];
  const json = Buffer.from(JSON.stringify(Object.fromEntries([...meta, ...entries])));
  const header = Buffer.alloc(Math.ceil(json.length / 8) * 8, " ");
  json.copy(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, header, ...sorted.map(([, tensor]) => tensor.bytes)]);
}

function parseHeader(bytes: Uint8Array, damaged: (what: string) => FileError): object {
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw damaged("its header is not JSON");
  }
  if (typeof header !== "object" || header === null || Array.isArray(header))
    throw damaged("its header is not a JSON object");
  return header;
}

function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}
