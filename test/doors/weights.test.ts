/** Weights as trainers save them: found and loaded, or refused with what would help. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import type { Result } from "../../src/result.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { atlas, json, LONG, only, ROOT, refuses, sharedWorker } from "../e2e/atlas.js";

describe("weights of other trainers", function () {
  this.timeout(LONG);
  let dir: string;
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  let args: string[];
  /** Use a file's weights. @returns the algebra, and what was said on the way */
  let reused: (file: string, ...more: string[]) => Promise<{ algebra: string; said: string }>;
  let plain: string;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-weights-"));
    where = { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state") } };
    const tiny = "pde --layout=2 --N=8 --architecture=strided_cnn --epochs=1 --seed=0";
    args = [...tiny.split(" "), "--task=discover_algebra", "--solver=atlasd", "--evidence=none"];
    args.push(`--worker=${await sharedWorker()}`);
    await json([...args, "--runs=first"], where);
    const exported = ["--format=safetensors", "--out=w.safetensors"];
    await atlas(["checkpoint", "export", only(join(dir, "first")), ...exported], where);
    const { python } = await ensureVenv();
    const script = join(ROOT, "test/doors/weights.py");
    execFileSync(python, [script, join(dir, "w.safetensors"), dir], { stdio: "pipe" });
    reused = async (file, ...more) => {
      const given = [...args, `--reuse-predictor=${file}`, ...more, "--json"];
      const { code, stdout, stderr } = await atlas(given, where);
      expect(code, `${file}: ${stderr}`).to.equal(0);
      const { algebra } = JSON.parse(stdout) as Result;
      return { algebra: JSON.stringify(algebra), said: stderr };
    };
    plain = (await reused("w.safetensors")).algebra;
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  for (const [file, said] of [
    ["module.pt"],
    ["legacy.pt"],
    ["compiled.pt"],
    ["wrapped.pt"],
    ["lightning.ckpt", /not used of .*state_dict\.metric\.count/],
    ["swa.pt"],
    ["numpy.pt"],
    ["history.pt"],
    ["double.pt"],
    ["m.safetensors.index.json"],
    ["large.safetensors", /not used of .*replay/],
    ["ema.pt", /those of model in .*also holds model_ema/],
  ] as const)
    it(`are found in ${file}`, async () => {
      const found = await reused(file);
      expect(found.algebra).to.equal(plain);
      if (said === undefined) expect(found.said).not.to.contain("warning");
      else expect(found.said).to.match(said);
    });

  it("are rounded to what the network computes in", async () => {
    const [half, brain] = [await reused("half.pt"), await reused("bfloat16.pt")];
    expect(new Set([plain, half.algebra, brain.algebra]).size).to.equal(3);
  });

  it("are those of the entry that --weights-key names, whole or by its end", async () => {
    const averages = (await reused("ema.pt", "--weights-key=model_ema")).algebra;
    expect(averages).not.to.equal(plain);
    for (const [file, key, expected] of [
      ["gan.pt", "generator", plain],
      ["nested.pt", "generator.model", plain],
      ["nested.pt", "discriminator", averages],
      ["normalised.pt", "model", plain],
    ] as const)
      expect((await reused(file, `--weights-key=${key}`)).algebra, key).to.equal(expected);
  });

  it("are refused where they do not fit, fit in several ways, or would execute code", async () => {
    const reuse = (file: string, ...more: string[]) => [
      ...args,
      `--reuse-predictor=${file}`,
      ...more,
    ];
    await refuses(
      [
        [reuse("gan.pt"), /generator, discriminator.*--weights-key/],
        [reuse("nested.pt"), /generator\.model, discriminator\.model.*--weights-key/],
        [
          reuse("nested.pt", "--weights-key=model"),
          /match model: generator\.model, discriminator\.model.*--weights-key/,
        ],
        [
          reuse("nested.pt", "--weights-key=none"),
          /no entry none .* generator, generator\.model, discrim/,
        ],
        [reuse("normalised.pt"), /state_dict\.model fits .* state_dict\.mean.*--weights-key/],
        [reuse("missing.pt"), /lacks \S+ of this network.*; choose the architecture/],
        [reuse("extra.pt"), /head\.weight is not part of this network; choose the architecture/],
        [reuse("shape.pt"), /has shape \[2, 3\], and this network's has \[\d.*; choose/],
        [reuse("nan.pt"), /no finite float32.*; give weights/],
        [reuse("arrays.pt"), /NumPy array, not a tensor/],
        [reuse("m-00001-of-00002.safetensors"), /one of 2 parts, which an \.index\.json/],
        [reuse("w.safetensors", "--architecture=reference_cnn"), /; choose the architecture/],
        [reuse("module-object.pt"), /execute code \(__main__\.Net\); save only its weights/],
        [reuse("evil.pt"), /execute code \(\w+\.system\); save only its weights/],
        [[...args, "--weights-key=a"], /no effect without --reuse-predictor; leave it out/],
        [
          reuse(only(join(dir, "first")), "--weights-key=a"),
          /the predictor of a run has no entries; leave it out/,
        ],
      ],
      where,
    );
    expect(existsSync(join(dir, "executed"))).to.equal(false);
  });
});
