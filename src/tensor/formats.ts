/** What the file formats share: element types that are widened on reading, and checks. */
import { AtlasError, FileError } from "../errors.js";
import { type DType, elements, Tensor } from "./tensor.js";

/** Element types of files. Types that {@link Tensor} lacks are read as the next larger type. */
const STORED = {
  f8: { size: 8, dtype: "float64" },
  f4: { size: 4, dtype: "float32" },
  f2: {
    size: 2,
    dtype: "float32",
    get: (view: DataView, at: number) => halfToNumber(view.getUint16(at, true)),
  },
  bf2: {
    size: 2,
    dtype: "float32",
    get: (view: DataView, at: number) => brainToNumber(view.getUint16(at, true)),
  },
  i8: { size: 8, dtype: "int64" },
  u8: { size: 8, dtype: "int64", get: unsigned },
  i4: { size: 4, dtype: "int32" },
  i2: { size: 2, dtype: "int32", get: (view: DataView, at: number) => view.getInt16(at, true) },
  i1: { size: 1, dtype: "int32", get: (view: DataView, at: number) => view.getInt8(at) },
  u4: { size: 4, dtype: "int64", get: (view: DataView, at: number) => view.getUint32(at, true) },
  u2: { size: 2, dtype: "int32", get: (view: DataView, at: number) => view.getUint16(at, true) },
  u1: { size: 1, dtype: "uint8" },
  b1: { size: 1, dtype: "bool" },
} as const satisfies Record<
  string,
  { size: number; dtype: DType; get?: (view: DataView, at: number) => number | bigint }
>;
/** An element type of a file, under NumPy's name. */
export type StoredType = keyof typeof STORED;

/** Whether a name is that of an element type. */
export function isStoredType(name: string): name is StoredType {
  return Object.hasOwn(STORED, name);
}

/** Compute the bytes of a tensor in a file. @throws AtlasError if `shape` is not a shape */
export function storedBytes(type: StoredType, shape: readonly number[]): number {
  return elements(shape) * STORED[type].size;
}

/** Get the element type that a file's type is read as. */
export function readAs(type: StoredType): DType {
  return STORED[type].dtype;
}

/**
 * Make the tensor of raw bytes of a file: a view, if the type and the order of bytes allow it.
 *
 * @throws AtlasError if a number or a bool cannot be represented
 */
export function fromStored(
  type: StoredType,
  shape: readonly number[],
  bytes: Uint8Array,
  bigEndian = false,
): Tensor {
  const { size, dtype, ...rest } = STORED[type];
  if (bigEndian && size > 1) {
    const swapped = Buffer.from(bytes);
    size === 2 ? swapped.swap16() : size === 4 ? swapped.swap32() : swapped.swap64();
    return fromStored(type, shape, swapped);
  }
  if (type === "b1") {
    const wrong = bytes.find((byte) => byte > 1);
    if (wrong !== undefined) throw new AtlasError(`a bool is the byte ${wrong}, not 0 or 1`);
  }
  if (!("get" in rest)) return Tensor.fromBytes(dtype, shape, bytes);
  const { get } = rest;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const tensor = Tensor.zeros(dtype, shape);
  const { data } = tensor;
  for (let i = 0; i < data.length; i++) {
    const value = get(view, i * size);
    data[i] = (data instanceof BigInt64Array ? BigInt(value) : value) as number & bigint;
  }
  return tensor;
}

/** Do work that may find a file malformed, and name the file in the error. */
export function reading<T>(name: string, remedy: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof FileError && !error.message.includes(name))
      throw new FileError(`${name}: ${error.message}`, error.remedy, { cause: error });
    if (error instanceof FileError || !(error instanceof AtlasError)) throw error;
    throw new FileError(`${name} is damaged: ${error.message}`, remedy, { cause: error });
  }
}

function unsigned(view: DataView, at: number): bigint {
  const value = view.getBigUint64(at, true);
  if (value < 2n ** 63n) return value;
  throw new FileError(
    `the unsigned integer ${value} is too large for int64`,
    'save the array as real numbers, which rounds it: x.astype("float64")',
  );
}

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return (
    sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15))
  );
}

const scratch = new DataView(new ArrayBuffer(4));
/** bfloat16 is the upper half of a float32. */
function brainToNumber(bits: number): number {
  scratch.setUint32(0, bits << 16);
  return scratch.getFloat32(0);
}
