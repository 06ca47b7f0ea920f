/** The verdict on an algebra, of a predictor whose losses are known. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { namedAlgebra } from "../../../src/algebra/index.js";
import { norm, type SquareMatrix, unit } from "../../../src/algebra/linalg.js";
import { frame, project } from "../../../src/algebra/span.js";
import { judgeAlgebra, widened } from "../../../src/method/verdict.js";
import type { AlgebraMeasured, SkillLost } from "../../../src/result.js";
import { measured } from "../algebra/helpers.js";
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

  /** Judge where rotations lose nothing, and the rest of a direction loses its share of 1. */
  async function judged(found: AlgebraMeasured, skill: number) {
    const { ctx, fake, run, inputs } = await fakeTask(dir);
    const lost = (direction: SquareMatrix, size: number): SkillLost => {
      const share = 1 - norm(project(direction, ROTATIONS)) ** 2;
      return { length: 1, size, lost: share * size * 2, error: 0.005, floor: 0, reach: 1 };
    };
    Object.assign(fake, {
      measureEvidence: async (
        _: unknown,
        { directions = [], sizes = [] }: { directions?: SquareMatrix[]; sizes?: number[] },
      ) => ({
        ...{ skill, skillError: 0.01, scenes: 300, heldOut: true, targets: true, matrices: [] },
        directions: directions.map((each) => sizes.map((size) => lost(each, size))),
      }),
    });
    const result = await judgeAlgebra(ctx, inputs, found);
    await run.close();
    return result;
  }

  it("asks for the generators that the search left out", async () => {
    const first = await judged(proposed(), 0.9);
    expect(first.symmetryCount).to.equal(0);
    expect(first.evidence!.verdict).to.equal("cannot tell");
    const found = proposed();
    const again = await judged(widened(found, await judged(found, 0.9))!, 0.9);
    expect(again.symmetryCount).to.equal(3);
    expect(again.identified.name).to.equal("so(3)");
    expect(again.evidence!.verdict).to.equal("symmetry");
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
});
