/** Ctrl-C: the first stops the run in an orderly way, the second at once. */
import type { Progress } from "../experiment/progress.js";

export interface Interrupt {
  /** Aborted at the first SIGINT or SIGTERM. */
  signal: AbortSignal;
  /** Stop listening. */
  dispose(): void;
}

export function onInterrupt(
  progress: Progress,
  message = "stopping after the current step; the last checkpoint is kept (Ctrl-C again to stop at once)",
): Interrupt {
  const controller = new AbortController();
  const handle = () => {
    if (controller.signal.aborted) {
      progress.erase();
      process.exit(130); // a local worker ends with us: it watches its stdin
    }
    progress.info(message);
    controller.abort();
  };
  process.on("SIGINT", handle).on("SIGTERM", handle);
  return {
    signal: controller.signal,
    dispose: () => void process.off("SIGINT", handle).off("SIGTERM", handle),
  };
}
