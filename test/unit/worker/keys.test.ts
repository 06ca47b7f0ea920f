/** Keys on disk: all of one set, whenever their writer is killed. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { KEY_FILES, type Keys, writeKeys } from "../../../src/worker/keys.js";

const TSX = import.meta.resolve("tsx");
const KEYS = new URL("../../../src/worker/keys.ts", import.meta.url).href;
const KILLS = 8;

describe("replacing keys", function () {
  this.timeout(120_000); // it starts a process for each kill
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-keys-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  /** What the files of a folder hold: one text for all that are of one set. */
  const sets = (folder: string) => {
    const names = readdirSync(folder);
    expect(names).to.have.members(Object.values(KEY_FILES));
    return [...new Set(names.map((name) => readFileSync(join(folder, name), "utf8")))];
  };

  it("leaves no mix of old and new when it is killed", async () => {
    const folder = join(dir, "keys");
    const code = `
      const { KEY_FILES, writeKeys } = await import(${JSON.stringify(KEYS)});
      for (let i = 0; ; i++) {
        const keys = Object.fromEntries(Object.keys(KEY_FILES).map((what) => [what, String(process.pid) + "/" + i]));
        await writeKeys(${JSON.stringify(folder)}, keys, { force: true });
        if (i === 0) console.log("written");
      }`;
    for (let kill = 0; kill < KILLS; kill++) {
      const options = ["--import", TSX, "--input-type=module", "-e", code];
      const child = spawn(process.execPath, options, { stdio: ["ignore", "pipe", "inherit"] });
      await once(createInterface({ input: child.stdout }), "line");
      await sleep(3 + 7 * kill);
      child.kill("SIGKILL");
      await once(child, "exit");
      // Between its two renames there is none in place, but the former one beside it.
      const old = readdirSync(dir).find((name) => name.endsWith(".old") && !existsSync(folder));
      expect(sets(old === undefined ? folder : join(dir, old))).to.have.length(1);
      // What is left of a former set may be half removed.
      for (const name of readdirSync(dir))
        if (name !== "keys") rmSync(join(dir, name), { recursive: true });
    }
  });

  it("leaves an empty folder and a link what they are", async () => {
    const [folder, link] = [join(dir, "real"), join(dir, "link")];
    mkdirSync(folder, { mode: 0o755 });
    const { ino } = statSync(folder);
    const keys = (text: string) =>
      Object.fromEntries(Object.keys(KEY_FILES).map((what) => [what, text])) as unknown as Keys;
    await writeKeys(folder, keys("first"));
    expect(statSync(folder).ino).to.equal(ino);
    expect(statSync(folder).mode & 0o777).to.equal(0o700);
    expect(sets(folder)).to.deep.equal(["first"]);
    symlinkSync(folder, link);
    await writeKeys(link, keys("second"), { force: true });
    expect(sets(folder)).to.deep.equal(["second"]);
    expect(readlinkSync(link)).to.equal(folder);
  });
});
