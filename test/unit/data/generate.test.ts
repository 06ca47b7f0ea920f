import { tmpdir } from "node:os";
import { expect } from "chai";
import { generate } from "../../../src/data/generate.js";
import { AtlasError, Interrupted } from "../../../src/errors.js";
import { rejection } from "../worker/rejection.js";

describe("a generator", function () {
  this.timeout(20_000);
  const where = { count: 10, out: tmpdir(), seed: 0 };
  const generator = { countFlag: "--jets", extras: [], fewest: 1, most: 9, example: 9 };

  it("that fails without saying why is our fault, and its last line is shown", async () => {
    const logged: string[] = [];
    const error = await rejection(
      generate(
        { ...generator, module: "atlas_worker.none" },
        { ...where, onLog: (line) => logged.push(line) },
      ),
    );
    expect(error.constructor).to.equal(AtlasError);
    expect((error as AtlasError).exitCode).to.equal(1);
    expect(error.message).to.match(
      /ended with exit code 1 \(.*No module named atlas_worker\.none\)/,
    );
    expect(logged.at(-1)).to.contain("No module named");
  });

  it("is not started when it is stopped beforehand", async () => {
    const signal = AbortSignal.abort();
    const error = await rejection(
      generate({ ...generator, module: "atlas_worker.none" }, { ...where, signal }),
    );
    expect(error).to.be.instanceOf(Interrupted);
  });
});
