/** What it takes to add a block: one Python file, and nothing else. */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { execa } from "execa";
import { Result } from "../../src/result.js";
import { program } from "../../src/setup/node.mjs";
import { ensureVenv } from "../../src/setup/venv.js";
import { only, ROOT } from "./atlas.js";

const TYPED = `
import type { AlgebraOptions, Session } from "./index.js";
export const find = (session: Session, rest: Omit<AlgebraOptions, "solver">) => [
  session.createAlgebra({ ...rest, solver: { kind: "random_search", params: { tries: 3 } } }),
  // @ts-expect-error there is no such parameter
  session.createAlgebra({ ...rest, solver: { kind: "random_search", params: { trys: 3 } } }),
];
`;

describe("a new solver in one Python file", function () {
  this.timeout(600_000);
  let copy: string;
  let venv: string;
  const run = async (...args: string[]) => {
    const env = { ATLAS_VENV: venv, NO_COLOR: "1", COLUMNS: "100" };
    return execa(process.execPath, args, { cwd: copy, env, reject: false });
  };
  const atlas = (...args: string[]) => run("src/setup/run.mjs", "atlas", ...args);

  before(async () => {
    venv = join((await ensureVenv()).python, "../..");
    copy = mkdtempSync(join(tmpdir(), "atlas-new-block-"));
    const parts = ["src", "experiments", "proto", "package.json", "package-lock.json"];
    parts.push("buf.gen.yaml", "buf.yaml", "tsconfig.json", "tsconfig.build.json");
    parts.push("py-worker/atlas_worker", "py-worker/requirements.txt");
    for (const part of parts)
      cpSync(join(ROOT, part), join(copy, part), { recursive: true, preserveTimestamps: true });
    symlinkSync(join(ROOT, "node_modules"), join(copy, "node_modules"));
    cpSync(
      join(ROOT, "test/e2e/new-block/random_search.py"),
      join(copy, "py-worker/atlas_worker/solvers/random_search.py"),
    );
    const { exitCode, stderr } = await run("src/setup/run.mjs", "generate");
    expect(exitCode, stderr).to.equal(0);
  });
  after(() => rmSync(copy, { recursive: true, force: true }));

  it("is a choice of --solver, with flags, in the help", async () => {
    const help = await atlas("pde", "--task", "discover_algebra", "--help");
    expect(help.stdout).to.match(/--solver <atlasd\|grassmann\|random_search>/);
    const blocks = await atlas("blocks", "algebra_solver", "random_search");
    expect(blocks.stdout).to.contain("Random frames that are tried in each epoch");
    const wrong = await atlas("pde", "--solver", "random_search", "--solver.tries", "0");
    expect(wrong.exitCode).to.equal(2);
    expect(wrong.stderr).to.match(/^error: --solver\.tries.*from 1 to 1000/m);
  });

  it("is typed", async () => {
    writeFileSync(join(copy, "src/typed.ts"), TYPED);
    const { exitCode, stdout } = await run(program("tsc"), "--noEmit", "-p", "tsconfig.build.json");
    expect(exitCode, stdout).to.equal(0);
    rmSync(join(copy, "src/typed.ts"));
  });

  it("solves", async () => {
    const size = ["--N", "8", "--epochs", "1", "--algebra-epochs", "1"];
    const solver = ["--solver", "random_search", "--solver.tries", "3", "--device", "cpu"];
    const task = ["pde", "--task", "discover_algebra", "--layout", "2"];
    const { exitCode, stdout, stderr } = await atlas(...task, ...size, ...solver, "--json");
    expect(exitCode, stderr).to.equal(0);
    expect(Result.parse(JSON.parse(stdout)).algebra!.generators).to.have.length(1);
    const config = JSON.parse(readFileSync(join(only(join(copy, "runs")), "config.json"), "utf8"));
    expect(config.config).to.include({ solver: "random_search", "solver.tries": 3 });
  });
});
