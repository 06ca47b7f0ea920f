/**
 * Handwritten digits: MNIST, from two mirrors, because its own server does not send it any more.
 */
import type { DataSet } from "./dataset.js";

/** MNIST. */
export const mnist: DataSet = {
  name: "mnist",
  summary: "Handwritten digits, for atlas mnist",
  rows: "images",
  record: {
    title: "MNIST (LeCun, Cortes, Burges 1998)",
    licence: "CC BY-SA 3.0",
    page: "http://yann.lecun.com/exdb/mnist/",
    mirrors: [
      "https://ossci-datasets.s3.amazonaws.com",
      "https://storage.googleapis.com/cvdf-datasets",
    ],
    files: [
      file("train-images-idx3-ubyte.gz", 9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
      file("train-labels-idx1-ubyte.gz", 28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
      file("t10k-images-idx3-ubyte.gz", 1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
      file("t10k-labels-idx1-ubyte.gz", 4542, "ec29112dd5afa0611ce80d1b7f02629c"),
    ],
  },
};

function file(name: string, bytes: number, md5: string) {
  return { name, bytes, md5, path: `/mnist/${name}` };
}
