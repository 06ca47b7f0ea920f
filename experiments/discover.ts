/** Symmetries of a predictor that you have trained elsewhere: a TorchScript or torch.export program, or a PyTorch module of your own. */
import { resolve } from "node:path";
import { z } from "zod";
import {
  defineExperiment,
  discoverAlgebra,
  discoverCosets,
  type Findings,
  illustrate,
  onlyFor,
  readBytes,
  readNpy,
  symmetries,
  Tensor,
  UsageError,
  whole,
} from "../src/index.js";

/** `path.py:factory` */
const FACTORY = /^(.+\.py):([A-Za-z_]\w*)$/;
const CENTRE = /^(\d+),(\d+)$/;

const file = (description: string) => z.string().optional().meta({ description, placeholder: "file" });

const config = z.object({
  task: z.enum(["discover_algebra", "discover"]).default("discover").describe("What to find"),
  inputs: file(
    "Samples to try it on: a .npy file, [samples, channels, height, width], or [samples, m, n] of vectors",
  ),
  predictor: file(
    "A program (torch.jit.save, torch.export.save), or path.py:factory for a module that this function makes",
  ),
  trust_code: z.boolean().default(false).describe("Execute the predictor: all of these are code"),
  takes: z
    .enum(["chart", "charts"])
    .default("chart")
    .describe(
      "What it takes: a batch of one chart, or of all, [batch, charts, …] as atlas checkpoint export writes it",
    ),
  outputs: whole(1, "Channels that it gives (of vectors: numbers)"),
  classifier: z.boolean().default(false).describe("What it gives are logits of classes"),
  charts: z.string().optional().meta({
    description:
      "Centres of the charts in pixels, row,col and a space between them (default: one in the middle)",
    placeholder: '"row,col …"',
  }),
  r_in: whole(14, "Radius of the charts, in pixels: it takes and gives 2 r_in + 1 of them"),
  r_out: whole(10, "Radius on which transformed fields are compared, in pixels"),
  margin: z
    .int()
    .min(0)
    .default(0)
    .describe("True field beyond a chart, for what is moved into it, in pixels"),
  reach: z.int().min(0).default(0).describe("Pixels beyond r_in that it takes on each side"),
  k: z
    .int()
    .min(0)
    .max(16)
    .default(0)
    .describe("Number of generators to look for; 0 for as many as there are"),
  threshold: z
    .number()
    .min(0)
    .max(1)
    .default(0.15)
    .describe("Relative error up to which a generator counts as a symmetry"),
  algebra_epochs: whole(3, "Epochs of the search for generators"),
  ...onlyFor(
    { task: ["discover"] },
    {
      coset_epochs: whole(1, "Epochs of the coset search"),
      candidates: whole(16, "Random matrices the coset search starts from"),
      keep: whole(8, "Most components to report"),
    },
  ),
});
type Config = z.infer<typeof config>;

export default defineExperiment({
  name: "discover",
  summary: "Symmetries of a predictor of your own",
  config,
  examples: [
    "atlas discover --predictor model.ts.pt --trust-code --inputs x.npy --outputs 2 --charts '32,32 64,40'",
    "atlas discover --predictor net.py:load --trust-code --inputs jets.npy --outputs 2 --classifier",
  ],

  async prepare(c, runs) {
    if (c.inputs === undefined || c.predictor === undefined)
      throw new UsageError(
        "discover needs a predictor and samples",
        "give --predictor FILE and --inputs FILE.npy",
      );
    checkTrust(c);
    centres(c.charts);
    const [, path, factory] = FACTORY.exec(c.predictor) ?? [];
    return {
      ...c,
      inputs: resolve(c.inputs),
      predictor: path === undefined ? resolve(c.predictor) : `${runs.workerPath(path)}:${factory}`,
    };
  },

  async run(ctx, c) {
    checkTrust(c); // a run that goes on may have been made by others
    const inputs = readNpy(await readBytes(c.inputs!), c.inputs!);
    const vectors = inputs.shape.length === 3;
    const params = { outputs: c.outputs };
    const dataset = await ctx.dataset({ kind: "arrays", params, tensors: { inputs } });
    const [, , height = 0, width = 0] = inputs.shape;
    const middle = [{ row: Math.floor(height / 2), col: Math.floor(width / 2) }];
    const { r_in: rIn, r_out: rOut, margin } = c;
    const planar = { charts: centres(c.charts) ?? middle, rIn, rOut, margin };
    const atlas = await ctx.atlas(vectors ? { n: inputs.shape[2]! } : planar);
    if (!vectors) illustrate(ctx, { dataset, atlas: planar });

    const training = { kind: "supervised", params: { loss: c.classifier ? "cross_entropy" : "l1" } };
    const predictor = await ctx.predictor({
      ...(await architecture(c)),
      training,
      dataset,
      atlas,
      epochs: 0,
    });
    const task = { predictor, dataset, atlas };
    const findings: Findings = {
      task: c.task,
      predictor: { loss: null, epochs: 0, source: c.predictor! },
    };
    const solver = { kind: "grassmann", params: { threshold: c.threshold } };
    findings.algebra = await discoverAlgebra(ctx, task, { solver, k: c.k, epochs: c.algebra_epochs });
    if (c.task === "discover_algebra") return findings;
    const { candidates, keep } = c;
    const identity = symmetries(findings.algebra);
    const search = { params: { candidates, keep }, identity, epochs: c.coset_epochs };
    return Object.assign(findings, await discoverCosets(ctx, task, search));
  },
});

/** @throws UsageError when the predictor is not trusted */
function checkTrust({ trust_code, predictor }: Config): void {
  if (trust_code) return;
  throw new UsageError(
    `--predictor ${predictor} is code, which would be executed`,
    "if you trust who made it, give --trust-code",
  );
}

/** The centres of the charts. @throws UsageError */
function centres(text: string | undefined) {
  return text
    ?.trim()
    .split(/\s+/)
    .map((centre) => {
      const [, row, col] = CENTRE.exec(centre) ?? [];
      if (row === undefined)
        throw new UsageError(`--charts ${centre}: expected row,col in pixels`, 'say --charts "32,32 64,40"');
      return { row: Number(row), col: Number(col) };
    });
}

/** The predictor as a building block: a program is sent, a module's file must be where the worker is. */
async function architecture({ predictor = "", takes, reach }: Config) {
  const [, path, factory] = FACTORY.exec(predictor) ?? [];
  if (path !== undefined)
    return { architecture: { kind: "module", params: { file: path, factory, takes, reach } } };
  const bytes = await readBytes(predictor);
  const program = new Tensor("uint8", [bytes.length], new Uint8Array(bytes));
  return { architecture: { kind: "program", params: { takes, reach } }, tensors: { program } };
}
