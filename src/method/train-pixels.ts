/** Compare classifiers of pixels with and without a rotation as their symmetry (METHOD 5.6). */
import { z } from "zod";
import { chooseLater, chosen, settle } from "../experiment/choice.js";
import type { Context } from "../experiment/context.js";
import { type ConfigOf, type Preparation, type Shape, task, whole } from "../experiment/define.js";
import { Tensor } from "../tensor/index.js";
import type { AtlasOptions, RemoteObject } from "../worker/index.js";
import { alike, epochsOf, pick, rotationArms, STEPS } from "./arms.js";
import { score } from "./evidence.js";
import { trainingFields } from "./predictor.js";
import { lookUpSymmetry, symmetryField } from "./symmetry.js";
import { comparePairs, pairedFields, samplesOf, type Train } from "./train.js";

/** What an experiment compares classifiers of pixels on. */
export interface PixelComparison<D extends Shape> {
  /** Fields of the data. */
  data: D;
  /** Numbers of samples to train with, such as "34,334", unless the user gives others. */
  samples: string;
  /** Times that each network is trained, unless the user says so. */
  pairs: number;
  charts: AtlasOptions;
  /** Channels of the inputs, and classes of a pixel. */
  channels: number;
  classes: number;
  training: Parameters<typeof trainingFields>[0];
  /** Looks up the data before any work is done. */
  prepare(config: ConfigOf<D>, preparation: Preparation): Promise<void>;
  /** Makes samples that are turned by at most an angle in degrees, with the context's seed. */
  draw(
    ctx: Context,
    config: ConfigOf<D>,
    split: "train" | "test",
    samples: number,
    angle: number,
  ): Promise<RemoteObject>;
  /** The angle of the samples to train with. */
  angle: number;
  /** The angle of each test's samples, by the name of the test. */
  tests: Readonly<Record<string, number>>;
}

const fields = () => ({
  ...chooseLater("network", "architecture", {
    description: "Network with a symmetry",
    kinds: ["steerable_unet"],
  }),
  ...chooseLater("baseline", "architecture", {
    description: "Network without (default: unet of as many parameters)",
    kinds: ["unet", "convnet"],
    omit: ["kernel", "degree"],
  }),
  epochs: z
    .int()
    .positive()
    .optional()
    .meta({
      description: `Passes over the data (default: ${STEPS} steps)`,
      placeholder: "number",
    }),
});

/** Make the task that compares classifiers of pixels with and without a symmetry. */
export function pixelComparisonTask<D extends Shape>(pixels: PixelComparison<D>) {
  const own = {
    symmetry: symmetryField(),
    ...pairedFields(pixels.pairs, pixels.samples),
    test: whole(500, "Number of samples of each test"),
    ...fields(),
    ...trainingFields(pixels.training),
  };
  type Own = ConfigOf<typeof own>;
  return task({
    summary: "Train networks with and without a symmetry on the same samples, and compare them",
    config: { ...pixels.data, ...own },
    async prepare(config, preparation) {
      const c = config as ConfigOf<D> & Own;
      const symmetry = await lookUpSymmetry(preparation.lookup, c.symmetry);
      await pixels.prepare(c, preparation);
      return { ...c, symmetry };
    },
    async run(ctx, config) {
      const c = config as ConfigOf<D> & Own;
      const atlas = await ctx.atlas(pixels.charts);
      const groups = rotationArms(ctx, c.symmetry!, atlas);
      const tests: RemoteObject[] = [];
      for (const angle of Object.values(pixels.tests))
        tests.push(await pixels.draw(ctx, c, "test", c.test, angle));
      const training = chosen(c, "training", "training");
      const { batch_size = 1 } = training.params as { batch_size?: number };
      const drawn = new Map<string, RemoteObject>();
      const train: Train = async (name, { group, parameters }, samples, repeat) => {
        const draw = `${repeat.replace(" ", "-")}-${samples}`;
        const dataset =
          drawn.get(draw) ??
          (await pixels.draw(ctx.within(draw), c, "train", samples, pixels.angle));
        drawn.set(draw, dataset);
        const architecture = group
          ? settle(c, pick(fields(), "network"), "architecture", "steerable_unet")
          : settle(c, pick(fields(), "baseline"), "architecture", "unet", {
              unet: alike(c, parameters, "width"),
            });
        const within = ctx.within(name);
        const predictor = await within.predictor({
          dataset,
          atlas,
          architecture,
          training,
          epochs: c.epochs ?? epochsOf(samples, batch_size),
          seed: ctx.seedFor(repeat) % 2 ** 31,
          tensors: group && { algebra: Tensor.from(group.basis, "float64") },
        });
        await within.advance("train", predictor);
        const skills: number[] = [];
        for (const test of tests)
          skills.push((await score(ctx, predictor, test)).accuracy ?? Number.NaN);
        const seconds = ctx.timings[`${name}-train`] ?? 0;
        const trained = Number(predictor.facts.parameters);
        return { skills, seconds, parameters: trained, architecture };
      };
      const counts = samplesOf(c.samples ?? pixels.samples)!;
      const comparison = await comparePairs(
        ctx,
        c,
        counts,
        groups,
        train,
        Object.keys(pixels.tests),
      );
      const predictor = { loss: null, epochs: 0, source: "trained" };
      const notes = ["skill: share of the shown pixels classified correctly; what is left: errors"];
      return { task: "compare", predictor, comparison, notes };
    },
  });
}
