/** `atlas discover --charts auto` on plates with a hole, where the symmetry holds away from it. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import type { Result } from "../../src/result.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { json, LONG, refuses, sharedWorker } from "./atlas.js";

/** First and last row and column of the hole. */
const HOLE = { rows: [10, 19], cols: [38, 49] } as const;
/** Heat flow from smooth random fields, on plates whose hole is held at a temperature. */
const PLATES = `
import numpy as np
rng = np.random.default_rng(0)
k = np.fft.fftfreq(64)
smooth = np.exp(-200 * (k[:, None] ** 2 + k[None] ** 2))
x = np.fft.ifft2(np.fft.fft2(rng.normal(size=(400, 64, 64))) * smooth).real
x /= x.std()
hole = np.zeros((64, 64), bool)
hole[${HOLE.rows[0]}:${HOLE.rows[1] + 1}, ${HOLE.cols[0]}:${HOLE.cols[1] + 1}] = True
x[:, hole] = 1.5
y = x.copy()
for _ in range(12):
    p = np.pad(y, ((0, 0), (1, 1), (1, 1)), mode="edge")
    y = (p[:, :-2, 1:-1] + p[:, 2:, 1:-1] + p[:, 1:-1, :-2] + p[:, 1:-1, 2:]) / 4
    y[:, hole] = 1.5
np.save("x", x[:, None].astype(np.float32))
np.save("y", y[:, None].astype(np.float32))
`;

describe("atlas discover --charts", function () {
  this.timeout(LONG);
  let dir: string;
  let worker: string;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-charts-"));
    execFileSync((await ensureVenv()).python, ["-c", PLATES], { cwd: dir });
    worker = await sharedWorker();
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  it("maps where a symmetry holds, and finds it there", async () => {
    const args = "--inputs x.npy --targets y.npy --charts auto --solver.starts 2 --solver.steps 40";
    const task = ["--task", "discover_algebra", "--fixed-seed", "--worker", worker];
    const { algebra, chartMap } = await json<Result>(["discover", ...task, ...args.split(" ")], {
      cwd: dir,
    });
    const { charts, window } = chartMap!;
    const beyond = (at: number, [first, last]: readonly [number, number]) =>
      Math.max(first - at, at - last, 0);
    const atHole = charts.map(
      ({ row, col }) => Math.max(beyond(row, HOLE.rows), beyond(col, HOLE.cols)) <= window,
    );
    const marked = charts.map(({ state }) => state !== "holds");
    const both = charts.filter((_, i) => atHole[i] && marked[i]).length;
    const either = charts.filter((_, i) => atHole[i] || marked[i]).length;
    expect(atHole).to.include(true).and.to.include(false);
    expect(both / either).to.be.at.least(0.8);
    for (const { error, low, high } of charts) expect(error).to.be.within(low, high);
    expect(algebra!.identified.name).to.equal("so(2)");
    expect(algebra!.identified.angleDegrees).to.be.below(5);
    expect(algebra!.symmetryCount).to.equal(1);
  });

  it("refuses places that it cannot use", async () => {
    const base = ["discover", "--worker", worker, "--inputs", "x.npy", "--targets", "y.npy"];
    const bad: [args: string, line: RegExp][] = [
      ["--charts auto --r-in 9", /^error: --r-in has no effect with --charts auto/],
      ["--charts somewhere", /^error: --charts somewhere: expected row,col.*grid:4x4, auto/],
      ["--charts 60,60", /^error: chart 0 at \(60, 60\) .*leaves the 64x64 lattice/],
      ["--charts grid:2x2 --r-in 40", /^error: chart 0 .*leaves the 64x64 lattice/],
    ];
    await refuses(
      bad.map(([args, line]) => [[...base, ...args.split(" ")], line]),
      { cwd: dir },
    );
  });
});
