import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { namedAlgebra } from "../../../src/algebra/index.js";
import { UsageError } from "../../../src/errors.js";
import { configReader } from "../../../src/experiment/config.js";
import { defineExperiment, task } from "../../../src/experiment/define.js";
import { RunLookup } from "../../../src/experiment/lookup.js";
import {
  demandGenerators,
  demandMetric,
  discoverCosets,
  givenBasis,
  lookUpIdentity,
  lookUpIdentityOrNewest,
  namedIdentity,
  sameBasis,
} from "../../../src/method/index.js";
import type { GroupMeasured } from "../../../src/result.js";
import type { EvidenceOptions, RemoteObject } from "../../../src/worker/index.js";
import { rejection } from "../worker/rejection.js";
import { fakeTask, QUARTER, UNIT } from "./fake-task.js";

const experiment = defineExperiment({
  name: "x",
  summary: "",
  tasks: { find: task({ summary: "", config: {}, run: async () => ({}) as never }) },
});

describe("the components", () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-method-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  it("are named by the identity component, and the search is kept", async () => {
    for (const named of [{ solver: { kind: "multistart" } as const }, { params: {} }]) {
      const { ctx, fake, run, inputs } = await fakeTask(dir);
      const found = await discoverCosets(ctx, inputs, { ...named, identity: [QUARTER], epochs: 1 });
      await run.close();
      expect(fake.log.slice(1)).to.deep.equal(["cosets 1", "cosets 1"]);
      expect(fake.made.at(-2)!.options).to.deep.include({ identityAlgebra: [QUARTER] });
      expect((fake.made.at(-2)!.options as { solver: object }).solver).to.include({
        kind: "multistart",
      });
      expect(found.cosets.map(({ name, loss }) => [name, loss])).to.deep.equal([["identity", 0.5]]);
      expect(fake.made.at(-1)!.options).to.deep.include({ matrices: [UNIT] });
      expect(found.group).to.deep.include({ finite: false, name: "C_1", order: 1 });
      expect(found.cosetSearch).to.deep.equal({ noiseFloor: 0, candidates: [] });
    }
  });

  it("leave out elements of the closure that lose skill on held-out data", async () => {
    const { ctx, fake, run, inputs } = await fakeTask(dir);
    const mirror = [[1, 0], [0, -1]]; // biome-ignore format: a matrix
    const { getClosure } = fake as unknown as { getClosure(): Promise<GroupMeasured> };
    const both = {
      ...(await getClosure()),
      ...{ matrices: [UNIT, mirror], losses: [0.5, 3], table: [[0, 1], [1, 0]] }, // biome-ignore format: a table
    };
    const measure = fake.measureEvidence.bind(fake);
    let closed = 0;
    Object.assign(fake, {
      getClosure: async () => (closed++ === 0 ? both : getClosure()),
      measureEvidence: async (object: RemoteObject, options: EvidenceOptions = {}) => {
        const found = await measure(object, options);
        const broken = options.matrices?.some((m) => (m as number[][])[1]![1]! < 0);
        const matrices = found.matrices.map((at) => (broken ? { ...at, lost: 0.8 } : at));
        return { ...found, matrices };
      },
    });
    const found = await discoverCosets(ctx, inputs, { params: {}, identity: [], epochs: 1 });
    await run.close();
    expect(closed).to.equal(2);
    expect(found.group).to.deep.include({ finite: true, name: "C_1", order: 1 });
    const { solver } = fake.made.at(-1)!.options as { solver: { params: object } };
    expect(solver.params).to.include({ starts: 0 });
  });

  describe("of which the identity component is given", () => {
    const lookup = () => new RunLookup(join(dir, "none"), configReader(experiment));

    it("look it up once, and have an empty basis where there is none", async () => {
      expect(await lookUpIdentity(lookup(), undefined, 4)).to.equal(undefined);
      expect(givenBasis(undefined)).to.deep.equal([]);
      const lorentz = await lookUpIdentity(lookup(), "so(1,3)", 4, "--task x");
      expect(lorentz).to.deep.equal({ source: "so(1,3)", basis: namedAlgebra("so(1,3)", 4) });
      expect(givenBasis(lorentz)).to.have.length(6);
      const none = await lookUpIdentity(lookup(), "none", 4, "--task x");
      expect(givenBasis(none)).to.deep.equal([]);
      expect(await lookUpIdentity(lookup(), lorentz, 4)).to.equal(lorentz);
    });

    it("must have one where it is needed, given or found before", async () => {
      const error = await rejection(lookUpIdentity(lookup(), undefined, 4, "--task x"));
      expect(error).to.be.instanceOf(UsageError);
      expect((error as UsageError).message)
        .to.contain("--task x")
        .and.contain("algebra");
      const told: string[] = [];
      const info = (line: string) => void told.push(line);
      const preparation = { lookup: lookup(), given: {}, info, warn: info };
      const nothing = await rejection(
        lookUpIdentityOrNewest(preparation, undefined, 2, () => true),
      );
      expect(nothing).to.be.instanceOf(UsageError);
      const given = await lookUpIdentityOrNewest(preparation, "so(2)", 2, () => false);
      expect(given.basis).to.deep.equal([namedAlgebra("so(2)", 2)![0]]);
      expect(told).to.deep.equal([]);
    });

    it("refuse an algebra that nothing can be built from", () => {
      const none = namedIdentity("none", 2);
      expect(() => demandGenerators(none)).to.throw(UsageError, "none");
      expect(() => demandGenerators(undefined)).to.throw(UsageError);
      demandGenerators(namedIdentity("so(2)", 2));
      expect(() => demandMetric(namedIdentity("gl(2)", 2))).to.throw(UsageError, "gl(2)");
      demandMetric(namedIdentity("so(1,3)", 4));
      expect(() => namedIdentity("so(5)", 2)).to.throw(UsageError, "so(5)");
    });

    it("are of the same thing where the basis is the same, wherever it is from", () => {
      const rotation = namedIdentity("so(2)", 2);
      expect(sameBasis(rotation, { ...rotation, source: "elsewhere" })).to.equal(true);
      expect(sameBasis(rotation, namedIdentity("sl(2)", 2))).to.equal(false);
      expect(sameBasis(rotation, undefined)).to.equal(false);
      expect(sameBasis(undefined, undefined)).to.equal(true);
    });
  });
});
