/** `atlas show --cite RUN`: what a paper says of a run: BibTeX, and the command that repeats it. */
import { completeConfig } from "../experiment/config.js";
import { type Flag, flagsOf } from "../experiment/flags.js";
import { builtinExperiments, loadExperiment } from "../experiment/load.js";
import { flagName } from "../experiment/names.js";
import { Result } from "../result.js";
import type { Run, RunConfig } from "../run/folder.js";

const PAPER = `@inproceedings{atlasd2025,
  title     = {AtlasD: Automatic Local Symmetry Discovery},
  booktitle = {International Conference on Machine Learning},
  year      = {2025},
  note      = {arXiv:2504.10777}
}`;

/** Write the entries and the command of a run. */
export async function cite(run: Run): Promise<string> {
  const { config } = run;
  const document = await run.result();
  const { versions, data } =
    document === undefined ? { versions: config.versions } : told(document);
  const { created } = await run.summary();
  const known = Object.entries(versions ?? {}).map(([name, version]) => `${name} ${version}`);
  const hashes = (data ?? []).map(
    ({ kind, sha256 }) => `${kind} fingerprint:${sha256.slice(0, 16)}`,
  );
  const note = [
    `run ${run.id}, seed ${config.seed}`,
    ...(known.length > 0 ? [`computed with ${known.join(", ")}`] : []),
    ...(hashes.length > 0 ? [`data ${hashes.join(", ")}`] : []),
  ].join("; ");
  return [
    PAPER,
    "",
    `@misc{${run.id.replaceAll(/[^A-Za-z0-9-]/g, "")},`,
    `  title        = {Atlas ${versions?.atlas ?? ""}: a run of ${config.experiment}},`,
    `  year         = {${created.slice(0, 4)}},`,
    `  howpublished = {\\url{https://github.com/Rose-STL-Lab/ATLAS}},`,
    `  note         = {${escapeTex(note)}}`,
    "}",
    "",
    "% repeat it with:",
    `% ${await commandOf(config)}`,
  ].join("\n");
}

function told(document: unknown) {
  const { environment, data } = Result.parse(document);
  return { versions: environment.versions, data };
}

function escapeTex(text: string): string {
  return text.replaceAll(/[_%&#$]/g, (sign) => `\\${sign}`);
}

/** Write the command line that starts a run like this one again. */
export async function commandOf({ experiment, file, preset, seed, config }: RunConfig) {
  const { task, ...fields } = config;
  const words = ["atlas", ...(file === undefined ? [experiment] : ["run", file])];
  if (task !== undefined) words.push(`--task=${String(task)}`);
  if (preset !== undefined) words.push(`--preset=${preset}`);
  let usual: Readonly<Record<string, unknown>> = {};
  let flags: ReadonlyMap<string, Flag> | undefined;
  let trusted = false;
  try {
    const path = file ?? builtinExperiments().find(({ name }) => name === experiment)!.path;
    const definition = await loadExperiment(path);
    const chosenTask = definition.tasks[String(task ?? Object.keys(definition.tasks)[0])]!;
    const present = flagsOf(chosenTask).filter(({ former }) => former === undefined);
    flags = new Map(present.map((flag) => [flag.field, flag]));
    trusted = Boolean(chosenTask.code?.(config as never));
    const plain = completeConfig(definition, { task }, { preset }).config;
    // Blocks decide which parameters there are, and what they are by default.
    const blocks = Object.entries(fields).filter(
      ([field, value]) => typeof value === "string" && plain[field] !== value,
    );
    const chosen = completeConfig(definition, { task, ...Object.fromEntries(blocks) }, { preset });
    usual = {
      ...chosen.config,
      ...Object.fromEntries(blocks.map(([field]) => [field, undefined])),
    };
  } catch {
    // A run of an experiment that is gone, or has changed: all fields are written.
  }
  // Fields that had an effect because the user gave them, even with their defaults.
  const given = new Set(Array.isArray(fields.given_fields) ? fields.given_fields : []);
  for (const [field, value] of Object.entries(fields)) {
    if (!given.has(field) && JSON.stringify(value) === JSON.stringify(usual[field])) continue;
    if (value === undefined || value === null) continue;
    if (flags !== undefined && !flags.has(field)) continue; // no flag sets it
    const text = referenceOf(value);
    const flag = flags?.get(field)?.name ?? flagName(field);
    if (flags?.get(field)?.positional) words.push(text);
    else
      words.push(
        value === false ? `--no-${flag}` : value === true ? `--${flag}` : `--${flag}=${text}`,
      );
  }
  if (trusted) words.push("--trust-code");
  words.push(`--seed=${seed}`);
  return words.map(quoted).join(" ");
}

/** What to type for a value; an algebra from elsewhere is named by its source. */
function referenceOf(value: unknown): string {
  if (typeof value !== "object" || value === null) return String(value);
  const { source } = value as { source?: unknown };
  return typeof source === "string" ? source : JSON.stringify(value);
}

function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
