/** Symmetries of a predictor of your own: a program, or a PyTorch module. */
import { resolve } from "node:path";
import { z } from "zod";
import {
  algebraFields,
  type ConfigOf,
  type Context,
  cosetFields,
  count,
  defineExperiment,
  fileField,
  openArray,
  type Preparation,
  readBytes,
  solveAlgebra,
  solveCosets,
  symmetries,
  Tensor,
  task,
  UsageError,
  whole,
} from "../src/index.js";

const FACTORY = /^(.+\.py):([A-Za-z_]\w*)$/; // path.py:factory
const CENTRE = /^(\d+),(\d+)$/;

const TAKES = "Input of the predictor: single charts [batch, …], or all charts [batch, charts, …]";
const config = {
  inputs: fileField(
    "A .npy file: fields [N, channels, height, width], or sets of vectors [N, m, n]",
  ),
  predictor: fileField(
    "A program (torch.jit.save, torch.export.save), or path.py:factory for a module",
  ),
  takes: z.enum(["chart", "charts"]).default("chart").describe(TAKES),
  outputs: whole(1, "Channels of the predictor's output; for vectors, the number of outputs"),
  output_key: z.string().optional().meta({
    description: "Which output to use, if the predictor returns several",
    placeholder: "name|index",
  }),
  classifier: z.boolean().default(false).describe("The outputs are logits of classes"),
  charts: z.string().optional().meta({
    description:
      "Centres of the charts in pixels, separated by spaces (default: the middle of the field)",
    placeholder: '"row,col …"',
  }),
  r_in: whole(14, "Radius of a chart in pixels; a chart is 2 r_in + 1 pixels wide"),
  r_out: whole(10, "Inner radius in pixels, where moved fields are compared"),
  margin: count(0, "Pixels beyond the chart that moved fields may use"),
  halo: count(0, "Pixels beyond r_in that the predictor reads on each side").meta({
    former: ["reach"],
  }),
  ...algebraFields({ manifold: "planar", most: 16, k: "auto", epochs: 3, trained: false }),
};
type Config = ConfigOf<typeof config>;
const cosets = cosetFields({ manifold: "planar", epochs: 1 });

export default defineExperiment({
  name: "discover",
  summary: "Symmetries of a predictor of your own",
  examples: ["atlas discover --predictor net.py:load --trust-code --inputs jets.npy --classifier"],
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

async function prepare<C extends Config>(c: C, { lookup }: Preparation): Promise<C> {
  if (c.inputs === undefined || c.predictor === undefined)
    throw new UsageError(
      "discover needs a predictor and samples",
      "give --predictor FILE and --inputs FILE.npy",
    );
  centres(c.charts);
  await openArray(c.inputs);
  const [, path, factory] = FACTORY.exec(c.predictor) ?? [];
  const predictor =
    path === undefined ? resolve(c.predictor) : `${lookup.workerPath(path)}:${factory}`;
  return { ...c, inputs: resolve(c.inputs), predictor };
}

async function discover(ctx: Context, c: Config, name: string) {
  const samples = await openArray(c.inputs!, { warn: (line) => ctx.warn(line) });
  const { shape } = samples;
  const arrays = { params: { outputs: c.outputs }, tensors: { inputs: samples } };
  const dataset = await ctx.dataset({ kind: "arrays", ...arrays });
  const middle = [{ row: Math.floor(shape[2]! / 2), col: Math.floor((shape[3] ?? 0) / 2) }];
  const { r_in, r_out, margin } = c;
  const params = { charts: centres(c.charts) ?? middle, r_in, r_out, margin };
  const vectors = shape.length === 3;
  const atlas = await ctx.atlas(
    vectors ? { kind: "vectors", params: { n: shape[2]! } } : { kind: "planar", params },
  );
  if (!vectors) ctx.illustrate({ dataset, atlas: { kind: "planar", params } });
  const loss = c.classifier ? "cross_entropy" : "l1";
  const training = { kind: "supervised", params: { loss } } as const;
  const given = await architecture(c);
  const predictor = await ctx.predictor({ ...given, training, dataset, atlas, epochs: 0 });
  const inputs = { predictor, dataset, atlas };
  const algebra = await solveAlgebra(ctx, { ...c, epochs: 0 }, inputs);
  const about = { loss: null, epochs: 0, source: c.predictor! };
  const { called } = predictor.facts;
  const notes = called === undefined ? undefined : [`the predictor is called ${called}`];
  return { inputs, findings: { task: name, predictor: about, algebra, notes } };
}

/** Parse the centres of the charts. @throws UsageError */
function centres(text: string | undefined) {
  return text
    ?.trim()
    .split(/\s+/)
    .map((centre) => {
      const [, row, col] = CENTRE.exec(centre) ?? [];
      if (row === undefined)
        throw new UsageError(
          `--charts ${centre}: expected row,col in pixels`,
          'give for example --charts "32,32 64,40"',
        );
      return { row: Number(row), col: Number(col) };
    });
}

/** Make the predictor's block. A program is sent to the worker; a module's file must be there. */
async function architecture({ predictor = "", takes, halo, output_key }: Config) {
  const [, path, factory] = FACTORY.exec(predictor) ?? [];
  const how = { takes, halo, output_key };
  if (path !== undefined)
    return { architecture: { kind: "module", params: { file: path, factory, ...how } } as const };
  const bytes = await readBytes(predictor);
  const program = new Tensor("uint8", [bytes.length], new Uint8Array(bytes));
  return {
    architecture: { kind: "program", params: how } as const,
    tensors: { program },
  };
}
