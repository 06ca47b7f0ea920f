/** The tasks that find the symmetries of the user's own data, or of a predictor of the user. */
import { labelOf } from "../algebra/factors.js";
import { UsageError } from "../errors.js";
import { chosen } from "../experiment/choice.js";
import type { Context } from "../experiment/context.js";
import {
  type ConfigOf,
  type Preparation,
  type Preview,
  refuseGiven,
  type Shape,
  type TaskDefinition,
  task,
} from "../experiment/define.js";
import type { RecordedConfig } from "../experiment/lookup.js";
import { formatBytes, formatSeconds } from "../format.js";
import { Factors, type Findings } from "../result.js";
import type { RemoteObject } from "../worker/index.js";
import { algebraFields, nearSymmetries } from "./algebra.js";
import { chartFields, readCharts, solveOnCharts } from "./charts.js";
import { cosetFields, identityField, solveCosets } from "./components.js";
import { fileField, type Setting, type SolverInputs } from "./data.js";
import {
  checkDistribution,
  discoverDistribution,
  isDistribution,
  refuseForDistributions,
} from "./distribution.js";
import { givenField, ownDataset, ownFiles } from "./files.js";
import {
  groupAlgebra,
  groupFields,
  identityAlgebra,
  lookUpGroup,
  lookUpOwnIdentity,
} from "./group.js";
import {
  areSets,
  autoFit,
  fitUsual,
  foreignFields,
  foreignPath,
  givenFit,
  ON_SETS,
  onSets,
  ownFitFields,
  typeFields,
} from "./own.js";
import { makePredictor, trainedPredictor } from "./predictor.js";
import { LIMITS } from "./rule.js";
import { checkTrajectories, trajectoryFields } from "./trajectories.js";

/** Fields of the data, the predictor and the charts, which all tasks have. */
const shared = {
  inputs: fileField("FILE[:ARRAY]: fields [N, channels, height, width], or sets [N, m, n]"),
  targets: fileField("FILE[:ARRAY] to predict from the inputs, if you have no predictor"),
  ...givenField(),
  ...foreignFields(),
  ...typeFields(),
  ...trajectoryFields(),
  ...groupFields(),
  ...chartFields(),
  ...ownFitFields(),
};
type Config = ConfigOf<typeof shared>;
const algebra = algebraFields({
  manifold: "planar",
  most: 4096,
  k: "auto",
  epochs: 3,
  trained: false,
});
const cosets = cosetFields({ manifold: "planar", epochs: 1 });
/** Config fields of the search for a symmetry of own data. */
export const ownSearchFields = { ...algebra, ...cosets };
const identity = {
  identity: identityField("Lie algebra: a RUN, a FILE, or a name like so(2)"),
};
type WithAlgebra = Config & ConfigOf<typeof algebra>;
type WithCosets = Config & ConfigOf<typeof cosets>;

/** Fields that have an effect on fields only. */
const FOR_FIELDS = [...Object.keys(chartFields()), "halo"];
/** Fields that must agree with those of a run whose algebra is used. */
const DECISIVE = "inputs targets predictor predict axes inputs_as targets_as dimensions".split(" ");

/** The tasks `discover`, `discover_algebra` and `discover_cosets` of the user's own data. */
export const ownTasks = {
  discover: own({
    summary: "Find the Lie algebra, then the other components of the group",
    config: { ...shared, ...algebra, ...cosets },
    async run(ctx, c) {
      if (isDistribution(c)) return discoverDistribution(ctx, c, "discover");
      const { inputs, findings, settled } = await discoverOwn(ctx, c, "discover");
      const basis = nearSymmetries(findings.algebra);
      return { ...findings, ...(await solveCosets(ctx, settled, inputs, basis)) };
    },
  }),
  discover_algebra: own({
    summary: "Find the Lie algebra",
    config: { ...shared, ...algebra },
    run: async (ctx, c) =>
      isDistribution(c)
        ? discoverDistribution(ctx, c, "discover_algebra")
        : (await discoverOwn(ctx, c, "discover_algebra")).findings,
  }),
  discover_cosets: own({
    summary: "Find the components, given the Lie algebra (default: of the newest fitting run)",
    config: { ...shared, ...cosets, ...identity, evidence: algebra.evidence },
    async run(ctx, c) {
      if (isDistribution(c)) return discoverDistribution(ctx, c, "discover_cosets");
      const { inputs, settled, source, about } = await fitOwn(ctx, c);
      const basis = identityAlgebra(c.identity, inputs.atlas);
      const found = await solveCosets(ctx, settled, inputs, basis);
      const predictor = trainedPredictor(ctx, { ...about, source }, about.stage);
      return { task: "discover_cosets", predictor, ...found };
    },
  }),
} as const;

/** Define a task on the user's own data. */
function own<S extends Shape & typeof shared>(
  definition: Pick<TaskDefinition<S>, "summary" | "config" | "run">,
): TaskDefinition<S> {
  return task({
    ...definition,
    prepare: (config, preparation) => prepare(config as ConfigOf<S> & Config, preparation),
    preview: (ctx, config) => preview(ctx, config as unknown as WithAlgebra),
    code: (config) => {
      const { predictor } = config as Config;
      return predictor && `--predictor ${predictor}`;
    },
  });
}

async function prepare<C extends Config>(c: C, preparation: Preparation): Promise<C> {
  const { inputs, targets, predictor, predict } = c;
  const ways = [targets, predictor, predict].filter((way) => way !== undefined);
  if (inputs === undefined || ways.length > 1)
    throw new UsageError(
      "discover needs samples, and targets or a predictor, or neither but not both",
      "give --inputs FILE, and --targets FILE, --predict next or --predictor FILE if you have one",
    );
  checkTrajectories(c);
  const { given, lookup } = preparation;
  if (isDistribution(c)) refuseForDistributions(given);
  else if (predictor !== undefined)
    refuseGiven(given, Object.keys(ownFitFields()), "with --predictor");
  else refuseGiven(given, Object.keys(foreignFields()), "with --targets");
  const { files, shape } = await ownFiles({ inputs, targets }, lookup.worker);
  if (isDistribution(c)) checkDistribution(c, shape);
  if (shape && areSets(shape, c.axes)) refuseGiven(given, FOR_FIELDS, "on sets of vectors");
  const charts = await readCharts(c.charts);
  if (charts === "auto" && predictor === undefined)
    refuseGiven(given, ["r_in", "r_out", "margin"], "with --charts auto");
  const found = predictor === undefined ? undefined : foreignPath(predictor, preparation);
  const group = await lookUpGroup(lookup, c.group);
  const layout = [...FOR_FIELDS, ...Object.keys(ON_SETS)];
  const given_fields = layout.filter((field) => given[field] !== undefined);
  const now = { ...c, ...files, predictor: found, charts, given_fields, group };
  if (!("coset_solver" in c) || "solver" in c) return now;
  const { identity } = c as C & { identity?: Parameters<typeof lookUpOwnIdentity>[1] };
  const alike = (other: RecordedConfig) =>
    DECISIVE.every((field) => other[field] === (now as Record<string, unknown>)[field]);
  return { ...now, identity: await lookUpOwnIdentity(preparation, identity, alike) };
}

/** Make the dataset and the charts of a config, and what its predictor is made of. */
async function placeOwn<C extends WithCosets | WithAlgebra>(ctx: Context, c: C, choose: boolean) {
  const dataset = await ownDataset(ctx, c);
  const given = Object.fromEntries(c.given_fields.map((field) => [field, true]));
  const [samples = 0] = dataset.shapes!.inputs;
  const { evidence } = c as Partial<WithAlgebra>;
  if (c.predictor === undefined && evidence !== "none" && samples < LIMITS.scenes)
    throw new UsageError(
      `${samples} samples are too few to fit a predictor and to judge it`,
      `give at least ${LIMITS.scenes}, and better thousands; or let errors judge: --evidence none`,
    );
  if (dataset.shapes!.inputs.length < 4) refuseGiven(given, FOR_FIELDS, "on sets of vectors");
  const loss = c.classifier || c.targets_as === "class" ? "cross_entropy" : "l1";
  const { charts, reach, ...fit } = await (choose ? autoFit : givenFit)(ctx, c, dataset, loss);
  const settled: C = charts.kind === "vectors" ? onSets(c, given) : c;
  const atlas = await ctx.atlas(charts);
  if (charts.kind === "vectors") await noteOrigin(ctx, c, { dataset, atlas });
  const group = groupAlgebra(ctx, c, atlas);
  return { setting: { dataset, atlas }, fit, charts, choose, reach, settled, group };
}

/** Samples by which {@link noteOrigin} judges. */
const SOME = 500;
/** Distance of the mean from the origin, in units of the spread, that is told. */
const FAR = 10;

/** Say so if all vectors lie far from the origin, about which linear maps turn them. */
async function noteOrigin(ctx: Context, c: Config, { dataset, atlas }: Setting) {
  const affine = Factors.parse(atlas.facts.groups ?? []).some((factor) => factor.affine);
  if (affine || !/^\d*V$/.test(c.inputs_as ?? "V")) return;
  const [samples = 0] = dataset.shapes!.inputs;
  const range = { start: 0, count: Math.min(samples, SOME) };
  const { shape, data } = (await ctx.session.readDataset(dataset, range)).inputs;
  const features = shape.at(-1) ?? 1;
  const columns = Array.from({ length: features }, (_, f) =>
    Array.from({ length: data.length / features }, (_, i) => Number(data[i * features + f])),
  );
  const means = columns.map((column) => column.reduce((a, b) => a + b, 0) / column.length);
  const spread = Math.hypot(
    ...columns.map((column, f) => Math.hypot(...column.map((x) => x - means[f]!))),
  );
  const away = (Math.hypot(...means) * Math.sqrt(data.length / features)) / spread;
  if (spread > 0 && away > FAR)
    ctx.note(
      `the vectors lie ${Math.round(away).toLocaleString("en")} times their spread from the ` +
        "origin, about which linear maps turn them; if the origin means nothing, --group affine " +
        "looks for motions about any point",
    );
}

/** Make the dataset, the charts and the predictor of a config. */
async function fitOwn<C extends WithCosets | WithAlgebra>(ctx: Context, c: C) {
  const choose = c.charts === "auto" && c.predictor === undefined;
  const { setting, fit, group, ...placed } = await placeOwn(ctx, c, choose);
  const options = { ...setting, ...fit };
  const chosen = Object.entries(c).some(
    ([field, value]) => /^(architecture|epochs)/.test(field) && value !== undefined,
  );
  const usual = c.predictor === undefined && !choose && !chosen;
  const made = usual
    ? await fitUsual(ctx, options)
    : await makePredictor(ctx, options, { source: false });
  const { predictor, about } = made;
  const inputs = { ...setting, predictor, groupAlgebra: group, fit: made.fit };
  return { ...placed, inputs, about, source: c.predictor ?? about.source };
}

/** Make the predictor, and find its algebra. */
async function discoverOwn<C extends WithAlgebra>(ctx: Context, c: C, name: string) {
  const { inputs: on, charts, settled, about, source, ...how } = await fitOwn(ctx, c);
  const found = await solveOnCharts(ctx, { ...settled, epochs: 0 }, on, charts, how);
  if (charts.kind === "planar")
    ctx.illustrate({ dataset: on.dataset, atlas: charts, map: found.chartMap });
  const { called } = on.predictor.facts;
  const notes = called === undefined ? undefined : [`the predictor is called ${called}`];
  const predictor = trainedPredictor(ctx, { ...about, source }, about.stage);
  const { inputs, ...measured } = found;
  const findings = { task: name, predictor, ...measured, notes } satisfies Findings;
  return { inputs, findings, settled };
}

/** Say what a run would do: types, splits, predictor, memory and time. */
async function preview(ctx: Context, c: WithAlgebra): Promise<Preview> {
  if (isDistribution(c)) {
    const { shapes } = await ownDataset(ctx, { ...c, outputs: 1 });
    return {
      inputs: `[${shapes!.inputs.join(", ")}], items of type ${c.inputs_as ?? "V"}`,
      targets: "none: the symmetries of the distribution are sought, from a score that is learnt",
      memory: `${formatBytes(bytesOf(shapes!.inputs))} of samples`,
    };
  }
  const auto = c.charts === "auto" && c.predictor === undefined;
  const middle = auto ? { ...c, charts: undefined } : c;
  const { setting, fit, charts, settled, group } = await placeOwn(ctx, middle, false);
  const { inputs, targets } = setting.dataset.shapes!;
  const predictor = await ctx.predictor({ ...setting, ...fit });
  const { parameters, training, validation, test } = predictor.facts as Record<string, number>;
  const types = (charts.params ?? {}) as { inputs_as?: string; targets_as?: string };
  const factors = Factors.parse(setting.atlas.facts.groups ?? []);
  const acting = factors.map((f) => `${f.affine ? "Aff" : "GL"}(${f.n}) on ${labelOf(f)}`);
  const search = group === undefined ? acting.join(", ") : `${group.length} given directions`;
  const sets = charts.kind === "vectors";
  const usual = sets ? "V" : "scalars";
  const network = `${fit.architecture.kind}, ${parameters?.toLocaleString("en") ?? 0} weights`;
  const batch = fit.training.params as { batch_size?: number } | undefined;
  const working = 10 * bytesOf([batch?.batch_size ?? 16, ...inputs.slice(1)]);
  return {
    inputs: `[${inputs.join(", ")}], type ${types.inputs_as || usual}`,
    targets: `[${targets.join(", ")}], type ${targetsText(c, types.targets_as)}`,
    split:
      training === undefined
        ? "none"
        : `${training} samples to fit, ${validation} to choose the epoch, ${test} to judge`,
    charts: sets ? "none: sets of vectors" : chartsText(charts.params, auto),
    predictor: c.predictor ?? `${network}, ${fit.epochs} epochs`,
    group:
      "solver" in c
        ? `${search}; ${c.k === "auto" ? "k is found" : `k ${c.k}`}`
        : "components alone",
    memory: `${formatBytes(bytesOf(inputs) + bytesOf(targets))} of data, ${formatBytes(working)} in a step`,
    time: await timeOf(ctx, settled, { ...setting, predictor, groupAlgebra: group }, fit.epochs),
  };
}

function targetsText({ predictor, targets_as }: Config, type: string | undefined): string {
  if (predictor !== undefined) return `${type ?? "invariant"}, of the predictor`;
  return targets_as === "class" ? "class" : type || "scalars, which nothing moves";
}

function chartsText(params: object | undefined, auto: boolean): string {
  const { charts = [], r_in } = (params ?? {}) as { charts?: readonly object[]; r_in?: number };
  if (auto) return "placed by the run, after short fits that measure how far the output depends";
  return `${charts.length}, ${2 * (r_in ?? 0) + 1} pixels wide`;
}

const bytesOf = (shape: readonly number[]) => 4 * shape.reduce((a, b) => a * b, 1);

/** Seconds after which a job is stopped that only tells how long it would take. */
const PROBED = 3;

/** Time the first steps of the fit and of the search, and say how long they would take. */
async function timeOf(
  ctx: Context,
  c: WithAlgebra,
  inputs: SolverInputs,
  epochs: number,
): Promise<string> {
  const fit = epochs === 0 ? 0 : await probe(ctx, inputs.predictor);
  if (!("solver" in c))
    return `fit at most ${formatSeconds(fit)}; the search for components comes on top`;
  const solver = chosen(c, "solver", "algebra_solver");
  const k = c.k === "auto" ? 1 : c.k;
  const algebra = await ctx.algebra({ ...inputs, solver, k, epochs: c.algebra_epochs });
  const search = await probe(ctx, algebra);
  const each = c.k === "auto" && inputs.atlas.kind !== "vectors" ? " for each k that is tried" : "";
  return (
    `fit at most ${formatSeconds(fit)}, search about ${formatSeconds(search)}${each}, ` +
    "as timed by their first steps; evidence and components come on top"
  );
}

/** Run the first steps of an object. @returns about how many seconds all of them would take */
async function probe(ctx: Context, object: RemoteObject): Promise<number> {
  const start = performance.now();
  const seconds = () => (performance.now() - start) / 1000;
  const enough = new AbortController();
  let share = 0;
  const stop = () => seconds() > PROBED && share > 0 && enough.abort();
  const timer = setInterval(stop, 100);
  try {
    await ctx.session.advance(object, {
      untilEpoch: 1,
      signal: AbortSignal.any([enough.signal, ctx.signal]),
      onStep: ({ step, stepsInEpoch }) => {
        share = step / Math.max(stepsInEpoch, 1);
      },
    });
    share = 1;
  } catch (error) {
    if (!enough.signal.aborted) throw error;
  } finally {
    clearInterval(timer);
  }
  return (seconds() / share) * object.totalEpochs;
}
