/** Reports in a real browser: with scripts, without them, and on paper. */
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect } from "chai";
import type { Browser, Page } from "playwright-core";
import { renderFragment, renderReport } from "../../src/report/index.js";
import type { RunEvent } from "../../src/run/events.js";
import { LONG } from "../e2e/atlas.js";
import { CONFIG, lorentz, planar } from "../unit/report/results.js";
import { faultsOf, startChromium, stopChromium } from "./chromium.js";

const EVENTS: RunEvent[] = Array.from({ length: 20 }, (_, i) => ({
  type: "epoch",
  time: "",
  stage: "predictor",
  epoch: i + 1,
  totalEpochs: 20,
  metrics: { loss: 1 / (i + 1) },
  seconds: 1,
}));

describe("a report in Chromium", function () {
  this.timeout(LONG);
  let dir: string;
  let browser: Browser;
  let file: string;

  before(async function () {
    browser = await startChromium(this);
    dir = mkdtempSync(join(tmpdir(), "atlas-report-"));
    file = join(dir, "report.html");
    writeFileSync(file, renderReport({ result: lorentz(), config: CONFIG, events: EVENTS }));
  });
  after(async () => {
    await stopChromium();
    if (dir) rmSync(dir, { recursive: true, force: true });
  });

  async function open(path: string, javaScriptEnabled: boolean): Promise<Page> {
    const context = await browser.newContext({ javaScriptEnabled });
    const page = await context.newPage();
    await page.goto(pathToFileURL(path).href);
    return page;
  }

  it("has curves with hover and zoom, and matrices to copy", async () => {
    const page = await open(file, true);
    const faults = faultsOf(page);
    await page.reload();
    const plot = page.locator(".u-over");
    await plot.scrollIntoViewIfNeeded();
    const box = (await plot.boundingBox())!;
    const legend = page.locator(".u-series .u-value").nth(1);
    await page.mouse.move(box.x + 1, box.y + 20);
    await page.mouse.move(box.x + box.width - 1, box.y + 20);
    expect(Number(await legend.textContent())).to.equal(0.05);
    await page.mouse.move(box.x + box.width / 2, box.y + 20);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width - 2, box.y + 20, { steps: 5 });
    await page.mouse.up();
    await page.mouse.move(box.x + 1, box.y + 20);
    expect(Number(await legend.textContent())).to.be.below(0.12); // the first half is cut off
    expect(await page.locator("figure.live svg").isVisible()).to.equal(false);
    await page.getByText("Matrices").click();
    await page.getByRole("button", { name: "Copy B1" }).click();
    await page.getByText(/^(copied|selected)$/).waitFor();
    expect(faults).to.deep.equal({ errors: [], elsewhere: [] });
    await page.context().close();
  });

  it("moves a sample with a slider, and shows three frames without scripts", async () => {
    const moving = join(dir, "moving.html");
    const direction = [
      [0, -Math.SQRT1_2],
      [Math.SQRT1_2, 0],
    ];
    const frames = [0, 1, 2].map((t): [number, number][] => [[Math.cos(t), Math.sin(t)]]);
    const lengths = Array.from({ length: 13 }, (_, i) => (i - 6) / 6);
    const panel = { kind: "vectors" as const, caption: "moved sample", axes: [0, 1] as const };
    const motion = {
      ...{ name: "B1", doubt: undefined, direction, lengths, apart: [] },
      panels: [{ ...panel, frames: lengths.map((_, i) => frames[i % 3]!) }],
    };
    writeFileSync(moving, renderReport({ result: planar(), config: CONFIG, motions: [motion] }));
    const page = await open(moving, true);
    const faults = faultsOf(page);
    await page.reload();
    const shown = page.locator(".motion .frame:visible");
    expect(await shown.count()).to.equal(1);
    const slider = page.getByRole("slider", { name: "How far B1 moves the sample" });
    const before = await shown.innerHTML();
    await slider.focus();
    await page.keyboard.press("ArrowRight");
    expect(await shown.innerHTML()).not.to.equal(before);
    expect(await page.locator(".motion output").textContent()).to.equal("6.8°");
    await page.emulateMedia({ media: "print" });
    expect(await shown.count()).to.equal(3);
    expect(await slider.isVisible()).to.equal(false);
    expect(faults).to.deep.equal({ errors: [], elsewhere: [] });
    await page.context().close();
    const still = await open(moving, false);
    expect(await still.locator(".motion .frame:visible").count()).to.equal(3);
    await still.context().close();
  });

  it("can be read without scripts, and on paper", async () => {
    const still = await open(file, false);
    for (const name of ["Lie algebra", "Components", "Training", "Settings"])
      expect(await still.getByRole("heading", { name }).isVisible(), name).to.equal(true);
    expect(await still.locator("figure[data-curve] svg").isVisible()).to.equal(true);
    await still.getByText("Matrices").click();
    expect(await still.getByRole("table", { name: "B1", exact: true }).isVisible()).to.equal(true);
    await still.context().close();
    for (const scripts of [true, false]) {
      const page = await open(file, scripts);
      await page.emulateMedia({ media: "print" });
      expect(await page.locator("figure[data-curve] svg").isVisible()).to.equal(true);
      expect(await page.locator("canvas").count()).to.equal(scripts ? 1 : 0);
      if (scripts) expect(await page.locator("canvas").isVisible()).to.equal(false);
      const cells = page.locator("table.matrix td");
      expect(await cells.first().evaluate((td) => td.checkVisibility())).to.equal(true);
      await page.pdf({ path: join(dir, "report.pdf"), format: "A4" });
      expect(statSync(join(dir, "report.pdf")).size).to.be.above(20_000);
      await page.context().close();
    }
  });

  it("can be a fragment in a page that has a style of its own", async () => {
    const path = join(dir, "page.html");
    const own = "<style>body { margin: 50px; } section { border: 9px solid red; }</style>";
    writeFileSync(
      path,
      `<!doctype html><meta charset="utf-8">${own}<section id="own">x</section>${renderFragment(planar())}`,
    );
    const page = await open(path, true);
    const border = (what: string) =>
      page.locator(what).evaluate((e) => {
        const { getComputedStyle } = globalThis as unknown as {
          getComputedStyle(e: unknown): { borderTopWidth: string };
        };
        return getComputedStyle(e).borderTopWidth;
      });
    expect(await border("#own")).to.equal("9px");
    expect(await border(".atlas-result section >> nth=0")).to.equal("1px");
    await page.context().close();
  });
});
