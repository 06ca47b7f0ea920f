/** Data for runs on a user's own arrays. */
import { Tensor } from "../../src/tensor/index.js";

/** 24 smooth fields of 64 by 64 pixels. @param phase shifts the waves */
export function waves(phase: number): Tensor {
  const indices = (count: number) => Array.from({ length: count }, (_, i) => i);
  return Tensor.from(
    indices(24).map((s) => [
      indices(64).map((r) =>
        indices(64).map((c) => Math.sin(0.2 * r + s + phase) + Math.cos(0.15 * c - 2 * s)),
      ),
    ]),
    "float32",
  );
}
