/** `atlas checkpoint inspect|convert`: PyTorch and safetensors files, without a worker. */
import { basename } from "node:path";
import { type Command, Option } from "commander";
import { Progress } from "../experiment/progress.js";
import { type CheckpointSummary, convertCheckpointFile, inspectCheckpoint } from "../interop/index.js";
import { addCommonOptions, commonOptions } from "./options.js";

const JSON_OPTION = () => new Option("--json", "Print what is in it as JSON, and nothing else, on stdout");

export function register(program: Command): void {
  const checkpoint = program
    .command("checkpoint")
    .description("Inspect and convert PyTorch (.pt, .pth; weights only) and safetensors checkpoints");

  const inspect = checkpoint
    .command("inspect")
    .description("List a checkpoint's tensors; no code in it is executed")
    .argument("<file>", "a .pt, .pth or .safetensors file")
    .addOption(JSON_OPTION());
  addCommonOptions(inspect, ["quiet", "debug"])
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
  addCommonOptions(convert, ["quiet", "debug"])
    .addHelpText(
      "after",
      "\nExamples:\n  atlas checkpoint convert model.pt model.safetensors\n  atlas checkpoint convert model.safetensors model.pt --force",
    )
    .action(async (from: string, to: string) => {
      const force = convert.getOptionValue("force") === true;
      print(convert, to, await convertCheckpointFile(from, to, { force, onProgress: progressOf(convert) }));
    });
}

/** Where the set-up of the Python environment reports to, should it be needed. */
function progressOf(command: Command): (line: string) => void {
  const progress = new Progress(commonOptions(command));
  return (line) => progress.info(line);
}

function print(command: Command, file: string, summary: CheckpointSummary): void {
  const { format, tensors, leftOut, metadata } = summary;
  if (command.getOptionValue("json") === true)
    return void process.stdout.write(`${JSON.stringify({ file, ...summary }, null, 2)}\n`);
  const bytes = tensors.reduce((sum, t) => sum + t.bytes, 0);
  const numbers = tensors.reduce((sum, t) => sum + t.shape.reduce((a, b) => a * b, 1), 0);
  const name = format === "pytorch" ? "PyTorch" : "safetensors";
  const lines = [
    `${basename(file)}: ${name}, ${count(tensors.length, "tensor")}, ${count(numbers, "number")}, ${size(bytes)}`,
  ];
  const width = (texts: string[]) => Math.max(0, ...texts.map((text) => text.length));
  const nameWidth = width(tensors.map((t) => t.name));
  const typeWidth = width(tensors.map((t) => t.dtype));
  for (const t of tensors)
    lines.push(`  ${t.name.padEnd(nameWidth)}  ${t.dtype.padEnd(typeWidth)}  [${t.shape.join(", ")}]`);
  if (leftOut.length > 0) lines.push(`not weights, left out: ${abridge(leftOut)}`);
  for (const [key, value] of Object.entries(metadata)) lines.push(`${key}: ${value}`);
  process.stdout.write(`${lines.join("\n")}\n`);
}

function count(n: number, noun: string): string {
  return `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
}

function abridge(names: string[]): string {
  return names.length <= 8
    ? names.join(", ")
    : `${names.slice(0, 8).join(", ")} and ${names.length - 8} more`;
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
