/** Functions of peers' papers whose groups are known, and how an answer is graded (METHOD 3.5). */
import { grassmannDistance, type SquareMatrix } from "../algebra/index.js";
import type { Block } from "../blocks.js";
import type { Context } from "../experiment/context.js";
import type { BenchmarkRow, Findings } from "../result.js";
import { discoverAlgebra, symmetries } from "./algebra.js";
import { discoverCosets } from "./components.js";

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

const norm = (n: number) =>
  `sqrt(${Array.from({ length: n }, (_, i) => `x${i + 1}**2`).join(" + ")})`;
const boosts = [1, 2, 3].map((i) => unit(4, [[0, i, 1], [i, 0, 1]])); // biome-ignore format: pairs
const spins = rotations(4).filter((m) => m[0]!.every((x) => x === 0));

/** Known functions of the oracles of Forestano et al., each with a twin that lacks a symmetry. */
const ORACLES: readonly KnownFunction[] = [
  ...[2, 3, 4, 5, 6].map((n) => ({
    name: `|x| in R^${n}`,
    expression: norm(n),
    n,
    algebra: rotations(n),
    group: "C_2",
  })),
  { name: "|x| + 0.3 x1 in R^3", expression: `${norm(3)} + 0.3*x1`, n: 3, algebra: [unit(3, [[1, 2, 1], [2, 1, -1]])], group: "C_2", twin: true }, // biome-ignore format: a row
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

/** The benchmarks by name. */
export const BENCHMARKS = {
  oracle: (_: number) => [...ORACLES],
  ck: (k: number) => regressions(k),
} as const;

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

function grade(
  known: KnownFunction,
  algebra: NonNullable<Findings["algebra"]>,
  group: NonNullable<Findings["group"]>,
  seconds: number,
): BenchmarkRow {
  const generators = symmetries(algebra);
  const same = generators.length === known.algebra.length;
  const distance =
    same && generators.length > 0 ? grassmannDistance(generators, [...known.algebra]) : 0;
  return {
    problem: known.name,
    twin: known.twin ?? false,
    expected: `${known.algebra.length} generators, ${known.group}`,
    found: `${generators.length} generators, ${group.name}`,
    distance,
    right: same && distance < NEAR && group.name === known.group,
    seconds: Math.round(seconds * 10) / 10,
  };
}
