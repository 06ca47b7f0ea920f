/**
 * Discover the Lie algebras and discrete symmetries hidden in data.
 *
 * An experiment is a config schema and a function of a {@link Context}, made by {@link defineExperiment}; {@link runExperiment} runs one, as does
 * `atlas run FILE`.
 */
export * from "./algebra/index.js";
export * from "./errors.js";
export { Context, type ContextOptions } from "./experiment/context.js";
export {
  completeConfig,
  defineExperiment,
  type Experiment,
  type ExperimentDefinition,
  isExperiment,
} from "./experiment/define.js";
export { Progress, type ProgressOptions } from "./experiment/progress.js";
export {
  attachExperiment,
  type GoOnOptions,
  type Outcome,
  type RunOptions,
  resumeExperiment,
  runExperiment,
  type WorkerChoice,
} from "./experiment/runner.js";
export {
  architectureFor,
  Identity,
  publishedTensors,
  Runs,
  readBytes,
  readPredictor,
} from "./experiment/sources.js";
export * from "./experiment/stages.js";
export { onlyFor } from "./experiment/uses.js";
export { type Classes, type Illustration, illustrate, renderReport } from "./report/index.js";
export * from "./result.js";
export { findRun, listRuns, Run, type RunStatus, type RunSummary } from "./run/folder.js";
export * from "./tensor/index.js";
export { VERSION } from "./version.js";
export * from "./worker/index.js";
