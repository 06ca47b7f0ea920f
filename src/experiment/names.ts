/** Names of config fields on the command line, and their former names. */
import type { z } from "zod";

/** Metadata of a field beside its description. */
export interface FieldMeta {
  /** Former names of the field. */
  former?: readonly string[];
  /** Present values, by former value. */
  formerValues?: Readonly<Record<string, unknown>>;
  /** Value in runs that were recorded before the field existed (default: the field's default). */
  before?: unknown;
  /** Whether the text may name a file or folder that the worker reads. */
  file?: boolean;
}

/** Get the metadata of a field. */
export function metaOf(schema: z.ZodType | undefined): FieldMeta {
  return (schema?.meta() ?? {}) as FieldMeta;
}

/** Name a field's flag: "batch_size" and "batchSize" become "batch-size"; "N" stays "N". */
export function flagName(field: string): string {
  return field
    .replaceAll("_", "-")
    .replaceAll(/([a-z0-9])([A-Z])/g, (_, a: string, b: string) => `${a}-${b.toLowerCase()}`);
}
