/**
 * `npm run bench`: what things cost on this machine. Further programs are `npm run bench -- gpu`,
 * `solvers`, `pools [POOL …]` and `peers --checkout DIR`; see gpu.ts, pools.ts and peers.ts.
 *
 * Not part of the tests, and never fails because something is slow. What is compared is timed in
 * turns, so that the ratios hold on a machine that does other things too, though the seconds do
 * not.
 */
import { availableParallelism, cpus, loadavg } from "node:os";
import {
  measureParts,
  n,
  type Part,
  part,
  printTable,
  type Row,
  readArguments,
  refuse,
} from "../benchmark-parts.js";
import { gpuParts } from "./gpu.js";
import { type Loads, measureLoad } from "./load.js";
import { measureOverhead, type Overhead } from "./overhead.js";
import { peerParts } from "./peers.js";
import { poolParts } from "./pools.js";
import { runPython } from "./python.js";
import { measureSweep, type SweepCost } from "./sweep.js";
import { measureTransport, type Transport } from "./transport.js";

type Numbers = Record<string, number>;

/** A part that numerics.py measures in a process of its own. */
function numerics<T>(name: string, rows: (found: T) => Row[]): Part {
  return part(() => runPython<T>("numerics.py", [name]), rows);
}

/** What the tensor plane is measured beside. */
const BESIDE: Record<string, string> = {
  ...{
    grpc: "gRPC",
    grpcTls: "gRPC with TLS",
    grpcChunks: "gRPC in 1 MiB chunks",
    tcp: "plain TCP",
  },
};

const SMALL_JOBS = "small jobs (create, start, watch, delete)";
const count = (clients: number) => `${clients} client${clients === 1 ? "" : "s"}`;
const gib = (bytes: number) => `${n(bytes / 2 ** 30)} GiB`;

interface Solvers {
  fit_seconds: number;
  fit_samples: number;
  fit_epochs: number;
  degrees: number;
  seconds_to_limit: number | null;
  reached: string;
  solve_seconds: number;
  final_degrees: number[];
  coset_seconds: number;
  components_found: number[];
}

interface Spheres {
  samples_per_second: number;
  seconds: number;
  nets: { name: string; samples_per_second: number; parameters: number }[];
}

const PARTS: Record<string, Part> = {
  data: numerics("data", (d: Numbers): Row[] => [
    [
      "heat_equation, 10,000 samples of 128×128",
      `${n(d.samples_per_second!)} samples/s`,
      `${n(d.seconds!)} s, peak memory ${gib(d.peak_bytes!)}, ${gib(d.result_bytes!)} of it data`,
    ],
  ]),
  predictors: numerics("predictors", (d: Record<"reference_cnn" | "strided_cnn", Numbers>): Row[] =>
    (["reference_cnn", "strided_cnn"] as const).map((kind) => [
      `training the ${kind} predictor, 19 charts`,
      `${n(d[kind].samples_per_second!)} samples/s`,
      `${n(d[kind].parameters!)} parameters; each sample on every chart`,
    ]),
  ),
  schedule: numerics("schedule", (d: Numbers): Row[] => [
    [
      "published schedule, predictor and basis pass",
      `${n(d.samples_per_second!)} samples/s`,
      [
        `a plain loop over charts, in turns: ${n(d.plain_loop_samples_per_second!)} samples/s`,
        ` (${n(d.plain_loop_ratio!)}×); 10 epochs of 10,000: ${n(d.extrapolated_seconds!)} s,`,
        ` extrapolated; published code ${n(d.published_seconds!)} s on another machine:`,
        ` ${n(d.ratio!)}×`,
      ].join(""),
    ],
  ]),
  solvers: numerics("solvers", (d: Solvers): Row[] => [
    [
      `grassmann solver to ${d.degrees}°`,
      d.seconds_to_limit === null ? "not reached" : `${n(d.seconds_to_limit)} s`,
      [
        `${d.reached} seeds; all of it ${n(d.solve_seconds)} s,`,
        ` to ${d.final_degrees.map((x) => `${n(x)}°`).join(", ")};`,
        ` predictor fitted in ${n(d.fit_seconds)} s`,
      ].join(""),
    ],
    [
      "coset search",
      `${n(d.coset_seconds)} s`,
      `16 candidates, ranked; components found: ${d.components_found.join(", ")}`,
    ],
  ]),
  components: numerics("components", (d: Numbers): Row[] => [
    [
      "component test of one matrix",
      `${n(d.ours_ms!)} ms`,
      [
        `10,000 Adam steps: ${n(d.published_ms!)} ms, ${n(d.ratio!)}× as long;`,
        ` same verdict on ${d.agree} of ${d.matrices}`,
      ].join(""),
    ],
  ]),
  spheres: numerics("spheres", (d: Spheres): Row[] => [
    ["10,000 spheres of digits", `${n(d.samples_per_second)} samples/s`, `${n(d.seconds)} s`],
    ...d.nets.map(
      ({ name, samples_per_second, parameters }): Row => [
        `training the ${name}, 3 charts`,
        `${n(samples_per_second)} samples/s`,
        `${n(parameters)} parameters; 1,000 in ${n(1000 / samples_per_second)} s`,
      ],
    ),
  ]),
  climate: numerics("climate", (d: Numbers): Row[] =>
    ["plain", "compressed"].map((kind) => [
      `reading ClimateNet's files, ${kind}, into the cache`,
      `${n(d[`${kind}_first`]!)} files/s`,
      [
        `${n(d.files!)} of 16 variables; out of the cache: ${n(d[`${kind}_second`]!)} files/s,`,
        ` ${n(d[`${kind}_second`]! * d.gigabytes_a_file!)} GB/s`,
      ].join(""),
    ]),
  ),
  load: part(
    () => measureLoad(),
    ({ loads, memory }: Loads): Row[] => [
      ...loads.map(
        ({ what, guard, clients, perSecond, p50, p99 }): Row => [
          `${what === "job" ? SMALL_JOBS : "Describe"}, ${count(clients)}, ${guard}`,
          `${n(perSecond)} a second`,
          `p50 ${n(p50)} ms, p99 ${n(p99)} ms`,
        ],
      ),
      ...memory.map(
        ({ guard, jobs, early, late }): Row => [
          `worker's memory after ${n(jobs)} jobs, ${guard}`,
          `${n(late)} MiB`,
          `after half of them ${n(early)} MiB`,
        ],
      ),
    ],
  ),
  transport: part(
    () => measureTransport(),
    (found: Transport[]): Row[] =>
      found.map(({ mebibytes, clients, gigabytesPerSecond: { zeromq, curve, ...beside } }) => [
        `tensor of ${mebibytes} MiB there and back, ZeroMQ, ${count(clients)}`,
        `${n(zeromq!)} GB/s`,
        [
          `with CURVE ${n(curve!)} GB/s`,
          ...Object.entries(beside).map(([way, rate]) => `${BESIDE[way]} ${n(rate)} GB/s`),
        ].join(", "),
      ]),
  ),
  sweep: part(
    () => measureSweep(1000, 64, 1.5),
    (d: SweepCost): Row[] => [
      [
        `sweep of ${n(d.runs)} runs on ${d.slots} simulated slots, CPU of the orchestrator`,
        `${n(d.cpuPerRun)} ms a run`,
        [
          `${n(d.cores)} of a core, ${n(d.memory / 2 ** 20)} MiB;`,
          ` ${n(d.overheadPerRun)} ms a run beyond the time of the runs`,
        ].join(""),
      ],
    ],
  ),
  overhead: part(
    // Long enough to count, short enough to be done in turns.
    () => measureOverhead({ task: "discover", N: 300, epochs: 1, algebra_epochs: 2 }),
    (d: Overhead): Row[] => [
      [
        "orchestrator's overhead on a run of pde",
        `${n(d.addedSeconds)} s (${n(100 * d.addedShare, 2)} %)`,
        [
          `of ${d.typescript.map((s) => n(s)).join(", ")} s,`,
          ` against ${d.python.map((s) => n(s)).join(", ")} s by Python;`,
          ` allowed ${n(d.allowedSeconds)} s;`,
          d.sameResult ? " same result to the bit" : " DIFFERENT results",
        ].join(""),
      ],
    ],
  ),
};

const USAGE = `
Usage: npm run bench -- [PROGRAM] [options]

What things cost on this machine; never fails because something is slow

Programs (none: all parts that --only can name):
  gpu                    What a GPU does, beside the processor
  solvers                The optimisers of the search for a Lie algebra
  pools [POOL …]         A sweep on pools, such as local:1 local:2 (default: one and two workers)
  peers --checkout DIR…  Published code of others beside ours

Options:
  --only PART,PART       Measure some parts; a name that is none lists them
  --json                 Print all that was measured
  --checkout DIR         peers: a clone of published code; give one --checkout for each
  --python FILE          peers: the Python that runs them
  --jets DIR             peers: jets to search in
  --samples N, --epochs N, --threads N, --turns N   peers: how much of each`;

const { values, positionals } = readArguments(USAGE, {
  allowPositionals: true,
  options: {
    ...{ json: { type: "boolean", default: false }, only: { type: "string" } },
    ...{ checkout: { type: "string", multiple: true }, python: { type: "string" } },
    ...{ jets: { type: "string" }, samples: { type: "string" }, epochs: { type: "string" } },
    ...{ threads: { type: "string" }, turns: { type: "string" } },
  },
});

const KINDS = ["adam", "gauss_newton", "auto"] as const;
type Each<T> = Record<(typeof KINDS)[number], T>;

interface Optimisers {
  seconds: Each<number>;
  degrees: Each<number[]>;
  report_seconds: number;
  ratio: Each<number>;
}

const OPTIMISERS = numerics("optimisers", (d: Optimisers): Row[] =>
  KINDS.map((kind) => [
    `search for a generator of plates, ${kind}, processor time`,
    `${n(d.seconds[kind])} s`,
    [
      kind === "adam" ? "" : `${n(d.ratio[kind])} of Adam's; `,
      `angles ${d.degrees[kind].map((x) => n(x)).join(", ")}°;`,
      ` its report ${n(d.report_seconds)} s more`,
    ].join(""),
  ]),
);

/** Further programs, each with parts of its own. */
const PROGRAMS: Record<string, (args: readonly string[]) => Record<string, Part>> = {
  gpu: gpuParts,
  pools: poolParts,
  solvers: () => ({ optimisers: OPTIMISERS }),
  peers: () => {
    const { checkout = [], python, jets } = values;
    const [samples, epochs, threads, turns] = (["samples", "epochs", "threads", "turns"] as const)
      .map((name) => (values[name] === undefined ? undefined : Number(values[name]))); // biome-ignore format: short
    return peerParts({ checkouts: checkout, python, jets, samples, epochs, threads, turns });
  },
};

const [program, ...args] = positionals;
if (program !== undefined && !Object.hasOwn(PROGRAMS, program))
  refuse(`there is no benchmark ${program}; choose ${Object.keys(PROGRAMS).join(", ")}, or none`);
const parts = program === undefined ? PARTS : PROGRAMS[program]!(args);
if (Object.keys(parts).length === 0)
  refuse("nothing to compare with; give clones of published code: --checkout DIR");
const before = loadavg()[0]!;
const { found, rows } = await measureParts("bench", parts, values.only);
const machine = {
  processor: cpus()[0]?.model ?? "unknown",
  cores: availableParallelism(),
  loadBefore: before,
  node: process.version,
};
if (values.json) process.stdout.write(`${JSON.stringify({ machine, ...found }, null, 2)}\n`);
else {
  printTable(rows);
  process.stdout.write(
    `\n${machine.cores} cores of ${machine.processor}, Node ${machine.node}, ` +
      `load ${n(before)} before\n`,
  );
}
process.exit();
