/** Trajectories of the user: what has to be predicted, and the type of it (METHOD 1.8). */
import { z } from "zod";
import { UsageError } from "../errors.js";

/** Make the config fields of trajectories. */
export const trajectoryFields = () => ({
  predict: z.string().optional().meta({
    description: "Frames of trajectories to predict: next, next:5, or rest",
    placeholder: "frames",
  }),
  mask: z.string().optional().meta({
    description: "A .npy file [n, t]: which frames there are (default: those not NaN)",
    placeholder: "file",
    file: true,
    rare: true,
  }),
});

/** Config of {@link trajectoryFields}, and what they depend on. */
export interface TrajectoryConfig {
  axes?: string;
  predict?: string;
  mask?: string;
  inputs_as?: string;
  targets_as?: string;
}

/** Check the fields of trajectories. @throws UsageError */
export function checkTrajectories({ axes, predict, mask }: TrajectoryConfig): void {
  for (const [flag, value] of [["predict", predict] as const, ["mask", mask] as const])
    if (value !== undefined && axes === undefined)
      throw new UsageError(
        `--${flag} has an effect on trajectories only`,
        "give --axes n,t,features (or n,t,items,features)",
      );
  if (predict !== undefined && !/^(next(:[1-9]\d{0,5})?|rest)$/.test(predict))
    throw new UsageError(
      `--predict ${predict} is not known`,
      "give next, next:5 for the next five frames, or rest",
    );
}

/**
 * Get the type of predicted frames: that of the inputs, once for each item of each frame.
 *
 * @param inputs shape of the dataset's inputs: `[N, items, features]`
 * @param targets shape of its targets: `[N, frames · items · features]`
 * @returns the type that the user gave, if any
 */
export function targetsType(
  { predict, inputs_as, targets_as }: TrajectoryConfig,
  inputs: readonly number[],
  targets: readonly number[],
): string | undefined {
  if (predict === undefined || targets_as !== undefined) return targets_as;
  const [, items = 1, features = 1] = inputs;
  const repeats = Math.round((targets[1] ?? features) / features);
  if (repeats === 1 && items === 1) return inputs_as ?? "V";
  return Array.from({ length: repeats }, () => inputs_as ?? "V").join("+");
}
