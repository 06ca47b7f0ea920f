import { expect } from "chai";
import fc from "fast-check";
import { z } from "zod";
import { UsageError } from "../../../src/errors.js";
import { completeConfig, defineExperiment, isExperiment } from "../../../src/experiment/define.js";
import { flagName, flagsOf, normaliseFlags } from "../../../src/experiment/flags.js";
import { nearest } from "../../../src/experiment/nearest.js";

const config = z.object({
  task: z
    .enum(["discover_algebra", "discover_cosets", "discover"])
    .default("discover")
    .describe("What to find"),
  epochs: z.int().positive().default(10).describe("Passes"),
  batch_size: z.int().positive().default(16).describe("Fields a step"),
  N: z.int().positive().default(10_000).describe("Fields"),
  learning_rate: z.number().positive().max(1).default(1e-3).describe("Adam's"),
  atlas: z.literal([1, 2]).default(1).describe("Which charts"),
  standard_basis: z.boolean().default(false).describe("Disjoint supports"),
  reuse_predictor: z.union([z.boolean(), z.string()]).default(false).describe("Whose"),
  identity: z.union([z.string(), z.object({ basis: z.array(z.number()) })]).optional(),
});
const flags = flagsOf(config);
const flag = (field: string) => flags.find((f) => f.field === field)!;
const failure = (work: () => unknown): UsageError => {
  try {
    work();
  } catch (error) {
    if (error instanceof UsageError) return error;
    throw error;
  }
  throw new Error("expected a UsageError");
};

describe("flags", () => {
  it("are one for each field, described and with its default", () => {
    expect(flags.map((f) => f.option.flags)).to.deep.equal([
      "--task <discover_algebra|discover_cosets|discover>",
      "--epochs <number>",
      "--batch-size <number>",
      "--N <number>",
      "--learning-rate <number>",
      "--atlas <1|2>",
      "--standard-basis",
      "--reuse-predictor [text]",
      "--identity <text>",
    ]);
    expect(flag("batch_size").option.description).to.equal("Fields a step (default: 16)");
  });

  it("may be written with underscores; values may hold them", () => {
    expect(
      normaliseFlags([
        "pde",
        "--fixed_seed",
        "--batch_size=4",
        "--identity=my_file.npy",
        "--identity",
        "a_b",
      ]),
    ).to.deep.equal(["pde", "--fixed-seed", "--batch-size=4", "--identity=my_file.npy", "--identity", "a_b"]);
    expect(normaliseFlags(["--", "--a_b"])).to.deep.equal(["--", "--a_b"]);
    expect(flagName("batchSize")).to.equal("batch-size");
  });

  for (const [field, text, expected] of [
    ["epochs", "0", "a whole number of at least 1"],
    ["epochs", "-3", "a whole number of at least 1"],
    ["epochs", "NaN", "a whole number of at least 1"],
    ["epochs", "2.5", "a whole number of at least 1"],
    ["epochs", "", "a whole number of at least 1"],
    ["epochs", "0x10", "a whole number of at least 1"],
    ["epochs", "Infinity", "a whole number of at least 1"],
    ["epochs", "1e400", "a whole number of at least 1"],
    ["learning_rate", "2", "a number greater than 0 and at most 1"],
    ["atlas", "3", "one of 1, 2"],
    [
      "task",
      "discover_algebr",
      "one of discover_algebra, discover_cosets, discover (did you mean discover_algebra?)",
    ],
  ] as const)
    it(`refuse --${flagName(field)} ${JSON.stringify(text)} in one line that says what is accepted`, () => {
      const error = failure(() => flag(field).parse(text));
      expect(error.message).to.equal(`--${flagName(field)} ${text}: expected ${expected}`);
      expect(error.exitCode).to.equal(2);
    });

  it("take every number that the schema takes, in any usual notation", () => {
    fc.assert(
      fc.property(fc.double({ min: 1e-300, max: 1, noNaN: true, minExcluded: true }), (x) => {
        for (const text of [String(x), x.toExponential()])
          expect(flag("learning_rate").parse(text)).to.equal(x);
      }),
    );
    expect(flag("epochs").parse("1e3")).to.equal(1000);
    expect(flag("atlas").parse("2")).to.equal(2);
    expect(flag("reuse_predictor").parse(true)).to.equal(true);
    expect(flag("reuse_predictor").parse("file.pt")).to.equal("file.pt");
  });

  it("may be a word or a number", () => {
    const k = flagsOf(
      z.object({
        k: z
          .union([z.literal("auto"), z.int().min(1).max(16)])
          .default("auto")
          .meta({ description: "Generators", placeholder: "auto|number" }),
      }),
    )[0]!;
    expect(k.option.flags).to.equal("--k <auto|number>");
    expect(k.option.description).to.equal("Generators (default: auto)");
    expect(k.expected).to.equal("auto, or a whole number of at least 1 and at most 16");
    expect(["auto", "1", "7", "16", "1e1"].map((text) => k.parse(text))).to.deep.equal([
      "auto",
      1,
      7,
      16,
      10,
    ]);
    for (const text of ["0", "17", "2.5", "seven", "", "-1", "Auto", "true"])
      expect(failure(() => k.parse(text)).message).to.match(
        new RegExp(`^--k ${text}: expected auto, or a whole number of at least 1 and at most 16`),
      );
    expect(failure(() => k.parse("aut")).message).to.match(/ \(did you mean auto\?\)$/);
  });

  it("may be given by position, if their field says so", () => {
    const [name, size] = flagsOf(
      z.object({
        name: z.enum(["d4", "lorentz"]).default("lorentz").meta({ description: "Which", positional: true }),
        size: z.int().default(3),
      }),
    );
    expect([name!.positional, size!.positional]).to.deep.equal([true, false]);
    expect(name!.expected).to.equal("one of d4, lorentz");
    expect(name!.parse("d4")).to.equal("d4");
    expect(failure(() => name!.parse("lorenz")).message).to.equal(
      "name lorenz: expected one of d4, lorentz (did you mean lorentz?)",
    );
    expect(flags.every((f) => !f.positional)).to.equal(true);
  });

  it("suggest what was meant, and nothing for what was not", () => {
    expect(nearest("pdf", ["pde", "runs"])).to.equal("pde");
    expect(nearest("banana", ["pde", "runs"])).to.equal(undefined);
  });
});

describe("defineExperiment", () => {
  const experiment = defineExperiment({
    name: "toy",
    summary: "A toy.",
    config,
    presets: (given) => ({ fast: { N: 100 * (given.atlas ?? 1) }, published: { epochs: 10, N: 10_000 } }),
    defaultPreset: (given) => (given.standard_basis ? "published" : "fast"),
    run: async () => {
      throw new Error("not run here");
    },
  });

  it("is recognised, and only it", () => {
    expect(isExperiment(experiment)).to.equal(true);
    expect([isExperiment({ ...experiment, name: 1 }), isExperiment({}), isExperiment(null)]).to.include(
      false,
    );
  });

  it("completes a config: flags over preset over defaults", () => {
    const { config: fast, preset } = completeConfig(experiment, { atlas: 2, epochs: 3 });
    expect([preset, fast.N, fast.epochs, fast.batch_size]).to.deep.equal(["fast", 200, 3, 16]);
    expect(completeConfig(experiment, { standard_basis: true }).preset).to.equal("published");
    expect(completeConfig(experiment, { N: 7 }, "published").config.N).to.equal(7);
  });

  it("completes a complete config to itself, whatever the preset: a stored run can be replayed", () => {
    const { config: complete } = completeConfig(experiment, { atlas: 2 });
    expect(completeConfig(experiment, complete, "published").config).to.deep.equal(complete);
  });

  it("refuses an unknown preset or parameter, naming the nearest", () => {
    expect(failure(() => completeConfig(experiment, {}, "fats")).message).to.contain("did you mean fast?");
    const wrong = { epoch: 3 } as Record<string, unknown>;
    expect(failure(() => completeConfig(experiment, wrong)).message).to.contain(
      "no parameter epoch (did you mean epochs?)",
    );
  });

  it("refuses a field that the runner sets", () => {
    for (const field of ["seed", "preset", "runs", "log_level"]) {
      const clash = {
        name: "x",
        summary: "",
        config: z.object({ [field]: z.string() }),
        run: async () => ({}) as never,
      };
      expect(() => defineExperiment(clash)).to.throw(`field ${field} is set by the runner`);
    }
  });
});
