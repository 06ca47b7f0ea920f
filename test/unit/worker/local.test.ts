import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { WorkerDied, WorkerUnavailable } from "../../../src/errors.js";
import {
  detachedWorker,
  launch,
  startDetachedWorker,
  stopDetachedWorker,
} from "../../../src/worker/detached.js";
import {
  type LocalOptions,
  type LocalProcess,
  startLocalWorker,
} from "../../../src/worker/local.js";
import { parseAddress } from "../../../src/worker/remote.js";
import { Worker } from "../../../src/worker/worker.js";
import { fakePython, type Mode } from "./fake-process.js";
import { rejection } from "./rejection.js";

/** Whether a process runs; one that nobody has collected yet does not. */
function runs(pid: number): boolean {
  try {
    return !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

async function ends(pid: number): Promise<void> {
  for (let i = 0; runs(pid); i++) {
    if (i === 750) throw new Error(`process ${pid} still runs`);
    await sleep(20);
  }
}

const PLANE = { kind: "vectors", params: { n: 2 } } as const;

describe("local worker", () => {
  let dir: string;
  const logs: string[] = [];
  const started: (LocalProcess | Worker)[] = [];
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-local-"));
  });
  afterEach(async () => {
    await Promise.all(started.splice(0).map((p) => p.close()));
    logs.length = 0;
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  async function start(mode: Mode, options: Partial<LocalOptions> = {}): Promise<LocalProcess> {
    const python = fakePython(join(dir, mode), mode);
    const p = await startLocalWorker({
      python,
      workerDir: dir,
      onLog: (l) => logs.push(l),
      ...options,
    });
    started.push(p);
    return p;
  }
  function script(
    name: string,
    body: string,
    options: Partial<LocalOptions> = {},
  ): Promise<LocalProcess> {
    writeFileSync(join(dir, name), `#!/bin/sh\n${body}\n`, { mode: 0o755 });
    return startLocalWorker({
      python: join(dir, name),
      workerDir: dir,
      onLog: (l) => logs.push(l),
      ...options,
    });
  }
  const childOf = () => Number(/child (\d+)/.exec(logs.join("\n"))?.[1]);
  const connect = async (p: LocalProcess) => {
    const worker = await Worker.connect(p);
    started.push(worker);
    const session = await worker.openSession();
    const atlas = await session.createAtlas(PLANE);
    return { worker, session, atlas };
  };

  it("is told what to do, and heard", async () => {
    const body = 'echo "$@" >&2; echo "$PYTHONPATH $(pwd)" >&2; exit 3';
    const { TMPDIR } = process.env;
    process.env.TMPDIR = relative(process.cwd(), dir); // which is another folder for the worker
    await rejection(script("arguments", body)).finally(() => {
      if (TMPDIR === undefined) delete process.env.TMPDIR;
      else process.env.TMPDIR = TMPDIR;
    });
    await rejection(script("trusting", body, { trustCode: true }));
    const serve = "-m atlas_worker serve --listen 127.0.0.1:0 --data-root / --plane-folder DIR";
    const where = `${dir} ${dir}`;
    expect(logs.map((line) => line.replace(/(plane-folder) \/\S+/, "$1 DIR"))).to.deep.equal([
      `${serve} --parent-stdin`,
      where,
      `${serve} --trust-code --parent-stdin`,
      where,
    ]);
  });

  it("that dies at its start is reported with its last line", async () => {
    const error = (await rejection(
      script("dead", "echo Traceback >&2; echo 'ImportError: no torch' >&2; exit 1"),
    )) as WorkerUnavailable;
    expect(error).to.be.instanceOf(WorkerUnavailable);
    expect(error.message).to.match(/local worker .*exit code 1.*: ImportError: no torch$/);
    expect((error.cause as WorkerDied).stderrTail).to.equal("Traceback\nImportError: no torch");
    expect(error.remedy).to.contain("atlas doctor");
  });

  it("that cannot be executed is reported", async () => {
    const error = await rejection(startLocalWorker({ python: join(dir, "none"), workerDir: dir }));
    expect(error).to.be.instanceOf(WorkerUnavailable);
    expect(error.message).to.match(/local worker .*ENOENT/);
  });

  it("that never serves is given up and killed", async () => {
    const silent = script("silent", "echo $$ >&2; exec sleep 1000", { startTimeoutMs: 2000 });
    const error = await rejection(silent);
    expect(error).to.be.instanceOf(WorkerUnavailable);
    expect(error.message).to.contain(" 2 s");
    expect(logs[0]).to.match(/^\d+$/);
    expect(runs(Number(logs[0]))).to.equal(false);
  });

  it("is killed when starting it is aborted", async () => {
    const controller = new AbortController();
    const reason = new Error("Ctrl-C");
    const pending = rejection(
      start("obedient", {
        signal: controller.signal,
        onLog: (l) => {
          logs.push(l);
          controller.abort(reason);
        },
      }),
    );
    expect(await pending).to.equal(reason);
    await ends(childOf());
  });

  it("works, and is stopped with its children", async () => {
    const { worker, session, atlas } = await connect(await start("obedient"));
    await session.advance(atlas, { untilEpoch: 3 });
    const { pid } = worker.info;
    expect(logs).to.include("a line that is not for us");
    await worker.close();
    expect(runs(pid)).to.equal(false);
    await ends(childOf());
    const later = await rejection(session.snapshot(atlas));
    expect(later).to.not.be.instanceOf(WorkerDied);
    expect(later.message).to.contain("stopped");
  });

  it("that does not want to end is killed after a grace", async () => {
    const process = await start("stubborn", { graceMs: 100 });
    await process.close();
    expect(runs(process.pid)).to.equal(false);
    await ends(childOf());
  });

  it("that dies in a job is reported with what it wrote, by every call after it too", async () => {
    const { worker, session, atlas } = await connect(await start("dying"));
    const epochs: number[] = [];
    const onEpoch = ({ epoch }: { epoch: number }) => {
      epochs.push(epoch);
      if (epoch === 2) process.kill(worker.info.pid, "SIGUSR2");
    };
    const error = (await rejection(
      session.advance(atlas, { untilEpoch: 9, onEpoch }),
    )) as WorkerDied;
    expect(epochs).to.deep.equal([1, 2]);
    expect(error).to.be.instanceOf(WorkerDied);
    expect(error.message).to.match(/local worker .*SIGKILL.*: RuntimeError: out of σ$/);
    expect(error.stderrTail).to.contain("Traceback").and.to.contain("out of σ");
    expect(error.remedy).to.contain("out of memory");
    expect(await rejection(session.snapshot(atlas))).to.equal(error);
    expect(await rejection(session.advance(atlas))).to.equal(error);
    await ends(childOf());
  });

  it("that is killed between calls is reported by the next one, whatever it is", async () => {
    const process_ = await start("obedient");
    const { session, atlas } = await connect(process_);
    process.kill(process_.pid, "SIGKILL");
    expect(await rejection(session.createAtlas(PLANE))).to.be.instanceOf(WorkerDied);
    expect(await rejection(session.getAlgebra(atlas))).to.be.instanceOf(WorkerDied);
  });

  describe("ends with the process that started it", () => {
    async function parent(
      mode: Mode,
      then: string,
      tmp = mkdtempSync(join(dir, "tmp-")),
    ): Promise<{ parent: ChildProcess; worker: number }> {
      const python = fakePython(join(dir, mode), mode);
      const local = new URL("../../../src/worker/local.ts", import.meta.url);
      const code = `
        const { startLocalWorker } = await import(${JSON.stringify(local.href)});
        const { pid } = await startLocalWorker(${JSON.stringify({ python, workerDir: dir })});
        console.log(pid);
        ${then}`;
      const options = ["--import", import.meta.resolve("tsx"), "--input-type=module", "-e", code];
      const child = spawn(process.execPath, options, {
        stdio: ["ignore", "pipe", "inherit"],
        env: { ...process.env, TMPDIR: tmp },
      });
      const [line] = await once(createInterface({ input: child.stdout }), "line");
      return { parent: child, worker: Number(line) };
    }

    it("when that is killed by kill -9", async () => {
      const { parent: p, worker } = await parent("obedient", "setInterval(() => {}, 1000);");
      expect(runs(worker)).to.equal(true);
      p.kill("SIGKILL");
      await ends(worker);
    });

    it("when that exits without a word, even if it does not listen", async () => {
      const tmp = mkdtempSync(join(dir, "tmp-"));
      const { parent: p, worker } = await parent("stubborn", "process.exit(1);", tmp);
      await ends(worker);
      if (p.exitCode === null) await once(p, "exit");
      expect(readdirSync(tmp).filter((name) => name.startsWith("atlas-"))).to.deep.equal([]);
    });
  });

  describe("in the background", () => {
    const before = process.env.XDG_STATE_HOME;
    beforeEach(() => {
      process.env.XDG_STATE_HOME = join(dir, "state");
    });
    afterEach(async () => {
      await stopDetachedWorker();
      if (before === undefined) delete process.env.XDG_STATE_HOME;
      else process.env.XDG_STATE_HOME = before;
    });

    it("is started, found, used and stopped with its children", async () => {
      expect(await detachedWorker()).to.equal(undefined);
      const python = fakePython(join(dir, "obedient"), "obedient");
      const worker = await launch({ python, workerDir: dir }, {});
      expect(await detachedWorker()).to.deep.equal(worker);
      expect(worker.address).to.match(/^grpc:\/\/127\.0\.0\.1:\d+$/);
      const log = readFileSync(worker.log, "utf8");
      const client = await Worker.connect(parseAddress(worker.address));
      await client.close();
      expect(runs(worker.pid)).to.equal(true);
      expect(await stopDetachedWorker()).to.equal(true);
      expect(runs(worker.pid)).to.equal(false);
      await ends(Number(/child (\d+)/.exec(log)?.[1]));
      expect(await stopDetachedWorker()).to.equal(false);
    });

    it("is not found when another process has its id", async () => {
      const python = fakePython(join(dir, "obedient"), "obedient");
      const worker = await launch({ python, workerDir: dir }, {});
      const file = join(dir, "state", "atlas-symmetry", "worker.json");
      process.kill(-worker.pid, "SIGKILL");
      writeFileSync(file, JSON.stringify({ ...worker, pid: process.pid }));
      expect(await detachedWorker()).to.equal(undefined);
      expect(existsSync(file)).to.equal(false);
    });

    it("that dies at its start is reported with its last line", async () => {
      writeFileSync(join(dir, "dead"), "#!/bin/sh\necho 'ImportError: no torch' >&2; exit 1\n", {
        mode: 0o755,
      });
      const error = await rejection(launch({ python: join(dir, "dead"), workerDir: dir }, {}));
      expect(error.message).to.match(/worker .*exit code 1.*: ImportError: no torch$/);
    });

    it("is refused a port that is in use", async () => {
      const server = createServer().listen(0, "127.0.0.1");
      await once(server, "listening");
      const { port } = server.address() as { port: number };
      const error = await rejection(startDetachedWorker({ port }));
      server.close();
      expect(error).to.include({ name: "UsageError", message: `port ${port} is in use` });
    });
  });
});
