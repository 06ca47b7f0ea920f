/** Runs of experiments from the command line, as a user does them. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { Result } from "../../src/result.js";
import { readSafetensors, Tensor, writeNpy, writeSafetensors } from "../../src/tensor/index.js";
import {
  apart,
  atlas,
  complaint,
  ends,
  json,
  LONG,
  runs as lives,
  sharedWorker,
  startBackground,
} from "./atlas.js";

/** Too little for a verdict. */
const TINY = [
  "pde",
  "--layout=2",
  "--N=8",
  "--architecture=strided_cnn",
  "--device=cpu",
  "--threads=1",
];
const ALGEBRA = [
  ...TINY,
  "--evidence=none", // the relative error decides
  "--task=discover_algebra",
  "--solver=atlasd",
  "--predictor_lr=0.01",
  "--epochs=2",
];
const COSETS = [
  ...TINY,
  "--task=discover_cosets",
  "--candidates=1",
  "--max-components=1",
  "--coset_solver.steps=5",
  "--reuse-predictor",
];

type Document = Record<string, unknown> & Result;

/** A result without what differs between two runs of one seed. */
function essence({ timings, ...rest }: Document): string {
  expect(Object.values(timings).every((seconds) => seconds >= 0)).to.equal(true);
  return JSON.stringify(rest);
}

describe("atlas pde", function () {
  this.timeout(LONG);
  let dir: string;
  let address: string;
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  /** The first run of seed 0, in `runs` of the working folder. */
  let first: Document;
  let id: string;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-pde-"));
    where = { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state") } };
    address = await sharedWorker();
    first = await json<Document>([...ALGEBRA, "--fixed_seed", "--worker", address], where);
    const names = readdirSync(join(dir, "runs"));
    expect(names).to.have.length(1);
    id = names[0]!;
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const runFolder = () => join(dir, "runs", id);
  const here = (args: string[]) => json<Document>([...args, "--worker", address], where);

  it("prints the result document of the schema, and keeps it in runs/", () => {
    Result.parse(first);
    expect(first).to.include({
      schema: "atlas.result/2",
      experiment: "pde",
      task: "discover_algebra",
      seed: 0,
    });
    const { symmetryCount, explanation } = first.algebra!;
    expect(first.algebra, "the former names").to.include({
      found: symmetryCount,
      verdict: explanation,
    });
    expect(first.predictor).to.include({ epochs: 2, source: "trained" });
    expect(Object.keys(first.timings)).to.have.members(["dataset", "predictor", "algebra"]);
    expect(JSON.parse(readFileSync(join(runFolder(), "result.json"), "utf8"))).to.deep.equal(first);
    expect(readdirSync(runFolder()).sort()).to.deep.equal([
      "checkpoints",
      "config.json",
      "events.jsonl",
      "report.html",
      "result.json",
    ]);
  });

  it("gives the same with one seed in another worker, spelt otherwise, quietly", async () => {
    const args = ALGEBRA.map((arg) => arg.replaceAll("predictor_lr", "predictor-lr"));
    const quietly = [...args, "--fixed-seed", "--quiet", "--json"];
    const { code, stdout, stderr } = await apart(quietly, where);
    expect({ code, stderr }).to.deep.equal({ code: 0, stderr: "" });
    expect(essence(JSON.parse(stdout))).to.equal(essence(first));
  });

  it("gives something else with another seed, and says so in words", async () => {
    const { code, stdout, stderr } = await atlas(
      [...ALGEBRA, "--seed=1", "--worker", address],
      where,
    );
    expect(code, stderr).to.equal(0);
    expect(stderr).to.match(
      /^run +\S+\n(?:dataset +1\/1 .*\n)+predictor +1\/2 +loss [\d.]+ .*\nalgebra +1\/2 +loss /,
    );
    const [, path, report] = /^run +(\S+)\nreport +(\S+)\n$/m.exec(stdout) ?? [];
    expect(stdout).to.match(/^algebra +\S.*loss [\d.e-]+/);
    const result = JSON.parse(readFileSync(join(path!, "result.json"), "utf8")) as Document;
    expect(result.seed).to.equal(1);
    expect(result.algebra!.generators).not.to.deep.equal(first.algebra!.generators);
    expect(readFileSync(report!, "utf8")).to.match(/^<!doctype html>/i);
  });

  it("takes predictors from a run, a file of either kind, or the newest fitting run", async () => {
    const kept = join(runFolder(), "checkpoints/predictor.safetensors");
    const pt = join(dir, "weights.pt");
    const weights = join(dir, "weights.safetensors");
    const { tensors } = readSafetensors(readFileSync(kept), kept);
    writeFileSync(weights, writeSafetensors(tensors));
    const converted = await atlas(["checkpoint", "convert", weights, pt], where);
    expect(converted.code, converted.stderr).to.equal(0);
    const results: Document[] = [];
    for (const source of [[id], [kept], [weights], [pt]])
      results.push(await here([...ALGEBRA, "--fixed_seed", "--reuse_predictor", ...source]));
    results.push(await here([...ALGEBRA, "--fixed_seed", "--reuse_predictor"]));
    const [algebra, ...others] = results.map((r) => JSON.stringify(r.algebra));
    expect(others.every((other) => other === algebra)).to.equal(true);
    expect(results.map((r) => r.predictor.source).slice(0, 4)).to.deep.equal([
      runFolder(),
      kept,
      weights,
      pt,
    ]);
  });

  it("takes the identity component from a run, a file of each kind, or by name", async () => {
    const basis = first.algebra!.generators.slice(0, first.algebra!.symmetryCount);
    const tensor = Tensor.from(basis.length > 0 ? basis : first.algebra!.generators);
    const files = {
      json: join(dir, "b.json"),
      npy: join(dir, "b.npy"),
      st: join(dir, "b.safetensors"),
    };
    writeFileSync(files.json, JSON.stringify({ generators: tensor.toNested() }));
    writeFileSync(files.npy, writeNpy(tensor));
    writeFileSync(files.st, writeSafetensors(new Map([["generators", tensor]])));
    const sets = Array.from({ length: 60 }, (_, i) => [[Math.sin(i), Math.cos(3 * i)]]);
    writeFileSync(join(dir, "sets.npy"), writeNpy(Tensor.from(sets)));
    writeFileSync(join(dir, "norms.npy"), writeNpy(Tensor.from(sets.map(([u]) => [u![0]! ** 2]))));
    const quick =
      "discover --task=discover_cosets --inputs=sets.npy --targets=norms.npy --candidates=8";
    const cosets: string[] = [];
    for (const file of Object.values(files)) {
      const result = await here([...quick.split(" "), "--fixed_seed", "--identity", file]);
      Result.parse(result);
      expect(result).not.to.have.property("algebra");
      cosets.push(JSON.stringify(result.cosets));
    }
    expect(new Set(cosets).size).to.equal(1);
    for (const given of [id, "so(2)"]) {
      const { cosets: found } = await here([...COSETS, id, "--fixed_seed", "--identity", given]);
      expect(found).to.be.an("array").with.length.greaterThan(0);
    }
    // The latest by now is a run of components.
    const line = complaint(await atlas([...COSETS, id, "--identity", "latest"], where), 2);
    expect(line).to.match(/^error: run \S+ has no algebra.*; .* run .*discover_algebra/);
  });

  it("is listed and shown", async () => {
    const listed = await json<{ id: string; created: string; status: string }[]>(["runs"], where);
    expect(listed.map((run) => run.id)).to.have.members(readdirSync(join(dir, "runs")));
    const times = listed.map(({ created }) => created);
    expect(times).to.deep.equal(times.toSorted());
    expect(listed.every(({ status }) => status === "finished")).to.equal(true);
    const table = await atlas(["runs"], where);
    expect(table.stdout.split("\n")[0]).to.equal(`${id}  finished     seed 0`);
    const shown = await atlas(["show", id], where);
    for (const line of [
      /^run +\S+$/m,
      /^experiment +pde \(preset published\)$/m,
      /^status +finished$/m,
      /^settings +task=discover_algebra layout=2 N=8 .*solver=atlasd/m,
      /^time +dataset [\d.]+ s, predictor/m,
      /^algebra +/m,
      /^report +\S+report\.html$/m,
    ])
      expect(shown.stdout).to.match(line);
    const latest = await atlas(["show", "latest"], where);
    expect(latest.stdout).to.contain(`run         ${listed.at(-1)!.id}\n`);
    expect(await json(["show", id], where)).to.deep.equal(first);
  });

  it("runs a user's own experiment, on the user's own arrays, and resumes it", async () => {
    const folder = "my own #1 %41 dir's é [x] <y>";
    mkdirSync(join(dir, folder));
    const file = join(dir, folder, "blur.ts");
    writeFileSync(file, OWN);
    const help = await apart(["run", file, "--help"], where);
    expect(help.stdout).to.contain("--samples <number>").and.to.contain("Blur of random images");
    const here = ["--worker", address, "--json"];
    const run = async (args: string[], at = where): Promise<Document> => {
      const { code, stdout, stderr } = await apart(args, at);
      expect(code, stderr).to.equal(0);
      return JSON.parse(stdout);
    };
    const result = await run(["run", file, "--samples", "8", "--fixed_seed", ...here]);
    expect(result).to.include({ experiment: "blur", seed: 0 });
    expect(result.algebra!.generators).to.have.length(1);
    const again = await run([`${folder}/blur.ts`, "--samples=8", "--seed=0", ...here]);
    expect(essence(again)).to.equal(essence(result));
    const listed = await json<{ id: string; path: string }[]>(["runs"], where);
    rmSync(join(listed.at(-1)!.path, "result.json"));
    const elsewhere = { ...where, cwd: tmpdir() };
    const resume = ["resume", listed.at(-1)!.path];
    expect(complaint(await atlas(resume, elsewhere), 2)).to.match(
      /^error: continuing run \S+ would execute code: .+blur\.ts; .*--trust-code$/,
    );
    const resumed = await run([...resume, "--trust-code", "--json"], elsewhere);
    expect(essence(resumed)).to.equal(essence(result));
    const wrong = complaint(await apart(["run", file, "--sample", "8"], where), 2);
    expect(wrong).to.match(
      /^error: unknown option '--sample' \(Did you mean --samples\?\); see --help$/,
    );
  });

  it("finds so(2), identity and reflection with the real settings, as the demo does", async () => {
    const demo = ["demo", "--json", "--runs", join(dir, "demo"), "--worker", address];
    const { stdout, stderr, code } = await atlas(demo, where);
    expect(code, stderr).to.equal(0);
    const { algebra, cosets, seed, task } = Result.parse(JSON.parse(stdout));
    expect({ seed, task }).to.deep.equal({ seed: 0, task: "discover" });
    expect(algebra!.identified.name).to.equal("so(2)");
    const [[[a, b], [c, d]]] = algebra!.generators as [[[number, number], [number, number]]];
    const cosine = Math.abs(c - b) / Math.SQRT2 / Math.hypot(a, b, c, d);
    expect((Math.acos(Math.min(1, cosine)) * 180) / Math.PI).to.be.lessThan(3);
    expect(cosets!.map((coset) => Math.sign(coset.determinant)).sort()).to.deep.equal([-1, 1]);
    expect(cosets!.map(({ name }) => name).some((name) => name === "identity")).to.equal(true);
    expect(cosets!.map(({ name }) => name).some((name) => name.startsWith("reflection"))).to.equal(
      true,
    );
  });
});

describe("a background worker", function () {
  this.timeout(LONG);
  let dir: string;
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-background-"));
    where = { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state") } };
  });
  after(async () => {
    await atlas(["worker", "stop"], where); // should a test have failed
    rmSync(dir, { recursive: true, force: true });
  });

  it("is asked for where there is none", async () => {
    const none = await apart(["worker", "stop"], where);
    expect(none).to.deep.equal({
      code: 0,
      stdout: "no worker runs in the background\n",
      stderr: "",
    });
    expect(complaint(await atlas(["worker", "info"], where), 2)).to.match(
      /^error: no worker runs in the background; start one with: atlas worker start/,
    );
  });

  it("outlives the command that starts it, computes, tells of itself, and is stopped", async () => {
    const { address } = await startBackground(["--device=cpu", "--threads", "1"], where);
    expect(address).to.match(/^grpc:\/\/127\.0\.0\.1:\d+$/);
    const info = await json<{ address: string; pid: number; threads: number }>(
      ["worker", "info"],
      where,
    );
    expect(info).to.include({ address, threads: 1 });
    const words = await atlas(["worker", "info", "--worker", address], where);
    expect(words.stdout).to.match(/^blocks +algebra_solver: atlasd, grassmann$/m);
    const again = complaint(await atlas(["worker", "start"], where), 2);
    expect(again).to.match(
      /^error: a worker .*already.* at grpc:\S+ \(process \d+\); .*atlas worker stop/,
    );
    expect(lives(info.pid)).to.equal(true);
    const run = await json<Result>([...ALGEBRA, "--epochs=1", "--worker", address], where);
    expect(run.algebra!.generators).to.have.length(1);
    const stopped = await apart(["worker", "stop"], where);
    expect(stopped).to.deep.equal({ code: 0, stdout: "the worker is stopped\n", stderr: "" });
    await ends(info.pid);
  });
});

/** Images and themselves, blurred: the map commutes with rotations. */
const OWN = `/** Blur of random images. */
import { analyseAlgebra, defineExperiment, Tensor } from "atlas-symmetry";
import { z } from "zod";

const SIDE = 48;

/** Sums of a few Gaussian bumps, and the same bumps wider. */
function bumps(samples: number, width: number): Tensor {
  const data = new Float32Array(samples * SIDE * SIDE);
  let state = 1;
  const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
  for (let s = 0; s < samples; s++)
    for (let b = 0; b < 6; b++) {
      const [row, col, height] = [random() * SIDE, random() * SIDE, random() - 0.5];
      for (let i = 0; i < SIDE; i++)
        for (let j = 0; j < SIDE; j++)
          data[(s * SIDE + i) * SIDE + j]! +=
            (height * Math.exp(-((i - row) ** 2 + (j - col) ** 2) / width)) / width;
    }
  return Tensor.fromBytes("float32", [samples, 1, SIDE, SIDE], new Uint8Array(data.buffer));
}

export default defineExperiment({
  name: "blur",
  summary: "Blur of random images",
  config: z.object({ samples: z.int().positive().default(16).describe("Number of images") }),
  async run(ctx, { samples }) {
    const dataset = await ctx.dataset({
      kind: "arrays",
      params: {},
      tensors: { inputs: bumps(samples, 20), targets: bumps(samples, 30) },
    });
    const atlas = await ctx.atlas({ charts: [{ row: 24, col: 24 }], rIn: 12, rOut: 8, margin: 0 });
    const training = { kind: "supervised", params: { batch_size: 8, learning_rate: 0.01 } };
    const architecture = { kind: "wide", params: {} };
    const predictor = await ctx.predictor({ architecture, training, dataset, atlas, epochs: 2 });
    await ctx.advance("predictor", predictor);
    const solver = { kind: "paper", params: { batch_size: 8 } };
    const algebra = await ctx.algebra({ solver, predictor, dataset, atlas, k: 1, epochs: 2 });
    await ctx.advance("algebra", algebra);
    return {
      task: "discover_algebra",
      predictor: { loss: ctx.metrics("predictor").loss ?? null, epochs: 2, source: "trained" },
      algebra: analyseAlgebra(await ctx.session.getAlgebra(algebra)),
    };
  },
});
`;
