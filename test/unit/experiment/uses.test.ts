import { expect } from "chai";
import { z } from "zod";
import { UsageError } from "../../../src/errors.js";
import { completeConfig, defineExperiment, type Experiment } from "../../../src/experiment/define.js";
import { builtinExperiments, loadExperiment } from "../../../src/experiment/load.js";
import { givenInVain, onlyFor } from "../../../src/experiment/uses.js";

const TRAINED = { reuse_predictor: [false] };
const FIND = { task: ["find*"] };
const experiment = defineExperiment({
  name: "x",
  summary: "",
  config: z.object({
    task: z.enum(["find", "find_all", "train"]).default("find"),
    solver: z.enum(["ours", "paper"]).default("ours"),
    reuse_predictor: z.union([z.boolean(), z.string()]).default(false),
    file: z.string().optional(),
    ...onlyFor([TRAINED, { ...FIND, solver: ["paper"] }], { epochs: z.int().default(3).describe("Passes") }),
    ...onlyFor(FIND, {
      k: z.int().optional().describe("How many"),
      ...onlyFor({ solver: ["paper"] }, { rate: z.number().default(1).meta({ description: "How fast" }) }),
    }),
    ...onlyFor({ file: [true] }, { columns: z.string().optional().describe("Which") }),
  }),
  presets: () => ({ fast: {}, published: { solver: "paper", rate: 2 } as const }),
  run: async () => ({}) as never,
});
type Given = Parameters<typeof completeConfig<typeof experiment.config>>[1];
const notes = (given: Given, preset?: string) =>
  givenInVain(experiment.flags, given, completeConfig(experiment, given, preset).config);
const complaint = (given: Given) => {
  try {
    return notes(given).join();
  } catch (error) {
    if (error instanceof UsageError) return `${error.message}; ${error.remedy}`;
    throw error;
  }
};

describe("fields that count only beside others", () => {
  it("are refused where they do not, by the first reason", () => {
    expect(complaint({ task: "train", k: 1 })).to.equal(
      "--k has no effect with --task train; leave it out; it counts with --task find*",
    );
    expect(complaint({ task: "train", rate: 1 })).to.contain("with --task train; ");
    expect(complaint({ rate: 1 })).to.equal(
      "--rate has no effect with --solver ours; leave it out; it counts with --solver paper",
    );
    expect(complaint({ columns: "a" })).to.equal(
      "--columns has no effect without --file; leave it out; it counts with --file",
    );
  });

  it("are taken where they do, by a preset too, and where a preset alone sets them", () => {
    for (const given of [{ k: 1 }, { task: "find_all", k: 1 }, { solver: "paper", rate: 1 }] as Given[])
      expect(notes(given)).to.deep.equal([]);
    expect(notes({ columns: "a", file: "b" })).to.deep.equal([]);
    expect(notes({ rate: 1 }, "published")).to.deep.equal([]);
    expect(notes({ task: "train" }, "published")).to.deep.equal([]);
  });

  it("are let pass, with a note, where a predictor is taken from elsewhere, as in the published command lines", () => {
    for (const reuse_predictor of [true, "a.pt"])
      expect(notes({ epochs: 3, reuse_predictor })).to.deep.equal([
        "--epochs has no effect with --reuse-predictor",
      ]);
    expect(notes({ epochs: 3, reuse_predictor: true, solver: "paper" })).to.deep.equal([]);
    expect(notes({ epochs: 3 })).to.deep.equal([]);
  });

  it("say so in help, keep their description and default, and have it in no value", () => {
    const described = Object.fromEntries(experiment.flags.map((f) => [f.field, f.option.description]));
    expect(described).to.deep.include({
      epochs: "Passes (default: 3)",
      k: "How many [with --task find*]",
      rate: "How fast (default: 1) [with --task find*, --solver paper]",
      columns: "Which [with --file]",
    });
    expect(completeConfig(experiment, {}).config).to.include({ epochs: 3, rate: 1 });
  });

  it("depend, in our experiments, on fields and choices that there are", async () => {
    let seen = 0;
    for (const { path } of builtinExperiments()) {
      const { name, flags }: Experiment = await loadExperiment(path);
      for (const { only } of flags)
        for (const [key, values] of only.flatMap((where) => Object.entries(where))) {
          const flag = flags.find((f) => f.field === key);
          expect(flag, `${name}: ${key}`).not.to.equal(undefined);
          for (const value of values) {
            if (typeof value === "boolean") continue;
            const pattern = new RegExp(`(^one of |, )${value.replace("*", "\\w*")}(,|$)`);
            expect(flag!.expected, `${name}: ${key}`).to.match(pattern);
            seen++;
          }
        }
    }
    expect(seen).to.be.greaterThan(50);
  });
});
