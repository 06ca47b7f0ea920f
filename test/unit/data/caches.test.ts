import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { cacheFolder, listCaches, removeCaches } from "../../../src/data/caches.js";

describe("caches", () => {
  const [old, recent] = ["a", "b"].map((c) => `${c.repeat(32)}.arrays`);
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-caches-"));
    mkdirSync(join(dir, "climatenet"));
    const about = {
      dataset: "climatenet",
      files: 2,
      folder: "/data",
      variables: ["TMQ"],
      stride: 4,
      key: "b",
    };
    writeFileSync(join(dir, "climatenet", recent!), `${JSON.stringify(about).padEnd(4095)}\n\0\0`);
    writeFileSync(join(dir, old!), "says nothing");
    utimesSync(join(dir, old!), 1, 1);
    // What is not one stays, whatever its name resembles.
    for (const name of ["notes.txt", "mine.arrays", `${"c".repeat(32)}-${"d".repeat(32)}.partial`])
      writeFileSync(join(dir, name), "");
    mkdirSync(join(dir, `${"e".repeat(32)}.arrays`));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  it("are listed, the oldest first, with what they are of where they say it", async () => {
    const found = await listCaches(dir);
    expect(found.map(({ path, bytes, about }) => ({ path, bytes, about }))).to.deep.equal([
      { path: join(dir, old!), bytes: 12, about: undefined },
      {
        path: join(dir, "climatenet", recent!),
        bytes: 4098,
        about: { dataset: "climatenet", files: 2, folder: "/data" },
      },
    ]);
    expect(await listCaches(join(dir, "none"))).to.deep.equal([]);
  });

  it("are removed, and nothing else is", async () => {
    const before = readdirSync(dir, { recursive: true }).map(String);
    await removeCaches(await listCaches(dir));
    const left = before.filter((name) => ![old, join("climatenet", recent!)].includes(name));
    expect(readdirSync(dir, { recursive: true }).map(String).sort()).to.deep.equal(left.sort());
  });

  it("are where the worker puts them", () => {
    const { XDG_CACHE_HOME } = process.env;
    try {
      process.env.XDG_CACHE_HOME = "/x";
      expect(cacheFolder()).to.equal("/x/atlas-symmetry");
      process.env.XDG_CACHE_HOME = "relative"; // which counts for nothing
      expect(cacheFolder()).to.match(/\/\.cache\/atlas-symmetry$/);
    } finally {
      if (XDG_CACHE_HOME === undefined) delete process.env.XDG_CACHE_HOME;
      else process.env.XDG_CACHE_HOME = XDG_CACHE_HOME;
    }
  });
});
