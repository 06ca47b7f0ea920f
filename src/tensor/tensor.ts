/**
 * A dense tensor in memory: a shape and a typed array, row-major. The worker computes with tensors.
 */
import { AtlasError } from "../errors.js";
import { DataType, type Tensor as WireTensor } from "../gen/atlas/v1/tensor.js";

/** Typed arrays for the elements of each type. A bool is a byte, 0 or 1. */
const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  int64: BigInt64Array,
  int32: Int32Array,
  uint8: Uint8Array,
  bool: Uint8Array,
} as const;

const WIRE = {
  float32: DataType.DATA_TYPE_FLOAT32,
  float64: DataType.DATA_TYPE_FLOAT64,
  int64: DataType.DATA_TYPE_INT64,
  int32: DataType.DATA_TYPE_INT32,
  uint8: DataType.DATA_TYPE_UINT8,
  bool: DataType.DATA_TYPE_BOOL,
} as const;

/** The largest number of axes, as in NumPy. */
const MAX_AXES = 64;
const MAX_EMPTY_LISTS = 1e6;

/** An element type. */
export type DType = keyof typeof ARRAYS;
/** A typed array of elements. */
export type TensorData = InstanceType<(typeof ARRAYS)[DType]>;
/** A number, or nested arrays of numbers. */
export type Nested = number | readonly Nested[];

/** A tensor that can be sent: in memory, or in a file. */
export interface TensorSource {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Bytes of all elements, as they are sent. */
  readonly byteLength: number;
  /** Give the elements as raw little-endian bytes, row-major, in parts of at most `most` bytes. */
  parts(most: number): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** A dense tensor: an element type, a shape, and the elements in row-major order. */
export class Tensor implements TensorSource {
  /** @throws AtlasError if `data` does not have the type of `dtype`, or the length of `shape` */
  constructor(
    readonly dtype: DType,
    readonly shape: readonly number[],
    /** The elements, row-major. */
    readonly data: TensorData,
  ) {
    if (!(data instanceof ARRAYS[dtype]))
      throw new AtlasError(`a ${dtype} tensor cannot hold a ${data.constructor.name}`);
    if (data.length !== elements(shape))
      throw new AtlasError(
        `${data.length} elements do not fill a tensor of shape [${shape.join(", ")}]`,
      );
  }

  /**
   * Make a tensor from nested arrays.
   *
   * @param shape needed if the nesting cannot tell it: `[]` may be [0, 3, 3]
   * @throws AtlasError if the arrays are ragged or do not have this shape
   */
  static from(
    nested: Nested,
    dtype: DType = "float64",
    shape: readonly number[] = shapeOf(nested),
  ): Tensor {
    const data = new ARRAYS[dtype](elements(shape));
    let next = 0;
    const fill = (value: Nested, axis: number): void => {
      if (typeof value === "number") {
        if (axis !== shape.length) throw ragged(shape);
        data[next++] =
          dtype === "int64" ? BigInt(value) : dtype === "bool" ? Number(value !== 0) : value;
      } else {
        if (axis >= shape.length || value.length !== shape[axis]) throw ragged(shape);
        for (const item of value) fill(item, axis + 1);
      }
    };
    fill(nested, 0);
    return new Tensor(dtype, shape, data);
  }

  /** Make a tensor of zeros. */
  static zeros(dtype: DType, shape: readonly number[]): Tensor {
    return new Tensor(dtype, shape, new ARRAYS[dtype](elements(shape)));
  }

  /**
   * Make a view of raw little-endian bytes. They are copied only if they are not aligned.
   *
   * @throws AtlasError if their number does not fit `dtype` and `shape`
   */
  static fromBytes(dtype: DType, shape: readonly number[], bytes: Uint8Array): Tensor {
    const { BYTES_PER_ELEMENT: size } = ARRAYS[dtype];
    const count = elements(shape);
    if (bytes.byteLength !== count * size)
      throw new AtlasError(
        `${bytes.byteLength} bytes do not fill a ${dtype} tensor of shape [${shape.join(", ")}]`,
      );
    const { buffer, byteOffset } = bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes);
    return new Tensor(dtype, shape, new ARRAYS[dtype](buffer as ArrayBuffer, byteOffset, count));
  }

  /** Bytes of all elements. */
  get byteLength(): number {
    return this.data.byteLength;
  }

  /** Give the elements in parts of at most `most` bytes: views, not copies. */
  *parts(most: number): Iterable<Uint8Array> {
    const { bytes } = this;
    for (let at = 0; at < bytes.byteLength; at += most) yield bytes.subarray(at, at + most);
  }

  /** The elements as raw little-endian bytes: a view, not a copy. */
  get bytes(): Buffer {
    return Buffer.from(this.data.buffer, this.data.byteOffset, this.data.byteLength);
  }

  /**
   * Convert to nested arrays of numbers, row-major; a bool becomes 0 or 1.
   *
   * @throws AtlasError if an int64 is too large for a number
   */
  toNested(): Nested {
    // [10¹⁵, 0] has no element, but 10¹⁵ lists.
    const lists = elements(this.shape.slice(0, this.shape.indexOf(0)));
    if (this.data.length === 0 && lists > MAX_EMPTY_LISTS)
      throw new AtlasError(
        `a tensor of shape [${this.shape.join(", ")}] is too large for nested arrays`,
      );
    let next = 0;
    const take = (axis: number): Nested =>
      axis === this.shape.length
        ? toNumber(this.data[next++] as number | bigint)
        : Array.from({ length: this.shape[axis] as number }, () => take(axis + 1));
    return take(0);
  }

  /** Convert to a matrix. @throws AtlasError if the shape is not [m, n] */
  toMatrix(): number[][] {
    if (this.shape.length !== 2)
      throw new AtlasError(`a tensor of shape [${this.shape.join(", ")}] is not a matrix`);
    return this.toNested() as number[][];
  }

  /** Convert to a list of n by n matrices. @throws AtlasError if the shape is not [m, n, n] */
  toMatrices(): number[][][] {
    const [, rows, columns] = this.shape;
    if (this.shape.length !== 3 || rows !== columns)
      throw new AtlasError(
        `a tensor of shape [${this.shape.join(", ")}] is not a list of square matrices`,
      );
    return this.toNested() as number[][][];
  }

  /** Make a message that holds the elements. */
  toWire(): WireTensor {
    return wireTensor(this, { $case: "inline", inline: this.bytes });
  }

  /** Make a message that names a ticket of the tensor plane for the elements. */
  toTicket(ticket: string): WireTensor {
    return ticketFor(this, ticket);
  }

  /** Make a tensor from a message that holds the elements. @throws AtlasError if it does not */
  static fromWire({ dtype, shape, data }: WireTensor): Tensor {
    if (data?.$case !== "inline") throw new AtlasError("a tensor message lacks its elements");
    return Tensor.fromBytes(typeFromWire(dtype), shape, data.inline);
  }
}

/** Make a message that names a ticket of the tensor plane for a tensor's elements. */
export function ticketFor(tensor: TensorSource, ticket: string): WireTensor {
  return wireTensor(tensor, { $case: "ticket", ticket });
}

function wireTensor({ dtype, shape }: TensorSource, data: WireTensor["data"]): WireTensor {
  return { dtype: wireType(dtype), shape: [...shape], data };
}

/** Get the element type of a message. */
export function wireType(dtype: DType): DataType {
  return WIRE[dtype];
}

/**
 * Get the element type from a message.
 *
 * @throws AtlasError if this version does not know the type
 */
export function typeFromWire(type: DataType): DType {
  for (const [dtype, wire] of Object.entries(WIRE)) if (wire === type) return dtype as DType;
  throw new AtlasError(`a tensor message has the unknown element type ${type}`);
}

/** Get the bytes of one element. */
export function itemSize(dtype: DType): number {
  return ARRAYS[dtype].BYTES_PER_ELEMENT;
}

/** Count the elements of a shape. @throws AtlasError if it is not a shape, or is too large */
export function elements(shape: readonly number[]): number {
  const count = shape.reduce((product, extent) => product * extent, 1);
  const whole = shape.every((extent) => Number.isSafeInteger(extent) && extent >= 0);
  if (shape.length <= MAX_AXES && whole && Number.isSafeInteger(count)) return count;
  throw new AtlasError(`[${shape.slice(0, MAX_AXES).join(", ")}] is not the shape of a tensor`);
}

function shapeOf(nested: Nested): number[] {
  const shape: number[] = [];
  for (let level: Nested | undefined = nested; typeof level === "object"; level = level[0])
    shape.push(level.length);
  return shape;
}

function ragged(shape: readonly number[]): AtlasError {
  return new AtlasError(`the nested arrays do not all have the shape [${shape.join(", ")}]`);
}

function toNumber(value: number | bigint): number {
  const number = Number(value);
  if (typeof value === "bigint" && !Number.isSafeInteger(number))
    throw new AtlasError(`${value} is too large for a number`);
  return number;
}
