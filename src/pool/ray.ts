/**
 * The pool `ray:http://HOST:8265`. Ray only places jobs, by its HTTP Jobs API. No Ray is needed
 * here or in the worker's environment.
 */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import { z } from "zod";
import { UsageError, WorkerUnavailable } from "../errors.js";
import type { Cluster, JobState, Need } from "./jobs.js";

const TIMEOUT_MS = 30_000;
/** Milliseconds for which a cluster may have no node. */
const STARTING_MS = 60_000;

const Nodes = z.object({
  data: z.object({
    summary: z.array(
      z.object({
        raylet: z.object({
          state: z.string().optional(),
          resourcesTotal: z.record(z.string(), z.number()).optional(),
        }),
      }),
    ),
  }),
});
const Job = z.object({ status: z.string(), message: z.string().nullish() });

/** A Ray cluster. */
export class RayCluster implements Cluster {
  private constructor(
    private readonly url: string,
    private readonly token: string | undefined,
  ) {}

  /** @throws UsageError if the pool's name holds no address */
  static async open(name: string): Promise<RayCluster> {
    const text = name.slice("ray:".length).replace(/\/+$/, "");
    if (!name.startsWith("ray:") || !/^https?:\/\/[^/\s]+$/.test(text) || !URL.canParse(text))
      throw new UsageError(
        `--pool ${name}: the address of the cluster is missing`,
        "write ray:http://HOST:8265, the address of its dashboard",
      );
    return new RayCluster(text, await readToken());
  }

  async room({ threads, gpus }: Need): Promise<number> {
    let parsed = Nodes.safeParse(await this.ask("GET", "/nodes?view=summary"));
    // The nodes of a cluster that has just started come some seconds after its dashboard.
    const end = performance.now() + STARTING_MS;
    while (parsed.data?.data.summary.length === 0 && performance.now() < end) {
      await sleep(1_000);
      parsed = Nodes.safeParse(await this.ask("GET", "/nodes?view=summary"));
    }
    if (!parsed.success)
      throw new WorkerUnavailable(
        `what answers at ${this.url} is no Ray cluster`,
        "check the port",
        {
          setting: "pool",
        },
      );
    // A worker must fit in one node.
    const perNode = parsed.data.data.summary
      .filter(({ raylet }) => (raylet.state ?? "ALIVE") === "ALIVE")
      .map(({ raylet: { resourcesTotal = {} } }) => {
        const byCpu = Math.floor((resourcesTotal.CPU ?? 0) / threads);
        return gpus === 0 ? byCpu : Math.min(byCpu, Math.floor((resourcesTotal.GPU ?? 0) / gpus));
      });
    return perNode.reduce((sum, count) => sum + count, 0);
  }

  async submit(command: string, { threads, gpus }: Need): Promise<string> {
    const id = `atlas-${randomBytes(6).toString("hex")}`;
    await this.ask("POST", "/api/jobs/", {
      submission_id: id,
      // Without these numbers the job would run on the head, whatever its load.
      ...{ entrypoint_num_cpus: threads, entrypoint_num_gpus: gpus },
      // Since 2026 a job of no GPU sees every GPU.
      entrypoint: gpus === 0 ? `export CUDA_VISIBLE_DEVICES= && ${command}` : command,
    });
    return id;
  }

  async stateOf(id: string): Promise<JobState> {
    const { status, message } = Job.parse(await this.ask("GET", `/api/jobs/${id}`));
    const said = message ? `${status.toLowerCase()}: ${message}` : status.toLowerCase();
    const state = status === "PENDING" ? "waiting" : status === "RUNNING" ? "running" : "ended";
    return { state, said: said.split("\n")[0]!.slice(0, 200) };
  }

  async logOf(id: string): Promise<string> {
    const { logs } = z
      .object({ logs: z.string() })
      .parse(await this.ask("GET", `/api/jobs/${id}/logs`));
    return logs;
  }

  async stop(id: string): Promise<void> {
    await this.ask("POST", `/api/jobs/${id}/stop`, {});
  }

  private async ask(method: "GET" | "POST", path: string, body?: object): Promise<unknown> {
    let status: number;
    let text: string;
    try {
      // Ray refuses browsers, and takes Node's fetch for one by its headers.
      const response = await request(`${this.url}${path}`, {
        method,
        headers: {
          ...(body ? { "content-type": "application/json" } : {}),
          ...(this.token === undefined ? {} : { authorization: `Bearer ${this.token}` }),
        },
        body: body && JSON.stringify(body),
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      status = response.statusCode;
      text = await response.body.text();
    } catch (error) {
      const why = (error as Error).message;
      throw new WorkerUnavailable(
        `the Ray cluster at ${this.url} cannot be reached: ${why || "no answer"}`,
        "check the address, and that the dashboard of the head is running",
        { cause: error, setting: "pool" },
      );
    }
    if (status === 401 || status === 403)
      throw new UsageError(
        `the Ray cluster at ${this.url} refuses ${this.token === undefined ? "a caller without a token" : "the token"}`,
        "give its token in RAY_AUTH_TOKEN, or in a file that RAY_AUTH_TOKEN_PATH names",
      );
    if (status >= 300)
      throw new WorkerUnavailable(
        `the Ray cluster at ${this.url} answers ${status}: ${text.trim().split("\n").at(-1)?.slice(0, 300)}`,
        "see the log of its dashboard",
        { setting: "pool" },
      );
    try {
      return JSON.parse(text);
    } catch {
      return undefined;
    }
  }
}

/** Find the token of the cluster, where Ray's own programs look for it. */
async function readToken(): Promise<string | undefined> {
  const { RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH } = process.env;
  if (RAY_AUTH_TOKEN) return RAY_AUTH_TOKEN.trim();
  const path = RAY_AUTH_TOKEN_PATH || join(homedir(), ".ray", "auth_token");
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    if (RAY_AUTH_TOKEN_PATH)
      throw new UsageError(`the token in ${path} cannot be read: ${(error as Error).message}`);
    return "";
  });
  return text.trim() || undefined;
}
