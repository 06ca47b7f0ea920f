/** Python programs of this folder, which measure the worker in a process of their own. */
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { ensureVenv } from "../../src/setup/venv.js";

/**
 * Run a program of this folder, and parse the JSON object that it prints. What it writes to stderr
 * is passed on.
 *
 * @param file for example "numerics.py"
 * @throws Error if it fails
 */
export async function runPython<T>(
  file: string,
  args: readonly string[] = [],
  env: NodeJS.ProcessEnv = {},
): Promise<T> {
  const { python, workerDir } = await ensureVenv();
  const path = fileURLToPath(new URL(file, import.meta.url));
  const { stdout } = await execa(python, [path, ...args], {
    env: { PYTHONPATH: workerDir, ...env },
    stderr: ["inherit", "pipe"],
    stdin: "ignore",
  });
  return JSON.parse(stdout) as T;
}
