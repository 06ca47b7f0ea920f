/** Known functions with known groups: a smoke test for a new machine. */
import { z } from "zod";
import {
  cosetFields,
  defineExperiment,
  discoverAlgebra,
  type Findings,
  namedAlgebra,
  nearSymmetries,
  refuseGiven,
  solveCosets,
  task,
  UsageError,
  whole,
} from "../src/index.js";

interface Probe {
  /** Expression in the coordinates. */
  expression: string;
  coordinates: string;
  /** Name of the identity component's algebra, if it is given and not searched for (METHOD 3.5). */
  identity?: string;
  expected: { algebra: string; cosets?: string[] };
  candidates?: number;
  max_components?: number;
}

const TURNS = ["identity", "rotation by 90°", "rotation by 270°", "−I"];
const MIRRORS = [0, 45, 90, 135].map((degrees) => `reflection across the line at ${degrees}°`);
const PROBES: Record<string, Probe> = {
  d4: {
    expression: "abs(x) + abs(y)",
    coordinates: "x,y",
    expected: { algebra: "none", cosets: [...TURNS, ...MIRRORS] },
    candidates: 256,
    max_components: 128,
  },
  two_coset: {
    expression: "atan((y + 0.1) / x)",
    coordinates: "x,y",
    identity: "R scaling",
    expected: { algebra: "R scaling", cosets: ["identity", "−I"] },
    max_components: 24,
  },
  lorentz: {
    expression: "t**2 - x**2 - y**2 - z**2",
    coordinates: "t,x,y,z",
    expected: { algebra: "so(1,3)", cosets: ["identity", "parity", "time reversal", "PT (−I)"] },
  },
  rotation: {
    expression: "sqrt(x**2 + y**2 + z**2)",
    coordinates: "x,y,z",
    expected: { algebra: "so(3)", cosets: ["identity", "reflection"] },
  },
  none: {
    expression: "exp(0.7*x) - 0.8*x*y + sin(2*y + 1)",
    coordinates: "x,y",
    expected: { algebra: "none", cosets: ["identity"] },
  },
};

const NAMES = `one of ${Object.keys(PROBES).join(", ")}`;
const SAMPLING = { batch_size: 64, charts: 1, evaluation: 256 };

const config = {
  name: z.string().default("lorentz").meta({ description: NAMES, positional: true }),
  expression: z.string().optional().describe("A function of your own, such as abs(x) + abs(y)"),
  coordinates: z.string().default("x,y").describe("Names of the coordinates"),
  samples: whole(8192, "Number of points at which the function is evaluated"),
  ...cosetFields({
    manifold: "vectors",
    epochs: 3,
    values: ({ name, expression }) => {
      const { candidates = 64, max_components = 24 } =
        (expression === undefined && PROBES[String(name)]) || {};
      return { multistart: { ...SAMPLING, candidates, max_components } };
    },
  }),
};

export default defineExperiment({
  name: "probe",
  summary: "Known functions with known groups: a smoke test for a new machine",
  examples: ["atlas probe d4 --fixed-seed", 'atlas probe --expression "x**2 + 3*y**2"'],
  tasks: {
    probe: task({
      summary: "Find the group of a function and compare it with the known one",
      config,

      async prepare(c, { given }) {
        if (c.expression === undefined) refuseGiven(given, ["coordinates"], "without --expression");
        else refuseGiven(given, ["name"], "with --expression");
        if (c.expression === undefined && !Object.hasOwn(PROBES, c.name))
          throw new UsageError(`there is no probe ${JSON.stringify(c.name)}`, `choose ${NAMES}`);
        return c;
      },

      async run(ctx, c) {
        const known = c.expression === undefined;
        const own: Probe = { ...c, expression: c.expression ?? "", expected: { algebra: "" } };
        const probe = known ? PROBES[c.name]! : own;
        const { expression, coordinates, expected, identity: given } = probe;
        const n = coordinates.split(",").length;
        const points = { samples: c.samples, n };
        const dataset = await ctx.dataset({ kind: "gaussian_points", params: points });
        const atlas = await ctx.atlas({ kind: "vectors", params: { n } });
        const architecture = { kind: "expression", params: { expression, coordinates } } as const;
        const fit = { architecture, training: { kind: "supervised" } as const, epochs: 0 };
        const predictor = await ctx.predictor({ ...fit, dataset, atlas });
        const inputs = { predictor, dataset, atlas };

        const about = { loss: null, epochs: 0, source: expression };
        const findings: Findings = { task: known ? c.name : "expression", predictor: about };
        let identity = given === undefined ? undefined : namedAlgebra(given, n);
        if (identity === undefined) {
          const params = { ...SAMPLING, start: "spectral", steps: 0 } as const;
          const solver = { kind: "grassmann", params } as const;
          findings.algebra = await discoverAlgebra(ctx, inputs, { solver, k: "auto", epochs: 1 });
          identity = nearSymmetries(findings.algebra);
        }
        Object.assign(findings, await solveCosets(ctx, c, inputs, identity));
        return known ? judge(findings, expected) : findings;
      },
    }),
  },
});

/** Compare the findings with the known group. */
function judge(findings: Findings, expected: Probe["expected"]): Findings {
  const name = findings.algebra?.identified.name ?? expected.algebra;
  const found = findings.cosets!.map((coset) => coset.name).sort();
  const wanted = expected.cosets?.toSorted();
  const asExpected = name === expected.algebra && (wanted ?? found).join() === found.join();
  const algebra = expected.algebra === "none" ? "no continuous symmetry" : expected.algebra;
  const answer = `${algebra}${wanted ? `, components ${wanted.join(", ")}` : ""}`;
  return {
    ...findings,
    asExpected,
    notes: [`${asExpected ? "as" : "NOT as"} expected: ${answer}`],
  };
}
