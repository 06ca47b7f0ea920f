import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import {
  describeIoU,
  equivarianceUnder,
  planeRotations,
  score,
} from "../../../src/method/index.js";
import { fakeTask } from "./fake-task.js";

describe("the evidence", () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-method-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  it("has a classifier's scores in the order of their names, and counts the time", async () => {
    const { ctx, fake, run, inputs } = await fakeTask(dir);
    const asked: unknown[] = [];
    Object.assign(fake, {
      scorePredictor: async (...objects: unknown[]) => {
        asked.push(objects);
        return { auc: 0.9, accuracy: 0.8, "recall 10": 0.1, Recall: 0.2 };
      },
    });
    const scores = await score(ctx, inputs.predictor, inputs.dataset);
    await run.close();
    expect(asked).to.deep.equal([[inputs.predictor, inputs.dataset]]);
    expect(Object.entries(scores)).to.deep.equal([
      ["Recall", 0.2],
      ["accuracy", 0.8],
      ["auc", 0.9],
      ["recall 10", 0.1],
    ]);
    expect(Object.keys(ctx.timings)).to.include("scores");
  });

  it("says what each matrix does, and how much interpolation may cause", async () => {
    const { ctx, fake, run, inputs } = await fakeTask(dir);
    Object.assign(fake, {
      measureEquivariance: async () => [
        { loss: 1, distance: 0.2, relativeError: 0.5, interpolationError: 0.1 },
        { loss: 0, distance: 0, relativeError: 0, interpolationError: 0 },
      ],
    });
    const moves = planeRotations([90, 180]);
    const found = await equivarianceUnder(ctx, inputs.predictor, moves);
    await run.close();
    expect(found.map(({ name }) => name)).to.deep.equal(["rotation by 90°", "rotation by 180°"]);
    expect(found.map(({ matrix }) => matrix)).to.deep.equal(Object.values(moves));
    expect(found[0]).to.include({ distance: 0.2, relativeError: 0.5, interpolation: 0.25 });
    expect(found[1]!.interpolation).to.equal(0);
  });

  it("says how well pixels are told apart, beside whatever is known of others", () => {
    expect(describeIoU({ mean_iou: 0.48 })).to.match(/^mean IoU 0\.480 [^()\d]*$/);
    const some = { mean_iou: 0.48, trivial_mean_iou: 0.31, experts_mean_iou: null };
    expect(describeIoU(some)).to.match(/^mean IoU 0\.480 [^()\d]*\([^;\d]*constant 0\.310\)$/);
  });
});
