/** `atlas checkpoint inspect|convert|export`: PyTorch and safetensors files, and predictors for other programs, without a worker. */
import { basename } from "node:path";
import { type Command, Option } from "commander";
import { Progress } from "../experiment/progress.js";
import { readPredictor } from "../experiment/sources.js";
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

const JSON_OPTION = () => new Option("--json", "Print what is in it as JSON, and nothing else, on stdout");

/** The experiments in which the published code has the networks that the worker can tell. */
const PUBLISHED: Readonly<Record<string, string>> = {
  convolutions: "pde",
  "encoder-decoder": "mnist",
  MLP: "toptagging",
  CGNet: "climate",
};

export function register(program: Command): void {
  const checkpoint = program
    .command("checkpoint")
    .description(
      "Inspect and convert PyTorch (.pt, .pth; weights only) and safetensors checkpoints, and export predictors",
    );

  const inspect = checkpoint
    .command("inspect")
    .description("List a checkpoint's tensors; no code in it is executed")
    .argument("<file>", "a .pt, .pth or .safetensors file")
    .addOption(JSON_OPTION());
  addCommonOptions(inspect, [...LOG_OPTIONS])
    .addHelpText(
      "after",
      "\nExamples:\n  atlas checkpoint inspect model.pt\n  atlas checkpoint inspect model.safetensors --json",
    )
    .action(async (file: string) => {
      const summary = await inspectCheckpoint(file, { onProgress: progressOf(inspect) });
      print(inspect, file, summary);
    });

  const convert = checkpoint
    .command("convert")
    .description("Convert between .pt or .pth and .safetensors, as TO's extension says; weights only")
    .argument("<from>", "a .pt, .pth or .safetensors file")
    .argument("<to>", "the file to write")
    .option("--force", "Overwrite TO if it exists")
    .addOption(JSON_OPTION());
  addCommonOptions(convert, [...LOG_OPTIONS])
    .addHelpText(
      "after",
      "\nExamples:\n  atlas checkpoint convert model.pt model.safetensors\n  atlas checkpoint convert model.safetensors model.pt --force",
    )
    .action(async (from: string, to: string) => {
      const force = convert.getOptionValue("force") === true;
      print(convert, to, await convertCheckpointFile(from, to, { force, onProgress: progressOf(convert) }));
    });

  const exporting = checkpoint
    .command("export")
    .description("Write a run's predictor as a state dict, or as a program that takes a batch of all charts")
    .argument("<run>", "a run's id or folder, or latest")
    .requiredOption("--out <file>", "The file to write")
    .addOption(
      new Option("--format <format>", "What it becomes").choices(EXPORT_FORMATS).default(EXPORT_FORMATS[0]),
    )
    .option("--force", "Overwrite FILE if it exists")
    .addOption(JSON_OPTION());
  addCommonOptions(exporting, ["runs", ...LOG_OPTIONS])
    .addHelpText(
      "after",
      "\nExamples:\n  atlas checkpoint export latest --out predictor.pt\n  atlas checkpoint export latest --format torchscript --out predictor.ts.pt",
    )
    .action(async (given: string) => {
      const { out, format, force = false } = exporting.opts<ExportFlags>();
      const run = await findRun(commonOptions(exporting).runs, given);
      const options = { force, onProgress: progressOf(exporting) };
      const told = await exportPredictor(await readPredictor(run.path), out, format, options);
      if (exporting.getOptionValue("json") === true)
        return void process.stdout.write(`${JSON.stringify({ file: out, ...told }, null, 2)}\n`);
      const { kind, parameters, takes, gives, reach } = told;
      const lines = [`${basename(out)}: ${format} of predictor ${kind}, ${count(parameters, "parameter")}`];
      if (takes.length > 0)
        lines.push(`takes [batch, ${takes.join(", ")}], gives [batch, ${gives.join(", ")}], float32`);
      if (reach > 0) lines.push(`reads ${reach} pixels beyond a chart's radius`);
      process.stdout.write(`${lines.join("\n")}\n`);
    });
}

interface ExportFlags {
  out: string;
  format: ExportFormat;
  force?: boolean;
}

/** Where the set-up of the Python environment reports to, should it be needed. */
function progressOf(command: Command): (line: string) => void {
  const progress = new Progress(commonOptions(command));
  return (line) => progress.info(line);
}

function print(command: Command, file: string, summary: CheckpointSummary): void {
  if (command.getOptionValue("json") === true)
    return void process.stdout.write(`${JSON.stringify({ file, ...summary }, null, 2)}\n`);
  process.stdout.write(`${describeCheckpoint(file, summary).join("\n")}\n`);
}

/** What a checkpoint holds, in lines for a terminal, whatever the file's maker named things. */
export function describeCheckpoint(file: string, summary: CheckpointSummary): string[] {
  const { format, leftOut, metadata, published } = summary;
  const tensors = summary.tensors.map((t) => ({ ...t, name: printable(t.name) }));
  const bytes = tensors.reduce((sum, t) => sum + t.bytes, 0);
  const numbers = tensors.reduce((sum, t) => sum + t.shape.reduce((a, b) => a * b, 1), 0);
  const name = format === "pytorch" ? "PyTorch" : "safetensors";
  const lines = [
    `${basename(file)}: ${name}, ${count(tensors.length, "tensor")}, ${count(numbers, "number")}, ${size(bytes)}`,
  ];
  const width = (texts: string[]) => texts.reduce((longest, text) => Math.max(longest, text.length), 0);
  const nameWidth = width(tensors.map((t) => t.name));
  const typeWidth = width(tensors.map((t) => t.dtype));
  for (const t of tensors)
    lines.push(`  ${t.name.padEnd(nameWidth)}  ${t.dtype.padEnd(typeWidth)}  [${t.shape.join(", ")}]`);
  if (leftOut.length > 0) lines.push(`not weights, left out: ${abridge(leftOut)}`);
  if (published !== null)
    lines.push(`layout: that of the published code's ${published}, for ${PUBLISHED[published] ?? "?"}`);
  for (const [key, value] of Object.entries(metadata)) lines.push(`${printable(key)}: ${printable(value)}`);
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
