import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { describeCheckpoint } from "../../../src/cli/checkpoint.js";
import { FileError, UsageError } from "../../../src/errors.js";
import {
  convertCheckpoint,
  convertCheckpointFile,
  inspectCheckpoint,
} from "../../../src/interop/index.js";

/** What a promise is rejected with. */
async function rejection(promise: Promise<unknown>): Promise<Error> {
  return promise.then(
    () => expect.fail("expected a rejection"),
    (error: Error) => error,
  );
}

describe("checkpoint files, before any Python is started", () => {
  let dir: string;
  let file: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-interop-"));
    file = join(dir, "model.pt");
    writeFileSync(file, "x");
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  it("refuses a file that is not there, and a folder", async () => {
    for (const read of [inspectCheckpoint, convertCheckpoint]) {
      const missing = await rejection(read(join(dir, "none.pt")));
      expect(missing).to.be.instanceOf(FileError);
      expect(missing.message).to.match(/none\.pt: it does not exist/);
      expect((await rejection(read(dir))).message).to.equal(`${dir} is not a file`);
    }
  });

  it("refuses to write what it cannot name, and over what is there", async () => {
    const nameless = await rejection(convertCheckpointFile(file, join(dir, "model.bin")));
    expect(nameless).to.be.instanceOf(UsageError);
    expect((nameless as UsageError).remedy).to.contain(".pt, .pth or .safetensors");
    const there = join(dir, "there.safetensors");
    writeFileSync(there, "precious");
    const occupied = await rejection(convertCheckpointFile(file, there));
    expect(occupied).to.be.instanceOf(UsageError);
    expect(occupied).to.include({ overwritable: true });
    expect(readFileSync(there, "utf8")).to.equal("precious");
  });

  it("names the folder that cannot be written to", async () => {
    const absent = await rejection(
      convertCheckpointFile(file, join(dir, "none/model.safetensors")),
    );
    expect(absent).to.include({ elsewhere: true });
    expect(absent.message).to.match(
      /cannot write .*none\/model\.safetensors: its folder does not exist/,
    );
    const inFile = await rejection(convertCheckpointFile(file, join(file, "model.safetensors")));
    expect(inFile).to.be.instanceOf(FileError);
    expect(inFile.message).to.match(/a part of its path is a file/);
    expect(readdirSync(dir)).to.deep.equal(["model.pt"]);
  });
});

describe("a checkpoint in words", () => {
  it("leaves a stranger's names and metadata no way to steer the terminal", () => {
    const lines = describeCheckpoint("a.pt", {
      format: "safetensors",
      tensors: [{ name: "w\u001b[2J", dtype: "float32", shape: [2], bytes: 8 }],
      leftOut: ["x\r\u202e"],
      metadata: { "k\n": `\u009b${"v".repeat(5000)}` },
      reference: null,
    });
    expect(lines.slice(1)).to.deep.equal([
      "  w\\u001b[2J  float32  [2]",
      "left out, not weights: x\\u000d\\u202e",
      `k\\u000a: \\u009b${"v".repeat(199)}…`,
    ]);
  });
});
