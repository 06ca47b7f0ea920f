/** Find the number of generators on fields, where no spectrum tells it (METHOD 2.7). */
import type { Context } from "../experiment/context.js";
import type { AlgebraResult } from "../result.js";
import { type AlgebraConfig, solveAlgebra } from "./algebra.js";
import type { SolverInputs } from "./data.js";
import { showMotions } from "./motion.js";

/**
 * Find a Lie algebra of any dimension: look for one generator, then for two, and so on, until one
 * of them is no symmetry. Transformations have finite sizes throughout.
 *
 * @param stage name of the first search in the run; the others have their number behind it
 */
export async function growAlgebra(
  ctx: Context,
  config: AlgebraConfig,
  inputs: SolverInputs,
  stage = "algebra",
): Promise<AlgebraResult> {
  let found = await solveAlgebra(ctx, { ...config, k: 1 }, inputs, stage);
  const { length: n } = found.generators[0] ?? [];
  const most = found.spectrum?.length ?? n * n;
  for (let k = 2; found.symmetryCount === k - 1 && k <= most; k++) {
    const next = await solveAlgebra(ctx, { ...config, k }, inputs, `${stage}_${k}`);
    if (next.symmetryCount < k) {
      const worst = next.relativeErrors.at(-1)!.toPrecision(2);
      const reason = `with ${k} generators, one has a relative error of ${worst}`;
      showMotions(ctx, inputs, found);
      return { ...found, explanation: `${found.explanation}; ${reason}` };
    }
    found = next;
  }
  return found;
}
