/** The lock that set-ups wait for, between real processes. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { LOCK, withLock } from "../../../src/setup/common.mjs";
import { isAlive } from "../../../src/setup/lock.mjs";

/** Until its standard input ends. */
const WAIT =
  'process.stdin.resume(); await new Promise((done) => process.stdin.once("end", done));';
const COMMON = new URL("../../../src/setup/common.mjs", import.meta.url).href;

describe("the lock of a set-up", () => {
  let dir: string;
  let path: string;
  const started: ChildProcess[] = [];
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-lock-"));
    path = join(dir, LOCK);
  });
  afterEach(() => {
    for (const child of started.splice(0)) child.kill("SIGKILL");
    rmSync(dir, { recursive: true, force: true });
  });

  /** A process that does something with the lock; it says "in" when it has it. */
  const holding = async (work: string) => {
    const code = `
      import { withLock } from ${JSON.stringify(COMMON)};
      await withLock(${JSON.stringify(dir)}, () => {}, async (lock) => {
        console.log("in");
        ${work}
      });`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", code], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    started.push(child);
    await once(child.stdout, "data");
    return child;
  };
  const lines: string[] = [];
  beforeEach(() => lines.splice(0));
  const take = () =>
    withLock(
      dir,
      (line) => lines.push(line),
      async () => "done",
    );

  it("is waited for, which is told once, and leaves nothing behind", async () => {
    const holder = await holding(WAIT);
    const taken = take();
    await sleep(500);
    holder.stdin?.end();
    expect(await taken).to.equal("done");
    expect(lines).to.have.length(1);
    expect(lines[0]).to.contain(`process ${holder.pid}`);
    expect(readdirSync(dir)).to.deep.equal([]);
  });

  it("is let go of when the work fails", async () => {
    const failing = withLock(
      dir,
      () => {},
      () => Promise.reject(new Error("no network")),
    );
    expect(await failing.catch((error: Error) => error.message)).to.equal("no network");
    expect(existsSync(path)).to.equal(false);
  });

  it("is taken over from a dead process, and the command that it left is ended", async () => {
    const left = spawn("sleep", ["60"]);
    const killed = once(left, "exit");
    started.push(left);
    const holder = await holding(`await lock.child(${left.pid}); ${WAIT}`);
    while (!readFileSync(path, "utf8").includes("child")) await sleep(20);
    const ended = once(holder, "exit");
    holder.kill("SIGKILL");
    await ended;
    expect(await take()).to.equal("done");
    expect((await killed)[1]).to.equal("SIGKILL");
    expect(lines).to.deep.equal([]);
    expect(readdirSync(dir)).to.deep.equal([]);
  });

  it("is taken by one at a time, over a dead process's", async () => {
    writeFileSync(path, JSON.stringify({ pid: 2 ** 22 + 1, host: hostname() }));
    let inside = 0;
    const outcomes = Array.from({ length: 5 }, () =>
      withLock(
        dir,
        () => {},
        async () => {
          expect(++inside).to.equal(1);
          await sleep(5);
          inside--;
        },
      ),
    );
    await Promise.all(outcomes);
  });

  it("does not come back by a command that is recorded as it is let go of", async () => {
    await withLock(
      dir,
      () => {},
      async (lock) => void lock.child(process.pid),
    );
    await sleep(100);
    expect(readdirSync(dir)).to.deep.equal([]);
  });

  it("is not held by a process that has ended, though its parent has not asked for that yet", async function () {
    if (process.platform !== "linux") this.skip();
    const parent = spawn("sh", ["-c", "sh -c 'echo $$' & exec sleep 60"]); // which never asks
    started.push(parent);
    const [pid] = (await once(parent.stdout, "data")) as [Buffer];
    for (let i = 0; i < 100 && isAlive({ pid: Number(pid) }); i++) await sleep(20);
    expect(existsSync(`/proc/${Number(pid)}`)).to.equal(true);
    expect(isAlive({ pid: Number(pid) })).to.equal(false);
  });
});
