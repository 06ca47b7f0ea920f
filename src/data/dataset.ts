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

/** Files that somebody has published, and will not change. */
export interface PublishedRecord {
  title: string;
  doi?: string;
  licence: string;
  /** The page to be read by people. */
  page: string;
  /** Where its files are, in the order in which to try: "https://zenodo.org". ATLAS_DATA_HOST names another that is used instead of them. */
  mirrors: readonly string[];
  files: readonly PublishedFile[];
}

export interface PublishedFile {
  name: string;
  /** Relative to each mirror. */
  path: string;
  bytes: number;
  md5: string;
}

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
