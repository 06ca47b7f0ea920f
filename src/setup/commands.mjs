/** The commands of run.mjs: set up what each needs, then do it. */
import { chmod, mkdtemp, open, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { foreground, ROOT, SetupFailure, WORKER } from "./common.mjs";
import { earlierContracts } from "./contract.mjs";
import { ensureNodePackages, ensureNodeStubs, program } from "./node.mjs";
import { ensurePython } from "./python.mjs";

const onProgress = (/** @type {string} */ line) => void process.stderr.write(`set-up: ${line}\n`);

/** @type {Record<string, (args: readonly string[]) => Promise<number | void>>} */
const COMMANDS = {
  // The venv is made by the commands that need it, so that help, doctor and the like do not wait for PyTorch.
  atlas: (args) => atlas(args),
  async demo(args) {
    await setUp();
    return atlas(["demo", ...args]);
  },
  async bench(args) {
    await setUp();
    return typescript("test/bench/main.ts", args);
  },
  async soak(args) {
    await setUp();
    return typescript("test/soak/main.ts", args);
  },
  async setup() {
    await setUp();
    onProgress("everything is in place");
  },
  test: (args) => test(args),
  check: () => check(),
  build: () => build(),
};

/** @param {readonly string[]} argv */
export async function main([name = "", ...args]) {
  const command = COMMANDS[name];
  if (command === undefined) {
    process.stderr.write(
      `error: unknown script ${JSON.stringify(name)}; choose one of ${Object.keys(COMMANDS).join(", ")}\n`,
    );
    process.exitCode = 2;
    return;
  }
  try {
    const code = await command(args);
    if (code !== undefined) process.exitCode = code;
  } catch (error) {
    if (!(error instanceof SetupFailure)) throw error;
    process.stderr.write(`error: ${error.message}${error.remedy === undefined ? "" : `; ${error.remedy}`}\n`);
    process.exitCode = 1;
  }
}

async function setUpNode() {
  await ensureNodePackages(onProgress);
  await ensureNodeStubs(onProgress);
}

/** @param {{dev?: boolean, extras?: string[]}} [options] */
async function setUp({ dev = false, extras = [] } = {}) {
  await setUpNode();
  return ensurePython({ dev, extras, onProgress });
}

/** @param {readonly string[]} args */
async function atlas(args) {
  await setUpNode();
  return typescript("src/cli/main.ts", args);
}

/** Run a TypeScript program in this very process, which saves a start of Node and keeps signals simple. @param {string} file @param {readonly string[]} args */
async function typescript(file, args) {
  const { register } = await import("tsx/esm/api");
  register();
  const path = join(ROOT, file);
  process.argv = [process.execPath, path, ...args];
  await import(pathToFileURL(path).href);
}

/**
 * Both test runners, whatever the other one finds: pytest in what mocha, which mostly waits for processes, leaves of the processors; what it says
 * comes after.
 *
 * @param {readonly string[]} args for mocha
 */
async function test(args) {
  const python = await setUp({ dev: true, extras: ["jets"] }); // which tests would install, in their own time
  const folder = await mkdtemp(join(tmpdir(), "atlas-test-"));
  const file = await open(join(folder, "pytest.txt"), "w");
  const aside = { cwd: WORKER, output: file.fd, niceness: 10, env: { ...process.env, OMP_NUM_THREADS: "1" } };
  const both = [
    foreground(process.execPath, [program("mocha"), ...args]),
    foreground(python, ["-m", "pytest"], aside),
  ];
  const [mocha, pytest] = await Promise.all(both);
  await file.close();
  process.stdout.write(await readFile(join(folder, "pytest.txt"), "utf8"));
  await rm(folder, { recursive: true, force: true });
  return mocha === 130 || pytest === 130 ? 130 : mocha === 0 && pytest === 0 ? 0 : 1;
}

/** Lint, format and types of both languages, and whether the contract is kept; all are run, whatever the first finds. */
async function check() {
  const python = await setUp({ dev: true });
  const node = process.execPath;
  const where = ["--config", "pyproject.toml", ".", "../test"]; // what mypy looks at is in pyproject.toml
  /** @type {[title: string, command: string, args: string[], cwd?: string][]} */
  const checks = [
    ["biome check", node, [program("biome"), "check"]],
    ["buf lint", node, [program("buf"), "lint"]],
    ["tsc", node, [program("tsc"), "--noEmit"]],
    ["ruff check", python, ["-m", "ruff", "check", ...where], WORKER],
    ["ruff format --check", python, ["-m", "ruff", "format", "--check", ...where], WORKER],
    ["mypy", python, ["-m", "mypy"], WORKER],
  ];
  const failed = [];
  const folder = await mkdtemp(join(tmpdir(), "atlas-check-"));
  try {
    const earlier = await earlierContracts(folder);
    if (typeof earlier === "string") process.stderr.write(`check: without buf breaking: ${earlier}\n`);
    else
      for (const { when, archive } of earlier)
        checks.push([
          `buf breaking (proto/ as it was ${when}, with the same PROTOCOL_VERSION)`,
          node,
          [program("buf"), "breaking", "--against", archive],
        ]);
    for (const [title, command, args, cwd] of checks) {
      process.stderr.write(`check: ${title}\n`);
      if ((await foreground(command, args, { cwd })) !== 0) failed.push(title);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  process.stderr.write(failed.length === 0 ? "check: all passed\n" : `check: failed: ${failed.join(", ")}\n`);
  return failed.length === 0 ? 0 : 1;
}

/** Compile to dist/, for npm pack. Nothing goes to stdout, where npm pack writes. */
async function build() {
  await setUp(); // the Python stubs are packed too
  await rm(join(ROOT, "dist"), { recursive: true, force: true });
  const code = await foreground(process.execPath, [program("tsc"), "-p", "tsconfig.build.json"]);
  if (code === 0) await chmod(join(ROOT, "dist/src/cli/main.js"), 0o755);
  return code;
}
