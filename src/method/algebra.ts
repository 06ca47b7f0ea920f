/** Find the Lie algebra of the symmetries (METHOD 2.2 and METHOD 2.3). */
import { z } from "zod";
import { analyseAlgebra } from "../algebra/index.js";
import { type Block, blocksOf, findBlock, type Manifold, paramsOf } from "../blocks.js";
import { UsageError } from "../errors.js";
import {
  type ChoiceOptions,
  type ChoiceValues,
  choose,
  chosen,
  kindsFor,
  traitsOf,
} from "../experiment/choice.js";
import type { Context } from "../experiment/context.js";
import { whole } from "../experiment/define.js";
import type { AlgebraMeasured, AlgebraResult } from "../result.js";
import type { RemoteObject } from "../worker/index.js";
import { noteUnits, type SolverInputs, solverObjects } from "./data.js";
import { showMotions } from "./motion.js";
import { saying, searchWhole, withoutUnused } from "./unused.js";
import { type EvidenceKind, evidenceField, judgeAlgebra, widened } from "./verdict.js";

type SolverOptions = ChoiceOptions<"algebra_solver">;

/** Make the config fields of the search for a Lie algebra in gl(n). */
export function algebraFields({
  manifold,
  most,
  k,
  epochs,
  values,
  trained = true,
}: {
  manifold: Manifold;
  /** The largest number of generators that may be asked for. */
  most: number;
  /** Default number of generators; "auto": the solver decides. */
  k: number | "auto";
  /** Epochs of a solver that works on a trained predictor. */
  epochs: number;
  /** The experiment's own defaults of the solvers' parameters. */
  values?: SolverOptions["values"];
  /** Whether the run trains the predictor. If not, no solver can take turns with the training. */
  trained?: boolean;
}) {
  const count = z.int().min(1).max(most);
  const field =
    k === "auto" ? z.union([z.literal("auto"), count]).default("auto") : count.default(k);
  return {
    ...choose("solver", "algebra_solver", {
      description: "Solver for the Lie algebra",
      default: "grassmann",
      manifold,
      kinds: trained
        ? undefined
        : kindsFor("algebra_solver", manifold).filter((kind) => !alternates({ solver: kind })),
      flags: {
        threshold: { names: ["threshold"], listed: false },
        scale: "scale",
        standard_basis: "standard_basis",
        optimiser: { names: ["optimiser"], kinds: ["grassmann"], listed: false },
        learning_rate: { names: ["basis_lr"], kinds: ["atlasd"] },
        r1: "r1",
        r2: "r2",
        r3: "r3",
      },
      values: (config) => {
        const own = values?.(config) ?? {};
        return withTurns(config, { ...own, grassmann: { optimiser: "auto", ...own.grassmann } });
      },
      before: { grassmann: { optimiser: "adam" } },
    }),
    k: (field as z.ZodDefault<z.ZodType<number | "auto">>).meta({
      description: "Number of generators to look for",
      placeholder: k === "auto" ? "auto|number" : "number",
      formerValues: k === "auto" ? { 0: "auto" } : undefined,
    }),
    algebra_epochs: whole(epochs, "Epochs of the search (atlasd: as --epochs)"),
    evidence: evidenceField(),
  };
}

/** Give a solver that takes turns with the training the batch size of the training. */
function withTurns(
  config: Readonly<Record<string, unknown>>,
  values: ChoiceValues<"algebra_solver">,
): ChoiceValues<"algebra_solver"> {
  const batch_size = config["training.batch_size"];
  if (typeof batch_size !== "number" || !alternates(config)) return values;
  const kind = String(config.solver) as "atlasd";
  return { ...values, [kind]: { batch_size, ...values[kind] } };
}

/** Config of the search for a Lie algebra. */
export interface AlgebraConfig {
  k: number | "auto";
  epochs: number;
  algebra_epochs: number;
  reuse_predictor?: boolean | string;
  evidence?: EvidenceKind;
}

/** Whether the epochs of a config's solver take turns with the predictor's (METHOD 2.2). */
export function alternates(config: object): boolean {
  const { solver } = config as { solver?: unknown };
  // The kind may be a former one, or one of another type of solver.
  const kinds = Object.entries(blocksOf("algebra_solver"));
  return kinds.some(
    ([kind, { aliases = [], alternates = false }]) =>
      alternates && (kind === solver || aliases.includes(String(solver))),
  );
}

/** Check relations between fields of the config. @throws UsageError */
export function checkAlgebra(
  config: AlgebraConfig,
  given: Readonly<Record<string, unknown>>,
): void {
  const solver = String((config as unknown as { solver: string }).solver);
  if (config.k === "auto" && !traitsOf(config, "solver", "algebra_solver").finds_k) {
    const finders = Object.entries(blocksOf("algebra_solver")).filter(([, entry]) => entry.finds_k);
    throw new UsageError(
      `the solver ${solver} does not find the number of generators`,
      `give --k, or choose --solver ${finders.map(([kind]) => kind).join(" or ")}`,
    );
  }
  if (given.algebra_epochs !== undefined && alternates(config))
    throw new UsageError(
      `--algebra-epochs has no effect with --solver ${solver}, which takes turns with the training`,
      "leave it out; the search has as many epochs as --epochs",
    );
}

/** Find the Lie algebra as a config says, and analyse it. @param stage its name in the run */
export function solveAlgebra(
  ctx: Context,
  config: AlgebraConfig,
  inputs: SolverInputs,
  stage = "algebra",
): Promise<AlgebraResult> {
  const turns = alternates(config);
  const { evidence } = config;
  const solver = chosen(config, "solver", "algebra_solver");
  const { threshold } = solver.params as { threshold?: number };
  const { entry } = findBlock("algebra_solver", solver.kind);
  const usual = paramsOf(entry).threshold?.default;
  if (evidence !== "none" && threshold !== undefined && threshold !== usual)
    ctx.note("--threshold does not decide what is a symmetry; it does with --evidence none");
  return discoverAlgebra(ctx, inputs, {
    solver,
    k: config.k,
    epochs: turns ? config.epochs : config.algebra_epochs,
    train: turns && typeof config.reuse_predictor !== "string",
    stage,
    evidence,
  });
}

/** How a Lie algebra is sought. */
export interface SearchOptions {
  solver: Block<"algebra_solver">;
  /** Number of generators; "auto" (or 0): the solver decides. */
  k: number | "auto";
  epochs: number;
  /** Whether to train the predictor by turns with the search; if not, it is used as it is. */
  train?: boolean;
  /** Name of the stage, one for each search of a run (default "algebra"). */
  stage?: string;
  /** Evidence on held-out data; "none": the relative error decides. */
  evidence?: EvidenceKind;
}

/**
 * Find the Lie algebra, and analyse it. Where nothing holds for all of the inputs, it is sought for
 * the directions that the predictor uses.
 */
export async function discoverAlgebra(
  ctx: Context,
  given: SolverInputs,
  options: SearchOptions,
): Promise<AlgebraResult> {
  const { train = false, stage = "algebra", evidence, k } = options;
  let [inputs, result] = [given, await searchAlgebra(ctx, given, options)];
  if (evidence !== "none" && !train && nearSymmetries(result).length === 0) {
    const used = await withoutUnused(ctx, given, { k });
    if (used.unused !== undefined) {
      const found = await searchAlgebra(ctx, used, { ...options, stage: `${stage}_used` });
      if (nearSymmetries(found).length > 0) [inputs, result] = [used, found];
    }
  }
  if (inputs === given) searchWhole(given);
  noteUnits(ctx, result);
  showMotions(ctx, inputs, result);
  return result;
}

/** Search in all that acts, or where the predictor uses the inputs, and judge what is found. */
async function searchAlgebra(
  ctx: Context,
  inputs: SolverInputs,
  { solver, k, epochs, train = false, stage = "algebra", evidence = "quick" }: SearchOptions,
): Promise<AlgebraResult> {
  const objects = solverObjects(inputs);
  const algebra = await ctx.algebra({ ...objects, solver, k, epochs });
  const second = { stage, object: algebra };
  if (train) await ctx.alternate({ stage: "predictor", object: inputs.predictor }, second, epochs);
  else await ctx.advance(stage, algebra);
  const found = await ctx.timed(stage, () => ctx.session.getAlgebra(algebra));
  const measured = saying(found, inputs.unused);
  const finds = k === "auto" || k === 0;
  const judged = async (found: AlgebraMeasured, prefix = stage) => {
    /** Search again with another fit, for as many generators. */
    async function search(predictor: RemoteObject, name: string): Promise<AlgebraMeasured> {
      const options = { ...objects, predictor, solver, k: found.generators.length, epochs };
      const again = await ctx.algebra(options);
      await ctx.advance(`${prefix}_${name}`, again);
      return ctx.timed(stage, () => ctx.session.getAlgebra(again));
    }
    const options = { kind: evidence, search: train ? undefined : search, wider: finds };
    return judgeAlgebra(ctx, inputs, found, options);
  };
  let result = evidence === "none" ? analyseAlgebra(measured) : await judged(measured);
  const wider = finds ? widened(measured, result) : undefined;
  if (wider !== undefined) {
    const again = await judged(wider, `${stage}_wider`); // its searches are other stages
    if (nearSymmetries(again).length > nearSymmetries(result).length) result = again;
  }
  return result;
}

/**
 * Select the generators along which components are not told apart: the symmetries, and those that
 * hold approximately or may hold.
 */
export function nearSymmetries({ generators, symmetryCount, evidence }: AlgebraResult) {
  const { approximate = 0, plausible = 0 } = evidence ?? {};
  return generators.slice(0, symmetryCount + approximate + plausible);
}

/** Select the generators that are symmetries. */
export function symmetries({ generators, symmetryCount }: AlgebraResult): number[][][] {
  return generators.slice(0, symmetryCount);
}
