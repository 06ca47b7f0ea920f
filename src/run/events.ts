/** events.jsonl: the log of a run, one JSON object in each line. Lines are only ever appended. */
import { type FileHandle, open, readFile } from "node:fs/promises";
import { z } from "zod";
import { errorCode, explainFileSystem } from "./atomic.js";

const time = z.string();
const Event = z.discriminatedUnion("type", [
  z.object({ type: z.literal("started"), time, pid: z.int(), host: z.string() }),
  z.object({ type: z.literal("resumed"), time, pid: z.int(), host: z.string() }),
  z.object({ type: z.literal("attached"), time, pid: z.int(), host: z.string() }),
  /**
   * The worker of the run. A resumed run uses the same. `session` is set if it may outlive the
   * process.
   */
  z.object({
    type: z.literal("worker"),
    time,
    address: z.string(),
    device: z.string(),
    threads: z.int(),
    /** Processes that share each supervised training, if there are several. */
    ranks: z.int().optional(),
    version: z.string(),
    session: z.string().optional(),
    /** The pool that placed the run, and the slot in it. */
    pool: z.string().optional(),
    slot: z.string().optional(),
  }),
  /** A stage was restored from its checkpoint after this epoch. */
  z.object({
    type: z.literal("restored"),
    time,
    stage: z.string(),
    epoch: z.int(),
    metrics: z.record(z.string(), z.number()),
  }),
  /** An epoch of a stage is finished. `checkpoint` is the file with the stage's state after it. */
  z.object({
    type: z.literal("epoch"),
    time,
    stage: z.string(),
    epoch: z.int(),
    totalEpochs: z.int(),
    metrics: z.record(z.string(), z.number()),
    seconds: z.number(),
    /** The job, as in the worker's log, and the number of its event for this epoch. */
    job: z.object({ id: z.string(), sequence: z.int() }).optional(),
    checkpoint: z.object({ sha256: z.string(), bytes: z.int() }).optional(),
  }),
  z.object({ type: z.literal("warning"), time, message: z.string() }),
  z.object({ type: z.literal("finished"), time }),
  z.object({ type: z.literal("interrupted"), time }),
  z.object({ type: z.literal("failed"), time, message: z.string(), remedy: z.string().optional() }),
]);
/** An event in a run's log. */
export type RunEvent = z.infer<typeof Event>;
/** The event that names the worker. */
export type WorkerRecord = Extract<RunEvent, { type: "worker" }>;
/** The event of a finished epoch. */
export type EpochRecord = Extract<RunEvent, { type: "epoch" }>;
/** An event that tells the state of a stage. */
export type StageRecord = Extract<RunEvent, { type: "epoch" | "restored" }>;

type WithoutTime<T> = T extends unknown ? Omit<T, "time"> : never;
/** An event without its time, which {@link EventLog.append} adds. */
export type NewRunEvent = WithoutTime<RunEvent>;

/**
 * Read all events of a run. A torn last line, from a process that was killed, is left out.
 *
 * @returns the events, the number of lines that are not events, and the end of the last whole line
 */
export async function readEvents(
  path: string,
): Promise<{ events: RunEvent[]; damaged: number; end: number }> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return { events: [], damaged: 0, end: 0 };
    throw explainFileSystem(error, "read", path);
  }
  const end = bytes.lastIndexOf(0x0a) + 1;
  const events: RunEvent[] = [];
  let damaged = 0;
  for (const line of bytes.subarray(0, end).toString("utf8").split("\n")) {
    if (line === "") continue;
    const event = parseEvent(line);
    if (event) events.push(event);
    else damaged++;
  }
  return { events, damaged, end };
}

/** Read one line of a log. @returns undefined if it is not an event */
export function parseEvent(line: string): RunEvent | undefined {
  try {
    return Event.safeParse(JSON.parse(line)).data;
  } catch {
    return undefined;
  }
}

/** The log of a run, open for appending. Only the holder of the run's lock may write. */
export class EventLog {
  private constructor(
    private readonly path: string,
    private readonly file: FileHandle,
    private end: number,
  ) {}

  /** Open the log, and cut off a torn last line. */
  static async open(path: string): Promise<EventLog> {
    const { end } = await readEvents(path);
    try {
      const file = await open(path, "a+");
      const { size } = await file.stat();
      if (size > end) await file.truncate(end);
      return new EventLog(path, file, end);
    } catch (error) {
      throw explainFileSystem(error, "write", path);
    }
  }

  /** Append an event, and wait until it is on disk. */
  async append(event: NewRunEvent): Promise<RunEvent> {
    const stamped = { ...event, time: new Date().toISOString() } as RunEvent;
    const line = Buffer.from(`${JSON.stringify(stamped)}\n`);
    try {
      await this.file.appendFile(line);
      await this.file.datasync().catch((error: unknown) => {
        if (errorCode(error) !== "EINVAL") throw error; // some file systems cannot sync
      });
      this.end += line.length;
      return stamped;
    } catch (error) {
      await this.file.truncate(this.end).catch(() => undefined); // half a line, from a full disk
      throw explainFileSystem(error, "write", this.path);
    }
  }

  /** Close the log. */
  close(): Promise<void> {
    return this.file.close();
  }
}
