/** All runs that the page knows, kept up to date by the stream. */

/**
 * @typedef {import("./stream.mjs").Summary} Summary
 * @typedef {import("./stream.mjs").RunMessage} RunMessage
 * @typedef {{id: string, created: string, experiment: string, grid: string, runs: string[],
 *   message: string}} SweepEntry
 */

/** The runs, and those who want to know of changes. */
export class Store {
  /** @param {import("./stream.mjs").Link} link */
  constructor(link) {
    this.link = link;
    /** @type {Map<string, Summary>} */
    this.runs = new Map();
    /** @type {SweepEntry[]} */
    this.sweeps = [];
    /** Id of the sweep of each run. @type {Map<string, string>} */
    this.sweepOf = new Map();
    this.folder = "";
    /** Number of folders, of which some may be no runs. */
    this.total = 0;
    this.complete = false;
    /** @type {Set<() => void>} */
    this.listeners = new Set();
    /** @type {Set<(message: RunMessage) => void>} */
    this.messages = new Set();
    /** Are told the ids of runs with new steps. @type {Set<(ids: string[]) => void>} */
    this.steps = new Set();
    this.waiting = false;
    link.onSteps = (ids) => {
      for (const listener of this.steps) listener(ids);
    };
    link.onRun = (message) => {
      this.runs.set(message.id, message.summary);
      for (const listener of this.messages) listener(message);
      if (!this.sweepOf.has(message.id)) this.lookForSweeps();
      this.changed();
    };
    link.onGone = (ids) => {
      for (const id of ids) this.runs.delete(id);
      this.changed();
    };
  }

  /** Read the list in parts, so that the first part is shown at once. */
  async load() {
    let after;
    do {
      const query = after === undefined ? "" : `?after=${encodeURIComponent(after)}`;
      const part = await this.link.ask(`/api/runs${query}`);
      for (const run of part.runs) {
        this.runs.set(run.id, run);
        this.link.cursor[run.id] = run.at;
      }
      this.folder = part.folder;
      this.total = part.total;
      after = part.next;
      this.changed();
    } while (after !== undefined);
    this.complete = true;
    await this.loadSweeps();
    this.changed();
  }

  /** Read the list of sweeps. */
  async loadSweeps() {
    this.sweeps = (await this.link.ask("/api/sweeps")).sweeps;
    this.sweepOf = new Map(this.sweeps.flatMap(({ id, runs }) => runs.map((run) => [run, id])));
    this.changed();
  }

  /** @private A run that is new may be one of a new sweep. */
  lookForSweeps() {
    const now = Date.now();
    if (now - (this.looked ?? 0) < 5000) return;
    this.looked = now;
    void this.loadSweeps().catch(() => undefined);
  }

  /** @private Tell of changes, once for each picture on the screen. */
  changed() {
    if (this.waiting) return;
    this.waiting = true;
    setTimeout(() => {
      this.waiting = false;
      for (const listener of this.listeners) listener();
    }, 50);
  }
}
