/**
 * What `npm run atlas|demo|test|bench|setup|check` and prepack run: set up what is missing, then do it. It runs before node_modules exists,
 * so everything it needs until then is plain Node; and it is parsed by old versions of Node, which get a clear line instead of a stack.
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
import("./commands.mjs").then((commands) => commands.main(process.argv.slice(2)));
