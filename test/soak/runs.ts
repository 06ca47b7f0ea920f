/**
 * Runs that something happens to, by the real command line, and whether they end as one that
 * nothing happened to.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import {
  apart,
  complaint,
  type Done,
  epochs,
  essence,
  logged,
  only,
  start,
  until,
  type Where,
} from "../e2e/atlas.js";

/**
 * A predictor of many epochs, by one job, then a short search. That of the first takes a second or
 * two, that of the other five times as long.
 */
const many = (epochs: number, samples: number) => [
  ..."pde --task=discover_cosets --identity=so(2) --candidates=2 --layout=2 --batch_size=4".split(
    " ",
  ),
  ...`--N=${samples} --epochs=${epochs} --fixed-seed --device=cpu --threads=1`.split(" "),
];
export const SHORT_RUN = many(120, 8);
export const LONG_RUN = many(300, 16);

/** How many seconds a run may take to go on. */
const PATIENCE_SECONDS = 180;

/** `atlas worker start`, as it says. */
export interface Background {
  address: string;
  port: number;
  pid: number;
  /** Of JSON lines. */
  log: string;
}

/** A folder with the runs in it, and the worker in the background that is theirs. */
export class Ground {
  private count = 0;
  private readonly begun: ReturnType<typeof start>[] = [];

  private constructor(
    readonly dir: string,
    readonly where: Where,
  ) {}

  /** Give one, and clear it up afterwards. */
  static async lend<T>(use: (ground: Ground) => Promise<T>): Promise<T> {
    const dir = mkdtempSync(join(tmpdir(), "atlas-soak-"));
    const ground = new Ground(dir, { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state") } });
    try {
      return await use(ground);
    } finally {
      await ground.clear();
      rmSync(dir, { recursive: true, force: true });
    }
  }

  /** Start the worker in the background, of one thread. */
  async startWorker(
    flags: readonly string[] = [],
    env: NodeJS.ProcessEnv = {},
  ): Promise<Background> {
    const common = ["--device=cpu", "--threads=1", "--data-root", this.dir, "--log-format=json"];
    const { cwd, env: own } = this.where;
    const { stdout, stderr } = await apart(["worker", "start", ...common, ...flags], {
      cwd,
      env: { ...own, ...env },
    });
    const [, address = "", port, pid, log = ""] =
      /^address +(\S+:(\d+))\nprocess +(\d+)\nlog +(\S+)$/m.exec(stdout) ?? expect.fail(stderr);
    return { address, port: Number(port), pid: Number(pid), log };
  }

  /** Start a worker at the port of one that was killed, which may hold it a moment longer. */
  async restartWorker(port: number): Promise<Background> {
    while (!(await isFree(port))) await sleep(5);
    return this.startWorker([`--port=${port}`]);
  }

  /**
   * End the worker, and what a trial that failed may have left of its runs: one may stand still.
   */
  async clear(): Promise<void> {
    for (const process of this.begun.splice(0)) process.kill("SIGKILL");
    await apart(["worker", "stop"], this.where);
  }

  /** A folder for a run that is not there yet. */
  newRuns(): string {
    return join(this.dir, `runs-${++this.count}`);
  }

  /** Do a run, and let nothing happen to it. @returns its path */
  async undisturbed(args: readonly string[]): Promise<string> {
    const runs = this.newRuns();
    const { code, stderr } = await apart([...args, "--runs", runs], this.where);
    expect(code, stderr.trimEnd().split("\n").at(-1)).to.equal(0);
    return only(runs);
  }

  /** Start a run, and wait until its log shows that it is where it should be. */
  async begin(
    args: readonly string[],
    there: (run: string) => boolean,
    { runs = this.newRuns(), env = {} }: { runs?: string; env?: NodeJS.ProcessEnv } = {},
  ) {
    const { cwd, env: own } = this.where;
    const process = start([...args, "--runs", runs], { cwd, env: { ...own, ...env } });
    this.begun.push(process);
    await process.says(/^run +\S/m);
    const run = only(runs);
    await until(() => there(run), `${args[0]} gets where it should be`);
    return { process, run };
  }
}

/** Whether a port of this machine can be listened on. */
function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer().once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

/** Whether a run's log has an epoch. */
export const did = (epoch: string) => (run: string) => epochs(run).includes(epoch);

export interface GoneOn {
  /** Seconds until it did an epoch that it had not done. */
  backAfter: number;
  /** The commands that were needed. */
  by: string[];
  /** What they wrote to stderr. */
  said: string;
}

/**
 * Do as a run says that has ended, until it ends well.
 *
 * @param since when the fault was over, by `performance.now()`
 * @throws when that does not help; when something it has told of is not in its log
 */
export async function goOn(
  { where }: Ground,
  run: string,
  ended: Pick<Done, "stderr"> & { hint: string },
  since: number,
): Promise<GoneOn> {
  const done = () => new Set(epochs(run)).size;
  const before = done();
  const by: string[] = [];
  let { hint, stderr } = ended;
  let backAfter: number | undefined;
  for (;;) {
    expect(epochs(run)).to.include.members(told(stderr));
    const [, verb] =
      /atlas (attach|resume) \S+/.exec(hint) ?? expect.fail(`no way to go on: ${hint}`);
    expect(by.length, hint).to.be.below(2);
    by.push(verb!);
    let over = false;
    const process = start([verb!, run], where);
    const finished = process.done.finally(() => {
      over = true;
    });
    await until(() => over || done() > before, `atlas ${verb} ${run}`, 1000 * PATIENCE_SECONDS);
    if (done() > before) backAfter ??= (performance.now() - since) / 1000;
    const end = await finished;
    stderr = end.stderr;
    if (end.code === 0)
      return { backAfter: backAfter ?? expect.fail("nothing was left to do"), by, said: stderr };
    hint = complaint(end, 1);
  }
}

/** The epochs that a command has told of. */
function told(stderr: string): string[] {
  return [...stderr.matchAll(/^(\w+) +(\d+)\/\d+ {2}/gm)].map(
    ([, stage, epoch]) => `${stage} ${epoch}`,
  );
}

/**
 * Compare a run with one that nothing happened to. Of every stage but the dataset, which a run
 * makes again when it is resumed:
 *
 * @returns how many epochs had to be computed again
 * @throws when its result is another, an epoch is missing, or one that was acknowledged had other
 * metrics
 */
export function repeated(run: string, undisturbed: string): number {
  expect(essence(run)).to.equal(essence(undisturbed));
  const [done, wanted] = [run, undisturbed].map((path) =>
    logged(path, "epoch")
      .filter(({ stage }) => stage !== "dataset")
      // By name: protobuf sends a map in any order.
      .map(
        ({ stage, epoch, metrics }) =>
          `${stage} ${epoch} ${JSON.stringify(Object.entries(metrics!).sort())}`,
      ),
  ) as [string[], string[]];
  const once = [...new Set(done)];
  expect(once).to.deep.equal(wanted);
  return done.length - once.length;
}

/**
 * The lines of a worker's log that match, with the time at which each was written in milliseconds.
 */
export function said(worker: Background, what: RegExp): { time: number; message: string }[] {
  const lines = readFileSync(worker.log, "utf8").split("\n");
  return lines
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as { time?: string; message?: string })
    .filter(({ time, message }) => time !== undefined && what.test(message ?? ""))
    .map(({ time, message }) => ({ time: Date.parse(time!), message: message! }));
}
