/** `atlas climate …` on small weather: see weather.py. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "chai";
import { execa } from "execa";
import { ensureVenv } from "../../src/setup/venv.js";
import {
  atlas,
  EPS,
  type Finished,
  finish,
  LONG,
  refuses,
  SHARED_CACHE,
  sharedWorker,
} from "./atlas.js";

const SCRIPT = fileURLToPath(new URL("weather.py", import.meta.url));
const CLIMATE = [
  "climate",
  "--data=whole",
  "--stride=1",
  "--device=cpu",
  "--threads=1",
  "--fixed_seed",
];
const DISCOVER = [
  ...CLIMATE,
  "--r_in=25",
  "--r_out=16",
  "--margin=6",
  "--cgnet_m=1",
  "--cgnet_n=1",
  "--cgnet_width=4",
  "--epochs=2",
  // Four generators are all of gl(2): there is nothing to search for.
  "--solver.starts=1",
  "--solver.steps=2",
  "--solver.evaluation=2",
];
const SEGMENT = [...CLIMATE, "--resolution=3", "--levels=3", "--epochs=30"];

const cache = join(SHARED_CACHE, "atlas-symmetry/climatenet");

describe("atlas climate", function () {
  this.timeout(LONG);
  let dir: string;
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  let here: string[];
  let found: Finished;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-climate-"));
    where = {
      cwd: dir,
      env: { XDG_STATE_HOME: join(dir, "state"), XDG_CACHE_HOME: SHARED_CACHE },
    };
    const { python, workerDir } = await ensureVenv();
    await execa(python, [SCRIPT, dir], { env: { PYTHONPATH: workerDir } });
    here = ["--worker", await sharedWorker()];
    found = await discover();
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  let count = 0;
  const newRuns = () => join(dir, `runs-${++count}`);
  const run = (args: string[]) => finish([...args, ...here], newRuns(), where);

  /** A run that, as its predictor is hardly trained, lets anything pass. */
  const discover = (...more: string[]) =>
    run([...DISCOVER, "--task=discover", "--evidence=none", "--threshold=1", ...more]);

  it("measures all of gl(2), and keeps the fields on the disk", async () => {
    const { algebra, equivariance, predictor } = found.result;
    expect(algebra).to.include({ symmetryCount: 4 });
    expect(algebra!.identified.name).to.equal("gl(2)");
    expect(algebra!.spectrum).to.have.length(4);
    expect(equivariance!.map(({ name }) => name)).to.include.members([
      "rotation by 90°",
      "scaling by 1.5",
    ]);
    // Nothing is between the pixels where the grid is mapped to itself: there is rounding only.
    for (const { name, interpolation } of equivariance!)
      if (/rotation|reflection/.test(name)) expect(interpolation, name).to.be.below(100 * EPS);
    expect(predictor.scores).to.include.keys(
      "mean_iou",
      "iou_tropical_cyclone",
      "experts_mean_iou",
    );
    expect(readdirSync(cache)).to.have.length(2);
    const page = readFileSync(join(found.path, "report.html"), "utf8");
    expect(page).to.contain("<h1>gl(2)</h1>").and.contain("TMQ").and.contain("atmospheric river");
    expect(found.result.notes!.join()).to.contain(cache);
    const caches = async (...more: string[]) => {
      const { stdout } = await atlas(["data", "cache", ...more], where);
      return stdout.replaceAll(/\d{4}-\d\d-\d\d/g, "DAY").split("\n");
    };
    const [train, , all] = await caches();
    expect(train).to.match(
      /climatenet\/[0-9a-f]{32}\.arrays {2}\d+\.\d MB {2}DAY {2}\d+ files of \S+\/whole\/train$/,
    );
    expect(all).to.match(/^2 caches, \d+\.\d MB; delete them with --clear/);
    const none = await discover(
      "--threshold=1e-3",
      "--reuse-predictor",
      found.path,
      "--keep=memory",
    );
    expect(none.result.algebra!.symmetryCount).to.equal(0);
    expect(none.result.algebra!.relativeErrors).to.deep.equal(algebra!.relativeErrors);
    expect(none.result.notes!.join()).to.not.contain("kept");
    expect((await caches("--clear"))[2]).to.match(/^2 caches, .*/);
    expect(readdirSync(cache)).to.deep.equal([]);
  });

  it("builds networks on the sphere from what is found, and from so(2)", async () => {
    const discovered = await run([
      ...SEGMENT,
      "--task=downstream_discovered",
      "--identity",
      found.path,
    ]);
    const baseline = await run([...SEGMENT, "--task=downstream_baseline"]);
    const of = ({ result }: Finished) => ({ ...result.downstream!, loss: result.predictor.loss! });
    const [a, b] = [of(baseline), of(discovered)];
    expect([a.gauge, b.gauge]).to.deep.equal(["SO(2)", "GL+(2)"]);
    expect(a.metrics.parameters! / b.metrics.parameters!).to.be.within(6, 7);
    for (const { metrics, loss } of [a, b]) {
      expect(loss).to.be.below(0.9);
      expect(metrics.iou_atmospheric_river).to.be.above(0.1); // that of one class everywhere is 0
      expect(metrics).to.include.keys("precision_background", "recall_atmospheric_river");
      expect(metrics.experts_mean_iou).to.equal(a.metrics.experts_mean_iou);
    }
    expect(discovered.result.notes!.join()).to.contain(`GL+(2), from ${basename(found.path)}; `);
    const again = await run([...SEGMENT, "--task=downstream_discovered", "--identity=gl(2)"]);
    expect(again.result.downstream!.metrics).to.deep.equal(b.metrics);
    const shown = await atlas(["show", discovered.path], where);
    expect(shown.stdout).to.match(/^gauge +GL\+\(2\)$/m);
    expect(readFileSync(join(discovered.path, "report.html"), "utf8")).to.match(
      /class="row predictions/,
    );
  });

  it("looks at a published checkpoint on its own charts, with the south on top", async () => {
    const theirs = await discover("--reuse-predictor=theirs.pt");
    const three = await discover("--reuse-predictor=three.pt");
    const configOf = ({ path }: Finished) =>
      JSON.parse(readFileSync(join(path, "config.json"), "utf8")).config;
    const told = ["--architecture.reference", "--upside-down", "--rows=0.65 0.55 0.45 0.35"];
    const published = {
      architecture: "cgnet",
      "architecture.reference": true,
      "architecture.upside_down": true,
    };
    expect(configOf(theirs)).to.include({ ...published, rows: "0.65 0.55 0.45 0.35" });
    expect(configOf(three)).to.include({ ...published, rows: "0.60 0.50 0.40" });
    const ours = await discover("--reuse-predictor=ours.pt", ...told);
    const other = await discover(
      "--reuse-predictor=ours.pt",
      ...told.filter((flag) => !/down/.test(flag)),
    );
    const [a, b, c] = [theirs, ours, other].map(({ result }) => result.algebra!.relativeErrors!);
    // The published code adds another number to the variances, which each of the layers rounds.
    for (const [i, error] of a!.entries())
      expect(error / b![i]!, `error ${i}`).to.be.closeTo(1, 1000 * EPS);
    expect(a).to.not.deep.equal(c);
  });

  it("refuses bad input in one line that names the file, and leaves no run of it", async () => {
    const damaged = (folder: string) =>
      String.raw`\S+/${folder}/train/data-2000-01-0\d-01-1_\d\.nc`;
    const given = (folder: string, ...more: string[]) => [...DISCOVER, `--data=${folder}`, ...more];
    const cases: [args: string[], line: RegExp][] = [
      [given("lacks"), new RegExp(`^error: ${damaged("lacks")} lacks the variable PSL `)],
      [given("unlabelled"), new RegExp(`^error: ${damaged("unlabelled")} has no LABELS `)],
      [given("coarse"), new RegExp(`^error: ${damaged("coarse")} has a grid of 48 × 72, `)],
      [given("nan"), new RegExp(`^error: ${damaged("nan")}: TMQ is nan in row 5, column 7 `)],
      [given("cut"), new RegExp(`^error: ${damaged("cut")} is truncated `)],
      [
        given("empty"),
        /^error: \S+\/empty\/train has no files of ClimateNet.*atlas data climate --generate/,
      ],
      [
        given("halved"),
        /^error: there is no folder \S+\/halved\/test.*atlas data climate --generate/,
      ],
      [
        given("nowhere"),
        /^error: there is no folder \S*\/nowhere\/train .*atlas data climate --generate/,
      ],
      [
        given("whole", "--N=1000"),
        /^error: \S+\/whole\/train has \d+ files, but 1000 were asked for/,
      ],
      [
        given("whole", "--rows=0.5 1.5"),
        /^error: --rows 0\.5 1\.5: expected numbers between 0 and 1, as in /,
      ],
      [given("whole", "--r_in=90"), /^error: chart 0 at .* leaves the 96x144 lattice/],
      [
        [...SEGMENT, "--task=downstream_discovered"],
        /^error: --task downstream_discovered needs an alg/,
      ],
      [
        [...SEGMENT, "--task=downstream_discovered", "--identity=none"],
        /^error: the algebra none has no gen/,
      ],
      [
        [...SEGMENT, "--task=downstream_baseline", "--levels=4"],
        /^error: a grid of resolution 3 .* 4 /,
      ],
    ];
    await refuses(
      cases.map(([args, line]) => [[...args, ...here], line]),
      where,
    );
  });
});
