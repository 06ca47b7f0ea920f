/**
 * Discover the Lie algebras and discrete symmetries of data.
 *
 * {@link connectWorker} starts or finds a worker, and `worker.openSession()` gives its objects:
 * data sets, predictors, algebras. {@link defineExperiment} makes an experiment of tasks, each with
 * a config and a function of a {@link Context}. {@link runExperiment} runs an experiment, as `atlas
 * run FILE` does.
 */
export * from "./algebra/index.js";
export {
  type Block,
  type BlockEntry,
  type BlockKind,
  type BlockType,
  blocksOf,
  checkBlock,
  findBlock,
  type Manifold,
  type ParamSchema,
} from "./blocks.js";
export { type ArraySource, type DiscoverInput, discover } from "./discover.js";
export * from "./errors.js";
export {
  type Choice,
  type ChoiceOptions,
  type ChoiceShape,
  type ChoiceValues,
  choose,
  chooseLater,
  chosen,
  type LaterShape,
  settle,
} from "./experiment/choice.js";
export { onlyFor } from "./experiment/conditional-flags.js";
export { type Complete, completeConfig, configReader } from "./experiment/config.js";
export { Context, type ContextOptions, type StageSession } from "./experiment/context.js";
export {
  amount,
  type ConfigOf,
  count,
  defineExperiment,
  type Experiment,
  type ExperimentDefinition,
  type GivenOf,
  isExperiment,
  type Preparation,
  type Presets,
  type Preview,
  refuseGiven,
  type Shape,
  type Task,
  type TaskDefinition,
  type Tasks,
  task,
  whole,
} from "./experiment/define.js";
export type { FormerDefinition } from "./experiment/former.js";
export { illustrate } from "./experiment/illustrate.js";
export {
  Identity,
  openArray,
  type ReadPredictorOptions,
  type RecordedConfig,
  RunLookup,
  readBytes,
  readPredictor,
  referenceTensors,
} from "./experiment/lookup.js";
export { type Position, Progress, type ProgressOptions } from "./experiment/progress.js";
export {
  attachExperiment,
  type ContinueOptions,
  type GoOnOptions,
  type Outcome,
  previewExperiment,
  type RunOptions,
  type RunSlot,
  resumeExperiment,
  runExperiment,
  type WorkerChoice,
} from "./experiment/runner.js";
export type * from "./gen/blocks.js";
export * from "./method/index.js";
export {
  type Figure,
  type Pool,
  type RunSweepOptions,
  type SeedRow,
  type SeedSummary,
  type Slot,
  type SweepCell,
  SweepDisplay,
  type SweepOptions,
  type SweepOutcome,
  type SweepRun,
  type SweepRunStatus,
  type SweepSummary,
  sweep,
} from "./pool/index.js";
export {
  type Charts,
  type Classes,
  type Colour,
  type Illustration,
  type MotionIllustration,
  type MotionPanel,
  type MotionPicture,
  type PlanarCharts,
  type Raster,
  type ReportParts,
  renderFragment,
  renderReport,
  type SphereCharts,
} from "./report/index.js";
export * from "./result.js";
export type { Access } from "./rpc/client.js";
export type { Address } from "./rpc/errors.js";
export {
  type Checkpoint,
  findRun,
  listRuns,
  Run,
  type RunFolder,
  type RunStatus,
  type RunSummary,
} from "./run/folder.js";
export * from "./tensor/index.js";
export { VERSION } from "./version.js";
export * from "./worker/index.js";
export type { Endpoints, LocalProcess } from "./worker/local.js";
