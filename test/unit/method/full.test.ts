/** Full evidence: refits, planted breakings, other coordinates. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { discoverAlgebra } from "../../../src/method/algebra.js";
import { agrees, describeAgreement, describeLimits, limitsOf } from "../../../src/method/index.js";
import { recoveredShare, weigh } from "../../../src/method/rule.js";
import type { SkillLost } from "../../../src/result.js";
import type { EvidenceOptions } from "../../../src/worker/session/index.js";
import { fakeTask } from "./fake-task.js";

const at = (lost: number, planted?: number, size = 0.2): SkillLost => ({
  ...{ length: 1, size, lost, error: 0.005, floor: 0, reach: 1, planted },
});

describe("full evidence", () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-full-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  it("takes the share of a planted breaking over all directions, beyond what they lost before", () => {
    const own = [[at(0.01)], [at(0.02)]];
    expect(recoveredShare(own, [[at(0.11, 0.2)], [at(0.12, 0.2)]], 0.2)).to.be.closeTo(0.5, 1e-9);
    expect(recoveredShare(own, [[at(0.9, 0.2)], [at(0.9, 0.2)]], 0.2)).to.equal(1);
    expect(recoveredShare(own, [[at(0.1, 0)], [at(0.1, 0)]], 0.2)).to.equal(null);
  });

  it("sets the bound by what planted breakings show, and not by what is unexplained", () => {
    const [inside, outside] = [[[at(0.002)]], [[at(0.8)]]];
    const noisy = weigh(inside, outside, 0.7);
    expect(noisy.verdict).to.equal("cannot tell");
    const shown = weigh(inside, outside, 0.7, undefined, () => 0.8);
    expect(shown.verdict).to.equal("symmetry");
    expect(shown.broken.high).to.be.closeTo(Math.sqrt(0.0118 / 0.8), 1e-3);
    const hidden = weigh(inside, outside, 0.7, undefined, () => 0.02);
    expect(hidden.verdict).to.equal("cannot tell");
    expect(hidden.reason).to.contain("2.0 %");
  });

  it("says above which sizes breakings would have been seen, for each length", () => {
    const own = [[at(0)]];
    const planted = [0.2, 0.1, 0.001].map((lost, i) => ({
      length: [2, 1, 0.5][i]!,
      directions: [[at(lost, 0.2)]],
    }));
    const limits = limitsOf(own, planted, 0.2, 0.04, "spread");
    expect(limits.map(({ above }) => above)).to.deep.equal([0.2, Math.sqrt(0.08), null]);
    expect(describeLimits(limits)).to.deep.equal([
      "A smooth breaking above 20 % would have been seen (one that changes over 1 of the inputs' " +
        "spread: 28 %; one that changes over 0.5 of the inputs' spread: not at all)",
    ]);
    expect(describeLimits([])).to.deep.equal([]);
    expect(describeLimits(limits.slice(2))[0]).to.contain("No breaking");
  });

  it("compares other coordinates with refits", () => {
    const same = { refits: [0.2, 0.4], systems: [0.7, 0.1, 0.3] };
    expect(agrees(same)).to.equal(true);
    expect(describeAgreement(same)).to.deep.equal([
      "Same answer in 3 other coordinate systems, within 0.7°",
    ]);
    const other = { refits: [0.2], systems: [30] };
    expect(agrees(other)).to.equal(false);
    expect(describeAgreement(other)[0]).to.contain("30.0° away");
    expect(describeAgreement({ refits: [1] })[0]).to.contain("not tested");
  });

  it("fits five times more, plants three breakings and changes the coordinates three times", async () => {
    const { ctx, fake, run, inputs } = await fakeTask(dir);
    const asked: EvidenceOptions[] = [];
    const measure = fake.measureEvidence.bind(fake);
    fake.measureEvidence = async (predictor, options = {}) => {
      asked.push(options);
      return measure(predictor, options);
    };
    const training = { kind: "supervised", params: { batch_size: 8 } } as const;
    const { dataset } = inputs;
    const atlas = { ...inputs.atlas, kind: "vectors" };
    const fit = { architecture: { kind: "mlp" }, training, dataset, atlas, epochs: 2 } as const;
    const search = { solver: { kind: "grassmann" }, k: 2, epochs: 1, evidence: "full" } as const;
    const found = await discoverAlgebra(ctx, { ...inputs, fit }, search);
    await discoverAlgebra(ctx, { ...inputs, fit }, { ...search, stage: "again" });
    await run.close();
    const trainings = fake.made.flatMap(({ type, options }) =>
      type === "predictor" ? [(options.training as { params?: object }).params ?? {}] : [],
    );
    const count = (field: string) => trainings.filter((params) => field in params).length;
    expect(count("left_out")).to.equal(5); // though two algebras were judged
    expect(count("planted")).to.equal(3);
    expect(count("coordinates")).to.be.at.least(3);
    expect(trainings.filter((p) => "left_out" in p).every((p) => "batch_size" in p)).to.equal(true);
    expect(asked[0]!.refits).to.have.length(5);
    expect(found.evidence!.coordinateAngles).to.have.length(3);
    for (const angle of found.evidence!.coordinateAngles!) expect(angle).to.be.below(1e-6);
    expect(found.evidence!.words).to.contain("Same answer in 3 other coordinate systems");
  });

  it("says that a predictor from elsewhere is not fitted again", async () => {
    const { ctx, run, inputs } = await fakeTask(dir);
    const search = { solver: { kind: "grassmann" }, k: 2, epochs: 1, evidence: "full" } as const;
    const found = await discoverAlgebra(ctx, inputs, search);
    await run.close();
    expect(found.symmetryCount).to.equal(1);
    expect(ctx.notes.join()).to.contain("not fitted again");
  });
});
