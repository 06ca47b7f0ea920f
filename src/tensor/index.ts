/** Tensors, and the file formats for them. */
export { type NpyOptions, openNpy, readNpy, writeNpy } from "./npy.js";
export {
  readOneTensor,
  readSafetensors,
  type Safetensors,
  writeSafetensors,
} from "./safetensors.js";
export { type DType, type Nested, Tensor, type TensorData, type TensorSource } from "./tensor.js";
