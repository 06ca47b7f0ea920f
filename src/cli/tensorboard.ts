/** `atlas tensorboard RUN`: a run's metrics as an event file of TensorBoard's. */
import { basename, join, resolve } from "node:path";
import type { Command } from "commander";
import { exportToTensorBoard } from "../report/tensorboard.js";
import { findRun } from "../run/folder.js";
import { addCommonOptions, commonOptions } from "./options.js";

export function register(program: Command): void {
  const command = program
    .command("tensorboard")
    .description("Write a run's metrics by epoch, its settings and its result for TensorBoard")
    .argument("[run]", "an id, the beginning of one, a path, or latest", "latest")
    .option("--out <dir>", "Folder in which the run gets one of its own (default: the run's folder)");
  addCommonOptions(command, ["runs", "json", "debug"])
    .addHelpText(
      "after",
      "\nTensorBoard itself is not part of Atlas: pip install tensorboard.\n\nExamples:\n  atlas tensorboard latest\n  atlas tensorboard 20260101-12 --out /tmp/boards",
    )
    .action(async (name: string) => {
      const { runs, json } = commonOptions(command);
      const run = await findRun(runs, name);
      const { out } = command.opts<{ out?: string }>();
      const logdir = out === undefined ? join(run.path, "tensorboard") : resolve(out);
      // By the folder's name: what config.json calls it could lead elsewhere.
      const folder = out === undefined ? logdir : join(logdir, basename(run.path));
      const written = await exportToTensorBoard(run, folder);
      if (json) return void process.stdout.write(`${JSON.stringify({ logdir, ...written }, null, 2)}\n`);
      const { file, stages, epochs } = written;
      const quoted = /^[\w./:+-]+$/.test(logdir) ? logdir : `'${logdir.replaceAll("'", "'\\''")}'`;
      process.stdout.write(
        `${[
          `events  ${file}`,
          `of      ${stages.length === 0 ? "no stage yet" : `${stages.join(", ")}: ${epochs} epoch${epochs === 1 ? "" : "s"}`}`,
          `look    tensorboard --logdir ${quoted}`,
        ].join("\n")}\n`,
      );
    });
}
