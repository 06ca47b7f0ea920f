/**
 * Make command-line flags from a config schema: one for each field, described and checked by it.
 */
import { Option } from "commander";
import { z } from "zod";
import { findBlock, paramsOf } from "../blocks.js";
import { UsageError } from "../errors.js";
import { suggestion } from "../suggest.js";
import { type Choice, defaultOf, kindsWith, schemaOf } from "./choice.js";
import { useOf, type Where } from "./conditional-flags.js";
import { flagName, metaOf } from "./names.js";

/** What a field accepts, as far as its flag is concerned. */
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

interface Property {
  type?: string | string[];
  enum?: (string | number)[];
  const?: string | number;
  anyOf?: Property[];
  description?: string;
  default?: unknown;
  placeholder?: string;
  positional?: boolean;
  /** Whether help leaves the flag out, because few need it. */
  rare?: boolean;
  only?: Where[];
  minimum?: number;
  exclusiveMinimum?: number;
  maximum?: number;
  exclusiveMaximum?: number;
}

/**
 * Characters of the longest list of choices in a placeholder. Help gives longer lists in the
 * description.
 */
const LONGEST_PLACEHOLDER = 50;

/** A flag, and the field that it sets. */
export interface Flag {
  field: string;
  /** Name without dashes in front, words joined by "-": "batch-size". */
  name: string;
  option: Option;
  /** What the flag accepts, in words: "a whole number of at least 1". */
  expected: string;
  /** What the flag takes. Only texts may hold commas of their own. */
  takes: "whole" | "number" | "choice" | "text" | "nothing";
  /** Whether the value is given without a name: `atlas probe d4`. */
  positional: boolean;
  /** Conditions for an effect, one of which must hold; empty if it always has one. */
  only: readonly Where[];
  /** Whether help leaves it out: a former name, or a parameter without a flag of its own. */
  hidden: boolean;
  /** Name of the flag that replaced this one. */
  former?: string;
  /** For a parameter that only some kinds of a block have: the choice, and these kinds. */
  onlyFor?: { choice: Choice; kinds: readonly string[] };
  /**
   * Turn the text of the flag (`true` if it has none) into the field's value.
   *
   * @throws UsageError
   */
  parse(value: string | boolean): unknown;
}

/** The source of flags: the fields of a config, and the choices of blocks among them. */
export interface Flagged {
  config: Readonly<Record<string, z.ZodType>>;
  choices: readonly Choice[];
}

/**
 * Make the flags of a config, in its order. Fields that only code can set (objects, lists) have
 * none.
 */
export function flagsOf(source: Flagged | z.ZodObject): Flag[] {
  const { config, choices } =
    source instanceof z.ZodObject ? { config: source.shape, choices: [] } : source;
  const json = z.toJSONSchema(z.object(config), { io: "input", unrepresentable: "any" }) as {
    properties?: Record<string, Property>;
  };
  const flags: Flag[] = [];
  for (const [field, schema] of Object.entries(config)) {
    const property = json.properties?.[field] ?? {};
    const choice = choices.find(({ name }) => field === name || field.startsWith(`${name}.`));
    if (choice) {
      if (field === choice.name) flags.push(...choiceFlags(choice, schema, property, config));
      continue;
    }
    const accepts = acceptsOf(property);
    if (!accepts.boolean && !accepts.text && !accepts.number && accepts.choices.length === 0)
      continue;
    const flag = makeFlag(field, property, accepts, schema);
    flags.push(flag, ...formerFlags(flag, metaOf(schema).former ?? []));
  }
  return flags;
}

/** Make the flags of a choice: one that chooses, and one for every parameter of every kind. */
function choiceFlags(
  choice: Choice,
  schema: z.ZodType,
  property: Property,
  config: Flagged["config"],
): Flag[] {
  const { name, kinds, fallback, description, former, formerKinds } = choice;
  const accepts = { ...acceptsOf(property), choices: [...kinds] };
  const chooser = makeFlag(name, { ...property, description, default: fallback }, accepts, schema);
  const aliases = [
    ...Object.keys(formerKinds),
    ...kinds.flatMap((kind) => findBlock(choice.type, kind).entry.aliases ?? []),
  ];
  const parse = (given: string | boolean) =>
    aliases.includes(String(given)) ? given : chooser.parse(given);
  const flag = { ...chooser, parse, hidden: kinds.length < 2 };
  const params = Object.keys(config)
    .filter((field) => field.startsWith(`${name}.`))
    .flatMap((field) => paramFlags(choice, field.slice(name.length + 1)));
  return [flag, ...formerFlags(flag, former), ...params];
}

function paramFlags(choice: Choice, param: string): Flag[] {
  const schema = schemaOf(choice, param);
  if (schema.type === "array" || schema.type === "object") return [];
  const { name, kinds, flags } = choice;
  const {
    names: [shown, ...former] = [],
    kinds: only = kinds,
    listed = true,
  } = flags.get(param) ?? {};
  const having = kindsWith(choice, param).filter((kind) => only.includes(kind));
  const uses = having.length < kinds.length ? ` [--${flagName(name)} ${having.join(", ")}]` : "";
  const property: Property = {
    type: schema.type,
    enum: schema.enum ? [...schema.enum] : undefined,
    description: `${schema.description ?? ""}${defaultsText(choice, param, having)}${uses}`,
  };
  // The limits of the chosen kind are checked once the kind is known.
  const field = `${name}.${param}`;
  const make = (flag: string) => ({
    ...makeFlag(flag, property, acceptsOf(property), z.unknown()),
    field,
  });
  const full = make(`${name}.${param}`);
  if (shown === undefined || having.length === 0) return [{ ...full, hidden: true }];
  // A flag for some kinds only keeps its own field, which tells it from the parameter's field.
  const flag: Flag = { ...make(shown), field: only === kinds ? field : shown, hidden: !listed };
  if (having.length < kinds.length) flag.onlyFor = { choice, kinds: having };
  return [flag, { ...full, hidden: true }, ...formerFlags(flag, former)];
}

/**
 * Write defaults: " (default: 0.15)", or " (default: grassmann 0.15, atlasd 0.25)" if they differ.
 */
function defaultsText(choice: Choice, param: string, having: readonly string[]): string {
  const values = having.map((kind) => {
    const schema = paramsOf(findBlock(choice.type, kind).entry)[param]!;
    return defaultOf(choice.values({ [choice.name]: kind }), kind, param, schema);
  });
  const told = values.filter((value) => value !== undefined && value !== false);
  if (told.length === 0) return "";
  if (new Set(values).size === 1) return ` (default: ${String(values[0])})`;
  const named = having.map((kind, i) => `${kind} ${String(values[i] ?? "none")}`);
  return ` (default: ${named.join(", ")})`;
}

/** Make copies of a flag under former names. */
function formerFlags(flag: Flag, names: readonly string[]): Flag[] {
  return names.map((former) => {
    const name = flagName(former);
    const flags = flag.option.flags.replace(`--${flag.name}`, `--${name}`);
    return { ...flag, name, option: new Option(flags, ""), hidden: true, former: flag.name };
  });
}

/**
 * Let every flag be written with underscores too: `--fixed_seed` becomes `--fixed-seed`. Values,
 * and all arguments after `--`, are left alone.
 */
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
  const accepts: Accepts = {
    boolean: false,
    text: false,
    number: false,
    integer: false,
    choices: [],
  };
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
    property.default === undefined || property.default === false
      ? ""
      : ` (default: ${property.default})`;
  const { positional = false, rare = false, only = [] } = property;
  const use = useOf(only);
  const option = new Option(
    `--${name}${argument}`,
    `${property.description ?? ""}${long ? `: ${accepts.choices.join(", ")}` : ""}${shown}${use}`,
  );
  const parse = (given: string | boolean): unknown => {
    const value = typeof given === "string" ? convert(given, accepts) : given;
    const parsed = schema.safeParse(value);
    if (parsed.success) return parsed.data;
    const hint = typeof given === "string" ? suggestion(given, accepts.choices.map(String)) : "";
    const [issue] = parsed.error.issues; // a custom check has a better message
    const wanted = issue?.code === "custom" ? issue.message : `expected ${expected}${hint}`;
    throw new UsageError(
      `${positional ? name : `--${name}`} ${String(given)}: ${wanted}`,
      "see --help",
    );
  };
  const takes = takenBy(accepts);
  return { field, name, option, expected, takes, positional, only, hidden: rare, parse };
}

function takenBy({ text, number, integer, choices }: Accepts): Flag["takes"] {
  if (text) return "text";
  if (number) return integer ? "whole" : "number";
  return choices.length > 0 ? "choice" : "nothing";
}

/** Convert a text to the value that it stands for. Other text is left for the schema to refuse. */
function convert(text: string, accepts: Accepts): unknown {
  const choice = accepts.choices.find((c) => String(c) === text);
  if (choice !== undefined) return choice;
  if (accepts.number && /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)) return Number(text);
  if (accepts.boolean && !accepts.text && (text === "true" || text === "false"))
    return text === "true";
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
