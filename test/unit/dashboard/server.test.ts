/** The dashboard's server: who may ask, what a stranger's folder may do, and the stream. */
import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import type { Detail } from "../../../src/dashboard/detail.js";
import { type Dashboard, serveDashboard } from "../../../src/dashboard/index.js";
import type { Summary } from "../../../src/dashboard/summary.js";
import type { SweepTable } from "../../../src/dashboard/sweeps.js";
import { until } from "../../e2e/atlas.js";
import { lorentz, planar } from "../report/results.js";
import { ask, bearer, json, Reader } from "./client.js";
import { epochLine, makeRun } from "./folders.js";

const HOSTILE = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;
const HUGE = "x".repeat(10 << 20);

describe("the dashboard", () => {
  let dir: string;
  let runs: string;
  let dashboard: Dashboard;
  let url: string;
  let state: string | undefined;

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-dash-"));
    state = process.env.XDG_STATE_HOME;
    process.env.XDG_STATE_HOME = join(dir, "state");
    runs = join(dir, "runs");
    makeRun(runs, "20260101-a", { epochs: 5, result: planar(), tags: ["paper"] });
    makeRun(runs, "20260102-b", { epochs: 3, totalEpochs: 10 });
    makeRun(runs, "20260103-c", { epochs: 2, result: lorentz(), experiment: "toptagging" });
    writeFileSync(join(runs, "20260101-a", "report.html"), `<p>${HOSTILE}</p>`);
    dashboard = await serveDashboard({ runs, port: 0 });
    url = dashboard.url;
  });
  after(async () => {
    await dashboard.close();
    if (state === undefined) delete process.env.XDG_STATE_HOME;
    else process.env.XDG_STATE_HOME = state;
    rmSync(dir, { recursive: true, force: true });
  });

  const withToken = (path: string, more: object = {}, method = "GET") =>
    ask(url, path, { headers: { ...bearer(url), ...more }, method });

  describe("who may ask", () => {
    it("is whoever has the token", async () => {
      for (const headers of [{}, { Authorization: "Bearer " }, { Authorization: "Bearer x" }])
        for (const path of ["/api/runs", "/api/run?id=20260101-a", "/api/events", "/api/nothing"])
          expect((await ask(url, path, { headers })).status, path).to.equal(401);
      const asQuery = `/api/runs?token=${new URL(url).hash.slice(7)}`;
      expect((await ask(url, asQuery)).status).to.equal(401);
      expect((await withToken("/api/runs")).status).to.equal(200);
    });

    it("is no page of another site, and no other name of this machine", async () => {
      const { port } = new URL(url);
      const cases: [object, number][] = [
        [{ Origin: "http://evil.example" }, 403],
        [{ Origin: "null" }, 403],
        [{ Origin: `http://127.0.0.1:${Number(port) + 1}` }, 403],
        [{ Origin: `https://127.0.0.1:${port}` }, 403],
        [{ Host: "evil.example" }, 403],
        [{ Host: `evil.example:${port}` }, 403],
        [{ Host: `127.0.0.1:${Number(port) + 1}` }, 403],
        [{ "Sec-Fetch-Site": "cross-site" }, 403],
        [{ "Sec-Fetch-Site": "same-site" }, 403],
        [{ Host: `localhost:${port}`, Origin: `http://localhost:${port}` }, 200],
        [{ Origin: `http://127.0.0.1:${port}`, "Sec-Fetch-Site": "same-origin" }, 200],
      ];
      for (const [headers, status] of cases)
        for (const path of ["/api/runs", "/"])
          expect((await withToken(path, headers)).status, JSON.stringify(headers)).to.equal(status);
    });

    it("may follow a link to the page, which has nothing of the runs", async () => {
      const link = { "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document" };
      expect((await ask(url, "/", { headers: link })).status).to.equal(200);
      expect((await withToken("/api/runs", link)).status).to.equal(403);
      expect((await withToken("/report?ticket=x", link)).status).to.equal(403);
    });

    it("uses methods that the page uses", async () => {
      for (const method of ["PUT", "DELETE", "OPTIONS", "PATCH"])
        expect((await withToken("/api/runs", {}, method)).status).to.equal(405);
    });

    it("has policies that let nothing else run or load", async () => {
      for (const path of ["/", "/main.mjs", "/api/runs", "/nothing"]) {
        const { headers } = await withToken(path);
        const policy = String(headers["content-security-policy"]);
        expect(policy).to.contain("default-src 'none'").and.not.contain("unsafe");
        expect(headers["x-content-type-options"]).to.equal("nosniff");
        expect(headers).to.not.have.property("access-control-allow-origin");
      }
    });

    it("shows the page without the token, but nothing of the runs", async () => {
      const { status, text } = await ask(url, "/");
      expect(status).to.equal(200);
      expect(text).to.not.contain("2026");
      const names = [...text.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(([, path]) => path!);
      expect(names).to.include.members(["/main.mjs", "/style.css", "/uplot.js"]);
      for (const path of names) expect((await ask(url, path)).status, path).to.equal(200);
    });

    it("listens on this machine only, and says if the port is taken", async () => {
      const { port } = new URL(url);
      const error = await serveDashboard({ runs, port: Number(port) }).then(
        () => undefined,
        (e: unknown) => e,
      );
      expect(error).to.include({ exitCode: 2 });
      expect(String(error)).to.contain(port);
    });
  });

  describe("a folder of runs", () => {
    it("is listed with what each run found", async () => {
      const { runs: list, total } = await json<{ runs: Summary[]; total: number }>(
        url,
        "/api/runs",
      );
      expect(total).to.equal(3);
      expect(list.map(({ id, status }) => [id, status])).to.deep.equal([
        ["20260103-c", "finished"],
        ["20260102-b", "interrupted"],
        ["20260101-a", "finished"],
      ]);
      expect(list[0]!.finding).to.contain("so(1,3)⊕R");
      expect(list[2]).to.deep.include({ finding: "so(2); identity, reflection", tags: ["paper"] });
      expect(list[1]!.progress).to.deep.equal({ stage: "predictor", epoch: 3, totalEpochs: 10 });
      expect(list[2]!.metrics.angle).to.equal(planar().algebra!.identified.angleDegrees);
    });

    it("has a page for each run, with the file's numbers", async () => {
      const detail = await json<Detail>(url, "/api/run?id=20260102-b");
      expect(detail.stages).to.deep.equal([
        { stage: "predictor", epoch: 3, totalEpochs: 10, seconds: 4.5, left: 10.5 },
      ]);
      const loss = detail.curves.find(({ metric }) => metric === "loss")!;
      expect(loss.points).to.deep.equal(
        [1, 2, 3].map((e) => [e, 2 / (1 + e) + 0.01 * Math.sin(7 * e)]),
      );
      expect(detail.resume).to.match(/^atlas resume .*20260102-b$/);
      const finished = await json<Detail>(url, "/api/run?id=20260103-c");
      expect(finished.result?.map(({ id }) => id)).to.include.members(["algebra", "components"]);
      expect(finished).to.not.have.property("resume");
    });

    it("compares runs, the differences of the settings first", async () => {
      const { sections, runs: compared } = await json<{
        sections: { id: string; markup: string }[];
        runs: object[];
      }>(url, "/api/compare?id=20260101-a&id=20260103-c");
      expect(compared).to.have.length(2);
      expect(sections[0]!.id).to.equal("settings");
      expect(sections[0]!.markup).to.contain("toptagging");
      for (const ids of ["id=20260101-a", "id=20260101-a&id=nothing", "id=a&id=../b"])
        expect((await withToken(`/api/compare?${ids}`)).status, ids).to.be.oneOf([400, 404]);
    });

    it("has a table for each sweep, with the runs that have begun", async () => {
      mkdirSync(join(runs, "sweeps/20260101-s"), { recursive: true });
      const planned = ["20260101-a", "20260102-b", "20260109-later"].map((id) => ({ id, cell: 0 }));
      const sweep = { grid: { N: [1] }, cells: [{ values: { N: 1 } }], runs: planned };
      writeFileSync(join(runs, "sweeps/20260101-s/sweep.json"), JSON.stringify(sweep));
      const table = await json<SweepTable>(url, "/api/sweep?id=20260101-s");
      expect(table.runs).to.have.length(3);
      const [cell] = table.cells;
      expect(cell!.runs).to.deep.equal(["20260101-a", "20260102-b"]);
      expect(cell!.states).to.deep.equal({ finished: 1, interrupted: 1, pending: 1 });
      rmSync(join(runs, "sweeps"), { recursive: true });
    });

    it("gives nothing outside of it", async () => {
      const outside = makeRun(dir, "outside", { epochs: 1 });
      symlinkSync(outside, join(runs, "20260104-link"));
      const names = ["../outside", "..", ".", "", "/etc", "20260101-a/..", "a\0b", "20260104-link"];
      names.push("..\\outside", "%2e%2e%2foutside", "sweeps", ".hidden");
      for (const name of names)
        for (const path of ["run", "ticket", "sweep"]) {
          const { status, text } = await withToken(`/api/${path}?id=${encodeURIComponent(name)}`);
          expect(status, name).to.be.oneOf([400, 404]);
          expect(text).to.not.contain("outside/");
        }
      for (const path of ["/../package.json", "/%2e%2e/package.json", "/main.mjs%00.css"])
        expect((await withToken(path)).status, path).to.equal(404);
      const list = await json<{ runs: Summary[] }>(url, "/api/runs");
      expect(list.runs.map(({ id }) => id)).to.not.include("20260104-link");
      rmSync(join(runs, "20260104-link"));
    });

    it("gives a report to a ticket once, and lets nothing of it run", async () => {
      const { ticket } = await json<{ ticket: string }>(url, "/api/ticket?id=20260101-a");
      const first = await ask(url, `/report?ticket=${ticket}`);
      expect(first.status).to.equal(200);
      const policy = String(first.headers["content-security-policy"]);
      expect(policy)
        .to.match(/^sandbox;/)
        .and.contain("default-src 'none'");
      expect(policy).to.not.contain("script-src");
      expect((await ask(url, `/report?ticket=${ticket}`)).status).to.equal(401);
      expect((await ask(url, "/report?ticket=x")).status).to.equal(401);
    });
  });

  describe("a stranger's folder", () => {
    const strange = (name: string) => join(runs, name);
    after(() => {
      for (const name of ["20260201-html", "20260202-odd", "20260203-huge", "20260204-links"])
        rmSync(strange(name), { recursive: true, force: true });
    });

    it("has its texts escaped", async () => {
      const result = planar();
      result.notes = [HOSTILE];
      result.cosets![1]!.name = HOSTILE;
      makeRun(runs, "20260201-html", {
        experiment: HOSTILE,
        config: { [HOSTILE]: HOSTILE },
        tags: [HOSTILE],
        stage: HOSTILE,
        epochs: 2,
        result,
      });
      const detail = await json<Detail>(url, "/api/run?id=20260201-html");
      const markup = detail.result!.map((section) => section.markup).join("");
      expect(markup).to.contain("&lt;img").and.not.contain("<img").and.not.contain("<script");
      expect(detail.summary.experiment).to.equal(HOSTILE.slice(0, 120)); // as text
      const compare = await json<{ sections: { markup: string }[] }>(
        url,
        "/api/compare?id=20260201-html&id=20260101-a",
      );
      const compared = compare.sections.map((section) => section.markup).join("");
      expect(compared).to.contain("&lt;img").and.not.contain("<img").and.not.contain("<script");
    });

    it("may be damaged in any way", async () => {
      makeRun(runs, "20260202-odd", { epochs: 2 });
      const files = ["config.json", "result.json", "events.jsonl"];
      const contents = ["", "{", "null", "[]", '{"schema":1}', "\0\0", "\n\n\n", HUGE];
      contents.push('{"__proto__":{"x":1},"type":"epoch","epoch":1e999}\n', "�\uFFFE");
      for (const file of files)
        for (const text of contents) {
          makeRun(runs, "20260202-odd", { epochs: 2 });
          writeFileSync(join(strange("20260202-odd"), file), text);
          const { status, text: answer } = await withToken("/api/run?id=20260202-odd");
          expect(status, `${file} ${text.slice(0, 40)}`).to.equal(200);
          expect(answer.length).to.be.below(100_000);
          const { runs: list } = await json<{ runs: Summary[] }>(url, "/api/runs");
          expect(list.map(({ id }) => id)).to.include("20260202-odd");
          rmSync(strange("20260202-odd"), { recursive: true });
        }
    });

    it("may hold texts of 10 MB", async () => {
      const folder = makeRun(runs, "20260203-huge", { epochs: 3 });
      const long = JSON.stringify({ type: "warning", time: "x", message: HUGE });
      appendFileSync(join(folder, "events.jsonl"), `${long}\n${epochLine(4)}`);
      const { status, text } = await withToken("/api/run?id=20260203-huge");
      expect(status).to.equal(200);
      expect(text.length).to.be.below(100_000);
      const detail = JSON.parse(text) as Detail;
      expect(detail.stages[0]!.epoch).to.equal(4); // the line after it counts
      const reader = new Reader({ "20260203-huge": 0 });
      await reader.open(url);
      await until(() => reader.epochsOf("20260203-huge").includes(4), "the last epoch");
      expect(reader.epochsOf("20260203-huge")).to.deep.equal([1, 2, 3, 4]);
      await reader.stop();
    });

    it("may hold links and pipes, which are not followed", async function () {
      const folder = makeRun(runs, "20260204-links", { epochs: 1 });
      const secret = join(dir, "secret");
      writeFileSync(secret, "root:x:0:0 secret\n");
      rmSync(join(folder, "events.jsonl"));
      symlinkSync(secret, join(folder, "result.json"));
      symlinkSync(secret, join(folder, "report.html"));
      try {
        execFileSync("mkfifo", [join(folder, "events.jsonl"), join(folder, "lock")]);
      } catch {
        return this.skip(); // no pipes here
      }
      const { status, text } = await withToken("/api/run?id=20260204-links");
      expect(status).to.equal(200);
      expect(text).to.not.contain("secret");
      const { ticket } = await json<{ ticket: string }>(url, "/api/ticket?id=20260204-links");
      const report = await ask(url, `/report?ticket=${ticket}`);
      expect(report.status).to.not.equal(200);
      expect(report.text).to.not.contain("root");
      rmSync(join(folder, "config.json"));
      symlinkSync(secret, join(folder, "config.json"));
      expect((await withToken("/api/run?id=20260204-links")).text).to.not.contain("root");
    });
  });

  describe("the stream", () => {
    const log = (id: string) => join(runs, id, "events.jsonl");
    const id = "20260301-live";
    afterEach(() => rmSync(join(runs, id), { recursive: true, force: true }));

    it("begins with what happens from now on", async () => {
      makeRun(runs, id, { epochs: 2 });
      const reader = new Reader();
      await reader.open(url, { fresh: true });
      await until(() => reader.messages.length > 0, "the greeting");
      const { at } = (await json<Detail>(url, `/api/run?id=${id}`)).summary;
      expect(reader.cursor).to.deep.include({ [id]: at });
      appendFileSync(log(id), epochLine(3));
      await until(() => reader.epochsOf(id).length > 0, "the new epoch");
      expect(reader.epochsOf(id)).to.deep.equal([3]);
      await reader.stop();
    });

    it("tells of steps, which are no part of the cursor", async () => {
      const folder = makeRun(runs, id, { epochs: 1 });
      const lock = join(folder, "lock");
      writeFileSync(lock, JSON.stringify({ pid: process.pid, host: hostname() }));
      const { at } = (await json<Detail>(url, `/api/run?id=${id}`)).summary;
      const reader = new Reader({ [id]: at });
      await reader.open(url);
      const metric = HOSTILE;
      const points = [
        [1.25, 2],
        [1.5, null],
      ];
      const place = { epoch: 1, totalEpochs: 9, step: 2, stepsInEpoch: 4 };
      const stage = { stage: "predictor", ...place, curves: [{ metric, points }] };
      const file = { schema: "atlas.live/1", stages: [stage] };
      writeFileSync(join(folder, "live.json"), JSON.stringify(file));
      await until(() => reader.messages.some(({ event }) => event === "steps"), "steps");
      const message = reader.messages.find(({ event }) => event === "steps")!;
      expect(message).to.deep.equal({ event: "steps", id: undefined, data: { runs: [id] } });
      expect(reader.cursor[id]).to.equal(at);
      const steps = [{ ...stage, curves: [{ metric: HOSTILE, points }] }];
      expect(await json(url, `/api/steps?id=${id}`)).to.deep.equal({ steps });
      expect((await json<Detail>(url, `/api/run?id=${id}`)).steps).to.deep.equal(steps);
      expect((await ask(url, `/api/steps?id=${id}`)).status).to.equal(401);
      expect((await withToken("/api/steps?id=../outside")).status).to.equal(400);
      for (const contents of ["{", JSON.stringify({ ...file, stages: [{}] }), HUGE]) {
        writeFileSync(join(folder, "live.json"), contents);
        expect(await json(url, `/api/steps?id=${id}`)).to.deep.equal({ steps: [] });
      }
      writeFileSync(join(folder, "live.json"), JSON.stringify(file));
      rmSync(lock); // the process ended without removing it
      expect(await json(url, `/api/steps?id=${id}`)).to.deep.equal({ steps: [] });
      expect((await json<Detail>(url, `/api/run?id=${id}`)).steps).to.deep.equal([]);
      await reader.stop();
    });

    it("waits for the end of a line", async () => {
      makeRun(runs, id, { epochs: 1 });
      const { at } = (await json<Detail>(url, `/api/run?id=${id}`)).summary;
      const reader = new Reader({ [id]: at });
      await reader.open(url);
      const line = epochLine(2);
      appendFileSync(log(id), line.slice(0, 30));
      await until(() => reader.messages.some(({ data }) => data.to === at), "a look at it");
      appendFileSync(log(id), line.slice(30));
      await until(() => reader.epochsOf(id).length > 0, "the epoch");
      expect(reader.epochsOf(id)).to.deep.equal([2]);
      await reader.stop();
    });

    it("replays exactly what a page missed", async () => {
      makeRun(runs, id, { epochs: 1 });
      let cursor: Record<string, number> = { [id]: 0 };
      const seen: number[] = [];
      for (let epoch = 1; epoch < 40; epoch += 3) {
        const reader = new Reader(cursor);
        await reader.open(url);
        await until(() => (reader.cursor[id] ?? 0) > (cursor[id] ?? 0), "new lines");
        await reader.stop();
        appendFileSync(log(id), [1, 2, 3].map((e) => epochLine(epoch + e)).join(""));
        seen.push(...reader.epochsOf(id));
        cursor = reader.cursor;
      }
      const last = new Reader(cursor);
      await last.open(url);
      await until(() => last.epochsOf(id).includes(40), "the last epoch");
      await last.stop();
      seen.push(...last.epochsOf(id));
      expect(seen).to.deep.equal(Array.from({ length: 40 }, (_, i) => i + 1));
    });

    it("takes the cursor from the header of other clients", async () => {
      makeRun(runs, id, { epochs: 4 });
      const reader = new Reader({ [id]: 0 });
      await reader.open(url);
      await until(() => reader.epochsOf(id).length === 4, "all epochs");
      const position = reader.messages.findLast((m) => m.data.id === id)!.id!;
      expect(position).to.deep.equal({ [id]: reader.cursor[id] });
      await reader.stop();
    });

    it("tells of new runs, of results, and of runs that are gone", async () => {
      const reader = new Reader({ "20260101-a": 1e9, gone: 5 });
      await reader.open(url);
      await until(() => reader.messages.some(({ event }) => event === "gone"), "gone");
      makeRun(runs, id, { epochs: 2, result: planar() });
      await until(() => reader.epochsOf(id).length === 2, "the new run");
      const message = reader.messages.findLast(({ data }) => data.id === id)!;
      expect(message.data.summary!.status).to.equal("finished");
      rmSync(join(runs, id), { recursive: true });
      const gone = () => reader.messages.some(({ data }) => data.runs?.includes(id));
      await until(gone, "its end");
      await reader.stop();
    });

    it("begins a log again that was replaced", async () => {
      makeRun(runs, id, { epochs: 20 });
      const reader = new Reader({ [id]: 0 });
      await reader.open(url);
      await until(() => reader.epochsOf(id).length === 20, "the epochs");
      truncateSync(log(id), 0);
      await until(() => reader.cursor[id] === 0, "the cut");
      appendFileSync(log(id), epochLine(1));
      await until(() => reader.epochsOf(id).length === 21, "the new epoch");
      expect(reader.epochsOf(id).at(-1)).to.equal(1);
      await reader.stop();
    });

    it("ends with the server, after the last news", async () => {
      makeRun(runs, id, { epochs: 1 });
      const other = await serveDashboard({ runs, port: 0 });
      const reader = new Reader({ [id]: 0 });
      await reader.open(other.url);
      await until(() => reader.epochsOf(id).length === 1, "the first epoch");
      appendFileSync(log(id), epochLine(2));
      const closed = other.close(60_000);
      await until(() => reader.messages.some(({ event }) => event === "ending"), "the end");
      expect(reader.epochsOf(id)).to.deep.equal([1, 2]);
      await reader.stop();
      await closed;
    });
  });

  it("keeps its token, so that pages find it again", async () => {
    const other = await serveDashboard({ runs, port: 0 });
    expect(new URL(other.url).hash).to.equal(new URL(url).hash);
    await other.close();
    mkdirSync(join(dir, "others"));
    const elsewhere = await serveDashboard({ runs: join(dir, "others"), port: 0 });
    expect(new URL(elsewhere.url).hash).to.not.equal(new URL(url).hash);
    await elsewhere.close();
  });

  it("takes a free port if its own is taken", async () => {
    const holder = createServer();
    await new Promise<void>((done) =>
      holder.listen(8137, "127.0.0.1", done).on("error", () => done()),
    );
    const other = await serveDashboard({ runs });
    expect(other.port).to.not.equal(8137);
    await other.close();
    holder.close();
  });
});
