import { expect } from "chai";
import { z } from "zod";
import { UsageError } from "../../../src/errors.js";
import { ineffectiveFlags, onlyFor } from "../../../src/experiment/conditional-flags.js";
import { completeConfig } from "../../../src/experiment/config.js";
import { defineExperiment } from "../../../src/experiment/define.js";
import { flagsOf } from "../../../src/experiment/flags.js";

const TRAINED = { reuse_predictor: [false] };
const FIND = { task: ["find*"] };
const config = z.object({
  task: z.enum(["find", "find_all", "train"]).default("find"),
  solver: z.enum(["ours", "paper"]).default("ours"),
  reuse_predictor: z.union([z.boolean(), z.string()]).default(false),
  file: z.string().optional(),
  ...onlyFor([TRAINED, { ...FIND, solver: ["paper"] }], {
    epochs: z.int().default(3).describe("Passes"),
  }),
  ...onlyFor(FIND, {
    k: z.int().optional().describe("How many"),
    ...onlyFor(
      { solver: ["paper"] },
      { rate: z.number().default(1).meta({ description: "How fast" }) },
    ),
  }),
  ...onlyFor({ file: [true] }, { columns: z.string().optional().describe("Which") }),
});
const experiment = defineExperiment({
  name: "x",
  summary: "",
  config,
  presets: () => ({ fast: {}, published: { solver: "paper", rate: 2 } as const }),
  run: async () => ({}) as never,
});
type Given = Partial<z.infer<typeof config>>;
const flags = flagsOf(config);
const notes = (given: Given, preset?: string) =>
  ineffectiveFlags(flags, given, completeConfig(experiment, given, { preset }).config);
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
    for (const [given, says] of [
      [{ task: "train", k: 1 }, /^--k .* with --task train; .* with --task find\*$/],
      [{ task: "train", rate: 1 }, /^--rate .* with --task train; .* with --task find\*$/],
      [{ rate: 1 }, /^--rate .* with --solver ours; .* with --solver paper$/],
      [{ columns: "a" }, /^--columns .* without --file; .* with --file$/],
    ] as [Given, RegExp][])
      expect(complaint(given)).to.match(says);
  });

  it("are taken where they do, by a preset too, and where a preset alone sets them", () => {
    for (const given of [
      { k: 1 },
      { task: "find_all", k: 1 },
      { solver: "paper", rate: 1 },
    ] as Given[])
      expect(notes(given)).to.deep.equal([]);
    expect(notes({ columns: "a", file: "b" })).to.deep.equal([]);
    expect(notes({ rate: 1 }, "published")).to.deep.equal([]);
    expect(notes({ task: "train" }, "published")).to.deep.equal([]);
  });

  it("are let pass, with a note, where a predictor is taken from elsewhere", () => {
    for (const reuse_predictor of [true, "a.pt"]) {
      const [note, ...others] = notes({ epochs: 3, reuse_predictor });
      expect(note).to.match(/^--epochs .* with --reuse-predictor$/);
      expect(others).to.deep.equal([]);
    }
    expect(notes({ epochs: 3, reuse_predictor: true, solver: "paper" })).to.deep.equal([]);
    expect(notes({ epochs: 3 })).to.deep.equal([]);
  });

  it("say so in help, keep their description and default, and have it in no value", () => {
    const described = Object.fromEntries(flags.map((f) => [f.field, f.option.description]));
    expect(described).to.deep.include({
      epochs: "Passes (default: 3)",
      k: "How many [with --task find*]",
      rate: "How fast (default: 1) [with --task find*, --solver paper]",
      columns: "Which [with --file]",
    });
    expect(completeConfig(experiment, {}).config).to.include({ epochs: 3, rate: 1 });
  });
});
