/** Local symmetries of heat flow on a plate with a hole. */
import { z } from "zod";
import { alternates, defineExperiment, discoveryTasks, whole } from "../src/index.js";

/** Charts away from the hole: centres (u, v) as fractions of the plate's sides, radii in pixels. */
const SIDE = 128;
const JUDGES = 200; // plates that judge what is found
const LAYOUTS = {
  1: {
    centres: [
      ...[0.15, 0.325, 0.5].flatMap((v) => [0.5, 0.675, 0.85].map((u) => [u, v] as const)),
      ...[0.675, 0.85].flatMap((v) => [0.15, 0.325, 0.5, 0.675, 0.85].map((u) => [u, v] as const)),
    ],
    r_in: 14,
    r_out: 10,
  },
  2: {
    centres: [
      [0.65, 0.3],
      [0.675, 0.625],
      [0.35, 0.75],
    ] as const,
    r_in: 26,
    r_out: 20,
  },
};

export default defineExperiment({
  name: "pde",
  summary: "Local symmetries of heat flow on a plate with a hole",
  examples: [
    "atlas pde --task discover --fixed-seed",
    "atlas pde --task discover_algebra --layout 2 --seed 3 --json",
    "atlas pde --task discover_algebra --solver atlasd --epochs 10 --fixed-seed",
    "atlas pde --task discover_cosets --reuse-predictor",
  ],
  tasks: discoveryTasks({
    n: 2,
    manifold: "planar",
    data: {
      layout: z
        .literal([1, 2])
        .default(1)
        .meta({ description: "19 small charts, or 3 large ones", former: ["atlas"] }),
      N: whole(1000, "Number of simulated plates"),
    },
    decisive: ["layout"],
    predictor: {
      architecture: { default: "strided_cnn" },
      epochs: 3,
      training: (c) => ({
        supervised: { learning_rate: 0.01, schedule: alternates(c) ? "constant" : "cosine" },
      }),
    },
    algebra: { most: 4, k: 1, epochs: 3, values: () => ({ atlasd: { r3: 0.1 } }) },
    cosets: { epochs: 1 },
    reference: { kind: "reference_cnn" },
    presets: {
      fast: {},
      thorough: {
        N: 4000,
        "training.batch_size": 64,
        epochs: 4,
        "training.epsilon": 1e-3,
        algebra_epochs: 5,
      },
      published: {
        solver: "atlasd",
        architecture: "reference_cnn",
        N: 10_000,
        epochs: 10,
        "training.learning_rate": 1e-3,
      },
    },

    async setting(ctx, { layout, N }) {
      const { centres, ...radii } = LAYOUTS[layout];
      const charts = centres.map(([u, v]) => ({
        row: Math.round(u * SIDE),
        col: Math.round(v * SIDE),
      }));
      const dataset = await ctx.dataset({ kind: "heat_equation", params: { samples: N } });
      const options = { kind: "planar", params: { charts, ...radii } } as const;
      ctx.illustrate({ dataset, atlas: options });
      const others = await ctx.dataset({
        kind: "heat_equation",
        params: { samples: JUDGES },
        seed: ctx.seedFor("others"),
      });
      return { dataset, others, atlas: await ctx.atlas(options) };
    },
  }),
});
