/** `atlas discover` on the user's own arrays: any layout, with types of features. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import type { Result } from "../../src/result.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { atlas, json, LONG, refuses, sharedWorker } from "./atlas.js";

/** Random winds (along the rows, along the columns) with their divergence, and pairs of vectors. */
const ARRAYS = `
import numpy as np
rng = np.random.default_rng(0)
k = np.fft.fftfreq(40)
r, c = 2j * np.pi * k[:, None], 2j * np.pi * k[None]
smooth = np.exp(-8 * (np.abs(r) ** 2 + np.abs(c) ** 2))
a, b = (np.fft.fft2(rng.normal(size=(300, 40, 40))) * smooth for _ in range(2))
parts = lambda *p: np.stack([np.fft.ifft2(q).real for q in p], 1).astype(np.float32)
wind = parts(c * a + r * b, -r * a + c * b)
np.save("wind", wind / wind.std())
divergence = parts(r * (c * a + r * b) + c * (-r * a + c * b))
np.save("divergence", divergence / divergence.std())
q = np.fft.rfftfreq(64)
line = np.fft.rfft(rng.normal(size=(300, 1, 64))) * np.exp(-40 * q**2)
save = lambda name, f: np.save(name, np.fft.irfft(f).astype(np.float32) * 4)
save("lines", line)
save("spread", line * np.exp(-60 * q**2))
save("shifted", line * np.exp(-60 * q**2 - 6j * np.pi * q))
np.save("last", np.moveaxis(wind, 1, 3))
np.save("plain", wind[:, 0])
x = rng.normal(size=(2000, 2, 3)).astype(np.float32)
np.save("pairs", x)
np.save("few", x[:50])
np.save("far", x + 1000)
turns = np.array([[[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]])
arrow = np.array([[0, 0], [1, 0], [0.7, 0.2], [0.7, -0.2]])
np.save("arrows", np.einsum("nij,mj->nmi", turns[rng.integers(4, size=2000)], arrow))
np.save("dot", (x[:, 0] * x[:, 1]).sum(1))
np.save("sign", ((x[:, 0] * x[:, 1]).sum(1) > 0).astype(np.int64))
np.save("half", (x[:, 0] * x[:, 1]).sum(1) / 2 + 0.25)
np.save("noise", rng.normal(size=2000))
t, r = np.arange(12) * 0.4 + rng.uniform(0, 6, (300, 1)), rng.uniform(1, 2, (300, 1))
orbits = np.stack([r * np.cos(t), r * np.sin(t), -r * np.sin(t), r * np.cos(t)], 2)
orbits[::7, 9:] = np.nan
np.save("orbits", orbits)
orbits[3, 1:] = np.nan
np.save("one_frame", orbits)
`;

type Plane = [[number, number], [number, number]];

describe("atlas discover on arrays", function () {
  this.timeout(LONG);
  let dir: string;
  let worker: string;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-discover-"));
    execFileSync((await ensureVenv()).python, ["-c", ARRAYS], { cwd: dir });
    worker = await sharedWorker();
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const run = (task: string, args: string) =>
    json<Result>(
      ["discover", "--task", task, ...args.split(" "), "--fixed-seed", "--worker", worker],
      { cwd: dir },
    );
  const SMALL = "--r-in 10 --r-out 6 --margin 3 --solver.starts 2 --solver.steps 40";
  /** The cosine of the angle between the first generator and the rotation. */
  const rotation = ({ algebra }: Result) => {
    const [[p, q], [r, s]] = algebra!.generators[0] as [[number, number], [number, number]];
    return Math.abs(q - r) / Math.SQRT2 / Math.hypot(p, q, r, s);
  };

  it("moves the components of vectors with the map, if they are said to be vectors", async () => {
    const files = `--inputs wind.npy --targets divergence.npy --epochs 4 --k 1 ${SMALL}`;
    const typed = await run("discover_algebra", `${files} --inputs-as V`);
    expect(rotation(typed)).to.be.above(0.99);
    const untyped = await run("discover_algebra", files);
    const [error] = untyped.algebra!.relativeErrors;
    expect(error!).to.be.above(2 * typed.algebra!.relativeErrors[0]!);
  });

  it("takes sets of vectors, whose invariants have a group that it names", async () => {
    const files = "--inputs pairs.npy --targets dot.npy --architecture quadratic --epochs 10";
    const { algebra } = await run("discover_algebra", files);
    expect(algebra!.identified?.name).to.equal("so(3)");
  });

  it("takes samples without targets, and finds the group of their distribution", async () => {
    const orbit = await run("discover", "--inputs arrows.npy --epochs 80");
    expect(orbit.algebra!.symmetryCount).to.equal(0);
    expect(orbit.group).to.include({ name: "C_4", order: 4, resolved: true, finite: true });
    expect(orbit.predictor.scores!.skill).to.be.above(0.3);
    const normal = await run("discover", "--inputs pairs.npy --epochs 4");
    expect(normal.notes!.join()).to.contain("cannot tell");
    expect(normal).not.to.have.property("algebra");
  });

  it("predicts frames of trajectories, whose types are those of the inputs", async () => {
    const args =
      "--inputs orbits.npy --axes n,t,features --predict next --inputs-as 2V --epochs 20";
    const { algebra, predictor } = await run("discover_algebra", args);
    expect(algebra!.symmetryCount).to.be.at.least(1);
    expect(predictor.heldOut!.skill!).to.be.within(0.95, 1);
    // The plane's turns and scalings commute with turning by 0.4 rad.
    for (const [[p, q], [r, t]] of algebra!.generators as Plane[])
      expect(Math.hypot(p - t, q + r)).to.be.below(0.1);
  });

  it("warns of a predictor that is no better than a constant, and takes its parameters", async () => {
    const files =
      "--inputs pairs.npy --targets noise.npy --architecture mlp --architecture.width 16";
    const { notes, predictor } = await run("discover_algebra", `${files} --epochs 3`);
    expect(notes!.some((note) => /no better than a constant/.test(note))).to.equal(true);
    expect(predictor.heldOut!.skill!).to.be.below(0.1);
  });

  it("says if linear maps turn the data about a point far away", async () => {
    const told = async (inputs: string, more = "") => {
      const files = `discover --inputs ${inputs} --targets dot.npy --dry-run${more}`;
      return (await atlas([...files.split(" "), "--worker", worker], { cwd: dir })).stderr;
    };
    expect(await told("far.npy")).to.match(/lie 1,0\d\d times their spread .* --group affine/);
    expect(await told("far.npy", " --group affine")).not.to.include("spread");
    expect(await told("pairs.npy")).not.to.include("spread");
  });

  it("says what a run would do, and makes none", async () => {
    const files = "--inputs orbits.npy --axes n,t,features --predict next --inputs-as 2V";
    const args = ["discover", ...files.split(" "), "--dry-run", "--json", "--worker", worker];
    const told = await json<Record<string, string>>([...args, "--runs", "none"], { cwd: dir });
    expect(told.inputs).to.match(/, 1, 4\], type 2V$/);
    expect(told.targets).to.match(/, 4\], type 2V$/);
    expect(told.predictor).to.match(/^polynomial, [\d,]+ weights, \d+ epochs$/);
    expect(told.split).to.match(/^\d+ samples to fit, \d+ to choose the epoch, \d+ to judge$/);
    expect(told.time).to.match(/^fit at most .*, search about /);
    expect(existsSync(join(dir, "none"))).to.equal(false);
    await refuses([[[...args, "--targets-as", "3V"], /^error: .*3V/]], { cwd: dir });
  });

  it("takes fields of one dimension, and finds the reflection that they have", async () => {
    const files = (name: string) => `--inputs lines.npy --targets ${name}.npy --axes n,c,x`;
    const search = "--epochs 12 --solver.steps 10 --candidates 4";
    const even = await run("discover", `${files("spread")} ${search}`);
    expect(even.algebra!.symmetryCount).to.equal(0);
    expect(even.cosets!.map((c) => c.name)).to.have.members(["identity", "reflection"]);
    const moved = await run("discover", `${files("shifted")} ${search}`);
    expect(moved.cosets!.map((c) => c.name)).to.deep.equal(["identity"]);
  });

  it("looks for components alone, beside an algebra that is named", async () => {
    const files = "--inputs pairs.npy --targets dot.npy --epochs 10 --candidates 4";
    const { cosets, algebra } = await run("discover_cosets", `${files} --identity so3`);
    expect(algebra).to.equal(undefined);
    expect(cosets!.map((c) => c.name)).to.include("identity");
  });

  it("asks where a layout can be read in two ways, and refuses what does not fit", async () => {
    const bad: [args: string, line: RegExp][] = [
      ["--inputs wind.npy", /^error: .*not for fields.*--targets .*--predictor/],
      ["--inputs pairs.npy --inputs-as 2S", /^error: --inputs-as 2S: .*vectors/],
      ["--inputs pairs.npy --inputs-as 2V", /^error: --inputs-as 2V: 3 features.*2 vectors/],
      ["--inputs pairs.npy --outputs 2", /^error: --outputs .*without targets or a predictor/],
      ["--inputs few.npy", /^error: 50 samples are too few/],
      [
        "--inputs pairs.npy --targets dot.npy --predictor net.pt --trust-code",
        /^error: discover needs .*not both/,
      ],
      ["--inputs plain.npy --targets plain.npy", /^error: .*may be fields .*sets .*\(--axes\)/],
      ["--inputs last.npy --targets last.npy", /^error: .*channels last \(--axes\); .*n,y,x,c/],
      ["--inputs last.npy --targets last.npy --axes n,y,x", /^error: .*the 3 axes.*\(--axes\)/],
      ["--inputs last.npy --targets last.npy --axes n,z,x,c", /^error: .*no axes.*\(--axes\)/],
      ["--inputs wind.npy --targets wind.npy --inputs-as V+S", /^error: .*V\+S.*\(--inputs-as\)/],
      ["--inputs wind.npy --targets wind.npy --inputs-as 2W", /^error: .*'2W'.*\(--inputs-as\)/],
      ["--inputs pairs.npy --targets dot.npy --inputs-as 2V", /^error: .* 3 .*\(--inputs-as\)/],
      ["--inputs pairs.npy --targets dot.npy --r-in 3", /^error: --r-in has no effect on sets/],
      ["--inputs wind.npy --targets wind.npy --halo 3", /^error: --halo has no effect with --t/],
      ["--inputs pairs.npy --targets dot.npy --classifier", /^error: --classifier has no effect/],
      [
        "--inputs pairs.npy --targets dot.npy --architecture cgnet",
        /^error: the architecture cgnet .* sets of vectors; .*mlp(?!.*TRUST)/,
      ],
      ["--inputs pairs.npy --targets half.npy --targets-as class", /^error: .*no class labels/],
      ["--inputs pairs.npy --targets dot.npy --outputs 2", /^error: --outputs has no effect/],
      ["--inputs pairs.npy --targets none.npy", /^error: .*none\.npy/],
      ["--inputs orbits.npy --predict next", /^error: --predict .*trajectories only/],
      [
        "--inputs orbits.npy --axes n,t,features --predict previous",
        /^error: --predict previous is not known; .*next:5/,
      ],
      [
        "--inputs one_frame.npy --axes n,t,features --predict next",
        /^error: .*trajectory 3 has 1 frame/,
      ],
      ["--inputs orbits.npy --axes n,t,features --predict rest", /^error: .*from 9 to 12 frames/],
      [
        "--inputs pairs.npy --targets dot.npy --architecture.sums 3",
        /^error: --architecture.sums has no effect/,
      ],
    ];
    await refuses(
      bad.map(([args, line]) => [["discover", "--worker", worker, ...args.split(" ")], line]),
      { cwd: dir },
    );
  });
});
