/** The benchmarks that take more than this machine work on it in miniature. */
import { expect } from "chai";
import { measureDevice, measureTransfer } from "../bench/gpu.js";
import { distanceFrom, generatorsIn } from "../bench/peers.js";
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

  it("reads the generators that published code prints, and grades them", () => {
    const turn = [
      [0, -1],
      [1, 0],
    ];
    const printed = `Discovered Basis
       [tensor([[[ 0.000000000, -2.000000000],
         [ 2.000000000,  0.000000000]]])]
      Epoch 0 Predictor loss 0.1
      tensor([[[ 1.0e+00, 0.0], [0.0, 1.]]], grad_fn=<MulBackward0>)`;
    const [first, second, ...others] = generatorsIn(printed, 2);
    expect(others).to.deep.equal([]);
    expect(distanceFrom([turn], first!)).to.be.below(1e-12);
    expect(distanceFrom([turn], second!)).to.be.closeTo(Math.PI / 2, 1e-12);
    expect(distanceFrom([turn], [])).to.be.closeTo(Math.PI / 2, 1e-12);
    expect(generatorsIn("[[[0, -1], [1, 0]]]", 2)).to.deep.equal([[turn]]);
    expect(generatorsIn("[[[0, -1], [1,", 2)).to.deep.equal([]); // not all of it is there yet
  });
});
