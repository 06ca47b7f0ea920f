/** The file that `atlas export --format torch` writes, on a machine that has torch alone. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { findPython } from "../../src/setup/python.mjs";
import { finish, json, LONG, ROOT } from "../e2e/atlas.js";
import { run } from "./clone.js";

describe("an exported symmetry", function () {
  this.timeout(LONG);
  let dir: string;
  let python: string;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-exported-"));
    const venv = join(dir, "venv");
    const made = await run([(await findPython()).command, "-m", "venv", venv], dir);
    expect(made.code, made.stderr).to.equal(0);
    python = join(venv, "bin/python");
    const pins = readFileSync(join(ROOT, "py-worker/requirements.txt"), "utf8");
    const [torch] = /^torch==\S+/m.exec(pins) ?? expect.fail("torch is not pinned");
    const pip = await run([python, "-m", "pip", "install", "-q", torch!], dir);
    expect(pip.code, pip.stderr).to.equal(0);
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  for (const [probe, compact] of [
    ["lorentz", false],
    ["d4", true],
  ] as const)
    it(`tests itself where there is torch alone: ${probe}`, async () => {
      const { path } = await finish(["probe", probe, "--device=cpu", "--seed=0"], join(dir, probe));
      const out = join(dir, `${probe}-exported`);
      const told = await json<{ components: number }>(
        ["export", path, "--format=torch", `--out=${out}`, "--json"],
        { cwd: dir },
      );
      expect(told.components).to.be.above(0);
      const { code, stdout, stderr } = await run([python, "-I", join(out, "symmetry.py")], dir);
      expect(code, stderr).to.equal(0);
      expect(stdout).to.match(/all tests passed/);
      expect(/averaging takes/.test(stdout), stdout).to.equal(compact);
      const elsewhere = await run([python, "-I", "-c", "import numpy"], dir);
      expect(elsewhere.code).to.equal(1); // the environment has nothing of ours
    });
});
