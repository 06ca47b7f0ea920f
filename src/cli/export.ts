/** `atlas export RUN`: write the symmetry that a run found for other programs. */
import { type Command, Option } from "commander";
import { exportSymmetry, SYMMETRY_FORMATS, type SymmetryFormat } from "../method/export.js";
import { findRun } from "../run/folder.js";
import { addCommonOptions, commonOptions, LOG_OPTIONS } from "./options.js";
import { namingFlag } from "./remedy.js";

/** Add the command to `program`. */
export function register(program: Command): void {
  const command = program
    .command("export")
    .description(
      "Write the symmetry that a run found for other programs: a folder with its matrices, its " +
        "evidence and a README. (atlas checkpoint export writes a predictor.)",
    )
    .argument("<run>", "a run's id or folder, or latest")
    .requiredOption("--out <dir>", "The folder to write")
    .addOption(
      new Option(
        "--format <format>",
        "json, or with a Python file: torch (needs torch alone), or for the library named",
      )
        .choices(SYMMETRY_FORMATS)
        .default(SYMMETRY_FORMATS[0]),
    )
    .option("--force", "Overwrite an earlier export in DIR");
  addCommonOptions(command, ["runs", "json", ...LOG_OPTIONS])
    .addHelpText(
      "after",
      `
Examples:
  atlas export latest --out symmetry
  atlas export latest --format torch --out symmetry && python symmetry/symmetry.py
  atlas export latest --format e3nn --out symmetry     (so(3) and O(3) on vectors)
  atlas export latest --format escnn --out symmetry    (so(2), O(2), C_k and D_k of the plane)
  atlas export latest --format emlp --out symmetry     (any linear group)`,
    )
    .action(async (given: string) => {
      const { out, format, force } = command.opts<{
        out: string;
        format: SymmetryFormat;
        force?: boolean;
      }>();
      const { runs, json } = commonOptions(command);
      const run = await namingFlag("--runs DIR", () => findRun(runs, given));
      const told = await namingFlag("--out DIR", () => exportSymmetry(run, out, format, { force }));
      if (json) return void process.stdout.write(`${JSON.stringify(told, null, 2)}\n`);
      const { folder, files, name, generators, components, verdict, notes } = told;
      const lines = [
        `${name}: ${generators} generator${generators === 1 ? "" : "s"}, ${components} further ` +
          `component${components === 1 ? "" : "s"}, verdict ${verdict}`,
        ...notes.map((note) => `note    ${note}`),
        `folder  ${folder} (${files.join(", ")})`,
      ];
      process.stdout.write(`${lines.join("\n")}\n`);
    });
}
