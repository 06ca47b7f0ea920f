/** Generate TypeScript from the block catalogue, proto/atlas/v1/blocks.json. Plain Node. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./common.mjs";

/**
 * @typedef {{type?: string, enum?: string[], items?: Schema, properties?: Record<string, Schema>,
 *   required?: string[], default?: unknown, minimum?: number, maximum?: number, minItems?: number,
 *   maxItems?: number, description?: string, format?: string, "x-former"?: string}} Schema
 * @typedef {{summary: string, aliases?: string[], params: Schema}} Entry
 * @typedef {{blocks: Record<string, Record<string, Entry>>}} Catalogue
 */

/** Path of the block catalogue. */
export const CATALOGUE = join(ROOT, "proto/atlas/v1/blocks.json");
/** Bound of whole numbers that declare none. Comments leave it out. */
const LARGEST_INT = 2 ** 31 - 1;

/** Make the text of src/gen/blocks.ts. @param {string} [json] the catalogue */
export function generateBlocks(json = readFileSync(CATALOGUE, "utf8")) {
  const { blocks } = /** @type {Catalogue} */ (JSON.parse(json));
  const kinds = Object.values(blocks).flatMap((entries) => Object.keys(entries));
  const lines = [
    "/** Generated from proto/atlas/v1/blocks.json: do not edit. */",
    'import type { BlockEntry } from "../blocks.js";',
    "",
  ];
  const table = [];
  for (const [type, entries] of Object.entries(blocks)) {
    table.push(`  ${type}: {`);
    for (const [kind, entry] of Object.entries(entries)) {
      const shared = kinds.filter((other) => other === kind).length > 1;
      const name = `${pascal(shared ? `${type}_${kind}` : kind)}Params`;
      lines.push(
        comment(entry.summary),
        `export interface ${name} ${objectType(entry.params)}`,
        "",
      );
      table.push(`    ${kind}: ${name};`);
      for (const alias of entry.aliases ?? [])
        table.push(`    /** @deprecated Use ${kind}. */`, `    ${alias}: ${name};`);
    }
    table.push("  };");
  }
  lines.push(
    "/** The parameters of every kind of block, by type. */",
    "export interface BlockParams {",
    ...table,
    "}",
    "",
    "export const CATALOGUE: Readonly<Record<keyof BlockParams, Readonly<Record<string, " +
      `BlockEntry>>>> = ${JSON.stringify(blocks, null, 2)};`,
    "",
  );
  return lines.join("\n");
}

/** @param {Schema} schema @param {string} [indent] @returns {string} */
function objectType({ properties = {}, required = [] }, indent = "") {
  const names = Object.entries(properties);
  if (names.length === 0) return "{}";
  const inner = `${indent}  `;
  const fields = names.map(([name, schema]) => {
    const optional = required.includes(name) ? "" : "?";
    const about = comment(`${schema.description ?? ""}${details(schema)}`, inner);
    return `${about}\n${inner}${name}${optional}: ${typeOf(schema, inner)};`;
  });
  return `{\n${fields.join("\n")}\n${indent}}`;
}

/** @param {Schema} schema @param {string} indent @returns {string} */
function typeOf(schema, indent) {
  if (schema.enum) return schema.enum.map((choice) => JSON.stringify(choice)).join(" | ");
  switch (schema.type) {
    case "integer":
    case "number":
      return "number";
    case "boolean":
      return "boolean";
    case "array":
      return `readonly (${typeOf(schema.items ?? {}, indent)})[]`;
    case "object":
      return objectType(schema, indent);
    default:
      return "string";
  }
}

/** Write default and bounds: " (default 6; from 1 to 256)". @param {Schema} schema */
function details(schema) {
  const low = schema.minimum ?? schema.minItems;
  const high = schema.maximum === LARGEST_INT ? undefined : (schema.maximum ?? schema.maxItems);
  const range = [low === undefined ? "" : `from ${low}`, high === undefined ? "" : `to ${high}`]
    .filter(Boolean)
    .join(" ");
  const said = [
    schema.default === undefined ? "" : `default ${JSON.stringify(schema.default)}`,
    range,
  ].filter(Boolean);
  return said.length === 0 ? "" : ` (${said.join("; ")})`;
}

/** @param {string} text @param {string} [indent] */
function comment(text, indent = "") {
  return `${indent}/** ${text.replaceAll("*/", "* /")} */`;
}

/** @param {string} text */
function pascal(text) {
  return text.replaceAll(
    /(^|_)(.)/g,
    (/** @type {string} */ _, /** @type {string} */ __, /** @type {string} */ letter) =>
      letter.toUpperCase(),
  );
}
