/** `atlas data inspect FILE[:ARRAY]`: what is in a file, and what to type to discover on it. */
import { basename } from "node:path";
import type { Command } from "commander";
import { z } from "zod";
import { type Advice, advise } from "../data/advice.js";
import { flagsOf } from "../experiment/flags.js";
import { joinMembers, type Members, resolveMembers, splitMembers } from "../experiment/members.js";
import { Progress } from "../experiment/progress.js";
import { printable } from "../interop/printable.js";
import { givePaths } from "../method/files.js";
import { connectWorker, type FileMember, type FileReport, placeOf } from "../worker/index.js";
import { onInterrupt } from "./interrupt.js";
import {
  addCommonOptions,
  commonOptions,
  givenValues,
  LOG_OPTIONS,
  WORKER_OPTIONS,
  workerChoice,
} from "./options.js";

const Options = z.object({
  axes: z.string().optional().meta({
    description: "Names of the axes, such as n,c,y,x (default: as the file tells them)",
    placeholder: "names",
  }),
  json: z.boolean().default(false).describe("Print only JSON on stdout"),
});

/** Numbers of features that are listed one by one. */
const MOST_FEATURES = 12;

/** Add the command to `data`. */
export function register(data: Command): void {
  const flags = flagsOf(Options);
  const command = data
    .command("inspect")
    .argument("<file>", "FILE, or FILE:ARRAY,ARRAY to look at some of its arrays, joined")
    .description("Say what is in a file: arrays, axes, ranges, gaps, and the command to type");
  for (const flag of flags) command.addOption(flag.option);
  addCommonOptions(command, [...WORKER_OPTIONS, ...LOG_OPTIONS])
    .addHelpText(
      "after",
      "\nExamples:\n  atlas data inspect storms.nc\n  atlas data inspect storms.nc:U,V --json",
    )
    .action(async (file: string) => {
      const { axes, json } = Options.parse(givenValues(command, flags));
      const common = commonOptions(command);
      const progress = new Progress(common);
      const interrupt = onInterrupt(progress, { message: "stopping" });
      const place = placeOf(common.worker);
      const wanted = splitMembers(resolveMembers(file, place));
      try {
        const found = await look(wanted, axes, common, progress, interrupt.signal);
        const advised = { ...found.report, advice: found.advice, command: found.command };
        if (json) process.stdout.write(`${JSON.stringify(advised, null, 2)}\n`);
        else process.stdout.write(`${describe(found, splitMembers(file)).join("\n")}\n`);
        for (const warning of found.report.warnings) progress.warn(warning);
      } finally {
        interrupt.dispose();
      }
    });
}

interface Found {
  report: FileReport;
  advice?: Advice;
  /** The inputs, joined. */
  main?: FileMember;
  /** The command to type; several if the layout is ambiguous. */
  command: string[];
}

async function look(
  { file, members }: Members,
  axes: string | undefined,
  common: ReturnType<typeof commonOptions>,
  progress: Progress,
  signal: AbortSignal,
): Promise<Found> {
  const { address = "local", ...choice } = workerChoice(common);
  const worker = await connectWorker({
    ...choice,
    worker: address,
    files: [file],
    onSetup: (line) => progress.info(line),
    onLog: (line) => progress.debug(line),
    signal,
  });
  try {
    const session = await worker.openSession({ label: "data inspect", device: choice.device });
    return await givePaths([{ role: "path", file }], placeOf(address), {
      upload: (path) => session.upload(path, { signal }),
      use: async ({ path = file }) => {
        const report = await session.inspectFile(path, { members, axes });
        const advice =
          members.length > 0
            ? { inputs: members, targets: [], classes: false, reason: "the arrays that you name" }
            : advise(report.members);
        const inputs = advice?.inputs ?? [];
        const joined =
          inputs.length < 2 || members.length > 0
            ? report
            : await session.inspectFile(path, { members: inputs, axes, numbers: false });
        const main =
          inputs.length < 2 && members.length === 0
            ? report.members.find(({ name }) => name === (inputs[0] ?? ""))
            : joined.members.at(-1);
        return { report, advice, main, command: advice ? commands(file, advice, main, axes) : [] };
      },
    });
  } finally {
    await worker.close();
  }
}

/** Write the command that discovers on the arrays; several if their layout is ambiguous. */
function commands(
  file: string,
  { inputs, targets, classes }: Advice,
  main: FileMember | undefined,
  axes: string | undefined,
): string[] {
  const name = basename(file);
  const layout = main?.layout;
  const ordered = layout?.members.length ? layout.members : inputs;
  const words = (reading: string) =>
    [
      "atlas discover",
      `--inputs ${quoted(joinMembers({ file: name, members: ordered }))}`,
      targets.length > 0
        ? `--targets ${quoted(joinMembers({ file: name, members: targets }))}`
        : reading.split(",").includes("t")
          ? "--predict next"
          : "--targets FILE",
      ...(layout?.features ? [`--inputs-as ${layout.features}`] : []),
      ...(classes ? ["--targets-as class"] : []),
      ...(reading === "" ? [] : [`--axes ${quoted(reading)}`]),
    ].join(" ");
  const readings = axes === undefined ? (layout?.readings ?? []) : [axes];
  return readings.length === 0 ? [words("")] : readings.map(words);
}

const quoted = (text: string) =>
  /^[\w./:,+@%=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

function describe({ report, advice, main, command }: Found, { file }: Members): string[] {
  const shown = report.members.filter(({ partOf }) => partOf === "" || report.members.length === 1);
  const width = Math.max(...shown.map(({ name }) => label(name, file).length), 1);
  const lines = [`${printable(file)}  ${report.format}`];
  for (const member of shown) lines.push(...describeMember(member, file, width));
  if (advice) lines.push("", advice.reason);
  if (main?.layout?.features) lines.push(`inputs: ${printable(main.layout.featuresReason)}`);
  if (command.length > 1) lines.push("--axes decides how the inputs are read");
  if (command.length > 0) lines.push(command.length > 1 ? "to discover, one of:" : "to discover:");
  lines.push(...command.map((line) => `  ${line}`));
  return lines;
}

function describeMember(member: FileMember, file: string, width: number): string[] {
  const { name, shape, dtype, units, coordinate, problem, layout, numbers, columns } = member;
  const head = [
    `  ${label(name, file).padEnd(width)}`,
    `[${shape.join(", ")}]`,
    printable(dtype),
    ...(units === "" ? [] : [printable(units)]),
    ...(coordinate ? ["coordinate"] : []),
    ...(problem === "" ? [] : [`cannot be used: ${printable(problem)}`]),
  ].join("  ");
  const lines: string[] = [];
  const add = (what: string, text: string) => lines.push(`      ${what.padEnd(9)} ${text}`);
  if (layout && !coordinate) {
    const read = layout.readings.map((reading) => `--axes ${reading}`).join(" or ");
    add(
      "axes",
      layout.axes ? `${layout.axes}: ${printable(layout.reason)}` : unknown(layout, read),
    );
    if (layout.features || layout.featuresReason)
      add(
        "features",
        [layout.features, printable(layout.featuresReason)].filter(Boolean).join(": "),
      );
  }
  if (columns.length > 0 && columns.length <= MOST_FEATURES)
    add("columns", columns.map((column) => printable(column)).join(", "));
  if (numbers && !coordinate) {
    const { samples, minimum, maximum, missing, infinite, first, constant, rank, names } = numbers;
    const whole = numbers.whole ? ", all whole" : "";
    add("range", `${short(minimum)} to ${short(maximum)}${whole} (${samples} samples)`);
    if (missing + infinite > 0)
      add("gaps", `${missing} missing or NaN, ${infinite} infinite; the first in ${first}`);
    if (constant.length > 0) add("constant", `${some(constant)}: one value in all samples`);
    if (rank !== undefined && names.length > 0)
      add("rank", `V has ${names.length} components, and the numbers span ${rank} dimensions`);
  }
  return [head, ...lines];
}

function unknown({ reason }: { reason: string }, read: string): string {
  return `${printable(reason)}${read === "" ? "" : `; say which: ${read}`}`;
}

/** Longest name of joined arrays that is written out. */
const LONGEST = 60;

function label(name: string, file: string): string {
  const text = printable(name === "" ? basename(file) : name);
  return text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text;
}

function some(names: readonly string[]): string {
  const shown = names.slice(0, MOST_FEATURES).map((name) => printable(name));
  const more = names.length - shown.length;
  return shown.join(", ") + (more > 0 ? ` and ${more} more` : "");
}

/** Write a number with four digits. */
const short = (x: number) => (Number.isFinite(x) ? Number(x.toPrecision(4)).toString() : "none");
