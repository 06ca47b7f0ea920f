/** Objects on the worker: create, snapshot, restore and delete them. */
import { type Block, type BlockType, checkBlock } from "../../blocks.js";
import {
  type CreateObjectRequest,
  type ObjectInfo,
  ObjectServiceService,
  type Block as WireBlock,
  ObjectType as WireType,
} from "../../gen/atlas/v1/objects.js";
import { type Link, LONG, LONG_READ, malformed } from "./link.js";

/** A type of object on the worker. */
export type ObjectType = "dataset" | "atlas" | "predictor" | "algebra" | "cosets";

const TYPES: Readonly<Partial<Record<WireType, ObjectType>>> = {
  [WireType.OBJECT_TYPE_DATASET]: "dataset",
  [WireType.OBJECT_TYPE_ATLAS]: "atlas",
  [WireType.OBJECT_TYPE_PREDICTOR]: "predictor",
  [WireType.OBJECT_TYPE_ALGEBRA]: "algebra",
  [WireType.OBJECT_TYPE_COSETS]: "cosets",
};

/** An object on the worker, as it was when it was created or last looked at. */
export interface RemoteObject {
  readonly handle: string;
  readonly type: ObjectType;
  /** Kind of its block. */
  readonly kind: string;
  /** Finished epochs; 0 for an object that does not advance. */
  readonly epoch: number;
  /** Number of epochs in all; 0 for an object that does not advance. */
  readonly totalEpochs: number;
  /** Facts for people, such as parameter counts. */
  readonly facts: Readonly<Record<string, unknown>>;
  /**
   * Shapes of a finished dataset: [samples, channels, height, width], or [samples, m, n] for
   * vectors.
   */
  readonly shapes?: { readonly inputs: readonly number[]; readonly targets: readonly number[] };
}

/**
 * Create an object.
 *
 * @param requestId identifies the object: two calls with the same id give the same object
 */
export async function createObject(
  link: Link,
  spec: CreateObjectRequest["spec"],
  requestId: string,
): Promise<RemoteObject> {
  const request = { sessionId: link.id, spec, requestId };
  const { object } = await link.call(ObjectServiceService.createObject, request);
  if (!object) throw malformed("an object");
  return remoteObject(object);
}

/** Delete an object. */
export async function deleteObject(link: Link, { handle }: RemoteObject): Promise<void> {
  await link.call(ObjectServiceService.deleteObject, { sessionId: link.id, handle });
}

/** List all objects of the session. */
export async function listObjects(link: Link): Promise<RemoteObject[]> {
  const { objects } = await link.call(ObjectServiceService.listObjects, { sessionId: link.id });
  return objects.map(remoteObject);
}

/** Take a snapshot of an object. */
export async function snapshotObject(
  link: Link,
  { handle }: RemoteObject,
  signal?: AbortSignal,
): Promise<{ bytes: Uint8Array; epoch: number }> {
  const request = { sessionId: link.id, handle };
  const options = { ...LONG_READ, signal };
  const { snapshot, epoch } = await link.call(ObjectServiceService.getSnapshot, request, options);
  return { bytes: (await link.fetch(snapshot, signal)).bytes, epoch };
}

/** Restore an object from a snapshot. */
export async function restoreObject(
  link: Link,
  { handle }: RemoteObject,
  bytes: Uint8Array,
): Promise<void> {
  const snapshot = await link.sendBytes(bytes);
  await link.call(
    ObjectServiceService.restoreSnapshot,
    { sessionId: link.id, handle, snapshot },
    LONG,
  );
}

/** Make the message of a block, after a check against the catalogue. @throws UsageError */
export function wireBlock<T extends BlockType>(type: T, block: Block<T>): WireBlock {
  return checkBlock(type, block as { kind: string; params?: Readonly<Record<string, unknown>> });
}

function remoteObject({ type, dataset, facts = {}, ...info }: ObjectInfo): RemoteObject {
  const { handle, kind, epoch, totalEpochs } = info;
  const known = TYPES[type];
  if (known === undefined) throw malformed("the type of an object");
  const shapes = dataset && { inputs: dataset.inputsShape, targets: dataset.targetsShape };
  return { handle, type: known, kind, epoch, totalEpochs, facts, shapes };
}
