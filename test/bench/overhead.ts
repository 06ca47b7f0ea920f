/**
 * What the orchestrator adds: one run of pde through TypeScript beside the same worker calls made
 * in Python, on the same worker.
 */
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import pde from "../../experiments/pde.js";
import type { GivenOf } from "../../src/experiment/define.js";
import { type Experiment, Progress, runExperiment } from "../../src/index.js";
import { type Method, Rpc } from "../../src/rpc/index.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { startDetachedWorker, stopDetachedWorker } from "../../src/worker/detached.js";
import { median } from "./statistics.js";

export interface Overhead {
  /** Seconds of every run, in the order in which they were made, in turns. */
  typescript: number[];
  python: number[];
  /** Median of the differences within a turn. */
  addedSeconds: number;
  /** Of the Python run. */
  addedShare: number;
  /** 2 % of the Python run and one second. */
  allowedSeconds: number;
  /** Whether both ended with the same generators, bit for bit. */
  sameResult: boolean;
}

interface Timed {
  seconds: number;
  generators?: number[];
}

interface Call {
  method: string;
  /** base64 */
  request: string;
  /** The handle that a CreateObject was answered with. */
  created?: string;
}

/** What may be given to pde. */
type Given = typeof pde extends Experiment<infer T> ? GivenOf<T> : never;

export async function measureOverhead(given: Given, turns = 3): Promise<Overhead> {
  const dir = await mkdtemp(join(tmpdir(), "atlas-bench-"));
  process.env.XDG_STATE_HOME = dir; // a worker of our own, beside the user's
  const { python, workerDir } = await ensureVenv();
  const worker = await startDetachedWorker({ device: "cpu" });
  try {
    const through = async (): Promise<Timed> => {
      const start = performance.now();
      const { result } = await runExperiment(pde, given, {
        runs: join(dir, "runs"),
        seed: 0,
        worker: { address: worker.address },
        progress: new Progress({ quiet: true }),
      });
      return {
        seconds: (performance.now() - start) / 1000,
        generators: result.algebra?.generators.flat(2),
      };
    };
    const calls = join(dir, "calls.json");
    await writeFile(calls, JSON.stringify(await recorded(through))); // and a warm-up
    const direct = async (): Promise<Timed> => {
      const { stdout } = await promisify(execFile)(
        python,
        [
          fileURLToPath(new URL("replay.py", import.meta.url)),
          worker.address.replace("grpc://", ""),
          calls,
        ],
        { env: { ...process.env, PYTHONPATH: workerDir } },
      );
      return JSON.parse(stdout) as Timed;
    };
    const typescript: Timed[] = [];
    const inPython: Timed[] = [];
    for (let turn = 0; turn < turns; turn++) {
      // The first of a turn may be the luckier one on a machine shared with others, so each is in
      // its turn.
      const [first, second] = turn % 2 === 0 ? [through, direct] : [direct, through];
      const [one, two] = [await first(), await second()];
      typescript.push(turn % 2 === 0 ? one : two);
      inPython.push(turn % 2 === 0 ? two : one);
    }
    const addedSeconds = median(typescript.map(({ seconds }, i) => seconds - inPython[i]!.seconds));
    const pythonSeconds = median(inPython.map((r) => r.seconds));
    return {
      typescript: typescript.map((r) => r.seconds),
      python: inPython.map((r) => r.seconds),
      addedSeconds,
      addedShare: addedSeconds / pythonSeconds,
      allowedSeconds: 0.02 * pythonSeconds + 1,
      sameResult: typescript.every(
        (r, i) => JSON.stringify(r.generators) === JSON.stringify(inPython[i]!.generators),
      ),
    };
  } finally {
    await stopDetachedWorker();
    await rm(dir, { recursive: true, force: true });
  }
}

/** Every unary call within a session that something makes, as it is sent. */
async function recorded(something: () => Promise<unknown>): Promise<Call[]> {
  const calls: Call[] = [];
  const { call } = Rpc.prototype;
  Rpc.prototype.call = async function <Request, Response>(
    this: Rpc,
    method: Method<Request, Response>,
    request: Request,
    ...rest: [Parameters<typeof call>[2]?]
  ): Promise<Response> {
    const name = method.path.split("/").at(-1)!;
    const entry: Call = {
      method: name,
      request: Buffer.from(method.requestSerialize(request)).toString("base64"),
    };
    if (!["Describe", "Check", "OpenSession", "CloseSession"].includes(name)) calls.push(entry);
    const answer = (await call.call(
      this,
      method as Method<unknown, unknown>,
      request,
      ...rest,
    )) as Response;
    if (name === "CreateObject")
      entry.created = (answer as { object?: { handle: string } }).object?.handle;
    return answer;
  };
  try {
    await something();
  } finally {
    Rpc.prototype.call = call;
  }
  return calls;
}
