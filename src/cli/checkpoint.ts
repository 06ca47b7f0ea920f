/**
 * `atlas checkpoint inspect|convert|export`: work with files of weights and predictors, without a
 * worker.
 */
import { basename } from "node:path";
import { type Command, Option } from "commander";
import { readPredictor } from "../experiment/lookup.js";
import { Progress } from "../experiment/progress.js";
import {
  type CheckpointSummary,
  convertCheckpointFile,
  EXPORT_FORMATS,
  type ExportFormat,
  exportPredictor,
  inspectCheckpoint,
} from "../interop/index.js";
import { printable } from "../interop/printable.js";
import { findRun } from "../run/folder.js";
import { addCommonOptions, commonOptions, LOG_OPTIONS } from "./options.js";
import { namingFlag } from "./remedy.js";

const JSON_OPTION = () => new Option("--json", "Print only JSON on stdout");

/** The experiment of each network of the reference code that is recognised in a checkpoint. */
const REFERENCE: Readonly<Record<string, string>> = {
  convolutions: "pde",
  "encoder-decoder": "mnist",
  MLP: "toptagging",
  CGNet: "climate",
};

/** Add the command to `program`. */
export function register(program: Command): void {
  const checkpoint = program
    .command("checkpoint")
    .helpCommand("help [command]", "Show help, as --help does")
    .description(
      "Inspect and convert checkpoints (.pt, .pth, .safetensors), and export predictors",
    );

  const inspect = checkpoint
    .command("inspect")
    .description("List the tensors of a checkpoint, without executing code in it")
    .argument("<file>", "a .pt, .pth or .safetensors file")
    .addOption(JSON_OPTION());
  addCommonOptions(inspect, [...LOG_OPTIONS])
    .addHelpText(
      "after",
      `
Examples:
  atlas checkpoint inspect model.pt
  atlas checkpoint inspect model.safetensors --json`,
    )
    .action(async (file: string) => {
      const summary = await inspectCheckpoint(file, { onProgress: progressOf(inspect) });
      print(inspect, file, summary);
    });

  const convert = checkpoint
    .command("convert")
    .description("Convert the weights in a checkpoint from PyTorch to safetensors, or back")
    .argument("<from>", "a .pt, .pth or .safetensors file")
    .argument("<to>", "the file to write; its extension decides the format")
    .option("--force", "Overwrite TO if it exists")
    .addOption(JSON_OPTION());
  addCommonOptions(convert, [...LOG_OPTIONS])
    .addHelpText(
      "after",
      `
Examples:
  atlas checkpoint convert model.pt model.safetensors
  atlas checkpoint convert model.safetensors model.pt --force`,
    )
    .action(async (from: string, to: string) => {
      const force = convert.getOptionValue("force") === true;
      const options = { force, onProgress: progressOf(convert) };
      const made = await namingFlag(undefined, () => convertCheckpointFile(from, to, options));
      print(convert, to, made);
    });

  const exporting = checkpoint
    .command("export")
    .description(
      "Write the predictor of a run to a file: its weights, or a program that takes batches of " +
        "charts. (atlas export writes a symmetry.)",
    )
    .argument("<run>", "a run's id or folder, or latest")
    .requiredOption("--out <file>", "The file to write")
    .addOption(
      new Option("--format <format>", "Format of the file")
        .choices(EXPORT_FORMATS)
        .default(EXPORT_FORMATS[0]),
    )
    .option("--force", "Overwrite FILE if it exists")
    .addOption(JSON_OPTION());
  addCommonOptions(exporting, ["runs", ...LOG_OPTIONS])
    .addHelpText(
      "after",
      `
Examples:
  atlas checkpoint export latest --out predictor.pt
  atlas checkpoint export latest --format torchscript --out predictor.ts.pt`,
    )
    .action(async (given: string) => {
      const { out, format, force = false } = exporting.opts<ExportFlags>();
      const { runs } = commonOptions(exporting);
      const run = await namingFlag("--runs DIR", () => findRun(runs, given));
      const options = { force, onProgress: progressOf(exporting) };
      const predictor = await readPredictor(run.path);
      const told = await namingFlag("--out FILE", () =>
        exportPredictor(predictor, out, format, options),
      );
      if (exporting.getOptionValue("json") === true)
        return void process.stdout.write(`${JSON.stringify({ file: out, ...told }, null, 2)}\n`);
      const { kind, parameters, takes, gives, halo } = told;
      const lines = [
        `${basename(out)}: ${format} of predictor ${kind}, ${count(parameters, "parameter")}`,
      ];
      if (takes.length > 0)
        lines.push(
          `takes [batch, ${takes.join(", ")}], gives [batch, ${gives.join(", ")}], float32`,
        );
      if (halo > 0) lines.push(`reads ${halo} pixels beyond a chart's radius`);
      process.stdout.write(`${lines.join("\n")}\n`);
    });
}

interface ExportFlags {
  out: string;
  format: ExportFormat;
  force?: boolean;
}

/** Make a function that reports the set-up of the Python environment, which may be needed first. */
function progressOf(command: Command): (line: string) => void {
  const progress = new Progress(commonOptions(command));
  return (line) => progress.info(line);
}

function print(command: Command, file: string, summary: CheckpointSummary): void {
  if (command.getOptionValue("json") === true)
    return void process.stdout.write(`${JSON.stringify({ file, ...summary }, null, 2)}\n`);
  process.stdout.write(`${describeCheckpoint(file, summary).join("\n")}\n`);
}

/** Describe a checkpoint in lines for a terminal; names from the file are made safe to print. */
export function describeCheckpoint(file: string, summary: CheckpointSummary): string[] {
  const { format, leftOut, metadata, reference } = summary;
  const tensors = summary.tensors.map((t) => ({ ...t, name: printable(t.name) }));
  const bytes = tensors.reduce((sum, t) => sum + t.bytes, 0);
  const numbers = tensors.reduce((sum, t) => sum + t.shape.reduce((a, b) => a * b, 1), 0);
  const name = format === "pytorch" ? "PyTorch" : "safetensors";
  const lines = [
    `${basename(file)}: ${name}, ${count(tensors.length, "tensor")}, ` +
      `${count(numbers, "number")}, ${size(bytes)}`,
  ];
  const width = (texts: string[]) =>
    texts.reduce((longest, text) => Math.max(longest, text.length), 0);
  const nameWidth = width(tensors.map((t) => t.name));
  const typeWidth = width(tensors.map((t) => t.dtype));
  for (const t of tensors)
    lines.push(
      `  ${t.name.padEnd(nameWidth)}  ${t.dtype.padEnd(typeWidth)}  [${t.shape.join(", ")}]`,
    );
  if (leftOut.length > 0) lines.push(`left out, not weights: ${abridge(leftOut)}`);
  if (reference !== null)
    lines.push(
      `layout: the reference code's ${reference}, for experiment ${REFERENCE[reference] ?? "?"}`,
    );
  for (const [key, value] of Object.entries(metadata))
    lines.push(`${printable(key)}: ${printable(value)}`);
  return lines;
}

function count(n: number, noun: string): string {
  return `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
}

function abridge(names: string[]): string {
  const shown = names
    .slice(0, 8)
    .map((name) => printable(name))
    .join(", ");
  return names.length <= 8 ? shown : `${shown} and ${names.length - 8} more`;
}

function size(bytes: number): string {
  for (const [unit, scale] of [
    ["GiB", 2 ** 30],
    ["MiB", 2 ** 20],
    ["KiB", 2 ** 10],
  ] as const)
    if (bytes >= scale) return `${(bytes / scale).toFixed(1)} ${unit}`;
  return count(bytes, "byte");
}
