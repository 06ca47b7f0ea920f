/** Known functions with known groups: a smoke test of the whole machinery, in about a minute each. */
import { z } from "zod";
import {
  defineExperiment,
  discoverAlgebra,
  discoverCosets,
  type Findings,
  namedAlgebra,
  onlyFor,
  symmetries,
  UsageError,
  whole,
} from "../src/index.js";

interface Probe {
  /** Of the coordinates. */
  expression: string;
  coordinates: string[];
  /** The identity component, where it is given and not looked for (METHOD 3.5). */
  identity?: string;
  expected: { algebra: string; cosets?: string[] };
  candidates?: number;
  keep?: number;
  /** Relative error up to which a candidate counts as a symmetry. Functions are exact, so by default what errs more is on its way to one. */
  threshold?: number;
}

const SPACETIME = ["t", "x", "y", "z"];
const PLANE = ["x", "y"];
const PROBES: Record<string, Probe> = {
  d4: {
    expression: "abs(x) + abs(y)",
    coordinates: PLANE,
    expected: {
      algebra: "none",
      cosets: [
        ...["identity", "rotation by 90°", "rotation by 270°", "−I"],
        ...[0, 45, 90, 135].map((degrees) => `reflection across the line at ${degrees}°`),
      ],
    },
    candidates: 256,
    keep: 128,
  },
  two_coset: {
    expression: "atan((y + 0.1) / x)",
    coordinates: PLANE,
    identity: "R scaling",
    expected: { algebra: "R scaling", cosets: ["identity", "−I"] },
    keep: 24,
    threshold: 0.25, // for the 0.1, −I is none exactly: its own error is about 0.2, as the points happen to lie
  },
  lorentz: {
    expression: "t**2 - x**2 - y**2 - z**2",
    coordinates: SPACETIME,
    expected: { algebra: "so(1,3)", cosets: ["identity", "parity", "time reversal", "PT (−I)"] },
  },
  rotation: {
    expression: "sqrt(x**2 + y**2 + z**2)",
    coordinates: ["x", "y", "z"],
    expected: { algebra: "so(3)", cosets: ["identity", "reflection"] },
  },
  none: {
    expression: "exp(0.7*x) - 0.8*x*y + sin(2*y + 1)",
    coordinates: PLANE,
    expected: { algebra: "none", cosets: ["identity"] },
  },
};

const config = z.object({
  ...onlyFor(
    { expression: [false] },
    {
      name: z
        .string()
        .default("lorentz")
        .meta({
          description: `One of ${Object.keys(PROBES).join(", ")}`,
          positional: true,
        }),
    },
  ),
  expression: z.string().optional().describe("A function of your own instead, say abs(x) + abs(y)"),
  ...onlyFor(
    { expression: [true] },
    { coordinates: z.string().default("x,y").describe("The names of its coordinates") },
  ),
  samples: whole(8192, "Points at which it is looked at"),
  candidates: whole(64, "Random matrices the coset search starts from"),
  keep: whole(24, "Most components to report"),
  coset_epochs: whole(3, "Epochs of the coset search, 100 steps each"),
});

export default defineExperiment({
  name: "probe",
  summary: "Known functions with known groups: a smoke test",
  config,
  presets: ({ name = "lorentz" }) => {
    const { candidates, keep } = PROBES[name] ?? {};
    return { probe: { ...(candidates && { candidates }), ...(keep && { keep }) } };
  },
  examples: [
    "atlas probe d4 --fixed-seed",
    "atlas probe lorentz --json",
    'atlas probe --expression "x**2 + 3*y**2"',
  ],

  async prepare(c) {
    if (c.expression === undefined && !(c.name in PROBES))
      throw new UsageError(
        `there is no probe ${JSON.stringify(c.name)}`,
        `choose one of ${Object.keys(PROBES).join(", ")}, or give --expression`,
      );
    return c;
  },

  async run(ctx, c) {
    const probe: Probe =
      c.expression === undefined
        ? PROBES[c.name]!
        : { expression: c.expression, coordinates: c.coordinates.split(","), expected: { algebra: "" } };
    const { expression, coordinates, expected } = probe;
    const n = coordinates.length;
    const dataset = await ctx.dataset({ kind: "points", params: { samples: c.samples, n } });
    const atlas = await ctx.atlas({ n });
    const architecture = { kind: "expression", params: { expression, coordinates: coordinates.join(",") } };
    const training = { kind: "supervised", params: {} };
    const predictor = await ctx.predictor({ architecture, training, dataset, atlas, epochs: 0 });
    const task = { predictor, dataset, atlas };

    const findings: Findings = {
      task: c.expression === undefined ? c.name : "expression",
      predictor: { loss: null, epochs: 0, source: expression },
    };
    const sampling = { batch_size: 64, charts: 1, evaluation: 256 };
    let identity = probe.identity === undefined ? undefined : namedAlgebra(probe.identity, n);
    if (identity === undefined) {
      const params = { ...sampling, start: "spectral", steps: 0 };
      const solver = { kind: "grassmann", params };
      findings.algebra = await discoverAlgebra(ctx, task, { solver, k: 0, epochs: 1 });
      identity = symmetries(findings.algebra);
    }
    const params = {
      ...sampling,
      candidates: c.candidates,
      keep: c.keep,
      threshold: probe.threshold ?? 0.05,
    };
    Object.assign(findings, await discoverCosets(ctx, task, { params, identity, epochs: c.coset_epochs }));
    if (c.expression !== undefined) return findings;

    const name = findings.algebra?.identified.name ?? expected.algebra;
    const cosets = findings.cosets!.map((coset) => coset.name).sort();
    findings.asExpected =
      name === expected.algebra &&
      (expected.cosets === undefined || expected.cosets.sort().join() === cosets.join());
    const algebra = expected.algebra === "none" ? "no continuous symmetry" : expected.algebra;
    const answer = `${algebra}${expected.cosets ? ` with ${expected.cosets.join(", ")}` : ""}`;
    findings.notes = [findings.asExpected ? `as expected: ${answer}` : `NOT as expected, which is ${answer}`];
    return findings;
  },
});
