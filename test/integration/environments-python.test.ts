/**
 * A fresh clone under hostile environments, as far as Python and the network go. Large packages are
 * replaced by stand-ins, so that pip has little to do; the last environment runs with real ones.
 */
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { findPython, venvFolder } from "../../src/setup/python.mjs";
import { deadPort, startProxy } from "../doors/network.js";
import { LONG, ROOT } from "../e2e/atlas.js";
import { complaint, makeClone, run, steps } from "./clone.js";

const SETUP = ["npm", "run", "-s", "setup"];
const DOCTOR = ["npm", "run", "-s", "atlas", "--", "doctor", "--json"];

describe("a fresh clone", function () {
  this.timeout(LONG);
  let dir: string;
  let wheels: string;
  /** A clone whose Node part is set up. The others take its packages. */
  let first: string;
  let count = 0;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-clones-"));
    wheels = join(dir, "wheels");
    const script = join(ROOT, "test/integration/stub_wheels.py");
    const python = (await findPython()).command;
    execFileSync(python, [script, join(ROOT, "py-worker/requirements.txt"), wheels]);
    first = join(dir, "first");
    makeClone(first);
    const { code, stderr } = await run(["npm", "run", "-s", "atlas", "--", "runs"], first);
    expect(code, stderr).to.equal(0);
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  /** Make a clone with the Node packages of the first. */
  const clone = (name = `clone-${count++}`): string => {
    const folder = join(dir, name);
    makeClone(folder);
    cpSync(join(first, "src/gen"), join(folder, "src/gen"), { recursive: true });
    execFileSync("cp", ["-al", join(first, "node_modules"), join(folder, "node_modules")]);
    return folder;
  };
  /** Set a clone up twice, and have it looked at. */
  const setUp = async (env: NodeJS.ProcessEnv, folder = clone()) => {
    const all = { PIP_FIND_LINKS: wheels, ...env };
    const [one, two] = [await run(SETUP, folder, all), await run(SETUP, folder, all)];
    expect(one.code, one.stderr).to.equal(0);
    expect({ code: two.code, steps: steps(two) }, two.stderr).to.deep.equal({
      code: 0,
      steps: ["set-up: everything is in place"],
    });
    const { code, stdout, stderr } = await run(DOCTOR, folder, all);
    expect({ code, ...JSON.parse(stdout || "{}") }, stderr).to.include({ code: 0, usable: true });
    rmSync(folder, { recursive: true, force: true });
  };

  it("works with variables of pip that lead elsewhere", () =>
    setUp({
      ...{ PIP_USER: "1", PIP_TARGET: join(dir, "target"), PIP_PREFIX: join(dir, "prefix") },
      ...{ PIP_REQUIRE_VIRTUALENV: "1", PIP_NO_DEPS: "1", PIP_DRY_RUN: "1", PIP_QUIET: "3" },
      ...{ PIP_NO_BINARY: ":none:", PIP_LOG: "/no/such/log", PIP_PYTHON: "/no/such/python" },
    }));

  it("works with a pip.conf that leads elsewhere", () => {
    const file = join(dir, "pip.conf");
    writeFileSync(join(dir, "constraints.txt"), "numpy<2\nprotobuf<4\n");
    writeFileSync(
      file,
      `[global]\nuser = true\nquiet = 3\nfind-links = ${wheels}\n[install]\ntarget = ${dir}/target\n` +
        `root = ${dir}/root\nconstraint = ${dir}/constraints.txt\nrequire-hashes = true\n` +
        "no-deps = true\ndry-run = true\n",
    );
    return setUp({ PIP_CONFIG_FILE: file, PIP_FIND_LINKS: undefined });
  });

  it("works with PYTHONHOME, PYTHONPATH and an activated environment", () => {
    const modules = join(dir, "modules");
    mkdirSync(modules);
    for (const name of ["pip", "json", "numpy", "venv"])
      writeFileSync(join(modules, `${name}.py`), 'raise SystemExit("not mine")\n');
    return setUp({
      ...{ PYTHONHOME: "/usr", PYTHONPATH: modules, PYTHONSAFEPATH: "1", PYTHONINSPECT: "1" },
      ...{ PYTHONWARNINGS: "error", PYTHONOPTIMIZE: "2", PYTHONUSERBASE: dir, VIRTUAL_ENV: dir },
    });
  });

  it("works behind a proxy, which npm and pip go through", async () => {
    const proxy = await startProxy();
    const folder = join(dir, "proxied");
    makeClone(folder);
    await setUp(
      {
        ...{ HTTPS_PROXY: `http://127.0.0.1:${proxy.port}`, NO_PROXY: "127.0.0.1" },
        ...{ npm_config_cache: join(dir, "npm-cache"), PIP_NO_CACHE_DIR: "1" },
      },
      folder,
    );
    expect(new Set(proxy.asked).size).to.be.at.least(2); // the registry, and the index
    await proxy.close();
  });

  it("names a proxy that cannot be reached, and goes on from there", async () => {
    const proxy = `127.0.0.1:${await deadPort()}`;
    const dead = {
      ...{ https_proxy: `http://me:secret@${proxy}`, PIP_RETRIES: "0", PIP_NO_CACHE_DIR: "1" },
      ...{ npm_config_cache: join(dir, "empty-cache"), npm_config_fetch_retries: "0" },
    };
    const folder = join(dir, "cut-off");
    makeClone(folder);
    const npm = await run(SETUP, folder, dead);
    expect(complaint(npm)).to.match(/^error: npm could not .*; check /);
    const other = clone();
    const pip = await run(SETUP, other, dead);
    expect(complaint(pip)).to.match(/^error: pip could not .*; check /);
    for (const { stderr } of [npm, pip])
      expect(stderr).to.contain(`${proxy} (https_proxy)`).and.not.contain("secret");
    const again = await run(SETUP, other, { PIP_FIND_LINKS: wheels });
    expect(again.code, again.stderr).to.equal(0);
    expect(steps(again).join("\n")).to.not.match(/npm ci|making a Python environment/);
  });

  it("runs with all of it at once, in a Latin-1 locale and a folder with é", async () => {
    const locale = join(dir, "locale");
    mkdirSync(locale);
    const latin1 = join(locale, "en_US.ISO-8859-1");
    const made = await run(["localedef", "-i", "en_US", "-f", "ISO-8859-1", latin1], dir);
    if (made.code !== 0)
      process.stderr.write("integration: no Latin-1 locale could be made; C was taken\n");
    const folder = clone("é ☃");
    const env = {
      ...{ LOCPATH: locale, LC_ALL: made.code === 0 ? "en_US.ISO-8859-1" : "C", PYTHONUTF8: "0" },
      ...{ PYTHONHOME: "/usr", PYTHONPATH: dir, PYTHONINSPECT: "1", PYTHONWARNINGS: "error" },
      ...{ PIP_USER: "1", NODE_ENV: "production", npm_config_omit: "dev", GIT_DIR: dir },
      ...{ DEBUG: "*", HTTPS_PROXY: "http://127.0.0.1:9", ATLAS_VENV: venvFolder() },
    };
    writeFileSync(
      join(folder, "wählt.py"),
      "import torch\n\n\ndef factory() -> torch.nn.Module:\n    return torch.nn.Softplus()\n",
    );
    const probe = ["npm", "run", "-s", "atlas", "--", "probe", "d4", "--device", "cpu"];
    const small = ["--samples", "512", "--candidates", "4", "--runs", "é/runs", "--json"];
    const done = await run([...probe, ...small], folder, env);
    expect(done.code, done.stderr).to.be.oneOf([0, 1]); // 1: so few samples do not show all
    expect(JSON.parse(done.stdout)).to.have.property("algebra");
    const inspected = ["npm", "run", "-s", "atlas", "--", "checkpoint", "inspect", "wählt.py"];
    expect(complaint(await run(inspected, folder, env))).to.contain("wählt.py is no PyTorch");
    const cleaned = await run(
      ["npm", "run", "-s", "atlas", "--", "clean", "--only", "code", "--json"],
      folder,
      env,
    );
    expect(cleaned.code, cleaned.stderr).to.equal(0);
    expect(JSON.parse(cleaned.stdout).bytes).to.be.above(1e6);
    const second = await run(["npm", "run", "-s", "atlas", "--", "runs"], folder, env);
    expect(steps(second)).to.deep.equal(["set-up: compiling the TypeScript sources (tsc)"]);
  });
});
