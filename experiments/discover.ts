/** Symmetries of your own data, or of a predictor of your own: a program, or a PyTorch module. */
import { resolve } from "node:path";
import { z } from "zod";
import {
  algebraFields,
  type ConfigOf,
  type Context,
  chartFields,
  cosetFields,
  defineExperiment,
  fileField,
  foreignFields,
  foreignPath,
  foreignPredictor,
  makePredictor,
  openArray,
  ownAtlas,
  type Preparation,
  parseCentres,
  refuseGiven,
  solveAlgebra,
  solveCosets,
  symmetries,
  task,
  trainedPredictor,
  typeFields,
  UsageError,
} from "../src/index.js";

const config = {
  inputs: fileField("A .npy file: fields [N, channels, height, width], or sets [N, m, n]"),
  targets: fileField("A .npy file to predict from the inputs, if you have no predictor"),
  ...foreignFields(),
  classifier: z.boolean().default(false).describe("The outputs are logits of classes"),
  ...typeFields(),
  ...chartFields(),
  architecture: z
    .enum(["strided_cnn", "encoder_decoder", "cgnet", "mlp", "quadratic"])
    .optional()
    .meta({
      description: "Network to train (default: strided_cnn for fields, mlp for sets)",
      placeholder: "kind",
    }),
  epochs: z.int().positive().optional().meta({
    description: "Passes over the data (default: 5 for fields, 30 for sets)",
    placeholder: "number",
  }),
  ...algebraFields({ manifold: "planar", most: 16, k: "auto", epochs: 3, trained: false }),
};
type Config = ConfigOf<typeof config>;
const cosets = cosetFields({ manifold: "planar", epochs: 1 });

export default defineExperiment({
  name: "discover",
  summary: "Symmetries of your own data, or of a predictor of your own",
  examples: [
    "atlas discover --inputs inputs.npy --targets targets.npy",
    "atlas discover --inputs wind.npy --inputs-as V --targets flow.npy --targets-as V --k 1",
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
      "give --inputs FILE.npy, and --targets FILE.npy or --predictor FILE",
    );
  if (targets === undefined)
    refuseGiven(preparation.given, ["architecture", "epochs"], "with --predictor");
  else refuseGiven(preparation.given, Object.keys(foreignFields()), "with --targets");
  parseCentres(c.charts);
  for (const file of [inputs, targets]) if (file !== undefined) await openArray(file);
  const found = predictor === undefined ? undefined : foreignPath(predictor, preparation);
  return { ...c, inputs: resolve(inputs), targets: targets && resolve(targets), predictor: found };
}

async function discover(ctx: Context, c: Config, name: string) {
  const open = (file: string) => openArray(file, { warn: (line) => ctx.warn(line) });
  const classes = c.targets_as === "class";
  const inputs = await open(c.inputs!);
  const targets = c.targets === undefined ? inputs : await open(c.targets);
  const dataset = await ctx.dataset(
    c.targets === undefined
      ? { kind: "arrays", params: { outputs: c.outputs, axes: c.axes }, tensors: { inputs } }
      : { kind: "arrays", params: { axes: c.axes, classes }, tensors: { inputs, targets } },
  );
  const charts = ownAtlas(dataset.shapes!.inputs, c);
  const atlas = await ctx.atlas(charts);
  if (charts.kind === "planar") ctx.illustrate({ dataset, atlas: charts });
  const loss = c.classifier || classes ? "cross_entropy" : "l1";
  const fields = charts.kind === "planar";
  const { predictor, about } = await makePredictor(
    ctx,
    c.targets === undefined
      ? {
          ...(await foreignPredictor(c)),
          training: { kind: "supervised", params: { loss } },
          ...{ dataset, atlas, epochs: 0 },
        }
      : {
          architecture: { kind: c.architecture ?? (fields ? "strided_cnn" : "mlp") },
          training: {
            kind: "supervised",
            params: { loss, schedule: "cosine", ...(fields ? FIELDS : SETS) },
          },
          ...{ dataset, atlas, epochs: c.epochs ?? (fields ? 5 : 30) },
        },
    { source: false },
  );
  const solved = { predictor, dataset, atlas };
  const algebra = await solveAlgebra(ctx, { ...c, epochs: 0 }, solved);
  const { called } = predictor.facts;
  const notes = called === undefined ? undefined : [`the predictor is called ${called}`];
  const source = c.predictor ?? about.source;
  const trained = trainedPredictor(ctx, { ...about, source });
  return { inputs: solved, findings: { task: name, predictor: trained, algebra, notes } };
}

const FIELDS = { learning_rate: 0.01 } as const;
const SETS = { learning_rate: 3e-3, batch_size: 64 } as const;
