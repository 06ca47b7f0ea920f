/**
 * `atlas data NAME --generate N|--fetch --out DIR`: generate or download the data of an experiment.
 * `atlas data cache`: list or clear what workers have cached. `atlas data inspect`: see inspect.ts.
 */
import { basename, dirname } from "node:path";
import type { Command } from "commander";
import { z } from "zod";
import { cacheFolder, listCaches, removeCaches } from "../data/caches.js";
import {
  type DataSet,
  formatBytes,
  type PublishedListing,
  type PublishedRecord,
} from "../data/dataset.js";
import { addressesOf, type FetchOptions, fetchRecord, UNSURE } from "../data/fetch.js";
import { type GenerateOptions, generate, UNEXPLAINED } from "../data/generate.js";
import { DATA_SETS } from "../data/index.js";
import { ProgressBar } from "../data/progress-bar.js";
import { AtlasError, UsageError } from "../errors.js";
import { flagsOf } from "../experiment/flags.js";
import { Progress } from "../experiment/progress.js";
import { formatSeconds } from "../format.js";
import { printable } from "../interop/printable.js";
import * as inspect from "./inspect.js";
import { onInterrupt } from "./interrupt.js";
import { addCommonOptions, commonOptions, givenValues, LOG_OPTIONS } from "./options.js";
import { namingFlag } from "./remedy.js";

/** Add the command to `program`. */
export function register(program: Command): void {
  const data = program
    .command("data")
    .helpCommand("help [command]", "Show help, as --help does")
    .description("Inspect your data, get the data of an experiment, or clear the cache");
  for (const set of DATA_SETS) addDataSet(data, set);
  addCaches(data);
  inspect.register(data);
}

const CachesOptions = z.object({
  folder: z.string().optional().meta({
    description: "Folder to search (default: the cache of your workers on this machine)",
    placeholder: "dir",
  }),
  clear: z
    .boolean()
    .default(false)
    .describe("Delete the cached fields; later runs decode the files again"),
  json: z.boolean().default(false).describe("Print only JSON on stdout"),
});

function addCaches(data: Command): void {
  const flags = flagsOf(CachesOptions);
  const command = data
    .command("cache")
    .description("List or delete the fields that workers on this machine have decoded and cached");
  for (const flag of flags) command.addOption(flag.option);
  addCommonOptions(command, ["debug"])
    .addHelpText("after", "\nExamples:\n  atlas data cache\n  atlas data cache --clear")
    .action(async () => {
      const {
        folder = cacheFolder(),
        clear,
        json,
      } = CachesOptions.parse(givenValues(command, flags));
      const caches = await namingFlag("--folder DIR", async () => {
        const found = await listCaches(folder);
        if (clear) await removeCaches(found);
        return found;
      });
      if (json) return void process.stdout.write(`${JSON.stringify(caches, null, 2)}\n`);
      for (const { path, bytes, made, about } of caches) {
        const what = about
          ? `${about.files} files of ${printable(about.folder)}`
          : "of unknown files";
        const day = made.toISOString().slice(0, 10);
        process.stdout.write(`${printable(path)}  ${formatBytes(bytes)}  ${day}  ${what}\n`);
      }
      const end = clear ? "deleted" : "delete them with --clear";
      process.stdout.write(
        caches.length === 0
          ? `no caches in ${folder}\n`
          : `${caches.length} cache${caches.length === 1 ? "" : "s"}, ` +
              `${formatBytes(sum(caches))}; ${end}\n`,
      );
    });
}

function addDataSet(data: Command, set: DataSet): void {
  const command = data.command(set.name).summary(set.summary).description(set.summary);
  const schema = optionsOf(set);
  const flags = flagsOf(schema);
  const modes = [
    ...(set.generator ? ["--generate N"] : []),
    ...((set.record ?? set.listing) ? ["--fetch"] : []),
  ];
  for (const flag of flags) command.addOption(flag.option);
  addCommonOptions(command, [...LOG_OPTIONS]);
  command
    .addHelpText(
      "after",
      `\nExamples:\n${[
        ...(set.generator
          ? [`  atlas data ${set.name} --generate ${set.generator.example} --out data/${set.name}`]
          : []),
        ...((set.record ?? set.listing)
          ? [
              `  atlas data ${set.name} --fetch`,
              `  atlas data ${set.name} --fetch --out data/${set.name}`,
            ]
          : []),
      ].join("\n")}`,
    )
    .action(async () => {
      const given = givenValues(command, flags);
      const options = schema.parse(given) as z.infer<Schema>;
      const common = commonOptions(command);
      const makes = options.generate !== undefined;
      if (makes === (options.fetch === true))
        throw new UsageError(
          makes ? "--generate and --fetch are both given" : `${set.name}: nothing to do`,
          makes ? "choose one of them" : `give ${modes.join(" or ")}`,
        );
      const stray = (makes ? [] : ["seed", "processes", "control"]).find((field) => field in given);
      if (stray)
        throw new UsageError(
          `--${stray} has no effect with --fetch`,
          "leave it out; it counts with --generate",
        );
      const progress = new Progress(common);
      await (makes ? make(set, options, common, progress) : get(set, options, common, progress));
    });
}

type Schema = z.ZodObject<{
  generate: z.ZodOptional<z.ZodInt>;
  seed: z.ZodDefault<z.ZodInt>;
  processes: z.ZodOptional<z.ZodInt>;
  control: z.ZodDefault<z.ZodBoolean>;
  fetch: z.ZodDefault<z.ZodBoolean>;
  out: z.ZodOptional<z.ZodString>;
  force: z.ZodDefault<z.ZodBoolean>;
  json: z.ZodDefault<z.ZodBoolean>;
}>;
type Options = z.infer<Schema>;
type Common = ReturnType<typeof commonOptions>;

function optionsOf({ generator, record, listing, rows }: DataSet): z.ZodObject {
  return z.object({
    ...(generator && {
      generate: z
        .int()
        .min(generator.fewest)
        .max(generator.most)
        .optional()
        .meta({ description: `Number of ${rows} to generate`, placeholder: "N" }),
      seed: z
        .int()
        .min(0)
        .max(2 ** 32 - 1)
        .default(0)
        .describe("Seed of all randomness"),
      processes: z
        .int()
        .min(1)
        .max(1024)
        .optional()
        .describe("Number of processes (default: one for each core)"),
    }),
    ...(generator?.control !== undefined && {
      control: z.boolean().default(false).describe(generator.control),
    }),
    ...((record ?? listing) && {
      fetch: z
        .boolean()
        .default(false)
        .describe("Download the published files; without --out, only list them"),
    }),
    out: z
      .string()
      .min(1)
      .optional()
      .meta({ description: "Folder for the files", placeholder: "dir" }),
    force: z
      .boolean()
      .default(false)
      .describe(
        `Overwrite existing files${generator ? " (--generate: only files that it made)" : ""}`,
      ),
    json: z.boolean().default(false).describe("Print only JSON on stdout"),
  });
}

async function make(set: DataSet, options: Options, { quiet, debug }: Common, progress: Progress) {
  const { generate: count, out, seed, processes, force, control, json } = options;
  if (out === undefined)
    throw new UsageError("--generate needs a folder for the files", "give --out DIR");
  const meter = new ProgressBar((n) => n.toLocaleString("en"), { quiet });
  const interrupt = onInterrupt(progress, { message: "stopping; nothing is kept" });
  try {
    const settings: GenerateOptions = {
      ...{ count: count!, out, seed, processes, force, control, signal: interrupt.signal },
      onProgress: (line) => progress.info(line),
      onStep: ({ file, done, total }) => meter.show(file, done, total),
      onLog: (line) => {
        if (debug) meter.erase();
        progress.debug(line);
      },
    };
    const made = await namingFlag("--out DIR", () => generate(set.generator!, settings)).catch(
      (error: unknown) => {
        if (error instanceof AtlasError && error.remedy === UNEXPLAINED)
          error.remedy += "; run again with --debug to see its log";
        throw error;
      },
    );
    meter.erase();
    if (json) return void process.stdout.write(`${JSON.stringify(made, null, 2)}\n`);
    const total = made.files.reduce((sum, file) => sum + file.rows, 0);
    const perMinute = Math.round((60 * total) / made.seconds);
    for (const { path, rows, bytes } of made.files)
      process.stdout.write(
        `${path}  ${rows.toLocaleString("en")} ${set.rows}  ${formatBytes(bytes)}\n`,
      );
    progress.info(
      `${total.toLocaleString("en")} ${set.rows} in ${formatSeconds(made.seconds)}, ` +
        `${perMinute.toLocaleString("en")} a minute; seed ${made.seed}`,
    );
  } finally {
    meter.erase();
    interrupt.dispose();
  }
}

async function get(
  { record, listing }: DataSet,
  { out, force, json }: Options,
  { quiet }: Common,
  progress: Progress,
) {
  const published = record ?? listing!;
  const { title, licence, citation } = published;
  if (out === undefined) {
    const described = describe(published, json);
    return void process.stdout.write(`${described}\n`);
  }
  const meter = new ProgressBar(formatBytes, { quiet });
  const interrupt = onInterrupt(progress, { message: "stopping; downloaded parts are kept" });
  const begun = performance.now();
  try {
    if (citation) progress.info(`${title}, ${licence}; please cite: ${citation}`);
    const settings: FetchOptions = {
      force,
      signal: interrupt.signal,
      onProgress: (line) => {
        meter.erase();
        progress.info(line);
      },
      onBytes: (file, done, total) => meter.show(file, done, total),
    };
    const fetched = await namingFlag("--out DIR", () => fetchRecord(published, out, settings));
    meter.erase();
    const seconds = Math.round(performance.now() - begun) / 1000;
    if (json)
      return void process.stdout.write(`${JSON.stringify({ files: fetched, seconds }, null, 2)}\n`);
    if (record)
      for (const { path, bytes } of fetched)
        process.stdout.write(
          `${path}  ${formatBytes(bytes)}  ${basename(path)}: checksum correct\n`,
        );
    else
      for (const folder of new Set(fetched.map(({ path }) => dirname(path)))) {
        const files = fetched.filter(({ path }) => dirname(path) === folder);
        process.stdout.write(
          `${folder}  ${files.length} files  ${formatBytes(sum(files))}  ${UNSURE}\n`,
        );
      }
  } finally {
    meter.erase();
    interrupt.dispose();
  }
}

/** Describe the published files, without asking a server. */
function describe(published: PublishedRecord | PublishedListing, json: boolean): string {
  const { title, doi, licence, citation, page } = published;
  const addresses = addressesOf(published);
  const about = { title, doi, licence, citation, url: page };
  const parts =
    "files" in published
      ? published.files.map(({ name, bytes, md5 }) => ({ name, bytes, md5 }))
      : published.folders.map(({ name, count }) => ({ name, count }));
  const described = parts.map((part, i) => {
    const [url, ...mirrors] = addresses[i]!;
    return { ...part, url: url!, mirrors };
  });
  if (json)
    return JSON.stringify(
      { ...about, ["files" in published ? "files" : "folders"]: described },
      null,
      2,
    );
  const bytes =
    "files" in published
      ? formatBytes(sum(published.files))
      : `about ${formatBytes(published.bytes)}`;
  const width = Math.max(...described.map(({ name }) => name.length));
  return [
    title,
    [page, doi && `DOI ${doi}`, licence, bytes].filter(Boolean).join("  "),
    ...(citation ? [`please cite: ${citation}`] : []),
    ...described.map((part) => {
      const what =
        "count" in part
          ? `${String(part.count).padStart(5)} files`
          : `${String(part.bytes).padStart(10)} bytes  md5 ${part.md5}`;
      return `${part.name.padEnd(width)}  ${what}  ${part.url}`;
    }),
    ...described[0]!.mirrors.map((url) => `or from ${new URL(".", url)}`),
    "to download: --out DIR",
  ].join("\n");
}

function sum(files: readonly { bytes: number }[]): number {
  return files.reduce((total, { bytes }) => total + bytes, 0);
}
