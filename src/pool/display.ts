/** The progress of a sweep, on stderr: a line for each slot, and a bar with the time left. */

import { isLive, type Position, Progress, type ProgressOptions } from "../experiment/progress.js";
import { formatMetrics, formatSeconds } from "../format.js";

/** Milliseconds between two drawings. */
const DRAW_MS = 100;
const BAR_WIDTH = 24;

/** Shows a sweep: on a terminal live lines, elsewhere one line for each finished run. */
export class SweepDisplay {
  private readonly out: NodeJS.WriteStream;
  private readonly live: boolean;
  private readonly quiet: boolean;
  private readonly debugging: boolean;
  private readonly slots = new Map<string, { run: string; text: string }>();
  private readonly said = new Set<string>();
  private drawn = 0;
  private lastDraw = 0;
  private total = 0;
  private finished = 0;
  private failures = 0;
  /** Seconds of the runs that were finished here, for the time left. */
  private spent: number[] = [];

  constructor({ out = process.stderr, quiet, debug, live }: ProgressOptions = {}) {
    this.out = out;
    this.quiet = quiet ?? false;
    this.debugging = debug ?? false;
    this.live = (live ?? isLive(out)) && !this.quiet;
  }

  /** Begin with a number of runs, some of which are finished. */
  begin(total: number, finished: number): void {
    this.total = total;
    this.finished = finished;
    this.draw(true);
  }

  /** Print a line that stays. */
  info(line: string): void {
    if (!this.quiet) this.print(line);
  }

  /** Print a line in debug mode. */
  debug(line: string): void {
    if (this.debugging) this.print(line);
  }

  /** Print a warning, also in quiet mode; each one once. */
  warn(line: string): void {
    if (this.said.has(line)) return;
    this.said.add(line);
    this.print(`warning: ${line}`);
  }

  /** A slot serves. */
  slot(name: string, about: string): void {
    this.slots.set(name, { run: "", text: "" });
    if (!this.live) this.info(`slot ${name}${about === "" ? "" : ` (${about})`} serves`);
    this.draw(true);
  }

  /** A slot is gone. */
  freed(name: string): void {
    this.slots.delete(name);
    this.draw(true);
  }

  /** A run begins in a slot. @returns where the run reports its progress */
  start(slot: string, run: string): Progress {
    this.slots.set(slot, { run, text: "starts" });
    this.draw(true);
    return new RunProgress(this, (text) => {
      const line = this.slots.get(slot);
      if (line?.run === run) line.text = text;
      this.draw();
    });
  }

  /** A run is finished. */
  done(slot: string, run: string, found: string, seconds: number): void {
    this.finished++;
    this.spent.push(seconds);
    const line = this.slots.get(slot);
    if (line) Object.assign(line, { run: "", text: "" });
    const count = `${this.finished}/${this.total}`;
    this.info([count, run, found, formatSeconds(seconds)].filter(Boolean).join("  "));
  }

  /** A run has failed for good. */
  failed(run: string, why: string): void {
    this.failures++;
    this.warn(`run ${run} failed: ${why}`);
  }

  /** Erase the live lines. They are drawn again with the next news. */
  erase(): void {
    if (this.drawn > 0) this.out.write(`\u001b[${this.drawn}A\u001b[J`);
    this.drawn = 0;
  }

  /** Erase the live lines for good. */
  end(): void {
    this.erase();
    this.slots.clear();
    this.total = 0;
  }

  private print(line: string): void {
    this.erase();
    this.out.write(`${line}\n`);
    this.draw(true);
  }

  private draw(now = false): void {
    const time = performance.now();
    if (!this.live || this.total === 0 || (!now && time - this.lastDraw < DRAW_MS)) return;
    this.lastDraw = time;
    const room = Math.max(1, (this.out.rows ?? 24) - 3);
    const entries = [...this.slots];
    const lines = entries
      .slice(0, room)
      .map(([name, { run, text }]) => `slot ${name}  ${run === "" ? "idle" : `${run}  ${text}`}`);
    if (entries.length > room) lines.push(`and ${entries.length - room} more slots`);
    lines.push(this.bar());
    const width = Math.max(20, (this.out.columns ?? 80) - 1);
    // One write, which covers the former lines before it clears the rest: no flicker.
    const up = this.drawn > 0 ? `\u001b[${this.drawn}A` : "";
    const text = lines.map((line) => `${line.slice(0, width)}\u001b[K\n`).join("");
    this.out.write(`${up}${text}\u001b[J`);
    this.drawn = lines.length;
  }

  private bar(): string {
    const { total, finished, failures, spent } = this;
    const full = Math.round((BAR_WIDTH * finished) / Math.max(1, total));
    const left = total - finished - failures;
    const mean = spent.reduce((sum, s) => sum + s, 0) / spent.length;
    return [
      `[${"#".repeat(full)}${"-".repeat(BAR_WIDTH - full)}] ${finished}/${total}`,
      failures > 0 ? `${failures} failed` : "",
      spent.length > 0 && left > 0
        ? `about ${formatSeconds((mean * left) / Math.max(1, Math.min(left, this.slots.size)))} left`
        : "",
    ]
      .filter(Boolean)
      .join("  ");
  }
}

/** The progress of one run, shown in the line of its slot. */
class RunProgress extends Progress {
  constructor(
    private readonly display: SweepDisplay,
    private readonly show: (text: string) => void,
  ) {
    super({ quiet: true });
  }

  override info(): void {}

  override debug(line: string): void {
    this.display.debug(line);
  }

  override warn(line: string): void {
    this.display.warn(line);
  }

  override step({ stage, epoch, totalEpochs, step = 0, stepsInEpoch = 0, metrics }: Position) {
    const parts = [
      stage,
      `epoch ${Math.min(epoch + 1, totalEpochs)}/${totalEpochs}`,
      stepsInEpoch > 1 ? `step ${step}/${stepsInEpoch}` : "",
      formatMetrics(metrics),
    ];
    this.show(parts.filter(Boolean).join("  "));
  }

  override epoch({ stage, epoch, totalEpochs, metrics }: Position): void {
    this.show(`${stage}  ${epoch}/${totalEpochs}  ${formatMetrics(metrics)}`);
  }

  override erase(): void {}
}
