/** The steps of a running run: their ring, and the file that others look at. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import fc from "fast-check";
import { RunFolder } from "../../../src/run/folder.js";
import { LIVE, LiveSteps, readLive } from "../../../src/run/live.js";
import { StepRing } from "../../../src/run/steps.js";
import { until } from "../../e2e/atlas.js";

describe("the ring of a metric's steps", () => {
  it("has all steps while there are few", () => {
    const ring = new StepRing(200);
    const points = Array.from({ length: 200 }, (_, i): [number, number] => [i, Math.sin(i)]);
    for (const point of points) ring.add(...point);
    expect(ring.points).to.deep.equal(points);
  });

  it("keeps the extremes, the first and the last step of any number", () => {
    for (const steps of [1, 199, 200, 201, 401, 12_345, 200_000]) {
      const ring = new StepRing(200);
      const value = (i: number) => Math.sin(i / 500) + (i === 7919 ? 1000 : i === 7920 ? -1000 : 0);
      for (let i = 0; i < steps; i++) ring.add(i, value(i));
      const { points } = ring;
      expect(points.length, String(steps)).to.be.within(1, 401);
      expect(points.at(-1)).to.deep.equal([steps - 1, value(steps - 1)]);
      expect(points[0]![0]).to.be.at.most(steps / 100);
      const values = new Map(points);
      for (const [at, y] of points) expect(y).to.equal(value(at)); // no point is made up
      if (steps > 7920)
        expect([values.get(7919), values.get(7920)]).to.deep.equal([value(7919), value(7920)]);
    }
  });

  it("has the extremes of every part of any stream, and its points in order", () => {
    const number = fc.oneof(fc.double({ noNaN: true, noDefaultInfinity: true }), fc.constant(0.5));
    fc.assert(
      fc.property(fc.array(number, { minLength: 1, maxLength: 500 }), (values) => {
        const ring = new StepRing(8);
        values.forEach((value, i) => void ring.add(i, value));
        const { points } = ring;
        const shown = points.map(([, y]) => y!);
        expect(points.length).to.be.at.most(17);
        expect(Math.min(...shown)).to.equal(Math.min(...values));
        expect(Math.max(...shown)).to.equal(Math.max(...values));
        for (const [i, [at]] of points.slice(1).entries()) expect(at).to.be.above(points[i]![0]);
      }),
    );
  });

  it("shows where values were not finite as gaps", () => {
    const ring = new StepRing(16);
    for (let i = 0; i < 10_000; i++)
      ring.add(
        i,
        i === 0 ? Number.NaN : i === 5000 ? Number.POSITIVE_INFINITY : i < 9000 ? 1 : Number.NaN,
      );
    const gaps = ring.points.filter(([, y]) => y === null).map(([at]) => at);
    expect(gaps).to.include.members([0, 5000, 9999]);
    expect(ring.points.every(([, y]) => y === null || y === 1)).to.equal(true);
    expect(JSON.parse(JSON.stringify(ring.points))).to.deep.equal(ring.points);
  });

  it("has one point for each part of a constant", () => {
    const ring = new StepRing(16);
    for (let i = 0; i < 10_000; i++) ring.add(i, 3);
    expect(ring.points.length).to.be.within(8, 17);
    expect(ring.points.every(([, y]) => y === 3)).to.equal(true);
  });

  it("begins again with a step that is done again", () => {
    const ring = new StepRing(16);
    for (let i = 0; i < 1000; i++) ring.add(i, 1);
    ring.add(500, 2);
    ring.add(501, 3);
    expect(ring.points).to.deep.equal([
      [500, 2],
      [501, 3],
    ]);
  });
});

describe("live.json", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "atlas-live-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const place = { stage: "predictor", totalEpochs: 3, stepsInEpoch: 10 };
  const has = async (what: (stages: Awaited<ReturnType<typeof readLive>>) => boolean) => {
    while (!what(await readLive(folder))) await new Promise((done) => setTimeout(done, 5));
    return readLive(folder);
  };

  it("has the steps of the stages that are worked on", async () => {
    const live = new LiveSteps(folder, 1);
    live.step({ ...place, epoch: 0, step: 1, metrics: { loss: 2 } });
    live.step({ ...place, epoch: 0, step: 5, metrics: { loss: Number.NaN } });
    live.epoch({ ...place, epoch: 1 });
    live.step({ ...place, epoch: 1, step: 5, metrics: { loss: 1, other: 4 } });
    live.step({ ...place, stage: "algebra", epoch: 0, step: 1, metrics: {} });
    const stages = await has((all) => all.length === 2);
    const points = [
      [0.1, 2],
      [0.5, null],
      [1.5, 1],
    ];
    const curves = [
      { metric: "loss", points },
      { metric: "other", points: [[1.5, 4]] },
    ];
    expect(stages).to.deep.equal([
      { ...place, epoch: 1, step: 5, curves },
      { ...place, stage: "algebra", epoch: 0, step: 1, curves: [] },
    ]);
    live.epoch({ ...place, epoch: 3 });
    live.step({ ...place, epoch: 2, step: 10, metrics: { loss: 1 } }); // late, and of no use
    expect(await has((all) => all.length === 1)).to.have.nested.property("[0].stage", "algebra");
    await live.end();
    expect(readdirSync(folder)).to.deep.equal([]);
  });

  it("is not written more often than it says, and stays small", async () => {
    const live = new LiveSteps(folder, 60_000);
    live.step({ ...place, epoch: 0, step: 0, metrics: { first: 1 } });
    await until(() => existsSync(join(folder, LIVE)), "the file");
    const first = readFileSync(join(folder, LIVE), "utf8");
    for (let i = 0; i < 5000; i++)
      live.step({
        ...place,
        stage: `${i % 9}`,
        stepsInEpoch: 1e6,
        epoch: 0,
        step: i,
        metrics: { a: i },
      });
    await new Promise((done) => setTimeout(done, 50));
    expect(readFileSync(join(folder, LIVE), "utf8")).to.equal(first);
    await live.end();
    const many = new LiveSteps(folder, 1);
    for (let i = 0; i < 5000; i++) {
      const metrics = Object.fromEntries(
        Array.from({ length: 40 }, (_, m) => [`m${m}`, Math.random()]),
      );
      const stage = `${Math.floor(i / 500)}`;
      many.step({ ...place, stage, stepsInEpoch: 1e6, epoch: 0, step: i, metrics });
    }
    await until(() => existsSync(join(folder, LIVE)), "the file");
    expect(readFileSync(join(folder, LIVE)).length).to.be.below(1 << 20);
    expect(await readLive(folder)).to.have.length(4);
    await many.end();
  });

  it("may be impossible to write", async () => {
    const live = new LiveSteps(join(folder, "gone"), 1);
    live.step({ ...place, epoch: 0, step: 1, metrics: { loss: 1 } });
    await new Promise((done) => setTimeout(done, 30));
    live.step({ ...place, epoch: 0, step: 2, metrics: { loss: 1 } });
    await live.end();
    expect(existsSync(join(folder, "gone"))).to.equal(false);
  });

  it("of a process that was killed is removed when the run goes on", async () => {
    const plan = { experiment: "x", seed: 1, config: {}, versions: {} };
    const run = await RunFolder.create(folder, {
      ...plan,
      worker: { address: "local", device: "cpu" },
    });
    await run.close();
    writeFileSync(join(run.path, LIVE), "{}");
    const again = await RunFolder.resume(run.path);
    expect(existsSync(join(run.path, LIVE))).to.equal(false);
    await again.close();
  });

  it("of a stranger is refused if it is not what it should be", async () => {
    const stage = { stage: "s", epoch: 0, totalEpochs: 1, step: 0, stepsInEpoch: 1, curves: [] };
    const good = { schema: "atlas.live/1", stages: [stage] };
    const write = (contents: unknown) =>
      writeFileSync(
        join(folder, LIVE),
        typeof contents === "string" ? contents : JSON.stringify(contents),
      );
    write(good);
    expect(await readLive(folder)).to.have.length(1);
    const curve = { metric: "m", points: [[0, 1]] };
    const bad: unknown[] = ["", "{", "null", "[]", "\0", { ...good, schema: "other" }];
    bad.push({ ...good, stages: [{ ...stage, epoch: -1 }] }, { ...good, stages: { length: 1 } });
    bad.push({ ...good, stages: Array(5).fill(stage) });
    bad.push({ ...good, stages: [{ ...stage, curves: Array(13).fill(curve) }] });
    const points = Array(2001).fill([0, 1]);
    bad.push({ ...good, stages: [{ ...stage, curves: [{ metric: "m", points }] }] });
    bad.push(
      JSON.stringify({ ...good, stages: [{ ...stage, curves: [curve] }] }).replace("1]", "1e999]"),
    );
    bad.push(`${" ".repeat(1 << 20)}${JSON.stringify(good)}`);
    for (const contents of bad) {
      write(contents);
      expect(await readLive(folder), JSON.stringify(contents).slice(0, 90)).to.deep.equal([]);
    }
    write({
      ...good,
      stages: [
        { ...stage, stage: "x".repeat(5000), curves: [{ ...curve, metric: "y".repeat(5000) }] },
      ],
    });
    const [shown] = await readLive(folder);
    expect(shown!.stage.length).to.be.below(200);
    expect(shown!.curves[0]!.metric.length).to.be.below(200);
    rmSync(join(folder, LIVE));
    const elsewhere = join(folder, "elsewhere");
    writeFileSync(elsewhere, JSON.stringify(good));
    symlinkSync(elsewhere, join(folder, LIVE));
    expect(await readLive(folder)).to.deep.equal([]);
    rmSync(join(folder, LIVE));
    mkdirSync(join(folder, LIVE));
    expect(await readLive(folder)).to.deep.equal([]);
  });
});
