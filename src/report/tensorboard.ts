/** Write a run for TensorBoard: metrics of every stage by epoch, settings, and the result. */
import { join } from "node:path";
import { describeResult } from "../algebra/index.js";
import { Result } from "../result.js";
import { explainFileSystem, writeFileAtomic } from "../run/atomic.js";
import type { EpochRecord } from "../run/events.js";
import { makeFolder, type Run } from "../run/folder.js";
import { encodeEvents, type TensorBoardEvent } from "./tfevents.js";

/** The written file, and its contents. */
export interface TensorBoardExport {
  file: string;
  stages: string[];
  epochs: number;
}

/**
 * Write a run's event file into `folder`, which is made if it is missing. An earlier file is
 * replaced. Scalars are `<stage>/<metric>` and `<stage>/seconds`, by epoch.
 *
 * @throws FileError if the file cannot be written
 */
export async function exportToTensorBoard(run: Run, folder: string): Promise<TensorBoardExport> {
  const epochs = lastTries(await run.events());
  const created = new Date(run.config.created);
  const document = await run.result();
  const shown = [{ tag: "settings", text: settings(run) }];
  if (document !== undefined)
    shown.push({
      tag: "result",
      text: describeResult(Result.parse(document)).join("\n").replaceAll(/^/gm, "    "),
    });
  const events: TensorBoardEvent[] = [{ time: created, step: 0, shown }];
  for (const { stage, epoch, time, seconds, metrics } of epochs)
    events.push({
      time: new Date(time),
      step: epoch,
      shown: Object.entries({ seconds, ...metrics }).map(([name, scalar]) => ({
        tag: `${stage}/${name}`,
        scalar,
      })),
    });
  const file = join(folder, `events.out.tfevents.${Math.floor(created.getTime() / 1000)}.atlas`);
  try {
    await makeFolder(folder);
    await writeFileAtomic(file, encodeEvents(events));
  } catch (error) {
    throw explainFileSystem(error, "write", file);
  }
  return { file, stages: [...new Set(epochs.map(({ stage }) => stage))], epochs: epochs.length };
}

/** List the epochs in order. Of an epoch that a resumed run did again, only the last try counts. */
function lastTries(events: Awaited<ReturnType<Run["events"]>>): EpochRecord[] {
  const last = new Map<string, EpochRecord>();
  for (const event of events) {
    if (event.type !== "epoch") continue;
    const key = `${event.stage} ${event.epoch}`;
    last.delete(key);
    last.set(key, event);
  }
  return [...last.values()];
}

/** Make a table of the settings in Markdown. */
function settings({ config }: Run): string {
  const { experiment, preset, seed } = config;
  const rows = Object.entries({ experiment, preset, seed, ...config.config }).filter(
    ([, v]) => v !== undefined,
  );
  const cell = (value: unknown) =>
    (typeof value === "string" ? value : JSON.stringify(value))
      .replaceAll("|", "\\|")
      .replaceAll(/\s+/g, " ");
  return [
    "| setting | value |",
    "|---|---|",
    ...rows.map(([name, value]) => `| ${name} | ${cell(value)} |`),
  ].join("\n");
}
