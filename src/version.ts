/** The version of this package, from its package.json. */
import { readFileSync } from "node:fs";

// The file is in the parent folder of src/, and one level further up from dist/src/.
const file = [
  new URL("../package.json", import.meta.url),
  new URL("../../package.json", import.meta.url),
]
  .map(read)
  .find((text) => text !== undefined);

/** The version of this package, for example "0.2.0". */
export const VERSION: string =
  (JSON.parse(file ?? "{}") as { version?: string }).version ?? "unknown";

function read(url: URL): string | undefined {
  try {
    return readFileSync(url, "utf8");
  } catch {
    return undefined;
  }
}
