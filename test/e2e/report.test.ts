/** `atlas report RUN [RUN…]`. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { picturesOf } from "../../src/report/index.js";
import { makeRun } from "../unit/dashboard/folders.js";
import { lorentz, planar } from "../unit/report/results.js";
import { atlas, refuses } from "./atlas.js";

describe("atlas report", () => {
  let dir: string;
  let first: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-report-"));
    const runs = join(dir, "runs");
    first = makeRun(runs, "20260101-120000-pde-aaaa", { epochs: 4, result: planar() });
    makeRun(runs, "20260102-120000-pde-bbbb", { epochs: 9, result: lorentz(), seed: 2 });
    makeRun(runs, "20260103-120000-pde-cccc", { epochs: 2 });
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  it("writes the report of a run again, with its pictures", async () => {
    const path = join(first, "report.html");
    const once = await atlas(["report", "20260101"], { cwd: dir });
    expect(once).to.deep.include({ code: 0, stdout: `report  ${path}\n` });
    expect(once.stderr).to.match(/^warning: .*no pictures/);
    const page = readFileSync(path, "utf8");
    expect(page).to.contain("<h1>so(2), with reflection</h1>");
    const pictures = "<section><h2>Data</h2></section>";
    writeFileSync(path, page.replace("<!--pictures-->", `$&${pictures}`));
    const again = await atlas(["report", first, "--json"], { cwd: dir });
    expect(again).to.deep.include({ code: 0, stderr: "" });
    expect(JSON.parse(again.stdout)).to.deep.equal({ report: path });
    expect(picturesOf(readFileSync(path, "utf8"))).to.equal(pictures);
  });

  it("compares runs, also unfinished ones", async () => {
    const done = await atlas(["report", "20260101", "20260102", "20260103"], { cwd: dir });
    expect(done.code, done.stderr).to.equal(0);
    const path = join(dir, "comparison.html");
    expect(done.stdout).to.equal(`report  ${path}\n`);
    const page = readFileSync(path, "utf8");
    expect(page).to.contain("Comparison of 3 runs").and.contain("so(1,3)⊕R");
    expect(page).to.contain("interrupted");
  });

  it("refuses what cannot be, in one line", async () => {
    writeFileSync(join(dir, "file"), "");
    await refuses(
      [
        [["report", "20260103"], /no result yet; finish it with: atlas resume/],
        [["report", "nothing"], /no run "nothing"/],
        [["report", "20260101", "--out", "file/x.html"], /cannot write .*; .*--out FILE$/],
      ],
      { cwd: dir },
    );
  });
});
