/** The system's Chromium, which a page is opened in. */
import { existsSync } from "node:fs";
import { execa } from "execa";
import type { Context } from "mocha";
import { type Browser, chromium, type Page } from "playwright-core";

const PLACES = [
  process.env.CHROMIUM ?? "",
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

const find = () => PLACES.find((path) => path !== "" && existsSync(path));

let browser: Browser | undefined;

/** Start Chromium. @returns undefined if there is none */
export async function launchChromium(): Promise<Browser | undefined> {
  const executablePath = find();
  if (executablePath === undefined) return undefined;
  const args = ["no-sandbox", "disable-gpu", "disable-background-networking", "disable-sync"];
  args.push("disable-component-update", "no-first-run");
  return chromium.launch({ executablePath, headless: true, args: args.map((arg) => `--${arg}`) });
}

/**
 * Start Chromium, with Debian's package if there is none and this is root of a Debian. Skip the
 * tests if it cannot be had, and say so.
 */
export async function startChromium(test: Context): Promise<Browser> {
  if (find() === undefined && process.getuid?.() === 0 && existsSync("/usr/bin/apt-get")) {
    process.stderr.write("integration: installing Debian's chromium\n");
    const script = "apt-get update -qq && apt-get install -y -qq chromium";
    await execa("bash", ["-c", script], {
      reject: false,
      env: { DEBIAN_FRONTEND: "noninteractive" },
    });
  }
  browser ??= await launchChromium();
  if (browser === undefined) {
    process.stderr.write("integration: without a browser: there is no Chromium, and no apt-get\n");
    test.skip();
  }
  return browser;
}

/** End it. */
export async function stopChromium(): Promise<void> {
  await browser?.close();
  browser = undefined;
}

/** What a page did that it should not do. */
export interface Faults {
  /** Errors of scripts, and refusals by the page's policy. */
  errors: string[];
  /** Requests to anywhere else than this machine. */
  elsewhere: string[];
}

/** Note what a page does wrong. */
export function faultsOf(page: Page): Faults {
  const faults: Faults = { errors: [], elsewhere: [] };
  page.on("pageerror", (error) => faults.errors.push(error.message));
  page.on("console", (message) => {
    const text = message.text();
    // The server may be away for a while, which the browser tells too.
    if (message.type() === "error" && !/ERR_CONNECTION|ERR_INCOMPLETE/.test(text))
      faults.errors.push(text);
  });
  page.on("request", (request) => {
    const { protocol, hostname } = new URL(request.url());
    if (/^https?:$/.test(protocol) && hostname !== "127.0.0.1")
      faults.elsewhere.push(request.url());
  });
  return faults;
}
