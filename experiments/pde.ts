/** Local symmetries of heat flow on a plate with a hole, which the plate as a whole does not have. Rotations and a reflection are expected. */
import { z } from "zod";
import {
  analyseAlgebra,
  analyseCosets,
  defineExperiment,
  type Findings,
  Identity,
  illustrate,
  readPredictor,
  UsageError,
} from "../src/index.js";

/** Charts away from the hole: centres (u, v) as fractions of the plate's sides, radii in pixels. */
const SIDE = 128;
const ATLASES = {
  1: {
    centres: [
      ...[0.15, 0.325, 0.5].flatMap((v) => [0.5, 0.675, 0.85].map((u) => [u, v] as const)),
      ...[0.675, 0.85].flatMap((v) => [0.15, 0.325, 0.5, 0.675, 0.85].map((u) => [u, v] as const)),
    ],
    rIn: 14,
    rOut: 10,
  },
  2: {
    centres: [
      [0.65, 0.3],
      [0.675, 0.625],
      [0.35, 0.75],
    ] as const,
    rIn: 26,
    rOut: 20,
  },
};

const whole = (fallback: number, description: string) =>
  z.int().positive().default(fallback).describe(description);
const amount = (fallback: number, description: string) =>
  z.number().min(0).default(fallback).describe(description);

const config = z.object({
  task: z
    .enum(["discover_algebra", "discover_cosets", "discover"])
    .default("discover")
    .describe("What to find"),
  atlas: z.literal([1, 2]).default(1).describe("19 small charts, or 3 large ones"),
  solver: z.enum(["grassmann", "paper"]).default("grassmann").describe("How the Lie algebra is found"),
  predictor: z.enum(["wide", "published"]).default("wide").describe("Architecture of the local predictors"),
  N: whole(1000, "Number of simulated plates"),
  epochs: whole(3, "Passes over the data (paper solver: of predictor and basis in turn)"),
  batch_size: whole(16, "Plates a step"),
  predictor_lr: amount(0.01, "Learning rate of the predictors"),
  predictor_epsilon: amount(
    1e-8,
    "Adam's ε: a larger one keeps weights that the data leave open from drifting in long training",
  ),
  reuse_predictor: z.union([z.boolean(), z.string()]).default(false).meta({
    description: "Take a FILE's or RUN's predictors (alone: the newest fitting run's)",
    placeholder: "from",
  }),
  k: z.int().min(1).max(4).default(1).describe("Number of generators to look for in gl(2)"),
  algebra_epochs: whole(
    3,
    "Epochs of the grassmann solver; after each the worse half of its starts is dropped",
  ),
  standard_basis: z.boolean().default(false).describe("Paper solver: push generators to disjoint supports"),
  basis_lr: amount(5e-4, "Paper solver: learning rate of the basis"),
  r1: amount(0.05, "Paper solver: weight of orthogonality"),
  r2: amount(1, "Paper solver: entries are rewarded up to this size"),
  r3: amount(0.1, "Paper solver: weight of the reward for size"),
  identity: z.union([z.string(), Identity]).optional().meta({
    description: "discover_cosets: identity component, as a RUN, FILE, or name like so(2)",
    placeholder: "from",
  }),
  coset_epochs: whole(1, "Epochs of the coset search"),
  candidates: whole(16, "Random matrices the coset search starts from"),
  keep: whole(8, "Best candidates among which cosets are told apart"),
});

export default defineExperiment({
  name: "pde",
  summary: "Local symmetries of heat flow on a plate with a hole",
  config,
  presets: () => ({
    fast: {},
    thorough: { N: 4000, batch_size: 64, epochs: 4, predictor_epsilon: 1e-3, algebra_epochs: 5 },
    published: {
      solver: "paper",
      predictor: "published",
      N: 10_000,
      epochs: 10,
      predictor_lr: 1e-3,
    } as const,
  }),
  defaultPreset: ({ solver }) => (solver === "paper" ? "published" : "fast"),
  examples: [
    "atlas pde --task discover --fixed-seed",
    "atlas pde --task discover_algebra --atlas 2 --seed 3 --json",
    "atlas pde --task discover_algebra --solver paper --epochs 10 --fixed_seed",
    "atlas pde --task discover_cosets --identity latest --reuse-predictor",
  ],

  async prepare(c, runs) {
    if (c.task === "discover_cosets" && c.identity === undefined)
      throw new UsageError(
        "--task discover_cosets needs the identity component",
        "give --identity RUN, FILE or a name like so(2); or find both with --task discover",
      );
    const sameKind = (other: Record<string, unknown>) =>
      other.atlas === c.atlas && other.predictor === c.predictor;
    return {
      ...c,
      reuse_predictor: c.reuse_predictor && (await runs.predictor(c.reuse_predictor, sameKind)),
      identity: typeof c.identity === "string" ? await runs.identity(c.identity, 2) : c.identity,
    };
  },

  async run(ctx, c) {
    const { centres, rIn, rOut } = ATLASES[c.atlas];
    const charts = centres.map(([u, v]) => ({ row: Math.round(u * SIDE), col: Math.round(v * SIDE) }));
    const dataset = await ctx.dataset({ kind: "heat2d", params: { samples: c.N } });
    const atlas = await ctx.atlas({ charts, rIn, rOut, margin: 0 });
    illustrate(ctx, { dataset, atlas: { charts, rIn, rOut } });

    const paper = c.solver === "paper" && c.task !== "discover_cosets";
    const predictor = await ctx.predictor({
      architecture: { kind: c.predictor, params: {} },
      training: {
        kind: "supervised",
        params: {
          batch_size: c.batch_size,
          learning_rate: c.predictor_lr,
          epsilon: c.predictor_epsilon,
          schedule: paper ? "constant" : "cosine",
        },
      },
      dataset,
      atlas,
      epochs: c.epochs,
    });
    const source = c.reuse_predictor;
    if (typeof source === "string") await ctx.reuse("predictor", predictor, () => readPredictor(source));
    else if (!paper) await ctx.advance("predictor", predictor);

    const findings: Findings = {
      task: c.task,
      predictor: { loss: null, epochs: c.epochs, source: typeof source === "string" ? source : "trained" },
    };
    if (c.task !== "discover_cosets") {
      const { standard_basis, r1, r2, r3 } = c;
      const params = { batch_size: c.batch_size, learning_rate: c.basis_lr, standard_basis, r1, r2, r3 };
      const solver = paper ? { kind: "paper", params } : { kind: "grassmann", params: {} };
      const epochs = paper ? c.epochs : c.algebra_epochs;
      const algebra = await ctx.algebra({ solver, predictor, dataset, atlas, k: c.k, epochs });
      if (paper && source === false)
        await ctx.alternate(
          { stage: "predictor", object: predictor },
          { stage: "algebra", object: algebra },
          epochs,
        );
      else await ctx.advance("algebra", algebra);
      findings.algebra = analyseAlgebra(await ctx.session.getAlgebra(algebra));
    }
    if (c.task !== "discover_algebra") {
      const identity =
        findings.algebra?.generators.slice(0, findings.algebra.found) ?? givenBasis(c.identity);
      const params = { candidates: c.candidates, keep: c.keep };
      const solver = { kind: "descent", params };
      const cosets = await ctx.cosets({
        solver,
        predictor,
        dataset,
        atlas,
        identity,
        epochs: c.coset_epochs,
      });
      await ctx.advance("cosets", cosets);
      const found = await ctx.session.getCosets(cosets);
      findings.cosets = analyseCosets(found, identity);
      findings.cosetSearch = found;
    }
    findings.predictor.loss = ctx.metrics("predictor").loss ?? null;
    return findings;
  },
});

/** `prepare` has replaced a reference by what it refers to. */
function givenBasis(identity: string | Identity | undefined): number[][][] {
  return typeof identity === "object" ? identity.basis : [];
}
