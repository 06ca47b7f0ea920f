/** What the libraries emlp, e3nn and escnn need of a symmetry, and which symmetries they know. */
import { determinant } from "ml-matrix";
import {
  exactAlgebra,
  invariantMetric,
  multiplicationTable,
  type SquareMatrix,
} from "../algebra/index.js";
import {
  combine,
  identityMatrix,
  invert,
  multiply,
  norm,
  subtract,
  symmetricEigen,
  transpose,
} from "../algebra/linalg.js";
import { UsageError } from "../errors.js";
import type { Result } from "../result.js";

/** Libraries of equivariant networks. */
export const LIBRARIES = ["escnn", "e3nn", "emlp"] as const;
/** A library of equivariant networks. */
export type Library = (typeof LIBRARIES)[number];

/** The part of an exported symmetry that decides whether a library knows it. */
interface Learnt {
  n: number;
  generators: readonly SquareMatrix[];
  components: readonly { matrix: SquareMatrix }[];
  accuracy: number;
}

/** Python assignments for a library's file, and what the user should know. */
interface Fitted {
  data: Record<string, unknown>;
  notes: string[];
}

const KNOWS: Record<Library, string> = {
  escnn: "escnn knows so(2), O(2), C_k and D_k of the plane",
  e3nn: "e3nn knows so(3) and O(3) on vectors of space",
  emlp: "emlp knows linear groups",
};
const TYPE = /^\s*\d*[SPVCTF]\s*(\+\s*\d*[SPVCTF]\s*)*$/;

/**
 * Fit a symmetry to a library.
 *
 * @param id the run's id, for messages
 * @throws UsageError if the library does not know the group
 */
export function fitLibrary(
  id: string,
  library: Library,
  learnt: Learnt,
  result: Result,
  types: { inputs_as?: unknown; targets_as?: unknown },
): Fitted {
  const factors = result.algebra?.factors;
  const refuse = (why: string, remedy = "export it as json or torch") =>
    new UsageError(`${KNOWS[library]}; in run ${id} ${why}`, remedy);
  if (factors !== undefined && factors.length > 1)
    throw refuse("several groups act", "export it as json");
  if (factors?.[0]?.affine) throw refuse("the group translates points", "export it as json");
  const fit = { emlp: fitEmlp, e3nn: fitE3nn, escnn: fitEscnn }[library];
  const { data, notes } = fit(learnt, result, refuse);
  const named = {
    INPUTS_AS: typeOf(types.inputs_as, "V"),
    TARGETS_AS: typeOf(types.targets_as, "S"),
  };
  if (named.INPUTS_AS !== types.inputs_as || named.TARGETS_AS !== types.targets_as)
    notes.push(
      "the run names no types of features, or others than this format's: check INPUTS_AS " +
        `(${named.INPUTS_AS}) and TARGETS_AS (${named.TARGETS_AS}) in symmetry.py`,
    );
  return { data: { ...data, ...named }, notes };
}

function typeOf(given: unknown, otherwise: string): string {
  return typeof given === "string" && TYPE.test(given) ? given : otherwise;
}

type Refuse = (why: string, remedy?: string) => UsageError;

/** Find the nearest matrices that make a group to rounding. */
function fitEmlp({ n, generators, components, accuracy }: Learnt): Fitted {
  const exact = generators.length === 0 ? { basis: [] } : exactAlgebra(generators);
  const algebra = exact?.basis ?? [...generators];
  const learnt = components.map(({ matrix }) => matrix);
  const discrete =
    learnt.length === 0
      ? []
      : exact === undefined
        ? undefined
        : generators.length === 0
          ? exactGroup([identityMatrix(n), ...learnt])?.slice(1)
          : keepingMetric(learnt, algebra);
  const notes: string[] = [];
  const isExact = exact !== undefined && discrete !== undefined;
  if (!isExact)
    notes.push(
      "emlp takes singular values above 1e-5 for constraints, and no group near these matrices " +
        `(relative error ${accuracy.toPrecision(2)}) is known to rounding: it may find too few maps`,
    );
  return { data: { ALGEBRA: algebra, DISCRETE: discrete ?? learnt, EXACT: isExact }, notes };
}

/**
 * Make approximate matrices of a finite group a group to rounding: each is replaced by the mean of
 * `ρ(gh) ρ(h)⁻¹` over h, which converges quadratically (Kazhdan 1982).
 *
 * @param elements all elements, the identity first
 * @returns undefined if the products do not make a group
 */
export function exactGroup(elements: readonly SquareMatrix[]): SquareMatrix[] | undefined {
  const [n, table] = [elements[0]!.length, multiplicationTable(elements)];
  if (table.some((row) => new Set(row).size < row.length)) return undefined;
  let now = [...elements];
  for (let step = 0; step < 20; step++) {
    const inverses = now.map(invert);
    const next = now.map((_, g) =>
      combine(
        now.map(() => 1 / now.length),
        now.map((_, h) => multiply(now[table[g]![h]!]!, inverses[h]!)),
        n,
      ),
    );
    const moved = Math.max(...next.map((m, i) => norm(subtract(m, now[i]!))));
    now = next;
    if (moved < 1e-13 * n) return now;
  }
  const off = now.map((a, i) =>
    Math.max(...now.map((b, j) => norm(subtract(multiply(a, b), now[table[i]![j]!]!)))),
  );
  return Math.max(...off) < 1e-9 * n ? now : undefined;
}

/**
 * Take matrices to the nearest ones that keep the metric of an algebra, by Newton's iteration for
 * the polar decomposition, `X ← (X + J⁻¹ X⁻ᵀ J) / 2` (Higham, Mackey, Mackey, Tisseur 2004).
 *
 * @returns undefined if the algebra is not that of a metric, or the iteration does not converge
 */
function keepingMetric(
  matrices: readonly SquareMatrix[],
  algebra: readonly SquareMatrix[],
): SquareMatrix[] | undefined {
  const metric = invariantMetric(algebra);
  const n = matrices[0]!.length;
  if (metric === undefined || metric.conformal || algebra.length !== (n * (n - 1)) / 2)
    return undefined;
  const { matrix: j } = metric;
  const back = invert(j);
  const kept = matrices.map((matrix) => {
    let x = matrix;
    for (let step = 0; step < 50; step++) {
      const next = combine([0.5, 0.5], [x, multiply(back, transpose(invert(x)), j)], n);
      const moved = norm(subtract(next, x));
      x = next;
      if (moved < 1e-13 * n) return x;
    }
    return undefined;
  });
  return kept.every((x) => x !== undefined) ? (kept as SquareMatrix[]) : undefined;
}

/** How far learnt matrices may be from a group, relative to their norm. */
function limitOf({ accuracy }: Learnt): number {
  return Math.max(2 * accuracy, 1e-3);
}

/** The symmetric square root of a definite metric, of determinant 1; undefined for others. */
function rootOf(j: SquareMatrix): SquareMatrix | undefined {
  const { values, vectors } = symmetricEigen(j);
  const sign = Math.sign(values[0]!);
  if (sign === 0 || values.some((x) => Math.sign(x) !== sign)) return undefined;
  const size = values.reduce((product, x) => product * Math.abs(x), 1) ** (1 / values.length);
  return j.map((row, r) =>
    row.map((_, c) =>
      vectors.reduce(
        (sum, v, i) => sum + v[r]! * v[c]! * Math.sqrt(Math.abs(values[i]!) / size),
        0,
      ),
    ),
  );
}

/** Get Q in whose frame generators turn: `Q B Q⁻¹` is antisymmetric; undefined if there is none. */
function turningFrame(learnt: Learnt): SquareMatrix | undefined {
  const metric = invariantMetric(learnt.generators);
  const q = metric && rootOf(metric.matrix);
  if (q === undefined) return undefined;
  const inverse = invert(q);
  const turns = learnt.generators.every(
    (b) => symmetricPart(multiply(q, b, inverse)) <= limitOf(learnt),
  );
  if (!turns) return undefined;
  const one = identityMatrix(learnt.n);
  return norm(subtract(q, one)) <= learnt.accuracy * norm(one) ? one : q;
}

/** The relative size of `M + Mᵀ`: 0 for a generator of rotations. */
function symmetricPart(m: SquareMatrix): number {
  return norm(combine([0.5, 0.5], [m, transpose(m)], m.length)) / norm(m);
}

/** How far a matrix is from orthogonal, relative to its norm. */
function nonOrthogonal(m: SquareMatrix): number {
  const n = m.length;
  return norm(subtract(multiply(transpose(m), m), identityMatrix(n))) / (2 * Math.sqrt(n));
}

function fitE3nn(learnt: Learnt, result: Result, refuse: Refuse): Fitted {
  const { n, generators, components } = learnt;
  const name = result.algebra?.identified.name ?? result.group?.name ?? "a finite group";
  if (generators.length === 0) throw refuse(`the group is finite (${name})`);
  if (n !== 3) throw refuse(`the group acts on ${n} coordinates`);
  const q = generators.length === 3 ? turningFrame(learnt) : undefined;
  if (q === undefined) throw refuse(`the algebra is ${name}`);
  const inverse = invert(q);
  for (const { matrix } of components)
    if (nonOrthogonal(multiply(q, matrix, inverse)) > limitOf(learnt))
      throw refuse("a component is no rotation, reflection or inversion");
  const mirrors = components.some(({ matrix }) => determinant(matrix) < 0);
  const notes = mirrors
    ? []
    : ["no mirror was found: all features have even parity, so that e3nn asks for rotations alone"];
  return { data: { Q: q, MIRRORS: mirrors }, notes };
}

function fitEscnn(learnt: Learnt, result: Result, refuse: Refuse): Fitted {
  const { n, generators, components, accuracy } = learnt;
  const name = result.algebra?.identified.name ?? result.group?.name ?? "a group";
  if (n !== 2) throw refuse(`the group acts on ${n} coordinates`);
  const matrices = components.map(({ matrix }) => matrix);
  let q: SquareMatrix | undefined;
  if (generators.length > 0) {
    q = generators.length === 1 ? turningFrame(learnt) : undefined;
    if (q === undefined) throw refuse(`the algebra is ${name}`);
  } else {
    const { finite, resolved } = result.group ?? {};
    if (!finite || !resolved) throw refuse("the components make no group that could be resolved");
    const squares = [identityMatrix(2), ...matrices].map((m) => multiply(transpose(m), m));
    // C_1, C_2: −1 keeps every metric, so the mean over the elements is near the identity.
    q = rootOf(
      combine(
        squares.map(() => 1 / squares.length),
        squares,
        2,
      ),
    )!;
  }
  const limit = limitOf(learnt);
  const off = Math.max(0, ...generators.map(symmetricPart), ...matrices.map(nonOrthogonal));
  if (off > limit) {
    const inverse = invert(q);
    const moved = matrices.map((m) => multiply(q, m, inverse));
    if (moved.some((m) => nonOrthogonal(m) > limit))
      throw refuse("a component is neither a rotation nor a reflection in any axes");
    const shown = q.map((row) => `[${row.map((x) => x.toFixed(4)).join(", ")}]`).join(", ");
    throw refuse(
      `${name} does not turn these axes but those of Q u, where Q = [${shown}]`,
      "change the coordinates of the data by Q and run again, or export it as torch",
    );
  }
  const axes = matrices.filter((m) => determinant(m) < 0).map(axisOf);
  const turns = generators.length > 0 ? -1 : matrices.length + 1 - axes.length;
  if (turns > 0 && axes.length > 0 && axes.length !== turns)
    throw refuse("the components make no group that could be resolved");
  const mirror = axes.length === 0 ? null : turns < 0 ? 0 : mirrorOf(axes, turns, accuracy);
  return { data: { TURNS: turns, MIRROR: mirror }, notes: [] };
}

/** The angle of the axis of a reflection from the first coordinate, from −π/2 to π/2. */
function axisOf(m: SquareMatrix): number {
  return Math.atan2(m[0]![1]! + m[1]![0]!, m[0]![0]! - m[1]![1]!) / 2;
}

/** The mean axis of the k reflections of D_k, between 0 and π/k; that of the lattice if near. */
function mirrorOf(axes: readonly number[], k: number, accuracy: number): number {
  const sum = (f: (x: number) => number) => axes.reduce((all, axis) => all + f(2 * k * axis), 0);
  const period = Math.PI / k;
  const angle = (Math.atan2(sum(Math.sin), sum(Math.cos)) / (2 * k) + period) % period;
  // Axes of the lattice are multiples of 45°, which repeat with the period too.
  for (let i = 0; i < 4; i++) {
    const lattice = ((i * Math.PI) / 4) % period;
    const gap = Math.abs(angle - lattice);
    if (Math.min(gap, period - gap) <= Math.max(accuracy, 1e-3)) return lattice;
  }
  return angle;
}
