import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { ROOT } from "../../../src/setup/common.mjs";
import { brokenBlocks, earlierContracts } from "../../../src/setup/contract.mjs";
import { program } from "../../../src/setup/node.mjs";

/** Whoever's machine it is, and whatever they sign. */
const IDENTITY = ["user.name=a", "user.email=a@b", "commit.gpgSign=false"].flatMap((c) => [
  "-c",
  c,
]);

describe("the contract's earlier states", function () {
  this.timeout(60_000);
  let dir: string;
  let root: string;
  const git = (...args: string[]) =>
    execFileSync("git", [...IDENTITY, ...args], { cwd: root, stdio: "pipe" });
  const write = (version: number, ...fields: string[]) => {
    writeFileSync(
      join(root, "proto/atlas/v1/worker.proto"),
      `syntax = "proto3";\npackage atlas.v1;\nenum V {\n  V_UNSPECIFIED = 0;\n  PROTOCOL_VERSION_CURRENT = ${version};\n}\n`,
    );
    const body = fields.map((field, i) => `  ${field} = ${i + 1};\n`).join("");
    writeFileSync(
      join(root, "proto/a.proto"),
      `syntax = "proto3";\npackage a;\nmessage A {\n${body}}\n`,
    );
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
    mkdirSync(join(root, "proto/atlas/v1"), { recursive: true });
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

  it("hold the block catalogue of the time", async () => {
    const blocks = (text: string) =>
      writeFileSync(join(root, "proto/atlas/v1/blocks.json"), JSON.stringify(text));
    commit(1, "int32 a");
    blocks("first");
    commit(1, "int32 a", "int32 b");
    blocks("second");
    const earlier = await earlierContracts(dir, root);
    if (typeof earlier === "string") throw new Error(earlier);
    expect(earlier.map((state) => state.blocks)).to.deep.equal(['"first"', undefined]);
  });

  it("are not looked for without a history", async () => {
    expect(await earlierContracts(dir, dir)).to.match(/no git history/);
    commit(1, "int32 a");
    commit(1, "string a");
    git("clone", "--depth", "1", `file://${root}`, join(dir, "shallow"));
    expect(await earlierContracts(dir, join(dir, "shallow"))).to.match(/--unshallow/);
  });
});

describe("the block catalogue's earlier states", () => {
  type Json = { [name: string]: Json } | Json[] | string | number | boolean;
  const catalogue = (changes: Record<string, Json> = {}, params: Record<string, Json> = {}) => ({
    blocks: {
      training: {
        fit: {
          summary: "Fit",
          aliases: ["train"],
          finds_k: true,
          params: {
            type: "object",
            properties: {
              rate: { type: "number", default: 1, minimum: 0, maximum: 2, "x-former": "lr" },
              steps: { type: "integer", minimum: 1 },
              loss: { type: "string", enum: ["l1", "l2"], default: "l1" },
              sizes: { type: "array", items: { type: "integer", maximum: 9 }, minItems: 1 },
              ...params,
            },
            required: ["steps"],
          },
          ...changes,
        },
      },
    },
  });
  const breaks = (after: unknown) =>
    brokenBlocks(JSON.stringify(catalogue()), JSON.stringify(after));

  it("may be added to, renamed with an alias, and widened", () => {
    const wider = catalogue(
      { manifolds: [], executes_code: false, alternates: true },
      {
        rate: { type: "number", default: 1, minimum: -1, "x-former": "lr" },
        steps: { type: "number" },
        loss: { type: "string", enum: ["l1", "l2", "huber"], default: "l1" },
        sizes: { type: "array", items: { type: "integer", maximum: 10 } },
        added: { type: "boolean", default: false },
      },
    );
    expect(breaks(catalogue())).to.deep.equal([]);
    expect(breaks(wider)).to.deep.equal([]);
    const { fit } = catalogue().blocks.training;
    const renamed = { adjust: { ...fit, aliases: ["fit", "train"] } };
    expect(breaks({ blocks: { training: renamed } })).to.deep.equal([]);
    const { steps, ...others } = fit.params.properties;
    const params = {
      ...fit.params,
      properties: { ...others, count: { ...steps, "x-former": "steps" } },
      required: ["count"],
    };
    expect(breaks({ blocks: { training: { fit: { ...fit, params } } } })).to.deep.equal([]);
  });

  it("may not lose or narrow anything, each fault in a line of its own", () => {
    const one = (after: unknown) => expect(breaks(after)).to.have.length(1).property("0");
    one({ blocks: {} }).equals("training fit: it is gone");
    one(catalogue({ aliases: [] })).equals("training fit: its alias train is gone");
    one(catalogue({ finds_k: false })).equals("training fit: finds_k is gone");
    one(catalogue({ executes_code: true })).equals("training fit: executes_code is new");
    one(catalogue({ manifolds: ["planar"] })).equals("training fit: it no longer works everywhere");
    const rate = { type: "number", default: 1, minimum: 0, maximum: 2, "x-former": "lr" };
    const { "x-former": _, ...unnamed } = rate;
    const changed = (params: Record<string, Json>) => one(catalogue({}, params));
    changed({ rate: { ...rate, default: 2 } }).equals("training fit.rate: its default 1 became 2");
    changed({ rate: { ...rate, minimum: 0.5 } }).contains("its minimum 0 became 0.5");
    changed({ rate: { ...rate, maximum: 1 } }).contains("its maximum 2 became 1");
    changed({ rate: { ...rate, type: "string" } }).contains("number became string");
    changed({ rate: unnamed }).contains("its former name lr is gone");
    changed({ steps: { type: "integer", minimum: 1, maximum: 5 } }).contains("(none) became 5");
    changed({ loss: { type: "string", enum: ["l1"], default: "l1" } }).contains(
      "it no longer takes l2",
    );
    changed({
      sizes: { type: "array", items: { type: "integer", maximum: 8 }, minItems: 1 },
    }).contains("fit.sizes[]: its maximum 9 became 8");
    changed({
      sizes: { type: "array", items: { type: "integer", maximum: 9 }, minItems: 2 },
    }).contains("minItems 1 became 2");
    const { fit } = catalogue().blocks.training;
    const { steps: __, ...others } = fit.params.properties;
    const without = { ...fit.params, properties: others };
    one({ blocks: { training: { fit: { ...fit, params: { ...without, required: [] } } } } }).equals(
      "training fit.steps: it is gone",
    );
    const demanding = { ...fit.params, required: ["steps", "rate"] };
    one({ blocks: { training: { fit: { ...fit, params: demanding } } } }).equals(
      "training fit.rate: it must be given now",
    );
  });
});
