/** Runs that a real MLflow server is told of. It lives in an environment of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { execa } from "execa";
import type { EpochRecord, RunEvent } from "../../src/run/events.js";
import { childEnvironment } from "../../src/setup/environment.mjs";
import { LONG, ROOT, start, until } from "../e2e/atlas.js";

const VENV = join(ROOT, "node_modules/.cache/mlflow-venv");
const PROGRAM = join(VENV, "bin/mlflow");

/** Install MLflow. @returns why it cannot be had */
async function install(): Promise<string | undefined> {
  if (existsSync(PROGRAM)) return undefined;
  process.stderr.write("integration: installing MLflow in an environment of its own\n");
  for (const args of [
    ["python3", "-m", "venv", VENV],
    [join(VENV, "bin/pip"), "install", "--quiet", "mlflow>=2.10"],
  ]) {
    const env = childEnvironment();
    const [command = "", ...rest] = args;
    const { exitCode, stderr } = await execa(command, rest, {
      env,
      extendEnv: false,
      reject: false,
    });
    if (exitCode === 0) continue;
    rmSync(VENV, { recursive: true, force: true });
    return stderr.split("\n").filter(Boolean).at(-1) ?? `${command} failed`;
  }
  return undefined;
}

function freePort(): Promise<number> {
  return new Promise((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => done(port));
    });
  });
}

describe("a real MLflow server", function () {
  this.timeout(LONG);
  let dir: string;
  let url: string;
  let server: ChildProcess | undefined;

  before(async function () {
    const why = await install();
    if (why !== undefined) {
      process.stderr.write(`integration: without MLflow: ${why}\n`);
      this.skip();
    }
    dir = mkdtempSync(join(tmpdir(), "atlas-mlflow-"));
    const port = await freePort();
    url = `http://127.0.0.1:${port}`;
    const args = ["server", "--host", "127.0.0.1", "--port", String(port), "--workers", "1"];
    args.push("--backend-store-uri", `sqlite:///${dir}/ml.db`);
    args.push("--artifacts-destination", join(dir, "artefacts"));
    const env = childEnvironment({ MLFLOW_DISABLE_TELEMETRY: "true", DO_NOT_TRACK: "true" });
    server = spawn(PROGRAM, args, { cwd: dir, env, stdio: "ignore", detached: true });
    let up = false;
    await until(() => {
      void fetch(`${url}/health`).then(
        (answer) => {
          up ||= answer.ok;
        },
        () => undefined,
      );
      return up;
    }, "the server");
  });
  after(() => {
    if (server?.pid !== undefined) process.kill(-server.pid, "SIGKILL"); // its group
    if (dir) rmSync(dir, { recursive: true, force: true });
  });

  async function ask<T>(path: string, body?: object): Promise<T> {
    const answer = await fetch(`${url}/api/2.0/${path}`, {
      method: body ? "POST" : "GET",
      body: body && JSON.stringify(body),
      headers: { "Content-Type": "application/json" },
    });
    expect(answer.status, path).to.equal(200);
    return (await answer.json()) as T;
  }

  it("has every epoch once, and the result, of a run that was killed and resumed", async () => {
    const runs = join(dir, "runs");
    const options = ["--runs", runs, "--mlflow", url];
    const search = "--solver.starts 1 --solver.steps 20 --solver.evaluation 2 --k 1";
    const first = start(
      `pde --task discover_algebra --N 100 --epochs 6 --algebra-epochs 3 ${search} --tags paper`
        .split(" ")
        .concat(options),
      { cwd: dir },
    );
    await first.says(/^predictor +2\/6/m);
    first.kill("SIGKILL");
    await first.done;
    const resumed = await start(["resume", "latest", ...options], { cwd: dir }).done;
    expect(resumed.code, resumed.stderr).to.equal(0);
    expect(resumed.stderr).to.not.contain("warning: the MLflow");

    const [id = ""] = readdirSync(runs);
    const file = (name: string) => readFileSync(join(runs, id, name), "utf8");
    const { experiment } = await ask<{ experiment: { experiment_id: string } }>(
      "mlflow/experiments/get-by-name?experiment_name=atlas",
    );
    const found = await ask<{
      runs: {
        info: { run_id: string; status: string; run_name: string };
        data: { params: { key: string; value: string }[]; tags: { key: string; value: string }[] };
      }[];
    }>("mlflow/runs/search", { experiment_ids: [experiment.experiment_id] });
    expect(found.runs).to.have.length(1);
    const [{ info, data }] = found.runs as [(typeof found.runs)[0]];
    expect(info).to.include({ status: "FINISHED", run_name: id });
    expect(data.params).to.deep.include({ key: "N", value: "100" });
    expect(data.tags).to.deep.include({ key: "paper", value: "true" });
    const epochs = file("events.jsonl")
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as RunEvent)
      .filter((event): event is EpochRecord => event.type === "epoch");
    for (const stage of ["predictor", "algebra"]) {
      const query = `run_id=${info.run_id}&metric_key=${stage}/loss&max_results=1000`;
      const { metrics } = await ask<{ metrics: { step: number; value: number }[] }>(
        `mlflow/metrics/get-history?${query}`,
      );
      const wanted = epochs.filter((e) => e.stage === stage).map((e) => [e.epoch, e.metrics.loss]);
      const byStep = (a: (number | undefined)[], b: (number | undefined)[]) => a[0]! - b[0]!;
      const had = metrics.map((m) => [m.step, m.value]).sort(byStep);
      expect(had).to.deep.equal(wanted.sort(byStep));
    }
    for (const name of ["result.json", "report.html", "config.json"]) {
      const place = `${experiment.experiment_id}/${info.run_id}/artifacts/${name}`;
      expect(readFileSync(join(dir, "artefacts", place), "utf8"), name).to.equal(file(name));
    }
  });
});
