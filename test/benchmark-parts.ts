/**
 * Programs that measure in parts, each by itself or all of them, and print a table of what they
 * found.
 */
import { type ParseArgsConfig, parseArgs } from "node:util";

export type Row = [what: string, value: string, beside?: string];
export type Measured = { found: unknown; rows: Row[] };
export type Part = () => Promise<Measured>;

export function part<T>(measure: () => Promise<T>, rows: (found: T) => Row[]): Part {
  return async () => {
    const found = await measure();
    return { found, rows: rows(found) };
  };
}

/** A number as a table shows it. */
export const n = (x: number, digits = 3) =>
  Math.abs(x) >= 100 ? Math.round(x).toLocaleString("en") : String(Number(x.toPrecision(digits)));

/** End a program that cannot do what it is asked to, with the exit code 2. */
export function refuse(message: string): never {
  process.stderr.write(`error: ${message}\n`);
  process.exit(2);
}

/**
 * Read the arguments of a program. `--help` prints how it is used, and ends it.
 *
 * @param usage how it is used, in some lines
 */
export function readArguments<T extends ParseArgsConfig>(usage: string, config: T) {
  const given = process.argv.slice(2);
  if (given.includes("--help") || given.includes("-h")) {
    process.stdout.write(`${usage.trim()}\n`);
    process.exit();
  }
  try {
    return parseArgs(config);
  } catch (error) {
    const [line = ""] = (error as Error).message.split(". ");
    return refuse(`${line}; see --help`);
  }
}

/**
 * Do the parts that `only` names (PART,PART), or all of them, one after the other. One that fails
 * leaves a row that says so, and the exit code 1; a name that is none ends the program with 2.
 */
export async function measureParts(
  program: string,
  parts: Readonly<Record<string, Part>>,
  only?: string,
) {
  const chosen = only?.split(",") ?? Object.keys(parts);
  const unknown = chosen.find((name) => !(name in parts));
  if (unknown !== undefined)
    refuse(`there is no part ${unknown}; choose from ${Object.keys(parts).join(", ")}`);
  const found: Record<string, unknown> = {};
  const rows: Row[] = [];
  for (const name of chosen) {
    process.stderr.write(`${program}: ${name}\n`);
    try {
      const measured = await parts[name]!();
      found[name] = measured.found;
      rows.push(...measured.rows);
    } catch (error) {
      found[name] = { error: String(error) };
      const lines = String(error).split("\n");
      rows.push([name, "failed", lines.findLast((line) => line !== "") ?? ""]);
      process.exitCode = 1;
    }
  }
  return { found, rows };
}

export function printTable(rows: readonly Row[]): void {
  const [first, second] = [0, 1].map((i) => Math.max(...rows.map((row) => row[i]!.length)));
  for (const [what, value, beside = ""] of rows)
    process.stdout.write(`${what.padEnd(first!)}  ${value.padStart(second!)}  ${beside}\n`);
}
