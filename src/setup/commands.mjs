/** The commands of run.mjs. Each makes what it needs first. */
import { mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { CATALOGUE } from "./blocks.mjs";
import { execute, foreground, ROOT, SetupFailure, WORKER } from "./common.mjs";
import { brokenBlocks, earlierContracts } from "./contract.mjs";
import { ensureCompiled, ensureNodePackages, ensureNodeStubs, MAIN, program } from "./node.mjs";
import { ensurePython } from "./python.mjs";

const onProgress = (/** @type {string} */ line) => void process.stderr.write(`set-up: ${line}\n`);

/** @type {Record<string, (args: readonly string[]) => Promise<number | void>>} */
const COMMANDS = {
  // Commands that need the venv make it, so that help and doctor do not wait for PyTorch.
  atlas: (args) => atlas(args),
  async demo(args) {
    await setUp();
    return atlas(["demo", ...args]);
  },
  async bench(args) {
    await setUp({ dev: args.includes("gpu") }); // which runs tests too
    return typescript("test/bench/main.ts", args);
  },
  async calibrate(args) {
    await setUp();
    return typescript("test/bench/calibrate.ts", args);
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
  async integration(args) {
    await setUp({ dev: true });
    await ensureCompiled(onProgress);
    return mocha(args.some(isTest) ? args : ["test/integration/**/*.test.ts", ...args]);
  },
  check: () => check(),
  build: () => build(),
  generate: () => generate(),
  docs: () => docs(),
};

/**
 * Run a command of package.json's scripts.
 *
 * @param {readonly string[]} argv its name and arguments
 */
export async function main([name = "", ...args]) {
  const command = COMMANDS[name];
  if (command === undefined) {
    process.stderr.write(
      `error: unknown script ${JSON.stringify(name)}; choose one of ` +
        `${Object.keys(COMMANDS).join(", ")}\n`,
    );
    process.exitCode = 2;
    return;
  }
  try {
    const code = await command(args);
    if (code !== undefined) process.exitCode = code;
  } catch (error) {
    if (!(error instanceof SetupFailure)) throw error;
    process.stderr.write(
      `error: ${error.message}${error.remedy === undefined ? "" : `; ${error.remedy}`}\n`,
    );
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

/**
 * Run the command line in this process, which saves a start of Node and keeps signals simple.
 *
 * @param {readonly string[]} args
 */
async function atlas(args) {
  await setUpNode();
  await ensureCompiled(onProgress);
  process.argv = [process.execPath, MAIN, ...args];
  await import(pathToFileURL(MAIN).href);
}

/**
 * Run a TypeScript program in this process.
 *
 * @param {string} file
 * @param {readonly string[]} args
 */
async function typescript(file, args) {
  const { register } = await import("tsx/esm/api");
  register();
  const path = join(ROOT, file);
  process.argv = [process.execPath, path, ...args];
  await import(pathToFileURL(path).href);
}

const TESTS = ["unit", "contract", "e2e", "doors"].map((folder) => `test/${folder}/**/*.test.ts`);

/** Whether an argument names a file of tests. @param {string} arg */
const isTest = (arg) => /\.test\.ts$/.test(arg);

/** @param {readonly string[]} args */
const mocha = (args) => foreground(process.execPath, [program("mocha"), ...args]);

/**
 * Run mocha and pytest side by side. Mocha mostly waits for other processes, and pytest gets the
 * rest of the processors, with a process for each. The output of pytest comes last. If test files
 * are named, only mocha runs.
 *
 * @param {readonly string[]} args for mocha
 */
async function test(args) {
  const python = await setUp({ dev: true, extras: ["jets", "files"] }); // or the tests would install them
  await ensureCompiled(onProgress);
  if (args.some(isTest)) return mocha(args);
  const folder = await mkdtemp(join(tmpdir(), "atlas-test-"));
  const file = await open(join(folder, "pytest.txt"), "w");
  // Each holds PyTorch, so more than a few cost much memory.
  const processes = Math.min(availableParallelism(), 4);
  const aside = {
    cwd: WORKER,
    output: file.fd,
    niceness: 10,
    env: { OMP_NUM_THREADS: "1" },
  };
  const codes = await Promise.all([
    mocha([...TESTS, ...args]),
    foreground(python, ["-m", "pytest", "-n", String(processes)], aside),
  ]);
  await file.close();
  process.stdout.write(await readFile(join(folder, "pytest.txt"), "utf8"));
  await rm(folder, { recursive: true, force: true });
  // The output is long, and its end is what is looked at first.
  for (const [index, code] of codes.entries())
    if (code !== 0)
      process.stderr.write(`test: ${["mocha", "pytest"][index]} failed (exit code ${code})\n`);
  return codes.find((code) => code === 130) ?? (codes.every((code) => code === 0) ? 0 : 1);
}

/** Check style, formats, types and the contract. All checks run, even if one fails. */
async function check() {
  const python = await setUp({ dev: true });
  const node = process.execPath;
  const where = ["--config", "pyproject.toml", ".", "../test"];
  /** @type {[title: string, command: string, args: string[], cwd?: string][]} */
  const checks = [
    ["biome check", node, [program("biome"), "check"]],
    ["buf lint", node, [program("buf"), "lint"]],
    ["tsc", node, [program("tsc"), "--noEmit"]],
    ["tsc of the page", node, [program("tsc"), "--noEmit", "-p", "src/dashboard/page"]],
    ["typedoc", node, [...TYPEDOC, "--emit", "none"]],
    ["ruff check", python, ["-m", "ruff", "check", ...where], WORKER],
    ["ruff format --check", python, ["-m", "ruff", "format", "--check", ...where], WORKER],
    ["mypy", python, ["-m", "mypy"], WORKER],
  ];
  /** @type {string[]} */
  const failed = [];
  const found = (/** @type {string} */ title, /** @type {readonly string[]} */ faults) => {
    process.stderr.write([`check: ${title}`, ...faults, ""].join("\n"));
    if (faults.length > 0) failed.push(title);
  };
  const folder = await mkdtemp(join(tmpdir(), "atlas-check-"));
  try {
    const earlier = await earlierContracts(folder);
    if (typeof earlier === "string")
      process.stderr.write(`check: without buf breaking: ${earlier}\n`);
    else
      for (const { when, archive, blocks } of earlier) {
        checks.push([
          `buf breaking (proto/ as it was ${when}, with the same version)`,
          node,
          [program("buf"), "breaking", "--against", archive],
        ]);
        if (blocks !== undefined)
          found(
            `the blocks (as they were ${when})`,
            brokenBlocks(blocks, await readFile(CATALOGUE, "utf8")),
          );
      }
    found(
      "blocks.json is what the worker declares",
      (await readFile(CATALOGUE, "utf8")) === (await declaredBlocks(python))
        ? []
        : ["proto/atlas/v1/blocks.json is out of date: write it with npm run generate"],
    );
    for (const [title, command, args, cwd] of checks) {
      process.stderr.write(`check: ${title}\n`);
      if ((await foreground(command, args, { cwd })) !== 0) failed.push(title);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  process.stderr.write(
    failed.length === 0 ? "check: all passed\n" : `check: failed: ${failed.join(", ")}\n`,
  );
  return failed.length === 0 ? 0 : 1;
}

const TYPEDOC = [program("typedoc"), "--tsconfig", "tsconfig.build.json", "--logLevel", "Warn"];

/** Write the reference of the library to docs/. */
async function docs() {
  await setUpNode();
  const code = await foreground(process.execPath, TYPEDOC);
  if (code === 0) onProgress("the reference is in docs/: open docs/index.html");
  return code;
}

/** Compile to dist/, for npm pack. Nothing is printed on stdout, where npm pack writes. */
async function build() {
  await setUp(); // for the Python stubs, which are packed too
  await ensureCompiled(onProgress);
}

/** Write the block catalogue, proto/atlas/v1/blocks.json, and the TypeScript made from it. */
async function generate() {
  const python = await setUp();
  await writeFile(CATALOGUE, await declaredBlocks(python));
  await setUpNode();
  onProgress("proto/atlas/v1/blocks.json and src/gen/blocks.ts are up to date");
}

/** Get the catalogue that the worker declares, as JSON. @param {string} python */
async function declaredBlocks(python) {
  const args = ["-m", "atlas_worker", "catalogue"];
  const { code, lines } = await execute(python, args, { cwd: WORKER, keep: Infinity });
  if (code !== 0)
    throw new SetupFailure(`the catalogue cannot be made (${lines.at(-1) ?? `exit ${code}`})`);
  return `${lines.join("\n")}\n`;
}
