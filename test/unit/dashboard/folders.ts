/** Run folders as other processes would leave them. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Result } from "../../../src/result.js";
import { CONFIG_SCHEMA } from "../../../src/run/folder.js";

/** What a run folder of a test has. */
export interface Made {
  experiment?: string;
  seed?: number;
  config?: object;
  tags?: string[];
  /** Number of epochs in the log. */
  epochs?: number;
  totalEpochs?: number;
  stage?: string;
  result?: Result;
}

/** One line of a log. */
export function epochLine(epoch: number, { totalEpochs = 200, stage = "predictor" } = {}): string {
  const loss = 2 / (1 + epoch) + 0.01 * Math.sin(7 * epoch);
  const metrics = { loss, accuracy: 1 - loss / 3 };
  const time = new Date(Date.UTC(2026, 0, 1, 12, 0, epoch)).toISOString();
  const event = { type: "epoch", stage, epoch, totalEpochs, metrics, seconds: 1.5, time };
  return `${JSON.stringify(event)}\n`;
}

/** Make a run folder. @returns its path */
export function makeRun(runs: string, id: string, made: Made = {}): string {
  const { experiment = "pde", seed = 1, config = {}, epochs = 0, result, tags } = made;
  const folder = join(runs, id);
  mkdirSync(folder, { recursive: true });
  const file = {
    schema: CONFIG_SCHEMA,
    id,
    created: "2026-01-01T12:00:00.000Z",
    experiment,
    seed,
    tags,
    config: { task: "discover", N: 1000, ...config },
    worker: { address: "local", device: "cpu" },
    versions: { atlas: "0.2.0" },
  };
  writeFileSync(join(folder, "config.json"), JSON.stringify(file));
  const started = { type: "started", time: file.created, pid: 1, host: "elsewhere" };
  const lines = Array.from({ length: epochs }, (_, i) => epochLine(i + 1, made));
  const finished = { type: "finished", time: "2026-01-01T13:00:00.000Z" };
  writeFileSync(
    join(folder, "events.jsonl"),
    `${JSON.stringify(started)}\n${lines.join("")}${result ? `${JSON.stringify(finished)}\n` : ""}`,
  );
  if (result) writeFileSync(join(folder, "result.json"), JSON.stringify(result));
  return folder;
}
