/** Names of finite groups: abstractly, from the multiplication table, and as point groups. */
import { determinant } from "ml-matrix";
import { dot, type SquareMatrix, trace } from "./linalg.js";

/** A multiplication table: entry [i][j] is the number of the product of elements i and j. */
export type MultiplicationTable = readonly (readonly number[])[];

/** What a finite group is called. */
export interface GroupName {
  /**
   * In the plane and in space the name of the point group that it is up to a change of
   * coordinates, such as "C_7", "D_4", "O" or "C_3v"; elsewhere the abstract name.
   */
  name: string;
  /** The group that has this multiplication table, such as "C_2 × C_2"; undefined if unknown. */
  abstractName?: string;
  /** The order of each element. */
  elementOrders: number[];
}

/** Find the number of the nearest element to each product. */
export function multiplicationTable(elements: readonly SquareMatrix[]): number[][] {
  const flat = elements.map((m) => m.flat());
  return elements.map((a) =>
    elements.map((b) => {
      const product = a.flatMap((row) => b.map((_, j) => dot(row, column(b, j))));
      let [nearest, least] = [0, Number.POSITIVE_INFINITY];
      for (const [i, entries] of flat.entries()) {
        let apart = 0;
        for (let e = 0; e < entries.length && apart < least; e++)
          apart += (entries[e]! - product[e]!) ** 2;
        if (apart < least) [nearest, least] = [i, apart];
      }
      return nearest;
    }),
  );
}

function column(m: SquareMatrix, j: number): number[] {
  return m.map((row) => row[j]!);
}

/** Find the order of each element of a group whose element 0 is the identity. */
export function elementOrders(table: MultiplicationTable): number[] {
  return table.map((_, i) => {
    let order = 1;
    for (let power = i; power !== 0 && order <= table.length; order++) power = table[power]![i]!;
    return order;
  });
}

/**
 * Name a group abstractly, from its multiplication table.
 *
 * The kinds that are known are the cyclic and dihedral groups, the groups T, O and I of the
 * rotations of the regular solids, and products of these with C_2. Each is told by the numbers of
 * elements of each order and by its centre, which is enough within a given order of at most 240
 * together with a check of the relations.
 *
 * @returns undefined for a group of another kind
 */
export function abstractName(table: MultiplicationTable): string | undefined {
  const simple = simpleName(table);
  if (simple !== undefined) return simple;
  // C_2 × H: a central involution z, and a subgroup H of index 2 without z.
  const orders = elementOrders(table);
  const every = table.map((_, i) => i);
  const central = every.filter(
    (z) => orders[z] === 2 && every.every((i) => table[z]![i] === table[i]![z]),
  );
  for (const z of central)
    for (const half of subgroupsOfIndexTwo(table)) {
      if (half.includes(z)) continue;
      const name = abstractName(restricted(table, half));
      if (name !== undefined) return `${name} × C_2`;
    }
  return undefined;
}

/** Name a cyclic group, a dihedral group, or the rotations of a regular solid. */
function simpleName(table: MultiplicationTable): string | undefined {
  const m = table.length;
  const orders = elementOrders(table);
  if (orders.includes(m)) return `C_${m}`;
  if (isDihedral(table, orders)) return m === 4 ? "C_2 × C_2" : `D_${m / 2}`;
  const count = (order: number) => orders.filter((o) => o === order).length;
  const has = (numbers: Readonly<Record<number, number>>) =>
    Object.entries(numbers).every(([order, number]) => count(Number(order)) === number);
  // No other groups of these orders have these numbers of elements of each order.
  if (m === 12 && has({ 2: 3, 3: 8 })) return "T";
  if (m === 24 && has({ 2: 9, 3: 8, 4: 6 })) return "O";
  if (m === 60 && has({ 2: 15, 3: 20, 5: 24 })) return "I";
  return undefined;
}

/** Whether there is an element r of half the order, and all others are involutions that invert r. */
function isDihedral(table: MultiplicationTable, orders: readonly number[]): boolean {
  const half = table.length / 2;
  if (!Number.isInteger(half) || half < 2) return false;
  return orders.some((order, r) => {
    if (order !== half) return false;
    const turns = new Set(powersOf(table, r));
    return table.every((_, s) => turns.has(s) || orders[s] === 2);
  });
}

function powersOf(table: MultiplicationTable, r: number): number[] {
  const powers = [0];
  for (let p = r; p !== 0 && powers.length <= table.length; p = table[p]![r]!) powers.push(p);
  return powers;
}

/**
 * List the subgroups of index two. Each is the kernel of a homomorphism to {1, −1}, which its
 * values on generators decide.
 */
function subgroupsOfIndexTwo(table: MultiplicationTable): number[][] {
  const generators: number[] = [];
  let generated = [0];
  for (let i = 0; i < table.length; i++) {
    if (generated.includes(i)) continue;
    generators.push(i);
    generated = closureOf(table, generators);
  }
  const found: number[][] = [];
  for (let bits = 1; bits < 2 ** generators.length; bits++) {
    const signs = signsOf(
      table,
      generators.map((g, i) => [g, (bits >> i) % 2 === 0 ? 1 : -1] as const),
    );
    if (signs) found.push(table.flatMap((_, i) => (signs[i] === 1 ? [i] : [])));
  }
  return found;
}

/** Select elements of which all others are products, by their numbers. */
export function generatorsOf(table: MultiplicationTable): number[] {
  const chosen: number[] = [];
  for (let i = 1; i < table.length; i++) if (!closureOf(table, chosen).includes(i)) chosen.push(i);
  return chosen;
}

function closureOf(table: MultiplicationTable, generators: readonly number[]): number[] {
  const inside = new Set([0]);
  for (const i of inside) for (const g of generators) inside.add(table[i]![g]!);
  return [...inside];
}

/** Extend signs of generators to a homomorphism; undefined if there is none. */
function signsOf(
  table: MultiplicationTable,
  generators: readonly (readonly [number, number])[],
): number[] | undefined {
  const signs = new Map([[0, 1]]);
  for (const [i, sign] of signs)
    for (const [g, by] of generators) {
      const product = table[i]![g]!;
      const known = signs.get(product);
      if (known === undefined) signs.set(product, sign * by);
      else if (known !== sign * by) return undefined;
    }
  return table.map((_, i) => signs.get(i) ?? 1);
}

function restricted(table: MultiplicationTable, elements: readonly number[]): number[][] {
  const order = [0, ...elements.filter((i) => i !== 0)];
  const place = new Map(order.map((element, i) => [element, i]));
  return order.map((i) => order.map((j) => place.get(table[i]![j]!) ?? 0));
}

/**
 * Name a finite group of matrices up to a change of coordinates.
 *
 * @param elements all elements, the identity first, [m, n, n]
 * @param table their multiplication table
 */
export function nameFiniteGroup(
  elements: readonly SquareMatrix[],
  table: MultiplicationTable = multiplicationTable(elements),
): GroupName {
  const abstract = abstractName(table);
  const n = elements[0]!.length;
  const point =
    n === 2
      ? planarName(elements)
      : n === 3
        ? spatialName(elements, table)
        : nameWithInversion(elements, table, abstract);
  return {
    name: point ?? abstract ?? `group of order ${elements.length}`,
    abstractName: abstract,
    elementOrders: elementOrders(table),
  };
}

/** Name a group of components, of which only products are known. */
export function nameComponentGroup(table: MultiplicationTable): GroupName {
  const abstract = abstractName(table);
  return {
    name: abstract ?? `group of order ${table.length}`,
    abstractName: abstract,
    elementOrders: elementOrders(table),
  };
}

/** C_k has rotations alone; in D_k half of the elements are reflections. */
function planarName(elements: readonly SquareMatrix[]): string {
  const mirrors = elements.filter((m) => determinant(m) < 0).length;
  if (mirrors === 0) return `C_${elements.length}`;
  return `D_${elements.length / 2}`;
}

/** Name a group in more than three dimensions or in one. A central −1 is split off. */
function nameWithInversion(
  elements: readonly SquareMatrix[],
  table: MultiplicationTable,
  abstract: string | undefined,
): string | undefined {
  if (elements[0]!.length === 1) return elements.length === 1 ? "C_1" : "C_2";
  const minus = elements.findIndex((m) => Math.abs(trace(m) + m.length) < 1e-3 * m.length);
  if (minus < 0 || elements.length === 2) return minus < 0 ? abstract : "{1, −1}";
  for (const half of subgroupsOfIndexTwo(table)) {
    if (half.includes(minus)) continue;
    const name = abstractName(restricted(table, half));
    if (name !== undefined) return `${name} × {1, −1}`;
  }
  return abstract;
}

/**
 * Name a point group of space in the notation of Schoenflies.
 *
 * The rotations R in the group and the turns hidden in the others, `−h`, decide it: either −1 is in
 * the group and it is R × {1, −1}, or the rotations and the hidden turns together are a group of
 * rotations of twice the order (Weyl 1952, appendix A).
 */
function spatialName(elements: readonly SquareMatrix[], table: MultiplicationTable): string {
  const proper = elements.flatMap((m, i) => (determinant(m) > 0 ? [i] : []));
  const turns = nameRotations(restricted(table, proper));
  if (proper.length === elements.length) return turns;
  // −1 has trace −3. Only it has.
  const inversion = elements.some((m) => trace(m) < -3 + 1e-4);
  const k = turns.startsWith("C_") || turns.startsWith("D_") ? Number(turns.slice(2)) : undefined;
  const even = k !== undefined && k % 2 === 0;
  if (inversion) {
    if (k === undefined) return `${turns}_h`;
    if (turns.startsWith("D_")) return even ? `D_${k}h` : `D_${k}d`;
    if (k === 1) return "C_i";
    return even ? `C_${k}h` : `S_${2 * k}`;
  }
  // Without −1: name the rotations {R} ∪ {−h}.
  const signs = elements.map((m) => (determinant(m) > 0 ? 1 : -1));
  const whole = elements.map((m, i) => m.map((row) => row.map((x) => signs[i]! * x)));
  const all = nameRotations(multiplicationTable(whole));
  if (turns === "T") return "T_d";
  if (k === undefined) return `group of order ${elements.length}`;
  if (turns.startsWith("C_")) {
    if (all.startsWith("D_")) return `C_${k}v`;
    if (k === 1) return "C_s";
    return even ? `S_${2 * k}` : `C_${k}h`;
  }
  return even ? `D_${k}d` : `D_${k}h`;
}

/** Name a group of rotations of space from its table: C_k, D_k, T, O or I. */
function nameRotations(table: MultiplicationTable): string {
  const name = simpleName(table);
  if (name === "C_2 × C_2") return "D_2";
  return name ?? `group of order ${table.length}`;
}
