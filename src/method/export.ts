/** Write the symmetry that a run found for other programs: a folder with files of its own. */

import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { linearCoordinates } from "../algebra/factors.js";
import { exactAlgebra, type SquareMatrix } from "../algebra/index.js";
import { UsageError } from "../errors.js";
import { Result } from "../result.js";
import { explainFileSystem, writeFileAtomic } from "../run/atomic.js";
import type { Run } from "../run/folder.js";
import { WORKER } from "../setup/common.mjs";
import { VERSION } from "../version.js";
import { accuracyOf } from "./audit.js";
import { certainComponents, certainGenerators, saidOf, weakest } from "./certain.js";
import { fitLibrary, LIBRARIES } from "./export-libraries.js";

/** Formats of an exported symmetry. */
export const SYMMETRY_FORMATS = ["json", "torch", ...LIBRARIES] as const;
/** A format of an exported symmetry. */
export type SymmetryFormat = (typeof SYMMETRY_FORMATS)[number];

/** The file that marks a folder as an export. */
const DOCUMENT = "symmetry.json";
/** The exported Python file, and the folder of its templates, which have a symmetry in them. */
const PROGRAM = "symmetry.py";
const TEMPLATES = join(WORKER, "atlas_worker", "exported");
const SCHEMA = "atlas.symmetry/1";

/** What was exported. */
export interface ExportedSymmetry {
  folder: string;
  files: string[];
  name: string;
  generators: number;
  components: number;
  /** "symmetry", "approximate", or "not judged" for a run without evidence. */
  verdict: string;
  /** What the user should know. */
  notes: string[];
}

/**
 * Export the symmetry of a finished run.
 *
 * @param out the folder to write; it must be missing or empty, unless `force` and an export
 * @throws UsageError if the run found no symmetry, or the format or folder does not do
 */
export async function exportSymmetry(
  run: Run,
  out: string,
  format: SymmetryFormat,
  { force = false }: { force?: boolean } = {},
): Promise<ExportedSymmetry> {
  const document = await run.result();
  if (document === undefined)
    throw new UsageError(
      `run ${run.id} is ${await run.status()} and has no result yet`,
      `finish it with: atlas resume ${run.id}`,
    );
  const result = Result.parse(document);
  const found = symmetryOf(run.id, result);
  const { config, experiment } = run.config;
  if (format === "torch") checkTorch(run.id, result);
  const fitted =
    format === "json" || format === "torch"
      ? undefined
      : fitLibrary(run.id, format, found, result, config);
  found.notes.push(...(fitted?.notes ?? []));
  const folder = resolve(out);
  await checkFolder(folder, out, force);
  const hashes = await hashesOf(run);
  const { evidence } = result.algebra ?? {};
  const coordinates = linearCoordinates(result.algebra);
  const exported = {
    schema: SCHEMA,
    name: found.name,
    convention: "generators B act on points and vectors: u → exp(tB) u; fields are pushed forward",
    n: found.n,
    ...(result.algebra?.factors && { factors: result.algebra.factors }),
    generators: found.generators,
    components: found.components,
    ...(coordinates && { coordinates }),
    accuracy: found.accuracy,
    verdict: found.verdict,
    evidence: evidence ?? null,
    identified: result.algebra?.identified ?? null,
    invariantMetric: result.algebra?.invariantMetric ?? null,
    group: result.group ?? null,
    inputs_as: config.inputs_as ?? null,
    targets_as: config.targets_as ?? null,
    charts: result.chartMap ?? null,
    notes: found.notes,
    run: { id: run.id, experiment, seed: run.config.seed, created: run.config.created, hashes },
    atlas: VERSION,
  };
  const files: Record<string, string> = {
    [DOCUMENT]: `${JSON.stringify(exported, null, 2)}\n`,
    "README.md": readmeOf(run, found, result, format, hashes),
  };
  if (format !== "json") files[PROGRAM] = await pythonFile(format, found, fitted?.data);
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    throw explainFileSystem(error, "create", folder);
  }
  // An earlier export may have had another format.
  if (format === "json") await rm(join(folder, PROGRAM), { force: true });
  for (const [name, text] of Object.entries(files)) await writeFileAtomic(join(folder, name), text);
  const { name, verdict, notes } = found;
  const counts = { generators: found.generators.length, components: found.components.length };
  return { folder, files: Object.keys(files), name, ...counts, verdict, notes };
}

interface Found {
  name: string;
  n: number;
  generators: SquareMatrix[];
  components: { name: string; matrix: SquareMatrix; verdict: string }[];
  accuracy: number;
  verdict: string;
  notes: string[];
}

/** Take what is certain enough from a result. @throws UsageError if nothing is */
function symmetryOf(id: string, result: Result): Found {
  const { algebra, cosets = [], group } = result;
  if (algebra === undefined && cosets.length === 0)
    throw new UsageError(
      `run ${id} looked for no symmetry (task ${result.task})`,
      "give a run of task discover or discover_algebra",
    );
  const notes: string[] = [];
  const judged = algebra?.evidence;
  const certain = algebra && certainGenerators(algebra);
  const { generators = [], approximate = false } = certain ?? {};
  notes.push(...(certain?.notes ?? []));
  const { components, leftOut } = certainComponents(result);
  if (leftOut > 0) notes.push(saidOf(leftOut));
  if (generators.length + components.length === 0) {
    const why = judged?.words ?? algebra?.explanation ?? "no component but the identity was found";
    throw new UsageError(
      `run ${id} has no symmetry to export: ${why}`,
      judged?.verdict === "cannot tell"
        ? "give more samples, or a better predictor"
        : "look at its report",
    );
  }
  const ofComponents = weakest(components.map((each) => each.verdict));
  const verdict =
    generators.length === 0
      ? ofComponents
      : judged === undefined
        ? "not judged"
        : approximate
          ? "approximate"
          : judged.verdict;
  if (judged === undefined && generators.length > 0)
    notes.push("the run measured no evidence: the generators were judged by their errors alone");
  if (approximate) notes.push("use the symmetry for augmentation first");
  const { factors } = algebra ?? {};
  const whole = generators.length === algebra?.symmetryCount;
  const nearest = whole
    ? algebra?.identified.name
    : exactAlgebra(generators, { factors, coordinates: linearCoordinates(algebra) })?.name;
  const named = nearest ?? (approximate ? "an approximate algebra" : "an algebra");
  const name =
    generators.length > 0
      ? named
      : leftOut > 0
        ? "a set of matrices"
        : (group?.name ?? "a finite group");
  const n = (generators[0] ?? components[0]!.matrix).length;
  return { name, n, generators, components, accuracy: accuracyOf(result), verdict, notes };
}

function checkTorch(id: string, { algebra }: Result): void {
  const { factors } = algebra ?? {};
  if (factors === undefined || (factors.length === 1 && !factors[0]!.affine)) return;
  const what = factors.length > 1 ? "several groups act" : "the group translates points";
  throw new UsageError(
    `the format torch takes one linear group, and in run ${id} ${what}`,
    "export it as json",
  );
}

async function checkFolder(folder: string, given: string, force: boolean): Promise<void> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw explainFileSystem(error, "write", folder);
  }
  if (names.length === 0) return;
  if (!names.includes(DOCUMENT))
    throw new UsageError(`${given} is a folder with other files`, "choose another folder", {
      elsewhere: true,
    });
  if (!force)
    throw new UsageError(`${given} exists already`, "choose another folder, or overwrite it", {
      overwritable: true,
    });
}

/** SHA-256 of the run's files, by name. */
async function hashesOf(run: Run): Promise<Record<string, string>> {
  const checkpoints = join(run.path, "checkpoints");
  const stages = await readdir(checkpoints).catch(() => []);
  const files = ["config.json", "result.json", ...stages.map((name) => join("checkpoints", name))];
  const hashes: Record<string, string> = {};
  for (const name of files.sort()) {
    const bytes = await readFile(join(run.path, name)).catch(() => undefined);
    if (bytes) hashes[name] = createHash("sha256").update(bytes).digest("hex");
  }
  return hashes;
}

/** Put the symmetry into the Python file of a format. */
async function pythonFile(
  format: Exclude<SymmetryFormat, "json">,
  found: Found,
  more: Readonly<Record<string, unknown>> = {},
): Promise<string> {
  const file = format === "torch" ? PROGRAM : `for_${format}.py`;
  const template = await readFile(join(TEMPLATES, file), "utf8");
  const { name, verdict, n, generators, components, accuracy } = found;
  const data = [
    `NAME = ${JSON.stringify(name)}`,
    `VERDICT = ${JSON.stringify(verdict)}`,
    `GENERATORS: list[list[list[float]]] = ${python(generators)}`,
    `COMPONENTS: list[list[list[float]]] = ${python(components.map(({ matrix }) => matrix))}`,
    `N = ${n}`,
    `ACCURACY = ${Math.max(accuracy, 1e-6)}`,
    ...Object.entries(more).map(([key, value]) => `${key} = ${python(value)}`),
  ];
  return template.replace(
    /# <data>\n[\s\S]*# <\/data>\n/,
    () => `# <data>\n${data.join("\n")}\n# </data>\n`,
  );
}

/** Write a value in Python; each row of a matrix is a line. */
function python(value: unknown, indent = ""): string {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (!Array.isArray(value)) return JSON.stringify(value);
  if (!value.some(Array.isArray)) return `[${value.map((x) => python(x)).join(", ")}]`;
  const inner = `${indent}    `;
  return `[\n${value.map((x) => `${inner}${python(x, inner)},\n`).join("")}${indent}]`;
}

function readmeOf(
  run: Run,
  { name, generators, components, verdict, accuracy, notes }: Found,
  { algebra }: Result,
  format: SymmetryFormat,
  hashes: Readonly<Record<string, string>>,
): string {
  const count = (number: number, noun: string) => `${number} ${noun}${number === 1 ? "" : "s"}`;
  const words = algebra?.evidence?.words;
  const lines = [
    `# ${name}`,
    "",
    `Atlas found this symmetry in run ${run.id} (experiment ${run.config.experiment}, seed ` +
      `${run.config.seed}).`,
    "",
    `- It has ${count(generators.length, "generator")} and ${count(components.length, "component")} ` +
      "beside the identity's.",
    `- Verdict: ${verdict}${words === undefined ? "" : `. ${words}`}`,
    `- The matrices were learnt. Their relative error is about ${accuracy.toPrecision(2)}.`,
    "- A generator B acts on points and vectors: `u → exp(tB) u`. A component is one matrix.",
    ...notes.map((note) => `- Note: ${note}.`),
    "",
    "## Files",
    "",
    "- `symmetry.json` has the matrices, the evidence, the types of features, and the charts on which",
    "  the symmetry was measured.",
  ];
  if (format === "torch")
    lines.push(
      "- `symmetry.py` needs PyTorch alone. It has `Augment`, `EquivariantLinear`,",
      "  `equivariant_linear`, `symmetrise` and `equivariance_error`. Test it with",
      "  `python symmetry.py`.",
    );
  else if (format !== "json")
    lines.push(
      `- \`symmetry.py\` needs the library ${format}. Its first lines say what is in it. Test it with`,
      "  `python symmetry.py`.",
    );
  lines.push("", "## The run's files, by SHA-256", "");
  for (const [file, hash] of Object.entries(hashes)) lines.push(`- \`${file}\` ${hash}`);
  return `${lines.join("\n")}\n`;
}
