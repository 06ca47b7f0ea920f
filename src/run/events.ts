/** events.jsonl: what happened in a run, one JSON object a line, only ever appended to. */
import { type FileHandle, open, readFile } from "node:fs/promises";
import { z } from "zod";
import { errorCode, explainFileSystem } from "./atomic.js";

const time = z.string();
const Event = z.discriminatedUnion("type", [
  z.object({ type: z.literal("started"), time, pid: z.int(), host: z.string() }),
  z.object({ type: z.literal("resumed"), time, pid: z.int(), host: z.string() }),
  z.object({ type: z.literal("attached"), time, pid: z.int(), host: z.string() }),
  /** What does the computing; a resumed run asks for the same. `session` is set where it may outlive this process. */
  z.object({
    type: z.literal("worker"),
    time,
    address: z.string(),
    device: z.string(),
    threads: z.int(),
    version: z.string(),
    session: z.string().optional(),
  }),
  /** A stage is put into the state of its checkpoint after this epoch. */
  z.object({
    type: z.literal("restored"),
    time,
    stage: z.string(),
    epoch: z.int(),
    metrics: z.record(z.string(), z.number()),
  }),
  /** An epoch of a stage is finished, as an event of a job tells; `checkpoint` is the file that holds the stage's state after it. */
  z.object({
    type: z.literal("epoch"),
    time,
    stage: z.string(),
    epoch: z.int(),
    totalEpochs: z.int(),
    metrics: z.record(z.string(), z.number()),
    seconds: z.number(),
    /** The job that did it, as the worker's log has it, and the number of the event in which it told so. */
    job: z.object({ id: z.string(), sequence: z.int() }).optional(),
    checkpoint: z.object({ sha256: z.string(), bytes: z.int() }).optional(),
  }),
  z.object({ type: z.literal("warning"), time, message: z.string() }),
  z.object({ type: z.literal("finished"), time }),
  z.object({ type: z.literal("interrupted"), time }),
  z.object({ type: z.literal("failed"), time, message: z.string(), remedy: z.string().optional() }),
]);
export type RunEvent = z.infer<typeof Event>;
export type WorkerRecord = Extract<RunEvent, { type: "worker" }>;
export type EpochRecord = Extract<RunEvent, { type: "epoch" }>;
/** Says where a stage stands. */
export type StageRecord = Extract<RunEvent, { type: "epoch" | "restored" }>;

type WithoutTime<T> = T extends unknown ? Omit<T, "time"> : never;
/** An event as it is handed to {@link EventLog.append}, which adds the time. */
export type NewRunEvent = WithoutTime<RunEvent>;

/**
 * All events of a run. A torn last line (the process was killed while writing it) is left out; so is any line that is not an
 * event, which is counted in `damaged`.
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
    const event = parseLine(line);
    if (event) events.push(event);
    else damaged++;
  }
  return { events, damaged, end };
}

function parseLine(line: string): RunEvent | undefined {
  try {
    return Event.safeParse(JSON.parse(line)).data;
  } catch {
    return undefined;
  }
}

/** The open end of events.jsonl. One writer at a time: the holder of the run's lock. */
export class EventLog {
  private constructor(
    private readonly path: string,
    private readonly file: FileHandle,
    private end: number,
  ) {}

  /** Open for appending, cutting off a torn last line first. */
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

  /** Append one event and see it safely to disk. */
  async append(event: NewRunEvent): Promise<RunEvent> {
    const stamped = { ...event, time: new Date().toISOString() } as RunEvent;
    const line = Buffer.from(`${JSON.stringify(stamped)}\n`);
    try {
      await this.file.appendFile(line);
      await this.file.datasync().catch((error: unknown) => {
        if (errorCode(error) !== "EINVAL") throw error; // some file systems cannot; the line is written all the same
      });
      this.end += line.length;
      return stamped;
    } catch (error) {
      await this.file.truncate(this.end).catch(() => undefined); // a full disk may have taken half a line
      throw explainFileSystem(error, "write", this.path);
    }
  }

  close(): Promise<void> {
    return this.file.close();
  }
}
