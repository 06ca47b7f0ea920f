/**
 * `atlas blocks [TYPE [KIND]]`: print the block catalogue. Also describes the parameters of blocks
 * for the help of experiments.
 */
import type { Command } from "commander";
import {
  type BlockEntry,
  type BlockType,
  blocksOf,
  describeParam,
  findBlock,
  type ParamSchema,
  paramsOf,
} from "../blocks.js";
import { UsageError } from "../errors.js";
import { type Choice, defaultOf } from "../experiment/choice.js";
import { flagName } from "../experiment/names.js";
import { helpWidth, wrap } from "../format.js";
import { CATALOGUE } from "../gen/blocks.js";
import { suggestion } from "../suggest.js";

const TYPES = Object.keys(CATALOGUE) as BlockType[];

/** Add the command to `program`. */
export function register(program: Command): void {
  program
    .command("blocks")
    .description("List the blocks (datasets, architectures, solvers …) and their parameters")
    .argument("[type]", `type of block: ${TYPES.join(", ")}`)
    .argument("[kind]", "kind of this type, for example grassmann")
    .option("--json", "Print only JSON: the catalogue, or the part that is named")
    .addHelpText("after", "\nExamples:\n  atlas blocks\n  atlas blocks algebra_solver grassmann")
    .action((type: string | undefined, kind: string | undefined, { json }: { json?: boolean }) => {
      const lines = describeCatalogue(type, kind, json === true);
      process.stdout.write(`${lines.join("\n")}\n`);
    });
}

function describeCatalogue(
  type: string | undefined,
  kind: string | undefined,
  json: boolean,
): string[] {
  if (type === undefined) {
    if (json) return [JSON.stringify(CATALOGUE, null, 2)];
    return TYPES.flatMap((each) => [each, ...listKinds(each), ""]).slice(0, -1);
  }
  if (!isType(type))
    throw new UsageError(
      `there is no type of block ${JSON.stringify(type)}${suggestion(type, TYPES)}`,
      `choose one of ${TYPES.join(", ")}`,
    );
  if (kind === undefined)
    return json ? [JSON.stringify(blocksOf(type), null, 2)] : [type, ...listKinds(type)];
  const found = findBlock(type, kind);
  if (json) return [JSON.stringify(found.entry, null, 2)];
  const params = Object.entries(paramsOf(found.entry)).map(([name, schema]) =>
    line(name, schema, schema.default),
  );
  return [
    `${type} ${found.kind}: ${found.entry.summary}`,
    ...traits(found.entry),
    ...params.flat(),
  ];
}

function isType(type: string): type is BlockType {
  return (TYPES as string[]).includes(type);
}

function listKinds(type: BlockType): string[] {
  const width = Math.max(...Object.keys(blocksOf(type)).map((kind) => kind.length));
  return Object.entries(blocksOf(type)).map(
    ([kind, { summary }]) => `  ${kind.padEnd(width)}  ${summary}`,
  );
}

function traits(entry: BlockEntry): string[] {
  const { aliases, manifolds, finds_k, alternates, executes_code } = entry;
  return [
    aliases && `  formerly ${aliases.join(", ")}`,
    manifolds && `  works on ${manifolds.join(", ")}`,
    finds_k && "  finds the number of generators",
    alternates && "  takes turns with the predictor's training",
    executes_code && "  executes your code",
  ].filter((text) => typeof text === "string");
}

function line(name: string, schema: ParamSchema, value: unknown): string[] {
  const fallback = value === undefined || value === "" ? "" : `, default ${String(value)}`;
  const text = `${name}: ${schema.description ?? ""} (${describeParam(schema)}${fallback})`;
  return wrap(text, helpWidth(), 4).map((l, i) => (i === 0 ? l.slice(2) : l));
}

/**
 * Describe the parameters of a kind for the help of an experiment.
 *
 * @param choice the field that chooses the kind
 * @returns in short the names and defaults of parameters without a listed flag, else a line for
 * each
 */
export function describeParams(
  choice: Choice,
  kind: string,
  {
    short,
  }: {
    /** Whether to give names and defaults only. */
    short: boolean;
  },
): string {
  const schemas = Object.entries(paramsOf(findBlock(choice.type, kind).entry));
  const own = choice.values({ [choice.name]: kind });
  const said = schemas.flatMap(([param, schema]) => {
    const flag = choice.flags.get(param);
    if (!choice.params.has(param) || (short && flag && flag.listed !== false)) return [];
    const value = defaultOf(own, kind, param, schema);
    if (short) return [`${flagName(param)}${value === undefined ? "" : ` ${String(value)}`}`];
    return line(`--${flagName(`${choice.name}.${param}`)}`, schema, value);
  });
  return short ? said.join(", ") : said.join("\n");
}
