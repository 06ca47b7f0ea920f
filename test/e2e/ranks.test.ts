/** Trainings that several processes share. */
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { atlas, complaint, ends, finish, LONG, logged, only, start, workersOf } from "./atlas.js";

/** Passes over the data, of one step each. */
const EPOCHS = 50;
const COMMAND = [
  ...["pde", "--task=discover_algebra", "--layout=2", "--N=8", "--fixed-seed", "--device=cpu"],
  ...[`--epochs=${EPOCHS}`, "--evidence=none", "--algebra-epochs=1"],
  ..."--solver.starts=1 --solver.steps=2 --solver.evaluation=2".split(" "),
];
const TWO = [...COMMAND, "--ranks=2", "--threads=2"];

describe("a training with several ranks", function () {
  this.timeout(LONG);
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-ranks-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const losses = (run: string) =>
    logged(run, "epoch")
      .filter(({ stage }) => stage === "predictor")
      .map(({ metrics }) => (metrics as { loss: number }).loss);
  const read = (run: string, file: string) => JSON.parse(readFileSync(join(run, file), "utf8"));

  it("goes on when a rank is killed, with the losses of one process", async () => {
    const runs = join(dir, "killed");
    const process = start([...TWO, "--runs", runs]);
    await process.says(/^predictor +3\//m);
    const [worker] = workersOf(process.pid);
    const [rank] = workersOf(worker!);
    globalThis.process.kill(rank!, "SIGKILL");
    const { code, stderr } = await process.done;
    expect(code, stderr).to.equal(0);
    expect(stderr).to.match(
      /predictor: rank 1 \(process \d+\) was killed by SIGKILL; the training goes on from epoch \d+/,
    );
    const run = only(runs);
    expect(read(run, "config.json").worker).to.include({ ranks: 2, threads: 2 });
    expect(read(run, "result.json").environment).to.include({ ranks: 2 });
    expect(logged(run, "worker")[0]).to.include({ ranks: 2 });
    await ends(worker!);
    // With as many threads: another number alone changes the losses by 1e-5.
    const alone = await finish([...COMMAND, "--threads=2"], join(dir, "alone"));
    expect(read(alone.path, "config.json").worker).not.to.have.property("ranks");
    const [got, expected] = [losses(run), losses(alone.path)];
    expect(got).to.have.length(EPOCHS);
    for (const [i, loss] of got.entries()) expect(loss).to.be.closeTo(expected[i]!, 1e-5);

    const copy = join(dir, "copies", "copy");
    cpSync(run, copy, { recursive: true });
    for (const file of ["result.json", "report.html"]) rmSync(join(copy, file));
    const refused = await atlas(["resume", copy, "--threads", "1"]);
    expect(complaint(refused, 2)).to.match(
      /was trained with 2 ranks: 2 ranks are too many for this worker's 1 CPU thread.*--ranks/,
    );
    const asked = await atlas(["resume", copy, "--threads", "1", "--ranks", "1"]);
    expect(asked.code, asked.stderr).to.equal(0);
    expect(asked.stderr).to.contain("with 2 threads and 2 ranks").and.contain("may differ");
    expect(read(copy, "result.json").environment).not.to.have.property("ranks");
  });

  it("is refused where there is no room for the ranks", async () => {
    const runs = join(dir, "refused");
    const done = await atlas([...COMMAND, "--ranks=3", "--threads=2", "--runs", runs]);
    expect(complaint(done, 2)).to.match(
      /^error: 3 ranks are too many for this worker's 2 CPU threads.*1 to 2.*--ranks and --threads/,
    );
    const none = await atlas([...COMMAND, "--ranks=0"]);
    expect(complaint(none, 2)).to.contain("--ranks");
  });
});
