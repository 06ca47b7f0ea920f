/** Which network is fitted to the user's arrays. */
import { expect } from "chai";
import type { Context } from "../../../src/experiment/context.js";
import { fitUsual } from "../../../src/method/own.js";

type Options = Parameters<Context["predictor"]>[0];

/** Fit where each network has a skill, in the order in which they are tried. */
async function fitted(kind: string, skills: readonly number[], samples = 500) {
  const tried: Options[] = [];
  const stages: string[] = [];
  const notes: string[] = [];
  const ctx = {
    predictor: async (options: Options) => {
      tried.push(options);
      return { handle: String(tried.length) };
    },
    advance: async (stage: string) => stages.push(stage),
    metrics: (stage: string) => {
      const skill = skills[stages.indexOf(stage)]!;
      return { skill, validation_loss: 1 - skill };
    },
    note: (line: string) => notes.push(line),
  } as unknown as Context;
  const options = {
    architecture: { kind, params: { own: 1 } },
    training: { kind: "supervised", params: { batch_size: 16 } },
    dataset: { shapes: { inputs: [samples, 1, 32, 32] } },
    epochs: 5,
  } as unknown as Options;
  const { about, fit } = await fitUsual(ctx, options);
  return { about, fit: fit!, tried, stages, notes };
}

describe("the network for the user's arrays", () => {
  it("is the usual one where that explains enough", async () => {
    const { about, tried, notes } = await fitted("strided_cnn", [0.95]);
    expect([tried.length, notes.length, about.stage]).to.deep.equal([1, 0, undefined]);
  });

  it("is the best of several where the usual one explains little, and that is told", async () => {
    const { about, fit, tried, stages, notes } = await fitted("strided_cnn", [0.2, 0.8, 0.6]);
    expect(stages).to.deep.equal(["predictor", "predictor_2", "predictor_3"]);
    expect(about.stage).to.equal("predictor_2");
    expect(fit.architecture.params).to.deep.equal({ own: 1, stride: 1, layers: 3 });
    expect(tried.map(({ epochs }) => epochs)).to.deep.equal([5, 27, 27]);
    expect(notes[0]).to.match(/0\.20 of strided_cnn, 0\.80 of .*stride 1 layers 3$/);
    const many = await fitted("strided_cnn", [0.2, 0.1, 0.1], 20_000);
    expect(many.tried.map(({ epochs }) => epochs)).to.deep.equal([5, 5, 5]);
    expect(many.about.stage).to.equal(undefined);
  });

  it("is a perceptron where products explain little", async () => {
    const { fit, about } = await fitted("polynomial", [0.2, 0.9]);
    expect([fit.architecture.kind, fit.epochs, about.stage]).to.deep.equal([
      "mlp",
      5,
      "predictor_2",
    ]);
  });
});
