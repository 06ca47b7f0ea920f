/** NumPy's .npy files: a magic string, a version, a Python dict literal, then the elements. */
import { FileError } from "../errors.js";
import { fromStored, isStoredType, reading, storedBytes } from "./formats.js";
import { type DType, elements, Tensor, type TensorData } from "./tensor.js";

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

/**
 * Read a .npy file, format version 1 to 3. An array in Fortran order is reordered. float16 and
 * small integers are widened.
 *
 * @param name of the file in errors
 * @throws FileError if the file is truncated, damaged or big-endian, or holds Python objects or
 *   another type that is not supported
 */
export function readNpy(bytes: Uint8Array, name = "the .npy file"): Tensor {
  const damaged = (what: string) => new FileError(`${name} is damaged: ${what}`, REMEDY);
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (!file.subarray(0, MAGIC.length).equals(MAGIC))
    throw new FileError(`${name} is not a .npy file: its first bytes are wrong`, REMEDY);
  const version = file[6] ?? 0;
  if (version < 1 || version > 3)
    throw new FileError(`${name} has .npy format version ${version}; 1 to 3 are supported`, REMEDY);
  const headerAt = version === 1 ? 10 : 12;
  const length =
    file.length < headerAt ? 0 : version === 1 ? file.readUInt16LE(8) : file.readUInt32LE(8);
  if (length === 0 || headerAt + length > file.length)
    throw damaged("it is truncated in its header");
  const header = file.toString(version === 3 ? "utf8" : "latin1", headerAt, headerAt + length);
  const body = file.subarray(headerAt + length);

  const description = /'descr'\s*:\s*(?:'([^']*)'|\[)/.exec(header);
  const order = /'fortran_order'\s*:\s*(True|False)\b/.exec(header);
  const extents = /'shape'\s*:\s*\(((?:\s*\d+L?\s*,)*(?:\s*\d+L?)?)\s*\)/.exec(header);
  if (!/^\{.*\}\s*$/s.test(header) || !description || !order || !extents)
    throw damaged("its header does not describe an array");
  const shape = [...(extents[1] ?? "").matchAll(/\d+/g)].map(([digits]) => Number(digits));
  const type = description[1]?.slice(1) ?? "";
  if (
    description[1] === undefined ||
    !/^[<|]/.test(description[1]) ||
    !isStoredType(type) ||
    type === "bf2"
  )
    throw new FileError(
      `${name}: ${unsupported(description[1])}`,
      "save it as a plain little-endian array of numbers",
    );
  return reading(name, REMEDY, () => {
    const needed = storedBytes(type, shape);
    if (body.length !== needed)
      throw damaged(
        `an array of shape [${shape.join(", ")}] takes ${needed} bytes, but the file has ` +
          `${body.length}`,
      );
    if (order[1] === "False") return fromStored(type, shape, body);
    return transposed(fromStored(type, shape.toReversed(), body));
  });
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

function unsupported(description: string | undefined): string {
  if (description === undefined) return "it holds records, which are not supported";
  if (/^\|?O/.test(description)) return "it holds pickled Python objects, which are never loaded";
  if (/^>/.test(description)) return `it is big-endian (${description}), which is not supported`;
  return `its element type ${JSON.stringify(description.slice(0, 40))} is not supported`;
}
