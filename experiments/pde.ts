/** Local symmetries of heat flow on a plate with a hole, which the plate as a whole does not have. Rotations and a reflection are expected. */
import { z } from "zod";
import {
  amount,
  architectureFor,
  defineExperiment,
  discoverAlgebra,
  discoverCosets,
  type Findings,
  GRASSMANN,
  givenBasis,
  identityField,
  illustrate,
  lookUpIdentity,
  makePredictor,
  onlyFor,
  paperFields,
  reuseField,
  solverField,
  symmetries,
  whole,
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

/** Where a field counts. */
const ALGEBRA = { task: ["discover_algebra", "discover"] };
const COSETS = { task: ["discover_cosets", "discover"] };
const TRAINED = { reuse_predictor: [false] };

const config = z.object({
  task: z
    .enum(["discover_algebra", "discover_cosets", "discover"])
    .default("discover")
    .describe("What to find"),
  atlas: z.literal([1, 2]).default(1).describe("19 small charts, or 3 large ones"),
  ...onlyFor(ALGEBRA, { solver: solverField() }),
  predictor: z.enum(["wide", "published"]).default("wide").describe("Architecture of the local predictors"),
  N: whole(1000, "Number of simulated plates"),
  ...onlyFor([TRAINED, { ...ALGEBRA, solver: ["paper"] }], {
    epochs: whole(3, "Passes over the data (paper solver: of predictor and basis in turn)"),
    batch_size: whole(16, "Plates a step"),
  }),
  ...onlyFor(TRAINED, {
    predictor_lr: amount(0.01, "Learning rate of the predictors"),
    predictor_epsilon: amount(
      1e-8,
      "Adam's ε: a larger one keeps weights that the data leave open from drifting in long training",
    ),
  }),
  reuse_predictor: reuseField(),
  ...onlyFor(ALGEBRA, {
    k: z.int().min(1).max(4).default(1).describe("Number of generators to look for in gl(2)"),
    ...onlyFor(GRASSMANN, {
      algebra_epochs: whole(3, "Epochs of the search; after each the worse half of its starts is dropped"),
    }),
    standard_basis: z
      .boolean()
      .default(false)
      .describe("Generators of disjoint supports, where there are such"),
    ...paperFields({ r1: 0.05, r3: 0.1 }),
  }),
  ...onlyFor(COSETS, {
    ...onlyFor(
      { task: ["discover_cosets"] },
      { identity: identityField("Identity component, as a RUN, FILE, or name like so(2)") },
    ),
    coset_epochs: whole(1, "Epochs of the coset search"),
    candidates: whole(16, "Random matrices the coset search starts from"),
    keep: whole(8, "Most components to report"),
  }),
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
    const sameKind = (other: Record<string, unknown>) =>
      other.atlas === c.atlas && other.predictor === c.predictor;
    const reuse_predictor = c.reuse_predictor && (await runs.predictor(c.reuse_predictor, sameKind));
    return {
      ...c,
      predictor: await architectureFor(reuse_predictor, c.predictor, "published"),
      reuse_predictor,
      identity: await lookUpIdentity(
        runs,
        c.identity,
        2,
        c.task === "discover_cosets" ? "--task discover_cosets" : undefined,
      ),
    };
  },

  async run(ctx, c) {
    const { centres, rIn, rOut } = ATLASES[c.atlas];
    const charts = centres.map(([u, v]) => ({ row: Math.round(u * SIDE), col: Math.round(v * SIDE) }));
    const dataset = await ctx.dataset({ kind: "heat2d", params: { samples: c.N } });
    const atlas = await ctx.atlas({ charts, rIn, rOut, margin: 0 });
    illustrate(ctx, { dataset, atlas: { charts, rIn, rOut } });

    const paper = c.solver === "paper" && c.task !== "discover_cosets";
    const source = c.reuse_predictor;
    const fit = {
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
    };
    const { predictor, about } = await makePredictor(ctx, fit, { source, later: paper });
    const findings: Findings = { task: c.task, predictor: about };
    const task = { predictor, dataset, atlas };
    if (c.task !== "discover_cosets") {
      const { standard_basis, r1, r2, r3 } = c;
      const params = { batch_size: c.batch_size, learning_rate: c.basis_lr, standard_basis, r1, r2, r3 };
      findings.algebra = await discoverAlgebra(ctx, task, {
        solver: paper ? { kind: "paper", params } : { kind: "grassmann", params: { standard_basis } },
        k: c.k,
        epochs: paper ? c.epochs : c.algebra_epochs,
        train: paper && source === false,
      });
    }
    if (c.task !== "discover_algebra") {
      const identity = findings.algebra ? symmetries(findings.algebra) : givenBasis(c.identity);
      const params = { candidates: c.candidates, keep: c.keep };
      Object.assign(findings, await discoverCosets(ctx, task, { params, identity, epochs: c.coset_epochs }));
    }
    findings.predictor.loss = ctx.metrics("predictor").loss ?? null;
    return findings;
  },
});
