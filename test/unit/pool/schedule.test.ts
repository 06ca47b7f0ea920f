import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { AtlasError, WorkerDied, WorkerUnavailable } from "../../../src/errors.js";
import type { Pool, Slot } from "../../../src/pool/pool.js";
import { schedule } from "../../../src/pool/schedule.js";

/** A pool of slots without workers. It tells how many are out, and how many were given. */
class Simulated implements Pool {
  readonly name = "simulated";
  readonly place = "spawned";
  out = 0;
  given = 0;
  constructor(
    readonly size: number,
    private readonly most = Number.POSITIVE_INFINITY,
  ) {}

  async acquire(): Promise<Slot> {
    await sleep(1);
    if (this.given >= this.most) throw new WorkerUnavailable("there is no room");
    this.out++;
    expect(this.out).to.be.at.most(this.size);
    const name = String(++this.given);
    return { name, about: "", release: async () => void this.out-- };
  }

  async close(): Promise<void> {}
}

const never = new AbortController().signal;
const range = (n: number) => Array.from({ length: n }, (_, index) => index);

describe("schedule", () => {
  it("does each run once, no more at a time than there are slots", async () => {
    const pool = new Simulated(4);
    const done: number[] = [];
    let now = 0;
    let most = 0;
    await schedule(range(50), {
      ...{ pool, signal: never },
      async work(item) {
        most = Math.max(most, ++now);
        await sleep(1);
        now--;
        done.push(item);
      },
    });
    expect(done.sort((a, b) => a - b)).to.deep.equal(range(50));
    expect([most, pool.given, pool.out]).to.deep.equal([4, 4, 0]);
  });

  it("asks for no more slots than there are runs", async () => {
    const pool = new Simulated(64);
    await schedule(range(3), { pool, signal: never, work: () => sleep(5) });
    expect(pool.given).to.equal(3);
  });

  it("goes on after failures, tries again as often as asked, and tells all", async () => {
    const attempts = new Map<number, number>();
    const failed: number[] = [];
    const result = await schedule(range(6), {
      ...{ pool: new Simulated(2), signal: never, retries: 1 },
      async work(item) {
        const attempt = (attempts.get(item) ?? 0) + 1;
        attempts.set(item, attempt);
        if (item === 1 || (item === 3 && attempt === 1)) throw new AtlasError("no");
      },
      onFailed: (item) => failed.push(item),
    });
    expect([...result.keys()]).to.deep.equal([1]);
    expect(failed).to.deep.equal([1]);
    expect(range(6).map((item) => attempts.get(item))).to.deep.equal([1, 2, 1, 2, 1, 1]);
  });

  it("stops at the first failure if asked", async () => {
    const begun: number[] = [];
    await schedule(range(20), {
      ...{ pool: new Simulated(2), signal: never, failFast: true },
      async work(item, _, signal) {
        begun.push(item);
        if (item === 0) throw new AtlasError("no");
        await sleep(10_000, undefined, { signal });
      },
    });
    expect(begun.sort()).to.deep.equal([0, 1]);
  });

  it("replaces a slot whose worker died, and gives a run up that kills three", async () => {
    const pool = new Simulated(2);
    const lost: number[] = [];
    const failed = await schedule(range(5), {
      ...{ pool, signal: never },
      async work(item) {
        if (item === 2) throw new WorkerDied("killed", "");
      },
      onLost: (_, item) => lost.push(item),
    });
    expect([...failed.keys()]).to.deep.equal([2]);
    expect(lost).to.deep.equal([2, 2]);
    expect(pool.out).to.equal(0);
    expect(pool.given).to.be.at.least(4);
  });

  it("goes on with fewer slots, and fails if there is none", async () => {
    const fewer: string[] = [];
    const done: number[] = [];
    const work = async (item: number) => {
      await sleep(2);
      done.push(item);
    };
    await schedule(range(6), {
      ...{ pool: new Simulated(3, 1), signal: never, work },
      onFewer: (error) => fewer.push(error.message),
    });
    expect(done).to.have.length(6);
    expect(fewer).to.have.length(2);
    let thrown: unknown;
    await schedule(range(6), { pool: new Simulated(3, 0), signal: never, work }).catch(
      (error: unknown) => {
        thrown = error;
      },
    );
    expect(thrown).to.be.instanceOf(WorkerUnavailable);
  });

  it("gives all slots back when it is aborted", async () => {
    const pool = new Simulated(3);
    const controller = new AbortController();
    const running = schedule(range(9), {
      ...{ pool, signal: controller.signal },
      work: (_, __, signal) => sleep(10_000, undefined, { signal }),
    });
    await sleep(20);
    controller.abort();
    expect((await running).size).to.equal(0);
    expect(pool.out).to.equal(0);
  });
});
