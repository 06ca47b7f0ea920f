/** What the user sees while a run goes on; all of it on stderr, so that stdout is the result's alone. */
import pc from "picocolors";

/** How far a stage has come. Steps are of the epoch being worked on. */
export interface Position {
  stage: string;
  /** Epochs finished, and to be finished. */
  epoch: number;
  totalEpochs: number;
  step?: number;
  stepsInEpoch?: number;
  metrics?: Readonly<Record<string, number>>;
}

export interface ProgressOptions {
  /** Where it is written. */
  out?: NodeJS.WriteStream;
  /** Only warnings. */
  quiet?: boolean;
  /** Debug lines too. */
  debug?: boolean;
  /** Redraw one live line (default: when `out` is a terminal). */
  live?: boolean;
}

/** On a terminal a live line with epoch, step, loss and time left; else a line an epoch. */
export class Progress {
  private readonly out: NodeJS.WriteStream;
  private readonly live: boolean;
  private readonly colour: ReturnType<typeof pc.createColors>;
  private drawn = false;
  private lastDraw = 0;
  /** Stage, its share done when this process took it up, and when that was: for the time left. */
  private pace = { stage: "", share: 0, since: 0 };

  constructor(private readonly options: ProgressOptions = {}) {
    this.out = options.out ?? process.stderr;
    this.live = options.live ?? Boolean(this.out.isTTY);
    this.colour = pc.createColors(Boolean(this.out.isTTY) && pc.isColorSupported);
  }

  /** One line that stays. */
  info(line: string): void {
    if (!this.options.quiet) this.print(line);
  }

  debug(line: string): void {
    if (this.options.debug) this.print(this.colour.dim(line));
  }

  /** Shown even when quiet. */
  warn(line: string): void {
    this.print(this.colour.yellow(`warning: ${line}`));
  }

  /** Somewhere within an epoch; drawn at most ten times a second, and only on a terminal. */
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
    const text = [
      this.colour.bold(stage.padEnd(9)),
      `epoch ${Math.min(epoch + 1, totalEpochs)}/${totalEpochs}`,
      stepsInEpoch > 1 ? `step ${step}/${stepsInEpoch}` : "",
      formatMetrics(position.metrics),
      left === undefined ? "" : `about ${formatSeconds(left)} left`,
    ];
    this.erase();
    const line = text.filter(Boolean).join("  ");
    this.out.write(line.slice(0, Math.max(20, (this.out.columns ?? 80) - 1)));
    this.drawn = true;
  }

  /** An epoch is finished. */
  epoch(position: Position, seconds: number): void {
    if (this.options.quiet) return;
    const { stage, epoch, totalEpochs, metrics } = position;
    if (this.live && epoch < totalEpochs) return; // the live line says as much
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

  /** Take the live line away; to be called before anything else writes to the terminal. */
  erase(): void {
    if (this.drawn) this.out.write("\r\u001b[2K");
    this.drawn = false;
  }

  private print(line: string): void {
    this.erase();
    this.out.write(`${line}\n`);
  }
}

/** The few numbers that fit a line, losses first: "loss 0.0123  lr 0.001". */
export function formatMetrics(metrics: Readonly<Record<string, number>> = {}): string {
  return Object.entries(metrics)
    .filter(([, value]) => Number.isFinite(value))
    .sort(([a], [b]) => Number(b === "loss") - Number(a === "loss") || (a < b ? -1 : 1))
    .slice(0, 3)
    .map(([name, value]) => `${name} ${formatNumber(value)}`)
    .join("  ");
}

export function formatNumber(value: number): string {
  return Number.isInteger(value) && Math.abs(value) < 1e6 ? String(value) : value.toPrecision(4);
}

/** "4.2 s", "1 min 30 s", "2 h 5 min". */
export function formatSeconds(seconds: number): string {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
}
