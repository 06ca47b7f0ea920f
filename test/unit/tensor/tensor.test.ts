import { expect } from "chai";
import fc from "fast-check";
import { AtlasError } from "../../../src/errors.js";
import { Tensor } from "../../../src/tensor/index.js";
import { tensors } from "./arbitrary.js";

describe("tensor", () => {
  it("is the same again after nested arrays", () => {
    fc.assert(
      fc.property(tensors, (tensor) => {
        const again = Tensor.from(tensor.toNested(), tensor.dtype, tensor.shape);
        expect(again).to.deep.equal(tensor);
      }),
    );
  });

  it("is the same again after a message, wherever its bytes come to lie", () => {
    fc.assert(
      fc.property(tensors, fc.integer({ min: 0, max: 9 }), (tensor, offset) => {
        const wire = tensor.toWire();
        const shifted = Buffer.concat([Buffer.alloc(offset), tensor.bytes]).subarray(offset);
        const again = Tensor.fromWire({ ...wire, data: { $case: "inline", inline: shifted } });
        expect(again).to.deep.equal(tensor);
      }),
    );
  });

  it("views bytes that are aligned instead of copying them", () => {
    const bytes = new Uint8Array(16);
    const tensor = Tensor.fromBytes("float64", [2], bytes);
    expect(tensor.data.buffer).to.equal(bytes.buffer);
    expect(tensor.bytes.buffer).to.equal(bytes.buffer);
  });

  it("keeps the shape of a basis without elements", () => {
    expect(Tensor.from([], "float64", [0, 2, 2]).toMatrices()).to.deep.equal([]);
  });

  it("refuses what is not rectangular, and lengths that do not fit", () => {
    for (const wrong of [
      () => Tensor.from([[1, 2], [3]]),
      () => Tensor.from([[1], 2]),
      () => Tensor.from([1, [2]]),
      () => Tensor.from([[1, 2]], "float32", [2, 1]),
      () => Tensor.fromBytes("float32", [2], new Uint8Array(7)),
      () => Tensor.fromBytes("float32", [-1], new Uint8Array(4)),
      () => Tensor.fromBytes("uint8", [0.5], new Uint8Array(1)),
      () => Tensor.fromBytes("uint8", [2 ** 53, 2 ** 53], new Uint8Array(1)),
      () => new Tensor("float32", [1], new Float64Array(1)),
      () => new Tensor("uint8", [1e15, 0], new Uint8Array(0)).toNested(),
      () => new Tensor("uint8", new Array(1000).fill(1), new Uint8Array(1)),
      () => Tensor.from([[1, 2]]).toMatrices(),
      () => new Tensor("int64", [1], BigInt64Array.of(2n ** 60n)).toNested(),
    ])
      expect(wrong).to.throw(AtlasError);
  });
});
