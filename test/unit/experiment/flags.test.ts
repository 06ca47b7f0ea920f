import { expect } from "chai";
import fc from "fast-check";
import { z } from "zod";
import { AtlasError, UsageError } from "../../../src/errors.js";
import { completeConfig } from "../../../src/experiment/config.js";
import { defineExperiment, isExperiment, task } from "../../../src/experiment/define.js";
import { flagsOf, normaliseFlags } from "../../../src/experiment/flags.js";
import { flagName } from "../../../src/experiment/names.js";

const config = {
  mode: z
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
};
const flags = flagsOf(z.object(config));
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
      "--mode <discover_algebra|discover_cosets|discover>",
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
    ).to.deep.equal([
      "pde",
      "--fixed-seed",
      "--batch-size=4",
      "--identity=my_file.npy",
      "--identity",
      "a_b",
    ]);
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
      "mode",
      "discover_algebr",
      "one of discover_algebra, discover_cosets, discover (did you mean discover_algebra?)",
    ],
  ] as const)
    it(`refuse --${flagName(field)} ${JSON.stringify(text)}, saying what is accepted`, () => {
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
        name: z
          .enum(["d4", "lorentz"])
          .default("lorentz")
          .meta({ description: "Which", positional: true }),
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
});

describe("defineExperiment", () => {
  const run = async () => {
    throw new Error("not run here");
  };
  const toy = {
    summary: "A toy.",
    config,
    presets: (given: { atlas?: number }) => ({
      fast: { N: 100 * (given.atlas ?? 1) },
      published: { epochs: 10, N: 10_000 },
    }),
    defaultPreset: (given: { standard_basis?: boolean }) =>
      given.standard_basis ? "published" : "fast",
    run,
  };
  const experiment = defineExperiment({
    name: "toy",
    summary: "A toy.",
    tasks: { play: task(toy), rest: task({ summary: "", config: { hours: config.epochs }, run }) },
  });

  it("is recognised, and only it", () => {
    expect(isExperiment(experiment)).to.equal(true);
    for (const other of [{ ...experiment }, {}, null, undefined, "toy"])
      expect(isExperiment(other)).to.equal(false);
  });

  it("completes a config: flags over preset over defaults", () => {
    const { config: fast, preset } = completeConfig(experiment, { atlas: 2, epochs: 3 });
    expect([preset, fast.N, fast.epochs, fast.batch_size]).to.deep.equal(["fast", 200, 3, 16]);
    expect(completeConfig(experiment, { standard_basis: true }).preset).to.equal("published");
    const published = completeConfig(experiment, { N: 7 }, { preset: "published" });
    expect(published.config).to.include({ N: 7, epochs: 10 });
  });

  it("completes a recorded config to itself, whatever the preset", () => {
    const { config: complete } = completeConfig(experiment, { atlas: 2 });
    const again = completeConfig(experiment, complete, { preset: "published", recorded: true });
    expect(again.config).to.deep.equal(complete);
  });

  it("completes the config of the task that is named, else of the first", () => {
    expect(completeConfig(experiment, { task: "rest" })).to.deep.include({ config: { hours: 10 } });
    expect(completeConfig(experiment, {}).task.name).to.equal("play");
    const other = defineExperiment({
      name: "toy",
      summary: "",
      tasks: experiment.tasks,
      defaultTask: "rest",
    });
    expect(completeConfig(other, {}).task.name).to.equal("rest");
    expect(failure(() => completeConfig(experiment, { task: "plya" })).message).to.contain(
      "did you mean play?",
    );
    for (const name of ["toString", "__proto__", ""])
      expect(failure(() => completeConfig(experiment, { task: name })).exitCode).to.equal(2);
  });

  it("leaves out of a recorded config what only other tasks have, and nothing else", () => {
    const recorded = { task: "rest", hours: 3, epochs: 9, batch_size: 4 };
    expect(completeConfig(experiment, recorded, { recorded: true }).config).to.deep.equal({
      hours: 3,
    });
    expect(failure(() => completeConfig(experiment, recorded)).message).to.contain("epochs");
    const unknown = { ...recorded, houses: 1 };
    expect(
      failure(() => completeConfig(experiment, unknown, { recorded: true })).message,
    ).to.contain("houses");
  });

  it("refuses an unknown preset or parameter, naming the nearest", () => {
    expect(failure(() => completeConfig(experiment, {}, { preset: "fats" })).message).to.contain(
      "did you mean fast?",
    );
    expect(
      failure(() => completeConfig(experiment, { task: "rest" }, { preset: "fast" })).message,
    ).to.contain("has no presets");
    const wrong = { epoch: 3 } as Record<string, unknown>;
    expect(failure(() => completeConfig(experiment, wrong)).message).to.contain(
      "no parameter epoch (did you mean epochs?)",
    );
  });

  it("knows fields and values by their former names", () => {
    const former = defineExperiment({
      name: "toy",
      summary: "",
      tasks: {
        play: task({
          summary: "",
          config: {
            storage: z
              .enum(["disk", "memory"])
              .default("disk")
              .meta({ former: ["keep"] }),
            k: z
              .union([z.literal("auto"), z.int().min(1)])
              .default(1)
              .meta({ formerValues: { 0: "auto" } }),
          },
          run,
        }),
      },
    });
    const wanted = { storage: "memory", k: "auto" };
    for (const given of [wanted, { keep: "memory", k: 0 }])
      expect(completeConfig(former, given).config).to.deep.equal(wanted);
    const [storage, keep] = flagsOf(former.tasks.play);
    expect([keep!.name, keep!.former, keep!.field, keep!.hidden]).to.deep.equal([
      "keep",
      "storage",
      "storage",
      true,
    ]);
    expect(keep!.option.flags).to.equal(storage!.option.flags.replace("storage", "keep"));
  });

  it("refuses a field that the runner sets", () => {
    for (const field of ["task", "seed", "preset", "runs", "log_level"]) {
      const wrong = task({ summary: "", config: { [field]: z.string() }, run });
      const clash = { name: "x", summary: "", tasks: { play: wrong } };
      expect(() => defineExperiment(clash)).to.throw(AtlasError, ` ${field} `);
    }
  });

  it("refuses a name that cannot be typed, and to be without tasks", () => {
    for (const name of ["", "1st", "my experiment", "../x"])
      expect(() => defineExperiment({ name, summary: "", tasks: experiment.tasks })).to.throw(
        AtlasError,
        JSON.stringify(name),
      );
    expect(() => defineExperiment({ name: "x", summary: "", tasks: {} })).to.throw(AtlasError, "x");
  });
});
