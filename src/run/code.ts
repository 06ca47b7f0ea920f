/** Which code a run executes. */
import type { RunConfig } from "./folder.js";

/** Name the code that a run executes: an experiment's file, or code that its config names. */
export function codeOf({
  file,
  code,
  config: { trust_code, predictor },
}: RunConfig): string | undefined {
  // Version 0.1 recorded the trust in the config, but not the code that was trusted.
  return file ?? code ?? (trust_code === true ? String(predictor) : undefined);
}
