/** The command line that repeats a run. */
import { expect } from "chai";
import { commandOf } from "../../../src/cli/cite.js";
import { completeConfig } from "../../../src/experiment/config.js";
import { builtinExperiments, loadExperiment } from "../../../src/experiment/load.js";
import type { RunConfig } from "../../../src/run/folder.js";

describe("the command of a run", function () {
  this.timeout(60_000); // all experiments are compiled
  /** The command of a run of `pde` with these fields. */
  async function of(given: Record<string, unknown>): Promise<string> {
    const { path } = builtinExperiments().find(({ name }) => name === "pde")!;
    const complete = { task: "discover", ...given };
    const { config, preset } = completeConfig(await loadExperiment(path), complete);
    const recorded = {
      experiment: "pde",
      preset,
      seed: 3,
      config: { ...config, task: "discover" },
    };
    return commandOf(recorded as unknown as RunConfig);
  }

  it("has what differs from the defaults, and the seed", async () => {
    expect(await of({})).to.equal("atlas pde --task=discover --preset=fast --seed=3");
    expect(await of({ layout: 2, N: 50 })).to.equal(
      "atlas pde --task=discover --preset=fast --layout=2 --N=50 --seed=3",
    );
  });

  it("has the choice of a block, and not the defaults that follow from it", async () => {
    expect(await of({ architecture: "reference_cnn" })).to.equal(
      "atlas pde --task=discover --preset=fast --architecture=reference_cnn --seed=3",
    );
  });

  it("has what is given without a flag, what took effect as given, and trust in code", async () => {
    const command = await commandOf({
      ...{ experiment: "audit", seed: 1 },
      config: {
        ...{ task: "audit", predictor: "net.py:load", inputs: "x.npy" },
        ...{ "solver.steps": 60, given_fields: ["solver.steps"] },
      },
    } as unknown as RunConfig);
    expect(command).to.match(/^atlas audit --task=audit net\.py:load --inputs=x\.npy /);
    expect(command).to.contain(" --solver.steps=60 ").and.to.contain(" --trust-code");
    expect(command).not.to.contain("given");
  });

  it("quotes what a shell would split", async () => {
    expect(await of({ reuse_predictor: "my nets/a.pt" })).to.contain(
      "'--reuse-predictor=my nets/a.pt'",
    );
  });
});
