import { expect } from "chai";
import fc from "fast-check";
import { FileError } from "../../../src/errors.js";
import {
  readNpy,
  readSafetensors,
  Tensor,
  writeNpy,
  writeSafetensors,
} from "../../../src/tensor/index.js";
import { tensors } from "./arbitrary.js";

/** Read it, or be told which file is wrong; nothing else may happen. */
function attempt(
  read: (bytes: Uint8Array, name: string) => unknown,
  bytes: Uint8Array,
): FileError | undefined {
  try {
    read(bytes, "weights.bin");
    return undefined;
  } catch (error) {
    expect(error).to.be.instanceOf(FileError);
    expect((error as FileError).message)
      .to.contain("weights.bin")
      .and.not.contain("\n");
    expect((error as FileError).remedy).to.be.a("string");
    return error as FileError;
  }
}

/** A copy with some bytes changed, some cut off, or some added. */
const damage = fc.oneof(
  fc
    .record({ at: fc.nat(), value: fc.integer({ min: 0, max: 255 }) })
    .map(({ at, value }) => (b: Buffer) => {
      const copy = Buffer.from(b);
      copy[at % copy.length] = value;
      return copy;
    }),
  fc.nat().map((n) => (b: Buffer) => b.subarray(0, n % b.length)),
  fc
    .uint8Array({ minLength: 1, maxLength: 9 })
    .map((more) => (b: Buffer) => Buffer.concat([b, more])),
);

/** A safetensors file with any header. */
function file(header: unknown, body = ""): Buffer {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, Buffer.from(body)]);
}

function npy(header: string, body: Uint8Array = new Uint8Array(0), version = 1): Buffer {
  const length = Buffer.alloc(version === 1 ? 2 : 4);
  if (version === 1) length.writeUInt16LE(header.length);
  else length.writeUInt32LE(header.length);
  return Buffer.concat([
    Buffer.from("\x93NUMPY", "latin1"),
    Buffer.from([version, 0]),
    length,
    Buffer.from(header),
    body,
  ]);
}

describe("safetensors", () => {
  const contents = fc.record({
    tensors: fc
      .array(fc.tuple(fc.string(), tensors))
      .map((list) => new Map(list.filter(([k]) => k !== "__metadata__"))),
    metadata: fc.dictionary(fc.string(), fc.string(), { noNullPrototype: true }),
  });

  it("are the same again after writing and reading", () => {
    fc.assert(
      fc.property(contents, ({ tensors, metadata }) => {
        const read = readSafetensors(writeSafetensors(tensors, metadata));
        expect(read.metadata).to.deep.equal(metadata);
        expect([...read.tensors.keys()].sort()).to.deep.equal([...tensors.keys()].sort());
        for (const [name, tensor] of tensors) expect(read.tensors.get(name)).to.deep.equal(tensor);
      }),
      { examples: [[{ tensors: new Map(), metadata: JSON.parse('{"__proto__":""}') }]] },
    );
  });

  it("are refused when damaged, and never anything but refused", () => {
    fc.assert(
      fc.property(
        contents,
        fc.array(damage, { minLength: 1, maxLength: 4 }),
        ({ tensors, metadata }, damages) => {
          attempt(
            readSafetensors,
            damages.reduce(
              (bytes, d) => d(bytes.length ? bytes : Buffer.alloc(1)),
              writeSafetensors(tensors, metadata),
            ),
          );
        },
      ),
      { numRuns: 500 },
    );
    fc.assert(fc.property(fc.uint8Array(), (bytes) => void attempt(readSafetensors, bytes)));
    fc.assert(fc.property(fc.json(), (json) => void attempt(readSafetensors, file(json))));
  });

  it("are refused at every length short of the whole", () => {
    const whole = writeSafetensors(new Map([["w", Tensor.from([[1, 2, 3]])]]), { epoch: "3" });
    for (let n = 0; n < whole.length; n++)
      expect(attempt(readSafetensors, whole.subarray(0, n))).to.not.equal(undefined);
  });

  const f32 = (from: number, to: number, shape = [1]) => ({
    dtype: "F32",
    shape,
    data_offsets: [from, to],
  });
  for (const [what, bytes, message] of [
    ["overlaps", file({ a: f32(0, 4), b: f32(2, 6) }, "123456"), /"b" overlaps/],
    ["gaps", file({ a: f32(0, 4), b: f32(8, 12) }, "123456789012"), /"b".*\bgap\b/],
    ["bytes of nobody", file({ a: f32(0, 4) }, "12345"), /\b1 bytes?\b/],
    ["offsets past the end", file({ a: f32(0, 8, [2]) }, "1234"), /truncated.*"a" ends at byte 8/],
    ["offsets that go backwards", file({ a: f32(0, -4) }, "1234"), /header.*"a"/],
    ["sizes that differ", file({ a: f32(0, 4, [3]) }, "1234"), /shape \[3\] has 4 bytes/],
    ["negative shapes", file({ a: f32(0, 4, [-1]) }, "1234"), /header.*"a"/],
    [
      "shapes beyond number",
      file({ a: f32(0, 4, [2 ** 40, 2 ** 40]) }, "1234"),
      /\[1099511627776, 1099511627776\].*shape/,
    ],
    [
      "types that are not known",
      file({ a: { ...f32(0, 4), dtype: "F8_E4M3" } }, "1234"),
      /"F8_E4M3".*not supported/,
    ],
    ["a header of lists", file([]), /not a JSON object/],
    ["metadata that are not text", file({ __metadata__: { a: 1 } }), /metadata/],
    ["a header that claims to be huge", Buffer.alloc(64, 0xff), /claims a header/],
  ] as const)
    it(`are refused with ${what}`, () =>
      expect(attempt(readSafetensors, bytes)?.message).to.match(message));

  it("have half-precision numbers widened", () => {
    const halves = Buffer.alloc(16);
    const bits = [0x3c00, 0xc000, 0x0001, 0x7c00, 0x3f80, 0xc000, 0x0001, 0x7f80];
    for (const [i, b] of bits.entries()) halves.writeUInt16LE(b, 2 * i);
    const header = {
      h: { dtype: "F16", shape: [4], data_offsets: [0, 8] },
      b: { dtype: "BF16", shape: [4], data_offsets: [8, 16] },
    };
    const { tensors } = readSafetensors(Buffer.concat([file(header), halves]));
    expect(tensors.get("h")?.toNested()).to.deep.equal([1, -2, 2 ** -24, Number.POSITIVE_INFINITY]);
    expect(tensors.get("b")?.toNested()).to.deep.equal([
      1,
      -2,
      2 ** -133,
      Number.POSITIVE_INFINITY,
    ]);
  });
});

describe("npy", () => {
  it("is the same again after writing and reading", () => {
    fc.assert(
      fc.property(
        tensors,
        (tensor) => void expect(readNpy(writeNpy(tensor))).to.deep.equal(tensor),
      ),
    );
  });

  it("is refused when damaged, and never anything but refused", () => {
    fc.assert(
      fc.property(tensors, fc.array(damage, { minLength: 1, maxLength: 4 }), (tensor, damages) => {
        attempt(
          readNpy,
          damages.reduce((bytes, d) => d(bytes.length ? bytes : Buffer.alloc(1)), writeNpy(tensor)),
        );
      }),
      { numRuns: 500 },
    );
    fc.assert(fc.property(fc.uint8Array(), (bytes) => void attempt(readNpy, bytes)));
    fc.assert(
      fc.property(fc.string(), (header) => void attempt(readNpy, npy(header.slice(0, 99)))),
    );
  });

  it("puts Fortran order in row-major order", () => {
    const header = "{'descr': '<i4', 'fortran_order': True, 'shape': (2, 3, 2), }\n";
    const at = (i: number, j: number, k: number) => 100 * i + 10 * j + k;
    const stored: number[] = [];
    for (let k = 0; k < 2; k++)
      for (let j = 0; j < 3; j++) for (let i = 0; i < 2; i++) stored.push(at(i, j, k));
    const expected = [0, 1].map((i) => [0, 1, 2].map((j) => [0, 1].map((k) => at(i, j, k))));
    expect(readNpy(npy(header, Tensor.from(stored, "int32").bytes)).toNested()).to.deep.equal(
      expected,
    );
  });

  for (const version of [1, 2, 3])
    it(`reads format version ${version}`, () => {
      const header = "{'descr': '<i2', 'fortran_order': False, 'shape': (2L,), }\n";
      expect(readNpy(npy(header, Uint8Array.of(1, 0, 255, 255), version)).toNested()).to.deep.equal(
        [1, -1],
      );
    });

  it("reads bytes in any order, and unsigned integers that int64 can hold", () => {
    const header = (descr: string) =>
      `{'descr': '${descr}', 'fortran_order': False, 'shape': (2,), }\n`;
    for (const [descr, bytes, expected] of [
      [">f4", [0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0], [1, -2]],
      [">i2", [0, 1, 0xff, 0xff], [1, -1]],
      ["=f2", [0, 0x3c, 0, 0xc0], [1, -2]],
      [">u8", [0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 0], [7, 256]],
    ] as const)
      expect(readNpy(npy(header(descr), Uint8Array.from(bytes))).toNested()).to.deep.equal(
        expected,
      );
    const large = npy(header("<u8"), new Uint8Array(16).fill(255));
    expect(attempt(readNpy, large)?.message).to.contain("18446744073709551615");
  });

  it("gives the first of several arrays, and says so", () => {
    const [first, second] = [Tensor.from([1, 2]), Tensor.from([[3]])];
    const said: string[] = [];
    const warn = (line: string) => said.push(line);
    const both = Buffer.concat([writeNpy(first), writeNpy(second)]);
    expect(readNpy(both, "a.npy", { warn })).to.deep.equal(first);
    expect(said).to.have.length(1);
    const other = Buffer.concat([writeNpy(first), Buffer.from("more")]);
    expect(attempt(readNpy, other)?.message).to.contain("takes 16 bytes");
  });

  for (const shape of [
    "(-1,)",
    "(2)",
    "(02,)",
    "(1 2)",
    "(-1, -1)",
    `(${2 ** 40}, ${2 ** 40})`,
    "(0, -1)",
  ])
    it(`is refused with the shape ${shape}`, () => {
      const header = `{'descr': '<f4', 'fortran_order': False, 'shape': ${shape}, }\n`;
      expect(attempt(readNpy, npy(header, new Uint8Array(4)))?.message).to.match(/header|shape/);
    });

  for (const [what, descr, message] of [
    ["Python objects", "'|O'", /Python objects/],
    ["records", "[('a', '<f8')]", /records/],
    ["complex numbers", "'<c16'", /complex/],
    ["long doubles", "'<f16'", /<f16.*not supported/],
    ["text", "'<U5'", /not supported/],
  ] as const)
    it(`is refused when it holds ${what}`, () => {
      const header = `{'descr': ${descr}, 'fortran_order': False, 'shape': (), }\n`;
      expect(attempt(readNpy, npy(header, new Uint8Array(8)))?.message).to.match(message);
    });
});
