/**
 * The tasks of an experiment that discovers symmetries: for the algebra, the components, or both.
 */
import type { Block, Manifold } from "../blocks.js";
import type { Context } from "../experiment/context.js";
import {
  type ConfigOf,
  type Preparation,
  type Shape,
  type TaskDefinition,
  task,
} from "../experiment/define.js";
import type { RecordedConfig } from "../experiment/lookup.js";
import type { Findings } from "../result.js";
import type { RemoteObject } from "../worker/index.js";
import {
  type AlgebraConfig,
  algebraFields,
  alternates,
  checkAlgebra,
  nearSymmetries,
  solveAlgebra,
} from "./algebra.js";
import {
  type CosetConfig,
  cosetFields,
  givenBasis,
  identityField,
  lookUpIdentityOrNewest,
  solveCosets,
} from "./components.js";
import type { Setting } from "./data.js";
import {
  fitPredictor,
  lookUpPredictor,
  type PredictorConfig,
  predictorFields,
  reuseFields,
  trainedPredictor,
} from "./predictor.js";

type PredictorShape = ReturnType<typeof predictorFields>;
type AlgebraShape = ReturnType<typeof algebraFields>;

/** A problem of discovery: data, and the search that suits them. */
export interface Problem<D extends Shape, S extends Setting = Setting> {
  /** What a predictor sees of the data. */
  manifold: Manifold;
  /** Config fields of the data. */
  data: D;
  /**
   * Fields of the data that must agree with those of a run whose predictor or algebra is reused.
   */
  decisive: readonly (keyof D & string)[];
  predictor: Omit<Parameters<typeof predictorFields>[0], "manifold">;
  algebra: Omit<Parameters<typeof algebraFields>[0], "manifold">;
  /**
   * The network of the reference code's checkpoints, formerly chosen by `--predictor published`.
   */
  reference: Block<"architecture">;
  /**
   * The first preset is the default. For a solver that takes turns with the training, "published"
   * is the default.
   */
  presets: Readonly<Record<string, Partial<ConfigOf<D & PredictorShape & AlgebraShape>>>>;
  /** Checks the fields of the data, and fetches missing data. */
  prepare?(
    config: ConfigOf<D> & PredictorConfig,
    preparation: Preparation,
  ): Promise<object> | Promise<void>;
  /** Creates the dataset and the atlas. */
  setting(ctx: Context, config: ConfigOf<D>): Promise<S>;
  /** Adds scores and notes to the findings. */
  conclude?(
    ctx: Context,
    config: ConfigOf<D> & PredictorConfig,
    findings: Findings,
    predictor: RemoteObject,
    setting: S,
  ): Promise<Findings>;
}

/** A problem of discovery that includes the components. */
export interface WholeProblem<D extends Shape, S extends Setting = Setting> extends Problem<D, S> {
  /** Size of the matrices, which are n by n. */
  n: number;
  cosets: Omit<Parameters<typeof cosetFields>[0], "manifold">;
}

/** Make the task `discover` of a problem in which only the algebra is sought. */
export function algebraTask<D extends Shape, S extends Setting>(problem: Problem<D, S>) {
  const { fields, algebra, prepare, discover, define } = stepsOf(problem);
  return define({
    summary: "Find the Lie algebra of the symmetries",
    config: { ...fields, ...algebra },
    prepare,
    run: (ctx, config) => discover(ctx, "discover", config, { algebra: true, cosets: false }),
  });
}

/** Make the tasks `discover`, `discover_algebra` and `discover_cosets` of a problem. */
export function discoveryTasks<D extends Shape, S extends Setting>(problem: WholeProblem<D, S>) {
  const { n, decisive } = problem;
  const { fields, algebra, prepare, discover, define } = stepsOf(problem);
  const cosets = cosetFields({ manifold: problem.manifold, ...problem.cosets });
  const identity = {
    identity: identityField("Lie algebra: a RUN, a FILE, or a name like so(2)"),
  };

  /** Whether another run's algebra is for the same data. */
  const alike = (config: object) => (other: RecordedConfig) =>
    decisive.every((field) => other[field] === (config as Record<string, unknown>)[field]);

  return {
    discover: define({
      summary: "Find the Lie algebra, then the other components of the group",
      config: { ...fields, ...algebra, ...cosets },
      prepare,
      run: (ctx, config) => discover(ctx, "discover", config, { algebra: true, cosets: true }),
    }),
    discover_algebra: define({
      summary: "Find the Lie algebra of the symmetries",
      config: { ...fields, ...algebra },
      prepare,
      run: (ctx, config) =>
        discover(ctx, "discover_algebra", config, { algebra: true, cosets: false }),
    }),
    discover_cosets: define({
      summary: "Find the components, given the Lie algebra (default: of the newest fitting run)",
      config: { ...fields, ...cosets, ...identity, evidence: algebra.evidence },
      async prepare(config, preparation) {
        const found = await lookUpIdentityOrNewest(preparation, config.identity, n, alike(config));
        return prepare({ ...config, identity: found }, preparation);
      },
      run: (ctx, config) =>
        discover(ctx, "discover_cosets", config, { algebra: false, cosets: true }),
    }),
  };
}

/** Make the parts that the tasks of a problem share. */
function stepsOf<D extends Shape, S extends Setting>(problem: Problem<D, S>) {
  const { manifold, data, decisive, reference, presets } = problem;
  const { architecture, ...predictor } = problem.predictor;
  // The former name "published" did not include how the reference code's maps lie.
  const { upside_down: _, ...params } = (reference.params ?? {}) as { upside_down?: boolean };
  const published = { kind: reference.kind, params } as Block<"architecture">;
  const formerKinds = { published, ...architecture.formerKinds };
  const fields = {
    ...data,
    ...predictorFields({
      manifold,
      architecture: { former: ["predictor"], formerKinds, ...architecture },
      ...predictor,
    }),
    ...reuseFields(),
  };
  const algebra = algebraFields({ manifold, ...problem.algebra });

  async function prepare<C extends PredictorConfig>(
    config: C,
    preparation: Preparation,
  ): Promise<C> {
    if ("solver" in config) checkAlgebra(config as unknown as AlgebraConfig, preparation.given);
    const looked = await lookUpPredictor(config, preparation, { decisive, reference });
    const more = await problem.prepare?.(looked as C & ConfigOf<D>, preparation);
    return { ...looked, ...more };
  }

  async function discover(
    ctx: Context,
    name: string,
    config: ConfigOf<D> & PredictorConfig & { identity?: unknown },
    parts: { algebra: boolean; cosets: boolean },
  ): Promise<Findings> {
    const setting = await problem.setting(ctx, config);
    const { predictor, about, fit } = await fitPredictor(ctx, config, setting);
    const inputs = { ...setting, predictor, fit };
    const findings: Findings = { task: name, predictor: about };
    if (parts.algebra)
      findings.algebra = await solveAlgebra(ctx, config as unknown as AlgebraConfig, inputs);
    if (parts.cosets) {
      const basis = findings.algebra
        ? nearSymmetries(findings.algebra)
        : givenBasis(config.identity as Parameters<typeof givenBasis>[0]);
      const searched = await solveCosets(ctx, config as unknown as CosetConfig, inputs, basis);
      Object.assign(findings, searched);
    }
    findings.predictor = trainedPredictor(ctx, findings.predictor);
    return problem.conclude?.(ctx, config, findings, predictor, setting) ?? findings;
  }

  const first = Object.keys(presets)[0]!;
  const define = <S extends Shape>(definition: TaskDefinition<S>) =>
    task({
      ...definition,
      presets: ownPresets(definition.config) as TaskDefinition<S>["presets"],
      defaultPreset: (given) =>
        alternates({ solver: "grassmann", ...given }) ? "published" : first,
    });

  /** Reduce the presets to a task's fields: a search for components alone has no solver. */
  function ownPresets(config: Shape): Readonly<Record<string, object>> {
    const own = (values: object) =>
      Object.entries(values).filter(([field]) => Object.hasOwn(config, field));
    return Object.fromEntries(
      Object.entries(presets).map(([name, values]) => [name, Object.fromEntries(own(values))]),
    );
  }

  return { fields, algebra, prepare, discover, define };
}
