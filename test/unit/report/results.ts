/** Results as experiments would have them, for testing what is said of them. */
import { analyseAlgebra, analyseCosets, axisSpread, turnOf } from "../../../src/algebra/index.js";
import { type Findings, type GlobalRotations, RESULT_SCHEMA, Result } from "../../../src/result.js";
import { CONFIG_SCHEMA, type RunConfig } from "../../../src/run/folder.js";
import { diagonal, measured, mixed, named, noisy } from "../algebra/helpers.js";

export const CONFIG: RunConfig = {
  schema: CONFIG_SCHEMA,
  id: "20260101-120000-pde-1a2b",
  created: "2026-01-01T12:00:00.000Z",
  experiment: "pde",
  preset: "fast",
  seed: 3,
  config: { task: "discover", N: 1000 },
  worker: { address: "local", device: "auto" },
  versions: { atlas: "0.1.0" },
};

export const result = (findings: Partial<Findings> = {}): Result =>
  Result.parse({
    schema: RESULT_SCHEMA,
    experiment: "pde",
    task: "discover",
    seed: 3,
    predictor: { loss: 0.09, epochs: 5, source: "trained" },
    timings: { predictor: 12.5, algebra: 4 },
    environment: { device: "cpu", threads: 2, versions: { atlas: "0.1.0" } },
    ...findings,
  });

const rotation = [
  [-0.02, -1],
  [1, 0.02],
];
const entry = (loss: number) => ({ direction: diagonal(1, 0), loss, relativeError: 0.5 });

/** Rotations and a reflection in the plane. */
export const planar = () =>
  result({
    algebra: analyseAlgebra(
      measured([rotation], {
        losses: [0.0312],
        noiseFloor: 0.03,
        spectrum: [0.0312, 0.2, 0.3, 0.31].map(entry),
      }),
    ),
    cosets: analyseCosets({ matrices: [diagonal(1, 1), diagonal(1, -1)], losses: [0.03, 0.031] }, [
      rotation,
    ]),
    cosetSearch: {
      noiseFloor: 0.03,
      candidates: [
        { matrix: diagonal(1, 1), loss: 0.03, outcome: "kept" },
        { matrix: diagonal(1, -1), loss: 0.031, outcome: "kept" },
        { matrix: rotation, loss: 0.032, outcome: "duplicate", duplicateOf: 0 },
        { matrix: diagonal(2, 0.5), loss: 0.4, outcome: "not_a_symmetry" },
        { matrix: [[Number.NaN]], loss: Number.POSITIVE_INFINITY, outcome: "not_a_symmetry" },
      ],
    },
  });

/** The same with evidence: of the rotation, and that it cannot tell of the reflection. */
export const judged = () => {
  const { algebra, cosets, ...rest } = planar();
  const judgement = {
    verdict: "symmetry" as const,
    words: "so(2): not broken by more than 13 % of the output's spread",
    size: 0.05,
    lost: { value: 0.013, low: 0.011, high: 0.017 },
    elsewhere: 0.293,
    broken: { low: 0, high: 0.13 },
  };
  const told = { skill: 0.92, skillError: 0.01, scenes: 160, heldOut: true, targets: true };
  const evidence = { ...judgement, ...told, approximate: 0, plausible: 0, directions: [] };
  const unsure = { ...judgement, verdict: "cannot tell" as const };
  return Result.parse({
    ...rest,
    algebra: { ...algebra, evidence },
    cosets: cosets!.map((c) => ({ ...c, evidence: c.name === "identity" ? judgement : unsure })),
  });
};

/** The Lorentz group with scaling, noisy. */
export const lorentz = () => {
  const generators = noisy(mixed(named("so(1,3)⊕R", 4), 2), 0.01, 5);
  return result({
    algebra: analyseAlgebra(measured(generators)),
    cosets: analyseCosets(
      { matrices: [diagonal(1, 1, 1, 1), diagonal(1, -1, -1, -1)], losses: [0.1, 0.1] },
      generators,
    ),
    downstream: { metrics: { accuracy: 0.94123, auc: 0.98651, undefined_here: Number.NaN } },
    notes: ["The predictor limits the angle."],
  });
};

export const nothing = () =>
  result({
    algebra: analyseAlgebra(
      measured([rotation], {
        symmetryCount: 0,
        explanation: "the best is far above the noise floor",
      }),
    ),
  });

/** Where searches for a rotation of the whole sphere ended, by cosine weight. */
const search = (cosineWeight: number, turns: number[][]): GlobalRotations["searches"][number] => {
  const runs = turns.map(([x, y, z], i) => {
    const generator = [[0, -z!, y!], [z!, 0, -x!], [-y!, x!, 0]]; // biome-ignore format: a matrix
    return { seed: i + 1, generator, ...turnOf(generator), moved: 0.25, toldApart: 0.1 * i };
  });
  const meanMagnitude = runs.reduce((sum, { magnitude }) => sum + magnitude, 0) / runs.length;
  return {
    cosineWeight,
    runs,
    meanMagnitude,
    axisSpread: axisSpread(runs.map(({ axis }) => axis)),
  };
};

/**
 * Rotations of a sphere that five seeds do not agree on, near the identity or not; and one seed's,
 * of which there is no spread.
 */
export const rotations = () =>
  result({
    task: "global_baseline",
    predictor: { loss: null, epochs: 0, source: "none" },
    globalRotations: {
      solver: "liegan",
      searches: [
        search(0, [
          [0.002, 0.0001, 0],
          [0, -0.0003, 0.04],
          [0.01, 0.01, -0.01],
          [0, 0, 0],
          [-0.03, 0.02, 0.0001],
        ]),
        search(1, [
          [0, 0, -1.5],
          [0.7, -0.7, 0.001],
          [-0.001, 0.9, -0.4],
          [0.5, 0.5, 0.5],
          [3, 0, 0],
        ]),
        search(0.5, [[0.6, 0, 0.8]]),
      ],
    },
  });

/** A network whose output turns with its input, but not with a shear. */
export const equivariant = () =>
  result({
    task: "downstream_gcnn",
    downstream: { metrics: { accuracy: 0.97, parameters: 1234567 } },
    equivariance: [
      {
        name: "rotation by 90°",
        matrix: rotation,
        distance: 0,
        relativeError: 0,
        interpolation: 0,
      },
      {
        name: "shear & <stretch>",
        matrix: diagonal(2, 0.5),
        distance: 0.0123,
        relativeError: 0.5432,
        interpolation: 0.1234,
      },
    ],
  });
