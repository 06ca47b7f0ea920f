/** Jets of top quarks and of QCD: a published data set, or jets like it made by PYTHIA 8. */
import type { DataSet } from "./dataset.js";

/** The Top Quark Tagging Reference Dataset. */
export const toptagging: DataSet = {
  name: "toptagging",
  summary: "Jets of top quarks and of QCD, for atlas toptagging",
  rows: "jets",
  generator: {
    module: "atlas_worker.generators.jets",
    countFlag: "--jets",
    extras: ["jets"],
    fewest: 10,
    most: 100_000_000,
    example: 100_000,
  },
  // A record on Zenodo never changes under its DOI.
  record: {
    title: "Top Quark Tagging Reference Dataset (Kasieczka, Plehn, Thompson, Russel 2019)",
    doi: "10.5281/zenodo.2603256",
    licence: "CC BY 4.0",
    page: "https://zenodo.org/records/2603256",
    mirrors: ["https://zenodo.org"],
    files: [
      file("train.h5", 1_038_496_555, "45663819f47c13724f67eb0fd80bfa5c"),
      file("val.h5", 347_378_076, "dca4b7248027618f041f9baa86d360fc"),
      file("test.h5", 347_849_376, "13163479dee30a5fe546e4536cc3d04d"),
    ],
  },
};

function file(name: string, bytes: number, md5: string) {
  return { name, bytes, md5, path: `/records/2603256/files/${name}?download=1` };
}
