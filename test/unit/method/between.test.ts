/** The best direction between those that were tried, of a predictor whose losses are known. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { namedAlgebra } from "../../../src/algebra/index.js";
import { inner, type SquareMatrix } from "../../../src/algebra/linalg.js";
import { bestBetween } from "../../../src/method/between.js";
import { judgeAlgebra } from "../../../src/method/verdict.js";
import type { SkillLost } from "../../../src/result.js";
import { measured } from "../algebra/helpers.js";
import { fakeTask } from "./fake-task.js";

const UNITS = namedAlgebra("gl(2)", 2)!;
const at = (lost: number, size: number): SkillLost => ({
  ...{ length: 1, size, lost, error: 0.005, floor: 0, reach: 1 },
});

describe("the best direction between others", () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-between-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  /** What moves of size 1 along a direction lose: the units' own shares, and a mixed term. */
  const lossOf = (direction: SquareMatrix, shares: readonly number[], mixed: number) => {
    const c = UNITS.map((e) => inner(e, direction));
    const own = c.reduce((sum, x, i) => sum + shares[i]! * x ** 2, 0);
    return own + 2 * mixed * c[0]! * c[3]!;
  };

  /** Judge a search that proposes the first unit, and leaves the others as its spectrum. */
  async function judged(shares: readonly number[], mixed: number) {
    const { ctx, fake, run, inputs } = await fakeTask(dir);
    Object.assign(fake, {
      measureEvidence: async (
        _: unknown,
        { directions = [], sizes = [] }: { directions?: SquareMatrix[]; sizes?: number[] },
      ) => ({
        ...{ skill: 0.99, skillError: 0.01, scenes: 300, heldOut: true, targets: true },
        matrices: [],
        directions: directions.map((each) =>
          sizes.map((size) => at(lossOf(each, shares, mixed) * size ** 0.5, size)),
        ),
      }),
    });
    const spectrum = UNITS.map((direction) => ({ direction, loss: 0.1, relativeError: 0.2 }));
    const found = await judgeAlgebra(ctx, inputs, measured(UNITS.slice(0, 1), { spectrum }));
    await run.close();
    return found.evidence!;
  }

  it("says that there is none where each combination loses much", async () => {
    const { verdict, words, directions } = await judged([1, 0.5, 0.8, 0.6], 0.1);
    expect(verdict).to.equal("none");
    expect(words).to.match(/^no symmetry: the best direction is broken by at least \d+ %/);
    expect(directions).to.have.length(5); // the fifth lies between the others
  });

  it("does not say so where a combination may be a symmetry", async () => {
    const { verdict, directions } = await judged([1, 0.5, 0.8, 0.6], -Math.sqrt(0.6));
    expect(verdict).to.equal("cannot tell");
    const [, between] = directions;
    expect(lossOf(between!.direction, [1, 0.5, 0.8, 0.6], -Math.sqrt(0.6))).to.be.below(1e-9);
    expect((await judged([1, 0, 0.8, 0.6], 0)).verdict).to.equal("cannot tell");
  });

  it("is the smallest eigenvector of what small moves lose", async () => {
    const shares = [0.4, 0.9, 0.8, 0.4];
    const tried = UNITS.map((direction, i) => ({ direction, sizes: [at(shares[i]!, 0.05)] }));
    const found = await bestBetween(tried, async (all) =>
      all.map((each) => at(lossOf(each, shares, 0.3), 0.05)),
    );
    expect(lossOf(found!, shares, 0.3)).to.be.closeTo(0.1, 1e-9);
    expect(await bestBetween(tried, async (all) => all.map(() => undefined))).to.equal(undefined);
  });
});
