/** Find what a span of affine maps is: a linear algebra with translations (METHOD 4.2). */
import { embed } from "./factors.js";
import { apart, type Match, matchLinear } from "./identify.js";
import {
  combine,
  diagonalMatrix,
  identityMatrix,
  multiply,
  norm,
  type SquareMatrix,
  singular,
} from "./linalg.js";
import { frame, invariantMetric } from "./span.js";

/** The largest sine of the angle to the translations at which a direction counts as one. */
const TRANSLATION = 0.26;
/** The largest part of a generator, of norm 1, that moves a fixed point. */
const FIXED = 0.1;

/** Names of algebras with all translations, for names of their linear parts. */
const WITH_TRANSLATIONS: readonly (readonly [RegExp, string])[] = [
  [/^so\((\d+)\)$/, "se($1)"],
  [/^so\((\d+)\)⊕R$/, "sim($1)"],
  [/^so\((\d+),(\d+)\)$/, "iso($1,$2)"],
  [/^gl\((\d+)\)$/, "aff($1)"],
  [/^sl\((\d+)\)$/, "saff($1)"],
];
const BASIS = " up to a change of basis";

/**
 * Name a span of affine maps.
 *
 * @param basis orthonormal, [k, n + 1, n + 1], in coordinates in which points have mean 0 and spread 1
 */
export function matchAffine(basis: readonly SquareMatrix[], n: number): Match {
  const { translations, rest } = split(basis, n);
  const linear = rest.map((m) => m.slice(0, n).map((row) => row.slice(0, n)));
  if (linear.length === 0) return { ...pure(translations, n, basis), about: undefined };
  const inner = matchLinear(frame(linear), invariantMetric(linear));
  const all = translations.length === n;
  const about = all ? undefined : fixedPoint(rest, translations, n);
  const name = all ? withTranslations(inner.name, n) : inPart(inner.name, translations.length);
  const nearest = inner.nearest && (all ? withTranslations(inner.nearest, n) : inner.nearest);
  if (inner.exact === undefined || (!all && about === undefined))
    return { ...inner, name: "unidentified", nearest, exact: undefined };
  const shift = identityMatrix(n + 1);
  for (const [i, x] of (about ?? []).entries()) shift[i]![n] = x;
  const back = shift.map((row, i) => row.map((x, j) => (j === n && i < n ? -x : x)));
  const moved = inner.exact.map((m) => multiply(shift, embed(m, 0, n + 1), back));
  const exact = [...moved, ...(all ? units(n) : translations)];
  const named = inner.name === "unidentified" ? inner.name : name;
  return { ...apart(basis, exact), name: named, nearest, exact, about };
}

/**
 * Find the linear parts of a span of affine maps, without the directions that only translate.
 *
 * @param basis orthonormal, [k, n + 1, n + 1]
 * @returns [l, n, n], orthonormal
 */
export function linearParts(basis: readonly SquareMatrix[], n: number): SquareMatrix[] {
  return frame(split(basis, n).rest.map((m) => m.slice(0, n).map((row) => row.slice(0, n))));
}

/** Separate the directions that only translate from a complement of them. */
function split(basis: readonly SquareMatrix[], n: number) {
  // Rows: linear parts of the basis. A left singular vector of a small value only translates.
  const linear = basis.map((m) => m.slice(0, n).flatMap((row) => row.slice(0, n)));
  const gram = linear.map((a) => linear.map((b) => a.reduce((sum, x, i) => sum + x * b[i]!, 0)));
  if (basis.length === 0) return { translations: [], rest: [] };
  const { values, vectors } = singular(gram);
  const mixed = vectors.map((v) => combine(v, basis, n + 1));
  const isTranslation = values.map((x) => Math.sqrt(Math.max(0, x)) < TRANSLATION);
  const translations = mixed
    .filter((_, i) => isTranslation[i])
    .map((m) => m.map((row, i) => row.map((x, j) => (i < n && j === n ? x : 0))));
  return { translations: frame(translations), rest: mixed.filter((_, i) => !isTranslation[i]) };
}

function pure(translations: SquareMatrix[], n: number, basis: readonly SquareMatrix[]): Match {
  const k = translations.length;
  const name = k === n ? "translations" : `translations in ${k} of ${n} dimensions`;
  const exact = k === n ? units(n) : translations;
  return { ...apart(basis, exact), name, nearest: name, exact };
}

/**
 * Find the point c that all generators keep, up to the translations: `A c + t = 0`.
 *
 * @returns undefined if there is none, as for a screw
 */
function fixedPoint(
  rest: readonly SquareMatrix[],
  translations: readonly SquareMatrix[],
  n: number,
): number[] | undefined {
  const along = translations.map((m) => m.slice(0, n).map((row) => row[n]!));
  const cleared = (v: readonly number[]) =>
    along.reduce<readonly number[]>((left, u) => {
      const part = left.reduce((sum, x, i) => sum + x * u[i]!, 0);
      return left.map((x, i) => x - part * u[i]!);
    }, v);
  // Normal equations of A c = −t, slightly damped towards the mean of the points.
  const normal = diagonalMatrix(Array<number>(n).fill(1e-9));
  const right = Array<number>(n).fill(0);
  const columns = rest.map((m) => ({
    a: Array.from({ length: n }, (_, j) => cleared(m.slice(0, n).map((row) => row[j]!))),
    t: cleared(m.slice(0, n).map((row) => row[n]!)),
  }));
  for (const { a, t } of columns)
    for (let i = 0; i < n; i++) {
      right[i]! -= a[i]!.reduce((sum, x, r) => sum + x * t[r]!, 0);
      for (let j = 0; j < n; j++) normal[i]![j]! += a[i]!.reduce((s, x, r) => s + x * a[j]![r]!, 0);
    }
  const { values, vectors } = singular(normal);
  const c = Array<number>(n).fill(0);
  for (const [k, v] of vectors.slice(0, n).entries()) {
    if (values[k]! < 1e-4 * values[0]!) continue; // the point is free along v
    const weight = v.reduce((sum, x, i) => sum + x * right[i]!, 0) / values[k]!;
    for (let i = 0; i < n; i++) c[i]! += weight * v[i]!;
  }
  const left = columns.map(({ a, t }) =>
    Math.hypot(...t.map((x, r) => x + a.reduce((sum, column, j) => sum + column[r]! * c[j]!, 0))),
  );
  return Math.max(...left) < FIXED ? c : undefined;
}

function units(n: number): SquareMatrix[] {
  return Array.from({ length: n }, (_, i) => {
    const m = diagonalMatrix(Array<number>(n + 1).fill(0));
    m[i]![n] = 1;
    return m;
  });
}

function withTranslations(name: string, n: number): string {
  const [plain, changed] = stem(name);
  if (plain === "none") return "translations";
  for (const [linear, affine] of WITH_TRANSLATIONS)
    if (linear.test(plain)) return plain.replace(linear, affine) + changed;
  if (plain === "R scaling" && n === 1) return "aff(1)";
  return `${plain} ⋉ R^${n}${changed}`;
}

/** Split "so(2) up to a change of basis" into the name and the rest. */
function stem(name: string): [name: string, changed: string] {
  return name.endsWith(BASIS) ? [name.slice(0, -BASIS.length), BASIS] : [name, ""];
}

function inPart(name: string, translations: number): string {
  const [plain, changed] = stem(name);
  return `${plain}${translations === 0 ? " about a point" : ` ⋉ R^${translations}`}${changed}`;
}

/**
 * Get a basis of a named algebra of affine maps of R^n: se, sim, iso, aff, saff, translations, or a
 * linear algebra about the origin.
 *
 * @param linear gets a linear algebra by its name
 * @returns [k, n + 1, n + 1]; undefined if the name is unknown
 */
export function namedAffine(
  name: string,
  n: number,
  linear: (name: string) => SquareMatrix[] | undefined,
): SquareMatrix[] | undefined {
  const wanted = name.toLowerCase().replaceAll(/\s/g, "");
  if (/^translations?$/.test(wanted)) return units(n);
  const [, kind, size = String(n)] = /^(se|sim|aff|saff)\(?(\d+)?\)?$/.exec(wanted) ?? [];
  if (kind !== undefined && size !== String(n)) return undefined;
  const parts: Record<string, string> = {
    se: `so(${n})`,
    sim: `so(${n})⊕R`,
    aff: `gl(${n})`,
    saff: `sl(${n})`,
  };
  const inner = kind === undefined ? /^i(so.*)$/.exec(wanted)?.[1] : parts[kind];
  const translated = inner !== undefined;
  // In one dimension there are no rotations.
  const basis = n === 1 && kind === "se" ? [] : linear(inner ?? name);
  if (basis === undefined) return undefined;
  const embedded = basis.filter((m) => norm(m) > 0).map((m) => embed(m, 0, n + 1));
  return translated ? [...embedded, ...units(n)] : embedded;
}
