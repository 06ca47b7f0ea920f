import { expect } from "chai";
import { blocksOf, paramsOf } from "../../../src/blocks.js";
import { UsageError } from "../../../src/errors.js";
import { choose, chooseLater, chosen, kindsFor, settle } from "../../../src/experiment/choice.js";
import { completeConfig } from "../../../src/experiment/config.js";
import { defineExperiment, task } from "../../../src/experiment/define.js";
import { flagsOf } from "../../../src/experiment/flags.js";

const run = async () => ({}) as never;
const experiment = defineExperiment({
  name: "x",
  summary: "",
  tasks: {
    find: task({
      summary: "",
      config: {
        ...choose("solver", "algebra_solver", {
          description: "How",
          default: "grassmann",
          flags: {
            r1: "r1",
            scale: ["size", "scale"],
            learning_rate: { names: ["basis_lr"], kinds: ["atlasd"] },
            gap: { names: ["gap"], listed: false },
          },
          implies: { r3: "atlasd" },
          omit: ["standard_basis"],
          values: ({ solver }) => ({
            "*": { threshold: 0.5 },
            grassmann: { threshold: 0.25, steps: solver === "grassmann" ? 7 : 8 },
          }),
          before: { grassmann: { steps: 60 } },
          former: ["method"],
          formerKinds: { fast: { kind: "grassmann", params: { steps: 0, start: "spectral" } } },
        }),
      },
      presets: { plain: {}, long: { solver: "atlasd", "solver.r1": 3, "solver.scale": 2 } },
      run,
    }),
  },
});
const complete = (given: object, preset?: string) =>
  completeConfig(experiment, given as never, { preset });
const refusal = (given: object): string => {
  try {
    complete(given);
  } catch (error) {
    if (error instanceof UsageError) return `${error.message}; ${error.remedy}`;
    throw error;
  }
  throw new Error("expected a UsageError");
};

describe("a config field that chooses a block", () => {
  it("is made by a parameter that implies it, unless the user makes it", () => {
    expect(complete({ "solver.r3": 2 }).config).to.include({ solver: "atlasd", "solver.r3": 2 });
    expect(refusal({ "solver.r3": 2, solver: "grassmann" })).to.include("has no effect");
    expect(refusal({ r1: 2 })).to.include("has no effect"); // it implies nothing
  });

  it("is completed by the experiment's own values, then the catalogue's", () => {
    const { config } = complete({});
    expect(config).to.include({
      solver: "grassmann",
      "solver.threshold": 0.25,
      "solver.steps": 7,
      "solver.starts": paramsOf(blocksOf("algebra_solver").grassmann!).starts!.default,
    });
    expect(config).to.not.have.any.keys("solver.r1", "solver.standard_basis");
    const other = complete({ solver: "atlasd" }).config;
    expect(other).to.include({ solver: "atlasd", "solver.threshold": 0.5, "solver.r1": 0.05 });
    expect(other).to.not.have.any.keys("solver.steps", "solver.starts");
  });

  it("keeps what a recorded run did before it had a parameter", () => {
    const recorded = (given: object) =>
      completeConfig(experiment, { task: "find", ...given } as never, { recorded: true }).config;
    const former = recorded({ solver: "grassmann" });
    expect(former).to.include({ "solver.steps": 60, "solver.threshold": 0.25 });
    expect(recorded({ solver: "grassmann", "solver.steps": 5 })).to.include({ "solver.steps": 5 });
    expect(recorded({ solver: "atlasd" })).to.not.have.any.keys("solver.steps");
  });

  it("has the same values if it is made later, whether or not its kind is given", () => {
    const fields = chooseLater("network", "architecture", { description: "", kinds: ["mlp"] });
    const later = defineExperiment({
      name: "y",
      summary: "",
      tasks: { fit: task({ summary: "", config: fields, run }) },
    });
    const settled = (given: object) => {
      const { config } = completeConfig(later, { task: "fit", ...given });
      return settle(config, fields, "architecture", "mlp", { mlp: { width: 7 } });
    };
    expect(settled({}).params).to.include({ width: 7, layers: 2 });
    expect(settled({ network: "mlp" })).to.deep.equal(settled({}));
    expect(settled({ network: "mlp", "network.width": 9 }).params).to.include({ width: 9 });
    expect(() => settled({ network: "mlp", "network.width": -1 })).to.throw(UsageError);
  });

  it("becomes the block that is sent", () => {
    const { config } = complete({ "solver.steps": 3 });
    const { kind, params } = chosen(config, "solver", "algebra_solver");
    expect(kind).to.equal("grassmann");
    const { standard_basis: _, ...others } = paramsOf(blocksOf("algebra_solver").grassmann!);
    expect(Object.keys(params!)).to.deep.equal(Object.keys(others));
    expect(params).to.include({ steps: 3, threshold: 0.25 });
  });

  it("refuses a parameter that the chosen kind does not have, saying which has it", () => {
    expect(refusal({ "solver.steps": 3, solver: "atlasd" })).to.match(
      /--solver\.steps .*--solver atlasd; .*grassmann/,
    );
    expect(refusal({ r1: 3 })).to.match(/--r1 .*--solver grassmann; .*atlasd/);
    expect(refusal({ basis_lr: 3 })).to.match(/--basis-lr .*--solver grassmann; .*atlasd/);
    expect(complete({ basis_lr: 3, solver: "atlasd" }).config).to.include({
      "solver.learning_rate": 3,
    });
    expect(refusal({ "solver.stepz": 3 })).to.contain("did you mean solver.steps?");
  });

  it("refuses a value that the catalogue does not accept, saying what it does", () => {
    for (const [given, expected] of [
      [{ "solver.steps": -1 }, "--solver.steps is -1: expected a whole number of at least 0"],
      [{ "solver.steps": 2.5 }, "expected a whole number"],
      [{ scale: 11 }, "--size is 11: expected a number from 0.001 to 10"],
      [{ "solver.start": "cold" }, "expected one of random, spectral"],
    ] as const)
      expect(refusal(given)).to.contain(expected);
  });

  it("leaves out what a preset says of another kind", () => {
    expect(complete({}, "long").config).to.include({ "solver.r1": 3, "solver.scale": 2 });
    const { config } = complete({ solver: "grassmann" }, "long");
    expect(config).to.include({ solver: "grassmann", "solver.scale": 1 });
    expect(config).to.not.have.any.keys("solver.r1");
  });

  it("knows former names, of the field, of kinds and of kinds with parameters", () => {
    for (const given of [{ solver: "paper" }, { method: "paper" }, { method: "atlasd" }])
      expect(complete(given).config).to.deep.equal(complete({ solver: "atlasd" }).config);
    expect(complete({ solver: "atlasd" }).notes).to.deep.equal([]);
    const { config, notes } = complete({ solver: "fast" });
    expect(config).to.include({ "solver.steps": 0, "solver.start": "spectral" });
    expect(notes).to.deep.equal([
      "--solver fast is now --solver grassmann --solver.steps 0 --solver.start spectral",
    ]);
  });

  it("has a flag for every parameter, shown by its own name or hidden", () => {
    const flags = flagsOf(experiment.tasks.find);
    const named = (name: string) => flags.find((flag) => flag.name === name)!;
    expect(named("solver").option.flags).to.equal("--solver <atlasd|grassmann>");
    expect(named("r1")).to.include({ field: "solver.r1", hidden: false });
    expect(named("r1").onlyFor!.kinds).to.deep.equal(["atlasd"]);
    expect(named("scale")).to.include({ field: "solver.scale", hidden: true, former: "size" });
    expect(named("gap").hidden).to.equal(true);
    expect(named("solver.steps")).to.include({ field: "solver.steps", hidden: true });
    expect(named("size").option.description).to.contain("(default: 1)");
    expect(named("solver.threshold").option.description).to.contain(
      "(default: atlasd 0.5, grassmann 0.25)",
    );
    expect(flags.some(({ name }) => name.includes("standard-basis"))).to.equal(false);
    expect(named("solver.steps").parse("12")).to.equal(12);
    expect(named("solver").parse("paper")).to.equal("paper");
    expect(() => named("solver").parse("papyrus")).to.throw(UsageError);
  });

  it("offers what works on a manifold, and nothing that executes the user's code", () => {
    for (const manifold of ["planar", "vectors", "icosahedron"] as const) {
      const kinds = kindsFor("architecture", manifold);
      for (const [kind, entry] of Object.entries(blocksOf("architecture"))) {
        const offered = !entry.executes_code && !entry.unlisted;
        const works = (entry.manifolds ?? [manifold]).includes(manifold) && offered;
        expect((kinds as readonly string[]).includes(kind), `${kind}, ${manifold}`).to.equal(works);
      }
    }
    expect(kindsFor("architecture", undefined)).to.not.include("module");
  });
});
