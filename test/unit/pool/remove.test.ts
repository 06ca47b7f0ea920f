import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { main } from "../../../src/cli/program.js";
import { SWEEP_SCHEMA, Sweep } from "../../../src/pool/folder.js";
import { removable, removeRun } from "../../../src/pool/remove.js";
import { RunFolder } from "../../../src/run/folder.js";

describe("removing runs", () => {
  let folder = "";
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "atlas-remove-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const worker = { address: "local", device: "cpu" };
  const create = async (config: Record<string, string> = {}, id?: string) => {
    const run = await RunFolder.create(
      folder,
      { experiment: "pde", seed: 0, config, worker, versions: {} },
      id,
    );
    await run.close();
    return run;
  };
  const ids = (found: readonly { id: string }[]) => found.map(({ id }) => id).sort();
  const sweepOf = (id: string, runs: string[]) =>
    Sweep.create(folder, {
      ...{ schema: SWEEP_SCHEMA, id, created: new Date().toISOString(), experiment: "pde" },
      ...{ grid: {}, worker, config: {}, versions: {}, cells: [{ values: {}, config: {} }] },
      options: { retries: 0, failFast: false },
      runs: runs.map((run, seed) => ({ id: run, cell: 0, seed })),
    });

  it("keeps a run that another run refers to, and what that refers to", async () => {
    const first = await create();
    const second = await create({ identity: first.id });
    const third = await create({ reuse_predictor: `/data/runs/${second.id}` });
    const wanted = new Set([first.id, second.id]);
    const { runs, kept } = await removable(folder, { wanted });
    expect(runs).to.deep.equal([]);
    expect(ids(kept)).to.deep.equal([first.id, second.id].sort());
    const all = await removable(folder, { wanted: new Set([...wanted, third.id]) });
    expect(all.runs).to.have.length(3);
  });

  it("keeps a run that is running", async () => {
    const run = await create();
    const working = await RunFolder.resume(run.path);
    expect((await removable(folder, { wanted: new Set([run.id]) })).kept[0]!.why).to.match(
      new RegExp(`process ${process.pid} is working`),
    );
    let refused: unknown;
    await removeRun(run).catch((error: unknown) => {
      refused = error;
    });
    expect(refused).to.match(/is working in/);
    await working.close();
    await removeRun(run);
    expect(readdirSync(folder)).to.deep.equal([]);
  });

  it("removes a sweep with its runs, and no part of one", async () => {
    const runs = [await create({}, "s-0"), await create({}, "s-1")];
    await sweepOf("s", ["s-0", "s-1", "s-2"]);
    const part = await removable(folder, { wanted: new Set(["s-0"]) });
    expect([part.runs, part.kept[0]!.why]).to.deep.equal([[], "it is part of sweep s"]);
    const other = await create({ identity: "s-1" });
    const used = await removable(folder, { wanted: new Set(["s", "s-0", "s-1"]) });
    expect([used.runs, used.sweeps]).to.deep.equal([[], []]);
    await removeRun(other);
    const whole = await removable(folder, { wanted: new Set(["s", ...ids(runs)]) });
    expect([ids(whole.runs), ids(whole.sweeps)]).to.deep.equal([["s-0", "s-1"], ["s"]]);
  });

  it("is a command, which chooses runs by name or by age", async () => {
    const [old, young] = [await create(), await create()];
    await sweepOf("sweep", []);
    const { stdout } = process;
    const write = stdout.write;
    const run = async (...args: string[]) => {
      let said = "";
      stdout.write = (text: string | Uint8Array) => {
        said += String(text);
        return true;
      };
      try {
        const code = await main(["runs", "remove", ...args, "--runs", folder]);
        return { code, said };
      } finally {
        stdout.write = write;
      }
    };
    expect((await run("--older", "1h")).said).to.equal("nothing to remove\n");
    expect((await run(old.id, "--dry-run")).said).to.match(/^would be removed/);
    expect(existsSync(old.path)).to.equal(true);
    expect(await run(old.id)).to.deep.equal({ code: 0, said: `removed  ${old.id}\n` });
    expect(existsSync(old.path)).to.equal(false);
    expect((await run("--older", "0m")).said)
      .to.contain(young.id)
      .and.contain("sweep");
    expect(readdirSync(join(folder, "sweeps"))).to.deep.equal([]);
  });
});
