/** Tensors, and the file formats for them. */
export { readNpy, writeNpy } from "./npy.js";
export { readSafetensors, type Safetensors, writeSafetensors } from "./safetensors.js";
export { type DType, type Nested, Tensor, type TensorData } from "./tensor.js";
