/**
 * Weather with labels of tropical cyclones and atmospheric rivers: ClimateNet, or files like it.
 */
import { type DataSet, HDF5 } from "./dataset.js";

/** ClimateNet. The generator makes weather in its layout by rules of thumb. */
export const climate: DataSet = {
  name: "climate",
  summary: "Weather with tropical cyclones and atmospheric rivers, for atlas climate",
  rows: "time steps",
  generator: {
    module: "atlas_worker.generators.climatenet",
    countFlag: "--files",
    extras: [],
    fewest: 2,
    most: 10_000,
    example: 24,
    control: "Label storms only where moisture rises eastwards: no symmetry",
  },
  listing: {
    title: "ClimateNet (Prabhat et al. 2021)",
    doi: "10.5194/gmd-14-107-2021",
    licence: "terms of use: see its page",
    citation: "Prabhat et al. 2021, Geosci. Model Dev. 14, 107",
    page: "https://portal.nersc.gov/project/ClimateNet/",
    mirrors: ["https://portal.nersc.gov"],
    folders: [folder("train", 398), folder("test", 61)],
    names: /^data-\d{4}-\d{2}-\d{2}-\d+-\d+_\d+\.nc$/,
    format: HDF5,
    bytes: 30e9,
  },
};

function folder(name: string, count: number) {
  return { name, count, path: `/project/ClimateNet/climatenet_new/${name}/` };
}
