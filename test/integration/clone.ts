/** Fresh clones of this package, and a user's shell for each. */
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect } from "chai";
import { execa } from "execa";
import { ROOT } from "../e2e/atlas.js";

/** What npm gives to the scripts that it runs, and would make an npm in them work on this folder. */
const OF_NPM =
  /^(npm_(lifecycle|package|command|execpath|config_local_prefix|node_execpath)|INIT_CWD)/;

/** A finished command. `seconds` is the time that it took. */
export interface Done {
  code: number | undefined;
  stdout: string;
  stderr: string;
  seconds: number;
}

/** Copy the files that git has or would take. */
export function makeClone(folder: string): void {
  const list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
  const files = execFileSync("git", list, { cwd: ROOT, encoding: "utf8" }).split("\0");
  for (const file of files.filter((name) => name !== "" && existsSync(join(ROOT, name)))) {
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    cpSync(join(ROOT, file), join(folder, file));
  }
}

/** Run a command in a clone, in the environment of these tests but for some variables. */
export async function run(
  [command = "", ...args]: readonly string[],
  cwd: string,
  env: NodeJS.ProcessEnv = {},
): Promise<Done> {
  const own = Object.entries(process.env).filter(([name]) => !OF_NPM.test(name));
  const merged = { ...Object.fromEntries(own), ...env };
  const begun = performance.now();
  const child = await execa(command, args, {
    cwd,
    env: Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== undefined)),
    extendEnv: false,
    reject: false,
    stdin: "ignore",
  });
  const { exitCode: code, stdout, stderr } = child;
  return { code, stdout, stderr, seconds: (performance.now() - begun) / 1000 };
}

/** The lines of stderr in which the set-up says what it does. */
export const steps = ({ stderr }: Done) =>
  stderr.split("\n").filter((line) => line.startsWith("set-up: "));

/** Check that a command did what it is for, and the second time without a set-up. */
export function works(first: Done, second: Done): void {
  expect(first.code, first.stderr).to.equal(0);
  expect(steps(first), first.stderr).to.not.have.length(0);
  expect({ code: second.code, steps: steps(second) }, second.stderr).to.deep.equal({
    code: 0,
    steps: [],
  });
}

/** The one line in which a failed command names the cause. */
export function complaint({ code, stderr }: Done): string {
  expect(code, stderr).to.be.oneOf([1, 2]);
  const lines = stderr.split("\n").filter((line) => line.startsWith("error: "));
  expect(lines, stderr).to.have.length(1);
  expect(stderr).to.not.match(/^\s+at |Traceback/m);
  return lines[0]!;
}
