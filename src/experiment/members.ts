/** Names of files with the names of arrays in them: `storms.nc:T,U,V`. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { UsageError } from "../errors.js";
import type { Place } from "../worker/index.js";

/** A file, and arrays in it. */
export interface Members {
  file: string;
  /** Names of the arrays; empty for the only one. */
  members: string[];
}

/** Suffixes of files that hold arrays. A colon after one of them begins the names of arrays. */
const SUFFIXES =
  /\.(npy|npz|h5|hdf5?|he5|nc[34]?|cdf|netcdf|zarr|zip|csv|tsv|txt|dat|parquet|pq|ptc?|pth|safetensors|mat)(?=:|$)/i;

/**
 * Split the name of a file from the names of arrays in it. A file may have colons in its name.
 *
 * @param text FILE, or FILE:MEMBER,MEMBER…
 * @param exists whether a file is on this machine
 * @throws UsageError if the text has no name after the colon
 */
export function splitMembers(
  text: string,
  exists: (path: string) => boolean = existsSync,
): Members {
  if (exists(text)) return { file: text, members: [] };
  const colons = [...text.matchAll(/:/g)].map(({ index }) => index);
  const suffix = SUFFIXES.exec(text);
  const at =
    colons.find((colon) => colon > 0 && exists(text.slice(0, colon))) ??
    (suffix ? colons.find((colon) => colon === suffix.index + suffix[0].length) : colons[0]);
  if (at === undefined) return { file: text, members: [] };
  const members = text.slice(at + 1).split(",");
  if (members.some((name) => name.trim() === ""))
    throw new UsageError(
      `${text} names no array after the colon`,
      "give FILE:NAME, or FILE alone if it holds one array",
    );
  return { file: text.slice(0, at), members: members.map((name) => name.trim()) };
}

/** Make the file's path absolute, if the file is on this machine, or the worker sees its files. */
export function resolveMembers(text: string, place: Place): string {
  const { file, members } = splitMembers(text);
  const here = place === "spawned" || existsSync(file);
  return here ? joinMembers({ file: resolve(file), members }) : text;
}

/** Write a file and arrays in it as {@link splitMembers} reads them. */
export function joinMembers({ file, members }: Members): string {
  return members.length === 0 ? file : `${file}:${members.join(",")}`;
}
