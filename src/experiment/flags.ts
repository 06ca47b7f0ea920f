/** Command-line flags from a config schema: one flag for each field, named, described and checked by the schema itself. */
import { Option } from "commander";
import { z } from "zod";
import { UsageError } from "../errors.js";
import { nearest } from "./nearest.js";

/** What a field accepts, as far as a flag cares. */
interface Accepts {
  boolean: boolean;
  text: boolean;
  number: boolean;
  integer: boolean;
  choices: (string | number)[];
  minimum?: number;
  exclusiveMinimum?: number;
  maximum?: number;
  exclusiveMaximum?: number;
}

/** Values of other fields, all of which must fit: `"discover*"` is any that begins so, true any that is set, false none. */
export type Where = Readonly<Record<string, readonly (string | boolean)[]>>;

interface Property {
  type?: string | string[];
  enum?: (string | number)[];
  const?: string | number;
  anyOf?: Property[];
  description?: string;
  default?: unknown;
  placeholder?: string;
  positional?: boolean;
  only?: Where[];
  minimum?: number;
  exclusiveMinimum?: number;
  maximum?: number;
  exclusiveMaximum?: number;
}

/** Choices that are longer are listed in the description, or the help could not be read. */
const LONGEST_PLACEHOLDER = 50;

/** Beside these an unused flag is let pass, with a note: the published code's command lines have `--epochs` with `--reuse_predictor`. */
export const LENIENT = ["reuse_predictor"];

/** One flag and the field it sets. */
export interface Flag {
  field: string;
  /** Without dashes, words joined by "-": "batch-size". */
  name: string;
  option: Option;
  /** What is accepted, in words: "a whole number of at least 1". */
  expected: string;
  /** Given without its name: `atlas probe d4`. */
  positional: boolean;
  /** Where it counts, if not everywhere: one of these must hold. */
  only: readonly Where[];
  /** Turn the flag's text (or `true`, when given without a value) into the field's value. @throws UsageError */
  parse(value: string | boolean): unknown;
}

/** The flags of a config schema, in its order. Fields that only code can set (objects, lists) get none. */
export function flagsOf(schema: z.ZodObject): Flag[] {
  const json = z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }) as {
    properties?: Record<string, Property>;
  };
  return Object.entries(json.properties ?? {}).flatMap(([field, property]) => {
    const accepts = acceptsOf(property);
    if (!accepts.boolean && !accepts.text && !accepts.number && accepts.choices.length === 0) return [];
    return [makeFlag(field, property, accepts, schema.shape[field] as z.ZodType)];
  });
}

/** A field's flag: "batch_size" and "batchSize" are `--batch-size`; single capitals stay ("N" is `--N`). */
export function flagName(field: string): string {
  return field
    .replaceAll("_", "-")
    .replaceAll(/([a-z0-9])([A-Z])/g, (_, a: string, b: string) => `${a}-${b.toLowerCase()}`);
}

/** "with --task discover or discover_algebra", "without --reuse-predictor" */
export function describeUse(field: string, values: Where[string]): string {
  const flag = `--${flagName(field)}`;
  const texts = values.filter((v) => typeof v === "string");
  if (texts.length > 0) return `with ${flag} ${texts.join(" or ")}`;
  return `${values.includes(true) ? "with" : "without"} ${flag}`;
}

/** Let every flag be written with underscores too: `--fixed_seed` is `--fixed-seed`. Values, and all after `--`, are left alone. */
export function normaliseFlags(argv: readonly string[]): string[] {
  const end = argv.indexOf("--");
  return argv.map((arg, i) => {
    if (!arg.startsWith("--") || (end >= 0 && i >= end)) return arg;
    const equals = arg.indexOf("=");
    return equals < 0
      ? arg.replaceAll("_", "-")
      : arg.slice(0, equals).replaceAll("_", "-") + arg.slice(equals);
  });
}

function acceptsOf(property: Property): Accepts {
  const accepts: Accepts = { boolean: false, text: false, number: false, integer: false, choices: [] };
  for (const p of [property, ...(property.anyOf ?? [])]) {
    if (p.const !== undefined) accepts.choices.push(p.const);
    else if (p.enum) accepts.choices.push(...p.enum);
    else
      for (const type of [p.type ?? []].flat()) {
        if (type === "boolean") accepts.boolean = true;
        if (type === "string") accepts.text = true;
        if (type === "number" || type === "integer") accepts.number = true;
        if (type === "integer") accepts.integer = true;
      }
    for (const key of ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"] as const)
      if (p[key] !== undefined && Math.abs(p[key]) < Number.MAX_SAFE_INTEGER) accepts[key] = p[key];
  }
  return accepts;
}

function makeFlag(field: string, property: Property, accepts: Accepts, schema: z.ZodType): Flag {
  const name = flagName(field);
  const expected = describe(accepts);
  const choices = accepts.choices.join("|");
  const long = choices.length > LONGEST_PLACEHOLDER && property.placeholder === undefined;
  const placeholder =
    property.placeholder ??
    (long ? name : accepts.choices.length > 0 ? choices : accepts.number ? "number" : "text");
  const valued = accepts.text || accepts.number || accepts.choices.length > 0;
  const argument = !valued ? "" : accepts.boolean ? ` [${placeholder}]` : ` <${placeholder}>`;
  const shown =
    property.default === undefined || property.default === false ? "" : ` (default: ${property.default})`;
  const { positional = false, only = [] } = property;
  const uses = only.map((where) => {
    const told = Object.entries(where).filter(([key]) => !LENIENT.includes(key));
    return told.map(([key, values]) => describeUse(key, values)).join(", ");
  });
  const use =
    uses.length === 0 || uses.includes("") ? "" : ` [${uses.join("; or ").replaceAll(", with ", ", ")}]`;
  const option = new Option(
    `--${name}${argument}`,
    `${property.description ?? ""}${long ? `: ${accepts.choices.join(", ")}` : ""}${shown}${use}`,
  );
  const parse = (given: string | boolean): unknown => {
    const value = typeof given === "string" ? convert(given, accepts) : given;
    const parsed = schema.safeParse(value);
    if (parsed.success) return parsed.data;
    const hint = typeof given === "string" ? nearest(given, accepts.choices.map(String)) : undefined;
    throw new UsageError(
      `${positional ? name : `--${name}`} ${String(given)}: expected ${expected}${hint === undefined ? "" : ` (did you mean ${hint}?)`}`,
      "see --help",
    );
  };
  return { field, name, option, expected, positional, only, parse };
}

/** The value that text stands for; text that is no number stays text, for the schema to refuse. */
function convert(text: string, accepts: Accepts): unknown {
  const choice = accepts.choices.find((c) => String(c) === text);
  if (choice !== undefined) return choice;
  if (accepts.number && /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)) return Number(text);
  if (accepts.boolean && !accepts.text && (text === "true" || text === "false")) return text === "true";
  return text;
}

function describe(a: Accepts): string {
  if (a.choices.length > 0 && a.number) {
    const { choices, ...rest } = a;
    return `${choices.join(", ")}, or ${describe({ ...rest, choices: [] })}`;
  }
  if (a.choices.length > 0) return `one of ${a.choices.join(", ")}`;
  if (!a.number) return a.text ? "text" : "no value";
  const noun = a.integer ? "a whole number" : "a number";
  const from =
    a.minimum !== undefined
      ? `of at least ${a.minimum}`
      : a.exclusiveMinimum !== undefined
        ? a.integer
          ? `of at least ${a.exclusiveMinimum + 1}`
          : `greater than ${a.exclusiveMinimum}`
        : "";
  const to =
    a.maximum !== undefined
      ? `at most ${a.maximum}`
      : a.exclusiveMaximum !== undefined
        ? `less than ${a.exclusiveMaximum}`
        : "";
  return [noun, [from, to].filter(Boolean).join(" and ")].filter(Boolean).join(" ");
}
