/** The curves of a run's log. */
import type { RunEvent } from "../run/events.js";
import type { CurvePoint } from "./plots.js";
import { thin } from "./thin.js";

/** Points of a curve at most, so that a page with many curves stays small. */
const POINTS = 600;

/** The epochs of each stage, with their metrics. Of an epoch done twice, the last try counts. */
export function stagesOf(
  events: readonly RunEvent[],
): Map<string, Map<number, Record<string, number>>> {
  const stages = new Map<string, Map<number, Record<string, number>>>();
  for (const event of events) {
    if (event.type !== "epoch") continue;
    const epochs = stages.get(event.stage) ?? new Map<number, Record<string, number>>();
    stages.set(event.stage, epochs.set(event.epoch, event.metrics));
  }
  return stages;
}

/** The chief metric of each stage: its loss, or else its first. Stages of one epoch have none. */
export function chiefCurves(
  events: readonly RunEvent[],
): { stage: string; name: string; points: CurvePoint[] }[] {
  return [...stagesOf(events)].flatMap(([stage, epochs]) => {
    const names = new Set([...epochs.values()].flatMap((m) => Object.keys(m)));
    const name = names.has("loss") ? "loss" : [...names][0];
    const points = [...epochs]
      .map(([epoch, metrics]): [number, number] => [epoch, metrics[name ?? ""] ?? Number.NaN])
      .filter(([, value]) => Number.isFinite(value))
      .sort(([a], [b]) => a - b);
    if (name === undefined || points.length < 2) return [];
    return [
      { stage, name, points: thin(points, POINTS).map(([epoch, value]) => ({ epoch, value })) },
    ];
  });
}
