/** `atlas tensorboard RUN`. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { expect } from "chai";
import { RunFolder } from "../../src/run/folder.js";
import { atlas, complaint } from "./atlas.js";

describe("atlas tensorboard", () => {
  let dir: string;
  let path: string;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas board "));
    const run = await RunFolder.create(join(dir, "runs"), {
      experiment: "pde",
      seed: 3,
      config: { task: "discover", charts: [{ row: 1, col: 2 }], path: "a|b" },
      worker: { address: "local", device: "cpu" },
      versions: {},
    });
    path = run.path;
    const epoch = { type: "epoch", totalEpochs: 2, seconds: 0.5 } as const;
    await run.append({ ...epoch, stage: "predictor", epoch: 1, metrics: { loss: 8 } });
    await run.append({ ...epoch, stage: "predictor", epoch: 2, metrics: { loss: 4 } });
    // Again, after a kill.
    await run.append({ ...epoch, stage: "predictor", epoch: 2, metrics: { loss: 2 } });
    await run.append({ ...epoch, stage: "algebra", epoch: 1, metrics: { loss: 1, starts: 2 } });
    await run.close();
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  it("writes an unfinished run's epochs beside it, and says how to look at them", async () => {
    const { code, stdout, stderr } = await atlas(["tensorboard"], { cwd: dir });
    expect(code, stderr).to.equal(0);
    const folder = join(path, "tensorboard");
    expect(stdout).to.contain(`view    tensorboard --logdir '${folder}'\n`); // the path has a space
    expect(stdout).to.contain("predictor, algebra: 3 epochs");
    const [name, ...others] = readdirSync(folder);
    expect(others).to.deep.equal([]);
    expect(name).to.contain("tfevents");
    const text = readFileSync(join(folder, name!)).toString("latin1");
    for (const tag of ["predictor/loss", "predictor/seconds", "algebra/starts"])
      expect(text).to.contain(tag);
    expect(text).to.contain('| charts | [{"row":1,"col":2}] |').and.to.contain("| path | a\\|b |");
    expect(text.match(/predictor\/loss/g)).to.have.length(2);
  });

  it("replaces what it wrote before, and gives every run its own folder in --out", async () => {
    const out = join(dir, "boards");
    for (let i = 0; i < 2; i++) {
      const { code, stdout } = await atlas(["tensorboard", "latest", "--out", "boards", "--json"], {
        cwd: dir,
      });
      expect(code).to.equal(0);
      expect(JSON.parse(stdout)).to.deep.include({
        logdir: out,
        epochs: 3,
        stages: ["predictor", "algebra"],
      });
    }
    expect(readdirSync(out)).to.deep.equal([basename(path)]);
    expect(readdirSync(join(out, basename(path)))).to.have.length(1);
  });

  it("refuses a folder that cannot be, in one line", async () => {
    const done = await atlas(["tensorboard", "--out", join(path, "config.json")], { cwd: dir });
    expect(complaint(done, 2)).to.match(
      /^error: cannot write .*config\.json\/.*: a part of its path is a file.*; .*--out DIR$/,
    );
  });
});
