/**
 * Predictors from elsewhere: what a solver assumes of them is tried, met where it can be met, and
 * else refused. The worker's tests have the table of all forms.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { ensureVenv } from "../../src/setup/venv.js";
import { atlas, complaint, finish, LONG, ROOT, startBackground } from "../e2e/atlas.js";

const SETTINGS = ["--trust-code", "--inputs=v.npy", "--task=discover_algebra", "--seed=1"];

describe("predictors from elsewhere", function () {
  this.timeout(LONG);
  let dir: string;
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  let args: (predictor: string, ...more: string[]) => string[];
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-predictors-"));
    where = { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state") } };
    const { python } = await ensureVenv();
    execFileSync(python, [join(ROOT, "test/doors/predictors.py"), dir], { stdio: "pipe" });
    const flags = ["--device=cpu", "--threads=1", `--data-root=${dir}`];
    const env = { ...where.env, ATLAS_TRUST_CODE: "1" };
    const { address } = await startBackground(flags, { cwd: dir, env });
    args = (predictor, ...more) => [
      "discover",
      `--predictor=${predictor}`,
      `--worker=${address}`,
      ...SETTINGS,
      ...more,
    ];
  });
  after(async () => {
    await atlas(["worker", "stop"], where);
    rmSync(dir, { recursive: true, force: true });
  });

  it("have the same algebra in every form", async () => {
    for (const [name, said, ...more] of [
      ["net.py:plain", undefined],
      ["net.py:numpied", /without gradients/],
      ["static.pt2", /batches of at most 1/],
      ["double.pt", /float32/],
      ["net.py:outputs", undefined, "--output-key=out"],
    ] as [string, RegExp | undefined, ...string[]][]) {
      const runs = join(dir, "runs", name);
      const { result } = await finish(args(name, ...more), runs, where);
      const { algebra, notes = [] } = result;
      expect(algebra?.symmetryCount, name).to.equal(1);
      const [[a, b], [c, d]] = algebra!.generators[0] as [[number, number], [number, number]];
      expect(Math.abs(b - c) / Math.SQRT2, name).to.be.greaterThan(0.99);
      expect(Math.abs(a) + Math.abs(d), name).to.be.lessThan(0.2);
      if (said === undefined) expect(notes).to.deep.equal([]);
      else expect(notes.join()).to.match(said);
    }
  });

  it("are refused if they are no smooth function of one sample", async () => {
    for (const [name, line, ...more] of [
      ["net.py:steps", /jumps.*logits or probabilities/],
      ["net.py:dropped", /two outputs for one input.*evaluation mode/],
      ["net.py:batch", /other samples of the batch/],
      ["net.py:outputs", /aux \[.*\], out \[.*--output-key NAME\|INDEX/],
      ["net.py:outputs", /no output 'none'.*aux.*out.*--output-key/, "--output-key=none"],
    ] as [string, RegExp, ...string[]][])
      expect(complaint(await atlas(args(name, ...more), where), 2)).to.match(line);
  });
});
