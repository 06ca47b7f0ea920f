/** Published files that an experiment reads: fetched when it is first run, if they are not there. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { FileError, NetworkError } from "../errors.js";
import { errorCode, explainFileSystem } from "../run/atomic.js";
import { formatBytes, type PublishedFile, type PublishedRecord } from "./dataset.js";
import { addressesOf, type FetchOptions, fetchRecord } from "./fetch.js";

/**
 * Fetch the files of a record that a folder lacks. One that is there, with or without its ".gz", is not looked into: a user may have
 * files of their own under these names. Only where some are there and some are not must those be the published ones, lest two data sets
 * are mixed.
 *
 * @throws NetworkError, FileError, NoSpaceError, Interrupted as {@link fetchRecord} does, with what a user of --data DIR can do
 */
export async function ensureFiles(
  record: PublishedRecord,
  folder: string,
  options: Omit<FetchOptions, "force"> = {},
): Promise<void> {
  try {
    const files: PublishedFile[] = [];
    const missing: PublishedFile[] = [];
    for (const file of record.files) {
      const path = join(folder, file.name);
      if (path.endsWith(".gz") && (await isFile(path.slice(0, -".gz".length)))) continue;
      files.push(file);
      if (!(await isFile(path))) missing.push(file);
    }
    if (missing.length === 0) return;
    const what = missing.length === 1 ? missing[0]!.name : `${missing.length} files`;
    const bytes = missing.reduce((sum, file) => sum + file.bytes, 0);
    const from = new URL(".", addressesOf({ ...record, files: missing })[0]![0]);
    options.onProgress?.(
      `fetching ${what} (${formatBytes(bytes)}) of ${record.title}, ${record.licence}, from ${from} into ${folder}`,
    );
    await fetchRecord({ ...record, files }, folder, options);
  } catch (error) {
    const explained = explainFileSystem(error, "read", folder);
    if (explained instanceof NetworkError)
      explained.remedy = `check the network and run it again; or put the files of ${record.page} into ${folder} by hand; or name a folder that has them with --data DIR`;
    if (explained instanceof FileError)
      explained.remedy = explained.remedy
        ?.replace(", or overwrite it with --force", ", or put the files that are missing beside it")
        .replace(/--(out|runs) DIR/, "--data DIR");
    throw explained;
  }
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}
