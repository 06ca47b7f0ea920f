/** The former name of discover. */
import {
  type Context,
  defineExperiment,
  type Findings,
  ownTasks,
  UsageError,
} from "../src/index.js";

const { discover } = ownTasks;
type Config = Parameters<typeof discover.run>[1];

export default defineExperiment({
  name: "own-data",
  summary: "The former name of discover",
  examples: ["atlas discover --inputs inputs.npy --targets targets.npy"],
  tasks: { discover: { ...discover, run } },
});

async function run(ctx: Context, config: Config): Promise<Findings> {
  // Configs of version 0.1 had fixed charts and held out nothing.
  if (config.given_fields.includes("k"))
    throw new UsageError(
      "this run of own-data was begun by version 0.1, and cannot be finished by this one",
      "start it again with: atlas discover --inputs FILE --targets FILE",
    );
  return discover.run(ctx, config);
}
