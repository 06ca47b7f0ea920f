import { fileURLToPath } from "node:url";
import { expect } from "chai";
import { Command } from "commander";
import { register } from "../../../src/cli/data.js";
import { DATA_SETS } from "../../../src/data/index.js";
import { ProgressBar } from "../../../src/data/progress-bar.js";
import { type AtlasError, FileError, UsageError } from "../../../src/errors.js";
import { rejection } from "../worker/rejection.js";

const refusal = (...args: string[]) => refusalOf("toptagging", ...args);

async function refusalOf(...args: string[]): Promise<string> {
  const error = await failureOf(...args);
  expect(error).to.be.instanceOf(UsageError);
  return `${error.message}; ${error.remedy}`;
}

async function failureOf(...args: string[]): Promise<AtlasError> {
  const program = new Command().exitOverride();
  register(program);
  return (await rejection(program.parseAsync(["data", ...args], { from: "user" }))) as AtlasError;
}

describe("atlas data", () => {
  it("wants one way to come by the data, and a folder to make them in", async () => {
    expect(await refusal()).to.match(/^toptagging: .*; give --generate N or --fetch$/);
    expect(await refusal("--generate", "60", "--fetch", "--out", "x")).to.match(
      /are both given; choose one/,
    );
    expect(await refusal("--generate", "60")).to.match(/^--generate needs a folder .*--out DIR$/);
    expect(await refusalOf("mnist")).to.match(/^mnist: .*; give --fetch$/);
    expect(await refusalOf("climate")).to.match(/^climate: .*; give --generate N or --fetch$/);
  });

  it("refuses numbers that cannot be", async () => {
    for (const n of ["9", "0", "-5", "1.5", "many", "1e9"])
      expect(await refusal("--generate", n, "--out", "x")).to.match(
        /^--generate .*: expected a whole number of at least 10/,
      );
    expect(await refusal("--generate", "60", "--out", "x", "--processes", "0")).to.match(
      /^--processes 0: /,
    );
    expect(await refusal("--generate", "60", "--out", "x", "--seed", "4294967296")).to.match(
      /^--seed /,
    );
  });

  it("refuses what has no meaning for --fetch", async () => {
    for (const flag of ["--seed", "--processes"])
      expect(await refusal("--fetch", flag, "3")).to.match(
        new RegExp(`^${flag} has no effect with --fetch; .*--generate$`),
      );
  });

  it("names the flag of a folder that cannot be used", async () => {
    const file = fileURLToPath(import.meta.url);
    for (const [flag, ...args] of [
      ["--out DIR", "toptagging", "--fetch", "--out", file],
      ["--folder DIR", "cache", "--folder", file],
    ]) {
      const error = await failureOf(...args);
      expect(error).to.be.instanceOf(FileError);
      expect(error.remedy).to.match(new RegExp(`another folder with ${flag}$`));
    }
  });

  it("knows its data sets by names of their own", () => {
    const names = DATA_SETS.map((set) => set.name);
    expect(new Set(names).size).to.equal(names.length);
    for (const { generator } of DATA_SETS)
      if (generator) expect(generator.example).to.be.within(generator.fewest, generator.most);
    for (const { record } of DATA_SETS)
      for (const file of record?.files ?? []) {
        expect(file.md5).to.match(/^[0-9a-f]{32}$/);
        expect(file.bytes).to.be.greaterThan(0);
      }
    for (const { listing } of DATA_SETS)
      for (const { path } of listing?.folders ?? []) expect(path).to.match(/^\/.*\/$/);
  });
});

describe("a progress bar", () => {
  const written = (live: boolean, everyMs: number) => {
    const lines: string[] = [];
    const out = {
      columns: 80,
      write: (text: string) => lines.push(text) > 0,
    } as unknown as NodeJS.WriteStream;
    return { lines, bar: new ProgressBar(String, { out, live, everyMs }) };
  };

  it("writes now and then, and always the end", () => {
    const { lines, bar } = written(false, 1e6);
    for (const n of [0, 1, 2, 3]) bar.show("train.h5", n, 3);
    bar.show("val.h5", 1, 1);
    expect(lines).to.deep.equal(["train.h5  3 of 3\n", "val.h5  1 of 1\n"]);
  });

  it("redraws one line on a terminal", () => {
    const { lines, bar } = written(true, 0);
    for (const n of [0, 1]) bar.show("train.h5", n, 3);
    bar.erase();
    expect(lines).to.deep.equal([
      "train.h5  0 of 3",
      "\r\u001b[2K",
      "train.h5  1 of 3",
      "\r\u001b[2K",
    ]);
  });
});
