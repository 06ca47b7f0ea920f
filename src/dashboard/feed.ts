/**
 * What happens in a folder of runs. Other processes write there; this one looks at the files.
 *
 * Runs that work, and runs that changed lately, are looked at several times a second. All others
 * are looked at in turn, so that thousands of finished runs cost little.
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { explainFileSystem } from "../run/atomic.js";
import { LIVE } from "../run/live.js";
import { isFolder, isPlainName, type Stamp, stampOf } from "../run/plain.js";
import { isWorkedOn, type Summary, summarise } from "./summary.js";

/** Milliseconds between two looks. */
const TICK = 300;
/** Milliseconds after a change during which a run is looked at every time. */
const WARM = 60_000;
/** Number of other runs that are looked at each time. */
const OTHERS = 100;
/** Number of runs that are read at the same time. */
const AT_ONCE = 16;

/** What is known of a run. */
interface Known {
  stamp: string;
  /** Of live.json, while the run works. */
  live?: Stamp;
  summary: Summary | undefined;
  /** Time of the last change that was seen. */
  changed: number;
}

/** Is told the ids of runs: those that changed, those that are gone, those with new steps. */
type Listener = (
  changed: readonly string[],
  gone: readonly string[],
  stepped: readonly string[],
) => void;

/** Watches a folder of runs. */
export class Feed {
  private readonly known = new Map<string, Known>();
  private readonly listeners = new Set<Listener>();
  /** Runs that were seen to change, by whomever, since the listeners were last told. */
  private readonly unsaid = new Set<string>();
  private readonly stepped = new Set<string>();
  /** Whether every run was looked at once, so that a run not yet known is a new one. */
  private complete = false;
  private timer: NodeJS.Timeout | undefined;
  private ticking: Promise<void> | undefined;
  private next = 0;

  /** @param runs the folder, without links in its path */
  constructor(readonly runs: string) {}

  /** List the names of the folders that may be runs, the newest first. */
  async names(): Promise<string[]> {
    try {
      const entries = await readdir(this.runs, { withFileTypes: true });
      return entries
        .filter(
          (entry) => entry.isDirectory() && isPlainName(entry.name) && entry.name !== "sweeps",
        )
        .map((entry) => entry.name)
        .sort()
        .reverse();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
      throw explainFileSystem(error, "list", this.runs);
    }
  }

  /** Get the folder of a run. @returns undefined if there is none of this name */
  async folderOf(id: string): Promise<string | undefined> {
    if (!isPlainName(id) || id === "sweeps") return undefined;
    const folder = join(this.runs, id);
    return (await isFolder(folder)) ? folder : undefined;
  }

  /** Summarise runs. Names that are no runs are left out. */
  async summaries(ids: readonly string[]): Promise<Summary[]> {
    const found: (Summary | undefined)[] = [];
    for (let i = 0; i < ids.length; i += AT_ONCE)
      found.push(...(await Promise.all(ids.slice(i, i + AT_ONCE).map((id) => this.summary(id)))));
    return found.filter((summary) => summary !== undefined);
  }

  /** Summarise a run, from memory if its files are as they were. */
  async summary(id: string): Promise<Summary | undefined> {
    await this.look(id);
    return this.known.get(id)?.summary;
  }

  /** Call `listener` when runs change. @returns stops it */
  watch(listener: Listener): () => void {
    this.listeners.add(listener);
    this.schedule();
    return () => {
      this.listeners.delete(listener);
      if (this.listeners.size === 0) clearTimeout(this.timer);
    };
  }

  /** Look for changes now. */
  async refresh(): Promise<void> {
    await this.ticking;
    await this.tick(true);
  }

  private schedule(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.ticking = this.tick(false)
        .catch(() => undefined) // the folder may be gone for a moment
        .finally(() => {
          this.ticking = undefined;
          if (this.listeners.size > 0) this.schedule();
        });
    }, TICK);
    this.timer.unref();
  }

  private async tick(all: boolean): Promise<void> {
    const names = await this.names();
    const present = new Set(names);
    const gone = [...this.known.keys()].filter((id) => !present.has(id));
    for (const id of gone) this.known.delete(id);
    const now = performance.now();
    const wanted = new Set(
      all
        ? names
        : names.filter((id) => {
            const known = this.known.get(id);
            const hot =
              known?.summary?.status === "running" || now - (known?.changed ?? now) < WARM;
            return known === undefined || hot;
          }),
    );
    for (let i = 0; i < Math.min(OTHERS, names.length); i++)
      wanted.add(names[this.next++ % names.length]!);
    const ids = [...wanted];
    for (let i = 0; i < ids.length; i += AT_ONCE)
      await Promise.all(ids.slice(i, i + AT_ONCE).map((id) => this.look(id, true)));
    this.complete = true;
    const changed = [...this.unsaid].filter((id) => present.has(id));
    for (const id of [...changed, ...gone]) this.unsaid.delete(id); // others are newer than the list
    const stepped = [...this.stepped];
    this.stepped.clear();
    if (changed.length > 0 || gone.length > 0 || stepped.length > 0)
      for (const listener of this.listeners) listener(changed, gone, stepped);
  }

  /**
   * Read a run again if its files changed. Whoever looks sees a change first, and the next look finds
   * none, so that a change is noted here for the listeners.
   */
  private async look(id: string, first = this.complete): Promise<void> {
    const folder = join(this.runs, id);
    const before = this.known.get(id);
    const stamps = await Promise.all(
      ["config.json", "events.jsonl", "result.json", "lock"].map((name) => stampOf(folder, name)),
    );
    const stamp = stamps.join("|");
    const same = before?.stamp === stamp;
    // A process that was killed leaves its lock.
    const died = same && before.summary?.status === "running" && !(await isWorkedOn(folder));
    if (same && !died) return this.lookAtSteps(id, before);
    const summary = (await isFolder(folder)) ? await summarise(this.runs, id) : undefined;
    const changed = before === undefined ? Number.NEGATIVE_INFINITY : performance.now();
    const known = { stamp, live: before?.live, summary, changed };
    this.known.set(id, known);
    await this.lookAtSteps(id, known);
    if (before === undefined && !first) return; // whoever asked has it, and nobody waits for it
    if (summary !== undefined || before?.summary !== undefined) this.unsaid.add(id);
  }

  private async lookAtSteps(id: string, known: Known): Promise<void> {
    if (known.summary?.status !== "running") return;
    const live = await stampOf(join(this.runs, id), LIVE);
    if (live !== undefined && live !== known.live) this.stepped.add(id);
    known.live = live;
  }
}
