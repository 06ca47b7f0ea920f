/**
 * The stream of a page: Server-Sent Events about all runs.
 *
 * The id of an event holds the position in events.jsonl that each run of the event has reached, as
 * JSON. All ids of a stream joined are its cursor. Whoever comes back with a cursor gets the lines
 * after it, each once, whatever became of the server in the meantime: it keeps no state.
 *
 * Events `steps` name runs with new steps, which are no part of their logs. They have no id, and a
 * page that misses one misses nothing: the next steps contain those before.
 */
import type { ServerResponse } from "node:http";
import { readLog } from "../run/log.js";
import { shortened } from "./detail.js";
import type { Feed } from "./feed.js";

/** A position in the log of each run. */
export type Cursor = Record<string, number>;

/** Milliseconds between two signs of life. */
const BEAT = 10_000;
/** Bytes that may wait for a slow reader. */
const WAITING = 1 << 20;

/** A stream to one page. */
export class Stream {
  private readonly positions = new Map<string, number>();
  private readonly dirty = new Set<string>();
  private readonly fresh: boolean;
  private working = false;
  private greeted = false;
  private stop = () => {};
  private beat: NodeJS.Timeout | undefined;

  /**
   * @param cursor where the page stands; without one, the stream begins with what happens from now
   *   on, and its first event has the positions
   */
  constructor(
    private readonly feed: Feed,
    private readonly response: ServerResponse,
    cursor: Cursor | undefined,
  ) {
    this.fresh = cursor === undefined;
    for (const [id, at] of Object.entries(cursor ?? {})) this.positions.set(id, at);
  }

  /** Begin, and go on until the page closes the connection. */
  async open(): Promise<void> {
    const { response, feed } = this;
    response.writeHead(200, { "Content-Type": "text/event-stream; charset=utf-8" });
    response.on("close", () => this.close());
    this.beat = setInterval(() => void response.write(": beat\n\n"), BEAT);
    this.stop = feed.watch((changed, gone, stepped) => {
      for (const id of changed) this.dirty.add(id);
      this.forget(gone);
      if (stepped.length > 0 && this.greeted && response.writableLength < WAITING)
        this.send("steps", { runs: stepped });
      void this.work();
    });
    const names = await feed.names();
    const present = new Set(names);
    this.forget([...this.positions.keys()].filter((id) => !present.has(id)));
    for (const id of names) {
      const summary = await feed.summary(id);
      if (summary === undefined) continue;
      const at = this.positions.get(id);
      if (at === undefined && this.fresh) this.positions.set(id, summary.at);
      // A process may have died without a word.
      else if (at !== summary.at || summary.status !== "finished") this.dirty.add(id);
    }
    this.send("hello", { runs: feed.runs }, this.fresh ? Object.fromEntries(this.positions) : {});
    this.greeted = true;
    await this.work();
  }

  /** Tell the page that the server ends, after all that happened. */
  async end(): Promise<void> {
    while (this.working) await new Promise((done) => setTimeout(done, 20));
    await this.work();
    this.send("ending", {});
  }

  /** End the stream. The page comes back, if there is a server. */
  close(): void {
    this.stop();
    clearInterval(this.beat);
    this.response.end();
  }

  private forget(gone: readonly string[]): void {
    const known = gone.filter((id) => this.positions.delete(id));
    for (const id of known) this.dirty.delete(id);
    if (known.length > 0) this.send("gone", { runs: known });
  }

  private async work(): Promise<void> {
    if (this.working || !this.greeted) return;
    this.working = true;
    try {
      for (const id of this.dirty) {
        this.dirty.delete(id);
        await this.replay(id).catch(() => undefined); // the folder is being removed
        if (this.response.destroyed) return;
      }
    } finally {
      this.working = false;
    }
  }

  /** Send what is new of a run: its summary, and the lines after the page's position. */
  private async replay(id: string): Promise<void> {
    const folder = await this.feed.folderOf(id);
    const summary = folder && (await this.feed.summary(id));
    if (!folder || !summary) return this.forget([id]);
    for (let more = true; more; ) {
      const from = this.positions.get(id) ?? 0;
      const part = await readLog(folder, from);
      const to = part.replaced ? 0 : part.to;
      this.positions.set(id, to);
      more = part.more || (part.replaced && from > 0);
      const events = part.events.map(([at, event]) => [at, shortened(event)]);
      this.send("run", { id, from, to, summary, events, more }, { [id]: to });
      await this.drained();
      if (this.response.destroyed) return;
    }
  }

  private send(event: string, data: object, cursor?: Cursor): void {
    const id = cursor === undefined ? "" : `id: ${JSON.stringify(cursor)}\n`;
    this.response.write(`event: ${event}\n${id}data: ${JSON.stringify(data)}\n\n`);
  }

  /** Wait until a slow page has read most of what was sent. */
  private async drained(): Promise<void> {
    const { response } = this;
    if (response.writableLength < WAITING || response.destroyed) return;
    await new Promise<void>((resolve) => {
      response.once("drain", resolve).once("close", resolve);
    });
  }
}

/** Read a cursor that a page sent. @returns undefined if it is none */
export function parseCursor(value: unknown): Cursor | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const entries = Object.entries(value);
  const good = entries.every(([, at]) => Number.isSafeInteger(at) && at >= 0);
  return good ? Object.fromEntries(entries) : undefined;
}
