/** Networks with a symmetry that was found, compared with the exact, none and a wrong one. */
import {
  areSets,
  armGroups,
  type ConfigOf,
  checkTrajectories,
  compareArms,
  comparisonFields,
  defineExperiment,
  fileField,
  lookUpSymmetry,
  ownAtlas,
  ownDataset,
  ownFiles,
  refuseGiven,
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
  inputs: fileField("FILE[:ARRAY]: sets [N, items, features], or vectors [N, features]"),
  targets: fileField("FILE[:ARRAY] to predict from the inputs"),
  ...typeFields(),
  ...trajectoryFields(),
  ...comparisonFields(),
};
type Config = ConfigOf<typeof config>;
const SETS = "atlas train takes sets of vectors, and these are fields";

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
        if (shape && !areSets(shape, c.axes)) throw new UsageError(SETS, "give sets of vectors");
        return { ...c, ...files, symmetry };
      },
      async run(ctx, c: Config) {
        const dataset = await ownDataset(ctx, { ...c, outputs: 1 });
        const { inputs, targets } = dataset.shapes!;
        if (inputs.length > 3) throw new UsageError(SETS, "give sets of vectors");
        const targets_as = targetsType(c, inputs, targets);
        const types = { ...c, targets_as, r_in: 1, r_out: 1, margin: 0 };
        const charts = ownAtlas(inputs, types, targets);
        const atlas = await ctx.atlas(charts);
        const classes = targets_as === "class";
        const moved = { ...c, targets_as: classes ? undefined : targets_as };
        const groups = armGroups(ctx, c.symmetry!, atlas, moved);
        const loss = classes ? "cross_entropy" : "l1";
        const setting = { dataset, atlas, charts, loss } as const;
        const comparison = await compareArms(ctx, c, setting, groups);
        const predictor = { loss: null, epochs: 0, source: "trained" };
        return { task: "compare", predictor, comparison };
      },
    }),
  },
});
