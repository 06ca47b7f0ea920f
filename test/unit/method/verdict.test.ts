/** The verdict on an algebra, of a predictor whose losses are known. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { determinant } from "ml-matrix";
import { inward, outward } from "../../../src/algebra/factors.js";
import { analyseCosets, namedAlgebra } from "../../../src/algebra/index.js";
import { norm, type SquareMatrix, unit } from "../../../src/algebra/linalg.js";
import { frame, project } from "../../../src/algebra/span.js";
import { certainGenerators } from "../../../src/method/certain.js";
import { judgeAlgebra, judgeCosets, widened } from "../../../src/method/verdict.js";
import type { AlgebraMeasured, SkillLost } from "../../../src/result.js";
import { diagonal, measured } from "../algebra/helpers.js";
import { fakeTask } from "./fake-task.js";

const ROTATIONS = namedAlgebra("so(3)", 3)!.map(unit);
const EVERYTHING = frame([...ROTATIONS, ...namedAlgebra("gl(3)", 3)!]);

describe("the verdict on an algebra", () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-verdict-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  /** A search that proposes one rotation of three. */
  const proposed = (): AlgebraMeasured =>
    measured(ROTATIONS.slice(0, 1), {
      spectrum: EVERYTHING.map((direction) => ({ direction, loss: 0.1, relativeError: 0.2 })),
    });

  /**
   * Judge where rotations lose nothing, and the rest of a direction loses its share of 1.
   *
   * @param skew what the rotations but the first lose, by the size of moves
   */
  async function judged(
    found: AlgebraMeasured,
    skill: number,
    skew: number | ((size: number) => number) = 0,
    inside = (direction: SquareMatrix) => direction,
  ) {
    const { ctx, fake, run, inputs } = await fakeTask(dir);
    const lost = (direction: SquareMatrix, size: number): SkillLost => {
      const others = norm(project(direction, ROTATIONS.slice(1))) ** 2;
      const part = typeof skew === "number" ? skew : skew(size);
      const share = 1 - norm(project(direction, ROTATIONS)) ** 2 + part * others;
      return { length: 1, size, lost: share * size * 2, error: 0.005, floor: 0, reach: 1 };
    };
    Object.assign(fake, {
      measureEvidence: async (
        _: unknown,
        { directions = [], sizes = [] }: { directions?: SquareMatrix[]; sizes?: number[] },
      ) => ({
        ...{ skill, skillError: 0.01, scenes: 300, heldOut: true, targets: true, matrices: [] },
        directions: directions.map((each) => sizes.map((size) => lost(inside(each), size))),
      }),
    });
    const result = await judgeAlgebra(ctx, inputs, found);
    await run.close();
    return result;
  }

  it("asks for the generators that the search left out", async () => {
    const first = await judged(proposed(), 0.9);
    expect(first.symmetryCount).to.equal(1);
    expect(first.evidence!.words).to.match(
      /\. 2 other directions may be symmetries too: the data cannot tell$/,
    );
    const found = proposed();
    const again = await judged(widened(found, await judged(found, 0.9))!, 0.9);
    expect(again.symmetryCount).to.equal(3);
    expect(again.identified.name).to.equal("so(3)");
    expect(again.evidence!.verdict).to.equal("symmetry");
    expect(again.evidence!.words).not.to.contain("may be");
  });

  it("asks for none where it proposed all that may hold, or nothing can be told", async () => {
    const all = { ...proposed(), generators: ROTATIONS, losses: [1, 1, 1], relativeErrors: [0, 0, 0] }; // biome-ignore format: one line
    expect(widened(all, await judged(all, 0.9))).to.equal(undefined);
    const found = proposed();
    expect(widened(found, await judged(found, 0))).to.equal(undefined);
  });

  it("names what may hold where a bound is too wide, and why", async () => {
    const found = proposed();
    const all = widened(found, await judged(found, 0.9))!;
    const { evidence, symmetryCount } = await judged(all, 0.3);
    expect(symmetryCount).to.equal(0);
    expect(evidence!.plausible).to.equal(3);
    expect(evidence!.words).to.match(
      /^cannot tell: so\(3\) may hold, but a breaking of up to \d+ % .* cannot be excluded/,
    );
  });

  it("compares affine maps in coordinates in which a translation is as large as a rotation", async () => {
    const coordinates = [[0.02, 0, -2000], [0, 0.02, -4000], [0, 0, 1]]; // biome-ignore format: a matrix
    const unitAt = (i: number, j: number) =>
      [0, 1, 2].map((k) => [0, 1, 2].map((l) => Number(k === i && l === j)));
    const maps = [0, 1].flatMap((i) => [0, 1, 2].map((j) => unitAt(i, j)));
    const [turn] = outward([[[0, -1, 0], [1, 0, 0], [0, 0, 0]]], coordinates); // biome-ignore format: a matrix
    const factors = [{ name: "", n: 2, affine: true, map: false }];
    const found = measured([turn!], {
      ...{ coordinates, factors },
      spectrum: outward(maps, coordinates).map((direction) => ({
        ...{ direction, loss: 0.1, relativeError: 0.2 },
      })),
    });
    const { evidence, symmetryCount } = await judged(found, 0.99, 0, (direction) => {
      const [inside] = inward([direction], coordinates);
      return unit(inside!);
    });
    expect([symmetryCount, evidence!.verdict]).to.deep.equal([1, "symmetry"]);
    // The rotation itself, and five other maps than it; none moves the row below.
    expect(evidence!.directions.length).to.be.within(4, 6);
    for (const { direction } of evidence!.directions)
      expect(Math.hypot(...direction[2]!)).to.equal(0);
  });

  it("tells of a wider algebra that holds approximately", async () => {
    const all = { ...proposed(), generators: ROTATIONS, losses: [1, 1, 1], relativeErrors: [0, 0, 0] }; // biome-ignore format: one line
    const { evidence, symmetryCount } = await judged(all, 0.99, 0.05);
    expect([symmetryCount, evidence!.approximate]).to.deep.equal([1, 2]);
    expect(evidence!.words).to.match(
      /^so\(2\) on axes \d,\d: not broken .*\. so\(3\) holds approximately: broken by/,
    );
    const { generators, approximate, notes } = certainGenerators({
      ...all,
      symmetryCount,
      evidence,
    });
    expect([generators.length, approximate]).to.deep.equal([1, false]);
    expect(notes).to.deep.equal([
      "2 generators are left out: with them, the symmetry holds only approximately",
    ]);
  });

  it("tells which generators are a symmetry of larger moves, and takes these", async () => {
    const all = { ...proposed(), generators: ROTATIONS, losses: [1, 1, 1], relativeErrors: [0, 0, 0] }; // biome-ignore format: one line
    const { evidence, symmetryCount } = await judged(all, 0.99, (size) => (size > 0.3 ? 0.1 : 0));
    expect([symmetryCount, evidence!.size]).to.deep.equal([3, 0.2]);
    expect(evidence!.lasting!.generators).to.equal(1);
    expect(evidence!.lasting!.size).to.be.at.least(0.5);
    expect(evidence!.words).to.match(
      /^so\(3\): not broken .*\. so\(2\) on axes \d,\d alone also holds for moves of size [\d.]+:/,
    );
    const { generators, notes } = certainGenerators({ ...all, symmetryCount, evidence });
    expect(generators).to.have.length(1);
    expect(notes).to.deep.equal([
      "2 generators are left out: with them, the symmetry holds only for moves up to a size of 0.20",
    ]);
    expect((await judged(all, 0.99)).evidence!.lasting).to.equal(undefined);
  });
});

describe("the verdict on components", () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-verdict-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  /** Judge matrices by what they lose, where directions lose far more. */
  async function verdicts(
    matrices: SquareMatrix[],
    losses: (g: SquareMatrix) => number,
    algebra: SquareMatrix[] = [],
    reach: (g: SquareMatrix) => number = () => 1,
  ) {
    const { ctx, fake, run, inputs } = await fakeTask(dir);
    const at = (lost: number, reach = 1): SkillLost => ({
      ...{ length: 1, size: 0.5, lost, error: 0.005, floor: 0, reach },
    });
    Object.assign(fake, {
      measureEvidence: async (
        _: unknown,
        options: { directions?: SquareMatrix[]; matrices?: SquareMatrix[] },
      ) => ({
        ...{ skill: 0.95, skillError: 0.01, scenes: 300, heldOut: true, targets: true },
        directions: (options.directions ?? []).map(() => [at(2)]),
        matrices: (options.matrices ?? []).map((g) => at(losses(g), reach(g))),
      }),
    });
    const cosets = analyseCosets({ matrices, losses: matrices.map(() => 0.1) }, algebra);
    const { judged } = await judgeCosets(ctx, inputs, cosets, algebra);
    await run.close();
    return judged.map((coset) => coset?.evidence?.verdict);
  }

  const turned = (angle: number) => [
    [Math.cos(angle), -Math.sin(angle)],
    [Math.sin(angle), Math.cos(angle)],
  ];
  const angleOf = (g: SquareMatrix) => Math.atan2(g[1]![0]!, g[0]![0]!);

  it("drops one that holds approximately, and only leads to a better one", async () => {
    // Turns lose least at 0 and near 2, a little there, and most between; all else loses far more.
    const losses = (halfway: number) => (g: SquareMatrix) => {
      const angle = angleOf(g);
      return angle < 0.1 ? 0 : Math.abs(angle - 2) < 0.1 ? 0.08 : halfway;
    };
    const both = [turned(0), turned(2)];
    expect(await verdicts(both, losses(0.5))).to.deep.equal(["symmetry", "approximate"]);
    expect(await verdicts(both, losses(0.1))).to.deep.equal(["symmetry", undefined]);
  });

  it("keeps one with another component on the way to a better one", async () => {
    const quarters = [0, Math.PI / 2, 3.1].map(turned);
    const losses = (g: SquareMatrix) =>
      Math.abs(angleOf(g)) > 3 ? 0.08 : Math.sin(2 * angleOf(g)) ** 2;
    expect(await verdicts(quarters, losses)).to.deep.equal(["symmetry", "symmetry", "approximate"]);
  });

  describe("of turns about one axis", () => {
    const axis = ROTATIONS.filter((b) => Math.hypot(...b[2]!) < 1e-9);
    const one = diagonal(1, 1, 1);
    const flip = diagonal(1, 1, -1);
    // As the flip, but for half a turn and a scaling by 1.3.
    const again = diagonal(-1.3, -1.3, -1.3);
    // Flips of the axis lose a little, scaled ones more. What tilts the axis loses most.
    const losses = (g: SquareMatrix) => {
      const scale = Math.abs(determinant(g)) ** (1 / 3);
      const along = g[2]![2]! / scale;
      return Math.abs(along) < 0.9 ? 1 : along > 0 ? 0 : 0.06 + 0.1 * Math.abs(scale - 1);
    };

    it("keeps one of two that differ by a turn and a scaling", async () => {
      expect(axis).to.have.length(1);
      const kept = async (...matrices: SquareMatrix[]) => verdicts(matrices, losses, axis);
      expect(await kept(one, flip, again)).to.deep.equal(["symmetry", "approximate", undefined]);
      expect(await kept(one, again, flip)).to.deep.equal(["symmetry", undefined, "approximate"]);
      const turns = [flip, diagonal(-1, -1, -1)]; // lose the same
      expect(await kept(...turns)).to.deep.equal(["approximate", undefined]);
      expect(await kept(...turns.toReversed())).to.deep.equal(["approximate", undefined]);
    });

    it("keeps one where the better one is out of reach", async () => {
      const far = (g: SquareMatrix) => (g === flip ? 9 : 1);
      const expected = ["cannot tell", "approximate"];
      expect(await verdicts([flip, again], losses, axis, far)).to.deep.equal(expected);
    });

    it("keeps all that are exact", async () => {
      const same = [flip, again, flip];
      expect(await verdicts(same, () => 0, axis)).to.deep.equal(same.map(() => "symmetry"));
    });

    it("keeps those to which only paths of a larger loss lead, or none", async () => {
      const tilted = [
        [1, 0, 0],
        [0, Math.cos(3), -Math.sin(3)],
        [0, Math.sin(3), Math.cos(3)],
      ];
      const all = [one, tilted, flip];
      const expected = ["symmetry", "approximate", "approximate"];
      expect(await verdicts(all, losses, axis)).to.deep.equal(expected);
    });
  });
});
