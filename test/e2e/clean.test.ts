/** What Atlas made for itself can be listed and removed; nothing else is. */
import { spawn } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { takeLock } from "../../src/setup/lock.mjs";
import { atlas, complaint, json, LONG } from "./atlas.js";

/** An engine with two images of ours, one of them in use, a foreign one, and the volume. */
const DOCKER = `#!/bin/sh
echo "$*" >> "$DOCKER_LOG"
case "$*" in
  version) echo "fake engine" ;;
  "image ls"*) echo atlas-symmetry-worker:0.2.0-aaa; echo localhost/atlas-symmetry-worker:0.1.0-bbb; echo python:3 ;;
  "image inspect"*) echo 1000000 ;;
  "volume ls"*) echo other; echo atlas-cache ;;
  "image rm"*bbb) echo "image is in use" >&2; exit 1 ;;
esac
`;

interface Cleaned {
  bytes: number;
  items: { kind: string; name: string; bytes?: number; removed: boolean; kept?: string }[];
}

describe("atlas clean", function () {
  this.timeout(LONG);
  let dir: string;
  let venv: string;
  let env: NodeJS.ProcessEnv;
  const write = (path: string, text = "x".repeat(5000)) => {
    mkdirSync(join(path, ".."), { recursive: true });
    writeFileSync(path, text);
  };
  const paths = () => ({
    venv: join(venv, "lib/torch.py"),
    former: join(dir, "data/atlas-symmetry/0.1.0/venv/lib/torch.py"),
    cache: join(dir, `cache/atlas-symmetry/climatenet/${"0".repeat(32)}.arrays`),
  });
  const there = () =>
    Object.entries(paths())
      .filter(([, path]) => existsSync(path))
      .map(([name]) => name);
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-clean-"));
    venv = join(dir, "venv");
    for (const path of Object.values(paths())) write(path);
    write(join(venv, ".atlas-setup.json"), '{ "state": "ready" }');
    write(join(dir, "data/atlas-symmetry/0.1.0/venv/.atlas-setup.json"), "{}");
    write(join(dir, "data/atlas-symmetry/mine/venv/thesis.tex"));
    write(join(dir, "cache/atlas-symmetry/climatenet/notes.txt"));
    const docker = join(dir, "bin/docker");
    write(docker, DOCKER);
    chmodSync(docker, 0o755);
    env = {
      ...{ ATLAS_VENV: venv, DOCKER_LOG: join(dir, "log") },
      ...{ XDG_DATA_HOME: join(dir, "data"), XDG_CACHE_HOME: join(dir, "cache") },
      PATH: `${join(dir, "bin")}:${process.env.PATH}`,
    };
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  it("lists all with --dry-run, and changes nothing", async () => {
    const { items } = await json<Cleaned>(["clean", "--dry-run"], { env });
    expect(items.filter(({ kind }) => kind !== "code")).to.have.length(6);
    expect(items.some(({ removed }) => removed)).to.equal(false);
    for (const { kind, bytes } of items)
      if (kind === "venv" || kind === "cache") expect(bytes).to.be.within(5000, 50_000);
    expect(there()).to.deep.equal(["venv", "former", "cache"]);
    expect(readFileSync(join(dir, "log"), "utf8")).to.not.contain(" rm ");
    const { stdout } = await atlas(["clean", "--dry-run"], { env });
    expect(stdout).to.match(/^image +1\.0 MB {2}atlas-symmetry-worker:0\.2\.0-aaa$/m);
    expect(stdout).to.match(/would be freed; nothing was removed\n$/);
  });

  it("removes environments and caches, those of other versions too, and says how much", async () => {
    expect((await atlas(["clean", "--only", "cache"], { env })).code).to.equal(0);
    expect(there()).to.deep.equal(["venv", "former"]);
    const { bytes, items } = await json<Cleaned>(["clean", "--only", "venv"], { env });
    expect(there()).to.deep.equal([]);
    expect(items.map(({ removed }) => removed)).to.deep.equal([true, true]);
    expect(bytes).to.equal(items.reduce((sum, item) => sum + (item.bytes ?? 0), 0));
    expect(existsSync(venv)).to.equal(false);
    expect(existsSync(join(dir, "data/atlas-symmetry/mine/venv/thesis.tex"))).to.equal(true);
    expect(existsSync(join(dir, "cache/atlas-symmetry/climatenet/notes.txt"))).to.equal(true);
    const { stdout } = await atlas(["clean", "--only", "venv"], { env });
    expect(stdout).to.equal("there is nothing to remove\n");
  });

  it("leaves what is no part of an environment", async () => {
    write(join(venv, "thesis.tex"));
    await json(["clean", "--only", "venv"], { env });
    expect(readdirSync(venv)).to.deep.equal(["thesis.tex"]);
  });

  it("says which images the engine keeps", async () => {
    const { code, stdout } = await atlas(["clean", "--only", "image"], { env });
    expect(code).to.equal(1);
    expect(stdout).to.match(/0\.1\.0-bbb {2}kept: image is in use$/m);
    expect(stdout).to.match(/^1\.0 MB freed$/m);
    const asked = readFileSync(join(dir, "log"), "utf8");
    expect(asked).to.contain("volume rm atlas-cache").and.not.contain("rm python");
    expect(there()).to.have.length(3);
  });

  it("refuses while a set-up holds the environment", async () => {
    const lock = await takeLock(join(venv, ".atlas-lock"), { onBusy: () => {} });
    try {
      const line = complaint(await atlas(["clean", "--only", "venv"], { env }), 2);
      expect(line).to.match(new RegExp(`process ${process.pid} .*is setting up .*; wait`));
      expect(there()).to.have.length(3);
    } finally {
      await lock.release();
    }
  });

  it("refuses while a worker runs in the environment", async function () {
    if (process.platform !== "linux") return this.skip();
    const python = join(venv, "bin/python");
    mkdirSync(join(venv, "bin"));
    copyFileSync("/bin/sleep", python);
    chmodSync(python, 0o755);
    const child = spawn(python, ["600"]);
    try {
      const line = complaint(await atlas(["clean"], { env }), 2);
      expect(line).to.match(new RegExp(`process ${child.pid} .*atlas worker stop`));
      expect(there()).to.have.length(3);
    } finally {
      child.kill("SIGKILL");
    }
  });
});
