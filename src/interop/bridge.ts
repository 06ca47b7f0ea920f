/** The local Python bridge: Python called in the worker's own venv, with no worker running, by way of pythonia. */
import type { ChildProcess } from "node:child_process";
import { stripVTControlCharacters } from "node:util";
import { z } from "zod";
import { AtlasError, FileError, SetupError } from "../errors.js";
import { ensureVenv } from "../setup/venv.js";

/** The part of pythonia that we use; its own types say `any`. */
interface Pythonia {
  python: { (module: string): Promise<unknown>; exit(): void };
  com: { proc: ChildProcess | null };
}

/** The functions of py-worker/atlas_worker/bridge.py: texts in, a JSON text out. */
export type BridgeFunction = "inspect_checkpoint" | "convert_checkpoint";

const Answer = z.union([
  z.object({ ok: z.unknown() }),
  z.object({ error: z.object({ message: z.string(), remedy: z.string() }) }),
  z.object({ system: z.object({ code: z.string(), path: z.string(), message: z.string() }) }),
]);

/** pythonia is one process for the whole program, so calls take turns. */
let last: Promise<unknown> = Promise.resolve();

/**
 * Call a function of the bridge; its Python process lives as long as the call.
 *
 * @throws FileError for what Python says of the files it was given; a file-system error (with `code`) where it met one
 * @throws SetupError when the venv cannot be made or the process ends in the middle
 */
export function callPython(
  name: BridgeFunction,
  args: readonly string[],
  options: { onProgress?: (line: string) => void } = {},
): Promise<unknown> {
  const call = last.then(() => run(name, args, options));
  last = call.catch(() => undefined);
  return call;
}

async function run(
  name: BridgeFunction,
  args: readonly string[],
  options: { onProgress?: (line: string) => void },
): Promise<unknown> {
  const { python: interpreter, workerDir } = await ensureVenv(options);
  const { bridge, module } = await start(interpreter, workerDir);
  try {
    const process = bridge.com.proc;
    const died = new Promise<never>((_, reject) => {
      const end = (how: string) =>
        reject(
          new SetupError(
            `the Python bridge ended in the middle of its work (${how})`,
            "see what it wrote above; was there enough memory? atlas doctor checks its venv",
          ),
        );
      process?.once("exit", (code, signal) => end(signal ?? `exit ${code}`));
      process?.once("error", (error) => end(error.message));
    });
    died.catch(() => undefined); // it also ends when we are done
    const functions = (await Promise.race([module, died])) as Record<
      string,
      (...args: string[]) => Promise<unknown>
    >;
    return unpack(String(await Promise.race([functions[name]!(...args), died])));
  } catch (error) {
    if (error instanceof AtlasError || (error instanceof Error && "code" in error)) throw error;
    throw new SetupError(
      `the Python bridge failed (${firstPythonError(error)})`,
      "atlas doctor checks its venv",
      { cause: error },
    );
  } finally {
    bridge.python.exit(); // or it would keep our process from ending
  }
}

/** Start Python with an environment of its own; pythonia takes it from ours, at its import and at each later start. */
async function start(
  python: string,
  workerDir: string,
): Promise<{ bridge: Pythonia; module: Promise<unknown> }> {
  const environment = {
    PYTHON_BIN: python,
    PYTHONPATH: workerDir,
    PYTHONDONTWRITEBYTECODE: "1", // the package may be read-only, and is not ours to fill
    REQ_TIMEOUT: "0", // a large checkpoint takes as long as it takes; we watch the process instead
  };
  const before = Object.fromEntries(Object.keys(environment).map((key) => [key, process.env[key]]));
  Object.assign(process.env, environment);
  try {
    const bridge = ((await import("pythonia")) as unknown as { default: Pythonia }).default;
    const module = bridge.python("atlas_worker.bridge");
    module.catch(() => undefined); // awaited by the caller
    return { bridge, module };
  } finally {
    for (const [key, value] of Object.entries(before))
      if (value === undefined) delete process.env[key];
      else process.env[key] = value;
  }
}

function unpack(text: string): unknown {
  const answer = Answer.parse(JSON.parse(text));
  if ("error" in answer) throw new FileError(answer.error.message, answer.error.remedy);
  if ("system" in answer) {
    const { code, path, message } = answer.system;
    throw Object.assign(new Error(message), { code, path });
  }
  return answer.ok;
}

/** The line of a PythonException's stack that says what was raised ("ModuleNotFoundError: …"). */
function firstPythonError(error: unknown): string {
  const text = stripVTControlCharacters(
    error instanceof Error ? (error.stack ?? error.message) : String(error),
  );
  const line = text.split("\n").findLast((l) => /\w+(Error|Exception|Interrupt)\b/.test(l));
  return (line ?? text.split("\n")[0]!).replace(/^\W*JS\W*/, "").trim();
}
