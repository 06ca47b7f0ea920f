/** The real command line in processes of its own. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expect } from "chai";
import { execa, execaSync } from "execa";
import { Result } from "../../src/result.js";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const TSX = import.meta.resolve("tsx");
const MAIN = join(ROOT, "src/cli/main.ts");
/** Hundreds of processes compile the same files; Node from 22.1 on keeps what it made of them. */
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

/** Start `atlas …`. */
export function start(args: readonly string[], { cwd = ROOT, env = {} }: Where = {}) {
  const child = execa(process.execPath, ["--import", TSX, MAIN, ...args], {
    cwd,
    env: { NO_COLOR: "1", NODE_COMPILE_CACHE: CACHE, ...env },
    reject: false,
    stdin: "ignore",
    stripFinalNewline: false,
  });
  let stderr = "";
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
    /** Wait until something is written to stderr, all of which is there only once the process is over. */
    async says(what: RegExp): Promise<void> {
      await until(() => what.test(stderr) || over, `${args.join(" ")} says ${what}`);
      expect(stderr).to.match(what);
    },
    done,
  };
}

/** Run `atlas …` to its end. */
export function atlas(args: readonly string[], where: Where = {}): Promise<Done> {
  return start(args, where).done;
}

/**
 * Commands that must fail, each with its own line, and leave no run in the folder. They are run one after the other in this process: to start
 * Node takes longer than they do.
 */
export async function refuses(
  cases: readonly [args: string[], line: RegExp][],
  where: { cwd: string; env?: NodeJS.ProcessEnv },
  code = 2,
): Promise<void> {
  const folder = join(where.cwd, "runs");
  const runs = () => (existsSync(folder) ? readdirSync(folder) : []);
  const before = runs();
  for (const [args, line] of cases)
    expect(complaint(await inProcess(args, where), code), args.join(" ")).to.match(line);
  expect(runs()).to.deep.equal(before);
}

/** Run `atlas …` in this process, which must do nothing else meanwhile. */
export async function inProcess(
  args: readonly string[],
  { cwd = ROOT, env = {} }: Where = {},
): Promise<Done> {
  const { main } = await import("../../src/cli/program.js");
  const done = { code: 0, stdout: "", stderr: "" };
  const before = { cwd: process.cwd(), env: { ...process.env }, exitCode: process.exitCode };
  const writes = [process.stdout.write, process.stderr.write] as const;
  const keep = (stream: "stdout" | "stderr") => (text: string | Uint8Array) => {
    done[stream] += String(text);
    return true;
  };
  try {
    process.chdir(cwd);
    Object.assign(process.env, { NO_COLOR: "1", ...env });
    process.exitCode = undefined;
    process.stdout.write = keep("stdout");
    process.stderr.write = keep("stderr");
    done.code = await main(args);
  } finally {
    [process.stdout.write, process.stderr.write] = writes;
    process.exitCode = before.exitCode;
    for (const name of Object.keys(process.env)) if (!(name in before.env)) delete process.env[name];
    Object.assign(process.env, before.env);
    process.chdir(before.cwd);
  }
  return done;
}

/** A finished run. */
export interface Finished {
  result: Result;
  /** Of its folder. */
  path: string;
}

/** Run an experiment to its end, in a folder of runs that it has for itself. */
export async function finish(args: readonly string[], runs: string, where: Where = {}): Promise<Finished> {
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
export const epochs = (run: string) => logged(run, "epoch").map(({ stage, epoch }) => `${stage} ${epoch}`);

/** Run `atlas …`, which must succeed, and parse what it prints as JSON, which must be all that it prints. */
export async function json<T>(args: readonly string[], where: Where = {}): Promise<T> {
  const { code, stdout, stderr } = await atlas([...args, "--json"], where);
  expect(code, stderr).to.equal(0);
  return JSON.parse(stdout) as T;
}

/** The one line in which a failed command says what is wrong. Anything else there is progress; no stack is. */
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
        (name) => /^\d+$/.test(name) && parentOf(name) === parent && command(name).includes("atlas_worker"),
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

export async function until(condition: () => boolean, what: string, timeoutMs = 60_000): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`not within ${timeoutMs / 1000} s: ${what}`);
    await sleep(20);
  }
}

/** Wait until a process has ended. */
export function ends(pid: number, timeoutMs = 10_000): Promise<void> {
  return until(() => !runs(pid), `the end of process ${pid}`, timeoutMs);
}

/** Mount a file system of its own. @returns unmounts it; undefined where that is not permitted: only root may mount */
export function mountTmpfs(path: string, options: string): (() => void) | undefined {
  const mount = execaSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", path], { reject: false });
  return mount.failed ? undefined : () => execaSync("umount", [path]);
}
