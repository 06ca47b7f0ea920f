/**
 * The values that a flag takes in a sweep: `1,2,5`, `0..4` (with 4), `range(0,5)` (without 5),
 * `range(0,1,0.25)`. They are counted before they are made, because a typing error can mean
 * millions.
 */
import { UsageError } from "../errors.js";

/** What must be known of a flag to read its values. */
export interface ValueFlag {
  /** Name without dashes in front. */
  name: string;
  field: string;
  takes: "whole" | "number" | "choice" | "text" | "nothing";
  /** Check a value and convert it. @throws UsageError */
  parse(value: string | boolean): unknown;
}

/** A part of an axis: equally many steps from a first value. */
interface Part {
  count: number;
  at(index: number): unknown;
}

/** An interval from which values are drawn at random. */
export interface Interval {
  least: number;
  greatest: number;
}

/** A field that varies in a sweep, and its values. */
export interface Axis {
  field: string;
  /** Name of the flag, for messages. */
  name: string;
  /** What was given, as it is recorded. */
  given: readonly unknown[];
  /** Number of values; infinite if they are drawn from an interval. */
  count: number;
  /** Get one of the values. */
  at(index: number): unknown;
  /** The interval, and the check of a drawn value, if values are drawn from one. */
  interval?: Interval & { check(value: number): unknown };
}

const NUMBER = String.raw`[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?`;
const DOTS = new RegExp(`^(${NUMBER}?)\\.\\.(${NUMBER})$`, "i");
const RANGE = new RegExp(`^range\\((${NUMBER}),(${NUMBER})(?:,(${NUMBER}))?\\)$`, "i");
/** Values of one flag that are compared with one another. A grid has fewer. */
const COMPARED = 1e5;

/**
 * Read the values of a flag.
 *
 * @param texts what was given, once for each time the flag stands on the command line; true if it
 *   stands there without a value
 * @param drawn whether the sweep draws its runs at random. A range of a flag for any number is then
 *   an interval
 * @throws UsageError for an empty range, a value that is not accepted, or one that is given twice
 */
export function readAxis(flag: ValueFlag, texts: readonly (string | true)[], drawn = false): Axis {
  const { field, name, takes } = flag;
  const listed = takes !== "text";
  const of = { field, name, given: texts };
  const parts: Part[] = [];
  for (const text of texts) {
    const pieces = listed && text !== true ? split(text) : [text];
    for (const piece of pieces) {
      const range = piece === true || !listed ? undefined : readRange(name, piece);
      if (range === undefined) {
        const value =
          piece === "" ? missing(name, String(text)) : flag.parse(readPiece(flag, piece));
        parts.push({ count: 1, at: () => value });
        continue;
      }
      const at = (index: number) => flag.parse(String(range.at(index)));
      if (takes === "number" && drawn) {
        if (pieces.length > 1 || texts.length > 1)
          throw new UsageError(
            `--${name} ${texts.join(" ")}: values are drawn from one range alone`,
            "give one range, or a list of values",
          );
        return { ...of, count: Infinity, at, interval: intervalOf(flag, range) };
      }
      if (range.count === undefined)
        throw new UsageError(
          `--${name} ${piece}: the range has no steps`,
          `list the values, write range(FIRST,END,STEP), or draw some with --sample N`,
        );
      at(0); // both ends, before the others are made
      at(range.count - 1);
      parts.push({ count: range.count, at });
    }
  }
  const count = parts.reduce((sum, part) => sum + part.count, 0);
  const at = (index: number): unknown => {
    let rest = index;
    for (const part of parts) {
      if (rest < part.count) return part.at(rest);
      rest -= part.count;
    }
    throw new RangeError(`--${name} has no value ${index}`);
  };
  const axis = { ...of, count, at };
  if (count <= COMPARED) checkTwice(axis);
  return axis;
}

/** Make an axis of given values. @throws UsageError if one is given twice, or none */
export function listAxis(field: string, name: string, values: readonly unknown[]): Axis {
  if (values.length === 0) throw new UsageError(`--${name}: there are no values`, "give one");
  const count = values.length;
  const axis = { field, name, given: values, count, at: (index: number) => values[index] };
  checkTwice(axis);
  return axis;
}

/** Split at the commas that are not in brackets. */
function split(text: string): string[] {
  return text.split(/,(?![^(]*\))/).map((piece) => piece.trim());
}

function missing(name: string, text: string): never {
  throw new UsageError(`--${name} ${text}: a value is missing`, "leave out the comma, or give it");
}

/** A flag without a value is true or false, which can be written out. */
function readPiece({ takes }: ValueFlag, piece: string | true): string | boolean {
  if (takes === "nothing" && (piece === "true" || piece === "false")) return piece === "true";
  return piece;
}

interface Range extends Interval {
  /** Number of values; undefined if the range has no steps. */
  count?: number;
  at(index: number): number;
}

/** Read a range. @returns undefined if the text is no range @throws UsageError if it is empty */
function readRange(name: string, text: string): Range | undefined {
  const compact = text.replaceAll(/\s+/g, "");
  const dots = DOTS.exec(compact);
  if (dots && dots[1] !== "") {
    const [first, last] = [Number(dots[1]), Number(dots[2])];
    if (last < first) throw empty(name, text, `${first} is greater than ${last}`);
    const whole = Number.isInteger(first) && Number.isInteger(last);
    return {
      least: first,
      greatest: last,
      count: whole ? last - first + 1 : undefined,
      at: (index) => first + index,
    };
  }
  const range = RANGE.exec(compact);
  if (!range) {
    if (/^range\(|\.\./.test(compact))
      throw new UsageError(
        `--${name} ${text}: this is no range`,
        "write 0..4, range(0,5) or range(0,1,0.25)",
      );
    return undefined;
  }
  const [first, end] = [Number(range[1]), Number(range[2])];
  const step = Number(range[3] ?? 1);
  // Rounding must not decide whether the end belongs to it: range(0,0.3,0.1) has three values.
  const count = step === 0 ? 0 : Math.ceil((end - first) / step - 1e-9);
  if (!(count > 0)) throw empty(name, text, step === 0 ? "its step is 0" : "its end is not ahead");
  return {
    least: Math.min(first, end),
    greatest: Math.max(first, end),
    count,
    at: (index) => Number((first + index * step).toPrecision(12)),
  };
}

function empty(name: string, text: string, why: string): UsageError {
  return new UsageError(`--${name} ${text}: the range is empty (${why})`, "write 0..4 for 0 to 4");
}

function intervalOf(
  { parse }: ValueFlag,
  { least, greatest }: Interval,
): Interval & { check(value: number): unknown } {
  const check = (value: number) => parse(String(value));
  check(least);
  check(greatest);
  return { least, greatest, check };
}

function checkTwice({ name, count, at }: Axis): void {
  const seen = new Set<string>();
  for (let index = 0; index < count; index++) {
    const text = JSON.stringify(at(index));
    if (seen.has(text))
      throw new UsageError(`--${name} has the value ${text} twice`, "give each value once");
    seen.add(text);
  }
}
