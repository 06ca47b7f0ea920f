/**
 * The block catalogue: every dataset, architecture, training recipe, solver and action of the
 * worker, with its parameters. Each block is declared once, in Python. `npm run generate` makes the
 * TypeScript types from that declaration.
 */
import { UsageError } from "./errors.js";
import { type BlockParams, CATALOGUE } from "./gen/blocks.js";
import { suggestion } from "./suggest.js";

export type { BlockParams } from "./gen/blocks.js";

/** A type of block: "dataset", "architecture", "training", "algebra_solver" and so on. */
export type BlockType = keyof BlockParams;

/** The kinds of a type of block. For example "mlp" and "strided_cnn" are architectures. */
export type BlockKind<T extends BlockType> = keyof BlockParams[T] & string;

/**
 * A block: a kind with parameters. A parameter that is left out or undefined has its default. A
 * misspelt parameter does not compile.
 */
export type Block<T extends BlockType> = {
  [K in BlockKind<T>]: { readonly kind: K; readonly params?: Readonly<BlockParams[T][K]> };
}[BlockKind<T>];

/** The input of a predictor: square windows of fields, sets of vectors, or an icosahedral grid. */
export type Manifold = "planar" | "lattice" | "vectors" | "icosahedron";

/** The JSON Schema of one parameter. */
export interface ParamSchema {
  type: "integer" | "number" | "boolean" | "string" | "array" | "object";
  description?: string;
  default?: unknown;
  enum?: readonly string[];
  minimum?: number;
  maximum?: number;
  minItems?: number;
  maxItems?: number;
  format?: "path";
  items?: ParamSchema;
  properties?: Readonly<Record<string, ParamSchema>>;
  required?: readonly string[];
  additionalProperties?: boolean;
  /** The parameter's name before it was renamed. */
  "x-former"?: string;
}

/** A block as the catalogue declares it. */
export interface BlockEntry {
  summary: string;
  /** Former kinds, which are still accepted. */
  aliases?: readonly string[];
  /** Where the block works (default: everywhere). */
  manifolds?: readonly Manifold[];
  /** Whether a solver looks for symmetries of a predictor, not of the data alone. */
  needs_predictor?: boolean;
  /** Whether an algebra solver can find the number of generators. */
  finds_k?: boolean;
  /** Whether the epochs of an algebra solver take turns with those of the predictor. */
  alternates?: boolean;
  /** Whether the block executes code that the client names. */
  executes_code?: boolean;
  /** Whether the block serves one step of the method and is no choice for experiments. */
  unlisted?: boolean;
  params: ParamSchema;
}

/** The upper bound of whole numbers that declare none. */
const LARGEST_INT = 2 ** 31 - 1;

/** List every block of a type, by kind. */
export function blocksOf(type: BlockType): Readonly<Record<string, BlockEntry>> {
  return CATALOGUE[type];
}

/**
 * Look up a block by its kind or a former kind.
 *
 * @returns the present kind, and the block's entry in the catalogue
 * @throws UsageError if no block has this kind; the error lists the kinds
 */
export function findBlock(type: BlockType, kind: string): { kind: string; entry: BlockEntry } {
  const all = blocksOf(type);
  if (Object.hasOwn(all, kind)) return { kind, entry: all[kind]! };
  const aliased = Object.entries(all).find(([, { aliases = [] }]) => aliases.includes(kind));
  if (aliased) return { kind: aliased[0], entry: aliased[1] };
  throw new UsageError(
    `there is no ${type.replaceAll("_", " ")} ` +
      `${JSON.stringify(kind)}${suggestion(kind, Object.keys(all))}`,
    `choose one of ${Object.keys(all).join(", ")}`,
  );
}

/** Get the schemas of a block's parameters, by name. */
export function paramsOf(entry: BlockEntry): Readonly<Record<string, ParamSchema>> {
  return entry.params.properties ?? {};
}

/**
 * Check a block against the catalogue.
 *
 * @returns the block with its present kind, without undefined parameters
 * @throws UsageError if a parameter is unknown, missing, or not accepted; the error names it
 */
export function checkBlock(
  type: BlockType,
  { kind, params = {} }: { kind: string; params?: Readonly<Record<string, unknown>> },
): { kind: string; params: Record<string, unknown> } {
  const found = findBlock(type, kind);
  const schemas = paramsOf(found.entry);
  const former = new Map(
    Object.entries(schemas).flatMap(([name, schema]) =>
      schema["x-former"] === undefined ? [] : [[schema["x-former"], name]],
    ),
  );
  const checked: Record<string, unknown> = {};
  for (const [given, value] of Object.entries(params)) {
    if (value === undefined) continue;
    const name = Object.hasOwn(schemas, given) ? given : former.get(given);
    if (name === undefined)
      throw new UsageError(
        `${found.kind} has no parameter ${given}${suggestion(given, Object.keys(schemas))}`,
        Object.keys(schemas).length === 0
          ? "leave it out"
          : `its parameters are ${Object.keys(schemas).join(", ")}`,
      );
    checkValue(`${found.kind}.${name}`, value, schemas[name]!);
    checked[name] = value;
  }
  for (const name of found.entry.params.required ?? [])
    if (checked[name] === undefined)
      throw new UsageError(`${found.kind} needs the parameter ${name}`, schemas[name]?.description);
  return { kind: found.kind, params: checked };
}

/**
 * Check the value of one parameter.
 *
 * @param name of the parameter or its flag, for the message
 * @throws UsageError if the value is not accepted; the error says what is
 */
export function checkValue(name: string, value: unknown, schema: ParamSchema): void {
  if (fits(value, schema)) return;
  throw new UsageError(
    `${name} is ${JSON.stringify(value)}: expected ${describeParam(schema)}`,
    "see: atlas blocks",
  );
}

/** Describe in words what a parameter accepts: "a whole number from 1 to 256". */
export function describeParam(schema: ParamSchema): string {
  if (schema.enum) return `one of ${schema.enum.join(", ")}`;
  switch (schema.type) {
    case "integer":
    case "number": {
      const noun = schema.type === "integer" ? "a whole number" : "a number";
      const high = schema.maximum === LARGEST_INT ? undefined : schema.maximum;
      if (schema.minimum !== undefined && high !== undefined)
        return `${noun} from ${schema.minimum} to ${high}`;
      if (schema.minimum !== undefined) return `${noun} of at least ${schema.minimum}`;
      return high === undefined ? noun : `${noun} of at most ${high}`;
    }
    case "boolean":
      return "true or false";
    case "array":
      return schema.minItems ? `a list of ${schema.minItems} or more` : "a list";
    case "object":
      return `an object with ${Object.keys(schema.properties ?? {}).join(", ")}`;
    default:
      return schema.format === "path" ? "a path" : "text";
  }
}

function fits(value: unknown, schema: ParamSchema): boolean {
  switch (schema.type) {
    case "integer":
    case "number":
      return (
        typeof value === "number" &&
        Number.isFinite(value) &&
        (schema.type === "number" || Number.isInteger(value)) &&
        value >= (schema.minimum ?? Number.NEGATIVE_INFINITY) &&
        value <= (schema.maximum ?? Number.POSITIVE_INFINITY)
      );
    case "boolean":
      return typeof value === "boolean";
    case "array":
      return (
        Array.isArray(value) &&
        value.length >= (schema.minItems ?? 0) &&
        value.length <= (schema.maxItems ?? Number.POSITIVE_INFINITY) &&
        value.every((entry) => schema.items === undefined || fits(entry, schema.items))
      );
    case "object": {
      if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
      const { properties = {}, required = [] } = schema;
      return (
        required.every((name) => name in value) &&
        Object.entries(value).every(
          ([name, entry]) => Object.hasOwn(properties, name) && fits(entry, properties[name]!),
        )
      );
    }
    default:
      return (
        typeof value === "string" && (schema.enum === undefined || schema.enum.includes(value))
      );
  }
}
