/**
 * A dashboard with 2,000 runs, ten events and ten steps a second: does its memory, or its page's,
 * grow?
 */
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { LiveSteps } from "../../src/run/live.js";
import { residentMiB } from "../bench/load.js";
import { start } from "../e2e/atlas.js";
import { launchChromium } from "../integration/chromium.js";
import { epochLine, makeRun } from "../unit/dashboard/folders.js";
import { planar } from "../unit/report/results.js";

const RUNS = 2000;
const EVENTS_A_SECOND = 10;
/** Memory is looked at so many times. */
const LOOKS = 8;
/** In the second half it may grow by so much; curves and caches fill in the first. */
const [GROWTH_SERVER_MIB, GROWTH_PAGE_MIB] = [48, 8];

/** What was measured. */
export interface Watched {
  events: number;
  seconds: number;
  serverMiB: number[];
  /** The JavaScript heap after a collection; undefined without a browser. */
  pageMiB?: number[];
  faults: string[];
}

/** Let runs grow for some time, with the page of one open, and look at the memory. */
export async function measureDashboard(seconds: number): Promise<Watched> {
  const dir = mkdtempSync(join(tmpdir(), "atlas-watched-"));
  const runs = join(dir, "runs");
  const result = planar();
  const logs = Array.from({ length: RUNS }, (_, i) => {
    const id = `20260101-${String(i).padStart(6, "0")}`;
    return join(
      makeRun(runs, id, { epochs: 200, result: i % 3 ? result : undefined }),
      "events.jsonl",
    );
  });
  // The run that the page shows works in this process, and has steps.
  const watched = join(runs, "20260101-000000");
  writeFileSync(join(watched, "lock"), JSON.stringify({ pid: process.pid, host: hostname() }));
  const live = new LiveSteps(watched);
  const server = start(["dashboard", "--runs", runs, "--port", "0"], {
    cwd: dir,
    env: { XDG_STATE_HOME: dir },
  });
  const browser = await launchChromium();
  try {
    const url = await server.prints(/^dashboard {2}(http:\S+)$/m);
    const page = await browser?.newPage();
    await page?.goto(`${url}&view=run&id=20260101-000000`);
    await page?.locator(".state.live").waitFor({ timeout: 120_000 });
    const session = await page?.context().newCDPSession(page);
    await session?.send("Performance.enable");
    const heap = async () => {
      await session!.send("HeapProfiler.collectGarbage");
      const { metrics } = await session!.send("Performance.getMetrics");
      return metrics.find(({ name }) => name === "JSHeapUsedSize")!.value / 2 ** 20;
    };
    const found: Watched = { events: 0, seconds, serverMiB: [], faults: [] };
    if (page) found.pageMiB = [];
    const begun = performance.now();
    for (let look = 1; look <= LOOKS; look++) {
      while (performance.now() - begun < (look * seconds * 1000) / LOOKS) {
        const epoch = 201 + found.events;
        const log = logs[found.events % 2 ? 0 : found.events % RUNS]!; // half of them on the page
        appendFileSync(log, epochLine(epoch, { totalEpochs: 1e6 }));
        const loss = 1 / (1 + found.events) + 0.1 * Math.random();
        const place = { stage: "predictor", epoch, totalEpochs: 1e6, step: 1, stepsInEpoch: 2 };
        live.step({ ...place, metrics: { loss } });
        found.events++;
        await sleep(1000 / EVENTS_A_SECOND);
      }
      found.serverMiB.push(residentMiB(server.pid));
      if (page) found.pageMiB!.push(await heap());
    }
    const growth = (all: number[]) => all.at(-1)! - Math.max(...all.slice(0, LOOKS / 2));
    if (growth(found.serverMiB) > GROWTH_SERVER_MIB) found.faults.push("the server's memory grows");
    if (found.pageMiB && growth(found.pageMiB) > GROWTH_PAGE_MIB)
      found.faults.push("the page's memory grows");
    if (page) {
      const lines = readFileSync(logs[0]!, "utf8").trimEnd().split("\n");
      const last = (JSON.parse(lines.at(-1)!) as { epoch: number }).epoch;
      await page.getByText(`${last}/`).first().waitFor({ timeout: 10_000 });
    }
    return found;
  } finally {
    await browser?.close();
    server.kill("SIGKILL");
    await server.done;
    await live.end();
    rmSync(dir, { recursive: true, force: true });
  }
}
