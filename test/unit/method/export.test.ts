/** Exports of symmetries: what is written, and what is refused. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { UsageError } from "../../../src/errors.js";
import { exportSymmetry } from "../../../src/method/export.js";
import type { Run } from "../../../src/run/folder.js";

const TURN = [
  [0, -1],
  [1, 0],
];
const algebra = {
  ...{ generators: [TURN], losses: [0.01], relativeErrors: [0.01], noiseFloor: 0 },
  ...{ symmetryCount: 1, explanation: "measured", readableBasis: [TURN] },
  ...{ closure: { max: 0, mean: 0 }, killingSignature: { positive: 0, negative: 0, zero: 1 } },
  identified: { name: "so(2)", cosine: 1, grassmannDistance: 0, angleDegrees: 0.5 },
};
const document = (more: object) => ({
  ...{ schema: "atlas.result/2", experiment: "pde", task: "discover", seed: 0, timings: {} },
  predictor: { loss: null, epochs: 0, source: "trained" },
  environment: { device: "cpu", threads: 1, versions: {} },
  ...more,
});

describe("an export of a symmetry", () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-export-"));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const run = (result: object | undefined) =>
    ({
      id: "one",
      path: join(dir, "run"),
      config: { experiment: "pde", seed: 0, created: "now", config: {} },
      result: async () => result,
      status: async () => "interrupted",
    }) as unknown as Run;
  const refused = async (result: object | undefined, format: "json" | "torch" = "json") => {
    const error = await exportSymmetry(run(result), join(dir, "out"), format).catch((e) => e);
    expect(error).to.be.instanceOf(UsageError);
    expect(existsSync(join(dir, "out"))).to.equal(false);
    return (error as UsageError).message;
  };

  it("has the matrices, a README, and for torch a file with these matrices", async () => {
    const out = join(dir, "out");
    const told = await exportSymmetry(run(document({ algebra })), out, "torch");
    expect(told).to.include({ name: "so(2)", generators: 1, verdict: "not judged" });
    const written = JSON.parse(readFileSync(join(out, "symmetry.json"), "utf8"));
    expect(written.generators).to.deep.equal([TURN]);
    expect(written.accuracy).to.be.closeTo((0.5 * Math.PI) / 180, 1e-6);
    const code = readFileSync(join(out, "symmetry.py"), "utf8");
    expect(code)
      .to.match(/COMPONENTS: .* = \[\]/)
      .and.match(/NAME = "so\(2\)"/);
    expect(readFileSync(join(out, "README.md"), "utf8")).to.include("no evidence");
    await exportSymmetry(run(document({ algebra })), out, "json", { force: true });
    expect(existsSync(join(out, "symmetry.py"))).to.equal(false);
  });

  it("is refused without a finished search that found something", async () => {
    expect(await refused(undefined)).to.include("no result yet");
    expect(await refused(document({}))).to.include("no symmetry");
    const none = { ...algebra, symmetryCount: 0 };
    expect(await refused(document({ algebra: none }))).to.include("measured");
  });

  it("is refused for torch where points are translated", async () => {
    const factors = [{ name: "", n: 1, affine: true, map: false }];
    const affine = { ...algebra, factors };
    expect(await refused(document({ algebra: affine }), "torch")).to.include("translates");
  });

  it("does not go into a folder of others", async () => {
    writeFileSync(join(dir, "notes.txt"), "mine");
    const made = exportSymmetry(run(document({ algebra })), dir, "json", { force: true });
    expect(await made.catch((e) => e)).to.be.instanceOf(UsageError);
    expect(existsSync(join(dir, "symmetry.json"))).to.equal(false);
  });
});
