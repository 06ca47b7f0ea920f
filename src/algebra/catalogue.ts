/** Named Lie algebras of n by n matrices, in the coordinates in which they are usually written. */
import { diagonalMatrix, identityMatrix, type SquareMatrix } from "./linalg.js";

/** A Lie algebra with a name. */
export interface NamedAlgebra {
  name: string;
  /** [k, n, n] */
  basis: SquareMatrix[];
  /** Other ways to write the name. */
  aliases: string[];
}

/**
 * List the named algebras of n by n matrices, the usual ones first.
 *
 * Axes are numbered from 1. In so(p,q) the first p axes have one sign and the other q axes the
 * other. ⊕R adds the scaling of all axes together.
 */
export function catalogue(n: number): NamedAlgebra[] {
  const axes = Array.from({ length: n }, (_, i) => i);
  const named: NamedAlgebra[] = [{ name: "none", basis: [], aliases: ["trivial", "0"] }];
  const add = (name: string, basis: SquareMatrix[], ...aliases: string[]) =>
    void named.push({ name, basis, aliases });
  const scaling = identityMatrix(n);
  const withScaling = (name: string, basis: SquareMatrix[], ...aliases: string[]) => {
    add(name, basis, ...aliases);
    add(`${name}⊕R`, [...basis, scaling], ...aliases.map((alias) => `${alias}⊕R`));
  };

  const offDiagonal = pairs(axes).flatMap(([i, j]) => [unit(n, i, j), unit(n, j, i)]);
  const traceless = axes
    .slice(1)
    .map((i) => diagonalMatrix(axes.map((a) => (a === 0 ? 1 : a === i ? -1 : 0))));
  const every = axes.map((i) => unit(n, i, i));
  if (n === 1) {
    add("R scaling", [scaling], "R", "scaling", "gl(1)");
    return named;
  }
  withScaling(
    `so(${n})`,
    orthogonal(n, axes, n),
    `o(${n})`,
    "rotations",
    ...(n === 2 ? ["u(1)"] : []),
  );
  for (let p = 1; p < n; p++)
    withScaling(
      `so(${p},${n - p})`,
      orthogonal(n, axes, p),
      `o(${p},${n - p})`,
      ...(p === 1 && n === 4 ? ["lorentz"] : []),
    );
  add("R scaling", [scaling], "R", "scaling");
  add(`sl(${n})`, [...offDiagonal, ...traceless], ...(n === 2 ? ["sp(2)"] : []));
  add(`gl(${n})`, [...offDiagonal, ...every], "linear");
  if (n % 2 === 0 && n > 2) withScaling(`sp(${n})`, symplectic(n));
  add("diagonal", every);
  add("traceless diagonal", traceless, ...(n === 2 ? ["squeeze"] : []));
  const upper = pairs(axes).map(([i, j]) => unit(n, i, j));
  const lower = pairs(axes).map(([i, j]) => unit(n, j, i));
  for (const [side, triangle] of [
    ["upper", upper],
    ["lower", lower],
  ] as const) {
    add(`${side} triangular`, [...triangle, ...every], ...(side === "upper" ? ["borel"] : []));
    add(`traceless ${side} triangular`, [...triangle, ...traceless]);
    add(`strictly ${side} triangular`, triangle, ...(n === 2 ? [`${side} shear`] : []));
  }
  for (const i of axes) add(`scaling of axis ${i + 1}`, [unit(n, i, i)]);
  // Subgroups that turn or boost some of the axes. For larger n there would be too many names.
  for (const some of n <= 4 ? subsets(axes).filter((s) => s.length >= 2 && s.length < n) : []) {
    const on = `on axes ${some.map((i) => i + 1).join(",")}`;
    withScaling(`so(${some.length}) ${on}`, orthogonal(n, some, some.length));
    withScaling(`so(1,${some.length - 1}) ${on}`, orthogonal(n, some, 1));
  }
  return named;
}

/**
 * Get the basis of an algebra by its name: "so(2)", "so(1,3)⊕R" or "so(1,3)+R", "R scaling",
 * "none". Case and spaces do not matter. Shells refuse bare parentheses, so "so13" is so(1,3) too.
 *
 * @param n size of the matrices
 * @returns [k, n, n]; undefined if no algebra of this size has the name
 */
export function namedAlgebra(name: string, n: number): SquareMatrix[] | undefined {
  const wanted = plain(name);
  const found = catalogue(n).find((a) =>
    [a.name, ...a.aliases].some(
      (known) => plain(known) === wanted || plain(known).replaceAll(/[(),]/g, "") === wanted,
    ),
  );
  return found?.basis;
}

/** List the names that {@link namedAlgebra} knows for n by n matrices. */
export function namedAlgebras(n: number): string[] {
  return catalogue(n).map((a) => a.name);
}

/** Reduce a name to what all its spellings share. */
function plain(name: string): string {
  return name
    .normalize("NFKC")
    .toLowerCase()
    .replaceAll(/[⊕×]/g, "+")
    .replaceAll(/[\s_{}]/g, "");
}

/**
 * Make the generators that keep the form with +1 on the first `positive` of `axes` and −1 on the
 * rest: rotations of two axes of one sign, boosts of two axes of different signs.
 */
function orthogonal(n: number, axes: readonly number[], positive: number): SquareMatrix[] {
  return pairs(axes).map(([i, j]) => {
    const m = unit(n, j, i);
    m[i]![j] = axes.indexOf(i) < positive && axes.indexOf(j) >= positive ? 1 : -1;
    return m;
  });
}

/** Make sp(n, R): `[[A, B], [C, −Aᵀ]]` with symmetric B and C (positions before momenta). */
function symplectic(n: number): SquareMatrix[] {
  const h = n / 2;
  const axes = Array.from({ length: h }, (_, i) => i);
  const sum = (...entries: [number, number, number][]) => {
    const m = diagonalMatrix(Array<number>(n).fill(0));
    for (const [i, j, x] of entries) m[i]![j] = x;
    return m;
  };
  return [
    ...axes.flatMap((i) => axes.map((j) => sum([i, j, 1], [h + j, h + i, -1]))),
    ...axes.flatMap((i) => axes.slice(i).map((j) => sum([i, h + j, 1], [j, h + i, 1]))),
    ...axes.flatMap((i) => axes.slice(i).map((j) => sum([h + i, j, 1], [h + j, i, 1]))),
  ];
}

function unit(n: number, i: number, j: number): SquareMatrix {
  const m = diagonalMatrix(Array<number>(n).fill(0));
  m[i]![j] = 1;
  return m;
}

function pairs(axes: readonly number[]): [number, number][] {
  return axes.flatMap((i, a) => axes.slice(a + 1).map((j): [number, number] => [i, j]));
}

function subsets(axes: readonly number[]): number[][] {
  const all: number[][] = [[]];
  for (const axis of axes) all.push(...all.map((some) => [...some, axis]));
  return all;
}
