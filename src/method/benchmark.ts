/** Problems of peers' papers whose groups are known, and how an answer is graded (METHOD 3.7). */
import { grassmannDistance, type SquareMatrix } from "../algebra/index.js";
import { identityMatrix, multiply, norm, subtract } from "../algebra/linalg.js";
import type { Block } from "../blocks.js";
import { completeConfig } from "../experiment/config.js";
import type { Context } from "../experiment/context.js";
import { defineExperiment } from "../experiment/define.js";
import type { BenchmarkRow, Findings } from "../result.js";
import type { AtlasOptions } from "../worker/index.js";
import { discoverAlgebra, nearSymmetries, symmetries } from "./algebra.js";
import { discoverCosets } from "./components.js";
import { type DistributionConfig, discoverSamples } from "./distribution.js";
import { ON_SETS, type OwnSetting, ownFit } from "./own.js";
import { ownTasks } from "./own-tasks.js";
import { makePredictor } from "./predictor.js";

/** A function with its group. */
export interface KnownFunction {
  name: string;
  /** Expression in x1, x2, … xn. */
  expression: string;
  n: number;
  /** Basis of the Lie algebra. */
  algebra: readonly SquareMatrix[];
  /** Name of the finite group, or of the group of the components. */
  group: string;
  /** Whether it is a twin that lacks what the function before has. */
  twin?: boolean;
}

/** Largest Grassmann distance from the known algebra, in radians. */
const NEAR = 0.05;
const SAMPLES = 8192;
const SAMPLING = { batch_size: 64, charts: 1, evaluation: 256, threshold: 0.05 } as const;

function unit(n: number, entries: readonly (readonly [number, number, number])[]): SquareMatrix {
  const matrix = Array.from({ length: n }, () => Array<number>(n).fill(0));
  for (const [i, j, value] of entries) matrix[i]![j] = value;
  return matrix;
}

/** Make the rotations of the first `m` of n coordinates. */
function rotations(n: number, m = n): SquareMatrix[] {
  const pairs = Array.from({ length: m }, (_, i) => Array.from({ length: i }, (_, j) => [i, j]));
  return pairs.flat().map(([i, j]) => unit(n, [[i!, j!, 1], [j!, i!, -1]])); // biome-ignore format: pairs
}

const length = (n: number) =>
  `sqrt(${Array.from({ length: n }, (_, i) => `x${i + 1}**2`).join(" + ")})`;
const boosts = [1, 2, 3].map((i) => unit(4, [[0, i, 1], [i, 0, 1]])); // biome-ignore format: pairs
const spins = rotations(4).filter((m) => m[0]!.every((x) => x === 0));

/** Known functions of the oracles of Forestano et al., each with a twin that lacks a symmetry. */
const ORACLES: readonly KnownFunction[] = [
  ...[2, 3, 4, 5, 6].map((n) => ({
    name: `|x| in R^${n}`,
    expression: length(n),
    n,
    algebra: rotations(n),
    group: "C_2",
  })),
  { name: "|x| + 0.3 x1 in R^3", expression: `${length(3)} + 0.3*x1`, n: 3, algebra: [unit(3, [[1, 2, 1], [2, 1, -1]])], group: "C_2", twin: true }, // biome-ignore format: a row
  { name: "Minkowski", expression: "x1**2 - x2**2 - x3**2 - x4**2", n: 4, algebra: [...boosts, ...spins], group: "C_2 × C_2" }, // biome-ignore format: a row
  { name: "squeeze x1 x2", expression: "x1*x2", n: 2, algebra: [unit(2, [[0, 0, 1], [1, 1, -1]])], group: "C_2 × C_2" }, // biome-ignore format: a row
  { name: "|x1| + |x2|", expression: "abs(x1) + abs(x2)", n: 2, algebra: [], group: "D_4" },
  { name: "|x1| + |x2| + 0.3 x1", expression: "abs(x1) + abs(x2) + 0.3*x1", n: 2, algebra: [], group: "D_1", twin: true }, // biome-ignore format: a row
  { name: "none", expression: "exp(0.7*x1) - 0.8*x1*x2 + sin(2*x2 + 1)", n: 2, algebra: [], group: "C_1", twin: true }, // biome-ignore format: a row
];

/** Make the C_k regression of LieGAN without its dilation, and its twins. */
function regressions(k: number): KnownFunction[] {
  const wedge = `(1 + (atan2(x2, x1) % ${(2 * Math.PI) / k}))`;
  const radius = "(1 + x1**2 + x2**2)";
  const common = { n: 3, algebra: [] };
  return [
    { ...common, name: `C_${k}`, expression: `x3 / (${wedge} * ${radius})`, group: `C_${k}` },
    { ...common, name: `O(2) in place of C_${k}`, expression: `x3 / ${radius}`, algebra: rotations(3, 2), group: "C_2", twin: true }, // biome-ignore format: a row
    { ...common, name: `nothing in place of C_${k}`, expression: `x3 / (${wedge} * (1 + (x1 - 0.7)**2 + 2*x2**2))`, group: "C_1", twin: true }, // biome-ignore format: a row
  ];
}

/** A dataset with its group: a predictor is fitted to it. */
interface KnownData {
  name: string;
  dataset: Parameters<Context["dataset"]>[0];
  atlas: AtlasOptions;
  algebra: readonly SquareMatrix[];
  /** Largest Grassmann distance from it, in radians. */
  near?: number;
  /** Name of the group of the components; undefined where the data do not decide it. */
  group?: string;
  /** Number of directions about which the data decide nothing. */
  free?: number;
  twin?: boolean;
}

const turn = rotations(2);

/** Two bodies of LieGAN, in the plane and in R^8, and its twins. */
function bodies(): KnownData[] {
  const data = (twin: "none" | "elliptic" | "squeezed", orbits = 814) =>
    ({ kind: "two_bodies", params: { twin, orbits } }) as const;
  const plane = { inputs_as: "4V", targets_as: "4V", n: 2 };
  const atlas = { kind: "vectors", params: plane } as const;
  const whole = { kind: "vectors", params: { n: 8, targets_as: "V" } } as const;
  return [
    { name: "two bodies", dataset: data("none"), atlas, algebra: turn, near: Math.PI / 180 },
    { name: "two bodies in gl(8)", dataset: data("none"), atlas: whole, algebra: [], free: 32 },
    { name: "two bodies, ellipses", dataset: data("elliptic"), atlas, algebra: turn },
    { name: "two bodies, squeezed", dataset: data("squeezed"), atlas, algebra: [], group: "C_2", twin: true }, // biome-ignore format: a row
  ];
}

/** The O(5) regression of LieGG, and its twin. */
function regressionsOfO5(): KnownData[] {
  const atlas = { kind: "vectors", params: { n: 5 } } as const;
  const data = (broken: number) => ({ kind: "o5", params: { broken } }) as const;
  return [
    { name: "O(5)", dataset: data(0), atlas, algebra: rotations(5), group: "C_2" },
    { name: "O(5), broken", dataset: data(1), atlas, algebra: [], group: "C_1", twin: true },
  ];
}

/** Unlabelled orbits of one object under a finite group. */
interface KnownOrbits {
  name: string;
  group: "C_4" | "T" | "O" | "I";
  twin?: "generic" | "continuous";
  /** Largest mean angle of the elements from those of the group, in radians: a fifth of guessing. */
  near: number;
}

const ORBITS: readonly KnownOrbits[] = [
  { name: "orbits of C_4", group: "C_4", near: 0.548 / 5 },
  { name: "orbits of T", group: "T", near: 0.898 / 5 },
  { name: "orbits of O", group: "O", near: 0.711 / 5 },
  { name: "orbits of I", group: "I", near: 0.515 / 5 },
  { name: "all turns of the plane", group: "C_4", twin: "continuous", near: 0 },
  { name: "four turns that are no group", group: "C_4", twin: "generic", near: 0 },
  { name: "twelve turns that are no group", group: "T", twin: "generic", near: 0 },
];

/** What judges a problem: it runs it, and compares with the truth. */
export type Grade = (ctx: Context) => Promise<BenchmarkRow>;
const functions = (all: readonly KnownFunction[]): Grade[] =>
  all.map((known) => (ctx) => gradeFunction(ctx, known));
const fitted = (all: readonly KnownData[]): Grade[] =>
  all.map((known) => (ctx) => gradeData(ctx, known));

/** The problems of each benchmark, by its name. @param k order of the group of `ck` */
export const BENCHMARKS = {
  oracle: (_: number) => functions(ORACLES),
  ck: (k: number) => functions(regressions(k)),
  "two-body": (_: number) => fitted(bodies()),
  o5: (_: number) => fitted(regressionsOfO5()),
  lieflow: (_: number): Grade[] => ORBITS.map((known) => (ctx) => gradeOrbits(ctx, known)),
} as const;

/** Fit a predictor to known data, find its group, and grade the answer. */
async function gradeData(ctx: Context, known: KnownData): Promise<BenchmarkRow> {
  const start = performance.now();
  const dataset = await ctx.dataset(known.dataset);
  const atlas = await ctx.atlas(known.atlas);
  const { inputs: shape } = dataset.shapes!;
  const fit = ownFit({}, shape, known.atlas as OwnSetting["charts"], "l1", ctx.seedFor("split"));
  const options = { ...fit, dataset, atlas };
  const { predictor } = await makePredictor(ctx, options, { source: false });
  const inputs = { predictor, dataset, atlas };
  const search = (prefix: string) =>
    Object.fromEntries(
      Object.entries(ON_SETS).flatMap(([name, value]) =>
        name.startsWith(prefix) ? [[name.slice(prefix.length), value] as const] : [],
      ),
    );
  const algebra = await discoverAlgebra(ctx, inputs, {
    solver: { kind: "grassmann", params: search("solver.") } as Block<"algebra_solver">,
    k: "auto",
    epochs: 1,
  });
  const found = known.group
    ? await discoverCosets(ctx, inputs, {
        params: search("coset_solver."),
        identity: nearSymmetries(algebra),
        epochs: 1,
      })
    : undefined;
  const { skill = 0 } = ctx.metrics("predictor");
  const free = algebra.freeDirections ?? 0;
  const row = grade(known, algebra, found?.group, (performance.now() - start) / 1000);
  if (known.free === undefined) return { ...row, found: `${row.found}, skill ${skill.toFixed(3)}` };
  const counted = (count: number) => `${count} directions left free`;
  const right = free === known.free;
  return { ...row, expected: counted(known.free), found: counted(free), right, distance: 0 };
}

/** Find the group of unlabelled orbits, and grade the answer. */
async function gradeOrbits(ctx: Context, known: KnownOrbits): Promise<BenchmarkRow> {
  const start = performance.now();
  const { group: name, twin } = known;
  const dataset = await ctx.dataset({ kind: "orbits", params: { group: name, twin } });
  const experiment = defineExperiment({ name: "discover", summary: "", tasks: ownTasks });
  const { config } = completeConfig(experiment, { task: "discover", inputs: "orbits" });
  const c = config as unknown as DistributionConfig;
  const { algebra, group } = await discoverSamples(ctx, c, "discover", dataset);
  const generators = algebra ? symmetries(algebra) : [];
  const wanted = twin === "continuous" ? turn : [];
  const same = generators.length === wanted.length;
  const called = twin === undefined ? name : twin === "generic" ? "C_1" : undefined;
  const distance =
    twin === undefined
      ? fromGroup(group?.elements ?? [], name)
      : same && wanted.length > 0
        ? grassmannDistance(generators, wanted)
        : 0;
  const near = twin === undefined ? known.near : NEAR;
  const named = called === undefined || group?.name === called;
  return {
    problem: known.name,
    twin: twin !== undefined,
    expected: described(wanted.length, called),
    found: described(generators.length, group?.name),
    distance,
    right: same && named && distance <= near,
    seconds: Math.round(performance.now() - start) / 1000,
  };
}

/** The mean angle of matrices from the nearest elements of a group of turns, in radians. */
function fromGroup(elements: readonly SquareMatrix[], name: KnownOrbits["group"]): number {
  const known = turnsOf(name);
  const angles = elements.map((g) =>
    Math.min(...known.map((h) => norm(subtract(g, h)) / Math.SQRT2)),
  );
  return angles.reduce((a, b) => a + b, 0) / Math.max(1, angles.length);
}

/** The elements of a group of turns. */
function turnsOf(name: KnownOrbits["group"]): SquareMatrix[] {
  const generators = TURNS[name];
  const found: SquareMatrix[] = [identityMatrix(generators[0]!.length)];
  for (let i = 0; i < found.length; i++)
    for (const generator of generators) {
      const next = multiply(found[i]!, generator);
      if (found.every((g) => norm(subtract(g, next)) > 1e-6)) found.push(next);
    }
  return found;
}

const GOLDEN = (1 + Math.sqrt(5)) / 2;
const CYCLE = [[0, 0, 1], [1, 0, 0], [0, 1, 0]]; // biome-ignore format: a matrix
const HALF_TURN = [[1, 0, 0], [0, -1, 0], [0, 0, -1]]; // biome-ignore format: a matrix
const TURNS = {
  C_4: [[[0, -1], [1, 0]]], // biome-ignore format: a matrix
  T: [CYCLE, HALF_TURN],
  O: [CYCLE, [[0, -1, 0], [1, 0, 0], [0, 0, 1]]], // biome-ignore format: a matrix
  I: [
    CYCLE,
    HALF_TURN,
    [
      [0.5, -GOLDEN / 2, 0.5 / GOLDEN],
      [GOLDEN / 2, 0.5 / GOLDEN, -0.5],
      [0.5 / GOLDEN, 0.5, GOLDEN / 2],
    ],
  ],
} as const satisfies Record<string, readonly SquareMatrix[]>;

/** Find the group of a known function, and grade the answer. */
export async function gradeFunction(ctx: Context, known: KnownFunction): Promise<BenchmarkRow> {
  const start = performance.now();
  const { expression, n } = known;
  const points = { samples: SAMPLES, n };
  const dataset = await ctx.dataset({ kind: "gaussian_points", params: points });
  const atlas = await ctx.atlas({ kind: "vectors", params: { n } });
  const architecture = { kind: "expression", params: { expression } } as const;
  const fit = { architecture, training: { kind: "supervised" } as const, epochs: 0 };
  const predictor = await ctx.predictor({ ...fit, dataset, atlas });
  const inputs = { predictor, dataset, atlas };
  const { threshold: _, ...sampling } = SAMPLING;
  const params = { ...sampling, start: "spectral", steps: 0 } as const;
  const algebra = await discoverAlgebra(ctx, inputs, {
    solver: { kind: "grassmann", params } as Block<"algebra_solver">,
    k: "auto",
    epochs: 1,
  });
  const found = await discoverCosets(ctx, inputs, {
    params: { ...SAMPLING, candidates: 64, max_components: 24 },
    identity: symmetries(algebra),
    epochs: 3,
  });
  return grade(known, algebra, found.group, (performance.now() - start) / 1000);
}

function described(generators: number, group: string | undefined): string {
  return `${generators} generators${group === undefined ? "" : `, ${group}`}`;
}

function grade(
  known: Pick<KnownData, "name" | "algebra" | "twin" | "group" | "near">,
  algebra: NonNullable<Findings["algebra"]>,
  group: Findings["group"],
  seconds: number,
): BenchmarkRow {
  const generators = symmetries(algebra);
  const same = generators.length === known.algebra.length;
  const distance =
    same && generators.length > 0 ? grassmannDistance(generators, [...known.algebra]) : 0;
  return {
    problem: known.name,
    twin: known.twin ?? false,
    expected: described(known.algebra.length, known.group),
    found: described(generators.length, group?.name),
    distance,
    right: same && distance < (known.near ?? NEAR) && group?.name === known.group,
    seconds: Math.round(seconds * 10) / 10,
  };
}
