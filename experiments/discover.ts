/** Symmetries of your own data, or of a predictor of your own: a program, or a PyTorch module. */
import {
  algebraFields,
  areSets,
  autoFit,
  type ConfigOf,
  type Context,
  chartFields,
  checkDistribution,
  checkTrajectories,
  cosetFields,
  defineExperiment,
  discoverDistribution,
  fileField,
  foreignFields,
  foreignPath,
  givenField,
  givenFit,
  groupAlgebra,
  groupFields,
  isDistribution,
  lookUpGroup,
  makePredictor,
  nearSymmetries,
  ON_SETS,
  onSets,
  ownDataset,
  ownFiles,
  ownFitFields,
  type Preparation,
  readCharts,
  refuseForDistributions,
  refuseGiven,
  solveCosets,
  solveOnCharts,
  task,
  trainedPredictor,
  trajectoryFields,
  typeFields,
  UsageError,
} from "../src/index.js";

const config = {
  inputs: fileField("FILE[:ARRAY]: fields [N, channels, height, width], or sets [N, m, n]"),
  targets: fileField("FILE[:ARRAY] to predict from the inputs, if you have no predictor"),
  ...givenField(),
  ...foreignFields(),
  ...typeFields(),
  ...trajectoryFields(),
  ...groupFields(),
  ...chartFields(),
  ...ownFitFields(),
  ...algebraFields({ manifold: "planar", most: 4096, k: "auto", epochs: 3, trained: false }),
};
type Config = ConfigOf<typeof config>;
const FOR_FIELDS = [...Object.keys(chartFields()), "halo"];
const cosets = cosetFields({ manifold: "planar", epochs: 1 });

export default defineExperiment({
  name: "discover",
  summary: "Symmetries of your own data, or of a predictor of your own",
  examples: [
    "atlas discover --inputs inputs.npy --targets targets.npy",
    "atlas discover --inputs wind.npy --inputs-as V --targets flow.npy --targets-as V",
    "atlas discover --inputs orbits.npy --axes n,t,features --predict next --inputs-as 4V",
    "atlas discover --inputs points.npy",
    "atlas discover --predictor net.py:load --trust-code --inputs jets.npy --classifier",
  ],
  tasks: {
    discover: task({
      summary: "Find the Lie algebra, then the other components of the group",
      config: { ...config, ...cosets },
      prepare,
      code,
      async run(ctx, c) {
        if (isDistribution(c)) return discoverDistribution(ctx, c, "discover");
        const { inputs, findings, settled } = await discover(ctx, c, "discover");
        const basis = nearSymmetries(findings.algebra);
        return { ...findings, ...(await solveCosets(ctx, settled, inputs, basis)) };
      },
    }),
    discover_algebra: task({
      summary: "Find the Lie algebra",
      config,
      prepare,
      code,
      run: async (ctx, c) =>
        isDistribution(c)
          ? discoverDistribution(ctx, c, "discover_algebra")
          : (await discover(ctx, c, "discover_algebra")).findings,
    }),
  },
});

function code({ predictor }: Config): string | undefined {
  return predictor && `--predictor ${predictor}`;
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
  return { ...c, ...files, predictor: found, charts, given_fields, group };
}

async function discover<C extends Config>(ctx: Context, c: C, name: string) {
  const dataset = await ownDataset(ctx, c);
  const given = Object.fromEntries(c.given_fields.map((field) => [field, true]));
  if (dataset.shapes!.inputs.length < 4) refuseGiven(given, FOR_FIELDS, "on sets of vectors");
  const loss = c.classifier || c.targets_as === "class" ? "cross_entropy" : "l1";
  const fitted = c.predictor === undefined;
  const choose = c.charts === "auto" && fitted;
  const placed = await (choose ? autoFit : givenFit)(ctx, c, dataset, loss);
  const { charts, reach, ...fit } = placed;
  const settled = charts.kind === "vectors" ? onSets(c, given) : c;
  const atlas = await ctx.atlas(charts);
  const group = groupAlgebra(ctx, c, atlas);
  const setting = { dataset, atlas };
  const made = await makePredictor(ctx, { ...setting, ...fit }, { source: false });
  const { predictor, about } = made;
  const on = { ...setting, predictor, groupAlgebra: group, fit: made.fit };
  const found = await solveOnCharts(ctx, { ...settled, epochs: 0 }, on, charts, { choose, reach });
  if (charts.kind === "planar") ctx.illustrate({ dataset, atlas: charts, map: found.chartMap });
  const { called } = predictor.facts;
  const notes = called === undefined ? undefined : [`the predictor is called ${called}`];
  const source = c.predictor ?? about.source;
  const trained = trainedPredictor(ctx, { ...about, source });
  const { inputs, ...measured } = found;
  const findings = { task: name, predictor: trained, ...measured, notes };
  return { inputs, findings, settled };
}
