/** Tasks of experiments on a fake worker, in the steps of the runner. */
import { completeConfig, configReader } from "../../../src/experiment/config.js";
import { Context } from "../../../src/experiment/context.js";
import type { Experiment, GivenOf, Task, Tasks } from "../../../src/experiment/define.js";
import { RunLookup } from "../../../src/experiment/lookup.js";
import { Progress } from "../../../src/experiment/progress.js";
import type { Findings } from "../../../src/result.js";
import { RunFolder } from "../../../src/run/folder.js";
import type { FakeSession } from "./fake-session.js";

/** What a run folder begins with, of an experiment "x". */
export const SPEC = {
  experiment: "x",
  seed: 5,
  config: {},
  worker: { address: "local", device: "cpu" },
  versions: {},
};

export interface Prepared {
  task: Task;
  config: Record<string, unknown>;
  /** What the user was told, and warned of. */
  told: string[];
  warned: string[];
}

/** A complete config, prepared. @param dir of run folders */
export async function prepared<T extends Tasks>(
  experiment: Experiment<T>,
  given: GivenOf<T>,
  { dir, preset }: { dir: string; preset?: string },
): Promise<Prepared> {
  const { task, config, notes } = completeConfig(experiment, given, { preset });
  const told: string[] = [];
  const warned = [...notes];
  const made = await task.prepare?.(config, {
    lookup: new RunLookup(dir, configReader(experiment)),
    given,
    info: (line) => void told.push(line),
    warn: (line) => void warned.push(line),
  });
  return { task, config: made ?? config, told, warned };
}

/** A context on a fake worker, and the run that it writes. @param dir of run folders */
export async function fakeContext(
  dir: string,
  fake: FakeSession,
  experiment = "x",
): Promise<{ ctx: Context; run: RunFolder }> {
  const run = await RunFolder.create(dir, { ...SPEC, experiment });
  const signal = new AbortController().signal;
  const progress = new Progress({ quiet: true });
  return { ctx: new Context({ session: fake.session, run, seed: 5, progress, signal }), run };
}

/** Run a task on a fake worker. @returns what it finds */
export async function live<T extends Tasks>(
  experiment: Experiment<T>,
  given: GivenOf<T>,
  fake: FakeSession,
  options: { dir: string; preset?: string },
): Promise<Findings> {
  const { task, config } = await prepared(experiment, given, options);
  const { ctx, run } = await fakeContext(options.dir, fake, experiment.name);
  return task.run(ctx, config).finally(() => run.close());
}
