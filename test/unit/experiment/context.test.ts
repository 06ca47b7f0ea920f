import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import fc from "fast-check";
import { Context } from "../../../src/experiment/context.js";
import { Progress } from "../../../src/experiment/progress.js";
import type { RunEvent } from "../../../src/run/events.js";
import { RunFolder } from "../../../src/run/folder.js";
import { FakeSession } from "./fake-session.js";

const SPEC = {
  experiment: "x",
  seed: 5,
  config: {},
  worker: { address: "local", device: "cpu" },
  versions: {},
};
/** Blocks of which the fake session makes nothing. */
const PLATES = { kind: "heat_equation" } as const;
const PLANE = { kind: "vectors", params: { n: 2 } } as const;
const NETWORK = { architecture: { kind: "mlp" }, training: { kind: "supervised" } } as const;

/**
 * One life of a run: the schedule of METHOD 2.2 or METHOD 2.3, in a fresh session, on whatever the
 * folder holds. Returns what was found.
 */
async function live(
  run: RunFolder,
  fake: FakeSession,
  schedule: "alternate" | "sequence",
  epochs = 4,
  before?: readonly RunEvent[],
) {
  const warnings: string[] = [];
  const progress = Object.assign(new Progress({ quiet: true }), {
    warn: (line: string) => warnings.push(line),
  });
  const signal = new AbortController().signal;
  const context = new Context({ session: fake.session, run, seed: 5, progress, signal, before });
  const dataset = await context.dataset(PLATES);
  const atlas = await context.atlas(PLANE);
  const common = { dataset, atlas, epochs };
  const predictor = await context.predictor({ ...common, ...NETWORK });
  const solver = { kind: "grassmann" } as const;
  const makeAlgebra = () => context.algebra({ ...common, predictor, solver, k: 1 });
  let algebra: Awaited<ReturnType<typeof makeAlgebra>>;
  if (schedule === "alternate") {
    algebra = await makeAlgebra();
    await context.alternate(
      { stage: "predictor", object: predictor },
      { stage: "algebra", object: algebra },
      epochs,
    );
  } else {
    await context.advance("predictor", predictor);
    algebra = await makeAlgebra();
    await context.advance("algebra", algebra);
  }
  const loss = (await context.advance("algebra", algebra, { untilEpoch: epochs })).loss;
  return {
    found: { predictor: fake.state(predictor).hash, algebra: fake.state(algebra).hash, loss },
    warnings,
    context,
  };
}

describe("context", () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-context-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const undisturbed = async (schedule: "alternate" | "sequence") => {
    const run = await RunFolder.create(dir, SPEC);
    const fake = new FakeSession();
    const { found } = await live(run, fake, schedule);
    await run.close();
    return { found, log: fake.log };
  };

  it("follows the published schedule: predictor and basis in turn", async () => {
    const { log } = await undisturbed("alternate");
    expect(log.slice(1, 5)).to.deep.equal(["predictor 1", "algebra 1", "predictor 2", "algebra 2"]);
  });

  for (const schedule of ["alternate", "sequence"] as const)
    it(`ends the same, whenever it is killed and whatever is damaged (${schedule})`, async () => {
      const expected = (await undisturbed(schedule)).found;
      const life = fc.record({
        epochs: fc.integer({ min: 1, max: 5 }),
        damage: fc.subarray(["predictor", "predictor.prev", "algebra", "algebra.prev"]),
      });
      await fc.assert(
        fc.asyncProperty(fc.array(life, { maxLength: 6 }), async (lives) => {
          const first = await RunFolder.create(dir, SPEC);
          await first.close();
          for (const { epochs, damage } of lives) {
            const run = await RunFolder.resume(first.path);
            const fake = new FakeSession();
            fake.failAfter = epochs;
            await live(run, fake, schedule).catch((error: Error) =>
              expect(error.message).to.equal("killed"),
            );
            await run.close();
            for (const name of damage)
              writeFileSync(join(run.path, "checkpoints", `${name}.safetensors`), "damaged");
          }
          const run = await RunFolder.resume(first.path);
          const { found } = await live(run, new FakeSession(), schedule);
          await run.close();
          expect(found).to.deep.equal(expected);
        }),
        { numRuns: 25 },
      );
    }).timeout(60_000);

  for (const schedule of ["alternate", "sequence"] as const)
    it(`ends the same, whenever it is killed, attached to or resumed (${schedule})`, async () => {
      const { found: expected, log } = await undisturbed(schedule);
      const life = fc.record({ epochs: fc.integer({ min: 0, max: 5 }), attach: fc.boolean() });
      await fc.assert(
        fc.asyncProperty(fc.array(life, { maxLength: 6 }), async (lives) => {
          const run = await RunFolder.create(dir, SPEC);
          let fake = new FakeSession();
          let since = 0;
          const begin = async (attach: boolean) => {
            if (attach) fake.attach();
            else {
              fake = new FakeSession();
              since = (await run.events()).length;
            }
            return (await run.events()).slice(since);
          };
          for (const { epochs, attach } of lives) {
            const before = await begin(attach);
            fake.failAfter = epochs;
            await live(run, fake, schedule, 4, before).catch((error: Error) =>
              expect(error.message).to.equal("killed"),
            );
          }
          const before = await begin(true);
          const { found } = await live(run, fake, schedule, 4, before);
          const told = (await run.events()).flatMap((e) =>
            e.type === "epoch" ? `${e.stage} ${e.epoch}` : [],
          );
          await run.close();
          expect(found).to.deep.equal(expected);
          expect(new Set(told)).to.deep.equal(new Set(log));
          if (lives.every(({ attach }) => attach)) expect(told).to.deep.equal(log);
        }),
        { numRuns: 15 },
      );
    }).timeout(60_000);

  it("does nothing again when all is done, and counts the time of before", async () => {
    const run = await RunFolder.create(dir, SPEC);
    await live(run, new FakeSession(), "sequence");
    const fake = new FakeSession();
    const { context } = await live(run, fake, "sequence");
    await run.close();
    expect(fake.log).to.deep.equal(["dataset 1"]);
    expect(context.timings.predictor).to.be.at.least(4); // the fake's epochs claim a second each
  });

  it("warns of a damaged checkpoint by name and does again only what was lost", async () => {
    const run = await RunFolder.create(dir, SPEC);
    await live(run, new FakeSession(), "sequence");
    writeFileSync(run.checkpointPath("algebra"), "damaged");
    const fake = new FakeSession();
    const { warnings } = await live(run, fake, "sequence");
    await run.close();
    expect(fake.log).to.deep.equal(["dataset 1", "algebra 4"]);
    expect(warnings).to.have.length(1);
    expect(warnings[0]).to.contain("algebra.safetensors");
  });

  it("keeps its own copy of a reused predictor, so that the source is read once", async () => {
    const run = await RunFolder.create(dir, SPEC);
    let reads = 0;
    const read = async () => {
      reads++;
      return Buffer.from("weights");
    };
    const hashes: string[] = [];
    for (let i = 0; i < 2; i++) {
      const fake = new FakeSession();
      const options = { session: fake.session, run, seed: 5, signal: new AbortController().signal };
      const context = new Context({ ...options, progress: new Progress({ quiet: true }) });
      const dataset = await context.dataset(PLATES);
      const atlas = await context.atlas(PLANE);
      const predictor = await context.predictor({ dataset, atlas, epochs: 3, ...NETWORK });
      await context.reuse("predictor", predictor, read);
      hashes.push(fake.state(predictor).hash);
    }
    await run.close();
    expect(reads).to.equal(1);
    expect(hashes[0]).to.equal(hashes[1]);
  });

  it("knows the facts of a dataset that only its job makes known", async () => {
    const run = await RunFolder.create(dir, SPEC);
    const fake = new FakeSession();
    fake.facts.dataset = { cache: "/somewhere" };
    fake.shapes = { inputs: [10, 4, 96, 144], targets: [10, 1] };
    const options = { session: fake.session, run, seed: 5, signal: new AbortController().signal };
    const context = new Context({ ...options, progress: new Progress({ quiet: true }) });
    const datasets = [await context.dataset(PLATES), await context.dataset(PLATES)];
    await run.close();
    expect(datasets.map(({ handle }) => handle)).to.deep.equal(["dataset-0", "dataset-1"]);
    for (const { epoch, facts, shapes } of datasets)
      expect({ epoch, facts, shapes }).to.deep.equal({
        epoch: 1,
        facts: fake.facts.dataset,
        shapes: fake.shapes,
      });
  });

  it("gives every purpose its own seed, all from the run's", async () => {
    const run = await RunFolder.create(dir, SPEC);
    const make = (seed: number) =>
      new Context({
        session: new FakeSession().session,
        run,
        seed,
        progress: new Progress({ quiet: true }),
        signal: new AbortController().signal,
      });
    const seeds = ["dataset", "predictor", "algebra", "cosets"].map((purpose) =>
      make(0).seedFor(purpose),
    );
    expect(new Set(seeds).size).to.equal(4);
    expect(make(0).seedFor("dataset")).to.equal(seeds[0]);
    expect(make(1).seedFor("dataset")).to.not.equal(seeds[0]);
    expect(seeds.every(Number.isSafeInteger)).to.equal(true);
    await run.close();
  });
});
