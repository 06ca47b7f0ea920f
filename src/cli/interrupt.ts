/** Ctrl-C: the first stops the run in an orderly way, the second at once, or leaves it to its worker where that is asked for. */
import { UsageError } from "../errors.js";
import type { Progress } from "../experiment/progress.js";
import { placeOf } from "../worker/index.js";

/** For how long the first Ctrl-C waits for a second one that leaves the run. */
const SECOND_MS = 2_000;

export interface Interrupt {
  /** Aborted at the first SIGINT or SIGTERM; where the run may be left, some seconds later. */
  signal: AbortSignal;
  /** From now on there is something to leave: how to come back to it. */
  onLasting: (where: { address: string; attach: string }) => void;
  /** Stop listening. */
  dispose(): void;
}

export interface InterruptOptions {
  /** What is said at the first. */
  message?: string;
  /** Two of them leave the run, once it can be left. */
  detach?: boolean;
}

export function onInterrupt(
  progress: Progress,
  {
    message = "stopping after the current step; the last checkpoint is kept (Ctrl-C again to stop at once)",
    detach = false,
  }: InterruptOptions = {},
): Interrupt {
  const controller = new AbortController();
  let lasting: Parameters<Interrupt["onLasting"]>[0] | undefined;
  let waiting: NodeJS.Timeout | undefined;
  const stop = () => {
    waiting = undefined;
    progress.info(message);
    controller.abort();
  };
  const handle = () => {
    if (controller.signal.aborted) {
      progress.erase();
      process.exit(130); // a local worker ends with us: it watches its stdin
    }
    if (waiting !== undefined && lasting) {
      progress.warn(`the run goes on at ${lasting.address}; come back to it with: ${lasting.attach}`);
      process.exit(130);
    }
    if (!detach || !lasting) return stop();
    progress.info(`stopping in ${SECOND_MS / 1000} s (Ctrl-C again to leave the run going on the worker)`);
    waiting = setTimeout(stop, SECOND_MS);
  };
  process.on("SIGINT", handle).on("SIGTERM", handle);
  return {
    signal: controller.signal,
    onLasting: (where) => {
      lasting = where;
    },
    dispose: () => {
      clearTimeout(waiting);
      process.off("SIGINT", handle).off("SIGTERM", handle);
    },
  };
}

/** @throws UsageError where a run is to be left to a worker that ends with it */
export function checkDetach(detach: boolean, address: string): void {
  if (detach && placeOf(address) === "ours")
    throw new UsageError(
      `--detach-on-interrupt: ${address === "local" ? "a local worker" : "a container of its own"} ends with its run`,
      "start one that does not (atlas worker start) and name it with --worker",
    );
}
