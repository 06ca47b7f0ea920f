/** result.json: what an experiment found, in one schema for all experiments. Matrices are nested arrays, row-major. */
import { z } from "zod";

export const RESULT_SCHEMA = "atlas.result/1";

/** A number that a solver may have lost (a start that diverged): null in JSON, which has neither NaN nor infinity. */
const Measured = z.preprocess(
  (x) => (typeof x === "number" && !Number.isFinite(x) ? null : x),
  z.number().nullable(),
);

/** [n, n] */
const Square = z.array(z.array(z.number()));
/** [k, n, n] */
const Squares = z.array(Square);

/** What a discovered Lie algebra is. All but the raw `generators`, `losses`, `relativeErrors` is about the first `found` generators. */
export const AlgebraResult = z.object({
  /** As learnt, of the action on points; never snapped to a known algebra. [k, n, n] */
  generators: Squares,
  /** Equivariance loss along each generator. [k] */
  losses: z.array(z.number()),
  /** Dimensionless equivariance error along each generator. [k] */
  relativeErrors: z.array(z.number()),
  /** The part of the symmetries' loss that interpolation alone may cause, from a comparison with a finer one. */
  noiseFloor: z.number(),
  /** How many of the generators, from the first, are symmetries. */
  found: z.int().min(0),
  /** Directions of gl(n) with their losses, when the solver measured them. */
  spectrum: z.array(z.object({ direction: Square, loss: z.number(), relativeError: z.number() })).optional(),
  /** `‖[B_i, B_j] − proj‖ / ‖[B_i, B_j]‖` over pairs: 0 for a Lie algebra. */
  closure: z.object({ max: z.number(), mean: z.number() }),
  killingSignature: z.object({ positive: z.int(), negative: z.int(), zero: z.int() }),
  identified: z.object({
    name: z.string(),
    /** Of the largest principal angle. */
    cosine: z.number(),
    /** Radians. */
    grassmannDistance: z.number(),
    /** The largest principal angle. */
    angleDegrees: z.number(),
    nearest: z.string().optional(),
  }),
  /** The same span, sparse. [rank, n, n] */
  readableBasis: Squares,
  /** The symmetric J with BᵀJ + JB = 0, where there is one. */
  invariantMetric: z
    .object({
      matrix: Square,
      signature: z.tuple([z.int(), z.int()]),
      residual: z.number(),
      /** Invariant up to scale only. */
      conformal: z.boolean(),
      /** To the metric of the named algebra that was identified. */
      cosine: z.number().optional(),
    })
    .optional(),
  /** Final loss of every start of the solver, ascending. */
  startLosses: z.array(Measured).optional(),
  /** Why `found` is what it is, in words. */
  verdict: z.string(),
});
export type AlgebraResult = z.infer<typeof AlgebraResult>;

/** One connected component of the group that was found. */
export const CosetResult = z.object({
  /** A representative, as learnt. [n, n] */
  matrix: Square,
  loss: z.number(),
  determinant: z.number(),
  /** Least m ≤ 12 with matrix^m = I, and with matrix^m in the identity component; null when there is none. */
  order: z.int().nullable(),
  orderModuloIdentity: z.int().nullable(),
  /** Whether it keeps the identity component's metric (up to scale, where that scales); null when there is no such metric. */
  preservesMetric: z.boolean().nullable(),
  /** Of the component, not of the one matrix. */
  name: z.string(),
});
export type CosetResult = z.infer<typeof CosetResult>;

/** Every candidate of the coset search, ascending by loss. */
export const CosetSearch = z.object({
  noiseFloor: z.number(),
  candidates: z.array(
    z.object({
      matrix: z.array(z.array(Measured)),
      loss: Measured,
      /** "kept", "loss" (not a symmetry), "unseen" (moves the data to where there are none), "rank" (beyond the best q), "duplicate". */
      verdict: z.string(),
      /** Index into `cosets` of the one that a duplicate repeats. */
      duplicateOf: z.int().optional(),
    }),
  ),
});
export type CosetSearch = z.infer<typeof CosetSearch>;

/** Where searches for rotations of a whole sphere ended, one for each seed, which claim no symmetry by themselves. */
export const GlobalRotations = z.object({
  solver: z.string(),
  searches: z.array(
    z.object({
      /** Weight of what keeps the rotations away from the identity. */
      cosineWeight: z.number(),
      runs: z.array(
        z.object({
          seed: z.int(),
          /** As learnt. [3, 3] */
          generator: Square,
          /** Standard deviation of the angle, in radians. */
          magnitude: z.number(),
          /** How far the generator is from where its search started, as a rotation vector in radians. */
          moved: z.number(),
          /** A unit vector; its sense means nothing. [3] */
          axis: z.tuple([z.number(), z.number(), z.number()]),
          /** How well the adversary tells what was turned from what was not: 0 not at all, 1 always. */
          toldApart: z.number(),
        }),
      ),
      /** Mean of the magnitudes. */
      meanMagnitude: z.number(),
      /** Mean angle between the axes of two runs, in degrees: 57.3 is to be expected of random ones; null for one run. */
      axisSpread: z.number().nullable(),
    }),
  ),
});
export type GlobalRotations = z.infer<typeof GlobalRotations>;

/** How far a model is from being equivariant, by matrix. */
export const Equivariance = z.array(
  z.object({
    /** What is done, "rotation by 30°" say. */
    name: z.string(),
    matrix: Square,
    /** Mean absolute difference of f(gx) and g f(x); of class probabilities, for a classifier. */
    distance: z.number(),
    /** Dimensionless: the distance against those of both from f(x). 0.5 where the three have nothing to do with one another; 1 at most. */
    relativeError: z.number(),
    /** The part of the relative error that interpolation alone may cause, from a comparison with a finer one. */
    interpolation: z.number(),
  }),
);
export type Equivariance = z.infer<typeof Equivariance>;

export const Result = z.object({
  schema: z.literal(RESULT_SCHEMA),
  experiment: z.string(),
  task: z.string(),
  seed: z.int(),
  algebra: AlgebraResult.optional(),
  cosets: z.array(CosetResult).optional(),
  cosetSearch: CosetSearch.optional(),
  globalRotations: GlobalRotations.optional(),
  downstream: z
    .object({
      metrics: z.record(z.string(), Measured),
      /** The group of frames that the network's kernels respect, "SO(2)" say. */
      gauge: z.string().optional(),
    })
    .optional(),
  /** Of the predictor or the network, by what is done. */
  equivariance: Equivariance.optional(),
  predictor: z.object({
    /** Of the last epoch; null for one that was not trained in this run. */
    loss: z.number().nullable(),
    epochs: z.int(),
    /** "trained", a file, a run, or what function it is. */
    source: z.string(),
    /** On data that it was not trained with; "<name>_error" is a standard uncertainty. */
    scores: z.record(z.string(), Measured).optional(),
  }),
  /** What a reader should know, in sentences: what limits the result, say. */
  notes: z.array(z.string()).optional(),
  /** Where the answer is known: whether it was found. */
  asExpected: z.boolean().optional(),
  /** Seconds of each stage. */
  timings: z.record(z.string(), z.number()),
  environment: z.object({
    device: z.string(),
    threads: z.int(),
    versions: z.record(z.string(), z.string()),
  }),
});
export type Result = z.infer<typeof Result>;

/** What an experiment returns; the runner adds the rest. */
export type Findings = Omit<Result, "schema" | "experiment" | "seed" | "timings" | "environment">;
