/** Symmetries of your own data, or of a predictor of your own: a program, or a PyTorch module. */
import {
  algebraFields,
  areSets,
  autoFit,
  type ConfigOf,
  type Context,
  chartFields,
  cosetFields,
  defineExperiment,
  fileField,
  foreignFields,
  foreignPath,
  givenField,
  givenFit,
  makePredictor,
  ownDataset,
  ownFiles,
  ownFitFields,
  type Preparation,
  readCharts,
  refuseGiven,
  solveCosets,
  solveOnCharts,
  symmetries,
  task,
  trainedPredictor,
  typeFields,
  UsageError,
} from "../src/index.js";

const config = {
  inputs: fileField("FILE[:ARRAY]: fields [N, channels, height, width], or sets [N, m, n]"),
  targets: fileField("FILE[:ARRAY] to predict from the inputs, if you have no predictor"),
  ...givenField(),
  ...foreignFields(),
  ...typeFields(),
  ...chartFields(),
  ...ownFitFields(),
  ...algebraFields({ manifold: "planar", most: 16, k: "auto", epochs: 3, trained: false }),
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
    "atlas discover --predictor net.py:load --trust-code --inputs jets.npy --classifier",
  ],
  tasks: {
    discover: task({
      summary: "Find the Lie algebra, then the other components of the group",
      config: { ...config, ...cosets },
      prepare,
      code,
      async run(ctx, c) {
        const { inputs, findings } = await discover(ctx, c, "discover");
        const basis = symmetries(findings.algebra);
        return { ...findings, ...(await solveCosets(ctx, c, inputs, basis)) };
      },
    }),
    discover_algebra: task({
      summary: "Find the Lie algebra",
      config,
      prepare,
      code,
      run: async (ctx, c) => (await discover(ctx, c, "discover_algebra")).findings,
    }),
  },
});

function code({ predictor }: Config): string | undefined {
  return predictor && `--predictor ${predictor}`;
}

async function prepare<C extends Config>(c: C, preparation: Preparation): Promise<C> {
  const { inputs, targets, predictor } = c;
  if (inputs === undefined || (targets === undefined) === (predictor === undefined))
    throw new UsageError(
      "discover needs samples, and either targets or a predictor",
      "give --inputs FILE, and --targets FILE or --predictor FILE",
    );
  const { given, lookup } = preparation;
  if (targets === undefined) refuseGiven(given, Object.keys(ownFitFields()), "with --predictor");
  else refuseGiven(given, Object.keys(foreignFields()), "with --targets");
  const { files, shape } = await ownFiles({ inputs, targets }, lookup.worker);
  if (shape && areSets(shape, c.axes)) refuseGiven(given, FOR_FIELDS, "on sets of vectors");
  const charts = await readCharts(c.charts);
  if (charts === "auto" && targets !== undefined)
    refuseGiven(given, ["r_in", "r_out", "margin"], "with --charts auto");
  const found = predictor === undefined ? undefined : foreignPath(predictor, preparation);
  const given_fields = [...FOR_FIELDS, "k"].filter((field) => given[field] !== undefined);
  return { ...c, ...files, predictor: found, charts, given_fields };
}

async function discover(ctx: Context, c: Config, name: string) {
  const dataset = await ownDataset(ctx, c);
  const loss = c.classifier || c.targets_as === "class" ? "cross_entropy" : "l1";
  const choose = c.charts === "auto" && c.targets !== undefined;
  const placed = await (choose ? autoFit(ctx, c, dataset, loss) : givenFit(c, dataset, loss));
  const { charts, reach, ...fit } = placed;
  const given = Object.fromEntries(c.given_fields.map((field) => [field, true]));
  if (charts.kind === "vectors") refuseGiven(given, FOR_FIELDS, "on sets of vectors");
  const atlas = await ctx.atlas(charts);
  const setting = { dataset, atlas };
  const { predictor, about } = await makePredictor(ctx, { ...setting, ...fit }, { source: false });
  // On fields the solver does not find the number of generators reliably (METHOD 2.7).
  const one = charts.kind === "planar" && c.targets !== undefined && !given.k;
  const search = { ...c, k: one ? 1 : c.k, epochs: 0 };
  const found = await solveOnCharts(ctx, search, { predictor, ...setting }, charts, {
    choose,
    reach,
  });
  if (charts.kind === "planar") ctx.illustrate({ dataset, atlas: charts, map: found.chartMap });
  const { called } = predictor.facts;
  const notes = called === undefined ? undefined : [`the predictor is called ${called}`];
  const source = c.predictor ?? about.source;
  const trained = trainedPredictor(ctx, { ...about, source });
  const { inputs: solved, ...findings } = found;
  return { inputs: solved, findings: { task: name, predictor: trained, ...findings, notes } };
}
