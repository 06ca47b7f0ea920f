/** Sending runs to an MLflow server: one that works, and ones that do not. */
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { RunFolder } from "../../../src/run/folder.js";
import { checkTracker, MlflowTracker } from "../../../src/track/mlflow.js";
import { until } from "../../e2e/atlas.js";
import { planar } from "../report/results.js";

interface Metric {
  key: string;
  value: number;
  step: number;
  timestamp: number;
}

interface Kept {
  info: { run_id: string; artifact_uri: string; status: string };
  tags: Record<string, string>;
  params: Record<string, string>;
  metrics: Metric[];
}

/** The part of MLflow's REST API that is used, in memory. */
class FakeServer {
  readonly runs: Kept[] = [];
  readonly files = new Map<string, string>();
  readonly authorizations = new Set<string | undefined>();
  experiment = false;
  /** What becomes of a request before it is done; "done" leaves the client without an answer. */
  fault: () => "none" | "fails" | "hangs" | "cut" | "done" = () => "none";
  private server: Server | undefined;
  url = "";

  async start(port = 0): Promise<void> {
    this.server = createServer((request, response) => {
      let body = "";
      request.on("data", (part) => {
        body += part;
      });
      request.on("end", () => {
        this.authorizations.add(request.headers.authorization);
        const fault = this.fault();
        if (fault === "hangs") return;
        if (fault === "cut") return void request.socket.destroy();
        const [status, answer] =
          fault === "fails" ? [507, "full"] : this.answer(request.method!, request.url!, body);
        if (fault === "done") return void request.socket.destroy();
        response.writeHead(status as number).end(JSON.stringify(answer));
      });
    });
    await new Promise<void>((done) => this.server!.listen(port, "127.0.0.1", done));
    this.url = `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.server?.closeAllConnections();
    await new Promise((done) => this.server?.close(done));
  }

  private answer(method: string, url: string, body: string): [number, object] {
    const path = new URL(url, "http://x").pathname.replace("/api/2.0/", "");
    if (method === "PUT") {
      this.files.set(decodeURIComponent(path.replace("mlflow-artifacts/artifacts/", "")), body);
      return [200, {}];
    }
    const asked = body === "" ? {} : JSON.parse(body);
    const run = this.runs.find(({ info }) => info.run_id === asked.run_id);
    switch (path) {
      case "mlflow/experiments/get-by-name":
        return this.experiment ? [200, { experiment: { experiment_id: "1" } }] : [404, {}];
      case "mlflow/experiments/create":
        this.experiment = true;
        return [200, {}];
      case "mlflow/runs/search": {
        const [, id] = /= '(.*)'$/.exec(asked.filter)!;
        const found = this.runs.filter(({ tags }) => tags["atlas.run"] === id);
        return [200, found.length === 0 ? {} : { runs: found.map((kept) => shown(kept)) }];
      }
      case "mlflow/runs/create": {
        const run_id = createHash("md5").update(body).digest("hex");
        const info = {
          run_id,
          artifact_uri: `mlflow-artifacts:/1/${run_id}/artifacts`,
          status: "RUNNING",
        };
        this.runs.push({ info, tags: pairs(asked.tags), params: {}, metrics: [] });
        return [200, { run: shown(this.runs.at(-1)!) }];
      }
      case "mlflow/runs/log-batch":
        Object.assign(run!.params, pairs(asked.params));
        for (const metric of asked.metrics ?? [])
          if (!run!.metrics.some((m) => JSON.stringify(m) === JSON.stringify(metric)))
            run!.metrics.push(metric); // MLflow too keeps equal rows once
        Object.assign(run!.tags, pairs(asked.tags));
        return [200, {}];
      case "mlflow/runs/update":
        run!.info.status = asked.status;
        return [200, {}];
      default:
        return [404, { path }];
    }
  }
}

const pairs = (list: { key: string; value: string }[] = []) =>
  Object.fromEntries(list.map(({ key, value }) => [key, value]));
const shown = ({ info, tags }: Kept) => ({
  info: { ...info },
  data: { tags: Object.entries(tags).map(([key, value]) => ({ key, value })) },
});

describe("an MLflow tracker", () => {
  let dir: string;
  let server: FakeServer;
  const warnings: string[] = [];
  const warn = (line: string) => void warnings.push(line);
  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-mlflow-"));
    warnings.length = 0;
    server = new FakeServer();
    await server.start();
  });
  afterEach(async () => {
    await server.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  const make = () =>
    RunFolder.create(dir, {
      experiment: "pde",
      seed: 3,
      tags: ["paper"],
      config: { task: "discover", N: 1000, charts: [{ row: 1 }] },
      worker: { address: "local", device: "cpu" },
      versions: {},
    });
  const epoch = (run: RunFolder, number: number) =>
    run.append({
      type: "epoch",
      stage: "predictor",
      epoch: number,
      totalEpochs: 9,
      metrics: { loss: 1 / number },
      seconds: 0.5,
    });
  const losses = () =>
    server.runs[0]!.metrics.filter(({ key }) => key === "predictor/loss").map((m) => [
      m.step,
      m.value,
    ]);
  const wanted = (last: number) => Array.from({ length: last }, (_, i) => [i + 1, 1 / (i + 1)]);

  it("sends settings, metrics, tags and results", async () => {
    const run = await make();
    const tracker = new MlflowTracker(server.url.replace("//", "//me:secret@"), run, warn);
    for (const e of [1, 2, 3]) await epoch(run, e);
    await run.writeReport("<p>report</p>");
    await run.writeResult(planar());
    await run.close();
    await tracker.end();
    const [kept, ...others] = server.runs;
    expect(others).to.deep.equal([]);
    expect(kept!.info.status).to.equal("FINISHED");
    expect(kept!.params).to.deep.include({ seed: "3", N: "1000", charts: '[{"row":1}]' });
    expect(kept!.tags).to.include({ "atlas.run": run.id, paper: "true" });
    expect(kept!.tags["atlas.found"]).to.equal("so(2); identity, reflection");
    expect(losses()).to.deep.equal(wanted(3));
    const place = `1/${kept!.info.run_id}/artifacts`;
    expect([...server.files.keys()].sort()).to.deep.equal(
      ["config.json", "report.html", "result.json"].map((name) => `${place}/${name}`),
    );
    expect(server.files.get(`${place}/result.json`)).to.equal(readFileSync(run.resultPath, "utf8"));
    const basic = `Basic ${Buffer.from("me:secret").toString("base64")}`;
    expect([...server.authorizations]).to.deep.equal([basic]);
    expect(warnings).to.deep.equal([]);
  });

  it("goes on in the same MLflow run when a run is resumed", async () => {
    const run = await make();
    const first = new MlflowTracker(server.url, run, warn);
    await epoch(run, 1);
    await epoch(run, 2);
    await run.append({ type: "interrupted" });
    await run.close();
    await first.end();
    expect(server.runs[0]!.info.status).to.equal("KILLED");
    const resumed = await RunFolder.resume(run.path);
    const second = new MlflowTracker(server.url, resumed, warn);
    await until(() => server.runs[0]!.info.status === "RUNNING", "the new state");
    await epoch(resumed, 3);
    await resumed.append({ type: "failed", message: "x" });
    await resumed.close();
    await second.end();
    expect(server.runs).to.have.length(1);
    expect(server.runs[0]!.info.status).to.equal("FAILED");
    expect(losses()).to.deep.equal(wanted(3));
    expect(warnings).to.deep.equal([]);
  });

  it("warns once of a server that fails now and then, and loses and doubles nothing", async () => {
    let count = 0;
    const faults = ["fails", "none", "cut", "done", "none"] as const;
    server.fault = () => faults[count++ % faults.length]!;
    const run = await make();
    for (let e = 1; e <= 9; e++) await epoch(run, e);
    // Each tracker stands for a process: what one could not send, the next sends.
    for (let i = 0; i < 12; i++) {
      const patience = { answer: 1000, rest: 300, lost: 300 };
      const tracker = new MlflowTracker(server.url, run, warn, patience);
      await tracker.end();
    }
    server.fault = () => "none";
    await run.append({ type: "interrupted" });
    const last = new MlflowTracker(server.url, run, warn);
    await last.end();
    await run.close();
    expect(server.runs).to.have.length(1);
    expect(losses()).to.deep.equal(wanted(9));
    expect(server.runs[0]!.info.status).to.equal("KILLED");
  });

  for (const [what, fault] of [
    ["is full", "fails"],
    ["hangs", "hangs"],
    ["cuts every connection", "cut"],
  ] as const)
    it(`gives up at the end of a run on a server that ${what}, with one warning`, async () => {
      server.fault = () => fault;
      const run = await make();
      const patience = { answer: 200, rest: 1000, lost: 300 };
      const tracker = new MlflowTracker(server.url, run, warn, patience);
      for (let e = 1; e <= 3; e++) await epoch(run, e);
      const begun = performance.now();
      await run.close();
      await tracker.end();
      expect(performance.now() - begun).to.be.below(30_000);
      expect(warnings).to.have.length(1);
      expect(warnings[0]).to.contain(server.url);
    });

  it("never shows the password", async () => {
    await server.stop();
    const run = await make();
    const address = server.url.replace("//", "//me:secret@");
    const tracker = new MlflowTracker(address, run, warn, { answer: 1000, rest: 300, lost: 300 });
    await until(() => warnings.length > 0, "the warning");
    await run.close();
    await tracker.end();
    expect(warnings).to.have.length(1);
    expect(warnings[0]).to.not.contain("secret");
    await server.start();
  });

  it("refuses what is no address", () => {
    for (const address of ["", "x", "file:///tmp/mlruns", "sqlite:///a.db", "127.0.0.1:5000"])
      expect(() => checkTracker(address), address)
        .to.throw()
        .and.include({ exitCode: 2 });
    expect(checkTracker("https://ml.example/path").pathname).to.equal("/path");
  });
});
