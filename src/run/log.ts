/** Reading events.jsonl in parts, by position, so that a log of any size costs little memory. */
import type { FileHandle } from "node:fs/promises";
import { parseEvent, type RunEvent } from "./events.js";
import { openPlain } from "./plain.js";

/** Bytes that are read at a time. */
const CHUNK = 1 << 18;
/** Bytes of a line at most. Longer lines are passed over. */
const MOST_LINE = 1 << 16;
/** Bytes of the end of a log in which the newest events are looked for, at first and at most. */
const [TAIL, LONGEST_TAIL] = [1 << 12, 1 << 18];

const LOG = "events.jsonl";
const NEWLINE = 0x0a;

/** An event, and the position in the log after it. */
export type PlacedEvent = [to: number, event: RunEvent];

/** Part of a log. */
export interface LogPart {
  events: PlacedEvent[];
  /** Position after the last whole line of the part. */
  to: number;
  /** Whether more lines may follow at once. */
  more: boolean;
  /** Whether the log is shorter than `from`: it is another log now. */
  replaced: boolean;
}

/**
 * Read the next whole lines of a run's log. Lines that are no events are passed over. A torn last
 * line, which is still being written, is left for the next time.
 *
 * @param from position in bytes, at the beginning of a line
 */
export async function readLog(folder: string, from: number): Promise<LogPart> {
  const file = await openPlain(folder, LOG);
  const none = { events: [], to: from, more: false, replaced: from > 0 };
  if (file === undefined) return none;
  try {
    const { size } = await file.stat();
    if (size < from) return none;
    const bytes = await readAt(file, from, Math.min(CHUNK, size - from));
    const end = bytes.lastIndexOf(NEWLINE) + 1;
    if (end > 0) {
      const events = placed(bytes.subarray(0, end), from);
      const to = from + end;
      return { events, to, more: to < size && bytes.length === CHUNK, replaced: false };
    }
    if (bytes.length < CHUNK) return { ...none, replaced: false }; // a torn line, or no line
    const next = await lineAfter(file, from + bytes.length, size);
    return { events: [], to: next ?? from, more: next !== undefined, replaced: false };
  } finally {
    await file.close();
  }
}

/**
 * Read the last events of a run's log, the newest epoch among them if it is near the end, and the
 * position after its last whole line.
 */
export async function readTail(folder: string): Promise<{ events: RunEvent[]; at: number }> {
  const file = await openPlain(folder, LOG);
  if (file === undefined) return { events: [], at: 0 };
  try {
    const { size } = await file.stat();
    for (let length = TAIL; ; length *= 8) {
      const from = Math.max(0, size - length);
      const bytes = await readAt(file, from, size - from);
      const end = bytes.lastIndexOf(NEWLINE) + 1;
      const first = from === 0 ? 0 : bytes.indexOf(NEWLINE) + 1;
      const placedEvents = placed(bytes.subarray(first, Math.max(first, end)), from + first);
      const events = placedEvents.map(([, event]) => event);
      const enough = from === 0 || events.some(({ type }) => type === "epoch");
      if (!enough && length < LONGEST_TAIL) continue;
      return { events, at: end > 0 ? from + end : await lineBefore(file, from) };
    }
  } finally {
    await file.close();
  }
}

function placed(bytes: Buffer, from: number): PlacedEvent[] {
  const events: PlacedEvent[] = [];
  let start = 0;
  for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, start)) {
    const line = bytes.subarray(start, end);
    const event = line.length <= MOST_LINE ? parseEvent(line.toString("utf8")) : undefined;
    start = end + 1;
    if (event) events.push([from + start, event]);
  }
  return events;
}

/** Find the end of the line that goes on at `from`. */
async function lineAfter(
  file: FileHandle,
  from: number,
  size: number,
): Promise<number | undefined> {
  for (let at = from; at < size; at += CHUNK) {
    const found = (await readAt(file, at, Math.min(CHUNK, size - at))).indexOf(NEWLINE);
    if (found >= 0) return at + found + 1;
  }
  return undefined;
}

/** Find the beginning of the line that goes on at `to`. */
async function lineBefore(file: FileHandle, to: number): Promise<number> {
  for (let end = to; end > 0; end -= CHUNK) {
    const from = Math.max(0, end - CHUNK);
    const found = (await readAt(file, from, end - from)).lastIndexOf(NEWLINE);
    if (found >= 0) return from + found + 1;
  }
  return 0;
}

async function readAt(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, position);
  return buffer.subarray(0, bytesRead);
}
