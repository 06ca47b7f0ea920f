/** What `atlas data` knows of a data set: its generator, and where it is published. */
import type { Extra } from "../setup/venv.js";

/** A data set of `atlas data`. Each has a file in this folder. */
export interface DataSet {
  /** Name on the command line. */
  name: string;
  summary: string;
  /** Plural noun for its rows, for example "jets". */
  rows: string;
  generator?: Generator;
  record?: PublishedRecord;
  listing?: PublishedListing;
}

/** A program in the worker's package that makes the files. */
export interface Generator {
  /**
   * Name of the Python module. The program takes --jets (or the flag in `countFlag`), --seed,
   * --out, --processes and --force, and reports in JSON lines.
   */
  module: string;
  countFlag: string;
  /** Packages that it needs in addition to the worker's. */
  extras: readonly Extra[];
  fewest: number;
  most: number;
  /** A count for the example in its help. */
  example: number;
  /** What the control lacks, if the program makes one with `--control`. */
  control?: string;
}

/** A publication that does not change. */
interface Published {
  title: string;
  doi?: string;
  licence: string;
  /** What its authors ask users to cite, if that is more than the title. */
  citation?: string;
  /** Address of a page for people. */
  page: string;
  /** Servers with the files, in the order of trial. ATLAS_DATA_HOST replaces them by another. */
  mirrors: readonly string[];
}

/** A publication of files with known sizes and checksums. */
export interface PublishedRecord extends Published {
  files: readonly PublishedFile[];
}

/** A publication of folders, whose index pages list the files. */
export interface PublishedListing extends Published {
  folders: readonly PublishedFolder[];
  /** Pattern of a file's whole name. Links to other names are ignored. */
  names: RegExp;
  format: FileFormat;
  /** Size of all files, about. */
  bytes: number;
}

/** A published file. */
export interface PublishedFile {
  /** Name, with the folder for it if there is one: "train/a.nc". */
  name: string;
  /** Path relative to each mirror. */
  path: string;
  bytes: number;
  /** Checksum of its contents. */
  md5?: string;
  format?: FileFormat;
}

/** A published folder. */
export interface PublishedFolder {
  /** Name of the folder for its files. */
  name: string;
  /** Path relative to each mirror, with a slash at the end. */
  path: string;
  /** Number of files, as published. */
  count: number;
}

/** A file format, recognised by its first bytes. */
export interface FileFormat {
  name: string;
  signature: Uint8Array;
}

/** The format HDF5. */
export const HDF5: FileFormat = {
  name: "HDF5",
  signature: Buffer.from("\x89HDF\r\n\x1a\n", "latin1"),
};

/** Write a size in powers of ten, as download pages do: "1.0 GB". */
export function formatBytes(bytes: number): string {
  for (const [unit, scale] of [
    ["GB", 1e9],
    ["MB", 1e6],
    ["kB", 1e3],
  ] as const)
    if (bytes >= scale) return `${(bytes / scale).toFixed(1)} ${unit}`;
  return `${bytes} bytes`;
}
