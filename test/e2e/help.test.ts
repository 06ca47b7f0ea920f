/** What the command line says of itself. */
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { execa } from "execa";
import { CATALOGUE } from "../../src/gen/blocks.js";
import { MAIN } from "../../src/setup/node.mjs";
import { apart, atlas, complaint, json, LONG, ROOT } from "./atlas.js";

/**
 * The experiments that come with the package, and their tasks, as the README of experiments has
 * them.
 */
const TASKS: Record<string, string[]> = {
  pde: ["discover", "discover_algebra", "discover_cosets"],
  toptagging: [
    ...["discover", "discover_algebra", "discover_cosets"],
    ...["downstream_baseline", "downstream_discovered"],
  ],
  mnist: ["discover", "liegan_discover", "compare", "downstream_baseline", "downstream_discovered"],
  climate: ["discover", "downstream_baseline", "downstream_discovered"],
  discover: ["discover", "discover_algebra", "discover_cosets"],
  "own-data": [],
  probe: [],
  benchmark: [],
};

describe("help", function () {
  this.timeout(LONG);

  it("is there at every level, on stdout", async () => {
    const commands = [
      ..."run demo data runs sweep show resume report dashboard tensorboard attach doctor clean blocks completion".split(
        " ",
      ),
      ...Object.keys(TASKS),
    ].map((name) => [name]);
    const subcommands = ["start", "info", "stop", "keygen"].map((name) => ["worker", name]);
    subcommands.push(["runs", "remove"]);
    const files = ["inspect", "convert", "export"].map((name) => ["checkpoint", name]);
    const groups = [[], ["worker"], ["checkpoint"]];
    for (const command of [...groups, ...commands, ...subcommands, ...files]) {
      const { code, stdout, stderr } = await atlas([...command, "--help"]);
      expect({ code, stderr }, command.join(" ")).to.deep.equal({ code: 0, stderr: "" });
      expect(stdout).to.match(new RegExp(`^Usage: ${["atlas", ...command].join(" ")} `));
    }
    expect(await atlas(["help", "pde"])).to.deep.equal(await atlas(["pde", "--help"]));
  });

  it("is what there is without a command", async () => {
    const { code, stdout, stderr } = await apart([]);
    expect({ code, stderr }).to.deep.equal({ code: 0, stderr: "" });
    expect(stdout)
      .to.match(/^Experiments:\n( {2}.*\n)* {2}pde /m)
      .and.to.contain("atlas demo\n");
    for (const name of Object.keys(TASKS))
      expect(stdout).to.match(new RegExp(`^ {2}${name} +\\S`, "m"));
  });

  for (const [experiment, tasks] of Object.entries(TASKS)) {
    it(`lists the tasks of ${experiment}, each in a line`, async () => {
      const { code, stdout } = await atlas([experiment, "--help"]);
      expect(code).to.equal(0);
      const listed = /^Tasks:\n((?: {2}.*\n)+)/m.exec(stdout)?.[1] ?? "";
      const names = listed.split("\n").map((line) => line.trim().split(/ {2,}/)[0]!);
      expect(names.filter(Boolean)).to.deep.equal(tasks);
      expect(listed.match(/\(default\)$/gm) ?? []).to.have.length(tasks.length === 0 ? 0 : 1);
    });

    for (const task of tasks.length === 0 ? [undefined] : tasks)
      it(`is one screen for ${experiment} ${task ?? ""}`.trimEnd(), async () => {
        const chosen = task === undefined ? [] : ["--task", task];
        const { code, stdout } = await atlas([experiment, ...chosen, "--help"]);
        expect(code).to.equal(0);
        expect(stdout)
          .to.match(/^Options:$/m)
          .and.match(/atlas run --help/);
        const lines = stdout.trimEnd().split("\n");
        expect(lines.length, stdout).to.be.at.most(45);
        expect(lines.filter((line) => line.length > 100)).to.deep.equal([]);
        for (const other of ["candidates", "identity"])
          if (task === "discover_algebra") expect(stdout).to.not.contain(`--${other}`);
      });
  }

  it("has the parameters of a solver that is chosen, in full", async () => {
    const of = (solver: string) =>
      atlas(["pde", "--task", "discover_algebra", "--solver", solver, "--help"]);
    const { stdout: grassmann } = await of("grassmann");
    expect(grassmann)
      .to.match(/^ +--solver\.starts[ :]/m)
      .and.not.contain("--basis-lr");
    const { stdout: atlasd } = await of("atlasd");
    expect(atlasd)
      .to.contain("--basis-lr")
      .and.not.match(/^ +--solver\.starts[ :]/m);
  });

  it("has the options of every run", async () => {
    const { stdout } = await atlas(["run", "--help"]);
    for (const flag of ["--seed", "--worker", "--trust-code", "--runs", "--json", "--quiet"])
      expect(stdout).to.match(new RegExp(`^ +${flag}\\b`, "m"));
  });
});

describe("atlas blocks", () => {
  it("lists every block, a type, or one with its parameters", async () => {
    const { code, stdout } = await apart(["blocks"]);
    expect(code).to.equal(0);
    for (const [type, kinds] of Object.entries(CATALOGUE)) {
      const [, listed] = new RegExp(`^${type}\\n((?: {2}.*\\n?)+)`, "m").exec(stdout) ?? [];
      const names = listed
        ?.trimEnd()
        .split("\n")
        .map((line) => line.trim().split(" ")[0]);
      expect(names, type).to.deep.equal(Object.keys(kinds));
    }
    const one = await atlas(["blocks", "coset_solver", "descent"]); // by its former name
    expect(one.stdout)
      .to.match(/^coset_solver multistart: /)
      .and.match(/^ {2}candidates: .*default 16/m);
    expect(await json(["blocks", "algebra_solver"])).to.have.keys("atlasd", "grassmann");
  });

  it("says what there is in place of what is not", async () => {
    expect(complaint(await atlas(["blocks", "solver"]), 2)).to.match(
      /^error: .*"solver".*; choose one of .*algebra_solver/,
    );
    expect(complaint(await atlas(["blocks", "dataset", "heat"]), 2)).to.match(
      /^error: .*heat.*heat_equation/,
    );
  });
});

describe("atlas completion", () => {
  for (const shell of ["bash", "zsh", "fish"])
    it(`prints a script for ${shell}`, async () => {
      const { code, stdout, stderr } = await atlas(["completion", shell]);
      expect({ code, stderr }).to.deep.equal({ code: 0, stderr: "" });
      for (const word of ["pde", "discover_cosets", "--max-components", "tensorboard", "--seed"])
        expect(stdout).to.match(new RegExp(`[" ]${word}[" ]`));
    });

  it("completes a command line in bash", async function () {
    const { stdout: script } = await apart(["completion", "bash"]);
    const ask = `${script}
COMP_WORDS=(atlas pde --task discover_c); COMP_CWORD=3; _atlas; echo "\${COMPREPLY[@]}"
complete -p atlas`;
    const { exitCode, stdout, stderr } = await execa("bash", ["--norc", "-c", ask], {
      reject: false,
    });
    if (exitCode === undefined) return this.skip(); // there is no bash
    expect(exitCode, stderr).to.equal(0);
    expect(stdout.split("\n")).to.deep.equal(["discover_cosets", "complete -F _atlas atlas"]);
  });
});

describe("a small command", function () {
  this.timeout(LONG);
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-small-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  it("compiles nothing where all is compiled, and needs no Python", async () => {
    const before = statSync(MAIN).mtimeMs;
    const { exitCode, stdout, stderr } = await execa(
      process.execPath,
      [join(ROOT, "src/setup/run.mjs"), "atlas", "runs"],
      { cwd: dir, env: { ATLAS_VENV: join(dir, "venv"), ATLAS_PYTHON: join(dir, "python") } },
    );
    expect({ exitCode, stderr }).to.deep.equal({ exitCode: 0, stderr: "" });
    expect(stdout).to.equal("no runs in runs");
    expect(statSync(MAIN).mtimeMs).to.equal(before);
    expect(existsSync(join(dir, "venv"))).to.equal(false);
  });

  it("starts no process, and writes nothing", async function () {
    // Node itself sees to that: whatever would, is an error.
    const flag = ["--permission", "--experimental-permission"].find((name) =>
      process.allowedNodeEnvironmentFlags.has(name),
    );
    if (flag === undefined) return this.skip();
    const run = (...args: string[]) =>
      execa(process.execPath, ["--no-warnings", flag, "--allow-fs-read=*", MAIN, ...args], {
        cwd: dir,
        reject: false,
      });
    for (const args of [["runs"], ["--help"], ["blocks"], ["--version"]]) {
      const { exitCode, stderr } = await run(...args);
      expect({ exitCode, stderr }, args.join(" ")).to.deep.equal({ exitCode: 0, stderr: "" });
    }
    expect((await run("worker", "start")).exitCode).to.not.equal(0);
  });
});
