/** The user's own arrays: in .npy files, which are sent, or in any files, which the worker reads. */
import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { z } from "zod";
import { RpcError, UsageError } from "../errors.js";
import type { Context } from "../experiment/context.js";
import { openArray } from "../experiment/lookup.js";
import { resolveMembers, splitMembers } from "../experiment/members.js";
import type { TensorSource } from "../tensor/index.js";
import type { Place, RemoteObject } from "../worker/index.js";

/** Bytes from which on a .npy file is left to the worker, which does not hold it whole. */
const LARGE = 2 ** 30;

/** Config of the user's arrays. */
export interface OwnArraysConfig {
  inputs?: string;
  targets?: string;
  outputs: number;
  axes?: string;
  targets_as?: string;
  /** Frames of trajectories to predict, in place of targets. */
  predict?: string;
  /** The frames of trajectories that there are. */
  mask?: string;
}

/**
 * Make the config field for the flags that the user gave. Some have an effect on one layout only,
 * and the layout of a file is known when the worker has opened it.
 */
export const givenField = () => ({
  given_fields: z
    .array(z.string())
    .default([])
    .meta({ before: ["k"] }),
});

/**
 * Check the files of a config, as far as that can be done without a worker.
 *
 * @returns absolute paths, and the shape of the inputs if it is known
 */
export async function ownFiles(
  { inputs, targets }: { inputs: string; targets?: string },
  place: Place,
) {
  const shapes: (readonly number[] | undefined)[] = [];
  for (const text of [inputs, targets ?? []].flat()) {
    const { file } = splitMembers(text);
    shapes.push((await isSent(text, place)) ? (await openArray(file)).shape : undefined);
  }
  const absolute = (text: string) => resolveMembers(text, place);
  const files = { inputs: absolute(inputs), targets: targets && absolute(targets) };
  return { files, shape: shapes[0] };
}

/**
 * Create the dataset of the user's arrays. Small .npy files are sent. The worker reads other files
 * itself; a file that is here and not on its machine is sent first.
 *
 * @throws UsageError, FileError, RpcError if a file is missing, damaged or does not fit
 */
export async function ownDataset(ctx: Context, c: OwnArraysConfig): Promise<RemoteObject> {
  const { outputs, axes, targets, predict, mask } = c;
  const given = {
    inputs: c.inputs!,
    ...(targets !== undefined && { targets }),
    ...(mask !== undefined && { mask }),
  };
  const params =
    targets === undefined && predict === undefined
      ? { outputs, axes }
      : { axes, classes: c.targets_as === "class", predict };
  const sent = await Promise.all(Object.values(given).map((text) => isSent(text, ctx.place)));
  if (sent.every(Boolean)) {
    const tensors: Record<string, TensorSource> = {};
    for (const [role, file] of Object.entries(given))
      tensors[role] = await openArray(file, { warn: (line) => ctx.warn(line) });
    return ctx.dataset({ kind: "arrays", params, tensors });
  }
  if (mask !== undefined)
    throw new UsageError(
      "--mask goes with inputs in a .npy file of this machine",
      "mark frames that are not there by NaN in the inputs",
    );
  return readOwn(ctx, params, given);
}

async function readOwn(
  ctx: Context,
  params: object,
  given: Readonly<Record<string, string>>,
): Promise<RemoteObject> {
  const files = Object.entries(given).map(([role, text]) => ({ role, ...splitMembers(text) }));
  const members = files.map(({ role, members }) => [`${role}_members`, members] as const);
  return givePaths(files, ctx.place, {
    upload: (file) => ctx.upload(file),
    use: (paths) => {
      const all = { ...params, ...paths, ...Object.fromEntries(members) };
      return ctx.dataset({ kind: "files", params: all });
    },
  });
}

/**
 * Give files to a worker by their paths, or send those that are on this machine alone.
 *
 * @param files with the names of the fields of the request that they are for
 */
export async function givePaths<T>(
  files: readonly { role: string; file: string }[],
  place: Place,
  {
    upload,
    use,
  }: {
    /** Sends a file. @returns what stands for its path */
    upload: (file: string) => Promise<string>;
    /** Does the work with a path for each role. */
    use: (paths: Readonly<Record<string, string>>) => Promise<T>;
  },
): Promise<T> {
  const sent = new Map<string, string>();
  const send = async (file: string) => {
    if (!sent.has(file)) sent.set(file, await upload(file));
  };
  for (const { file } of files) if (place === "remote" && existsSync(file)) await send(file);
  for (;;) {
    const paths = files.map(({ role, file }) => [role, sent.get(file) ?? file] as const);
    try {
      return await use(Object.fromEntries(paths));
    } catch (error) {
      // A worker at an address of this machine may be behind a tunnel, or see only some folders.
      const unseen = files.find(
        ({ role, file }) =>
          place === "loopback" && isUnseen(error, role) && existsSync(file) && !sent.has(file),
      );
      if (unseen === undefined) throw error;
      await send(unseen.file);
    }
  }
}

/** Whether a worker does not have a file, or may not read it. */
function isUnseen(error: unknown, role: string): boolean {
  return (
    error instanceof RpcError &&
    error.field.split(".").at(-1) === role &&
    (error.reason === "FILE_MISSING" || error.message.includes("outside the worker's data root"))
  );
}

/** Whether a file is a .npy file that is sent as an array. */
async function isSent(text: string, place: Place): Promise<boolean> {
  const { file, members } = splitMembers(text);
  if (members.length > 0 || !file.toLowerCase().endsWith(".npy")) return false;
  const found = await stat(file).catch(() => undefined);
  return found === undefined ? place !== "remote" : found.size <= LARGE;
}
