/** The data sets of `atlas data`. */
import { climate } from "./climate.js";
import type { DataSet } from "./dataset.js";
import { mnist } from "./mnist.js";
import { toptagging } from "./toptagging.js";

/** All data sets. */
export const DATA_SETS: readonly DataSet[] = [toptagging, mnist, climate];
