/**
 * Ctrl-C. The first one stops the run in order. The second one stops it at once, or leaves it
 * running on its worker if the user asked for that.
 */
import { UsageError } from "../errors.js";
import type { Progress } from "../experiment/progress.js";
import { placeOf } from "../worker/index.js";

/** Milliseconds for which the first Ctrl-C waits for a second one that leaves the run. */
const SECOND_MS = 2_000;

/** How a command learns of Ctrl-C. */
export interface Interrupt {
  /** Aborted at the first SIGINT or SIGTERM, or some seconds later if the run can be left. */
  signal: AbortSignal;
  /** Call this once the run can be left; `attach` is the command that returns to it. */
  onAttachable: (where: { address: string; attach: string }) => void;
  /** Stop listening for signals. */
  dispose(): void;
}

/** Options of {@link onInterrupt}. */
export interface InterruptOptions {
  /** Message at the first Ctrl-C. */
  message?: string;
  /** Whether two of them leave the run, once it can be left. */
  detach?: boolean;
}

/** Listen for Ctrl-C (SIGINT) and SIGTERM. */
export function onInterrupt(
  progress: Pick<Progress, "info" | "warn" | "erase">,
  {
    message = "stopping after the current step; the last checkpoint is kept (Ctrl-C again to " +
      "stop at once)",
    detach = false,
  }: InterruptOptions = {},
): Interrupt {
  const controller = new AbortController();
  let attachable: Parameters<Interrupt["onAttachable"]>[0] | undefined;
  let waiting: NodeJS.Timeout | undefined;
  const stop = () => {
    waiting = undefined;
    progress.info(message);
    controller.abort();
  };
  const handle = () => {
    if (controller.signal.aborted) {
      progress.erase();
      process.exit(130); // a local worker watches its stdin, so it ends too
    }
    if (waiting !== undefined && attachable) {
      progress.warn(
        `the run continues at ${attachable.address}; return to it with: ${attachable.attach}`,
      );
      process.exit(130);
    }
    if (!detach || !attachable) return stop();
    progress.info(
      `stopping in ${SECOND_MS / 1000} s (Ctrl-C again to leave the run running on the worker)`,
    );
    waiting = setTimeout(stop, SECOND_MS);
  };
  process.on("SIGINT", handle).on("SIGTERM", handle);
  return {
    signal: controller.signal,
    onAttachable: (where) => {
      attachable = where;
    },
    dispose: () => {
      clearTimeout(waiting);
      process.off("SIGINT", handle).off("SIGTERM", handle);
    },
  };
}

/**
 * Check that a run can be left on its worker.
 *
 * @throws UsageError if the worker ends with the run
 */
export function checkDetach(detach: boolean, address: string): void {
  if (detach && placeOf(address) === "spawned")
    throw new UsageError(
      "--detach-on-interrupt has no effect: " +
        `${address === "local" ? "a local worker" : "the container"} ends with its run`,
      "start a worker with: atlas worker start, and name it with --worker",
    );
}
