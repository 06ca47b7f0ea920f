/** Find the number of generators on fields, where no spectrum tells it (METHOD 2.7). */
import type { Context } from "../experiment/context.js";
import type { AlgebraResult } from "../result.js";
import { type AlgebraConfig, solveAlgebra } from "./algebra.js";
import type { SolverInputs } from "./data.js";
import { showMotions } from "./motion.js";

/** Factor by which a relative error may grow with a further generator. */
const GROWTH = 1.5;

/** Count the symmetries, and the generators that hold approximately. */
function near({ symmetryCount, evidence }: AlgebraResult): number {
  return symmetryCount + (evidence?.approximate ?? 0);
}

/**
 * Find a Lie algebra of any dimension: look for one generator, then for two, and so on, until one
 * of them has too large an error. The largest span counts in which all generators are symmetries.
 * Transformations have finite sizes throughout.
 *
 * A smaller span may fail where a larger one does not: the directions that it lacks are then no
 * worse than its own.
 *
 * @param stage name of the first search in the run; the others have their number behind it
 */
export async function growAlgebra(
  ctx: Context,
  config: AlgebraConfig,
  inputs: SolverInputs,
  stage = "algebra",
): Promise<AlgebraResult> {
  const { "solver.threshold": threshold = 0.15 } = config as { "solver.threshold"?: number };
  let found = await solveAlgebra(ctx, { ...config, k: 1 }, inputs, stage);
  const worst = ({ relativeErrors }: AlgebraResult) => Math.max(0, ...relativeErrors);
  const { length: n } = found.generators[0] ?? [];
  const most = found.spectrum?.length ?? n * n;
  const limit = Math.max(threshold, near(found) > 0 ? GROWTH * worst(found) : 0);
  let last = found;
  for (let k = 2; k <= most && worst(last) <= limit; k++) {
    last = await solveAlgebra(ctx, { ...config, k }, inputs, `${stage}_${k}`);
    if (near(last) === k) found = last;
  }
  if (last !== found) showMotions(ctx, inputs, found);
  const tried = last.generators.length;
  if (tried <= near(found)) return found;
  const reason = `with ${tried} generators, one has a relative error of ${worst(last).toPrecision(2)}`;
  return tried === 1 ? found : { ...found, explanation: `${found.explanation}; ${reason}` };
}
