/** Weather in the layout of ClimateNet, with labels of tropical cyclones and atmospheric rivers, made by rules of thumb. */
import type { DataSet } from "./dataset.js";

export const climate: DataSet = {
  name: "climate",
  summary: "Weather with tropical cyclones and atmospheric rivers, like ClimateNet",
  rows: "times",
  generator: {
    module: "atlas_worker.generators.climatenet",
    countFlag: "--files",
    extras: [],
    fewest: 2,
    most: 10_000,
    example: 24,
  },
};
