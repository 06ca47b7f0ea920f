/**
 * live.json: the steps of the stages that a run works on, for whoever looks at the run. It is a
 * convenience: it is not part of the run's record, is removed when the run ends, and a run whose
 * disk does not take it goes on.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../setup/atomic.mjs";
import { cut, readJson } from "./plain.js";
import { StepRing } from "./steps.js";

/** Name of the file in a run's folder. */
export const LIVE = "live.json";

/** The version of the schema of live.json. */
const LIVE_SCHEMA = "atlas.live/1";
/** Bytes of a live.json at most. */
const MOST_LIVE = 1 << 20;
/** Milliseconds between two writes. */
const INTERVAL = 1000;
/** Number of stages and metrics that are followed. */
const [STAGES, METRICS] = [4, 12];
/** Number of points of a curve that are read. */
const POINTS = 2000;
/** Characters of a name at most, as of the names of epochs. */
const NAME = 120;

const count = z.int().min(0);
const Live = z.object({
  schema: z.literal(LIVE_SCHEMA),
  stages: z
    .array(
      z.object({
        stage: z.string(),
        epoch: count,
        totalEpochs: count,
        step: count,
        stepsInEpoch: count,
        curves: z
          .array(
            z.object({
              metric: z.string(),
              points: z.array(z.tuple([z.number(), z.number().nullable()])).max(POINTS),
            }),
          )
          .max(METRICS),
      }),
    )
    .max(STAGES),
});
/** A stage that is being worked on. `epoch` is the number of finished epochs. */
export type LiveStage = z.infer<typeof Live>["stages"][number];

/**
 * Read the steps of a running run. A file that is missing, damaged or too large has none.
 *
 * @param folder of the run, a stranger's input
 */
export async function readLive(folder: string): Promise<LiveStage[]> {
  const parsed = Live.safeParse(await readJson(folder, LIVE, MOST_LIVE).catch(() => undefined));
  return (parsed.data?.stages ?? []).map((stage) => ({
    ...stage,
    stage: cut(stage.stage, NAME),
    curves: stage.curves.map(({ metric, points }) => ({ metric: cut(metric, NAME), points })),
  }));
}

/** A step of a stage. `epoch` is the number of finished epochs. */
export interface LiveStep {
  stage: string;
  epoch: number;
  totalEpochs: number;
  step: number;
  stepsInEpoch: number;
  metrics: Readonly<Record<string, number>>;
}

interface Followed extends Omit<LiveStage, "curves"> {
  rings: Map<string, StepRing>;
}

/** Writes live.json of a run, at most once a second. */
export class LiveSteps {
  private readonly path: string;
  /** The stages, that with the newest step last. */
  private readonly stages = new Map<string, Followed>();
  /** Number of finished epochs of each stage. A step may come later than the end of its epoch. */
  private readonly reached = new Map<string, number>();
  private timer: NodeJS.Timeout | undefined;
  private writing: Promise<void> | undefined;
  private fresh = false;
  private ended = false;
  private wrote = Number.NEGATIVE_INFINITY;

  /**
   * @param folder of the run, in which this process works
   * @param intervalMs milliseconds between two writes at least
   */
  constructor(
    folder: string,
    private readonly intervalMs = INTERVAL,
  ) {
    this.path = join(folder, LIVE);
  }

  /** Take a step. */
  step({ stage, epoch, totalEpochs, step, stepsInEpoch, metrics }: LiveStep): void {
    if (epoch < (this.reached.get(stage) ?? 0)) return;
    const rings = this.stages.get(stage)?.rings ?? new Map<string, StepRing>();
    this.stages.delete(stage);
    this.stages.set(stage, { stage, epoch, totalEpochs, step, stepsInEpoch, rings });
    if (this.stages.size > STAGES) this.stages.delete([...this.stages.keys()][0]!);
    const at = Math.round(1e6 * (epoch + (stepsInEpoch > 0 ? step / stepsInEpoch : 0))) / 1e6;
    for (const [metric, value] of Object.entries(metrics)) {
      let ring = rings.get(metric);
      if (ring === undefined && rings.size >= METRICS) continue;
      ring ??= new StepRing();
      rings.set(metric, ring);
      ring.add(at, value);
    }
    this.changed();
  }

  /** Take the end of an epoch. After its last one a stage is not followed any more. */
  epoch({ stage, epoch, totalEpochs }: Pick<LiveStep, "stage" | "epoch" | "totalEpochs">): void {
    this.reached.set(stage, epoch);
    if (epoch >= totalEpochs && this.stages.delete(stage)) this.changed();
  }

  /** Remove the file, and write no more. */
  async end(): Promise<void> {
    this.ended = true;
    clearTimeout(this.timer);
    await this.writing;
    await rm(this.path, { force: true }).catch(() => undefined);
  }

  private changed(): void {
    this.fresh = true;
    if (this.ended || this.timer !== undefined || this.writing !== undefined) return;
    const wait = Math.max(0, this.wrote + this.intervalMs - performance.now());
    this.timer = setTimeout(() => {
      this.timer = undefined;
      this.writing = this.write().finally(() => {
        this.writing = undefined;
        if (this.fresh) this.changed();
      });
    }, wait);
    this.timer.unref();
  }

  private async write(): Promise<void> {
    this.fresh = false;
    const stages = [...this.stages.values()].map(({ rings, ...stage }): LiveStage => {
      return { ...stage, curves: [...rings].map(([metric, { points }]) => ({ metric, points })) };
    });
    const text = JSON.stringify({ schema: LIVE_SCHEMA, stages });
    // A full disk, or a folder that was removed, does not matter here.
    await writeFileAtomic(this.path, text, { durable: false }).catch(() => undefined);
    this.wrote = performance.now();
  }
}
