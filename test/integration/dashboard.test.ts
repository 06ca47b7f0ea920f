/** The dashboard in a real browser. */
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import type { Browser, BrowserContext, Page } from "playwright-core";
import type { EpochRecord, RunEvent } from "../../src/run/events.js";
import { LiveSteps } from "../../src/run/live.js";
import { LONG, start } from "../e2e/atlas.js";
import { epochLine, makeRun } from "../unit/dashboard/folders.js";
import { equivariant, lorentz, nothing, planar, rotations } from "../unit/report/results.js";
import { type Faults, faultsOf, startChromium, stopChromium } from "./chromium.js";

const HOSTILE = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;

/** Roles of the accessibility tree that say nothing to a screen reader without a name. */
const NAMED = "button link searchbox combobox checkbox img image progressbar region heading Iframe";

/** What a screen reader finds: parts without a name, and the level of the first heading. */
async function spoken(page: Page): Promise<{ nameless: string[]; first: number | undefined }> {
  const session = await page.context().newCDPSession(page);
  const { nodes } = await session.send("Accessibility.getFullAXTree");
  const heard = nodes.filter(({ ignored }) => !ignored);
  const nameless = heard.flatMap(({ role, name }) => {
    const wanted = NAMED.split(" ").includes(String(role?.value));
    return wanted && !String(name?.value ?? "").trim() ? [String(role?.value)] : [];
  });
  const heading = heard.find(({ role }) => role?.value === "heading");
  const level = heading?.properties?.find(({ name }) => name === "level");
  await session.detach();
  return { nameless, first: level?.value.value as number | undefined };
}

describe("the dashboard in Chromium", function () {
  this.timeout(LONG);
  let dir: string;
  let env: NodeJS.ProcessEnv;
  let browser: Browser;
  let context: BrowserContext;
  let page: Page;
  let faults: Faults;

  before(async function () {
    browser = await startChromium(this);
    dir = mkdtempSync(join(tmpdir(), "atlas-browser-"));
    env = { XDG_STATE_HOME: join(dir, "state") };
  });
  after(async () => {
    await stopChromium();
    if (dir) rmSync(dir, { recursive: true, force: true });
  });
  beforeEach(() => open());
  afterEach(async () => {
    await context.close();
    expect(faults).to.deep.equal({ errors: [], elsewhere: [] });
  });

  async function open(options: Parameters<Browser["newContext"]>[0] = {}): Promise<void> {
    context = await browser.newContext({ viewport: { width: 1400, height: 900 }, ...options });
    page = await context.newPage();
    faults = faultsOf(page);
  }

  async function serve(runs: string, port = 0) {
    const args = ["dashboard", "--runs", runs, "--port", String(port)];
    const child = start(args, { cwd: dir, env });
    return { ...child, url: await child.prints(/^dashboard {2}(http:\S+)$/m) };
  }

  const eventsOf = (folder: string) =>
    readFileSync(join(folder, "events.jsonl"), "utf8")
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as RunEvent);
  const isEpoch = (event: RunEvent): event is EpochRecord => event.type === "epoch";

  it("shows a run of another process from its start to its result, without a reload", async () => {
    const runs = join(dir, "live");
    const { url, kill, done } = await serve(runs);
    await page.goto(url);
    await page.getByText("none yet").waitFor();
    await page.evaluate(() => Reflect.set(globalThis, "stayed", true));
    const search = "--solver.starts 1 --solver.steps 40 --solver.evaluation 2 --k 1";
    const run = start(
      `pde --task discover_algebra --N 200 --epochs 6 --algebra-epochs 4 --seed 3 ${search} --runs ${runs}`.split(
        " ",
      ),
      { cwd: dir, env },
    );
    await page.locator(".runs tbody a").first().click({ timeout: LONG });
    const heading = page.locator(".run-head h1");
    await heading.getByText("running").waitFor();
    const values = page.locator('figure[aria-label="predictor: loss"] [data-value]');
    const grown = new Set<number>();
    while (grown.size < 3) {
      grown.add(Number(await values.getAttribute("data-value", { timeout: LONG })));
      await page.waitForTimeout(50);
    }
    await heading.getByText("finished").waitFor({ timeout: LONG });
    expect((await run.done).code).to.equal(0);
    await page.getByRole("heading", { name: "Lie algebra" }).waitFor();
    expect(await page.evaluate(() => Reflect.get(globalThis, "stayed"))).to.equal(true);

    const folder = join(runs, readdirSync(runs)[0]!);
    const result = JSON.parse(readFileSync(join(folder, "result.json"), "utf8"));
    const epochs = eventsOf(folder).filter(isEpoch);
    const losses = epochs.filter((e) => e.stage === "predictor").map((e) => e.metrics.loss!);
    for (const value of grown) expect(losses).to.include(value);
    const numbers = await page
      .locator("dl.metrics dd")
      .evaluateAll((all) =>
        all.map((dd) => [dd.previousElementSibling?.textContent, dd.getAttribute("data-value")]),
      );
    expect(Object.fromEntries(numbers)).to.deep.include({
      "predictor loss": String(result.predictor.loss),
      angle: String(result.algebra.identified.angleDegrees),
    });
    for (const done of ["6/6", "4/4"]) await page.getByText(`${done} · `).first().waitFor();
    const log = await page.locator(".log li.epoch").allTextContents();
    expect(log).to.have.length(epochs.length);
    kill("SIGINT");
    await done;
  });

  it("draws the steps of a stage until it ends", async () => {
    const runs = join(dir, "steps");
    const folder = makeRun(runs, "20260101-a");
    const lock = { pid: process.pid, host: hostname() };
    writeFileSync(join(folder, "lock"), JSON.stringify(lock));
    const live = new LiveSteps(folder, 50);
    const { url, kill, done } = await serve(runs);
    await page.goto(`${url}&view=run&id=20260101-a`);
    await page.locator(".state.live").waitFor();
    const place = { stage: "predictor", totalEpochs: 2, stepsInEpoch: 1000 };
    const steps = (epoch: number, until: number) => {
      for (let step = 1; step <= until; step++)
        live.step({ ...place, epoch, step, metrics: { loss: 1 / (step + 1000 * epoch) } });
    };
    const figure = page.getByRole("figure", { name: "predictor: loss" });
    const [newest, epochs] = [figure.locator("[data-step]"), figure.locator("[data-value]")];
    steps(0, 500);
    await page.getByText("0/2 · step 500 of 1000").waitFor();
    expect(await newest.getAttribute("data-step")).to.equal(String(1 / 500));
    expect(await epochs.count()).to.equal(0);
    const words = await figure.getByRole("img").getAttribute("aria-label");
    expect(words).to.contain("from 1 at epoch 0.001").and.contain("largest 1 at epoch 0.001");
    const log = join(folder, "events.jsonl");
    const finish = (epoch: number) => {
      appendFileSync(log, epochLine(epoch, { totalEpochs: 2 }));
      live.epoch({ ...place, epoch });
    };
    finish(1);
    steps(1, 500);
    await page.getByText("1/2 · step 500 of 1000").waitFor();
    expect(await newest.count()).to.equal(1);
    finish(2);
    await newest.waitFor({ state: "detached" });
    expect(Number(await epochs.getAttribute("data-value"))).to.equal(2 / 3 + 0.01 * Math.sin(14));
    await live.end();
    kill("SIGINT");
    await done;
  });

  it("has no gap and no duplicate after kill -9", async () => {
    const runs = join(dir, "killed");
    const folder = makeRun(runs, "20260101-a", { epochs: 2 });
    const log = join(folder, "events.jsonl");
    const first = await serve(runs);
    await page.goto(first.url);
    await page.locator(".runs tbody a").click();
    const items = page.locator(".log li.epoch");
    const count = async (n: number) => {
      await items.nth(n - 1).waitFor({ timeout: LONG, state: "attached" });
    };
    await count(2);
    for (let round = 0; round < 3; round++) {
      const port = Number(new URL(first.url).port);
      const server = round === 0 ? first : await serve(runs, port);
      await page.locator(".state.live").waitFor({ timeout: LONG });
      const from = 10 * round + 2;
      for (let e = 1; e <= 5; e++) appendFileSync(log, epochLine(from + e));
      await count(from + 5);
      server.kill("SIGKILL");
      await server.done;
      await page.locator(".state.lost").waitFor({ timeout: LONG });
      for (let e = 6; e <= 10; e++) appendFileSync(log, epochLine(from + e));
    }
    const last = await serve(runs, Number(new URL(first.url).port));
    await count(32);
    const shown = await items.evaluateAll((all) => all.map((li) => li.textContent ?? ""));
    const epochs = shown.map((text) => Number(/predictor (\d+)\//.exec(text)?.[1]));
    expect(epochs).to.deep.equal(Array.from({ length: 32 }, (_, i) => i + 1));
    last.kill("SIGINT");
    await last.done;
  });

  it("stays fluent with 2,000 runs", async () => {
    const [many, none] = [join(dir, "many"), join(dir, "none")];
    const results = [planar(), lorentz(), nothing()];
    for (let i = 0; i < 2000; i++)
      makeRun(many, `20260101-${String(i).padStart(6, "0")}`, {
        epochs: 200,
        seed: i,
        result: results[i % 4],
      });
    const first = async (url: string, what: string) => {
      const times: number[] = [];
      for (let i = 0; i < 3; i++) {
        await page.goto("about:blank");
        const begun = performance.now();
        await page.goto(url);
        await page.locator(what).first().waitFor();
        times.push(performance.now() - begun);
      }
      return Math.min(...times);
    };
    const [empty, full] = [await serve(none), await serve(many)];
    const without = await first(empty.url, ".count");
    const withRuns = await first(full.url, ".runs tr[data-id]");
    process.stdout.write(
      `      first page: ${withRuns.toFixed(0)} ms; empty: ${without.toFixed(0)} ms\n`,
    );
    expect(withRuns).to.be.below(1000 + 3 * without); // a busy machine is slow with both
    await page.getByText(/^2000 runs/).waitFor({ timeout: LONG });
    expect(await page.locator(".runs tr[data-id]").count()).to.be.below(80);
    await page.evaluate("scrollTo(0, document.body.scrollHeight)");
    await page.getByRole("link", { name: "20260101-000000" }).waitFor();
    await page.getByRole("searchbox").first().fill("so(1,3) 000013");
    await page.getByRole("link", { name: "20260101-000013" }).waitFor();
    await page.getByRole("searchbox").first().fill("");
    await page.getByRole("button", { name: "Seed" }).click();
    await page.getByRole("link", { name: "20260101-000000" }).waitFor();
    for (const server of [empty, full]) {
      server.kill("SIGINT");
      await server.done;
    }
  });

  it("shows a stranger's folder as text", async () => {
    const runs = join(dir, "strange");
    const result = planar();
    result.notes = [HOSTILE];
    result.algebra!.explanation = HOSTILE;
    const folder = makeRun(runs, "20260101-<b>x<b>", {
      experiment: HOSTILE,
      config: { [HOSTILE]: HOSTILE, long: "x".repeat(900_000) },
      tags: [HOSTILE, "javascript:alert(1)"],
      epochs: 3,
      stage: HOSTILE,
      result,
    });
    const warning = { type: "warning", time: HOSTILE, message: HOSTILE };
    appendFileSync(join(folder, "events.jsonl"), `${JSON.stringify(warning)}\n`);
    writeFileSync(join(folder, "report.html"), `<h1>report</h1>${HOSTILE}`);
    makeRun(runs, "20260102-b", { epochs: 3, result: planar() });
    const working = makeRun(runs, "20260103-c");
    writeFileSync(join(working, "lock"), JSON.stringify({ pid: process.pid, host: hostname() }));
    const live = new LiveSteps(working, 1);
    for (const step of [1, 2, 3]) {
      const place = { stage: HOSTILE, epoch: 0, totalEpochs: 1, step, stepsInEpoch: 9 };
      live.step({ ...place, metrics: { [HOSTILE]: step } });
    }
    const { url, kill, done } = await serve(runs);
    page.on("dialog", (dialog) => faults.errors.push(dialog.message()));
    const safe = async () => {
      expect(await page.title()).to.not.equal("owned");
      expect(await page.locator('img[src="x"]').count()).to.equal(0);
      expect(await page.locator("main script").count()).to.equal(0);
    };
    await page.goto(url);
    await page.locator(".runs tr[data-id]").first().waitFor();
    await safe();
    for (const box of await page.locator(".runs input").all()) await box.check();
    await page.getByRole("link", { name: "20260101-<b>x<b>" }).click();
    await page.getByRole("heading", { name: "Notes" }).waitFor();
    await page.getByText("Report", { exact: true }).click();
    await page.frameLocator("iframe").getByText("report").waitFor();
    expect(await page.frameLocator("iframe").locator("html").count()).to.equal(1);
    await safe();
    await page.goBack();
    await page.getByRole("link", { name: "Compare 3 runs" }).click();
    await page.getByRole("heading", { name: "Algebras" }).waitFor();
    await safe();
    await page.goto(`${url}&view=run&id=20260103-c`);
    await page.getByText("0/1 · step 3 of 9").waitFor();
    await page.locator(".u-legend").waitFor();
    await safe();
    await live.end();
    // The frame's own policy stops its script and its picture, and the browser tells.
    faults.errors = faults.errors.filter((text) => !/sandboxed|violates|blocked/i.test(text));
    kill("SIGINT");
    await done;
  });

  it("can be read in light and dark, wide and narrow, and with a keyboard", async () => {
    const runs = join(dir, "views");
    const all = [planar, lorentz, nothing, equivariant, rotations];
    all.forEach((make, i) => {
      makeRun(runs, `20260101-00000${i}`, { epochs: 30, result: make(), tags: ["paper"] });
    });
    makeRun(runs, "20260101-000009", { epochs: 3 });
    mkdirSync(join(runs, "sweeps/20260101-s"), { recursive: true });
    const planned = { cells: [{ values: { N: 1 } }], runs: [{ id: "20260101-000000", cell: 0 }] };
    writeFileSync(join(runs, "sweeps/20260101-s/sweep.json"), JSON.stringify(planned));
    const { url, kill, done } = await serve(runs);
    const ids = all.map((_, i) => `id=20260101-00000${i}`);
    const views = ["", ...ids.map((id) => `&view=run&${id}`), "&view=run&id=20260101-000009"];
    views.push(`&view=compare&${ids.slice(0, 3).join("&")}`, "&view=sweep&id=20260101-s");
    for (const width of [400, 1400])
      for (const colorScheme of ["light", "dark"] as const) {
        await context.close();
        await open({ viewport: { width, height: 900 }, colorScheme });
        for (const view of views) {
          await page.goto("about:blank");
          await page.goto(url + view);
          await page.locator(".runs tr[data-id], section").first().waitFor();
          await page.locator(".state.live").waitFor();
          const about = await page.evaluate(`({
            wide: document.documentElement.scrollWidth - innerWidth,
            small: [...document.querySelectorAll("svg text")]
              .filter((text) => text.checkVisibility() && text.getBoundingClientRect().height < 9)
              .map((text) => text.textContent),
          })`);
          expect(about, `${width} ${view}`).to.deep.equal({ wide: 0, small: [] });
          expect(await spoken(page), `${width} ${view}`).to.deep.equal({ nameless: [], first: 1 });
        }
      }
    await context.close();
    await open();
    await page.goto(url);
    await page.locator(".runs tr[data-id]").first().waitFor();
    for (const key of ["j", "x", "j", "j", "x", "c"]) await page.keyboard.press(key);
    await page.getByRole("heading", { name: "Comparison of 2 runs" }).waitFor();
    expect(await page.evaluate("document.activeElement.id")).to.equal("main");
    await page.keyboard.press("Escape");
    await page.locator(".runs tr[data-id]").first().waitFor();
    await page.keyboard.press("/");
    await page.keyboard.type("000001");
    await page.keyboard.press("Escape");
    await page.keyboard.press("j");
    await page.keyboard.press("Enter");
    await page.getByText("so(1,3)⊕R; identity, parity").waitFor();
    await page.keyboard.press("?");
    await page.getByRole("dialog").waitFor();
    kill("SIGINT");
    await done;
  });

  it("refuses an address without the token", async () => {
    const { url, kill, done } = await serve(join(dir, "views"));
    await page.goto(url.replace(/token=.*/, "token=wrong"));
    await page.getByText("no valid token").waitFor();
    expect(await page.locator(".runs tr[data-id]").count()).to.equal(0);
    faults.errors = faults.errors.filter((text) => !text.includes("401"));
    kill("SIGINT");
    await done;
  });
});
