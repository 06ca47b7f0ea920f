/** The data sets that `atlas data` offers. */
import { climate } from "./climate.js";
import type { DataSet } from "./dataset.js";
import { mnist } from "./mnist.js";
import { toptagging } from "./toptagging.js";

export const DATA_SETS: readonly DataSet[] = [toptagging, mnist, climate];
