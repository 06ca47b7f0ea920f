/**
 * Search for rotations of a whole sphere by an adversary (LieGAN, METHOD 2.8), with several seeds
 * and weights, and compare where the searches end.
 */

import { z } from "zod";
import { axisSpread, turnOf } from "../algebra/index.js";
import type { BlockParams } from "../blocks.js";
import { choose, chosen } from "../experiment/choice.js";
import type { Context } from "../experiment/context.js";
import { type ConfigOf, type Preparation, type Shape, task, whole } from "../experiment/define.js";
import type { Findings, GlobalRotations } from "../result.js";
import type { Setting } from "./data.js";

/** A search for rotations. */
export interface RotationSearch {
  /** Parameters of the solver "liegan", except the weight of the cosine. */
  params?: BlockParams["data_solver"]["liegan"];
  /** Weights of the cosine in the adversary's loss. */
  weights: readonly number[];
  /** Number of searches with each weight. */
  seeds: number;
  epochs: number;
}

/** Search for rotations with every weight and seed. */
export async function searchRotations(
  ctx: Context,
  setting: Setting,
  { params, weights, seeds, epochs }: RotationSearch,
): Promise<Pick<Findings, "globalRotations" | "predictor" | "notes">> {
  const searches: GlobalRotations["searches"] = [];
  for (const cosineWeight of weights) {
    const runs: GlobalRotations["searches"][number]["runs"] = [];
    for (let i = 1; i <= seeds; i++) {
      const stage = `liegan-${cosineWeight}-${i}`;
      const seed = ctx.seedFor(`liegan ${i}`);
      const solver = {
        kind: "liegan",
        params: { ...params, cosine_weight: cosineWeight },
      } as const;
      const search = await ctx.algebra({ ...setting, solver, k: 1, epochs, seed });
      await ctx.advance(stage, search);
      const found = await ctx.timed(stage, () => ctx.session.getAlgebra(search));
      await ctx.session.delete(search);
      const [generator] = found.generators as [number[][]];
      const { moved = Number.NaN } = ctx.metrics(stage);
      runs.push({
        seed,
        generator,
        ...turnOf(generator),
        moved,
        toldApart: found.relativeErrors[0]!,
      });
    }
    searches.push({
      cosineWeight,
      runs,
      meanMagnitude: runs.reduce((sum, { magnitude }) => sum + magnitude, 0) / runs.length,
      axisSpread: axisSpread(runs.map(({ axis }) => axis)),
    });
  }
  return {
    globalRotations: { solver: "liegan", searches },
    predictor: { loss: null, epochs: 0, source: "none" },
    notes: [
      "an adversary's training measures no equivariance error; a symmetry is a rotation on which " +
        "all seeds agree and which the adversary cannot tell from the data; a rotation by almost " +
        "nothing, or about another axis for each seed, is none",
      "searches start at rotations of 0.16 rad on average about a random axis; a search that has " +
        "hardly moved from its start is no evidence",
    ],
  };
}

/**
 * The published weight of the cosine, which is weak against the adversary's hints, and a strong
 * one.
 */
const WEIGHTS = [0.01, 1];

/** Make the task that searches for rotations of a whole sphere. */
export function rotationTask<D extends Shape>({
  data,
  epochs,
  published,
  prepare,
  setting,
}: {
  /** Config fields of the data. */
  data: D;
  /** Default number of passes over the data. */
  epochs: number;
  /** The published settings. */
  published: Partial<ConfigOf<D>> & { epochs: number };
  /** Looks up references before any work is done. */
  prepare(config: ConfigOf<D>, preparation: Preparation): Promise<void>;
  /** Creates the dataset and the atlas. */
  setting(ctx: Context, config: ConfigOf<D>): Promise<Setting>;
}) {
  const config = {
    ...data,
    epochs: whole(epochs, "Passes over the data"),
    seeds: whole(3, "Number of searches with each weight of the cosine"),
    cosine_weight: z
      .number()
      .min(0)
      .optional()
      .meta({
        description:
          "Weight of the term that keeps rotations away from the identity (default: " +
          `${WEIGHTS.join(", then ")})`,
        placeholder: "number",
      }),
    ...choose("solver", "data_solver", {
      description: "Solver for the rotations",
      default: "liegan",
      flags: {
        batch_size: "batch_size",
        learning_rate_discriminator: "lr_d",
        learning_rate_generator: "lr_g",
      },
      omit: ["cosine_weight"],
    }),
  };
  const presets: Readonly<Record<string, object>> = {
    fast: {},
    published: { ...published, cosine_weight: WEIGHTS[0] },
  };
  return task({
    summary: "Search for rotations of the whole sphere with LieGAN",
    config,
    presets: presets as Readonly<Record<string, Partial<ConfigOf<typeof config>>>>,
    async prepare(c, preparation) {
      await prepare(c as ConfigOf<D>, preparation);
      return c;
    },
    async run(ctx, c) {
      const { seeds, cosine_weight } = c as { seeds: number; cosine_weight?: number };
      const weights = cosine_weight === undefined ? WEIGHTS : [cosine_weight];
      const { params } = chosen(c, "solver", "data_solver");
      const options = { params, weights, seeds, epochs: (c as { epochs: number }).epochs };
      const findings = await searchRotations(ctx, await setting(ctx, c as ConfigOf<D>), options);
      return { task: "liegan_discover", ...findings };
    },
  });
}
