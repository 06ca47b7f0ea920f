/** `atlas tensorboard RUN`: write a run's metrics to an event file for TensorBoard. */
import { basename, join, resolve } from "node:path";
import type { Command } from "commander";
import { exportToTensorBoard } from "../report/tensorboard.js";
import { findRun } from "../run/folder.js";
import { addCommonOptions, commonOptions } from "./options.js";
import { namingFlag } from "./remedy.js";

/** Add the command to `program`. */
export function register(program: Command): void {
  const command = program
    .command("tensorboard")
    .description("Write the metrics, settings and result of a run for TensorBoard")
    .argument("[run]", "id of a run or the beginning of one, its folder, or latest", "latest")
    .option("--out <dir>", "Folder that gets a subfolder for the run (default: the run's folder)");
  addCommonOptions(command, ["runs", "json", "debug"])
    .addHelpText(
      "after",
      `
TensorBoard is not part of Atlas. Install it with: pip install tensorboard

Examples:
  atlas tensorboard latest
  atlas tensorboard 20260101-12 --out /tmp/boards`,
    )
    .action(async (name: string) => {
      const { runs, json } = commonOptions(command);
      const run = await namingFlag("--runs DIR", () => findRun(runs, name));
      const { out } = command.opts<{ out?: string }>();
      const logdir = out === undefined ? join(run.path, "tensorboard") : resolve(out);
      // Take the folder's name, because the id in config.json could lead elsewhere.
      const folder = out === undefined ? logdir : join(logdir, basename(run.path));
      const written = await namingFlag("--out DIR", () => exportToTensorBoard(run, folder));
      if (json)
        return void process.stdout.write(`${JSON.stringify({ logdir, ...written }, null, 2)}\n`);
      const { file, stages, epochs } = written;
      const quoted = /^[\w./:+-]+$/.test(logdir) ? logdir : `'${logdir.replaceAll("'", "'\\''")}'`;
      const what =
        stages.length === 0
          ? "no stage yet"
          : `${stages.join(", ")}: ${epochs} epoch${epochs === 1 ? "" : "s"}`;
      process.stdout.write(
        `${[`events  ${file}`, `stages  ${what}`, `view    tensorboard --logdir ${quoted}`].join(
          "\n",
        )}\n`,
      );
    });
}
