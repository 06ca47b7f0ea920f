/**
 * The form of experiments in version 0.1, `defineExperiment({ config, run })`, which still works.
 */
import type { z } from "zod";
import type { Findings } from "../result.js";
import { ineffectiveFlags } from "./conditional-flags.js";
import type { Context } from "./context.js";
import { flagsOf } from "./flags.js";
import type { RunLookup } from "./lookup.js";
import type { Shape, TaskDefinition } from "./task.js";

/** @deprecated Give `tasks` to {@link defineExperiment}. */
export interface FormerDefinition<S extends z.ZodObject = z.ZodObject> {
  name: string;
  summary: string;
  config: S;
  presets?: (given: Partial<z.infer<S>>) => Record<string, Partial<z.infer<S>>>;
  defaultPreset?: (given: Partial<z.infer<S>>) => string;
  examples?: string[];
  prepare?: (config: z.infer<S>, runs: RunLookup) => Promise<z.infer<S>>;
  run: (ctx: Context, config: z.infer<S>) => Promise<Findings>;
}

/** Make the one task of an experiment in the former form. */
export function fromFormer({ prepare, ...definition }: FormerDefinition): TaskDefinition {
  return {
    summary: definition.summary,
    config: definition.config.shape as Shape,
    presets: definition.presets,
    defaultPreset: definition.defaultPreset,
    examples: definition.examples,
    async prepare(config, { lookup, given, warn }) {
      const flags = flagsOf({ config: definition.config.shape as Shape, choices: [] });
      for (const note of ineffectiveFlags(flags, given, config)) warn(note);
      return prepare ? prepare(config, lookup) : config;
    },
    code: ({ trust_code, predictor }) => (trust_code === true ? String(predictor) : undefined),
    run: definition.run,
  };
}
