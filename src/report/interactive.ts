/** The scripts of a report: hover and zoom for curves, and buttons that copy matrices. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { ROOT } from "../setup/common.mjs";
import { Html } from "./html.js";

/** The scripts and styles that a page of reports has beside its own style. */
interface Parts {
  /** Elements for the page's head: its policy, and a style sheet. */
  head: Html;
  /** Elements for the end of the page's body. */
  scripts: Html;
}

let parts: Parts | undefined;

/**
 * Get the scripts of a report. The policy lets these run, and nothing else: not what a text of a
 * run might bring, and nothing from the network.
 */
export function interactiveParts(): Parts {
  parts ??= makeParts();
  return parts;
}

function makeParts(): Parts {
  const uplot = (name: string) =>
    readFileSync(createRequire(import.meta.url).resolve(`uplot/dist/${name}`), "utf8").trim();
  const own = readFileSync(join(ROOT, "src/report/page/report.mjs"), "utf8");
  const scripts = [uplot("uPlot.iife.min.js"), `{${own}}`];
  const hashes = scripts.map((text) => createHash("sha256").update(text).digest("base64"));
  const policy = [
    "default-src 'none'",
    "img-src data:",
    "style-src 'unsafe-inline'",
    `script-src ${hashes.map((hash) => `'sha256-${hash}'`).join(" ")}`,
    "base-uri 'none'",
    "form-action 'none'",
  ].join("; ");
  return {
    head: new Html(
      `<meta http-equiv="Content-Security-Policy" content="${policy}">` +
        `<style>${uplot("uPlot.min.css")}</style>`,
    ),
    scripts: new Html(scripts.map((text) => `<script>${text}</script>`).join("\n")),
  };
}
