/** What the page shows of one run. */
import { join, relative } from "node:path";
import { resultSections } from "../report/render.js";
import { thin } from "../report/thin.js";
import { codeOf } from "../run/code.js";
import type { RunEvent } from "../run/events.js";
import type { RunConfig } from "../run/folder.js";
import { type LiveStage, readLive } from "../run/live.js";
import { readLog } from "../run/log.js";
import { cut, stampOf } from "../run/plain.js";
import {
  isWorkedOn,
  readResult,
  readRunConfig,
  reasonOf,
  type Summary,
  summarise,
} from "./summary.js";

/** A stage of a run, after its newest epoch. */
export interface StageState {
  stage: string;
  epoch: number;
  totalEpochs: number;
  /** Computing time of the epochs so far, in seconds. */
  seconds: number;
  /** Time left at the pace of the last epochs, in seconds. */
  left: number;
}

/** A metric of a stage by epoch. Of many epochs, those that a screen can show. */
export interface Curve {
  stage: string;
  metric: string;
  points: [epoch: number, value: number][];
}

/** One run. */
export interface Detail {
  summary: Summary;
  /** Path of the folder. */
  path: string;
  /** Settings as text. */
  config: Record<string, string>;
  worker?: { address: string; device: string; threads: number; version: string };
  stages: StageState[];
  curves: Curve[];
  /** The steps of the stages that the run works on. */
  steps: LiveStage[];
  /** The newest events, with their positions. */
  log: [to: number, event: RunEvent][];
  /** Position after the last event that is part of this. */
  at: number;
  /** The sections about the result: markup of our own, in which every text is escaped. */
  result?: { id: string; title: string; markup: string }[];
  /** The command that finishes the run; undefined if there is nothing to finish. */
  resume?: string;
  report: boolean;
}

/** Number of curves, stages, and events in the log at most. */
const [CURVES, STAGES, EVENTS] = [120, 60, 400];
/** Points of a curve at most: more than a screen has columns for. */
const POINTS = 1500;
/** Epochs from which the pace is taken. */
const PACE = 5;
/** Characters of a value of a setting at most. */
const SETTING = 4000;

/** Read all that the page shows of a run. @returns undefined if there is no such run */
export async function readDetail(runs: string, id: string): Promise<Detail | undefined> {
  const folder = join(runs, id);
  const summary = await summarise(runs, id);
  if (summary === undefined) return undefined;
  const detail: Detail = {
    summary,
    path: folder,
    config: {},
    stages: [],
    curves: [],
    steps: [],
    log: [],
    at: 0,
    report: (await stampOf(folder, "report.html")) !== undefined,
  };
  const config = await readRunConfig(folder).catch(() => undefined);
  if (config) detail.config = settingsOf(config);
  if (config && summary.status !== "finished" && !(await isWorkedOn(folder)))
    detail.resume = resumeCommand(folder, config);
  await addLog(detail, folder);
  if (summary.status === "running") detail.steps = await readLive(folder);
  if (summary.status === "finished")
    detail.result = await readResult(folder).then(
      (result) =>
        result &&
        resultSections(result).map(({ id, title, html }) => ({ id, title, markup: html.text })),
      () => undefined, // the summary says why
    );
  return detail;
}

/** Read the steps of a run. One that does not work has none, whatever it left behind. */
export async function readSteps(runs: string, id: string): Promise<LiveStage[]> {
  const folder = join(runs, id);
  return (await isWorkedOn(folder)) ? readLive(folder) : [];
}

/** Write the settings of a run as texts. */
export function settingsOf(config: RunConfig): Record<string, string> {
  const { experiment, preset, seed, file, worker, versions } = config;
  const text = (value: unknown) =>
    cut(typeof value === "string" ? value : JSON.stringify(value), SETTING);
  const own = Object.entries(config.config).map(([name, value]) => [cut(name, 200), text(value)]);
  const all = Object.entries({ experiment, preset, seed, file, worker, versions })
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => [name, text(value)]);
  return Object.fromEntries([...all, ...own.slice(0, 500)]);
}

/** Write the command that finishes a run, for a shell in this process's folder. */
export function resumeCommand(folder: string, config: RunConfig): string {
  const near = relative(process.cwd(), folder);
  const name = near === join("runs", config.id) ? config.id : near.startsWith("..") ? folder : near;
  const quoted = /^[\w./:@%+,-]+$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`;
  return `atlas resume ${quoted}${codeOf(config) === undefined ? "" : " --trust-code"}`;
}

async function addLog(detail: Detail, folder: string): Promise<void> {
  const stages = new Map<string, { state: StageState; last: [epoch: number, seconds: number][] }>();
  const curves = new Map<string, Map<number, number>>();
  try {
    for (let more = true; more; ) {
      const part = await readLog(folder, detail.at);
      for (const [to, event] of part.events) {
        detail.log.push([to, shortened(event)]);
        if (event.type === "worker") {
          const { address, device, threads, version } = event;
          detail.worker = { address, device, threads, version };
        }
        if (event.type === "epoch") addEpoch(event, stages, curves);
      }
      if (detail.log.length > 2 * EVENTS) detail.log.splice(0, detail.log.length - EVENTS);
      detail.at = part.to;
      more = part.more;
    }
  } catch (error) {
    detail.summary.message ||= reasonOf(error);
  }
  detail.log.splice(0, detail.log.length - EVENTS);
  detail.stages = [...stages.values()].map(({ state }) => state);
  detail.curves = [...curves].map(([key, points]) => {
    const [stage = "", metric = ""] = JSON.parse(key) as string[];
    return {
      stage,
      metric,
      points: thin(
        [...points].sort(([a], [b]) => a - b),
        POINTS,
      ),
    };
  });
}

function addEpoch(
  event: Extract<RunEvent, { type: "epoch" }>,
  stages: Map<string, { state: StageState; last: [epoch: number, seconds: number][] }>,
  curves: Map<string, Map<number, number>>,
): void {
  const { epoch, totalEpochs, seconds } = event;
  const stage = cut(event.stage, 120);
  const known = stages.get(stage);
  if (known === undefined && stages.size >= STAGES) return;
  const last = [...(known?.last ?? []).filter(([e]) => e < epoch), [epoch, seconds]].slice(
    -PACE,
  ) as [number, number][];
  const pace = last.reduce((sum, [, s]) => sum + s, 0) / last.length;
  // An epoch that a resumed run did again counts once.
  const again = known !== undefined && epoch <= known.state.epoch;
  stages.set(stage, {
    last,
    state: {
      stage,
      epoch,
      totalEpochs,
      seconds: again ? known.state.seconds : (known?.state.seconds ?? 0) + seconds,
      left: Math.max(0, totalEpochs - epoch) * pace,
    },
  });
  for (const [metric, value] of Object.entries(event.metrics)) {
    const key = JSON.stringify([stage, cut(metric, 120)]);
    const curve = curves.get(key) ?? new Map<number, number>();
    if (curve.size === 0 && curves.size >= CURVES) continue;
    curves.set(key, curve.set(epoch, value));
  }
}

/** Shorten the texts of an event. */
export function shortened(event: RunEvent): RunEvent {
  return JSON.parse(
    JSON.stringify(event, (_, value) => (typeof value === "string" ? cut(value, 2000) : value)),
  );
}
