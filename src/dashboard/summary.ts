/** What the list of runs shows of a run folder, read without trust in it. */
import { lstat } from "node:fs/promises";
import { join } from "node:path";
import { rowOf } from "../pool/seeds.js";
import { inShort } from "../pool/summary.js";
import { Result } from "../result.js";
import type { EpochRecord, RunEvent } from "../run/events.js";
import { RunConfig, type RunStatus } from "../run/folder.js";
import { lockHolder } from "../run/lock.js";
import { readTail } from "../run/log.js";
import { cut, MOST_CONFIG, MOST_RESULT, readJson, stampOf } from "../run/plain.js";

/** A run in the list. Texts are shortened. */
export interface Summary {
  /** Name of the run's folder. */
  id: string;
  experiment: string;
  task: string;
  preset: string;
  seed: number;
  created: string;
  tags: string[];
  /** "damaged" if the folder cannot be read as a run's. */
  status: RunStatus | "damaged";
  /** The newest epoch. */
  progress?: { stage: string; epoch: number; totalEpochs: number };
  /** Metrics of the newest epoch, and scores of the result. */
  metrics: Record<string, number>;
  /** What was found: "so(2); identity, reflection". */
  finding: string;
  /** Why the run failed, or what is damaged. */
  message: string;
  /** Time of the newest event. */
  changed: string;
  /** Position after the log's last whole line. */
  at: number;
}

/** Characters of a name, and of a message, at most. */
const [NAME, MESSAGE] = [120, 400];
/** Metrics at most. */
const METRICS = 24;

/** Read the config of a run. @throws FileError if it is missing, damaged or too large */
export async function readRunConfig(folder: string): Promise<RunConfig | undefined> {
  const json = await readJson(folder, "config.json", MOST_CONFIG);
  return json === undefined ? undefined : RunConfig.parse(json);
}

/** Read the result of a run. @throws FileError or ZodError if it is damaged or too large */
export async function readResult(folder: string): Promise<Result | undefined> {
  const json = await readJson(folder, "result.json", MOST_RESULT);
  return json === undefined ? undefined : Result.parse(json);
}

/** Say in one line why a file is not shown. */
export function reasonOf(error: unknown): string {
  const issues = (error as { issues?: { path: PropertyKey[]; message: string }[] }).issues;
  const [issue] = issues ?? [];
  if (issue) return cut(`${issue.path.map(String).join(".") || "it"}: ${issue.message}`, MESSAGE);
  return cut(error instanceof Error ? error.message : String(error), MESSAGE);
}

/** Say in one line which file is not shown, and why. */
export function wrongWith(file: string, error: unknown): string {
  const reason = reasonOf(error);
  return reason.startsWith(file) ? reason : `${file}: ${reason}`;
}

/** Whether a process works in a run's folder. */
export async function isWorkedOn(folder: string): Promise<boolean> {
  const about = await lstat(join(folder, "lock")).catch(() => undefined);
  if (!about?.isFile() || about.size > 4096) return false; // no lock of ours
  return (await lockHolder(folder)) !== undefined;
}

/** Find the state of a run from its folder and its newest events. */
export async function statusOf(
  folder: string,
  events: readonly RunEvent[],
  finished: boolean,
): Promise<RunStatus> {
  if (finished) return "finished";
  if (await isWorkedOn(folder)) return "running";
  return events.at(-1)?.type === "failed" ? "failed" : "interrupted";
}

/**
 * Summarise a run.
 *
 * @returns undefined if the folder is not a run's
 */
export async function summarise(runs: string, id: string): Promise<Summary | undefined> {
  const folder = join(runs, id);
  const summary: Summary = {
    id,
    experiment: "",
    task: "",
    preset: "",
    seed: 0,
    created: "",
    tags: [],
    status: "damaged",
    metrics: {},
    finding: "",
    message: "",
    changed: "",
    at: 0,
  };
  try {
    const config = await readRunConfig(folder);
    if (config === undefined) return undefined;
    const { experiment, preset = "", seed, created, config: settings, tags = [] } = config;
    const task = typeof settings.task === "string" ? settings.task : "";
    Object.assign(summary, {
      experiment: cut(experiment, NAME),
      task: cut(task, NAME),
      preset: cut(preset, NAME),
      seed,
      created: cut(created, 40),
      tags: tags.slice(0, 16).map((tag) => cut(tag, NAME)),
    });
  } catch (error) {
    summary.message = wrongWith("config.json", error);
    return summary;
  }
  try {
    const { events, at } = await readTail(folder);
    const finished = (await stampOf(folder, "result.json")) !== undefined;
    summary.at = at;
    summary.status = await statusOf(folder, events, finished);
    const last = events.at(-1);
    summary.changed = cut(last?.time ?? "", 40);
    const epoch = events.findLast((e): e is EpochRecord => e.type === "epoch");
    if (epoch) {
      const { stage, epoch: done, totalEpochs } = epoch;
      summary.progress = { stage: cut(stage, NAME), epoch: done, totalEpochs };
      addMetrics(summary.metrics, epoch.metrics);
    }
    if (summary.status === "failed" && last?.type === "failed")
      summary.message = cut(last.message, MESSAGE);
    if (finished) await addResult(summary, folder);
  } catch (error) {
    summary.message = reasonOf(error);
  }
  return summary;
}

async function addResult(summary: Summary, folder: string): Promise<void> {
  try {
    const result = await readResult(folder);
    if (result === undefined) return;
    const { answer = "", figures } = rowOf(result);
    summary.finding = cut(inShort(answer), MESSAGE);
    summary.metrics = {};
    addMetrics(summary.metrics, figures);
  } catch (error) {
    summary.message = wrongWith("result.json", error);
  }
}

function addMetrics(to: Record<string, number>, from: Readonly<Record<string, number | null>>) {
  for (const [name, value] of Object.entries(from))
    if (typeof value === "number" && Number.isFinite(value) && Object.keys(to).length < METRICS)
      to[cut(name, NAME)] = value;
}
