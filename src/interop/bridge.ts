/** The Python bridge: calls to Python in the worker's venv, without a worker, through pythonia. */
import type { ChildProcess } from "node:child_process";
import { stripVTControlCharacters } from "node:util";
import { z } from "zod";
import { FileError, SetupError } from "../errors.js";
import { childEnvironment } from "../setup/environment.mjs";
import { ensureVenv } from "../setup/venv.js";
import { printable } from "./printable.js";

/** The part of pythonia that is used here; its own types say `any`. */
interface Pythonia {
  python: { (module: string): Promise<unknown>; exit(): void };
  com: { proc: ChildProcess | null };
}

/** Functions of py-worker/atlas_worker/bridge.py. They take texts, and return a JSON text. */
export type BridgeFunction =
  | "inspect_checkpoint"
  | "convert_checkpoint"
  | "select_weights"
  | "export_predictor";

const Answer = z.union([
  z.object({ ok: z.unknown() }),
  z.object({
    error: z.object({ message: z.string(), remedy: z.string(), reason: z.string().optional() }),
  }),
  z.object({ system: z.object({ code: z.string(), path: z.string(), message: z.string() }) }),
]);

/** Milliseconds that Python waits for another call, because loading PyTorch takes seconds. */
const IDLE_MS = 3000;

interface Live {
  python: string;
  bridge: Pythonia;
  functions: Record<string, (...args: string[]) => Promise<unknown>>;
  /** Rejects when the process ends by itself. */
  died: Promise<never>;
  idle?: NodeJS.Timeout;
}

/** Options of {@link callPython}. */
export interface BridgeOptions {
  onProgress?: (line: string) => void;
  /** Milliseconds that the call may take, once Python runs (default: no limit). */
  limitMs?: number;
}

/** The Python process. pythonia has one for the whole program, so calls take turns. */
let live: Live | undefined;
let last: Promise<unknown> = Promise.resolve();

/**
 * Call a function of the bridge. Its Python process is started if needed, and ends a moment after
 * the last call, or with this process.
 *
 * @throws FileError if Python reports a fault of the file, or does not finish with it in time
 * @throws a file-system error (with `code`) if Python met one
 * @throws SetupError if the venv cannot be made, or the process ends during the call
 */
export function callPython(
  name: BridgeFunction,
  args: readonly string[],
  options: BridgeOptions = {},
): Promise<unknown> {
  const call = last.then(() => run(name, args, options));
  last = call.catch(() => undefined);
  return call;
}

async function run(
  name: BridgeFunction,
  args: readonly string[],
  { onProgress, limitMs }: BridgeOptions,
): Promise<unknown> {
  const { python, workerDir } = await ensureVenv({ onProgress });
  clearTimeout(live?.idle);
  if (live?.python !== python) end();
  let timer: NodeJS.Timeout | undefined;
  try {
    live ??= await start(python, workerDir);
    hold(live.bridge, true);
    const { bridge, died, functions } = live;
    const endless = new Promise<never>((_, reject) => {
      if (limitMs === undefined) return;
      timer = setTimeout(() => {
        bridge.com.proc?.kill("SIGKILL"); // it may not react to anything else
        end();
        reject(
          new FileError(
            `reading ${args[0]} was given up after ${Math.round(limitMs / 1000)} s`,
            "the file may be made to hang its readers; if you trust its author, ask for a file " +
              "of the weights alone",
          ),
        );
      }, limitMs);
    });
    return unpack(String(await Promise.race([functions[name]!(...args), died, endless])));
  } catch (error) {
    if (error instanceof FileError || (error instanceof Error && "code" in error)) throw error;
    end();
    if (error instanceof SetupError) throw error;
    throw new SetupError(
      `the Python bridge failed (${firstPythonError(error)})`,
      "check the venv with: atlas doctor",
      { cause: error },
    );
  } finally {
    clearTimeout(timer);
    if (live) {
      hold(live.bridge, false);
      live.idle = setTimeout(end, IDLE_MS).unref();
    }
  }
}

/** Keep this process alive during a call. Python ends by itself when its channel closes. */
function hold({ com }: Pythonia, busy: boolean): void {
  for (const handle of [com.proc, com.proc?.channel]) busy ? handle?.ref() : handle?.unref();
}

function end(): void {
  clearTimeout(live?.idle);
  if (live?.bridge.com.proc) live.bridge.python.exit();
  live = undefined;
}

/** Start Python. pythonia takes its environment from this process, at import and at every start. */
async function start(python: string, workerDir: string): Promise<Live> {
  const environment = childEnvironment({
    PYTHON_BIN: python,
    PYTHONPATH: workerDir,
    PYTHONDONTWRITEBYTECODE: "1", // the package may be read-only
    REQ_TIMEOUT: "0", // large checkpoints take long; the process itself is watched instead
  });
  const before = { ...process.env };
  replaceEnvironment(environment);
  let bridge: Pythonia;
  let module: Promise<unknown>;
  try {
    bridge = ((await import("pythonia")) as unknown as { default: Pythonia }).default;
    module = bridge.python("atlas_worker.bridge");
  } finally {
    replaceEnvironment(before);
  }
  const { com } = bridge;
  const child = com.proc;
  const died = new Promise<never>((_, reject) => {
    const ended = (how: string) => {
      if (com.proc !== child) return; // this process ended it
      com.proc = null;
      reject(
        new SetupError(
          `the Python bridge ended during its work (${how})`,
          "see its output above, check that there is enough memory, and check the venv with: " +
            "atlas doctor",
        ),
      );
      live = undefined;
    };
    child?.once("exit", (code, signal) => ended(signal ?? `exit code ${code}`));
    child?.once("error", (error) => ended(error.message));
  });
  died.catch(() => undefined); // between calls nothing else handles it
  // pythonia collects garbage every second. Its timer must not keep this process alive.
  (globalThis as { __pythonBridge?: { loop?: NodeJS.Timeout } }).__pythonBridge?.loop?.unref();
  try {
    return {
      python,
      bridge,
      died,
      functions: (await Promise.race([module, died])) as Live["functions"],
    };
  } catch (error) {
    if (com.proc) bridge.python.exit();
    throw error;
  }
}

function replaceEnvironment(variables: NodeJS.ProcessEnv): void {
  for (const name of Object.keys(process.env)) if (!(name in variables)) delete process.env[name];
  Object.assign(process.env, variables);
}

function unpack(text: string): unknown {
  const answer = Answer.parse(JSON.parse(text));
  if ("error" in answer) {
    const { message, remedy, reason } = answer.error;
    const error = new FileError(printable(message, 1000), remedy);
    if (reason === "executes_code" || reason === "weights_key") error.reason = reason;
    throw error;
  }
  if ("system" in answer) {
    const { code, path, message } = answer.system;
    throw Object.assign(new Error(message), { code, path });
  }
  return answer.ok;
}

/** Find the line of a PythonException's stack that names the error ("ModuleNotFoundError: …"). */
function firstPythonError(error: unknown): string {
  const text = stripVTControlCharacters(
    error instanceof Error ? (error.stack ?? error.message) : String(error),
  );
  const line = text.split("\n").findLast((l) => /\w+(Error|Exception|Interrupt)\b/.test(l));
  return (line ?? text.split("\n")[0]!).replace(/^\W*JS\W*/, "").trim();
}
