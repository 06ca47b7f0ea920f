/** The package as others install it, and set-up faults with the real npm and pip. */
import { execFileSync, spawnSync } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { devNull, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "chai";
import { venvFolder } from "../../src/setup/python.mjs";
import { writeNpy } from "../../src/tensor/index.js";
import { waves } from "./waves.js";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const RUN = join(ROOT, "src/setup/run.mjs");

/**
 * Our environment without what `npm test` put into it, which would make an npm inside it work on
 * this folder.
 */
const ENV = Object.fromEntries(
  Object.entries(process.env).filter(
    ([name]) =>
      !/^(npm_(lifecycle|package|command|execpath|config_local_prefix)|INIT_CWD)/.test(name),
  ),
);
const NPM = process.platform === "win32" ? "npm.cmd" : "npm";

describe("the packed package", function () {
  this.timeout(600_000);
  let dir: string;
  let files: string[];
  let bin: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-pack-"));
    const { status, stdout, stderr } = spawnSync(
      NPM,
      ["pack", "--json", "--pack-destination", dir],
      {
        cwd: ROOT,
        env: ENV,
        encoding: "utf8",
      },
    );
    expect(status, `npm pack: ${stdout}${stderr}`).to.equal(0);
    type Packed = Record<string, { filename: string; files: { path: string }[] }>;
    const [tarball] = Object.values(JSON.parse(stdout) as Packed);
    files = tarball!.files.map((file) => file.path);
    const install = [
      "install",
      "--prefer-offline",
      "--no-audit",
      "--no-fund",
      join(dir, tarball!.filename),
    ];
    mkdirSync(join(dir, "project"));
    writeFileSync(join(dir, "project/package.json"), '{ "type": "module" }');
    execFileSync(NPM, install, {
      cwd: join(dir, "project"),
      env: ENV,
      stdio: "ignore",
    });
    bin = join(dir, "project/node_modules/.bin/atlas");
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const atlas = (args: string[], env: NodeJS.ProcessEnv = {}) =>
    spawnSync(bin, args, {
      cwd: join(dir, "project"),
      env: { ...ENV, ATLAS_VENV: venvFolder(), ...env },
      encoding: "utf8",
    });

  it("holds what is needed and nothing else", () => {
    expect(files).to.include.members([
      "LICENSE",
      "dist/src/cli/main.js",
      "dist/src/index.js",
      "dist/src/index.d.ts",
      "dist/src/gen/atlas/v1/worker.js",
      "dist/src/setup/python.mjs",
      "dist/experiments/pde.js",
      "proto/atlas/v1/worker.proto",
      "py-worker/requirements.txt",
      "py-worker/requirements-jets.txt",
      "py-worker/atlas_worker/METHOD.md",
      "py-worker/atlas_worker/__main__.py",
      "py-worker/atlas_worker/gen/.stamp",
      "py-worker/atlas_worker/gen/atlas/v1/worker_pb2.py",
      "docker/Dockerfile",
    ]);
    const known = ["LICENSE", "README.md", "package.json", ".dockerignore"];
    const folders = ["dist", "docker", "proto", "py-worker", "src"];
    const tops = new Set(files.map((file) => file.split("/")[0]!));
    expect([...tops].filter((top) => ![...known, ...folders].includes(top))).to.deep.equal([]);
    const pages = /^src\/(dashboard|report)\/page\//;
    expect(files.filter((file) => file.startsWith("src/") && !pages.test(file))).to.deep.equal([]);
    expect(
      files.filter((file) =>
        /\.venv|__pycache__|\.pyc|py-worker\/tests|dist\/test|_cache/.test(file),
      ),
    ).to.deep.equal([]);
  });

  it("gives the command atlas", () => {
    const help = atlas(["--help"]);
    expect(help.status, help.stderr).to.equal(0);
    expect(help.stdout)
      .to.match(/^ {2}pde /m)
      .and.match(/^ {2}doctor /m);
    const pde = atlas(["pde", "--help"]);
    expect(pde.status, pde.stderr).to.equal(0);
    expect(pde.stdout).to.contain("--solver");
  });

  it("finds all that it needs there", () => {
    const { status, stdout, stderr } = atlas(["doctor", "--json"]);
    expect(status, stdout + stderr).to.equal(0);
    expect(JSON.parse(stdout)).to.include({ usable: true });
  });

  it("keeps its venv where the user can write, when it is told of no other", () => {
    const { status, stdout } = atlas(["doctor"], {
      ATLAS_VENV: undefined,
      XDG_DATA_HOME: join(dir, "data"),
    });
    expect(status).to.equal(1);
    expect(stdout).to.match(
      /missing +venv +.*data\/atlas-symmetry\/\d[^/]*\/venv does not exist yet; .*atlas demo/,
    );
  });

  const npx = (...args: string[]) =>
    spawnSync(process.platform === "win32" ? "npx.cmd" : "npx", ["--no-install", ...args], {
      cwd: join(dir, "project"),
      env: { ...ENV, ATLAS_VENV: venvFolder(), NO_COLOR: "1" },
      encoding: "utf8",
    });

  it("is a command of npx", () => {
    const small = ["--samples", "512", "--candidates", "4", "--device", "cpu"];
    const { status, stdout, stderr } = npx("atlas-symmetry", "probe", "d4", ...small);
    expect(stdout, stderr).to.match(/^cosets /m);
    expect([0, 1], stderr).to.include(status); // 1: so few samples do not show all of the group
  });

  it("runs the library example of README in a folder of ES modules", () => {
    const readme = readFileSync(join(ROOT, "README.md"), "utf8");
    const [, example] = /^```ts\n([\s\S]*?)^```$/m.exec(readme)!;
    const project = join(dir, "project");
    writeFileSync(join(project, "example.ts"), example!);
    for (const name of ["inputs", "targets"])
      writeFileSync(join(project, `${name}.npy`), writeNpy(waves(name === "inputs" ? 0 : 0.1)));
    const { status, stdout, stderr } = npx("tsx", "example.ts");
    expect(status, stderr).to.equal(0);
    expect(stdout)
      .to.match(/^0\.\d+$/m)
      .and.contain("name:");
  });

  it("runs the Python that it brings along", () => {
    writeFileSync(join(dir, "project/text.pt"), "not weights");
    const { status, stderr } = atlas(["checkpoint", "inspect", "text.pt"]);
    expect(status).to.equal(2);
    expect(stderr).to.match(/text\.pt is no PyTorch or safetensors checkpoint; .*\n$/);
    expect(
      readdirSync(join(dir, "project/node_modules/atlas-symmetry/py-worker/atlas_worker")),
    ).to.not.include("__pycache__");
  });
});

describe("set-up without a network", function () {
  this.timeout(600_000);
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-offline-"));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const run = (script: string, env: NodeJS.ProcessEnv) =>
    spawnSync(process.execPath, [script, "setup"], { env: { ...ENV, ...env }, encoding: "utf8" });
  const errors = (stderr: string) =>
    stderr.split("\n").filter((line) => line !== "" && !line.startsWith("set-up: "));

  it("says so when pip reaches nothing", () => {
    const index = Object.fromEntries(
      Object.keys(ENV)
        .filter((name) => name.startsWith("PIP_"))
        .map((name) => [name, undefined]),
    );
    const { status, stderr } = run(RUN, {
      ...index,
      ATLAS_VENV: join(dir, "venv"),
      PIP_CONFIG_FILE: devNull,
      PIP_INDEX_URL: "http://127.0.0.1:9/simple",
      PIP_RETRIES: "0",
    });
    expect(status).to.equal(1);
    expect(errors(stderr)).to.have.length(1);
    expect(errors(stderr)[0]).to.match(
      /^error: pip could not fetch the Python packages.*is there a network\?; check the network/,
    );
  });

  it("says so when npm reaches nothing", () => {
    const clone = join(dir, "clone");
    for (const path of ["package.json", "package-lock.json", "tsconfig.build.json", "src/setup"])
      cpSync(join(ROOT, path), join(clone, path), { recursive: true });
    mkdirSync(join(clone, "py-worker"));
    const { status, stderr } = run(join(clone, "src/setup/run.mjs"), {
      npm_config_registry: "http://127.0.0.1:9/",
      npm_config_cache: join(dir, "cache"),
      npm_config_fetch_retries: "0",
    });
    expect(status).to.equal(1);
    expect(errors(stderr)).to.have.length(1);
    expect(errors(stderr)[0]).to.match(
      /^error: npm could not install the Node packages \(.+\): is there a network\?; check the network/,
    );
  });

  it("says so when there is no npm", () => {
    const clone = join(dir, "clone");
    for (const path of ["package.json", "package-lock.json", "tsconfig.build.json", "src/setup"])
      cpSync(join(ROOT, path), join(clone, path), { recursive: true });
    const { status, stderr } = run(join(clone, "src/setup/run.mjs"), { PATH: dir });
    expect(status).to.equal(1);
    expect(errors(stderr)).to.deep.equal([
      "error: there is no npm on the PATH; " +
        "install npm (it comes with Node) and run the same command again",
    ]);
  });
});
