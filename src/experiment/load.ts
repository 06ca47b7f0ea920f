/** Find and load experiments: those of this package, and files of the user. */
import { closeSync, existsSync, openSync, readdirSync, readSync } from "node:fs";
import { register as registerHooks } from "node:module";
import { basename, extname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { AtlasError, UsageError } from "../errors.js";
import { type Experiment, isExperiment } from "./define.js";

/** An experiment of this package that is not loaded yet. */
export interface ExperimentFile {
  name: string;
  path: string;
  /** First sentence of the file's comment, without a full stop. */
  summary: string;
}

/** The folder experiments/: beside src/ under tsx, and beside dist/src/ when compiled. */
const FOLDER = fileURLToPath(new URL("../../experiments/", import.meta.url));

/**
 * List the experiments of this package. Only the beginning of each file is read, which is quick.
 */
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
 * Load an experiment's file: .js, or .ts through tsx.
 *
 * In the file, `import … from "atlas-symmetry"` means this very package, wherever the file is. And
 * `import … from "zod"` means this package's zod, with which config schemas must be made.
 *
 * @throws UsageError if the file is missing or cannot be loaded, or its default export is not an
 *   experiment
 */
export async function loadExperiment(path: string): Promise<Experiment> {
  const file = resolve(path);
  if (!existsSync(file))
    throw new UsageError(`there is no experiment file ${path}`, "check the path");
  await prepareLoader(/\.[cm]?tsx?$/.test(file));
  let module: { default?: unknown };
  try {
    module = (await import(pathToFileURL(file).href)) as { default?: unknown };
  } catch (error) {
    if (error instanceof AtlasError) throw error;
    const reason = error instanceof Error ? error.message.split("\n")[0] : String(error);
    throw new UsageError(
      `${path} cannot be loaded: ${reason}`,
      "run again with --debug to see where",
      { cause: error },
    );
  }
  // A .ts file outside a package with "type": "module" is CommonJS, and its default export is an
  // object with the exports.
  const exported = module.default;
  const value =
    typeof exported === "object" &&
    exported !== null &&
    !isExperiment(exported) &&
    "default" in exported
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
    // Without the change of format, a .ts file outside a package with "type": "module" would be
    // CommonJS, which cannot import this package's modules.
    const hook = `export async function resolve(specifier, context, next) {
      if (specifier === "atlas-symmetry") return next(${JSON.stringify(index)}, context);
      const own = { ...context, parentURL: ${JSON.stringify(index)} };
      const found = await next(specifier, specifier === "zod" ? own : context);
      const users = /\\.tsx?(\\?|$)/.test(found.url) && !found.url.includes("/node_modules/");
      return users && found.format === "commonjs" ? { ...found, format: "module" } : found;
    }`;
    registerHooks(`data:text/javascript,${encodeURIComponent(hook)}`);
    prepared.self = true;
  }
}

/** Read the first sentence of a file's first comment, without a full stop. */
function firstSentence(path: string): string {
  const head = Buffer.alloc(600);
  const file = openSync(path, "r");
  let length: number;
  try {
    length = readSync(file, head);
  } finally {
    closeSync(file);
  }
  const comment = /^\/\*\*\s*([\s\S]*?)\s*\*\//.exec(head.toString("utf8", 0, length))?.[1] ?? "";
  const [first = ""] = comment.replaceAll(/\s*\n\s*\*?\s*/g, " ").split(/(?<=\.)\s/);
  return first.replace(/\.$/, "");
}
