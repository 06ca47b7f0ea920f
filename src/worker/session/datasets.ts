/** Datasets of a session, and atlases on them. */
import type { Block } from "../../blocks.js";
import { type CreateObjectRequest, ObjectServiceService } from "../../gen/atlas/v1/objects.js";
import type { Tensor, TensorSource } from "../../tensor/tensor.js";
import { type Link, LONG_READ } from "./link.js";
import { type RemoteObject, wireBlock } from "./objects.js";

/** A dataset: a block of type "dataset", its seed, and its tensors. */
export type DatasetOptions = Block<"dataset"> & {
  /** Seed of the dataset's randomness. */
  seed: number;
  /** Arrays of the user, for kinds that take them. */
  tensors?: Readonly<Record<string, TensorSource>>;
};

/** An atlas: where the charts are and how a matrix acts on them, as a block of type "action". */
export type AtlasOptions = Block<"action">;

/** An atlas of charts on fields: planar, with positions in pixels, or on a sphere, in degrees. */
export type ChartsOptions = Extract<AtlasOptions, { kind: "planar" | "sphere" }>;

/** @deprecated Give a block: `{ kind: "planar", params: { charts, r_in, r_out } }`. */
export interface FormerAtlasOptions {
  charts?: readonly ({ row: number; col: number } | { latitude: number; longitude: number })[];
  rIn?: number;
  rOut?: number;
  margin?: number;
  outputInterpolation?: "bilinear" | "nearest";
  n?: number;
  vectorOutput?: boolean;
  resolution?: number;
}

type Spec = CreateObjectRequest["spec"];

/** Make the spec of a dataset. The tensors are sent to the worker. */
export async function datasetSpec(link: Link, options: DatasetOptions): Promise<Spec> {
  const { seed, tensors = {}, ...block } = options;
  const source = wireBlock("dataset", block as Block<"dataset">);
  return { $case: "dataset", dataset: { source, seed, tensors: await link.sendAll(tensors) } };
}

/** Make the spec of an atlas. */
export function atlasSpec(options: AtlasOptions | FormerAtlasOptions): Spec {
  const action = wireBlock("action", "kind" in options ? options : blockOf(options));
  return { $case: "atlas", atlas: { action } };
}

/** Count the samples of `test` that `train` has too. */
export async function countShared(
  link: Link,
  train: RemoteObject,
  test: RemoteObject,
): Promise<number> {
  const request = { sessionId: link.id, train: train.handle, test: test.handle };
  return (await link.call(ObjectServiceService.compareDatasets, request, LONG_READ)).shared;
}

/** Read samples of a dataset. */
export async function readSamples(
  link: Link,
  { handle }: RemoteObject,
  range: { start: number; count: number },
): Promise<{ inputs: Tensor; targets: Tensor }> {
  const request = { sessionId: link.id, handle, ...range };
  const { inputs, targets } = await link.call(ObjectServiceService.readDataset, request, LONG_READ);
  return { inputs: await link.fetch(inputs), targets: await link.fetch(targets) };
}

function blockOf(options: FormerAtlasOptions): AtlasOptions {
  const {
    charts = [],
    rIn = 0,
    rOut = 0,
    margin,
    outputInterpolation,
    n,
    vectorOutput,
    resolution,
  } = options;
  if (n !== undefined) return { kind: "vectors", params: { n, vector_output: vectorOutput } };
  if (resolution !== undefined) return { kind: "icosahedron", params: { resolution } };
  const params = {
    charts,
    r_in: rIn,
    r_out: rOut,
    margin,
    output_interpolation: outputInterpolation,
  };
  const kind = charts.some((chart) => "latitude" in chart) ? "sphere" : "planar";
  return { kind, params } as AtlasOptions;
}
