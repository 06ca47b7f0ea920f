/** Before the tests of the command line: the compiled command that they run. */
import { ensureCompiled } from "../src/setup/node.mjs";

/** Compile it, once for all test files; some milliseconds where it is up to date. */
export async function mochaGlobalSetup() {
  await ensureCompiled((line) => void process.stderr.write(`set-up: ${line}\n`));
}
