/** Watching a folder of runs. */
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { Feed } from "../../../src/dashboard/feed.js";
import { epochLine, makeRun } from "./folders.js";

describe("the feed of a folder of runs", () => {
  let runs: string;
  let feed: Feed;
  let told: string[];
  let stepped: string[];
  let stop: () => void;

  beforeEach(async () => {
    runs = mkdtempSync(join(tmpdir(), "atlas-feed-"));
    makeRun(runs, "20260101-a", { epochs: 2 });
    feed = new Feed(runs);
    await feed.refresh();
    told = [];
    stepped = [];
    stop = feed.watch((changed, _, steps) => {
      told.push(...changed);
      stepped.push(...steps);
    });
  });
  afterEach(() => {
    stop();
    rmSync(runs, { recursive: true, force: true });
  });

  const tells = async (id: string) => {
    while (!told.includes(id)) await sleep(20);
  };

  it("tells of a change that a request saw first", async () => {
    appendFileSync(join(runs, "20260101-a", "events.jsonl"), epochLine(3));
    expect((await feed.summary("20260101-a"))!.at).to.be.above(0);
    await tells("20260101-a");
  });

  it("tells of a new run that a request saw first", async () => {
    makeRun(runs, "20260101-b", { epochs: 1 });
    await feed.summary("20260101-b");
    await tells("20260101-b");
  });

  it("tells of new steps of a run that works, and of no other's", async () => {
    const working = makeRun(runs, "20260101-b", { epochs: 1 });
    writeFileSync(join(working, "lock"), JSON.stringify({ pid: process.pid, host: hostname() }));
    await tells("20260101-b");
    told.length = 0;
    writeFileSync(join(runs, "20260101-a", "live.json"), "of a process that was killed");
    for (const contents of ["1", "22"]) {
      stepped.length = 0;
      writeFileSync(join(working, "live.json"), contents);
      while (stepped.length === 0) await sleep(20);
      expect(stepped).to.deep.equal(["20260101-b"]);
    }
    await sleep(700); // two looks
    expect(stepped).to.deep.equal(["20260101-b"]);
    expect(told).to.deep.equal([]); // steps are no events
  });

  it("does not tell of a run that stays as it is", async () => {
    await feed.refresh();
    await feed.summary("20260101-a");
    await sleep(700); // two looks
    expect(told).to.deep.equal([]);
  });
});
