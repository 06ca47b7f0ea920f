/**
 * Send a run to an MLflow server while it goes on: parameters, metrics by epoch, tags, result and
 * report (MLflow's REST API 2.0).
 *
 * The tracker reads the run's own log, so a run never waits for it. How far it has come is a tag of
 * the MLflow run. A resumed run finds that MLflow run by its id, and goes on there. If the server
 * fails, the user is warned once, and the rest is sent when it answers again.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "../data/proxy.js";
import { UsageError } from "../errors.js";
import { rowOf } from "../pool/seeds.js";
import { Result } from "../result.js";
import type { RunEvent } from "../run/events.js";
import type { Run } from "../run/folder.js";
import { type PlacedEvent, readLog } from "../run/log.js";
import { readPlain } from "../run/plain.js";
import { VERSION } from "../version.js";

/** Milliseconds between two looks at the log. */
const PAUSE = 1000;
/** Milliseconds after a failure, which double up to the second. */
const [RETRY, LONGEST_RETRY] = [2000, 60_000];
/** Times in milliseconds. */
export interface Patience {
  /** For one answer. */
  answer: number;
  /** For which the end of a run waits until the rest is sent. */
  rest: number;
  /** For which it waits if the server has failed lately. */
  lost: number;
}
const PATIENCE: Patience = { answer: 10_000, rest: 15_000, lost: 2000 };
/** What MLflow takes in one request: metrics, parameters; and characters of a value. */
const [METRICS, PARAMS, VALUE] = [1000, 100, 6000];
/** Bytes of an artefact at most. */
const ARTEFACT = 64 << 20;

/** Tags by which a run finds its MLflow run, and its position there. */
const [RUN_TAG, AT_TAG] = ["atlas.run", "atlas.at"];

/** What ended a run, as MLflow names it. */
const STATES: Partial<Record<RunEvent["type"], string>> = {
  finished: "FINISHED",
  failed: "FAILED",
  interrupted: "KILLED",
};

/** The server refused a request, and would do so again. */
class Refused extends Error {}

interface MlflowRun {
  info: { run_id: string; artifact_uri: string; status: string };
  data: { tags?: { key: string; value: string }[] };
}

/**
 * Check the address of an MLflow server.
 *
 * @throws UsageError if it is none
 */
export function checkTracker(address: string): URL {
  const url = URL.canParse(address) ? new URL(address) : undefined;
  if (url === undefined || !["http:", "https:"].includes(url.protocol))
    throw new UsageError(
      `${JSON.stringify(address)} is not the address of an MLflow server`,
      "start one with: mlflow server, and give its address, such as http://127.0.0.1:5000",
    );
  return url;
}

/** Sends one run to an MLflow server. */
export class MlflowTracker {
  private readonly base: string;
  private readonly headers: Record<string, string>;
  private readonly local: boolean;
  private readonly stopping = new AbortController();
  private readonly looping: Promise<void>;
  private target: MlflowRun | undefined;
  private at = 0;
  private state = "RUNNING";
  private warned = false;
  private failures = 0;

  /**
   * Begin to send a run.
   *
   * @param address of the server: `http://HOST:PORT`, with a user and a password if it wants them
   *   (or `MLFLOW_TRACKING_USERNAME`, `MLFLOW_TRACKING_PASSWORD`, `MLFLOW_TRACKING_TOKEN`)
   * @param warn is called with a line at most once
   * @throws UsageError if the address is none
   */
  constructor(
    address: string,
    private readonly run: Run,
    private readonly warn: (line: string) => void,
    private readonly patience = PATIENCE,
  ) {
    const url = checkTracker(address);
    const { MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN } =
      process.env;
    const user = decodeURIComponent(url.username) || (MLFLOW_TRACKING_USERNAME ?? "");
    const password = decodeURIComponent(url.password) || (MLFLOW_TRACKING_PASSWORD ?? "");
    const basic = Buffer.from(`${user}:${password}`).toString("base64");
    this.headers =
      user !== ""
        ? { Authorization: `Basic ${basic}` }
        : MLFLOW_TRACKING_TOKEN
          ? { Authorization: `Bearer ${MLFLOW_TRACKING_TOKEN}` }
          : {};
    this.base = `${url.origin}${url.pathname.replace(/\/$/, "")}/api/2.0`;
    this.local = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(url.hostname);
    this.looping = this.loop();
  }

  /** Send the rest, for some seconds at most, and stop. Never fails. */
  async end(): Promise<void> {
    const last = AbortSignal.timeout(this.failures > 0 ? this.patience.lost : this.patience.rest);
    this.stopping.abort();
    await this.looping;
    while (!last.aborted && (await this.attempt(last)) === "failed") await pause(RETRY / 4, last);
  }

  private async loop(): Promise<void> {
    const { signal } = this.stopping;
    while (!signal.aborted) {
      const sent = (await this.attempt(signal)) === "sent";
      const wait = sent ? PAUSE : Math.min(LONGEST_RETRY, RETRY * 2 ** (this.failures - 1));
      await pause(wait, signal);
    }
  }

  /** Send what is new. A request that the server refused would be refused again. */
  private async attempt(signal: AbortSignal): Promise<"sent" | "failed" | "refused"> {
    try {
      await this.send(signal);
      this.failures = 0;
      return "sent";
    } catch (error) {
      this.target = undefined; // the server knows best what has arrived
      if (signal.aborted && signal === this.stopping.signal) return "failed";
      this.failures++;
      const gone = error instanceof Error ? error.message : String(error);
      if (!this.warned)
        this.warn(`the MLflow server at ${this.base} fails: ${gone}; the run goes on`);
      this.warned = true;
      return error instanceof Refused ? "refused" : "failed";
    }
  }

  private async send(signal: AbortSignal): Promise<void> {
    const { run } = this;
    this.target ??= await this.find(signal);
    for (let more = true; more; ) {
      const part = await readLog(run.path, this.at);
      if (part.events.length > 0 || part.to > this.at) await this.log(part.events, part.to, signal);
      more = part.more;
    }
    const last = this.state;
    if (last === "RUNNING" || this.target.info.status === last) return;
    if (last === "FINISHED") await this.sendResult(signal);
    await this.post("runs/update", { status: last, end_time: Date.now() }, signal);
    this.target.info.status = last;
  }

  /** Send events, and remember the position after them in the same request. */
  private async log(events: readonly PlacedEvent[], to: number, signal: AbortSignal) {
    const metrics = events.flatMap(([, event]) => metricsOf(event));
    for (const [, event] of events) {
      const state = STATES[event.type];
      if (state !== undefined) this.state = state;
      else if (event.type === "resumed" || event.type === "attached") this.state = "RUNNING";
    }
    if (this.state === "RUNNING" && this.target?.info.status !== "RUNNING") {
      await this.post("runs/update", { status: "RUNNING" }, signal);
      this.target!.info.status = "RUNNING";
    }
    for (let i = 0; i === 0 || i < metrics.length; i += METRICS) {
      const last = i + METRICS >= metrics.length;
      const tags = last ? [{ key: AT_TAG, value: String(to) }] : [];
      await this.post("runs/log-batch", { metrics: metrics.slice(i, i + METRICS), tags }, signal);
    }
    this.at = to;
  }

  /** Send figures, result, report and settings of a finished run. */
  private async sendResult(signal: AbortSignal): Promise<void> {
    const { path } = this.run;
    const text = (await readPlain(path, "result.json", ARTEFACT)) ?? "null";
    const result = Result.safeParse(JSON.parse(text));
    if (result.success) {
      const { answer = "", figures } = rowOf(result.data);
      const metrics = Object.entries(figures).map(([name, value]) => ({
        key: nameOf(`result/${name}`),
        value,
        timestamp: Date.now(),
        step: 0,
      }));
      const tags = [{ key: "atlas.found", value: answer.slice(0, VALUE) }];
      await this.post("runs/log-batch", { metrics, tags }, signal);
    }
    await this.upload("result.json", text, signal);
    for (const name of ["report.html", "config.json"]) {
      const contents = await readPlain(path, name, ARTEFACT).catch(() => undefined);
      if (contents !== undefined) await this.upload(name, contents, signal);
    }
  }

  private async upload(name: string, contents: string, signal: AbortSignal): Promise<void> {
    const { artifact_uri: root } = this.target!.info;
    const [, place] = /^mlflow-artifacts:(?:\/\/[^/]*)?\/(.*)$/.exec(root) ?? [];
    if (place === undefined)
      throw new Refused(
        `it keeps artefacts in ${root}, which it does not serve (--serve-artifacts)`,
      );
    const file = [...place.split("/"), name].map(encodeURIComponent).join("/");
    await this.ask(`mlflow-artifacts/artifacts/${file}`, { method: "PUT", body: contents }, signal);
  }

  /** Find the MLflow run of this run, or make it. */
  private async find(signal: AbortSignal): Promise<MlflowRun> {
    const experiment = await this.findExperiment(signal);
    const { id } = this.run;
    const query = {
      experiment_ids: [experiment],
      filter: `tags.\`${RUN_TAG}\` = '${id.replaceAll(/['\\]/g, "")}'`,
      max_results: 1,
    };
    const { runs = [] } = await this.ask<{ runs?: MlflowRun[] }>(
      "mlflow/runs/search",
      query,
      signal,
    );
    const [known] = runs;
    if (known) {
      const at = Number(known.data.tags?.find(({ key }) => key === AT_TAG)?.value ?? 0);
      this.at = Number.isSafeInteger(at) && at >= 0 ? at : 0;
      if (this.at === 0) await this.describe(known, signal);
      return known;
    }
    const { config } = this.run;
    const tags: Record<string, string> = {
      "mlflow.runName": id,
      "mlflow.source.name": `atlas ${config.experiment}`,
      [RUN_TAG]: id,
      "atlas.version": VERSION,
      "atlas.folder": this.run.path,
      ...Object.fromEntries((config.tags ?? []).map((tag) => [nameOf(tag), "true"])),
    };
    const { run } = await this.ask<{ run: MlflowRun }>(
      "mlflow/runs/create",
      {
        experiment_id: experiment,
        run_name: id,
        start_time: Date.parse(config.created),
        tags: Object.entries(tags).map(([key, value]) => ({ key, value })),
      },
      signal,
    );
    this.at = 0;
    await this.describe(run, signal);
    return run;
  }

  /** Send the parameters. */
  private async describe(target: MlflowRun, signal: AbortSignal): Promise<void> {
    const { experiment, preset, seed, config } = this.run.config;
    const params = Object.entries({ experiment, preset, seed, ...config })
      .filter(([, value]) => value !== undefined && value !== null)
      .map(([name, value]) => ({
        key: nameOf(name),
        value: (typeof value === "string" ? value : JSON.stringify(value)).slice(0, VALUE),
      }));
    for (let i = 0; i < params.length; i += PARAMS)
      await this.ask(
        "mlflow/runs/log-batch",
        { run_id: target.info.run_id, params: params.slice(i, i + PARAMS) },
        signal,
      );
  }

  private async findExperiment(signal: AbortSignal): Promise<string> {
    const name = process.env.MLFLOW_EXPERIMENT_NAME || "atlas";
    const path = `mlflow/experiments/get-by-name?experiment_name=${encodeURIComponent(name)}`;
    for (const first of [true, false])
      try {
        const found = await this.ask<{ experiment: { experiment_id: string } }>(
          path,
          { method: "GET" },
          signal,
        );
        return found.experiment.experiment_id;
      } catch (error) {
        if (!first || !(error instanceof Refused)) throw error;
        // Another run may make it at the same time
        await this.ask("mlflow/experiments/create", { name }, signal).catch(() => undefined);
      }
    throw new Error("unreachable");
  }

  private post(path: string, body: object, signal: AbortSignal): Promise<unknown> {
    const { run_id } = this.target!.info;
    return this.ask(`mlflow/${path}`, { run_id, ...body }, signal);
  }

  /** Send a request. @param request JSON to post, or a method with a body */
  private async ask<T = unknown>(
    path: string,
    request: object | { method: string; body?: string },
    signal: AbortSignal,
  ): Promise<T> {
    const { method, body } =
      "method" in request
        ? (request as { method: string; body?: string })
        : { method: "POST", body: JSON.stringify(request) };
    const { fetch, dispatcher } = await connect();
    const response = await fetch(`${this.base}/${path}`, {
      method,
      body,
      headers: {
        ...this.headers,
        "Content-Type": method === "PUT" ? "application/octet-stream" : "application/json",
      },
      redirect: "error", // it would take the password elsewhere
      signal: AbortSignal.any([signal, AbortSignal.timeout(this.patience.answer)]),
      ...(this.local ? {} : { dispatcher }),
    }).catch((error: unknown) => {
      const { name, message, cause } = error as Error;
      if (name === "TimeoutError") throw new Error(`no answer in ${this.patience.answer / 1000} s`);
      throw new Error(cause instanceof Error ? cause.message : message);
    });
    const text = await response.text();
    if (response.ok) return (text === "" ? {} : JSON.parse(text)) as T;
    const line = `${response.status} ${text.slice(0, 200).replaceAll(/\s+/g, " ")}`;
    throw response.status >= 400 && response.status < 500 && response.status !== 429
      ? new Refused(line)
      : new Error(line);
  }
}

/** Make the metrics of an event: `predictor/loss`, by epoch. */
function metricsOf(event: RunEvent) {
  if (event.type !== "epoch") return [];
  const { stage, epoch, metrics, seconds, time } = event;
  const timestamp = Date.parse(time);
  return Object.entries({ ...metrics, seconds })
    .filter(([, value]) => Number.isFinite(value))
    .map(([name, value]) => ({ key: nameOf(`${stage}/${name}`), value, timestamp, step: epoch }));
}

/** Replace what MLflow does not take in a name. */
function nameOf(text: string): string {
  return text.replaceAll(/[^\w\-. :/]/g, "_").slice(0, 250);
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => undefined);
}
