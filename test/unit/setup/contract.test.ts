import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { ROOT } from "../../../src/setup/common.mjs";
import { earlierContracts } from "../../../src/setup/contract.mjs";
import { program } from "../../../src/setup/node.mjs";

/** Whoever's machine it is, and whatever they sign. */
const IDENTITY = ["user.name=a", "user.email=a@b", "commit.gpgSign=false"].flatMap((c) => ["-c", c]);

describe("the contract's earlier states", function () {
  this.timeout(60_000);
  let dir: string;
  let root: string;
  const git = (...args: string[]) =>
    execFileSync("git", [...IDENTITY, ...args], { cwd: root, stdio: "pipe" });
  const write = (version: number, ...fields: string[]) => {
    writeFileSync(join(root, "src/worker/worker.ts"), `export const PROTOCOL_VERSION = ${version};\n`);
    const body = fields.map((field, i) => `  ${field} = ${i + 1};\n`).join("");
    writeFileSync(join(root, "proto/a.proto"), `syntax = "proto3";\npackage a;\nmessage A {\n${body}}\n`);
  };
  const commit = (version: number, ...fields: string[]) => {
    write(version, ...fields);
    git("add", "--all");
    git("commit", "-m", "change");
  };
  /** What buf finds broken, by the state that it was compared with. */
  const broken = async () => {
    const earlier = await earlierContracts(dir, root);
    if (typeof earlier === "string") return earlier;
    return earlier.map(({ when, archive }) => {
      const args = [program("buf"), "breaking", "--against", archive];
      const { status } = spawnSync(process.execPath, args, { cwd: root });
      return `${when}: ${status === 0 ? "kept" : "broken"}`;
    });
  };
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-contract-"));
    root = join(dir, "clone");
    for (const folder of ["proto", "src/worker"]) mkdirSync(join(root, folder), { recursive: true });
    copyFileSync(join(ROOT, "buf.yaml"), join(root, "buf.yaml"));
    git("init");
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  it("may be added to, not broken, until the version is another", async () => {
    commit(1, "int32 a");
    commit(1, "int32 a", "int32 b");
    const [last, versioned] = ["before its last change", "when its version was last changed"];
    expect(await broken()).to.deep.equal([`${versioned}: kept`]);
    write(1, "string a", "int32 b");
    expect(await broken()).to.deep.equal([`${last}: broken`, `${versioned}: broken`]);
    // What came after the version did is kept as well, before and after the change is committed.
    write(1, "int32 a", "string b");
    expect(await broken()).to.deep.equal([`${last}: broken`, `${versioned}: kept`]);
    commit(1, "int32 a", "string b");
    expect(await broken()).to.deep.equal([`${last}: broken`, `${versioned}: kept`]);
    write(2, "string a");
    expect(await broken()).to.deep.equal([]);
    commit(2, "string a");
    expect(await broken()).to.deep.equal([`${versioned}: kept`]);
  });

  it("are not looked for without a history", async () => {
    expect(await earlierContracts(dir, dir)).to.match(/no git history/);
    commit(1, "int32 a");
    commit(1, "string a");
    git("clone", "--depth", "1", `file://${root}`, join(dir, "shallow"));
    expect(await earlierContracts(dir, join(dir, "shallow"))).to.match(/--unshallow/);
  });
});
