/** `atlas checkpoint` and the Python bridge, with files that PyTorch itself writes. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { FileError } from "../../src/errors.js";
import {
  convertCheckpoint,
  convertCheckpointFile,
  inspectCheckpoint,
} from "../../src/interop/index.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { readSafetensors } from "../../src/tensor/index.js";
import { rejection } from "../unit/worker/rejection.js";
import { apart, atlas, complaint, json, LONG } from "./atlas.js";

const FIXTURES = `
import os, pickle, sys, zipfile
import torch
from torch import nn
os.chdir(sys.argv[1])
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
torch.save(net.state_dict(), "weights.pt")
torch.save(net.state_dict(), "old.pt", _use_new_zipfile_serialization=False)
torch.save({"state_dict": net.state_dict(), "epoch": 3, "optimizer": {"lr": 0.1}}, "training.pth")
torch.save({"encoder": {"w": torch.ones(2)}, "decoder": {"w": torch.zeros(2)}}, "parts.pt")
w = torch.arange(6.0).reshape(2, 3)
torch.save({"a": w, "tied": w, "turned": w.t(), "row": w[1]}, "shared.pt")
types = {"half": torch.ones(2, dtype=torch.bfloat16), "count": torch.tensor(7)}
torch.save({**types, "none": torch.zeros(0, 3)}, "types.pt")
torch.save(net, "module.pt")
torch.save({"s": torch.eye(3).to_sparse()}, "sparse.pt")
torch.save({"epoch": 1}, "no-tensors.pt")
torch.jit.script(nn.Linear(2, 2)).save("script.pt")
class Evil:
    def __reduce__(self):
        return os.system, ("touch executed",)
torch.save({"w": w, "x": Evil()}, "evil.pt")
pickle.dump(Evil(), open("evil-pickle.pt", "wb"))
data = open("weights.pt", "rb").read()
open("truncated.pt", "wb").write(data[: len(data) // 2])
data = open("old.pt", "rb").read()
open("old-truncated.pt", "wb").write(data[: len(data) // 2])
open("empty.pt", "wb")
def doubled(name, n):
    """A dict whose key is a pair of pairs …, n deep: to take its hash takes 2^n steps."""
    pickled = b"\\x80\\x02})" + b"q\\x01h\\x01\\x86" * n + b"K\\x01s."
    with zipfile.ZipFile("weights.pt") as source, zipfile.ZipFile(name, "w") as out:
        for entry in source.infolist():
            data = pickled if entry.filename.endswith("data.pkl") else source.read(entry)
            out.writestr(entry.filename, data)
doubled("deep.pt", 12)
doubled("endless.pt", 60)
open("text.pt", "w").write("these are not weights")
zipfile.ZipFile("zip.pt", "w").writestr("hello", "x")
`;

describe("checkpoints", function () {
  this.timeout(LONG);
  let dir: string;
  const file = (name: string) => join(dir, name);
  before(async () => {
    const { python } = await ensureVenv();
    dir = mkdtempSync(join(tmpdir(), "atlas-checkpoints-"));
    execFileSync(python, ["-W", "ignore", "-c", FIXTURES, dir], {
      stdio: ["ignore", "ignore", "inherit"],
    });
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  it("lists the tensors of each of PyTorch's formats", async () => {
    const names = [
      "0.weight",
      "0.bias",
      "1.weight",
      "1.bias",
      "1.running_mean",
      "1.running_var",
      "1.num_batches_tracked",
    ];
    for (const name of ["weights.pt", "old.pt", "training.pth"]) {
      const { format, tensors, leftOut } = await inspectCheckpoint(file(name));
      expect(format).to.equal("pytorch");
      expect(tensors.map((t) => t.name)).to.deep.equal(names);
      expect(tensors[0]).to.deep.equal({
        name: "0.weight",
        dtype: "float32",
        shape: [2, 1, 3, 3],
        bytes: 72,
      });
      expect(leftOut).to.deep.equal(name === "training.pth" ? ["epoch", "optimizer"] : []);
    }
    const parts = await inspectCheckpoint(file("parts.pt"));
    expect(parts.tensors.map((t) => t.name)).to.deep.equal(["encoder.w", "decoder.w"]);
  });

  it("converts weights to safetensors bytes, tied, turned and cut ones too", async () => {
    const { tensors } = readSafetensors(await convertCheckpoint(file("shared.pt")), "shared.pt");
    const values = Object.fromEntries(
      [...tensors].map(([name, tensor]) => [name, tensor.toNested()]),
    );
    const whole = [
      [0, 1, 2],
      [3, 4, 5],
    ];
    const turned = [
      [0, 3],
      [1, 4],
      [2, 5],
    ];
    expect(values).to.deep.equal({ a: whole, tied: whole, turned, row: [3, 4, 5] });
  });

  it("goes to safetensors and back without changing a bit", async () => {
    const there = file("types.safetensors");
    await convertCheckpointFile(file("types.pt"), there);
    const back = await convertCheckpointFile(there, file("types-back.pth"));
    expect(back.format).to.equal("pytorch");
    const sorted = (tensors: { name: string }[]) =>
      [...tensors].sort((a, b) => a.name.localeCompare(b.name));
    expect(sorted(back.tensors)).to.deep.equal(
      sorted((await inspectCheckpoint(file("types.pt"))).tensors),
    );
    await convertCheckpointFile(file("types-back.pth"), file("types-again.safetensors"));
    expect(readFileSync(file("types-again.safetensors")).equals(readFileSync(there))).to.equal(
      true,
    );
    expect(readdirSync(dir).filter((name) => name.endsWith(".partial"))).to.deep.equal([]);
  });

  it("gives up a file that has no end, and reads the next", async () => {
    const deep = (await rejection(inspectCheckpoint(file("deep.pt")))) as FileError;
    expect(deep.message).to.match(/has a key that is a container$/);
    const endless = (await rejection(
      inspectCheckpoint(file("endless.pt"), { limitMs: 1_000 }),
    )) as FileError;
    expect(endless).to.be.instanceOf(FileError);
    expect(endless.message).to.match(/endless\.pt was given up after 1 s$/);
    expect((await inspectCheckpoint(file("weights.pt"))).tensors).to.have.length(7);
    const target = file("endless.safetensors");
    await rejection(convertCheckpointFile(file("endless.pt"), target, { limitMs: 500 }));
    expect(readdirSync(dir).filter((name) => /endless\.safetensors/.test(name))).to.deep.equal([]);
  });

  it("refuses what would execute code, and does not execute it", async () => {
    for (const [name, what] of [
      ["module.pt", /loading it would execute code \(torch\.nn\.modules\.container\.Sequential\)/],
      ["evil.pt", /loading it would execute code \((posix|nt)\.system\)/],
      ["evil-pickle.pt", /loading it would execute code \((posix|nt)\.system\)/],
      ["script.pt", /is a TorchScript program/],
    ] as const) {
      const error = await rejection(convertCheckpoint(file(name)));
      expect(error).to.be.instanceOf(FileError);
      expect(error.message).to.contain(file(name)).and.match(what);
      expect((error as FileError).remedy).to.contain("torch.save(model.state_dict(), FILE)");
    }
    expect(existsSync(file("executed"))).to.equal(false);
  });

  it("says what is wrong with a damaged file, or one of another kind", async () => {
    writeFileSync(
      file("cut.safetensors"),
      (await convertCheckpoint(file("weights.pt"))).slice(0, 300),
    );
    for (const [name, what] of [
      ["truncated.pt", /is damaged or truncated/],
      ["old-truncated.pt", /is damaged or truncated/],
      ["cut.safetensors", /is damaged or truncated/],
      ["empty.pt", /is empty/],
      ["text.pt", /is no PyTorch or safetensors checkpoint/],
      ["zip.pt", /is a zip file, but no PyTorch checkpoint/],
      ["sparse.pt", /s is a sparse or quantised tensor/],
      ["no-tensors.pt", /holds no tensors/],
    ] as const) {
      const error = await rejection(convertCheckpointFile(file(name), file("out.safetensors")));
      expect(error).to.be.instanceOf(FileError);
      expect(error.message).to.contain(file(name)).and.match(what).and.not.contain("\n");
      expect((error as FileError).remedy).to.be.a("string");
      expect(existsSync(file("out.safetensors"))).to.equal(false);
    }
  });

  describe("on the command line", () => {
    it("prints a table, or JSON alone", async () => {
      const table = await apart(["checkpoint", "inspect", file("training.pth")]);
      expect(table.code, table.stderr).to.equal(0);
      expect(table.stdout).to.match(/^training\.pth: PyTorch, 7 tensors, 29 numbers/);
      expect(table.stdout).to.match(/^ {2}0\.weight +float32 +\[2, 1, 3, 3\]$/m);
      expect(table.stdout).to.match(/^left out, not weights: epoch, optimizer$/m);
      const convert = ["checkpoint", "convert", file("weights.pt"), file("weights.safetensors")];
      expect(await json(convert)).to.include({
        file: file("weights.safetensors"),
        format: "safetensors",
      });
      expect(complaint(await atlas(convert), 2)).to.match(
        /^error: .*weights\.safetensors exists already; .*--force$/,
      );
    });

    it("refuses code with one line and exit code 2", async () => {
      const done = await atlas(["checkpoint", "inspect", file("evil.pt")]);
      expect(complaint(done, 2)).to.match(
        /^error: .*evil\.pt was not loaded, because loading it would execute code .*; save only /,
      );
      expect(done.stderr.split("\n")).to.have.length(2);
      expect(existsSync(file("executed"))).to.equal(false);
    });
  });
});
