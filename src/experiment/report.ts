/** Write the report of a run. A run is good even if its report fails. */
import { drawMotions, drawPictures, renderReport } from "../report/index.js";
import type { Result } from "../result.js";
import type { RunFolder } from "../run/folder.js";
import type { Context } from "./context.js";
import type { Progress } from "./progress.js";

/**
 * Write the report of a run.
 *
 * @returns the path of report.html; undefined, after a warning, if it could not be written
 */
export async function writeReport(
  run: RunFolder,
  result: Result,
  context: Context,
  progress: Progress,
): Promise<string | undefined> {
  try {
    const pictures = await drawPictures(context.session, context.illustrations).catch(
      (error: unknown) => {
        progress.warn(`the report shows no pictures of the data: ${messageOf(error)}`);
        return [];
      },
    );
    const motions = await drawMotions(context.session, context.motions).catch((error: unknown) => {
      progress.warn(`the report shows no moving samples: ${messageOf(error)}`);
      return [];
    });
    await run.writeReport(
      renderReport({ result, config: run.config, events: await run.events(), pictures, motions }),
    );
    return run.reportPath;
  } catch (error) {
    progress.warn(`the report could not be written: ${messageOf(error)}`);
    return undefined;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
