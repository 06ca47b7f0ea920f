/** NetCDF files as other tools write them: the same results, or a refusal. See netcdf.py. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "chai";
import { execa } from "execa";
import { ensureVenv } from "../../src/setup/venv.js";
import { finish, LONG, refuses, SHARED_CACHE, sharedWorker } from "../e2e/atlas.js";

const SCRIPT = fileURLToPath(new URL("netcdf.py", import.meta.url));
const DISCOVER =
  "climate --task=discover --stride=1 --device=cpu --threads=1 --fixed_seed --r_in=25 --r_out=16 " +
  "--margin=6 --cgnet_m=1 --cgnet_n=1 --cgnet_width=4 --epochs=2 --threshold=1 " +
  "--solver.starts=1 --solver.steps=2 --solver.evaluation=2";

describe("NetCDF files", function () {
  this.timeout(LONG);
  let dir: string;
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  let python: string;
  let here: string[];
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-netcdf-"));
    where = {
      cwd: dir,
      env: { XDG_STATE_HOME: join(dir, "state"), XDG_CACHE_HOME: SHARED_CACHE },
    };
    const venv = await ensureVenv();
    python = venv.python;
    await execa(python, [SCRIPT, dir], { env: { PYTHONPATH: venv.workerDir } });
    here = ["--worker", await sharedWorker()];
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const given = (folder: string) => [...DISCOVER.split(" "), `--data=${folder}`, ...here];

  it("give the same results however they are written", async () => {
    const of = async (folder: string) => {
      const { result } = await finish(given(folder), join(dir, `runs-${folder}`), where);
      return { errors: result.algebra!.relativeErrors!, scores: result.predictor.scores! };
    };
    const published = await of("published");
    for (const folder of ["turned", "classic"])
      expect(await of(folder), folder).to.deep.equal(published);
    const packed = await of("packed");
    for (const [i, error] of packed.errors.entries())
      expect(error / published.errors[i]!).to.be.closeTo(1, 0.02);
  });

  it("are refused in one line otherwise", async () => {
    const file = (folder: string) => String.raw`\S+/${folder}/train/data-\S+\.nc`;
    const cases: [folder: string, line: string][] = [
      [
        "missing",
        `${file("missing")}: PSL is 1\\S*e\\+20 in row 3, column 4, .*missing_value.* at 2 more`,
      ],
      ["untold", `${file("untold")} does not tell its latitudes`],
      ["units", `${file("units")}: PSL has the units 'mm'.*'Pa'`],
      ["page", `${file("page")} is a web page`],
    ];
    await refuses(
      cases.map(([folder, line]) => [given(folder), new RegExp(`^error: ${line}`)]),
      where,
    );
  });

  it("are named if another process writes them", async () => {
    const folder = join(dir, "published/train");
    const path = join(folder, readdirSync(folder).sort()[1]!);
    const hold =
      "import h5py, sys; f = h5py.File(sys.argv[1], 'a'); print(flush=True); sys.stdin.read()";
    const holder = spawn(python, ["-c", hold, path], { stdio: ["pipe", "pipe", "inherit"] });
    await once(holder.stdout, "data");
    const line = /^error: another process has \S+\.nc open for writing .*close it there/;
    await refuses([[[...given("published"), "--keep=memory"], line]], where);
    holder.stdin.end();
    await once(holder, "exit");
  });
});
