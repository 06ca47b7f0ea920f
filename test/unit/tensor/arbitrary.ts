/** Tensors of any type and small shape, for property tests. */
import fc from "fast-check";
import { type DType, Tensor } from "../../../src/tensor/index.js";

const ELEMENTS: Record<DType, fc.Arbitrary<number>> = {
  float32: fc.float(),
  float64: fc.double(),
  int64: fc.maxSafeInteger(),
  int32: fc.integer(),
  uint8: fc.integer({ min: 0, max: 255 }),
  bool: fc.integer({ min: 0, max: 1 }),
};

export const tensors: fc.Arbitrary<Tensor> = fc
  .tuple(
    fc.constantFrom(...(Object.keys(ELEMENTS) as DType[])),
    fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 }),
  )
  .chain(([dtype, shape]) => {
    const count = shape.reduce((a, b) => a * b, 1);
    return fc.array(ELEMENTS[dtype], { minLength: count, maxLength: count }).map((flat) => {
      const { data } = Tensor.from(flat, dtype);
      return new Tensor(dtype, shape, data);
    });
  });
