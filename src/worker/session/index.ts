/** A session on a worker, with one file for each resource. */
export type {
  AtlasOptions,
  ChartsOptions,
  DatasetOptions,
  FormerAtlasOptions,
} from "./datasets.js";
export type {
  FileLayout,
  FileMember,
  FileReport,
  InspectOptions,
  NumberSummary,
  UploadOptions,
} from "./files.js";
export type { AdvanceOptions, Epoch, Step } from "./jobs.js";
export type { Matrices, SessionParts } from "./link.js";
export type { ObjectType, RemoteObject } from "./objects.js";
export type {
  AuditOptions,
  ChartFindings,
  ChartOptions,
  EquivarianceFindings,
  EquivarianceOptions,
  EvidenceOptions,
  MotionFrames,
  MotionOptions,
  PredictorInput,
  PredictorOptions,
} from "./predictors.js";
export { Session } from "./session.js";
export type { AlgebraOptions, ComponentFindings, CosetsOptions } from "./solvers.js";
