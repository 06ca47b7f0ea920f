/** Finds and loads experiments: ours, from the folder experiments/, and a user's own file. */
import { existsSync, openSync, readdirSync, readSync } from "node:fs";
import { register as registerHooks } from "node:module";
import { basename, extname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { AtlasError, UsageError } from "../errors.js";
import { type Experiment, isExperiment } from "./define.js";

/** An experiment that comes with the package, not loaded yet. */
export interface ExperimentFile {
  name: string;
  path: string;
  /** First sentence of its file's comment. */
  summary: string;
}

/** Compiled, this file is dist/src/experiment/load.js beside dist/experiments/; under tsx src/ and experiments/ are beside each other as well. */
const FOLDER = fileURLToPath(new URL("../../experiments/", import.meta.url));

/** The experiments of this package. Reads only the beginning of each file, so that `atlas --help` stays quick. */
export function builtinExperiments(folder = FOLDER): ExperimentFile[] {
  const extension = extname(fileURLToPath(import.meta.url)); // .ts under tsx, else .js
  return readdirSync(folder, { withFileTypes: true })
    .filter((e) => e.isFile() && e.name.endsWith(extension) && !e.name.endsWith(`.d${extension}`))
    .map((e) => {
      const path = join(folder, e.name);
      return { name: basename(e.name, extension), path, summary: firstSentence(path) };
    });
}

/**
 * Load an experiment's file: .js, or .ts by way of tsx. `import … from "atlas-symmetry"` in it means this very package, wherever the file lies, and
 * `import … from "zod"` this package's own, which a config schema must be made with.
 *
 * @throws UsageError when the file is missing, cannot be loaded, or its default export is not an experiment
 */
export async function loadExperiment(path: string): Promise<Experiment> {
  const file = resolve(path);
  if (!existsSync(file)) throw new UsageError(`there is no experiment file ${path}`, "check the path");
  await prepareLoader(/\.[cm]?tsx?$/.test(file));
  let module: { default?: unknown };
  try {
    module = (await import(pathToFileURL(file).href)) as { default?: unknown };
  } catch (error) {
    if (error instanceof AtlasError) throw error;
    throw new UsageError(
      `${path} cannot be loaded: ${error instanceof Error ? error.message.split("\n")[0] : String(error)}`,
      "run again with --debug to see where",
      { cause: error },
    );
  }
  // A .ts file outside a package with "type": "module" is loaded as CommonJS, whose exports are the default export.
  const exported = module.default;
  const value =
    typeof exported === "object" && exported !== null && !isExperiment(exported) && "default" in exported
      ? exported.default
      : exported;
  if (isExperiment(value)) return value;
  throw new UsageError(
    `${path} has no experiment as its default export`,
    "write: export default defineExperiment({ … })",
  );
}

const prepared = { tsx: false, self: false };

async function prepareLoader(typescript: boolean): Promise<void> {
  if (typescript && !prepared.tsx && !import.meta.url.endsWith(".ts")) {
    const { register } = await import("tsx/esm/api");
    register();
    prepared.tsx = true;
  }
  if (!prepared.self) {
    const index = new URL(`../index${extname(import.meta.url)}`, import.meta.url).href;
    // A .ts file outside a package with "type": "module" would be CommonJS, which could not import us as the modules that we are.
    const hook = `export async function resolve(specifier, context, next) {
      if (specifier === "atlas-symmetry") return next(${JSON.stringify(index)}, context);
      const found = await next(specifier, specifier === "zod" ? { ...context, parentURL: ${JSON.stringify(index)} } : context);
      const own = /\\.tsx?(\\?|$)/.test(found.url) && !found.url.includes("/node_modules/");
      return own && found.format === "commonjs" ? { ...found, format: "module" } : found;
    }`;
    registerHooks(`data:text/javascript,${encodeURIComponent(hook)}`);
    prepared.self = true;
  }
}

function firstSentence(path: string): string {
  const head = Buffer.alloc(600);
  const length = readSync(openSync(path, "r"), head);
  const comment = /^\/\*\*\s*([\s\S]*?)\s*\*\//.exec(head.toString("utf8", 0, length))?.[1] ?? "";
  return comment.replaceAll(/\s*\n\s*\*?\s*/g, " ").split(/(?<=\.)\s/)[0]!;
}
