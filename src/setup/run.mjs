/**
 * Run a script of package.json (`npm run atlas|demo|test|integration|bench|soak|setup|check|generate|docs`,
 * and prepack), after making what it needs. This file runs before node_modules exists, so it is plain
 * Node. Old versions of Node must be able to parse it, to print a clear error.
 */
var parts = process.versions.node.split(".");
var version = Number(parts[0]) * 1000 + Number(parts[1]);
if (version < 20019) {
  console.error(
    "error: this is Node " +
      process.versions.node +
      " (" +
      process.execPath +
      "), but Atlas needs " +
      "20.19 or newer; install a newer Node and run the same command again",
  );
  process.exit(1);
}
var other = process.versions.bun ? "Bun" : process.versions.deno ? "Deno" : undefined;
if (other !== undefined) {
  console.error(
    "error: this is " +
      other +
      ", but Atlas needs Node 20.19 or newer; run the same command with npm (npm run …)",
  );
  process.exit(1);
}
import("./commands.mjs").then((commands) => commands.main(process.argv.slice(2)));
