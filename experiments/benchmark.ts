/** Peers' problems with known groups: finds them, and grades the answers. */
import { z } from "zod";
import {
  BENCHMARKS,
  type BenchmarkRow,
  defineExperiment,
  refuseGiven,
  task,
  whole,
} from "../src/index.js";

const names = Object.keys(BENCHMARKS) as (keyof typeof BENCHMARKS)[];

const config = {
  name: z
    .enum(names as [keyof typeof BENCHMARKS])
    .default("oracle")
    .meta({ description: `One of ${names.join(", ")}`, positional: true }),
  all: z.boolean().default(false).describe("All benchmarks, in one table"),
  seeds: whole(1, "Number of seeds, counted from that of the run"),
  k: z.int().min(2).max(24).default(7).describe("Order of the group of ck"),
};

export default defineExperiment({
  name: "benchmark",
  summary: "Peers' problems with known groups: finds them, and grades the answers",
  examples: ["atlas benchmark ck --k 12 --seeds 5", "atlas benchmark --all --fixed-seed"],
  tasks: {
    benchmark: task({
      summary: "Find the groups of known functions and of their twins, and grade the answers",
      config,
      async prepare(c, { given }) {
        if (c.all) refuseGiven(given, ["name"], "with --all");
        return c;
      },
      async run(ctx, c) {
        const benchmark: BenchmarkRow[] = [];
        for (const name of c.all ? names : [c.name])
          for (let seed = 0; seed < c.seeds; seed++)
            for (const [i, grade] of BENCHMARKS[name](c.k).entries())
              benchmark.push(await grade(ctx.within(`${name}-${seed}-${i}`)));
        const right = benchmark.filter((row) => row.right).length;
        return {
          task: c.all ? "all" : c.name,
          predictor: { loss: null, epochs: 0, source: "known functions" },
          benchmark,
          notes: [`${right} of ${benchmark.length} answers are right`],
          asExpected: right === benchmark.length,
        };
      },
    }),
  },
});
