/** What the report shows moving: a sample along each generator. */
import { unit } from "../algebra/linalg.js";
import type { Context } from "../experiment/context.js";
import type { AlgebraResult } from "../result.js";
import type { SolverInputs } from "./data.js";
import { inReach } from "./rule.js";

/** Generators shown at most. */
const MOST = 3;
/** Length of a unit generator's longest move where no evidence says how far the data reach. */
const USUAL = 1;

/**
 * Let the report show a sample that moves along the generators that hold or nearly do; along the
 * best one where none does. It moves as far as the data support a verdict.
 */
export function showMotions(
  ctx: Context,
  { predictor, atlas, others: dataset }: SolverInputs,
  { generators, symmetryCount, evidence }: AlgebraResult,
): void {
  if (atlas.kind === "lattice") return; // fields of 1 and 3 dimensions are not drawn
  const { approximate = 0, plausible = 0, directions = [] } = evidence ?? {};
  const near = symmetryCount + approximate;
  const shown = Math.min(MOST, Math.max(1, near + plausible));
  ctx.illustrateMotions(
    generators.slice(0, shown).map((generator, i) => {
      const judged = directions[i]?.sizes.filter((size) => inReach(size) && size.length > 0) ?? [];
      return {
        name: `B${i + 1}`,
        doubt:
          i < symmetryCount
            ? undefined
            : i < near
              ? "holds approximately"
              : evidence?.verdict === "cannot tell"
                ? "may be a symmetry or not"
                : "no symmetry",
        predictor,
        dataset,
        vectors: atlas.kind === "vectors",
        direction: unit(generator),
        longest: Math.max(0, ...judged.map(({ length }) => length)) || USUAL,
      };
    }),
  );
}
