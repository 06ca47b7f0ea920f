/**
 * Names of version 0.1 on the command line: they still work, and each says what it is called now.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { flagsOf } from "../../src/experiment/flags.js";
import { builtinExperiments, loadExperiment } from "../../src/experiment/load.js";
import {
  atlas,
  complaint,
  type Done,
  essence,
  type Finished,
  finish,
  LONG,
  only,
  sharedWorker,
} from "./atlas.js";

/** The flags that the experiments of version 0.1 had. */
const FLAGS = {
  climate: `data cache keep N test stride rows r-in r-out margin predictor upside-down cgnet-m
    cgnet-n cgnet-width resolution levels epochs batch-size predictor-lr background-weight schedule
    precision reuse-predictor solver algebra-epochs threshold k scale standard-basis basis-lr
    r1 r2 r3 identity`,
  discover: `inputs predictor takes outputs classifier charts r-in r-out margin reach k threshold
    algebra-epochs coset-epochs candidates keep`,
  mnist: `data digits N test epochs batch-size predictor-lr background-weight schedule precision
    reuse-predictor predictor solver algebra-epochs threshold k standard-basis basis-lr r1 r2
    r3 lr-d lr-g seeds cosine-weight identity kernel`,
  "own-data": "inputs targets epochs k",
  pde: `atlas solver predictor N epochs batch-size predictor-lr predictor-epsilon reuse-predictor
    k algebra-epochs standard-basis basis-lr r1 r2 r3 identity coset-epochs candidates keep`,
  probe: "name expression coordinates samples candidates keep coset-epochs",
  toptagging: `data solver predictor N constituents epochs batch-size predictor-lr predictor-epsilon
    reuse-predictor k scale standard-basis basis-lr r1 r2 r3 identity candidates keep
    coset-epochs`,
};

describe("a name of version 0.1", function () {
  this.timeout(LONG);
  let dir: string;
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  let here: string[];
  let count = 0;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-former-"));
    where = { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state") } };
    here = ["--worker", await sharedWorker()];
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const newRuns = () => join(dir, `runs-${++count}`);
  /** Run an experiment. @returns it, and what it warns of */
  async function run(args: string): Promise<Finished & { notes: string[] }> {
    const runs = newRuns();
    const flags = ["--fixed_seed", "--device=cpu", "--runs", runs, ...here];
    const done = await atlas([...args.split(" "), ...flags, "--json"], where);
    expect(done.code, done.stderr).to.equal(0);
    return { result: JSON.parse(done.stdout), path: only(runs), notes: notesOf(done) };
  }
  const notesOf = ({ stderr }: Done) =>
    [...stderr.matchAll(/^warning: (.*)$/gm)].map(([, note]) => note!);
  const configOf = (path: string) =>
    JSON.parse(readFileSync(join(path, "config.json"), "utf8")).config;

  it("is a flag still", async () => {
    for (const { name, path } of builtinExperiments()) {
      const former = FLAGS[name as keyof typeof FLAGS] as string | undefined;
      if (former === undefined) continue; // a newer experiment
      const { tasks } = await loadExperiment(path);
      const flags = Object.values(tasks).flatMap((task) => flagsOf(task).map((flag) => flag.name));
      expect(flags, name).to.include.members(former.split(/\s+/));
    }
  });

  it("gives what the present one gives, and a note", async () => {
    const paper = "--solver paper --basis_lr 1e-3";
    const atlasd = "--solver atlasd --solver.learning_rate 1e-3";
    const rest =
      "--N 8 --epochs 2 --predictor_lr 0.01 --r1 0.1 --solver.evaluation 2 --evidence none";
    const former = await run(
      `pde --task discover_algebra --atlas 2 --predictor wide ${paper} ${rest}`,
    );
    const present = await run(
      `pde --task discover_algebra --layout 2 --architecture strided_cnn ${atlasd} ${rest}`,
    );
    expect(former.notes).to.have.members([
      "--atlas is now --layout",
      "--predictor is now --architecture",
      "--architecture wide is now --architecture strided_cnn",
      "--solver paper is now --solver atlasd",
    ]);
    expect(present.notes).to.deep.equal([]);
    expect(configOf(former.path)).to.deep.equal(configOf(present.path));
    expect(essence(former.path)).to.equal(essence(present.path));
  });

  it("is taken by the search for components", async () => {
    const few = "--candidates 8 --keep 2 --coset_solver.steps 2";
    const { result, notes } = await run(
      `pde --task discover_cosets --atlas 2 --N 8 --epochs 1 --identity so(2) ${few}`,
    );
    expect(notes).to.include("--keep is now --max-components");
    expect(result.cosets!.length).to.be.at.most(2);
  });

  it("of a network stands for the present one in every experiment", async () => {
    // Each ends before it computes: there is no such checkpoint.
    const cases: [args: string, notes: string[]][] = [
      ["mnist --digits sklearn --predictor wide", ["wide", "strided_cnn"]],
      [
        "mnist --digits sklearn --predictor published",
        ["published", "encoder_decoder --architecture.reference"],
      ],
      ["climate --predictor wide", ["wide", "strided_cnn"]],
      ["climate --predictor published", ["published", "cgnet --architecture.reference"]],
      ["pde --predictor published", ["published", "reference_cnn"]],
    ];
    for (const [args, [before, now]] of cases) {
      const done = await atlas([...args.split(" "), "--reuse_predictor", "none.pt"], where);
      expect(complaint(done, 2)).to.contain("--reuse-predictor none.pt: there is no such file");
      expect(notesOf(done)).to.deep.equal([
        "--predictor is now --architecture",
        `--architecture ${before} is now --architecture ${now}`,
      ]);
    }
  });

  it("is no other thing's: --predictor FILE of discover is a program", async () => {
    const given = ["discover", "--predictor", "net.pt", "--inputs", "x.npy"];
    const done = await atlas([...given, "--reach", "3"], where);
    expect(complaint(done, 2)).to.match(/^error: --predictor \S*net\.pt is code.*--trust-code$/);
    expect(notesOf(done)).to.deep.equal(["--reach is now --halo"]);
  });
});

describe("the search for components without --identity", function () {
  this.timeout(LONG);
  let dir: string;
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  const TINY = "--N=8 --epochs=1 --layout=2 --device=cpu --fixed-seed".split(" ");
  const FEW = ["--task=discover_cosets", "--candidates=2", "--coset_solver.steps=2"];
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-newest-"));
    where = { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state") } };
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  it("says what to do where no run has an algebra", async () => {
    expect(complaint(await atlas(["pde", ...FEW, ...TINY], where), 2)).to.match(
      /^error: no finished run .* algebra .*; .*--task discover_algebra, or give --identity RUN, /,
    );
  });

  it("takes that of the newest run that fits, and says which", async () => {
    const here = ["--worker", await sharedWorker()];
    const search = "--algebra-epochs=1 --solver.starts=1 --solver.steps=2 --solver.evaluation=2";
    const algebra = [
      "pde",
      "--task=discover_algebra",
      "--evidence=none",
      ...TINY,
      ...search.split(" "),
      ...here,
    ];
    const runs = join(dir, "runs");
    await finish([...algebra, "--threshold=1"], runs, where);
    const first = only(runs);
    // Newer, but without a generator; and of other charts.
    for (const other of [["--threshold=0"], ["--threshold=1", "--layout=1"]])
      expect((await atlas([...algebra, ...other], where)).code).to.equal(0);
    const done = await atlas(["pde", ...FEW, ...TINY, ...here, "--json"], where);
    expect(done.code, done.stderr).to.equal(0);
    const id = first.split("/").at(-1)!;
    expect(done.stderr).to.match(new RegExp(`^identity +.*${id} .*1 generator`, "m"));
    const { identity } = JSON.parse(
      readFileSync(join(runs, newest(done), "config.json"), "utf8"),
    ).config;
    const { generators } = JSON.parse(readFileSync(join(first, "result.json"), "utf8")).algebra;
    expect(identity).to.deep.equal({ source: id, basis: generators });
  });

  const newest = ({ stderr }: Done) => /^run +\S+\/(\S+)$/m.exec(stderr)![1]!;
});
