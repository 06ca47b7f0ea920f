#!/usr/bin/env node
/** The `atlas` command. */
import { main } from "./program.js";

// A reader that closes the pipe early (`atlas runs | head`) is not an error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
});
process.exitCode = await main(process.argv.slice(2));
