import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { z } from "zod";
import { UsageError } from "../../../src/errors.js";
import { onlyFor } from "../../../src/experiment/conditional-flags.js";
import { completeConfig } from "../../../src/experiment/config.js";
import { defineExperiment } from "../../../src/experiment/define.js";
import { flagsOf } from "../../../src/experiment/flags.js";
import { RunLookup } from "../../../src/experiment/lookup.js";
import { Progress } from "../../../src/experiment/progress.js";
import { resumeExperiment, runExperiment } from "../../../src/experiment/runner.js";
import { FakeWorker } from "../worker/fake-worker.js";
import { rejection } from "../worker/rejection.js";

describe("an experiment of version 0.1", () => {
  let dir: string;
  let fake: FakeWorker;
  let warnings: string[];
  let calls: string[];
  const progress = new Progress({ quiet: true });
  progress.warn = (line) => void warnings.push(line);
  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-former-"));
    fake = await FakeWorker.start();
    [warnings, calls] = [[], []];
  });
  afterEach(async () => {
    await fake.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  const experiment = defineExperiment({
    name: "old",
    summary: "As users wrote them",
    config: z.object({
      task: z.enum(["find", "train"]).default("find").describe("What to do"),
      N: z.int().positive().default(10).describe("Samples"),
      reuse_predictor: z.union([z.boolean(), z.string()]).default(false),
      ...onlyFor({ task: ["find"] }, { k: z.int().default(1).describe("Generators") }),
      ...onlyFor({ reuse_predictor: [false] }, { epochs: z.int().default(3) }),
    }),
    presets: (given) => ({ fast: { N: given.task === "train" ? 20 : 5 }, slow: { N: 1000 } }),
    async prepare(config, runs) {
      calls.push(`prepare ${config.task} ${runs instanceof RunLookup}`);
      return { ...config, N: config.N + 1 };
    },
    async run(ctx, config) {
      calls.push(`run ${config.task} ${config.N}`);
      const atlas = await ctx.atlas({ n: 2 });
      return { task: config.task, predictor: { loss: null, epochs: 0, source: atlas.handle } };
    },
  });
  const options = () => ({
    runs: dir,
    seed: 3,
    progress,
    worker: { address: `grpc://${fake.address}`, device: "cpu" },
  });

  it("runs, and the user is told once that its form is former", async () => {
    const { result, path } = await runExperiment(experiment, { N: 7 }, options());
    expect(calls).to.deep.equal(["prepare find true", "run find 8"]);
    expect(result).to.deep.include({ experiment: "old", task: "find", seed: 3 });
    expect(warnings).to.have.length(1);
    expect(warnings[0]).to.contain("old").and.contain("0.1");
    const { config } = JSON.parse(readFileSync(join(path, "config.json"), "utf8"));
    expect(config).to.deep.equal({ task: "find", N: 8, reuse_predictor: false, k: 1, epochs: 3 });
  });

  it("has its own field task, presets and flags", async () => {
    const given = { task: "train" } as const;
    expect(completeConfig(experiment, given).config).to.include({ task: "train", N: 20 });
    const slow = completeConfig(experiment, given, { preset: "slow" });
    expect(slow.config).to.include({ task: "train", N: 1000 });
    const flags = flagsOf(experiment.tasks[""]!);
    expect(flags.map(({ name }) => name)).to.deep.equal([
      "task",
      "N",
      "reuse-predictor",
      "k",
      "epochs",
    ]);
    expect(flags[3]!.option.description).to.equal("Generators (default: 1) [with --task find]");
  });

  it("refuses a flag that was given in vain, and lets one pass with a note", async () => {
    const vain = await rejection(runExperiment(experiment, { task: "train", k: 2 }, options()));
    expect(vain).to.be.instanceOf(UsageError);
    expect(vain.message).to.match(/^--k .* with --task train$/);
    expect(calls).to.deep.equal([]);
    warnings.length = 0;
    await runExperiment(experiment, { reuse_predictor: true, epochs: 5 }, options());
    expect(warnings).to.have.length(2);
    expect(warnings[1]).to.match(/^--epochs .* with --reuse-predictor$/);
  });

  it("is resumed with the config that was recorded", async () => {
    const fails = defineExperiment({
      name: "old",
      summary: "",
      config: z.object({ N: z.int().default(1) }),
      async run(_, { N }) {
        calls.push(`run ${N}`);
        throw new Error("far enough");
      },
    });
    const error = await rejection(runExperiment(fails, { N: 4 }, options()));
    expect(error.message).to.equal("far enough");
    const path = join(dir, readdirSync(dir)[0]!);
    expect((await rejection(resumeExperiment(fails, path, { progress }))).message).to.equal(
      "far enough",
    );
    expect(calls).to.deep.equal(["run 4", "run 4"]);
  });
});
