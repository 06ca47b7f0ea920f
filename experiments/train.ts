/** Networks with a symmetry that was found, compared with the exact, none and a wrong one. */
import {
  areSets,
  armGroups,
  type ConfigOf,
  chartFields,
  checkTrajectories,
  compareArms,
  comparisonFields,
  defineExperiment,
  fileField,
  lookUpSymmetry,
  ownAtlas,
  ownDataset,
  ownFiles,
  readCharts,
  refuseGiven,
  rotationArms,
  SET_BY_COMPARISON,
  symmetryField,
  targetsType,
  task,
  trajectoryFields,
  typeFields,
  UsageError,
} from "../src/index.js";

const config = {
  symmetry: symmetryField(),
  inputs: fileField("FILE[:ARRAY]: sets [N, items, features], or fields [N, channels, H, W]"),
  targets: fileField("FILE[:ARRAY] to predict from the inputs"),
  ...typeFields(),
  ...trajectoryFields(),
  ...chartFields(),
  ...comparisonFields(),
};
type Config = ConfigOf<typeof config>;
const SETS = "atlas train takes sets of vectors and fields of two dimensions";
const CHARTS = Object.keys(chartFields());

export default defineExperiment({
  name: "train",
  summary: "Networks with a symmetry that was found, against the exact, none and a wrong one",
  examples: [
    "atlas train --symmetry latest --inputs inputs.npy --targets targets.npy",
    'atlas train --symmetry "so(3)" --inputs r.npy --targets i.npy --inputs-as S+V --targets-as T',
  ],
  tasks: {
    compare: task({
      summary: "Train networks with and without a symmetry on the same samples, and compare them",
      config,
      async prepare(c, { given, lookup }) {
        refuseGiven(given, SET_BY_COMPARISON, "here: the comparison sets it");
        const { inputs, targets, predict } = c;
        if (inputs === undefined || (targets === undefined) === (predict === undefined))
          throw new UsageError(
            "atlas train needs samples, and what to predict",
            "give --inputs FILE, and --targets FILE or --predict next",
          );
        checkTrajectories(c);
        const symmetry = await lookUpSymmetry(lookup, c.symmetry);
        const { files, shape } = await ownFiles({ inputs, targets }, lookup.worker);
        if (shape && areSets(shape, c.axes)) refuseGiven(given, CHARTS, "on sets of vectors");
        const charts = await readCharts(c.charts);
        if (charts === "auto")
          throw new UsageError("--charts auto: only discover places charts", "give grid:4x4 or so");
        return { ...c, ...files, symmetry, charts };
      },
      async run(ctx, c: Config) {
        const dataset = await ownDataset(ctx, { ...c, outputs: 1 });
        const { inputs, targets } = dataset.shapes!;
        if (inputs.length > 4 || inputs[2] === 1) throw new UsageError(SETS, "give one of the two");
        const fields = inputs.length === 4;
        const targets_as = targetsType(c, inputs, targets);
        const charts = ownAtlas(inputs, { ...c, targets_as }, targets);
        if (fields) checkFields(c, targets_as);
        const atlas = await ctx.atlas(charts);
        const classes = targets_as === "class";
        const moved = { ...c, targets_as: classes ? undefined : targets_as };
        const groups = fields
          ? rotationArms(ctx, c.symmetry!, atlas)
          : armGroups(ctx, c.symmetry!, atlas, moved);
        const loss = classes ? "cross_entropy" : "l1";
        const setting = { dataset, atlas, charts, loss } as const;
        const comparison = await compareArms(ctx, c, setting, groups);
        const predictor = { loss: null, epochs: 0, source: "trained" };
        return { task: "compare", predictor, comparison };
      },
    }),
  },
});

/** Refuse what networks of fields cannot do. */
function checkFields({ inputs_as = "", augment }: Config, targets_as = ""): void {
  const type = [inputs_as, targets_as === "class" ? "" : targets_as].find((t) => /[VCTFX]/.test(t));
  if (type !== undefined)
    throw new UsageError(
      `the networks of fields take and give scalars, and ${type} has others`,
      "give fields of scalars",
    );
  if (augment)
    throw new UsageError("--augment moves sets of vectors, and these are fields", "leave it out");
}
