/** The former way to say what a report shows. */
import type { Illustration } from "../report/index.js";
import type { Context } from "./context.js";

/** @deprecated Use {@link Context.illustrate}. */
export function illustrate(context: Context, illustration: Illustration): void {
  context.illustrate(illustration);
}
