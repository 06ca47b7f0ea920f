/**
 * Config fields that choose a block of the catalogue, and fields for the parameters of the block.
 */
import { z } from "zod";
import {
  type Block,
  type BlockEntry,
  type BlockKind,
  type BlockParams,
  type BlockType,
  blocksOf,
  checkValue,
  findBlock,
  type Manifold,
  type ParamSchema,
  paramsOf,
} from "../blocks.js";
import { UsageError } from "../errors.js";

/** Names of all parameters of the blocks of a type. */
type ParamName<T extends BlockType> = {
  [K in BlockKind<T>]: keyof BlockParams[T][K] & string;
}[BlockKind<T>];

type ParamValue<T extends BlockType, P> = {
  [K in BlockKind<T>]: P extends keyof BlockParams[T][K] ? BlockParams[T][K][P] : never;
}[BlockKind<T>];

/**
 * The fields of a choice, for example `solver` and, for its parameters, `solver.steps` and others.
 */
export type ChoiceShape<N extends string, T extends BlockType> = {
  [K in N]: z.ZodType<BlockKind<T>>;
} & { [P in ParamName<T> as `${N}.${P}`]: z.ZodOptional<z.ZodType<ParamValue<T, P>>> };

/** Values of parameters by kind, and under "*" for every kind that has the parameter. */
export type ChoiceValues<T extends BlockType> = {
  readonly [K in BlockKind<T>]?: Partial<BlockParams[T][K]>;
} & { readonly "*"?: { readonly [P in ParamName<T>]?: ParamValue<T, P> } };

/** Names of a parameter's flag. Help shows the first name. The others are former names. */
export interface FlagNames {
  readonly names: readonly string[];
  /** The kinds that the flag is for (default: all that have the parameter). */
  readonly kinds?: readonly string[];
  /** Whether help lists the flag (default: true). */
  readonly listed?: boolean;
}

/** Options of {@link choose}. */
export interface ChoiceOptions<T extends BlockType> {
  description: string;
  default: BlockKind<T>;
  /**
   * The kinds to choose from (default: those that work on `manifold` and execute no code of the
   * user).
   */
  kinds?: readonly BlockKind<T>[];
  manifold?: Manifold;
  /** Flags for parameters: `{ learning_rate: "predictor_lr" }`. */
  flags?: { readonly [P in ParamName<T>]?: string | readonly string[] | FlagNames };
  /** Parameters that the experiment sets itself. */
  omit?: readonly ParamName<T>[];
  /** The experiment's own defaults for parameters, from the config as far as it is complete. */
  values?: (config: Readonly<Record<string, unknown>>) => ChoiceValues<T>;
  /** Former `values`. A recorded run that lacks a parameter ends with the value that it began with. */
  before?: ChoiceValues<T>;
  /** Parameters that choose a kind where the user chose none: `{ kernel: "convnet" }`. */
  implies?: { readonly [P in ParamName<T>]?: BlockKind<T> };
  /** Former names of the field. */
  former?: readonly string[];
  /** Former values of the field, each with the block that replaces it. */
  formerKinds?: Readonly<Record<string, Block<T>>>;
}

/** The fields of a choice that the user need not make. */
export type LaterShape<N extends string, T extends BlockType> = {
  [K in N]: z.ZodOptional<z.ZodType<BlockKind<T>>>;
} & Omit<ChoiceShape<N, T>, N>;

/** A choice, as the runner uses it. */
export interface Choice {
  name: string;
  type: BlockType;
  kinds: readonly string[];
  /** Parameters of these kinds that are fields of the config. */
  params: ReadonlySet<string>;
  /** The default kind; undefined if {@link settle} chooses it. */
  fallback?: string;
  description: string;
  /** Flags, by parameter. */
  flags: ReadonlyMap<string, FlagNames>;
  /** Kinds that parameters choose, by parameter. */
  implies: Readonly<Record<string, string>>;
  values(
    config: Readonly<Record<string, unknown>>,
  ): Readonly<Record<string, Record<string, unknown>>>;
  before: Readonly<Record<string, Record<string, unknown>>>;
  former: readonly string[];
  formerKinds: Readonly<Record<string, { kind: string; params?: object }>>;
}

const CHOICES = new WeakMap<z.ZodType, Choice>();

/**
 * Make the fields that choose a block: `name` itself, and `name.parameter` for every parameter of
 * every kind. The flag of a parameter is `--name.parameter`, or the one in `flags`.
 */
export function choose<N extends string, T extends BlockType>(
  name: N,
  type: T,
  options: ChoiceOptions<T>,
): ChoiceShape<N, T> {
  return makeFields(name, type, options) as ChoiceShape<N, T>;
}

/**
 * Make the fields of a choice that depends on the data, unless the user makes it: the same as those
 * of {@link choose}, without defaults. {@link settle} makes the choice.
 */
export function chooseLater<N extends string, T extends BlockType>(
  name: N,
  type: T,
  options: Omit<ChoiceOptions<T>, "default" | "values">,
): LaterShape<N, T> {
  return makeFields(name, type, options) as LaterShape<N, T>;
}

/**
 * Make a choice of {@link chooseLater}: the given parameters, over `values`, over the defaults.
 *
 * @param config of the task
 * @param fields of {@link chooseLater}
 * @param kind to take if the user chose none
 * @param values the caller's own defaults of the parameters, by kind
 * @throws UsageError for a parameter that the kind does not have
 */
export function settle<T extends BlockType>(
  config: object,
  fields: Readonly<Record<string, z.ZodType>>,
  type: T,
  kind: BlockKind<T>,
  values: ChoiceValues<T> = {},
): Block<T> {
  const choice = choicesOf(fields).find((one) => one.type === type)!;
  const { name } = choice;
  const given = Object.entries(config).filter(
    ([field, value]) => value !== undefined && (field === name || field.startsWith(`${name}.`)),
  );
  const settled: Record<string, unknown> = { [name]: kind, ...Object.fromEntries(given) };
  completeChoice(
    settled,
    { ...choice, fallback: kind, values: () => values as Record<string, Record<string, unknown>> },
    false,
  );
  return chosen(settled, name, type);
}

function makeFields<T extends BlockType>(
  name: string,
  type: T,
  options: Omit<ChoiceOptions<T>, "default"> & { default?: BlockKind<T> },
): Record<string, z.ZodType> {
  const {
    kinds = kindsFor(type, options.manifold),
    description,
    flags = {},
    values,
    former = [],
  } = options;
  const omit: readonly string[] = options.omit ?? [];
  const names = Object.entries(flags as Record<string, string | readonly string[] | FlagNames>).map(
    ([param, flag]) => [param, isNames(flag) ? flag : { names: [flag].flat() }] as const,
  );
  const enumeration = z.enum(kinds as readonly string[] as [string, ...string[]]);
  const field =
    options.default === undefined
      ? enumeration.optional().meta({ placeholder: "kind" })
      : enumeration.default(options.default);
  const all = kinds.flatMap((kind) => Object.keys(paramsOf(findBlock(type, kind).entry)));
  const params = new Set(all.filter((param) => !omit.includes(param)));
  CHOICES.set(field, {
    name,
    type,
    kinds,
    params,
    fallback: options.default,
    description,
    flags: new Map(names),
    implies: { ...options.implies } as Record<string, string>,
    values: (config) => (values?.(config) ?? {}) as Record<string, Record<string, unknown>>,
    before: (options.before ?? {}) as Record<string, Record<string, unknown>>,
    former,
    formerKinds: options.formerKinds ?? {},
  });
  const shape: Record<string, z.ZodType> = { [name]: field };
  for (const param of params) shape[`${name}.${param}`] = z.unknown().optional();
  return shape;
}

function isNames(flag: string | readonly string[] | FlagNames): flag is FlagNames {
  return typeof flag === "object" && "names" in flag;
}

/** List the choices among the fields of a config, in their order. */
export function choicesOf(shape: Readonly<Record<string, z.ZodType>>): Choice[] {
  return Object.values(shape).flatMap((field) => CHOICES.get(field) ?? []);
}

/** Get the block that a complete config has chosen. */
export function chosen<T extends BlockType>(config: object, name: string, _type: T): Block<T> {
  const prefix = `${name}.`;
  const params = Object.entries(config)
    .filter(([field]) => field.startsWith(prefix))
    .map(([field, value]) => [field.slice(prefix.length), value] as const);
  const kind = (config as Record<string, unknown>)[name];
  return { kind, params: Object.fromEntries(params) } as Block<T>;
}

/** Get the catalogue's entry of the block that a config has chosen. */
export function traitsOf(config: object, name: string, type: BlockType): BlockEntry {
  return findBlock(type, String((config as Record<string, unknown>)[name])).entry;
}

/**
 * Fill in every parameter of the chosen kind, and check the given ones. A choice that is made later
 * keeps to those that are given, also if its kind is.
 *
 * @param config with the kind; parameters of other kinds are removed
 * @param recorded whether the config is that of a recorded run. Then parameters that the chosen kind
 *   does not have are removed, not refused, and missing ones get their former values
 * @throws UsageError that names the flag
 */
export function completeChoice(
  config: Record<string, unknown>,
  choice: Choice,
  recorded: boolean,
): void {
  const { name, type } = choice;
  if (config[name] === undefined) return; // it is settled later
  const kind = String(config[name]);
  const { entry } = findBlock(type, kind);
  const schemas = paramsOf(entry);
  const own = choice.values(config);
  const former = recorded ? (choice.before[kind] ?? {}) : {};
  for (const field of Object.keys(config)) {
    if (!field.startsWith(`${name}.`)) continue;
    const param = field.slice(name.length + 1);
    if (config[field] !== undefined && !Object.hasOwn(schemas, param) && !recorded)
      throw new UsageError(
        `${paramFlag(choice, param)} has no effect with --${name} ${kind}`,
        `leave it out; it is a parameter of ${kindsWith(choice, param).join(" and ")}`,
      );
    if (config[field] === undefined || !Object.hasOwn(schemas, param)) delete config[field];
  }
  for (const [param, schema] of Object.entries(schemas)) {
    const field = `${name}.${param}`;
    if (!choice.params.has(param)) continue;
    if (config[field] !== undefined) checkValue(paramFlag(choice, param), config[field], schema);
    const later = choice.fallback === undefined;
    const fallback = later ? undefined : defaultOf(own, kind, param, schema);
    const value = config[field] ?? former[param] ?? fallback;
    delete config[field]; // so that parameters are in the catalogue's order
    if (value !== undefined) config[field] = value;
  }
}

/** Get the default of a parameter. */
export function defaultOf(
  own: ReturnType<Choice["values"]>,
  kind: string,
  param: string,
  schema: ParamSchema,
): unknown {
  return own[kind]?.[param] ?? own["*"]?.[param] ?? schema.default;
}

/** List the kinds of a choice that have a parameter. */
export function kindsWith({ type, kinds }: Choice, param: string): string[] {
  return kinds.filter((kind) => Object.hasOwn(paramsOf(findBlock(type, kind).entry), param));
}

/** Name the flag of a parameter: "--r1", or "--solver.r1" if it has no flag of its own. */
export function paramFlag({ name, flags }: Choice, param: string): string {
  return `--${(flags.get(param)?.names[0] ?? `${name}.${param}`).replaceAll("_", "-")}`;
}

/** Choose the kind that a given parameter implies, where none is chosen. */
export function chooseImplied(values: Record<string, unknown>, { name, implies }: Choice): void {
  if (values[name] !== undefined) return;
  const param = Object.keys(implies).find((one) => values[`${name}.${one}`] !== undefined);
  if (param !== undefined) values[name] = implies[param];
}

/** Get the schema of a parameter, for the default kind or the first kind that has it. */
export function schemaOf(choice: Choice, param: string): ParamSchema {
  const kinds = kindsWith(choice, param);
  const kind = kinds.find((one) => one === choice.fallback) ?? kinds[0];
  return paramsOf(findBlock(choice.type, kind!).entry)[param]!;
}

/** List the kinds to choose from that work on a manifold and execute no code of the user. */
export function kindsFor<T extends BlockType>(
  type: T,
  manifold: Manifold | undefined,
): readonly BlockKind<T>[] {
  return Object.entries(blocksOf(type))
    .filter(([, { manifolds, executes_code = false, unlisted = false }]) => {
      return (
        !executes_code &&
        !unlisted &&
        (manifold === undefined || (manifolds ?? [manifold]).includes(manifold))
      );
    })
    .map(([kind]) => kind as BlockKind<T>);
}
