/** The local Python bridge: Python called in the worker's own venv, with no worker running, by way of pythonia. */
import type { ChildProcess } from "node:child_process";
import { stripVTControlCharacters } from "node:util";
import { z } from "zod";
import { FileError, SetupError } from "../errors.js";
import { ensureVenv } from "../setup/venv.js";
import { printable } from "./printable.js";

/** The part of pythonia that we use; its own types say `any`. */
interface Pythonia {
  python: { (module: string): Promise<unknown>; exit(): void };
  com: { proc: ChildProcess | null };
}

/** The functions of py-worker/atlas_worker/bridge.py: texts in, a JSON text out. */
export type BridgeFunction = "inspect_checkpoint" | "convert_checkpoint" | "export_predictor";

const Answer = z.union([
  z.object({ ok: z.unknown() }),
  z.object({ error: z.object({ message: z.string(), remedy: z.string() }) }),
  z.object({ system: z.object({ code: z.string(), path: z.string(), message: z.string() }) }),
]);

/** How long Python stays after a call, for the next one; it has PyTorch loaded, which takes it seconds. */
const IDLE_MS = 3000;

interface Live {
  python: string;
  bridge: Pythonia;
  functions: Record<string, (...args: string[]) => Promise<unknown>>;
  /** Rejected when the process ends by itself. */
  died: Promise<never>;
  idle?: NodeJS.Timeout;
}

export interface BridgeOptions {
  onProgress?: (line: string) => void;
  /** Milliseconds that it may take, once Python is there (default: any). */
  limitMs?: number;
}

/** pythonia has one Python process for the whole program, so calls take turns. */
let live: Live | undefined;
let last: Promise<unknown> = Promise.resolve();

/**
 * Call a function of the bridge. Its Python process is started when there is none, and ends a moment after the call, or with us.
 *
 * @throws FileError for what Python says of the first file it was given, or when it does not come to an end with it; a file-system error (with
 * `code`) where it met one
 * @throws SetupError when the venv cannot be made or the process ends in the middle
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
        bridge.com.proc?.kill("SIGKILL"); // it may be where it heeds nothing else
        end();
        reject(
          new FileError(
            `${args[0]} takes more than ${Math.round(limitMs / 1000)} s to read, which was given up`,
            "it may be made to hang whoever reads it; if you trust who made it, have its weights alone saved anew",
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
      "atlas doctor checks its venv",
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

/** Whether a call is under way, which our process must not end in. Python ends by itself when its channel to us closes. */
function hold({ com }: Pythonia, busy: boolean): void {
  for (const handle of [com.proc, com.proc?.channel]) busy ? handle?.ref() : handle?.unref();
}

function end(): void {
  clearTimeout(live?.idle);
  if (live?.bridge.com.proc) live.bridge.python.exit();
  live = undefined;
}

/** Start Python with an environment of its own; pythonia takes it from ours, at its import and at each later start. */
async function start(python: string, workerDir: string): Promise<Live> {
  const environment = {
    PYTHON_BIN: python,
    PYTHONPATH: workerDir,
    PYTHONDONTWRITEBYTECODE: "1", // the package may be read-only, and is not ours to fill
    REQ_TIMEOUT: "0", // a large checkpoint takes as long as it takes; we watch the process instead
  };
  const before = Object.fromEntries(Object.keys(environment).map((key) => [key, process.env[key]]));
  Object.assign(process.env, environment);
  let bridge: Pythonia;
  let module: Promise<unknown>;
  try {
    bridge = ((await import("pythonia")) as unknown as { default: Pythonia }).default;
    module = bridge.python("atlas_worker.bridge");
  } finally {
    for (const [key, value] of Object.entries(before))
      if (value === undefined) delete process.env[key];
      else process.env[key] = value;
  }
  const { com } = bridge;
  const child = com.proc;
  const died = new Promise<never>((_, reject) => {
    const ended = (how: string) => {
      if (com.proc !== child) return; // we ended it
      com.proc = null;
      reject(
        new SetupError(
          `the Python bridge ended in the middle of its work (${how})`,
          "see what it wrote above; was there enough memory? atlas doctor checks its venv",
        ),
      );
      live = undefined;
    };
    child?.once("exit", (code, signal) => ended(signal ?? `exit code ${code}`));
    child?.once("error", (error) => ended(error.message));
  });
  died.catch(() => undefined); // nobody listens between calls
  // It collects garbage once a second for as long as we live, and need not keep us alive for that.
  (globalThis as { __pythonBridge?: { loop?: NodeJS.Timeout } }).__pythonBridge?.loop?.unref();
  try {
    return { python, bridge, died, functions: (await Promise.race([module, died])) as Live["functions"] };
  } catch (error) {
    if (com.proc) bridge.python.exit();
    throw error;
  }
}

function unpack(text: string): unknown {
  const answer = Answer.parse(JSON.parse(text));
  if ("error" in answer) throw new FileError(printable(answer.error.message, 1000), answer.error.remedy);
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
