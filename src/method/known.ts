/** Groups of one linear factor with components, by name: O(n), O(p,q), C_k, D_k, permutations. */
import { namedAlgebra } from "../algebra/index.js";
import { diagonalMatrix, type SquareMatrix } from "../algebra/linalg.js";
import { UsageError } from "../errors.js";
import { planeRotation } from "./evidence.js";
import { isName } from "./group.js";

/** A group: the generators of its identity component, and a matrix for each further component. */
export interface KnownGroup {
  generators: SquareMatrix[];
  components: SquareMatrix[];
}

const FINITE = /^(c|d)[_(]?(\d+)\)?$/;
const ORTHOGONAL = /^o\(?(\d)(?:,(\d))?\)?$/;
/** Names of these groups, for messages. */
export const KNOWN_GROUPS = ["o(n)", "o(p,q)", "c(k)", "d(k)", "permutations"];

/** Whether a text is the name of a group with or without components, of some size. */
export function isGroupName(text: string): boolean {
  const wanted = text.trim().toLowerCase();
  return (
    FINITE.test(wanted) || ORTHOGONAL.test(wanted) || wanted === "permutations" || isName(text)
  );
}

/**
 * Make a group with components.
 *
 * @returns undefined for a name of an algebra alone
 * @throws UsageError if the group does not act on n dimensions
 */
export function knownGroup(name: string, n: number, flag: string): KnownGroup | undefined {
  const wanted = name.trim().toLowerCase();
  const mirrored = (from: number, to: number) =>
    diagonalMatrix(Array.from({ length: n }, (_, i) => (i >= from && i < to ? -1 : 1)));
  const [, kind, times] = FINITE.exec(wanted) ?? [];
  if (kind !== undefined) {
    const k = Number(times);
    if (n !== 2 || k < 1)
      throw new UsageError(
        `${flag} ${name}: it acts on the plane, and these data have ${n} dimensions`,
        "give a run or a file with the matrices",
      );
    const turns = Array.from({ length: k - 1 }, (_, i) => planeRotation((360 * (i + 1)) / k));
    return { generators: [], components: kind === "d" ? [...turns, mirrored(1, 2)] : turns };
  }
  if (wanted === "permutations") {
    if (n < 2) throw new UsageError(`${flag} permutations: there is one component`, "give more");
    const orders = [
      (i: number) => (i < 2 ? 1 - i : i),
      (i: number) => (i + 1) % n,
      (i: number) => n - 1 - i,
      (i: number) => (i % 2 === 0 ? Math.min(i + 1, n - 1) : i - 1),
    ];
    const permutation = (order: (i: number) => number) =>
      Array.from({ length: n }, (_, row) =>
        Array.from({ length: n }, (_, col) => (order(row) === col ? 1 : 0)),
      );
    return {
      generators: [],
      components: orders.slice(0, n < 3 ? 1 : orders.length).map(permutation),
    };
  }
  const [, p, q] = ORTHOGONAL.exec(wanted) ?? [];
  if (p === undefined || Number(p) + Number(q ?? 0) !== n) return undefined;
  const split = q === undefined ? n - 1 : Number(p);
  const generators = namedAlgebra(q === undefined ? `so(${n})` : `so(${p},${q})`, n) ?? [];
  return {
    generators,
    components: [mirrored(split, n), ...(q === undefined ? [] : [mirrored(0, split)])],
  };
}
