/** How far a trained predictor is from a symmetry, layer by layer. */
import { z } from "zod";
import {
  AuditedSymmetry,
  areSets,
  auditedPair,
  auditLayers,
  type ConfigOf,
  type Context,
  chartFields,
  checkPair,
  defineExperiment,
  discoveredSymmetry,
  type Findings,
  fileField,
  foreignFields,
  foreignPath,
  givenField,
  isFactory,
  lookUpAudited,
  nearSymmetries,
  ON_SETS,
  onSets,
  ownAtlas,
  ownDataset,
  ownFiles,
  ownSearchFields,
  type Preparation,
  readCharts,
  refuseGiven,
  solveCosets,
  solveOnCharts,
  symmetryOn,
  task,
  trainedPredictor,
  typeFields,
  UsageError,
  whole,
} from "../src/index.js";

const { predictor: file, ...called } = foreignFields();
const config = {
  predictor: file.meta({ ...file.meta(), positional: true }),
  inputs: fileField("FILE[:ARRAY]: fields [N, channels, height, width], or sets [N, m, n]"),
  symmetry: z.union([z.string(), AuditedSymmetry]).optional().meta({
    description: "NAME, RUN or FILE, such as o(3) (default: discover it first)",
    placeholder: "from",
  }),
  weights: fileField("Weights for the module of path.py:factory"),
  before: fileField("The predictor, or its weights, before the training"),
  samples: whole(256, "Samples to compare").meta({ rare: true }),
  ...givenField(),
  ...called,
  takes: called.takes.meta({ ...called.takes.meta(), rare: true }),
  ...typeFields(),
  ...chartFields(),
  ...ownSearchFields,
};
type Config = ConfigOf<typeof config>;
const FOR_FIELDS = [...Object.keys(chartFields()), "halo"];

export default defineExperiment({
  name: "audit",
  summary: "How far a trained predictor is from a symmetry, layer by layer",
  examples: [
    'atlas audit net.py:load --trust-code --inputs jets.npy --symmetry "so(1,3)"',
    "atlas audit net.py:load --trust-code --inputs x.npy --weights new.pt --before old.pt",
    "atlas audit flow.pt --trust-code --inputs wind.npy --inputs-as V --targets-as V --outputs 2",
  ],
  tasks: {
    audit: task({
      summary: "Find the layer in which a predictor loses a symmetry",
      config,
      prepare,
      code: ({ predictor }) => predictor && `the predictor ${predictor}`,
      run: audit,
    }),
  },
});

async function prepare(c: Config, preparation: Preparation): Promise<Config> {
  const { given, lookup } = preparation;
  const { inputs, predictor, weights, before } = c;
  if (predictor === undefined || inputs === undefined)
    throw new UsageError(
      "audit needs a predictor and samples",
      "give atlas audit PREDICTOR --inputs FILE",
    );
  checkPair({ predictor, weights, before });
  const { files, shape } = await ownFiles({ inputs }, lookup.worker);
  if (shape && areSets(shape, c.axes)) refuseGiven(given, FOR_FIELDS, "on sets of vectors");
  if (c.charts === "auto")
    throw new UsageError("--charts auto: audit takes given charts", "leave it out");
  if (c.symmetry !== undefined) refuseGiven(given, Object.keys(ownSearchFields), "with --symmetry");
  const layout = [...FOR_FIELDS, ...Object.keys(ON_SETS)].filter(
    (field) => given[field] !== undefined,
  );
  return {
    ...c,
    inputs: files.inputs,
    predictor: foreignPath(predictor, preparation),
    weights: weights && lookup.workerPath(weights),
    before:
      before && (isFactory(before) ? foreignPath(before, preparation) : lookup.workerPath(before)),
    charts: await readCharts(c.charts),
    symmetry: c.symmetry && (await lookUpAudited(lookup, c.symmetry)),
    given_fields: layout,
  };
}

async function audit(ctx: Context, c: Config): Promise<Findings> {
  const dataset = await ownDataset(ctx, c);
  const { inputs: shape, targets } = dataset.shapes!;
  const given = Object.fromEntries(c.given_fields.map((field) => [field, true]));
  if (shape.length < 4) refuseGiven(given, FOR_FIELDS, "on sets of vectors");
  const charts = ownAtlas(shape, c, targets);
  const atlas = await ctx.atlas(charts);
  const symmetry = c.symmetry === undefined ? undefined : symmetryOn(ctx, c.symmetry, atlas);
  const loss = c.classifier || c.targets_as === "class" ? "cross_entropy" : "l1";
  const on = { dataset, atlas };
  const { predictor, before, about } = await auditedPair(ctx, c, on, loss);
  const findings: Findings = { task: "audit", predictor: trainedPredictor(ctx, about) };
  let asked = symmetry;
  if (asked === undefined) {
    const settled = charts.kind === "vectors" ? onSets(c, given) : c;
    const how = { ...settled, epochs: 0 };
    const from = { predictor, ...on };
    const { inputs, ...found } = await solveOnCharts(ctx, how, from, charts, { choose: false });
    Object.assign(findings, found);
    const generators = nearSymmetries(found.algebra);
    Object.assign(findings, await solveCosets(ctx, how, inputs, generators));
    asked = discoveredSymmetry(ctx, findings, generators);
    if (generators.length + asked.components.length === 0)
      throw new UsageError(
        `the predictor has no symmetry to audit: ${found.algebra.explanation}`,
        "name the symmetry that it should have with --symmetry",
      );
  }
  findings.audit = await auditLayers(ctx, predictor, asked, { samples: c.samples, before });
  if (charts.kind === "planar")
    for (const { sample } of findings.audit.worst.slice(0, 3))
      ctx.illustrate({ dataset, atlas: charts, sample });
  return findings;
}
