/** What the images are built from. */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { ROOT } from "../../../src/setup/common.mjs";

/** Make the expression of a pattern of .dockerignore. */
function expression(pattern: string): RegExp {
  const parts = pattern.replaceAll(".", "\\.").replaceAll("**/", "\0").replaceAll("*", "[^/]*");
  return new RegExp(`^${parts.replaceAll("\0", "(.*/)?")}$`);
}

/** Whether Docker sends a file to the build: the last line of .dockerignore that fits decides. */
function isSent(path: string): boolean {
  const lines = readFileSync(join(ROOT, ".dockerignore"), "utf8").split("\n").filter(Boolean);
  let sent = true;
  for (const line of lines) {
    const pattern = expression(line.replace(/^!/, ""));
    const parents = path.split("/").map((_, i, parts) => parts.slice(0, i + 1).join("/"));
    if (parents.some((parent) => pattern.test(parent))) sent = line.startsWith("!");
  }
  return sent;
}

describe("the images", () => {
  const tracked = execFileSync("git", ["ls-files"], { cwd: ROOT, encoding: "utf8" }).split("\n");
  const files = readdirSync(join(ROOT, "docker")).filter((name) => name.endsWith("Dockerfile"));
  for (const file of files.map((name) => `docker/${name}`))
    it(`of ${file} copy what is sent to their build`, () => {
      const text = readFileSync(join(ROOT, file), "utf8");
      const sources = [...text.matchAll(/^COPY (?!--)(.*) \S+$/gm)].flatMap((m) =>
        m[1]!.split(" "),
      );
      expect(sources).to.include.members(["proto", "py-worker/atlas_worker"]);
      for (const source of sources) {
        const found = tracked.filter((f) => f === source || f.startsWith(`${source}/`));
        expect(found, source).not.to.have.length(0);
        expect(
          found.filter((f) => !isSent(f)),
          source,
        ).to.deep.equal([]);
      }
    });

  it("do not get what is of this machine", () => {
    for (const path of [
      "node_modules/a.js",
      "runs/r/config.json",
      "py-worker/.venv/bin/python",
      "src/a.ts",
    ])
      expect(isSent(path), path).to.equal(false);
  });
});
