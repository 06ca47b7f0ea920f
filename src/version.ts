/** This package's version, as in its package.json. */
import { readFileSync } from "node:fs";

// Beside src/ when run from source, one level further up when compiled to dist/src/.
const file = [new URL("../package.json", import.meta.url), new URL("../../package.json", import.meta.url)]
  .map(read)
  .find((text) => text !== undefined);

export const VERSION: string = (JSON.parse(file ?? "{}") as { version?: string }).version ?? "unknown";

function read(url: URL): string | undefined {
  try {
    return readFileSync(url, "utf8");
  } catch {
    return undefined;
  }
}
