/** Which fields of a config count only beside certain values of others: declared where the field is, shown in help, and refused when given in vain. */
import type { z } from "zod";
import { UsageError } from "../errors.js";
import { describeUse, type Flag, LENIENT, type Where } from "./flags.js";

/** Config fields that count only where this holds, or one of several; within another `onlyFor`, where both do. */
export function onlyFor<F extends Record<string, z.ZodType>>(where: Where | readonly Where[], fields: F): F {
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
 * What was given in vain but is let pass, in words.
 *
 * @param config complete
 * @throws UsageError for what else was given in vain
 */
export function givenInVain(
  flags: readonly Flag[],
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
    if (!LENIENT.includes(key))
      throw new UsageError(message, `leave it out; it counts ${describeUse(key, wanted)}`);
    notes.push(message);
  }
  return notes;
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
