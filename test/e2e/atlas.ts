/** The command line, in this process or in processes of its own. */
import { spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { expect } from "chai";
import { execa, execaSync } from "execa";
import { Result } from "../../src/result.js";
import { MAIN } from "../../src/setup/node.mjs";
import { ensureVenv } from "../../src/setup/venv.js";
import { PYTHON_MODULE, parseReady, serveArguments } from "../../src/worker/process.js";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** Milliseconds for what computes, however busy the machine is. */
export const LONG = 10 * 60_000;
/** The rounding of float32, relative: what limits on numbers of any size are in units of. */
export const EPS = 2 ** -23;
/** Hundreds of processes load the same files; Node from 22.1 on keeps what it made of them. */
const CACHE = join(ROOT, "node_modules/.cache/compile");

/** A finished command. */
export interface Done {
  code: number | undefined;
  stdout: string;
  stderr: string;
}

export interface Where {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
}

/** Start `atlas …` in a process of its own. */
export function start(args: readonly string[], { cwd = ROOT, env = {} }: Where = {}) {
  const child = execa(process.execPath, [MAIN, ...args], {
    cwd,
    env: { NO_COLOR: "1", NODE_COMPILE_CACHE: CACHE, ...env },
    reject: false,
    stdin: "ignore",
    stripFinalNewline: false,
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (data: Buffer) => {
    stdout += String(data);
  });
  child.stderr.on("data", (data: Buffer) => {
    stderr += String(data);
  });
  let over = false;
  const done = child.then(({ exitCode, stdout, stderr }): Done => {
    over = true;
    return { code: exitCode, stdout, stderr };
  });
  return {
    pid: child.pid!,
    kill: (signal: NodeJS.Signals) => child.kill(signal),
    /**
     * Wait until something is written to stderr, all of which is there only once the process is
     * over.
     */
    async says(what: RegExp): Promise<void> {
      await until(() => what.test(stderr) || over, `${args.join(" ")} says ${what}`);
      expect(stderr).to.match(what);
    },
    /** Wait until something is written to stdout. @returns the first group of the pattern */
    async prints(what: RegExp): Promise<string> {
      await until(() => what.test(stdout) || over, `${args.join(" ")} prints ${what}`);
      expect(stdout, stderr).to.match(what);
      return what.exec(stdout)?.[1] ?? "";
    },
    done,
  };
}

/** Run `atlas …` to its end in a process of its own. */
export function apart(args: readonly string[], where: Where = {}): Promise<Done> {
  return start(args, where).done;
}

let last: Promise<unknown> = Promise.resolve();

/**
 * Run `atlas …` to its end in this process, which saves the start of another. Commands are run one
 * after the other; meanwhile this process must do nothing else that needs its folder, its
 * environment or its output.
 */
export function atlas(args: readonly string[], where: Where = {}): Promise<Done> {
  const done = last.then(() => inThisProcess(args, where));
  last = done.catch(() => {});
  return done;
}

async function inThisProcess(
  args: readonly string[],
  { cwd = ROOT, env = {} }: Where,
): Promise<Done> {
  const program = pathToFileURL(join(MAIN, "../program.js")).href;
  const { main } = (await import(program)) as typeof import("../../src/cli/program.js");
  const done = { code: 0, stdout: "", stderr: "" };
  const before = { cwd: process.cwd(), env: { ...process.env }, exitCode: process.exitCode };
  const writes = [process.stdout.write, process.stderr.write] as const;
  const streams = [process.stdout, process.stderr];
  const terminals = streams.map(({ isTTY, columns }) => ({ isTTY, columns }));
  const keep = (stream: "stdout" | "stderr") => (text: string | Uint8Array) => {
    done[stream] += String(text);
    return true;
  };
  try {
    process.chdir(cwd);
    Object.assign(process.env, { NO_COLOR: "1", ...env });
    process.exitCode = undefined;
    for (const stream of streams) Object.assign(stream, { isTTY: false, columns: undefined });
    process.stdout.write = keep("stdout");
    process.stderr.write = keep("stderr");
    done.code = await main(args);
  } finally {
    [process.stdout.write, process.stderr.write] = writes;
    for (const [i, stream] of streams.entries()) Object.assign(stream, terminals[i]);
    process.exitCode = before.exitCode;
    for (const name of Object.keys(process.env))
      if (!(name in before.env)) delete process.env[name];
    Object.assign(process.env, before.env);
    process.chdir(before.cwd);
  }
  return done;
}

/** Commands that must fail, each with its own line, and leave no run in the folder. */
export async function refuses(
  cases: readonly [args: string[], line: RegExp][],
  where: { cwd: string; env?: NodeJS.ProcessEnv },
  code = 2,
): Promise<void> {
  const folder = join(where.cwd, "runs");
  const runs = () => (existsSync(folder) ? readdirSync(folder) : []);
  const before = runs();
  const others: string[] = [];
  for (const [args, line] of cases) {
    const said = complaint(await atlas(args, where), code);
    if (!line.test(said))
      others.push(`atlas ${args.join(" ")}\n  ${said}\n  does not match ${line}`);
  }
  expect(others.length, others.join("\n")).to.equal(0);
  expect(runs()).to.deep.equal(before);
}

let shared: Promise<string> | undefined;
/** Where the shared worker keeps decoded files, in its own `XDG_CACHE_HOME`. */
export const SHARED_CACHE = join(mkdtempSync(join(tmpdir(), "atlas-tests-")), "cache");
process.once("exit", () => rmSync(join(SHARED_CACHE, ".."), { recursive: true, force: true }));

/**
 * The address of a worker that all test files of this process share, where workers are not what is
 * tested: to start one takes longer than most runs do. It has one thread of the CPU, and ends with
 * this process.
 */
export function sharedWorker(): Promise<string> {
  shared ??= startShared();
  return shared;
}

async function startShared(): Promise<string> {
  const { python, workerDir } = await ensureVenv();
  const folder = join(SHARED_CACHE, "..");
  const log = join(folder, "log");
  const output = openSync(log, "w");
  const planeFolder = join(folder, "planes");
  mkdirSync(planeFolder, { mode: 0o700 });
  const options = { device: "cpu", threads: 1, dataRoot: "/", planeFolder };
  const args = [...PYTHON_MODULE, ...serveArguments(options), "--parent-stdin"];
  const child = spawn(python, args, {
    cwd: workerDir,
    env: {
      ...process.env,
      PYTHONPATH: workerDir,
      PYTHONUNBUFFERED: "1",
      XDG_CACHE_HOME: SHARED_CACHE,
    },
    stdio: ["pipe", output, output],
  });
  // It must not keep this process from ending, which is what ends it.
  child.unref();
  (child.stdin as unknown as { unref(): void }).unref();
  const ready = () => readFileSync(log, "utf8").split("\n").map(parseReady).find(Boolean);
  await until(() => ready() !== undefined || child.exitCode !== null, "the shared worker serves");
  return `grpc://${(ready() ?? expect.fail(readFileSync(log, "utf8"))).address}`;
}

/** Start a worker in the background, as a user does. @returns its address and its log */
export async function startBackground(
  flags: readonly string[],
  where: Where,
): Promise<{ address: string; log: string }> {
  const { stdout, stderr } = await atlas(["worker", "start", ...flags], where);
  const [, address] = /^address +(\S+)$/m.exec(stdout) ?? expect.fail(stderr);
  const [, log] = /^log +(.+)$/m.exec(stdout) ?? expect.fail(stdout);
  return { address: address!, log: log! };
}

/** A finished run. */
export interface Finished {
  result: Result;
  /** Of its folder. */
  path: string;
}

/** Run an experiment to its end, in a folder of runs that it has for itself. */
export async function finish(
  args: readonly string[],
  runs: string,
  where: Where = {},
): Promise<Finished> {
  const result = Result.parse(await json<unknown>([...args, "--runs", runs], where));
  return { result, path: only(runs) };
}

/** The path of the one run in a folder. */
export function only(runs: string): string {
  const names = readdirSync(runs);
  expect(names).to.have.length(1);
  return join(runs, names[0]!);
}

/** The result of a run without what differs from one run to the next. */
export function essence(run: string): string {
  const { timings: _, ...rest } = JSON.parse(readFileSync(join(run, "result.json"), "utf8"));
  return JSON.stringify(rest, null, 2);
}

/** The log of a run, of one type. Its last line may be half written. */
export function logged(run: string, type: string): Record<string, unknown>[] {
  const lines = readFileSync(join(run, "events.jsonl"), "utf8").split("\n").slice(0, -1);
  return lines.map((line) => JSON.parse(line)).filter((event) => event.type === type);
}

/** Every epoch of every stage, in the order of a run's log. */
export const epochs = (run: string) =>
  logged(run, "epoch").map(({ stage, epoch }) => `${stage} ${epoch}`);

/**
 * Run `atlas …`, which must succeed, and parse what it prints as JSON, which must be all that it
 * prints.
 */
export async function json<T>(args: readonly string[], where: Where = {}): Promise<T> {
  const { code, stdout, stderr } = await atlas([...args, "--json"], where);
  expect(code, stderr).to.equal(0);
  return JSON.parse(stdout) as T;
}

/**
 * The one line in which a failed command says what is wrong. Anything else there is progress; no
 * stack is.
 */
export function complaint({ code, stdout, stderr }: Done, expectedCode: number): string {
  expect(code, stderr).to.equal(expectedCode);
  expect(stdout).to.equal("");
  const lines = stderr.trimEnd().split("\n");
  expect(lines.filter((line) => line.startsWith("error: "))).to.have.length(1, stderr);
  expect(stderr).not.to.match(/^\s+at |Traceback|unexpected:/m);
  return lines.at(-1)!;
}

/** The workers that a process has started: its children. */
export function workersOf(parent: number): number[] {
  if (existsSync("/proc/self/stat"))
    return readdirSync("/proc")
      .filter(
        (name) =>
          /^\d+$/.test(name) && parentOf(name) === parent && command(name).includes("atlas_worker"),
      )
      .map(Number);
  return execaSync("ps", ["-A", "-o", "pid=,ppid=,command="])
    .stdout.split("\n")
    .map((line) => /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line) ?? [])
    .filter(([, , ppid, text = ""]) => Number(ppid) === parent && text.includes("atlas_worker"))
    .map(([, pid]) => Number(pid));
}

function parentOf(pid: string): number | undefined {
  const stat = read(`/proc/${pid}/stat`);
  return stat === "" ? undefined : Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
}

function command(pid: string): string {
  return read(`/proc/${pid}/cmdline`);
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // it has ended meanwhile
  }
}

/** Whether a process runs; one that nobody has collected yet does not. */
export function runs(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  return !/^State:\s*Z/m.test(read(`/proc/${pid}/status`));
}

/** Wait for something that comes; how long that takes is not what is tested. */
export async function until(
  condition: () => boolean,
  what: string,
  timeoutMs = LONG / 2,
): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`not within ${timeoutMs / 1000} s: ${what}`);
    await sleep(20);
  }
}

/** Wait until a process has ended. */
export function ends(pid: number): Promise<void> {
  return until(() => !runs(pid), `the end of process ${pid}`);
}

/**
 * Mount a file system of its own. @returns unmounts it; undefined where that is not permitted: only
 * root may mount
 */
export function mountTmpfs(path: string, options: string): (() => void) | undefined {
  const mount = execaSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", path], {
    reject: false,
  });
  return mount.failed ? undefined : () => execaSync("umount", [path]);
}
