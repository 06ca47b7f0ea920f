/** Download the published files that an experiment reads, unless they are there. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { FileError, NetworkError } from "../errors.js";
import { errorCode, explainFileSystem, TEMPORARY_SUFFIX } from "../run/atomic.js";
import { formatBytes, type PublishedFile, type PublishedRecord } from "./dataset.js";
import { addressesOf, adviceOn, type FetchOptions, fetchRecord } from "./fetch.js";

/**
 * Download the files of a record that a folder lacks. A folder with other files is the user's, and
 * nothing is downloaded into it: whoever reads it says what is wrong with it.
 *
 * Existing files, with or without ".gz", are not checked, because a user may have other data under
 * these names. But if only some of the files exist, they must be the published ones, so that two
 * data sets are not mixed.
 *
 * @throws NetworkError, FileError, NoSpaceError, Interrupted as {@link fetchRecord} does;
 * `elsewhere` is set if another folder would help
 */
export async function ensureFiles(
  record: PublishedRecord,
  folder: string,
  options: Omit<FetchOptions, "force"> = {},
): Promise<void> {
  const missing: PublishedFile[] = [];
  try {
    const files: PublishedFile[] = [];
    for (const file of record.files) {
      const path = join(folder, file.name);
      if (path.endsWith(".gz") && (await isFile(path.slice(0, -".gz".length)))) continue;
      files.push(file);
      if (!(await isFile(path))) missing.push(file);
    }
    if (missing.length === 0 || (await hasOthers(folder, record))) return;
    const what = missing.length === 1 ? missing[0]!.name : `${missing.length} files`;
    const bytes = missing.reduce((sum, file) => sum + file.bytes, 0);
    const from = new URL(".", addressesOf({ ...record, files: missing })[0]![0]);
    const about = `${record.title}, ${record.licence}`;
    options.onProgress?.(
      `fetching ${what} (${formatBytes(bytes)}) of ${about}, from ${from} into ${folder}`,
    );
    await fetchRecord({ ...record, files }, folder, options);
  } catch (error) {
    const explained = explainFileSystem(error, "list", folder);
    if (explained instanceof NetworkError) {
      explained.remedy =
        `${adviceOn(explained.cause)}, put the files of ${record.page} into ${folder} by hand, ` +
        "or choose a folder that has them";
      explained.elsewhere = true;
    }
    if (explained instanceof FileError && explained.overwritable) {
      const names = missing.map(({ name }) => name).join(" and ");
      explained.remedy = `put ${names} beside it, or choose another folder`;
      explained.overwritable = false; // an experiment never overwrites the user's files
    }
    throw explained;
  }
}

/**
 * Whether a folder has visible files or folders that are not files of a record. Unpacked files are
 * such files, because nobody can tell whether they are the published ones.
 */
async function hasOthers(folder: string, { files }: PublishedRecord): Promise<boolean> {
  const known = new Set(files.flatMap(({ name }) => [name, `${name}${TEMPORARY_SUFFIX}`]));
  const here = await readdir(folder).catch((error: unknown) => {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  });
  return here.some((name) => !name.startsWith(".") && name !== "lock" && !known.has(name));
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}
