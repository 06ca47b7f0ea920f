import { expect } from "chai";
import { determinant } from "ml-matrix";
import {
  abstractName,
  multiplicationTable,
  nameComponentGroup,
  nameFiniteGroup,
} from "../../../src/algebra/finite.js";
import {
  diagonalMatrix,
  identityMatrix,
  invert,
  multiply,
  type SquareMatrix,
} from "../../../src/algebra/linalg.js";

const cos = (degrees: number) => Math.cos((degrees * Math.PI) / 180);
const sin = (degrees: number) => Math.sin((degrees * Math.PI) / 180);

/** Turn about the third axis, or in the plane. */
function turn(degrees: number, n = 3): SquareMatrix {
  const m = identityMatrix(n);
  [m[0]![0], m[0]![1], m[1]![0], m[1]![1]] = [
    cos(degrees),
    -sin(degrees),
    sin(degrees),
    cos(degrees),
  ];
  return m;
}

/** Turn about an axis (Rodrigues). */
function about([x, y, z]: readonly number[], degrees: number): SquareMatrix {
  const length = Math.hypot(x!, y!, z!);
  const [a, b, c] = [x! / length, y! / length, z! / length];
  const k = [[0, -c, b], [c, 0, -a], [-b, a, 0]]; // biome-ignore format: a matrix
  const square = multiply(k, k);
  return identityMatrix(3).map((row, i) =>
    row.map((e, j) => e + sin(degrees) * k[i]![j]! + (1 - cos(degrees)) * square[i]![j]!),
  );
}

/** All products, the identity first. */
function generate(...generators: SquareMatrix[]): SquareMatrix[] {
  const key = (m: SquareMatrix) =>
    m
      .flat()
      .map((x) => Math.round(x * 1e4) + 0)
      .join(" ");
  const all = new Map([identityMatrix(generators[0]!.length)].map((m) => [key(m), m]));
  for (const a of all.values())
    for (const g of generators) {
      const product = multiply(a, g);
      if (!all.has(key(product))) all.set(key(product), product);
      expect(all.size).to.be.at.most(240);
    }
  return [...all.values()];
}

const GOLDEN = (1 + Math.sqrt(5)) / 2;
const flip = (n: number, ...axes: number[]) =>
  diagonalMatrix(Array.from({ length: n }, (_, i) => (axes.includes(i) ? -1 : 1)));
const MINUS = flip(3, 0, 1, 2);
const HALF = flip(3, 1, 2); // about the first axis
const LEVEL = flip(3, 2); // the mirror across the axis of the turns
const UPRIGHT = flip(3, 1);
const T = [about([1, 1, 1], 120), turn(180)];
const O = [about([1, 1, 1], 120), turn(90)];
const I = [about([0, 1, GOLDEN], 72), about([1, 1, 1], 120)];

/** Point groups by name, with generators and the order. */
const SPACE: [string, SquareMatrix[], number][] = [
  ["C_1", [identityMatrix(3)], 1],
  ["C_i", [MINUS], 2],
  ["C_s", [LEVEL], 2],
  ...[2, 3, 4, 5, 6, 7, 12].flatMap((k): [string, SquareMatrix[], number][] => [
    [`C_${k}`, [turn(360 / k)], k],
    [`C_${k}v`, [turn(360 / k), UPRIGHT], 2 * k],
    [`C_${k}h`, [turn(360 / k), LEVEL], 2 * k],
    [`D_${k}`, [turn(360 / k), HALF], 2 * k],
    [`D_${k}h`, [turn(360 / k), HALF, LEVEL], 4 * k],
    [`D_${k}d`, [turn(360 / k), UPRIGHT, multiply(turn(180 / k), LEVEL)], 4 * k],
    [`S_${2 * k}`, [multiply(turn(180 / k), LEVEL)], 2 * k],
  ]),
  ["T", T, 12],
  ["T_h", [...T, MINUS], 24],
  ["T_d", [...T, multiply(turn(90), MINUS)], 24],
  ["O", O, 24],
  ["O_h", [...O, MINUS], 48],
  ["I", I, 60],
  ["I_h", [...I, MINUS], 120],
];

/** A change of coordinates that keeps no metric. */
const STRETCH = [[1, 0.4, 0], [0, 1.3, 0.2], [0.3, 0, 0.8]]; // biome-ignore format: a matrix

describe("a finite group", () => {
  it("of space has the name of its point group, in any coordinates", () => {
    for (const [name, generators, order] of SPACE) {
      const elements = generate(...generators);
      expect(elements, name).to.have.length(order);
      const moved = elements.map((m) => multiply(STRETCH, m, invert(STRETCH)));
      expect(nameFiniteGroup(moved).name, name).to.equal(name);
    }
  });

  it("does not depend on the order of the elements", () => {
    for (const [name, generators] of SPACE.slice(-5)) {
      const [one, ...others] = generate(...generators);
      expect(nameFiniteGroup([one!, ...others.reverse()]).name).to.equal(name);
    }
  });

  it("of the plane is C_k, or D_k with reflections", () => {
    for (const k of [1, 2, 3, 4, 5, 8, 12]) {
      expect(nameFiniteGroup(generate(turn(360 / k, 2))).name).to.equal(`C_${k}`);
      const both = generate(turn(360 / k, 2), flip(2, 0));
      expect(nameFiniteGroup(both)).to.deep.include({ name: `D_${k}` });
      expect(both.filter((m) => determinant(m) < 0)).to.have.length(k);
    }
  });

  it("has elements of the orders that it should have", () => {
    const { elementOrders } = nameFiniteGroup(generate(...I));
    const count = (m: number) => elementOrders.filter((order) => order === m).length;
    expect([1, 2, 3, 5].map(count)).to.deep.equal([1, 15, 20, 24]);
    expect(elementOrders[0]).to.equal(1);
  });

  it("has the abstract name of its table, whatever the matrices", () => {
    const abstract = (...generators: SquareMatrix[]) =>
      abstractName(multiplicationTable(generate(...generators)));
    expect(abstract(LEVEL, UPRIGHT)).to.equal("C_2 × C_2");
    expect(abstract(LEVEL, UPRIGHT, MINUS)).to.equal("C_2 × C_2 × C_2");
    expect(abstract(turn(90), LEVEL)).to.equal("C_4 × C_2");
    expect(abstract(...T, multiply(turn(90), MINUS))).to.equal("O"); // T_d permutes four points
    expect(abstract(...T, MINUS)).to.equal("T × C_2");
    expect(abstract(...I, MINUS)).to.equal("I × C_2");
    expect(abstract(turn(120), MINUS)).to.equal("C_6");
    expect(abstract(turn(60), HALF)).to.equal("D_6");
    // The quaternion group: turns of R⁴ by i and j.
    const i = [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]]; // biome-ignore format: a matrix
    const j = [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]]; // biome-ignore format: a matrix
    expect(abstract(i, j)).to.equal(undefined);
    expect(nameFiniteGroup(generate(i, j)).name).to.equal("group of order 8");
  });

  it("of higher dimension has −1 split off", () => {
    const one = flip(4, 0, 1, 2, 3);
    expect(nameFiniteGroup(generate(one)).name).to.equal("{1, −1}");
    const three = turn(120, 4);
    expect(nameFiniteGroup(generate(three)).name).to.equal("C_3");
    expect(nameFiniteGroup(generate(three, one)).name).to.equal("C_3 × {1, −1}");
  });
});

describe("a group of components", () => {
  it("has the name of its table", () => {
    const lorentz = multiplicationTable(generate(flip(4, 0), flip(4, 1, 2, 3)));
    expect(nameComponentGroup(lorentz).name).to.equal("C_2 × C_2");
    expect(nameComponentGroup([[0]]).name).to.equal("C_1");
    expect(nameComponentGroup([[0, 1], [1, 0]]).name).to.equal("C_2"); // biome-ignore format: a table
  });
});
