/** The pool `slurm:PARTITION`: sbatch, squeue and scancel, which must be here. */
import { mkdirSync, mkdtempSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { z } from "zod";
import { UsageError, WorkerUnavailable } from "../errors.js";
import { childEnvironment } from "../setup/environment.mjs";
import type { Cluster, JobState, Need } from "./jobs.js";

const Queue = z.object({
  jobs: z.array(
    z.object({
      job_id: z.int(),
      /** A word, or since Slurm 23 a list of words. */
      job_state: z.union([z.string(), z.array(z.string())]),
      state_reason: z.string().nullish(),
    }),
  ),
});

const WAITING = ["PENDING", "CONFIGURING", "REQUEUED", "SUSPENDED", "RESIZING"];

/** A partition of a Slurm cluster. The nodes share the user's home with this machine. */
export class SlurmCluster implements Cluster {
  private made: string | undefined;

  private constructor(private readonly partition: string) {}

  /** A folder for the output of the jobs, which the nodes share. */
  private get folder(): string {
    if (this.made !== undefined) return this.made;
    const state = process.env.XDG_STATE_HOME || join(homedir(), ".local", "state");
    const parent = process.env.ATLAS_POOL_FOLDER || join(state, "atlas-symmetry", "pools");
    mkdirSync(parent, { recursive: true, mode: 0o700 });
    this.made = mkdtempSync(join(parent, "slurm-"));
    return this.made;
  }

  async close(): Promise<void> {
    if (this.made !== undefined) await rm(this.made, { recursive: true, force: true });
  }

  /** @throws UsageError if the pool's name holds no partition */
  static open(name: string): SlurmCluster {
    const [, partition] = /^slurm:([\w.-]+)$/.exec(name) ?? [];
    if (partition === undefined || partition.startsWith("-"))
      throw new UsageError(`--pool ${name}: the partition is missing`, "write slurm:PARTITION");
    return new SlurmCluster(partition);
  }

  async room({ threads, gpus }: Need): Promise<number> {
    const { partition } = this;
    const { stdout } = await call("sinfo", ["-h", "-p", partition, "-N", "-o", "%c %t %G"]);
    const nodes = stdout.split("\n").filter(Boolean);
    if (nodes.length === 0)
      throw new UsageError(
        `Slurm has no partition ${partition} with nodes`,
        "list them with: sinfo",
      );
    return nodes
      .map((line) => {
        const [cpus = "0", state = "", gres = ""] = line.trim().split(/\s+/);
        if (/^(down|drain|drng|fail|boot|unk)/.test(state)) return 0;
        const cards = Number(/gpu(?::\w+)?:(\d+)/.exec(gres)?.[1] ?? 0);
        const byCpu = Math.floor(Number(cpus) / threads);
        return gpus === 0 ? byCpu : Math.min(byCpu, Math.floor(cards / gpus));
      })
      .reduce((sum, count) => sum + count, 0);
  }

  async submit(command: string, { threads, gpus }: Need): Promise<string> {
    const { stdout } = await call(
      "sbatch",
      [
        ...["--parsable", "--job-name=atlas", `--partition=${this.partition}`, "--ntasks=1"],
        ...[`--cpus-per-task=${threads}`, `--output=${join(this.folder, "%j.log")}`],
        ...(gpus > 0 ? [`--gres=gpu:${gpus}`] : []),
        ...["--export=NONE", "--no-requeue", "--open-mode=append"],
      ],
      `#!/bin/sh\n${command}\n`,
    );
    return stdout.trim().split(";")[0]!;
  }

  async stateOf(id: string): Promise<JobState> {
    const { stdout } = await call("squeue", ["--json", "-j", id]).catch((error: unknown) => {
      if (/Invalid job id/i.test(String(error))) return { stdout: '{"jobs": []}' };
      throw error;
    });
    const job = Queue.parse(JSON.parse(stdout)).jobs.find(({ job_id }) => String(job_id) === id);
    if (!job) return { state: "ended", said: "no longer in the queue" };
    const word = [job.job_state].flat().join(" ");
    const reason = job.state_reason && job.state_reason !== "None" ? `: ${job.state_reason}` : "";
    const said = `${word.toLowerCase()}${reason}`;
    if (word === "RUNNING" || word === "COMPLETING") return { state: "running", said };
    return { state: WAITING.some((w) => word.startsWith(w)) ? "waiting" : "ended", said };
  }

  logOf(id: string): Promise<string> {
    return readFile(join(this.folder, `${id}.log`), "utf8").catch(() => "");
  }

  async stop(id: string): Promise<void> {
    await call("scancel", [id]);
    await rm(join(this.folder, `${id}.log`), { force: true });
  }
}

async function call(command: string, args: readonly string[], input?: string) {
  const done = await execa(command, args, {
    ...{ env: childEnvironment(), extendEnv: false, reject: false, timeout: 30_000 },
    ...(input === undefined ? { stdin: "ignore" as const } : { input }),
  });
  if (done.exitCode === 0) return { stdout: done.stdout };
  if (done.code === "ENOENT")
    throw new UsageError(
      `${command} is not on this machine`,
      "run atlas where Slurm's commands are",
      { setting: "pool" },
    );
  const said = (done.stderr || done.shortMessage || "").trim().split("\n").at(-1) ?? "";
  throw new WorkerUnavailable(`${command} failed: ${said}`, "see: sinfo", { setting: "pool" });
}
