/** `atlas dashboard`, in processes of its own. */
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import type { LiveStage } from "../../src/run/live.js";
import { Tensor, writeNpy } from "../../src/tensor/index.js";
import { json, Reader } from "../unit/dashboard/client.js";
import { epochLine, makeRun } from "../unit/dashboard/folders.js";
import { atlas, complaint, LONG, start, until } from "./atlas.js";

describe("atlas dashboard", function () {
  this.timeout(LONG);
  let dir: string;
  let runs: string;
  let env: NodeJS.ProcessEnv;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-dashboard-"));
    runs = join(dir, "runs");
    env = { XDG_STATE_HOME: join(dir, "state") };
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  /** Start it on a port, and wait for its address. */
  async function serve(port: number) {
    const args = ["dashboard", "--runs", runs, "--port", String(port)];
    const child = start(args, { cwd: dir, env });
    const url = await child.prints(/^dashboard {2}(http:\S+)$/m);
    return { ...child, url };
  }

  it("loses nothing and doubles nothing when it is killed", async () => {
    makeRun(runs, "20260101-a", { epochs: 3 });
    const first = await serve(0);
    const port = Number(new URL(first.url).port);
    const seen: number[] = [];
    const reader = new Reader({ "20260101-a": 0 });
    await reader.open(first.url);
    await until(() => reader.epochsOf("20260101-a").length === 3, "the first epochs");
    first.kill("SIGKILL");
    await first.done;
    await reader.ended;
    seen.push(...reader.epochsOf("20260101-a"));
    const log = join(runs, "20260101-a", "events.jsonl");
    appendFileSync(log, [4, 5, 6].map((epoch) => epochLine(epoch)).join(""));
    makeRun(runs, "20260102-b", { epochs: 2 });
    const second = await serve(port);
    expect(second.url).to.equal(first.url); // an open page finds it again
    const again = new Reader(reader.cursor);
    await again.open(second.url);
    appendFileSync(log, epochLine(7));
    await until(() => again.epochsOf("20260101-a").includes(7), "the last epoch");
    await until(() => again.epochsOf("20260102-b").length === 2, "the new run");
    seen.push(...again.epochsOf("20260101-a"));
    expect(seen).to.deep.equal([1, 2, 3, 4, 5, 6, 7]);
    expect(again.epochsOf("20260102-b")).to.deep.equal([1, 2]);
    await again.stop();
    second.kill("SIGINT");
    expect((await second.done).code).to.equal(0);
  });

  it("sees that the process of a run was killed", async () => {
    const folder = makeRun(runs, "20260103-c", { epochs: 1 });
    const holder = start(["dashboard", "--runs", join(dir, "none"), "--port", "0"], { env });
    const lock = { pid: holder.pid, host: hostname() };
    writeFileSync(join(folder, "lock"), JSON.stringify(lock));
    const { url, kill, done } = await serve(0);
    const status = async () =>
      (await json<{ summary: { status: string } }>(url, "/api/run?id=20260103-c")).summary.status;
    expect(await status()).to.equal("running");
    const reader = new Reader({ "20260103-c": 1e6 });
    await reader.open(url);
    holder.kill("SIGKILL");
    await holder.done;
    const state = () => reader.messages.findLast((m) => m.data.id === "20260103-c")?.data.summary;
    await until(() => state()?.status === "interrupted", "the new state");
    await reader.stop();
    kill("SIGTERM");
    expect((await done).code).to.equal(0);
  });

  it("shows the steps of a run before its first epoch ends", async () => {
    const cwd = join(dir, "steps");
    mkdirSync(cwd);
    const samples = 200_000; // an epoch of many seconds, which nobody waits for
    const numbers = Float32Array.from({ length: 2 * samples }, Math.random);
    const bytes = new Uint8Array(numbers.buffer);
    writeFileSync(
      join(cwd, "inputs.npy"),
      writeNpy(Tensor.fromBytes("float32", [samples, 2], bytes)),
    );
    const { url, kill, done } = await serve(0);
    const reader = new Reader();
    await reader.open(url, { fresh: true });
    const training = "--targets inputs.npy --training.batch-size 1 --epochs 2";
    const run = start(
      ["discover", "--inputs", "inputs.npy", ...training.split(" "), "--runs", runs],
      { cwd, env },
    );
    await run.says(/^run {7}/m);
    const stepped = () =>
      reader.messages.findLast(({ event }) => event === "steps")?.data.runs?.[0];
    await until(() => stepped() !== undefined, "steps");
    const id = stepped()!;
    const loss = async () => {
      const { steps } = await json<{ steps: LiveStage[] }>(url, `/api/steps?id=${id}`);
      const stage = steps.find((own) => own.stage === "predictor");
      return stage?.curves.find(({ metric }) => metric === "loss")?.points ?? [];
    };
    let points = await loss();
    while (points.length < 20) points = await loss();
    for (const [at, value] of points) {
      expect(at).to.be.within(0, 1);
      expect(value).to.be.above(0);
    }
    expect(reader.epochsOf(id)).to.deep.equal([]);
    run.kill("SIGINT");
    expect((await run.done).code).to.equal(130);
    expect(existsSync(join(runs, id, "live.json"))).to.equal(false);
    expect(await loss()).to.deep.equal([]);
    await reader.stop();
    kill("SIGINT");
    await done;
  });

  it("refuses what cannot be, in one line", async () => {
    const taken = createServer();
    await new Promise<void>((done) => taken.listen(0, "127.0.0.1", done));
    const { port } = taken.address() as AddressInfo;
    const file = join(dir, "file");
    writeFileSync(file, "");
    mkdirSync(runs, { recursive: true });
    const cases: [string[], RegExp][] = [
      [["--runs", runs, "--port", String(port)], new RegExp(`^error: port ${port} is in use; `)],
      [["--runs", file], /^error: .*file is not a folder; .*--runs DIR$/],
      [["--runs", join(file, "x")], /^error: .*cannot be read; .*--runs DIR$/],
      [["--port", "70000"], /^error: .*--port.*70000/],
      [["--port", "x"], /^error: .*--port/],
      [["runs"], /^error: /],
    ];
    for (const [args, line] of cases)
      expect(complaint(await atlas(["dashboard", ...args], { cwd: dir, env }), 2)).to.match(line);
    taken.close();
  });

  it("shows a run that it starts with, and never stops it", async () => {
    const cwd = join(dir, "here");
    mkdirSync(cwd);
    const { code, stderr } = await start(["probe", "rotation", "--dashboard", "--tags", "a, b,a"], {
      cwd,
      env: { ...env, XDG_STATE_HOME: join(dir, "file", "no") },
    }).done;
    expect(code, stderr).to.equal(0);
    expect(stderr).to.match(/^dashboard http:\/\/127\.0\.0\.1:\d+\/#token=\S+$/m);
    const [id = ""] = readdirSync(join(cwd, "runs"));
    const config = JSON.parse(readFileSync(join(cwd, "runs", id, "config.json"), "utf8"));
    expect(config.tags).to.deep.equal(["a", "b"]);
  });
});
