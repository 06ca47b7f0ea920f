/** Sweeps: many runs of an experiment, in the slots of a pool. */
export { SweepDisplay } from "./display.js";
export { type Estimate, estimateSeconds } from "./estimate.js";
export {
  findRunOrSweep,
  listSweeps,
  type PlannedRun,
  Sweep,
  SweepFile,
  type SweepRunStatus,
} from "./folder.js";
export { MOST_RUNS, type SampleOptions } from "./grid.js";
export { type Request, repeatedSeeds } from "./plan.js";
export { openPool, POOLS, type Pool, type PoolOptions, type Slot } from "./pool.js";
export { type Removal, removable, removeRun, removeSweep } from "./remove.js";
export {
  type Figure,
  rowOf,
  type SeedRow,
  type SeedSummary,
  summariseSeeds,
} from "./seeds.js";
export {
  type SweepCell,
  type SweepRun,
  type SweepSummary,
  seedLines,
  summariseSweep,
  sweepCsv,
  sweepTable,
} from "./summary.js";
export {
  createSweep,
  planFor,
  type RunSweepOptions,
  runSweep,
  type SweepOptions,
  type SweepOutcome,
  sweep,
} from "./sweep.js";
export { type Axis, listAxis, readAxis } from "./values.js";
