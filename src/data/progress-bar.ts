/** Show a count's progress: a live line on a terminal, elsewhere a line every few seconds. */
import { formatSeconds } from "../format.js";

/** Options of {@link ProgressBar}. */
export interface ProgressBarOptions {
  out?: NodeJS.WriteStream;
  quiet?: boolean;
  /** Redraw one line (default: if `out` is a terminal). */
  live?: boolean;
  /** Milliseconds between lines if not live. */
  everyMs?: number;
}

/** Shows the progress of a count. */
export class ProgressBar {
  private readonly out: NodeJS.WriteStream;
  private readonly live: boolean;
  private readonly everyMs: number;
  private last = 0;
  private drawn = false;
  private pace = { what: "", done: 0, since: 0 };

  constructor(
    private readonly format: (n: number) => string,
    private readonly options: ProgressBarOptions = {},
  ) {
    this.out = options.out ?? process.stderr;
    this.live = options.live ?? Boolean(this.out.isTTY);
    this.everyMs = options.everyMs ?? (this.live ? 100 : 5000);
  }

  /** Show `done` of `total`. The last line of a count is always shown. */
  show(what: string, done: number, total: number): void {
    const now = performance.now();
    if (this.pace.what !== what) {
      this.pace = { what, done, since: now };
      this.last = this.live ? 0 : now;
    }
    if (this.options.quiet || (done < total && now - this.last < this.everyMs)) return;
    this.last = now;
    const seconds = (now - this.pace.since) / 1000;
    const rate = seconds > 0.5 ? (done - this.pace.done) / seconds : 0;
    const line = [
      what,
      `${this.format(done)} of ${this.format(total)}`,
      rate > 0 && done < total ? `about ${formatSeconds((total - done) / rate)} left` : "",
    ]
      .filter(Boolean)
      .join("  ");
    this.erase();
    this.drawn = this.live && done < total;
    this.out.write(
      this.drawn ? line.slice(0, Math.max(20, (this.out.columns ?? 80) - 1)) : `${line}\n`,
    );
  }

  /** Erase the live line. Call this before anything else writes to the terminal. */
  erase(): void {
    if (this.drawn) this.out.write("\r\u001b[2K");
    this.drawn = false;
  }
}
