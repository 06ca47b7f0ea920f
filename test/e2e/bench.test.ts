/** The benchmarks that take more than this machine work on it in miniature. */
import { expect } from "chai";
import { measureDevice, measureTransfer } from "../bench/gpu.js";
import { LONG } from "./atlas.js";

describe("npm run bench", function () {
  this.timeout(LONG);

  it("measures everything of a GPU, in miniature on the CPU", async () => {
    const { small, roofline, schedule, ...parts } = await measureDevice("cpu", 1);
    expect(small).to.equal(true);
    for (const rate of Object.values(roofline)) expect(rate).to.be.above(0);
    const { predictors, solvers, downstream } = parts;
    for (const [name, count] of [
      ["predictors", 2],
      ["solvers", 2],
      ["downstream", 6],
    ] as const)
      expect(Object.keys(parts[name]), JSON.stringify(parts[name])).to.have.length(count);
    for (const works of [{ schedule }, predictors, solvers, downstream])
      for (const [name, work] of Object.entries(works)) {
        if ("error" in work) expect.fail(`${name}: ${work.error}`);
        for (const number of Object.values(work)) expect(number, name).to.be.above(0);
      }
    const [transfer] = await measureTransfer("cpu", 1);
    expect(transfer!.gigabytesPerSecond).to.be.above(0);
  });
});
