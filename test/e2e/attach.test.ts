/**
 * Runs that outlive their process: left to a worker in the background and come back to. Real
 * processes throughout.
 */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { Tensor } from "../../src/tensor/index.js";
import { connectWorker } from "../../src/worker/index.js";
import { residentMiB } from "../bench/load.js";
import { rejection } from "../unit/worker/rejection.js";
import {
  atlas,
  complaint,
  epochs,
  essence,
  LONG,
  logged,
  only,
  refuses,
  start,
  startBackground,
  until,
} from "./atlas.js";

/** A predictor of many epochs, by one job; then a short search. */
const RUN = [
  ..."pde --task=discover_cosets --identity=so(2) --candidates=2".split(" "),
  ..."--layout=2 --N=8 --batch_size=4 --epochs=120".split(" "),
  ..."--coset_solver.steps=4 --fixed-seed --device=cpu".split(" "),
];

describe("a run on a worker that outlives it", function () {
  this.timeout(LONG);
  let dir: string;
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  let worker: string;
  let undisturbed: string;
  let count = 0;

  /** Start the run, and wait until it has done an epoch of a stage. */
  const begin = async (stage: string, ...flags: string[]) => {
    const runs = join(dir, `runs-${++count}`);
    const process = start([...RUN, "--worker", worker, "--runs", runs, ...flags], where);
    await process.says(new RegExp(`^${stage} +\\d+/`, "m"));
    return { process, run: only(runs) };
  };

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-attach-"));
    where = { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state") } };
    const flags = ["--device", "cpu", "--threads", "1", "--data-root", dir];
    ({ address: worker } = await startBackground(flags, where));
    const runs = join(dir, "undisturbed");
    const { code, stderr } = await atlas([...RUN, "--worker", worker, "--runs", runs], where);
    expect(code, stderr).to.equal(0);
    undisturbed = only(runs);
  });
  after(async () => {
    await atlas(["worker", "stop"], where);
    rmSync(dir, { recursive: true, force: true });
  });

  it("goes on when its process is killed, and is attached to without a loss", async () => {
    const { process, run } = await begin("predictor");
    expect(complaint(await atlas(["attach", run], where), 2)).to.match(/process \d+ is working in/);
    process.kill("SIGKILL");
    await process.done;
    const known = epochs(run).length;
    expect(known).to.be.lessThan(epochs(undisturbed).length);
    const { code, stderr } = await atlas(["attach", run], where);
    expect(code, stderr).to.equal(0);
    expect(stderr).to.match(/^predictor +attached at epoch \d+\/120$/m);
    expect(essence(run)).to.equal(essence(undisturbed));
    expect(epochs(run)).to.deep.equal(epochs(undisturbed));
    expect(readdirSync(run)).to.have.members(readdirSync(undisturbed));
    expect((await atlas(["attach", run], where)).stderr).to.match(/is finished; nothing to do/);
  });

  it("is left by Ctrl-C twice where that is asked for, and come back to", async () => {
    const { process, run } = await begin("predictor", "--detach-on-interrupt");
    process.kill("SIGINT");
    await process.says(/stopping in 2 s \(Ctrl-C again to leave/);
    process.kill("SIGINT");
    const { code, stderr } = await process.done;
    expect(code).to.equal(130);
    expect(stderr).to.contain(
      `the run continues at ${worker}; return to it with: atlas attach ${run}`,
    );
    const attached = await atlas(["attach", run], where);
    expect(attached.code, attached.stderr).to.equal(0);
    expect(essence(run)).to.equal(essence(undisturbed));
    expect(epochs(run)).to.deep.equal(epochs(undisturbed));
  });

  it("leaves no session behind when resumed; without one it is not attached to", async () => {
    const beginAndKill = async () => {
      const begun = await begin("predictor");
      begun.process.kill("SIGKILL");
      await begun.process.done;
      return begun;
    };
    const [killed, other] = [await beginAndKill(), await beginAndKill()];
    const [{ session }] = logged(killed.run, "worker") as [{ session: string }];
    const connected = await connectWorker({ worker });
    expect((await connected.attachSession(session)).device).to.equal("cpu");
    await connected.close({ leave: true });
    const { code, stderr } = await atlas(["resume", killed.run], where);
    expect(code, stderr).to.equal(0);
    expect(essence(killed.run)).to.equal(essence(undisturbed));
    const again = await connectWorker({ worker });
    expect(await rejection(again.attachSession(session))).to.include({ code: "not_found" });
    await again.close();

    const [{ session: its }] = logged(other.run, "worker") as [{ session: string }];
    const last = await connectWorker({ worker });
    await last.attachSession(its);
    await last.close();
    expect(complaint(await atlas(["attach", other.run], where), 1)).to.match(
      /^error: the run's session on \S+ has ended: .*; continue with: atlas resume \S+$/,
    );
    await atlas(["worker", "stop"], where);
    expect(complaint(await atlas(["attach", other.run], where), 1)).to.match(
      /^error: cannot reach the worker .*; once .*: atlas attach \S+; .*: atlas resume \S+$/,
    );
    const log = join(other.run, "events.jsonl");
    // As of a local worker.
    writeFileSync(log, readFileSync(log, "utf8").replace(`,"session":"${its}"`, ""));
    expect(complaint(await atlas(["attach", other.run], where), 2)).to.match(
      /^error: run \S+ cannot be attached to.*: atlas resume \S+$/,
    );
  });

  it("does not show the environment's token to a worker that only its folder names", async () => {
    const stranger = "grpc://worker.example:50051";
    const run = join(dir, "strange");
    cpSync(undisturbed, run, { recursive: true });
    rmSync(join(run, "result.json"));
    for (const file of ["config.json", "events.jsonl"].map((name) => join(run, name)))
      writeFileSync(file, readFileSync(file, "utf8").replaceAll(worker, stranger));
    for (const way of ["resume", "attach"]) {
      const withToken = (env: NodeJS.ProcessEnv) => ({
        ...where,
        env: { ATLAS_TOKEN: "secret", ...env },
      });
      await refuses(
        [
          [
            [way, run],
            /^error: the run names the worker grpc:\/\/worker\.example:50051.*; .*ATLAS_WORKER/,
          ],
        ],
        withToken({}),
      );
      // The user's own choice is looked at as any other.
      await refuses(
        [[[way, run], /would go to worker\.example:50051 unencrypted/]],
        withToken({ ATLAS_WORKER: stranger }),
      );
    }
  });

  it("loses its session, and the worker its memory, when its lease ends", async () => {
    const other = { ...where, env: { XDG_STATE_HOME: join(dir, "leasing") } };
    const flags = ["--lease=3", "--device=cpu", "--threads=1"];
    const { address, log } = await startBackground(flags, other);
    try {
      const client = await connectWorker({ worker: address });
      const session = await client.openSession({ device: "cpu" });
      const bytes = Buffer.alloc(2 ** 26);
      bytes.writeFloatLE(1); // all the same would be refused
      const inputs = Tensor.fromBytes("float32", [2 ** 14, 1, 32, 32], bytes);
      const tensors = { inputs, targets: inputs };
      await session.createDataset({ kind: "arrays", params: {}, seed: 0, tensors });
      await sleep(4_500); // longer than the lease
      const renewed = performance.now();
      expect(await session.list(), "it is renewed").to.have.length(1);
      const before = residentMiB(client.info.pid);
      session.leave();
      // To ask for it would renew it.
      await until(
        () => readFileSync(log, "utf8").includes("lease has ended"),
        "the end of the lease",
      );
      expect(performance.now() - renewed, "the lease").to.be.above(3_000);
      await until(() => residentMiB(client.info.pid) < before - 100, "the end of its 128 MiB");
      expect(await rejection(client.attachSession(session.id))).to.include({ code: "not_found" });
      await client.close({ leave: true });
    } finally {
      await atlas(["worker", "stop"], other);
    }
    await refuses([[["worker", "start", "--lease=0"], /^error: --lease/]], other);
  });

  it("is refused where its worker ends with it", async () => {
    await refuses(
      [
        [
          [...RUN, "--detach-on-interrupt"],
          /^error: --detach-on-interrupt .*: a local worker ends with its run; start/,
        ],
        [
          [...RUN, "--detach-on-interrupt", "--worker", "docker"],
          /^error: --detach-on-interrupt .*: the container ends with its run; start/,
        ],
        [["attach", "nothing"], /^error: no run "nothing"/],
      ],
      where,
    );
  });
});
