/** Numbers, times and text for people. */

/** Write the first three numbers in a line, the loss first: "loss 0.0123  lr 0.001". */
export function formatMetrics(metrics: Readonly<Record<string, number>> = {}): string {
  return Object.entries(metrics)
    .filter(([, value]) => Number.isFinite(value))
    .sort(([a], [b]) => Number(b === "loss") - Number(a === "loss") || (a < b ? -1 : 1))
    .slice(0, 3)
    .map(([name, value]) => `${name} ${formatNumber(value)}`)
    .join("  ");
}

/** Write a number with four significant digits; whole numbers below a million in full. */
export function formatNumber(value: number): string {
  return Number.isInteger(value) && Math.abs(value) < 1e6 ? String(value) : value.toPrecision(4);
}

/** Write a time: "4.2 s", "1 min 30 s", "2 h 5 min". */
export function formatSeconds(seconds: number): string {
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.round(whole / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/**
 * Give the columns of a help page: those of the terminal, at most 120, or 100 without a terminal.
 */
export const helpWidth = () => Math.min(process.stdout.columns ?? 100, 120);

/** Break a text into lines of at most `width` columns, with `indent` spaces before each. */
export function wrap(text: string, width: number, indent: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    const longer = line === "" ? word : `${line} ${word}`;
    if (line !== "" && indent + longer.length > width) {
      lines.push(line);
      line = word;
    } else line = longer;
  }
  lines.push(line);
  return lines.map((each) => " ".repeat(indent) + each);
}

/** Write a number of bytes: 512 MiB. */
export function formatBytes(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  const power = bytes < 1 ? 0 : Math.min(Math.floor(Math.log2(bytes) / 10), units.length - 1);
  return `${Number((bytes / 2 ** (10 * power)).toPrecision(3))} ${units[power]}`;
}
