import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { UsageError } from "../../../src/errors.js";
import { completeConfig } from "../../../src/experiment/config.js";
import { defineExperiment, task } from "../../../src/experiment/define.js";
import {
  algebraFields,
  alternates,
  checkAlgebra,
  discoverAlgebra,
  predictorFields,
  solveAlgebra,
  symmetries,
} from "../../../src/method/index.js";
import { fakeTask, QUARTER } from "./fake-task.js";

describe("the search for an algebra", () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-method-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const fields = (k: number | "auto", trained = true) =>
    defineExperiment({
      name: "x",
      summary: "",
      tasks: {
        find: task({
          summary: "",
          config: {
            ...predictorFields({
              manifold: "vectors",
              architecture: { default: "mlp" },
              epochs: 4,
              training: () => ({ supervised: { batch_size: 5 } }),
            }),
            ...algebraFields({
              manifold: "vectors",
              most: 4,
              k,
              epochs: 2,
              values: () => ({ atlasd: { r1: 0.1, r3: 2 } }),
              trained,
            }),
          },
          run: async () => ({}) as never,
        }),
      },
    });
  const complete = (given: object, k: number | "auto" = 2) =>
    completeConfig(fields(k), given as never).config as never as Parameters<typeof solveAlgebra>[1];

  it("takes the predictor as it is, or trains both in turn", async () => {
    for (const [train, log] of [
      [false, ["algebra 1", "algebra 2"]],
      [true, ["predictor 1", "algebra 1", "predictor 2", "algebra 2"]],
    ] as const) {
      const { ctx, fake, run, inputs } = await fakeTask(dir);
      const solver = { kind: "grassmann" } as const;
      const algebra = await discoverAlgebra(ctx, inputs, { solver, k: "auto", epochs: 2, train });
      await run.close();
      expect(fake.log.slice(1)).to.deep.equal(log);
      expect(algebra.identified.name).to.equal("so(2)");
      expect(algebra.generators).to.have.length(2);
      expect(symmetries(algebra)).to.deep.equal([QUARTER]);
      expect(Object.keys(ctx.timings)).to.include("algebra");
    }
  });

  it("is by the solver and the epochs that a config says", async () => {
    for (const [given, log] of [
      [{}, ["algebra 1", "algebra 2"]],
      [{ solver: "atlasd" }, [1, 2, 3, 4].flatMap((e) => [`predictor ${e}`, `algebra ${e}`])],
      [{ solver: "atlasd", reuse_predictor: "a.pt" }, [1, 2, 3, 4].map((e) => `algebra ${e}`)],
    ] as const) {
      const { reuse_predictor, ...chosen }: { solver?: string; reuse_predictor?: string } = given;
      const { ctx, fake, run, inputs } = await fakeTask(dir);
      await solveAlgebra(ctx, { ...complete(chosen), reuse_predictor }, inputs);
      await run.close();
      expect(fake.log.slice(1)).to.deep.equal(log);
      const { solver, k } = fake.made.at(-1)!.options as { solver: { kind: string }; k: number };
      expect([solver.kind, k]).to.deep.equal([chosen.solver ?? "grassmann", 2]);
    }
  });

  it("has the experiment's own values of the solver's parameters", () => {
    expect(complete({ solver: "atlasd" })).to.include({
      "solver.r1": 0.1,
      "solver.r2": 1,
      "solver.r3": 2,
      "solver.learning_rate": 5e-4,
      "solver.batch_size": 5,
    });
    expect(complete({ solver: "atlasd", batch_size: 7 })).to.include({ "solver.batch_size": 7 });
    expect(complete({ batch_size: 7 })).to.include({ "solver.batch_size": 4 }); // grassmann's own
    for (const wrong of [{ r1: -0.1 }, { r2: Number.NaN }, { r3: "1" }])
      expect(() => complete({ solver: "atlasd", ...wrong })).to.throw(UsageError);
  });

  it("finds the number of generators only by a solver that can", () => {
    const check = (given: object) => checkAlgebra(complete(given, "auto"), given as never);
    check({});
    check({ solver: "atlasd", k: 1 });
    expect(() => check({ solver: "atlasd" })).to.throw(UsageError, "atlasd");
    expect(() => check({ solver: "atlasd", k: 1, algebra_epochs: 3 })).to.throw(
      UsageError,
      /--algebra-epochs.*--solver atlasd/,
    );
    check({ algebra_epochs: 3 });
    expect(complete({ k: 0 }, "auto").k).to.equal("auto"); // as version 0.1 had it
    for (const k of [5, 0.5, -1, "none"])
      expect(() => complete({ k }, "auto")).to.throw(UsageError);
    expect(() => complete({ k: 0 }, 2)).to.throw(UsageError);
  });

  it("knows the solver that takes turns, by its former name too", () => {
    expect(
      ["atlasd", "paper", "grassmann", "liegan", undefined].map((solver) => alternates({ solver })),
    ).to.deep.equal([true, true, false, false, false]);
    expect(() => completeConfig(fields(1, false), { solver: "atlasd" } as never)).to.throw(
      UsageError,
    );
  });
});
