/** NumPy's .npy files: a magic string, a version, a Python dict literal, then the elements. */
import { FileError } from "../errors.js";
import { readInto, withFile } from "./file.js";
import {
  fromStored,
  isStoredType,
  readAs,
  reading,
  type StoredType,
  storedBytes,
} from "./formats.js";
import {
  type DType,
  elements,
  itemSize,
  Tensor,
  type TensorData,
  type TensorSource,
} from "./tensor.js";

const ZIP = Buffer.from("PK\x03\x04", "latin1");
const MAGIC = Buffer.from("\x93NUMPY", "latin1");
const REMEDY = "write it again with numpy.save";
const DESCRIPTIONS: Record<DType, string> = {
  float64: "<f8",
  float32: "<f4",
  int64: "<i8",
  int32: "<i4",
  uint8: "|u1",
  bool: "|b1",
};
/** Bytes of a file that {@link openNpy} reads at once; a larger one stays on the disk. */
const LARGE = 64 * 2 ** 20;
/** Characters of the longest header, as in NumPy. */
const LONGEST_HEADER = 10_000;

/** Options of {@link readNpy}. */
export interface NpyOptions {
  /** Called with what the file holds beside its first array. */
  warn?: (line: string) => void;
}

/**
 * Read a .npy file, format version 1 to 3, by the rules of NumPy. Bytes in any order are read, and
 * an array in Fortran order is reordered. float16 and small integers are widened. Of several arrays
 * in a file, the first is read.
 *
 * @param name of the file in errors
 * @throws FileError if the file is truncated or damaged, or holds Python objects or another type
 *   that is not supported
 */
export function readNpy(
  bytes: Uint8Array,
  name = "the .npy file",
  { warn }: NpyOptions = {},
): Tensor {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const header = parseHeader(file, file.length, name);
  const { start, end } = header;
  checkRest(file.subarray(end, end + MAGIC.length), header, file.length, name, warn);
  return reading(name, REMEDY, () => decode(header, file.subarray(start, end)));
}

/**
 * Open a .npy file of any size, by the rules of {@link readNpy}. The elements of a large file stay
 * on the disk until they are sent.
 *
 * @throws as {@link readNpy}
 * @throws file-system errors
 */
export function openNpy(path: string, { warn }: NpyOptions = {}): Promise<TensorSource> {
  return withFile(path, async (file, size) => {
    const head = Buffer.alloc(Math.min(size, 12 + LONGEST_HEADER));
    await readInto(file, head, 0, path);
    const header = parseHeader(head, size, path);
    const { start, end } = header;
    const after = Buffer.alloc(Math.min(MAGIC.length, size - end));
    await readInto(file, after, end, path);
    checkRest(after, header, size, path, warn);
    if (end - start > LARGE) return new NpyFile(path, header);
    const bytes = Buffer.allocUnsafeSlow(end - start);
    await readInto(file, bytes, start, path);
    return reading(path, REMEDY, () => decode(header, bytes));
  });
}

interface Header {
  type: StoredType;
  bigEndian: boolean;
  fortran: boolean;
  shape: number[];
  /** Where the elements begin and end, in bytes. */
  start: number;
  end: number;
}

/** A large array in a file, which is read when it is sent. */
class NpyFile implements TensorSource {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly byteLength: number;

  constructor(
    private readonly path: string,
    private readonly header: Header,
  ) {
    this.dtype = readAs(header.type);
    this.shape = header.shape;
    this.byteLength = elements(header.shape) * itemSize(this.dtype);
  }

  async *parts(most: number): AsyncIterable<Uint8Array> {
    const [samples = 1, ...rest] = this.shape;
    const width = elements(rest) * itemSize(this.dtype);
    // Of an array in Fortran order, whole samples are gathered.
    yield* this.header.fortran && width <= most
      ? this.gathered(samples, rest, Math.floor(most / width))
      : this.consecutive(most);
  }

  private async *consecutive(most: number): AsyncIterable<Uint8Array> {
    const { path, header } = this;
    const { start, end, type } = header;
    const size = storedBytes(type, [1]);
    const length = Math.floor(most / Math.max(size, itemSize(this.dtype))) * size;
    for (let at = start; at < end; at += length) {
      const bytes = Buffer.allocUnsafeSlow(Math.min(length, end - at));
      await withFile(path, (file) => readInto(file, bytes, at, path));
      yield this.decoded([bytes.length / size], bytes);
    }
  }

  private async *gathered(
    samples: number,
    rest: readonly number[],
    most: number,
  ): AsyncIterable<Uint8Array> {
    const { path, header } = this;
    const size = storedBytes(header.type, [1]);
    const each = elements(rest);
    for (let from = 0; from < samples; from += most) {
      const count = Math.min(most, samples - from);
      const bytes = Buffer.allocUnsafeSlow(count * each * size);
      const row = count * size;
      await withFile(path, async (file) => {
        for (let i = 0; i < each; i++) {
          const at = header.start + (i * samples + from) * size;
          await readInto(file, bytes.subarray(i * row, (i + 1) * row), at, path);
        }
      });
      yield this.decoded([count, ...rest], bytes);
    }
  }

  private decoded(shape: number[], bytes: Uint8Array): Uint8Array {
    return reading(this.path, REMEDY, () => decode({ ...this.header, shape }, bytes)).bytes;
  }
}

function decode({ type, bigEndian, fortran, shape }: Header, bytes: Uint8Array): Tensor {
  if (!fortran) return fromStored(type, shape, bytes, bigEndian);
  return transposed(fromStored(type, shape.toReversed(), bytes, bigEndian));
}

/** Check what follows the array: nothing, or another array, which is told. */
function checkRest(
  after: Buffer,
  { shape, start, end }: Header,
  size: number,
  name: string,
  warn: NpyOptions["warn"],
): void {
  if (end === size) return;
  if (!after.equals(MAGIC))
    throw new FileError(
      `${name} is damaged: an array of shape [${shape.join(", ")}] takes ${end - start} bytes, ` +
        `but the file has ${size - start}`,
      REMEDY,
    );
  warn?.(`${name} holds several arrays; the first is used, as by numpy.load`);
}

/** Parse the header of a file of `size` bytes that begins with `file`. */
function parseHeader(file: Buffer, size: number, name: string): Header {
  const damaged = (what: string) => new FileError(`${name} is damaged: ${what}`, REMEDY);
  if (file.subarray(0, 4).equals(ZIP))
    throw new FileError(
      `${name} is a .npz archive or another zip file, not a .npy file`,
      'save one array of it alone: numpy.save("array.npy", numpy.load(FILE)[NAME])',
    );
  if (!file.subarray(0, MAGIC.length).equals(MAGIC))
    throw new FileError(`${name} is not a .npy file: its first bytes are wrong`, REMEDY);
  const [version = 0, minor = 0] = file.subarray(6, 8);
  if (version < 1 || version > 3 || minor !== 0)
    throw new FileError(
      `${name} has .npy format version ${version}.${minor}; 1.0 to 3.0 are supported`,
      REMEDY,
    );
  const headerAt = version === 1 ? 10 : 12;
  const length =
    file.length < headerAt ? 0 : version === 1 ? file.readUInt16LE(8) : file.readUInt32LE(8);
  const start = headerAt + length;
  if (length === 0 || start > size) throw damaged("it is truncated in its header");
  if (start > file.length) throw damaged(`its header has ${length} bytes`);
  const header = file.toString(version === 3 ? "utf8" : "latin1", headerAt, start);
  const described = parseDict(header);
  if (described === undefined) throw damaged("its header does not describe an array");
  const { descr, fortran, shape } = described;
  const [, byteOrder, type = ""] = /^([<>=|]?)(\w+)$/.exec(descr) ?? [];
  if (!isStoredType(type) || type === "bf2") throw unsupported(name, descr, type);
  return reading(name, REMEDY, () => {
    const end = start + storedBytes(type, shape);
    if (end > size)
      throw damaged(
        `an array of shape [${shape.join(", ")}] takes ${end - start} bytes, but the file has ` +
          `${size - start}`,
      );
    return { type, bigEndian: byteOrder === ">", fortran, shape, start, end };
  });
}

/** An entry of the header, which is a Python dict: a text, a bool, or a tuple of whole numbers. */
const ENTRY = (() => {
  const blank = String.raw`[ \t\r\n]*`;
  const whole = String.raw`(?:0|[1-9]\d*)L?`;
  const key = String.raw`(["'])(descr|fortran_order|shape)\1`;
  const text = String.raw`(["'])([^"'\\]*)\3`;
  const tuple = String.raw`\(((?:${blank}${whole}${blank},)*(?:${blank}${whole})?)${blank}\)`;
  const value = `(?:${text}|(True|False)|${tuple})`;
  return new RegExp(`${blank}${key}${blank}:${blank}${value}${blank}(?:,|$)`, "y");
})();

/** Parse the header; undefined if NumPy would not read it, or it has an unusual form. */
function parseDict(
  header: string,
): { descr: string; fortran: boolean; shape: number[] } | undefined {
  const body = /^[ \t]*\{(.*)\}[ \t\r\n]*$/s.exec(header)?.[1];
  if (body === undefined) return undefined;
  if (/^[^:]*["']descr["']\s*:\s*\[/.test(body)) return { descr: "[", fortran: false, shape: [] };
  const values = new Map<string, string>();
  let at = 0;
  while (/\S/.test(body.slice(at))) {
    ENTRY.lastIndex = at;
    const [entry, , key = "", , text, bool, extents] = ENTRY.exec(body) ?? [];
    if (entry === undefined || values.has(key)) return undefined;
    const value = { descr: text, fortran_order: bool, shape: extents }[key];
    // In Python, (3) is a number and (3,) a tuple.
    if (value === undefined || (key === "shape" && /^[^,]*\d[^,]*$/.test(value))) return undefined;
    values.set(key, value);
    at += entry.length;
  }
  if (values.size !== 3) return undefined;
  const shape = [...values.get("shape")!.matchAll(/\d+/g)].map(([digits]) => Number(digits));
  return { descr: values.get("descr")!, fortran: values.get("fortran_order") === "True", shape };
}

/** Write a tensor as a .npy file (version 1, row-major). */
export function writeNpy({ dtype, shape, bytes }: Tensor): Buffer {
  const tuple = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const dict = `{'descr': '${DESCRIPTIONS[dtype]}', 'fortran_order': False, 'shape': (${tuple}), }`;
  const header = Buffer.alloc(Math.ceil((10 + dict.length + 1) / 64) * 64, " "); // for alignment
  MAGIC.copy(header);
  header.set([1, 0], 6);
  header.writeUInt16LE(header.length - 10, 8);
  header.write(dict, 10, "latin1");
  header.write("\n", header.length - 1);
  return Buffer.concat([header, bytes]);
}

/** Reverse the order of all axes: row-major [a, b, c] is [c, b, a] in Fortran order. */
function transposed({ dtype, shape, data }: Tensor): Tensor {
  const extents = shape.toReversed();
  const strides = shape.map((_, axis) => elements(shape.slice(axis + 1))).reverse();
  const result = data.slice() as TensorData;
  const index = extents.map(() => 0);
  let from = 0;
  for (let to = 0; to < result.length; to++) {
    result[to] = data[from] as number & bigint;
    for (let axis = extents.length - 1; axis >= 0; axis--) {
      from += strides[axis] as number;
      index[axis] = (index[axis] as number) + 1;
      if (index[axis] !== extents[axis]) break;
      from -= (strides[axis] as number) * (extents[axis] as number);
      index[axis] = 0;
    }
  }
  return new Tensor(dtype, extents, result);
}

/** Say why a type is not supported, and what to save instead. */
function unsupported(name: string, descr: string, type: string): FileError {
  const [what, remedy] =
    descr === "["
      ? ["records", 'save one field of them: numpy.save(FILE, x["NAME"])']
      : /^[<>=|]?O/.test(descr)
        ? [
            "pickled Python objects, which are never loaded",
            'save numbers instead: numpy.save(FILE, numpy.stack(x).astype("float32"))',
          ]
        : type.startsWith("c")
          ? [
              `complex numbers (${descr})`,
              "save their real and imaginary parts as channels: " +
                "numpy.save(FILE, numpy.concatenate([x.real, x.imag], 1))",
            ]
          : [
              `elements of type ${JSON.stringify(descr.slice(0, 40))}, which is not supported`,
              'save them as numbers where they were made: numpy.save(FILE, x.astype("float64"))',
            ];
  return new FileError(`${name}: it holds ${what}`, remedy);
}
