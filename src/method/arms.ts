/** Groups and sizes of the networks that are compared, and how long they are trained. */
import type { z } from "zod";
import type { SquareMatrix } from "../algebra/linalg.js";
import { UsageError } from "../errors.js";
import type { Context } from "../experiment/context.js";
import type { RemoteObject } from "../worker/index.js";
import { type ArmGroup, armGroups, type Symmetry } from "./symmetry.js";

/** Steps of a training on fields, unless the user gives epochs. */
export const STEPS = 300;

/** Count the passes over fields that make the usual number of steps. */
export function epochsOf(samples: number, batch_size: number): number {
  return Math.ceil(STEPS / Math.ceil(samples / batch_size));
}

/**
 * Make the values by which a network has as many parameters as another one, unless the user gives
 * its width.
 *
 * @param width name of the width among the network's parameters
 */
export function alike(config: object, parameters: number, width: string) {
  const given = (config as Record<string, unknown>)[`baseline.${width}`];
  return { parameters: given === undefined ? parameters : 0 };
}

/** Select the fields of a choice. */
export function pick(fields: Readonly<Record<string, z.ZodType>>, name: string) {
  return Object.fromEntries(
    Object.entries(fields).filter(([field]) => field === name || field.startsWith(`${name}.`)),
  );
}

/**
 * Make the groups that networks of fields can have: one rotation each, perhaps in other coordinates.
 *
 * @throws UsageError if the symmetry is another one
 */
export function rotationArms(
  ctx: Context,
  symmetry: string | Symmetry,
  atlas: RemoteObject,
): ArmGroup[] {
  const groups = armGroups(ctx, symmetry, atlas, {});
  if (groups.some(({ arm, components }) => arm !== "wrong" && components.length > 0))
    ctx.note("networks of fields take the rotation alone, without further components");
  const odd = groups.find(({ arm, basis }) => arm !== "wrong" && !isRotation(basis));
  if (odd)
    throw new UsageError(
      `--symmetry: ${odd.called} is not one rotation, so features of fields have no direction`,
      "give a symmetry of one generator, such as so(2)",
    );
  return groups.filter(({ basis }) => isRotation(basis));
}

/** Whether an algebra is that of rotations of the plane in some coordinates. */
function isRotation(basis: readonly SquareMatrix[]): boolean {
  const [[a, b] = [], [c, d] = []] = basis[0] ?? [];
  if (basis.length !== 1 || a === undefined || d === undefined) return false;
  const determinant = a * d - b! * c!;
  return determinant > 0 && Math.abs(a + d) < Math.sqrt(determinant);
}
