/** Progress for the user, all on stderr, so that stdout holds the result alone. */
import pc from "picocolors";
import { formatMetrics, formatSeconds } from "../format.js";

/** How far a stage has come. Steps are those of the current epoch. */
export interface Position {
  stage: string;
  /** Number of finished epochs. */
  epoch: number;
  /** Number of epochs in all. */
  totalEpochs: number;
  step?: number;
  stepsInEpoch?: number;
  metrics?: Readonly<Record<string, number>>;
}

/** Options of {@link Progress}. */
export interface ProgressOptions {
  /** Stream to write to (default: stderr). */
  out?: NodeJS.WriteStream;
  /** Print only warnings. */
  quiet?: boolean;
  /** Print debug lines too. */
  debug?: boolean;
  /** Redraw one live line (default: if `out` is a terminal). */
  live?: boolean;
}

/**
 * Prints progress: on a terminal a live line with the time left, elsewhere one line for each epoch.
 */
export class Progress {
  private readonly out: NodeJS.WriteStream;
  private readonly live: boolean;
  private readonly colour: ReturnType<typeof pc.createColors>;
  private drawn = false;
  private lastDraw = 0;
  /** Stage, its share when this process began with it, and that time; for the time left. */
  private pace = { stage: "", share: 0, since: 0 };

  constructor(private readonly options: ProgressOptions = {}) {
    this.out = options.out ?? process.stderr;
    this.live = options.live ?? isLive(this.out);
    this.colour = pc.createColors(Boolean(this.out.isTTY) && pc.isColorSupported);
  }

  /** Print a line that stays. */
  info(line: string): void {
    if (!this.options.quiet) this.print(line);
  }

  /** Print a line in debug mode. */
  debug(line: string): void {
    if (this.options.debug) this.print(this.colour.dim(line));
  }

  /** Print a warning, also in quiet mode. */
  warn(line: string): void {
    this.print(this.colour.yellow(`warning: ${line}`));
  }

  /** Show a step within an epoch: on a terminal only, at most ten times a second. */
  step(position: Position): void {
    const now = performance.now();
    if (this.options.quiet || !this.live || now - this.lastDraw < 100) return;
    this.lastDraw = now;
    const { stage, epoch, totalEpochs, step = 0, stepsInEpoch = 0 } = position;
    const share = Math.min(
      1,
      (epoch + (stepsInEpoch > 0 ? step / stepsInEpoch : 0)) / Math.max(1, totalEpochs),
    );
    if (this.pace.stage !== stage) this.pace = { stage, share, since: now };
    const done = share - this.pace.share;
    const left = done > 0 ? ((now - this.pace.since) * (1 - share)) / done / 1000 : undefined;
    const line = fit(
      [
        [stage.padEnd(9), 0],
        [bar(share), 2],
        [`epoch ${Math.min(epoch + 1, totalEpochs)}/${totalEpochs}`, 0],
        [stepsInEpoch > 1 ? `step ${step}/${stepsInEpoch}` : "", 4],
        [formatMetrics(position.metrics), 3],
        [left === undefined ? "" : `about ${formatSeconds(left)} left`, 1],
      ],
      (this.out.columns ?? 80) - 1,
    );
    const head = line.slice(0, stage.length);
    // One write, which covers the former line before it clears the rest: no flicker.
    this.out.write(`\r${this.colour.bold(head)}${line.slice(head.length)}\u001b[K`);
    this.drawn = true;
  }

  /** Report a finished epoch. */
  epoch(position: Position, seconds: number): void {
    if (this.options.quiet) return;
    const { stage, epoch, totalEpochs, metrics } = position;
    if (this.live && epoch < totalEpochs) return; // the live line shows it
    this.print(
      [
        stage.padEnd(9),
        `${epoch}/${totalEpochs}`,
        formatMetrics(metrics),
        seconds > 0 ? formatSeconds(seconds) : "",
      ]
        .filter(Boolean)
        .join("  "),
    );
  }

  /** Erase the live line. Call this before anything else writes to the terminal. */
  erase(): void {
    if (this.drawn) this.out.write("\r\u001b[2K");
    this.drawn = false;
  }

  private print(line: string): void {
    this.erase();
    this.out.write(`${line}\n`);
  }
}

/** Whether a line on a stream can be drawn again: it is a terminal that knows how. */
export function isLive(out: NodeJS.WriteStream): boolean {
  return Boolean(out.isTTY) && process.env.TERM !== "dumb";
}

const BAR_WIDTH = 20;

/** Draw a share from 0 to 1. */
function bar(share: number): string {
  const full = Math.round(BAR_WIDTH * share);
  return `[${"#".repeat(full)}${"-".repeat(BAR_WIDTH - full)}]`;
}

/**
 * Join the parts of a line. If they do not fit, leave out the least important ones.
 *
 * @param parts with their ranks; 0 is never left out
 */
function fit(parts: readonly (readonly [text: string, rank: number])[], width: number): string {
  const worst = Math.max(...parts.map(([, rank]) => rank));
  for (let rank = worst; ; rank--) {
    const kept = parts.filter(([text, own]) => text !== "" && own <= rank);
    const line = kept.map(([text]) => text).join("  ");
    if (line.length <= width || rank === 0) return line.slice(0, Math.max(1, width));
  }
}
