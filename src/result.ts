/**
 * The schema of result.json: what an experiment found. All experiments share it. Matrices are
 * nested arrays, row-major.
 */
import { z } from "zod";

/** The version of the schema, which a result document names. */
export const RESULT_SCHEMA = "atlas.result/2";
/** The version of the schema in Atlas 0.1, which can still be read. */
const FORMER_SCHEMA = "atlas.result/1";

/** A measured number; null if it is not finite, because JSON has neither NaN nor infinity. */
const Measured = z.preprocess(
  (x) => (typeof x === "number" && !Number.isFinite(x) ? null : x),
  z.number().nullable(),
);

/** [n, n] */
const Square = z.array(z.array(z.number()));
/** [k, n, n] */
const Squares = z.array(Square);

/** The groups whose product acts, in the order of their blocks (METHOD 1.7). */
export const Factors = z.array(
  z.object({
    /** Its letter in types of features; empty for the group without a letter. */
    name: z.string(),
    n: z.int(),
    /** Whether it translates too: its block then has n + 1 rows. */
    affine: z.boolean(),
    /** Whether it moves the map of a field. */
    map: z.boolean(),
  }),
);

const FRAME = {
  /** The groups; left out for one GL(n). */
  factors: Factors.optional(),
  /** D: matrices are compared as D M D⁻¹. Left out if they are compared as they are. */
  coordinates: Square.optional(),
};

/** What an algebra solver measured, as the worker sends it (`GetAlgebraResponse`). */
export const AlgebraMeasured = z.object({
  /** The generators as learnt, acting on points; never replaced by a known algebra. [k, n, n] */
  generators: Squares,
  /** Equivariance loss along each generator. [k] */
  losses: z.array(z.number()),
  /** Dimensionless equivariance error along each generator. [k] */
  relativeErrors: z.array(z.number()),
  /** The part of the symmetries' loss that interpolation alone may cause. */
  noiseFloor: z.number(),
  /** How many of the generators, counted from the first, are symmetries. */
  symmetryCount: z.int().min(0),
  /** Directions of gl(n) of Frobenius norm 1 with their losses, if the solver measured them. */
  spectrum: z
    .array(z.object({ direction: Square, loss: z.number(), relativeError: z.number() }))
    .optional(),
  /** The final loss of every start of the solver, ascending. */
  startLosses: z.array(Measured).optional(),
  /** Why `symmetryCount` has its value, in words. */
  explanation: z.string(),
  /** Directions that were left out because they move no data (METHOD 2.12). */
  freeDirections: z.int().optional(),
  /** Directions that were left out because they lead out of the subspace of the data. */
  leadingOut: z.int().optional(),
  /** Directions that were left out because the output ignores where they lead. */
  inertDirections: z.int().optional(),
  ...FRAME,
});
/** What an algebra solver measured. */
export type AlgebraMeasured = z.infer<typeof AlgebraMeasured>;

/** The skill that a predictor loses when its inputs are moved (METHOD 2.13). */
export const SkillLost = z.object({
  /** t, for the moves exp(±tB) of a unit generator B; 0 for a single matrix. */
  length: z.number(),
  /** The share of the inputs' own spread that is moved. */
  size: Measured,
  /** S: 0 if nothing is lost, 1 if no more skill is left than a constant has. */
  lost: Measured,
  /** Standard error of `lost` over scenes. */
  error: Measured,
  /** What interpolation costs: `lost` of moving the inputs there and back. */
  floor: Measured,
  /**
   * Mean squared difference of the predictions from those at the nearest training samples, in units
   * of that at unmoved samples.
   */
  reach: Measured,
  /** Disagreement of refits at moved samples, in units of that at unmoved ones. */
  disagreement: Measured.optional(),
  /** `lost` of each refit. */
  refits: z.array(Measured).optional(),
  /** `lost` of a breaking that was planted in the targets, if all of it were learnt. */
  planted: Measured.optional(),
  /** Lower bound of S (97.5 %), for which no scene counts more than a few times the average. */
  least: Measured.optional(),
  /** Whether this is half a turn of a compact direction, and not a move of a given size. */
  halfTurn: z.boolean().optional(),
});
/** The skill that a predictor loses when its inputs are moved. */
export type SkillLost = z.infer<typeof SkillLost>;

/** What the worker measures as evidence (`MeasureEvidenceResponse`). */
export const EvidenceMeasured = z.object({
  /** The share of the targets' variance that the predictor explains. */
  skill: Measured,
  skillError: Measured,
  /** Number of scenes that judged. */
  scenes: z.int(),
  /** Whether these were held back from the training. */
  heldOut: z.boolean(),
  /** Whether there were targets; if not, the predictor's own outputs took their place. */
  targets: z.boolean(),
  /** For each direction, one entry for each size that it reaches; then half a turn, if longer. */
  directions: z.array(z.array(SkillLost)),
  /** For each matrix. */
  matrices: z.array(SkillLost),
  refitSkills: z.array(Measured).optional(),
  /**
   * Upper bound of the share of the targets' variance that the predictor could still learn; null if
   * neighbouring samples do not tell it from noise.
   */
  learnable: Measured.optional(),
  /** Projections of rank 1 to n on directions of the inputs, those that are used least first. */
  unused: Squares.optional(),
  /** What is lost if the parts in their ranges are those of another sample, for each. */
  without: z.array(SkillLost).optional(),
});
/** What the worker measures as evidence. */
export type EvidenceMeasured = z.infer<typeof EvidenceMeasured>;

/** The four verdicts of METHOD 2.13. */
export const Verdict = z.enum(["symmetry", "approximate", "none", "cannot tell"]);
/** The four verdicts. */
export type Verdict = z.infer<typeof Verdict>;

/** How sure a finding is (METHOD 2.13). */
export const Judgement = z.object({
  verdict: Verdict,
  /** The verdict in words, with its bound. */
  words: z.string(),
  /** The size of the moves that were judged. */
  size: Measured,
  /** Skill lost by the worst of the finding's moves, with its interval. */
  lost: z.object({ value: Measured, low: Measured, high: Measured }),
  /** Least skill lost by any other direction, at the same size; null if there is no other. */
  elsewhere: Measured,
  /** The share of the output's spread by which the symmetry is broken lies between these. */
  broken: z.object({ low: Measured, high: Measured }),
});
/** How sure a finding is. */
export type Judgement = z.infer<typeof Judgement>;

/** Above which size a breaking of the symmetry would have been seen (METHOD 2.13). */
export const Limit = z.object({
  /** Length over which the planted breaking changes. */
  length: z.number(),
  /** Of the length: the inputs' spread (standard deviations), or pixels. */
  unit: z.enum(["spread", "pixels"]),
  /** The share of the planted breaking that the predictor shows; null if its moves say nothing. */
  recovered: Measured,
  /** In units of the output's spread; null if none up to the whole spread would have been seen. */
  above: Measured,
});
/** Above which size a breaking would have been seen. */
export type Limit = z.infer<typeof Limit>;

/** The evidence for an algebra. */
export const AlgebraEvidence = Judgement.extend({
  skill: Measured,
  skillError: Measured,
  scenes: z.int(),
  heldOut: z.boolean(),
  targets: z.boolean(),
  /** How many generators after the symmetries are approximate symmetries. */
  approximate: z.int(),
  /** How many generators after these may be symmetries: nothing else loses as little skill. */
  plausible: z.int(),
  /** The first generators alone, if they are a symmetry of larger moves than all of them are. */
  lasting: z.object({ generators: z.int(), size: z.number() }).optional(),
  /** The directions that were judged: the generators in their order, then others. */
  directions: z.array(z.object({ direction: Square, sizes: z.array(SkillLost) })),
  /** Skill of each refit. */
  refitSkills: z.array(Measured).optional(),
  /** Above which size breakings of several lengths would have been seen. */
  limits: z.array(Limit).optional(),
  /** Largest angles of the span of refits to this one, in degrees. */
  refitAngles: z.array(z.number()).optional(),
  /** The same of fits in other coordinates. */
  coordinateAngles: z.array(z.number()).optional(),
});
/** The evidence for an algebra. */
export type AlgebraEvidence = z.infer<typeof AlgebraEvidence>;

/**
 * A discovered Lie algebra: measurements, and an analysis of the generators that are symmetries.
 */
export const AlgebraResult = AlgebraMeasured.extend({
  /** `‖[B_i, B_j] − proj‖ / ‖[B_i, B_j]‖` over pairs of generators: 0 for a Lie algebra. */
  closure: z.object({ max: z.number(), mean: z.number() }),
  /** Signs of the eigenvalues of the Killing form. */
  killingSignature: z.object({ positive: z.int(), negative: z.int(), zero: z.int() }),
  /** The named algebra that the span is, or is nearest to. */
  identified: z.object({
    name: z.string(),
    /** Cosine of the largest principal angle. */
    cosine: z.number(),
    /** Norm of the principal angles, in radians. */
    grassmannDistance: z.number(),
    /** The largest principal angle, in degrees. */
    angleDegrees: z.number(),
    /** The nearest named algebra of the same dimension. */
    nearest: z.string().optional(),
    /** In a product of groups: the algebras, and what each acts on. */
    parts: z.array(z.object({ name: z.string(), on: z.string(), dimension: z.int() })).optional(),
    /** The point that affine maps keep, for an algebra "about a point". */
    about: z.array(z.number()).optional(),
  }),
  /** A basis of the same span with many zeros. [rank, n, n] */
  readableBasis: Squares,
  /** The symmetric J with BᵀJ + JB = 0 for all generators, if there is one. */
  invariantMetric: z
    .object({
      matrix: Square,
      signature: z.tuple([z.int(), z.int()]),
      residual: z.number(),
      /** Whether J is invariant up to scale only. */
      conformal: z.boolean(),
      /** Cosine of the angle to the metric of the named algebra. */
      cosine: z.number().optional(),
    })
    .optional(),
  /** How sure the symmetries are, measured on held-out data. */
  evidence: AlgebraEvidence.optional(),
  /** @deprecated The former name of `symmetryCount`. */
  found: z.int().optional(),
  /** @deprecated The former name of `explanation`. */
  verdict: z.string().optional(),
});
/** A discovered Lie algebra. */
export type AlgebraResult = z.infer<typeof AlgebraResult>;

/** One connected component of the discovered group. */
export const CosetResult = z.object({
  /** A representative as learnt. [n, n] */
  matrix: Square,
  loss: z.number(),
  determinant: z.number(),
  /** The least m ≤ 12 with matrix^m = I; null if there is none. */
  order: z.int().nullable(),
  /** The least m ≤ 12 with matrix^m in the identity component; null if there is none. */
  orderModuloIdentity: z.int().nullable(),
  /**
   * Whether the component keeps the invariant metric (up to scale, if the algebra scales); null
   * without a metric.
   */
  preservesMetric: z.boolean().nullable(),
  /** The name of the component, not of the one matrix. */
  name: z.string(),
  /** How sure the component is, measured on held-out data. */
  evidence: Judgement.optional(),
});
/** One connected component of the discovered group. */
export type CosetResult = z.infer<typeof CosetResult>;

/** The outcome of a candidate of the coset search. */
export const CosetOutcome = z.enum([
  "kept",
  /** The candidate's error is too large. */
  "not_a_symmetry",
  /** The candidate moves the data to where there are none. */
  "outside_support",
  /** Better components took the places. */
  "beyond_limit",
  /** The candidate is in the component of one that was kept. */
  "duplicate",
]);
/** The outcome of a candidate of the coset search. */
export type CosetOutcome = z.infer<typeof CosetOutcome>;

const Candidate = z.object({
  matrix: z.array(z.array(Measured)),
  loss: Measured,
  outcome: CosetOutcome,
  /** Index into `cosets` of the component that a duplicate repeats. */
  duplicateOf: z.int().optional(),
});

/** What a coset solver measured, as the worker sends it (`GetCosetsResponse`). */
export const CosetsMeasured = z.object({
  /** One representative of each component, [m, n, n]. */
  matrices: Squares,
  losses: z.array(z.number()),
  noiseFloor: z.number(),
  /** Every candidate, ascending by loss. */
  candidates: z.array(Candidate),
  ...FRAME,
});
/** What a coset solver measured. */
export type CosetsMeasured = z.infer<typeof CosetsMeasured>;

/** What a closure measured, as the worker sends it (`GetCosetsResponse` with a closure). */
export const GroupMeasured = z.object({
  /** The matrices, the identity first, [m, n, n]. */
  matrices: Squares,
  losses: z.array(z.number()),
  /** Number of the product of two matrices, [m, m]. */
  table: z.array(z.array(z.int())),
  /** The groups whose product acts; left out for one GL(n). */
  factors: FRAME.factors,
  /** Error of a matrix in the Frobenius norm; 0 if the group has generators. */
  spread: z.number(),
  /** Smallest distance between two matrices; 0 for one matrix. */
  smallestDistance: z.number(),
  /** Candidates left out because a product with them is no symmetry. */
  rejected: z.int(),
  /** Whether the matrices are a group and can be told apart. */
  resolved: z.boolean(),
  explanation: z.string(),
});
/** What a closure measured. */
export type GroupMeasured = z.infer<typeof GroupMeasured>;

/** The group that the components make: all products of the matrices found (METHOD 2.9). */
export const GroupResult = GroupMeasured.omit({
  matrices: true,
  table: true,
  factors: true,
}).extend({
  /** Whether the group has no generator. If it has, its components make the group named here. */
  finite: z.boolean(),
  /**
   * In the plane and in space the name of a point group, up to a change of coordinates: C_7, D_4,
   * T, O_h. For components, and in other dimensions, the abstract name.
   */
  name: z.string(),
  /** The name of the multiplication table alone, such as "C_2 × C_2"; left out if unknown. */
  abstractName: z.string().optional(),
  /** Number of elements, or of components. */
  order: z.int(),
  /** The order of each element; empty if the closure is not resolved. [order] */
  elementOrders: z.array(z.int()),
  /** All elements, or one matrix for each component; the identity first. [order, n, n] */
  elements: Squares,
});
/** The group that the components make. */
export type GroupResult = z.infer<typeof GroupResult>;

/** Every candidate of the coset search, ascending by loss. */
export const CosetSearch = CosetsMeasured.pick({ noiseFloor: true, candidates: true }).extend({
  /** Matrices that are not listed, because the data cannot tell whether they are symmetries. */
  undecided: z.int().optional(),
});
/** Every candidate of the coset search, ascending by loss. */
export type CosetSearch = z.infer<typeof CosetSearch>;

/**
 * Rotations of a whole sphere that an adversary could not tell from the data, one for each seed.
 * They are no evidence of a symmetry by themselves.
 */
export const GlobalRotations = z.object({
  solver: z.string(),
  searches: z.array(
    z.object({
      /** Weight of the term that keeps the rotations away from the identity. */
      cosineWeight: z.number(),
      runs: z.array(
        z.object({
          seed: z.int(),
          /** The generator as learnt. [3, 3] */
          generator: Square,
          /** Standard deviation of the angle, in radians. */
          magnitude: z.number(),
          /** Distance of the generator from its start, as a rotation vector in radians. */
          moved: z.number(),
          /** A unit vector; its sign means nothing. [3] */
          axis: z.tuple([z.number(), z.number(), z.number()]),
          /**
           * How well the discriminator tells rotated samples from unrotated ones: 0 never, 1
           * always.
           */
          toldApart: z.number(),
        }),
      ),
      /** Mean of the magnitudes. */
      meanMagnitude: z.number(),
      /**
       * Mean angle between the axes of two runs, in degrees; null for one run. Random axes give
       * 57.3.
       */
      axisSpread: z.number().nullable(),
    }),
  ),
});
/** Rotations of a whole sphere that an adversary could not tell from the data. */
export type GlobalRotations = z.infer<typeof GlobalRotations>;

/** How far a model is from being equivariant to given matrices. */
export const Equivariance = z.array(
  z.object({
    /** Name of the transformation, for example "rotation by 30°". */
    name: z.string(),
    matrix: Square,
    /** Mean absolute difference of f(gx) and g f(x); for a classifier, of class probabilities. */
    distance: z.number(),
    /**
     * The distance divided by the motion of both sides, from 0 to 1; 0.5 if f(x), f(gx) and g f(x)
     * are unrelated.
     */
    relativeError: z.number(),
    /** The part of the relative error that interpolation alone may cause. */
    interpolation: z.number(),
  }),
);
/** How far a model is from being equivariant to given matrices. */
export type Equivariance = z.infer<typeof Equivariance>;

/** One chart of a map, with its relative equivariance error under the discovered algebra. */
export const MappedChart = z.object({
  /** The chart's centre in pixels. */
  row: z.number(),
  col: z.number(),
  error: z.number(),
  /** 95 % interval of the error, a bootstrap over samples. */
  low: z.number(),
  high: z.number(),
  /** The part of the error that interpolation may cause. */
  interpolation: z.number(),
  /** Share of the window's pixels whose input is the same in all samples. */
  constant: z.number(),
  /**
   * "broken": the error is above the threshold, or stands apart from those of the other charts.
   * "constant": the window has pixels that never vary, so the data cannot show a symmetry there.
   */
  state: z.enum(["holds", "broken", "constant"]),
});
/** One chart of a map. */
export type MappedChart = z.infer<typeof MappedChart>;

/** Where on a field the symmetry holds. Radii are in pixels. */
export const ChartMap = z.object({
  rIn: z.int(),
  /** Radius of the part of a chart that is compared. */
  rOut: z.int(),
  /** How far the output feels the input. */
  reach: z.int(),
  /** Radius of the input on which the compared part depends: `rOut + reach`. */
  window: z.int(),
  charts: z.array(MappedChart),
});
/** Where on a field the symmetry holds. */
export type ChartMap = z.infer<typeof ChartMap>;

/** How well a predictor does on samples that were held out from its training (METHOD 2.1). */
export const HeldOut = z.object({
  /** 1 minus its squared error over that of the best constant; classes: of their probabilities. */
  skill: Measured,
  /** Standard error of the skill. */
  skillError: Measured,
  /** The least loss on the validation samples. */
  validationLoss: Measured,
  /** The epoch with this loss, whose weights are used. */
  bestEpoch: z.int(),
});
/** How well a predictor does on samples that were held out from its training. */
export type HeldOut = z.infer<typeof HeldOut>;

/** One answer of a benchmark, beside the known one. */
export const BenchmarkRow = z.object({
  problem: z.string(),
  /** Whether it is a twin that lacks a symmetry of the problem before. */
  twin: z.boolean(),
  expected: z.string(),
  found: z.string(),
  /** Grassmann distance of the generators from the known ones, in radians. */
  distance: z.number(),
  right: z.boolean(),
  seconds: z.number(),
});
/** One answer of a benchmark, beside the known one. */
export type BenchmarkRow = z.infer<typeof BenchmarkRow>;

/** A number and its 95 % interval; the ends are null where one run gives none. */
const Between = z.object({ value: Measured, low: Measured, high: Measured });

/** One network of a comparison, trained with one number of samples. */
export const ComparedArm = z.object({
  arm: z.enum(["none", "augmented", "found", "exact", "wrong"]),
  /** Trained weights. */
  parameters: z.int(),
  /** Mean time of a training, in seconds. */
  seconds: z.number(),
  /** Skill on held-out samples, for each repeat: 1 is perfect, 0 a constant. */
  skills: z.array(z.number()),
  /** Their mean. */
  skill: Between,
  /**
   * What the network leaves unexplained, over what the network without a symmetry leaves: the
   * geometric mean over repeats. Below 1 is better.
   */
  ratio: Between,
});

/** Networks with and without a symmetry, on the same samples (METHOD 5.6). */
export const Comparison = z.object({
  repeats: z.int(),
  /** What each network commutes with. */
  arms: z.array(z.object({ arm: z.string(), architecture: z.string(), symmetry: z.string() })),
  sizes: z.array(
    z.object({
      samples: z.int(),
      /** What the networks were tested with, if there are several tests. */
      test: z.string().optional(),
      arms: z.array(ComparedArm),
      /** What the network with the found symmetry leaves, over that with the exact one. */
      foundOverExact: Between.optional(),
      /** What follows, in words. */
      words: z.array(z.string()),
    }),
  ),
});
/** Networks with and without a symmetry, on the same samples. */
export type Comparison = z.infer<typeof Comparison>;
/** One layer of an audited network (METHOD 4.8). Errors are relative to the layer's own spread. */
export const AuditedLayer = z.object({
  name: z.string(),
  /** Class of the layer. */
  kind: z.string(),
  /** Shape of its output for one row of a batch. */
  shape: z.array(z.int()),
  /** How it moves: a type of features, or that only a fitted map explains. */
  movedAs: z.string(),
  /** `‖h(gx) − ρ(g) h(x)‖` for each element; empty if the layer was not compared. */
  errors: z.array(Measured),
  /** What interpolation and rounding may cause of each. */
  floors: z.array(Measured),
  /** The output's error at the judged element if the layer's output were ρ(g) h(x). */
  repaired: Measured,
  /** The part of the output's error that this removes, beside repairs of earlier layers. */
  added: Measured,
  /** Whether this is the first layer that breaks the equivariance. */
  breaks: z.boolean(),
});
/** One layer of an audited network. */
export type AuditedLayer = z.infer<typeof AuditedLayer>;

/** What the worker measures in an audit (`AuditPredictorResponse`). */
export const AuditMeasured = z.object({
  sizes: z.array(Measured),
  errors: z.array(Measured),
  floors: z.array(Measured),
  judged: z.int(),
  broken: z.boolean(),
  layers: z.array(AuditedLayer),
  worst: z.array(z.object({ sample: z.int(), error: Measured })),
  unread: z.array(z.string()).default([]),
});
/** What the worker measures in an audit. */
export type AuditMeasured = z.infer<typeof AuditMeasured>;

/** How far a network is from a symmetry, layer by layer (METHOD 4.8). */
export const Audit = z.object({
  /** The symmetry: a name, a run, a file, or "discovered". */
  symmetry: z.string(),
  /** Elements of the group at which the network was compared. */
  elements: z.array(
    z.object({
      name: z.string(),
      matrix: Square,
      /** The share of the inputs' own spread that it moves. */
      size: Measured,
      /** `‖f(gx) − g f(x)‖`, relative to the outputs' spread. */
      error: Measured,
      /** What interpolation and rounding may cause of it. */
      floor: Measured,
    }),
  ),
  /** Number of the element at which the layers were judged. */
  judged: z.int(),
  /** Whether the error exceeds its floor at any element. */
  broken: z.boolean(),
  /** The first layer that breaks the symmetry; null if none does. */
  layer: z.string().nullable(),
  /** In the order in which they end; the network's own output last. */
  layers: z.array(AuditedLayer),
  /** Samples with the largest errors at the judged element, the worst first. */
  worst: z.array(z.object({ sample: z.int(), error: Measured })),
  /** The same network before its training. */
  before: z
    .object({
      errors: z.array(Measured),
      broken: z.boolean(),
      layer: z.string().nullable(),
      layers: z.array(AuditedLayer),
    })
    .optional(),
});
/** How far a network is from a symmetry, layer by layer. */
export type Audit = z.infer<typeof Audit>;

const Document = z.object({
  schema: z.literal(RESULT_SCHEMA),
  experiment: z.string(),
  task: z.string(),
  seed: z.int(),
  algebra: AlgebraResult.optional(),
  /** The charts on which the algebra was measured, each by itself. */
  chartMap: ChartMap.optional(),
  cosets: z.array(CosetResult).optional(),
  cosetSearch: CosetSearch.optional(),
  group: GroupResult.optional(),
  benchmark: z.array(BenchmarkRow).optional(),
  globalRotations: GlobalRotations.optional(),
  comparison: Comparison.optional(),
  downstream: z
    .object({
      metrics: z.record(z.string(), Measured),
      /** The gauge group that the network's kernels respect, for example "SO(2)". */
      gauge: z.string().optional(),
    })
    .optional(),
  /** How far the predictor is from a symmetry, layer by layer. */
  audit: Audit.optional(),
  /** Errors of the predictor or the network under given transformations. */
  equivariance: Equivariance.optional(),
  predictor: z.object({
    /** Loss of the last epoch; null for a predictor that was not trained in this run. */
    loss: z.number().nullable(),
    epochs: z.int(),
    /** "trained", a file, a run, or the function. */
    source: z.string(),
    /** The stage that fitted it, if it is not "predictor". */
    stage: z.string().optional(),
    /** Scores on data that it was not trained with; "<name>_error" is a standard uncertainty. */
    scores: z.record(z.string(), Measured).optional(),
    /** How well it predicts samples that were held out from its training. */
    heldOut: HeldOut.optional(),
  }),
  /** What a reader should know, for example what limits the result, in sentences. */
  notes: z.array(z.string()).optional(),
  /** Whether the known answer was found, for experiments that have one. */
  asExpected: z.boolean().optional(),
  /** The datasets, in the order in which they were made. */
  data: z
    .array(
      z.object({
        kind: z.string(),
        /** Number of samples. */
        samples: z.int(),
        /** Of the shapes, and 100 samples at equal distances, as float32. */
        sha256: z.string(),
      }),
    )
    .optional(),
  /** Seconds spent in each stage. */
  timings: z.record(z.string(), z.number()),
  environment: z.object({
    device: z.string(),
    threads: z.int(),
    /** Processes that shared each supervised training, if there were several. */
    ranks: z.int().optional(),
    /** Processor, with the instructions that PyTorch uses of it. */
    processor: z.string().optional(),
    /** Cores that the worker may use. */
    cores: z.int().optional(),
    /** Libraries of linear algebra, with versions. */
    blas: z.string().optional(),
    /** All devices of the worker, with what they are. */
    devices: z.array(z.object({ name: z.string(), description: z.string() })).optional(),
    versions: z.record(z.string(), z.string()),
  }),
});
/** A result document of this version or of version 0.1, with the present names. */
export const Result = z.preprocess(upgrade, Document);
/** A result document. */
export type Result = z.infer<typeof Document>;

/** What an experiment returns. The runner adds the rest of the result. */
export type Findings = Omit<
  Result,
  "schema" | "experiment" | "seed" | "data" | "timings" | "environment"
>;

/**
 * Add the names of version 0.1 beside the present ones, which result.json keeps for one minor
 * version.
 */
export function withFormerNames(result: Result): Result {
  if (result.algebra === undefined) return result;
  const { symmetryCount: found, explanation: verdict } = result.algebra;
  return { ...result, algebra: { ...result.algebra, found, verdict } };
}

const FORMER_OUTCOMES: Readonly<Record<string, CosetOutcome>> = {
  loss: "not_a_symmetry",
  unseen: "outside_support",
  rank: "beyond_limit",
};

/** Give a document of version 0.1 the present names; leave any other as it is. */
function upgrade(value: unknown): unknown {
  if (
    typeof value !== "object" ||
    value === null ||
    !("schema" in value) ||
    value.schema !== FORMER_SCHEMA
  )
    return value;
  const former = value as unknown as FormerResult;
  return {
    ...former,
    schema: RESULT_SCHEMA,
    algebra: former.algebra && {
      ...former.algebra,
      symmetryCount: former.algebra.found,
      explanation: former.algebra.verdict,
    },
    cosetSearch: former.cosetSearch && {
      ...former.cosetSearch,
      candidates: former.cosetSearch.candidates?.map(({ verdict = "", ...candidate }) => ({
        ...candidate,
        outcome: FORMER_OUTCOMES[verdict] ?? verdict,
      })),
    },
  };
}

interface FormerResult {
  algebra?: { found?: number; verdict?: string };
  cosetSearch?: { candidates?: { verdict?: string }[] };
}
