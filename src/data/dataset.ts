/** What `atlas data` knows of a data set: how it is made, and where it is to be had. One file here describes each. */
import type { Extra } from "../setup/venv.js";

export interface DataSet {
  /** As the command line names it. */
  name: string;
  summary: string;
  /** What its rows are: "jets". */
  rows: string;
  generator?: Generator;
  record?: PublishedRecord;
  listing?: PublishedListing;
}

/** A program of the worker's package that makes the files. */
export interface Generator {
  /** Run as `python -m`; it takes --jets (or as `countFlag` says), --seed, --out, --processes, --force, and reports in JSON lines. */
  module: string;
  countFlag: string;
  /** Packages that it needs besides the worker's. */
  extras: readonly Extra[];
  fewest: number;
  most: number;
  /** A count that its help may give as an example. */
  example: number;
}

/** What somebody has published, and will not change. */
interface Published {
  title: string;
  doi?: string;
  licence: string;
  /** What users are asked to cite, where that is more than the title. */
  citation?: string;
  /** The page to be read by people. */
  page: string;
  /** Where its files are, in the order in which to try: "https://zenodo.org". ATLAS_DATA_HOST names another that is used instead of them. */
  mirrors: readonly string[];
}

/** Files whose lengths and checksums are known. */
export interface PublishedRecord extends Published {
  files: readonly PublishedFile[];
}

/** Files of which only the folders are known, whose index pages list them, and how they look. */
export interface PublishedListing extends Published {
  folders: readonly PublishedFolder[];
  /** A whole name of a file; links to anything else are passed over. */
  names: RegExp;
  format: FileFormat;
  /** Of all files, about. */
  bytes: number;
}

export interface PublishedFile {
  /** With the folder it is put into, if any: "train/a.nc". */
  name: string;
  /** Relative to each mirror. */
  path: string;
  bytes: number;
  /** What is known of its contents. */
  md5?: string;
  format?: FileFormat;
}

export interface PublishedFolder {
  /** Of the folder that its files are put into. */
  name: string;
  /** Relative to each mirror; ends with a slash. */
  path: string;
  /** How many files its publisher says there are. */
  count: number;
}

/** How files of a kind begin. */
export interface FileFormat {
  name: string;
  signature: Uint8Array;
}

export const HDF5: FileFormat = { name: "HDF5", signature: Buffer.from("\x89HDF\r\n\x1a\n", "latin1") };

/** "1.0 GB", in powers of ten, as download pages say it. */
export function formatBytes(bytes: number): string {
  for (const [unit, scale] of [
    ["GB", 1e9],
    ["MB", 1e6],
    ["kB", 1e3],
  ] as const)
    if (bytes >= scale) return `${(bytes / scale).toFixed(1)} ${unit}`;
  return `${bytes} bytes`;
}
