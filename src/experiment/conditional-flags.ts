/**
 * Config fields that have an effect only beside certain values of other fields: the `onlyFor` of
 * version 0.1, which tasks replace. Help shows the condition, and a flag without effect is refused.
 */
import type { z } from "zod";
import { UsageError } from "../errors.js";
import { flagName } from "./names.js";

/**
 * Values of other fields, all of which must fit. `"discover*"` fits every value that begins so,
 * true every field that is set, and false every field that is not set.
 */
export type Where = Readonly<Record<string, readonly (string | boolean)[]>>;

/** Fields beside which a flag without effect is a warning, not an error. */
const TOLERATED = ["reuse_predictor"];

/**
 * Mark config fields that have an effect only under a condition, or one of several. An inner
 * `onlyFor` adds its condition to the outer one.
 *
 * @deprecated Give each task of an experiment its own config.
 */
export function onlyFor<F extends Record<string, z.ZodType>>(
  where: Where | readonly Where[],
  fields: F,
): F {
  const marked = Object.entries(fields).map(([name, field]) => {
    const about = field.meta() as { only?: Where[] } | undefined;
    const only = [where]
      .flat()
      .flatMap((outer) => (about?.only ?? [{}]).map((own) => ({ ...outer, ...own })));
    return [name, field.meta({ ...about, only })];
  });
  return Object.fromEntries(marked) as F;
}

/**
 * Find flags that were given but have no effect.
 *
 * @param config complete
 * @returns a sentence for each such flag that is tolerated
 * @throws UsageError for a flag that is not tolerated
 */
export function ineffectiveFlags(
  flags: readonly { field: string; name: string; positional: boolean; only: readonly Where[] }[],
  given: Readonly<Record<string, unknown>>,
  config: Readonly<Record<string, unknown>>,
): string[] {
  const notes: string[] = [];
  for (const { field, name, positional, only } of flags) {
    const unmet = only.map((where) =>
      Object.entries(where).find(([key, wanted]) => !fits(config[key], wanted)),
    );
    const [first] = unmet;
    if (given[field] === undefined || first === undefined || unmet.includes(undefined)) continue;
    const [key, wanted] = first;
    const is = typeof wanted[0] === "boolean" ? isSet(config[key]) : String(config[key]);
    const message = `${positional ? name : `--${name}`} has no effect ${describeUse(key, [is])}`;
    if (!TOLERATED.includes(key))
      throw new UsageError(message, `leave it out; it counts ${describeUse(key, wanted)}`);
    notes.push(message);
  }
  return notes;
}

/** Describe a condition for help: " [with --task discover]"; "" if a field always has an effect. */
export function useOf(only: readonly Where[]): string {
  const uses = only.map((where) => {
    const told = Object.entries(where).filter(([key]) => !TOLERATED.includes(key));
    return told.map(([key, values]) => describeUse(key, values)).join(", ");
  });
  return uses.length === 0 || uses.includes("")
    ? ""
    : ` [${uses.join("; or ").replaceAll(", with ", ", ")}]`;
}

/**
 * Describe a condition: "with --task discover or discover_algebra", "without --reuse-predictor".
 */
function describeUse(field: string, values: Where[string]): string {
  const flag = `--${flagName(field)}`;
  const texts = values.filter((v) => typeof v === "string");
  if (texts.length > 0) return `with ${flag} ${texts.join(" or ")}`;
  return `${values.includes(true) ? "with" : "without"} ${flag}`;
}

function fits(value: unknown, wanted: Where[string]): boolean {
  return wanted.some((w) => {
    if (typeof w === "boolean") return w === isSet(value);
    return w.endsWith("*") ? String(value).startsWith(w.slice(0, -1)) : w === value;
  });
}

function isSet(value: unknown): boolean {
  return value !== undefined && value !== false;
}
