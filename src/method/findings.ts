/** What a run or a file tells of a symmetry beside its generators: components, and how exact. */
import { z } from "zod";
import { linearCoordinates } from "../algebra/factors.js";
import { UsageError } from "../errors.js";
import { isFile, type RunLookup, readBytes } from "../experiment/lookup.js";
import { AlgebraResult, CosetResult, GroupResult, Result } from "../result.js";
import { findRun } from "../run/folder.js";
import { certainComponents } from "./certain.js";

const REMEDY = "give a run, its result.json, or a file of matrices";

/** What is taken of a result, or of the symmetry.json of an export. A file may hold less. */
const HoldsFindings = z.object({
  algebra: AlgebraResult.pick({ generators: true, symmetryCount: true, evidence: true })
    .extend(AlgebraResult.pick({ coordinates: true, factors: true }).shape)
    .optional(),
  cosets: z.array(CosetResult.pick({ name: true, matrix: true, evidence: true })).optional(),
  group: GroupResult.nullish().transform((group) => group ?? undefined),
  /** Of an export, which has only what is certain enough. */
  components: z.array(CosetResult.pick({ name: true, matrix: true })).optional(),
  coordinates: AlgebraResult.shape.coordinates,
  accuracy: z.number().min(0).optional(),
});

/** What a run or a file tells of a symmetry beside its generators. */
export interface FoundElsewhere extends Pick<z.infer<typeof HoldsFindings>, "algebra"> {
  /** Components that hold, exactly or approximately. */
  components: { name: string; matrix: number[][] }[];
  /** Number of components of which the data could not tell. */
  leftOut: number;
  /** Coordinates D in which the algebra has its name, if these are not the data's own. */
  coordinates?: number[][];
  /** Relative error of the matrices, if it was written down. */
  accuracy?: number;
  /** All of a result, if it is one. */
  result?: Result;
}

/**
 * Read what a run or a JSON file tells of a symmetry.
 *
 * @returns undefined for other files and for mere matrices
 * @throws UsageError if what it tells cannot be understood
 */
export async function readFindings(
  lookup: RunLookup,
  given: string,
  flag: string,
): Promise<FoundElsewhere | undefined> {
  const document = await documentOf(lookup, given);
  if (typeof document !== "object" || document === null || Array.isArray(document))
    return undefined;
  const { data, error } = HoldsFindings.safeParse(document);
  if (!data) {
    const [issue] = error.issues;
    throw new UsageError(`${flag} ${given}: ${issue!.path.join(".")}: ${issue!.message}`, REMEDY);
  }
  const certain = certainComponents(data);
  const { components = certain.components } = data;
  const odd = components.find(({ matrix: m }) => m.some((row) => row.length !== m.length));
  if (odd)
    throw new UsageError(`${flag} ${given}: the component ${odd.name} is not square`, REMEDY);
  const result = data.components ? undefined : Result.safeParse(document).data;
  const { algebra, accuracy, coordinates = linearCoordinates(algebra) } = data;
  return { algebra, accuracy, coordinates, components, leftOut: certain.leftOut, result };
}

/** Read the result of a run, or a JSON file; undefined for other files. */
async function documentOf(lookup: RunLookup, given: string): Promise<unknown> {
  if (!(await isFile(given))) return (await findRun(lookup.dir, given)).result();
  if (!given.endsWith(".json")) return undefined;
  return JSON.parse(new TextDecoder().decode(await readBytes(given)));
}
