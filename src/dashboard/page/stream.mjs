/**
 * Talking with the server. The stream is read with fetch, because an EventSource cannot send the
 * token in a header.
 */

/**
 * @typedef {{id: string, experiment: string, task: string, preset: string, seed: number,
 *   created: string, tags: string[], status: string, metrics: Record<string, number>,
 *   finding: string, message: string, changed: string, at: number,
 *   progress?: {stage: string, epoch: number, totalEpochs: number}}} Summary
 * @typedef {{id: string, from: number, to: number, summary: Summary,
 *   events: [number, RunEvent][], more: boolean}} RunMessage
 * @typedef {{type: string, time: string, stage?: string, epoch?: number, totalEpochs?: number,
 *   metrics?: Record<string, number>, seconds?: number, message?: string, remedy?: string,
 *   pid?: number, host?: string, address?: string, device?: string}} RunEvent
 * @typedef {"connecting" | "live" | "lost" | "refused"} State
 */

/** Milliseconds without a sign of life after which the connection counts as lost. */
const SILENCE = 30_000;

/** The server does not accept the token. */
export class Refused extends Error {}

/** Ask the server, and keep a stream open. */
export class Link {
  /** @param {string} token */
  constructor(token) {
    this.token = token;
    /** The position that each run's log has reached. @type {Record<string, number>} */
    this.cursor = {};
    /** @type {(message: RunMessage) => void} */
    this.onRun = () => {};
    /** @type {(ids: string[]) => void} */
    this.onGone = () => {};
    /** @type {(ids: string[]) => void} */
    this.onSteps = () => {};
    /** @type {(state: State) => void} */
    this.onState = () => {};
    /** @type {AbortController | undefined} */
    this.connection = undefined;
    this.stopped = true;
    /** Number of questions without an answer yet. */
    this.asking = 0;
  }

  /**
   * Ask for JSON.
   *
   * @param {string} path
   * @param {RequestInit} [options]
   * @returns {Promise<any>}
   */
  async ask(path, options = {}) {
    this.asking++;
    try {
      const response = await fetch(path, {
        ...options,
        headers: { Authorization: `Bearer ${this.token}` },
      });
      const answer = await response.json();
      if (response.status === 401) throw new Refused(answer.error);
      if (!response.ok) throw new Error(answer.error);
      return answer;
    } finally {
      this.asking--;
    }
  }

  /** Keep the stream open while the page can be seen. */
  open() {
    this.stopped = false;
    const follow = () => {
      if (document.hidden) this.connection?.abort();
      else if (this.connection === undefined) void this.keep();
    };
    document.addEventListener("visibilitychange", follow);
    follow();
  }

  /** @private */
  async keep() {
    let pause = 300;
    while (!document.hidden && !this.stopped) {
      const connection = new AbortController();
      this.connection = connection;
      this.onState("connecting");
      try {
        await this.read(connection, () => {
          pause = 300;
        });
      } catch (error) {
        if (error instanceof Refused) {
          this.stopped = true;
          return this.onState("refused");
        }
      }
      if (document.hidden) break;
      this.onState("lost");
      await new Promise((done) => setTimeout(done, pause));
      pause = Math.min(5000, pause * 1.7);
    }
    this.connection = undefined;
    if (!document.hidden && !this.stopped) void this.keep(); // it was shown again meanwhile
  }

  /** @private @param {AbortController} connection @param {() => void} alive */
  async read(connection, alive) {
    const response = await fetch("/api/events", {
      method: "POST",
      headers: { Authorization: `Bearer ${this.token}`, "Content-Type": "application/json" },
      body: JSON.stringify({ cursor: this.cursor }),
      signal: connection.signal,
    });
    if (response.status === 401) throw new Refused("the token is wrong");
    if (!response.ok || response.body === null) throw new Error("there is no stream");
    this.onState("live");
    alive();
    let watch = setTimeout(() => connection.abort(), SILENCE);
    let rest = "";
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(watch);
        watch = setTimeout(() => connection.abort(), SILENCE);
        const parts = `${rest}${value}`.split("\n\n");
        rest = parts.pop() ?? "";
        for (const part of parts) this.take(part);
      }
    } finally {
      clearTimeout(watch);
    }
  }

  /** @private The server ends. It waits until this page has asked for all that it shows. */
  async settle() {
    do await new Promise((done) => setTimeout(done, 150));
    while (this.asking > 0);
    this.connection?.abort();
  }

  /** @private @param {string} part a message of the stream */
  take(part) {
    /** @type {Record<string, string>} */
    const fields = {};
    for (const line of part.split("\n")) {
      const at = line.indexOf(":");
      if (at > 0) fields[line.slice(0, at)] = line.slice(at + 1).replace(/^ /, "");
    }
    if (fields.data === undefined) return;
    const data = JSON.parse(fields.data);
    if (fields.event === "run") this.onRun(data);
    if (fields.event === "steps") this.onSteps(data.runs);
    if (fields.event === "ending") void this.settle();
    if (fields.event === "gone") {
      for (const id of data.runs) delete this.cursor[id];
      this.onGone(data.runs);
    }
    if (fields.id) Object.assign(this.cursor, JSON.parse(fields.id));
  }
}
