/** What may be said of every run, whatever the experiment. */
import { z } from "zod";

/** The options that every experiment's command has; some of them others have too. */
export const Common = z.object({
  seed: z
    .int()
    .min(0)
    .max(2 ** 32 - 1)
    .optional()
    .describe("Seed of all randomness; random, and recorded, when left out"),
  fixed_seed: z.boolean().default(false).describe("Use a fixed seed: that of --seed, or 0"),
  worker: z
    .string()
    .default(process.env.ATLAS_WORKER || "local")
    .meta({
      description:
        "Where to compute: local, docker, docker:IMAGE, grpc://HOST:PORT, grpcs://HOST:PORT, or, left out, what ATLAS_WORKER says",
      placeholder: "where",
    }),
  ca: z.string().optional().meta({
    description: "Authorities that sign the worker's certificate (default: ATLAS_CA, or the system's)",
    placeholder: "file",
  }),
  cert: z.string().optional().meta({
    description: "Our certificate, for a worker that asks for one (default: ATLAS_CERT)",
    placeholder: "file",
  }),
  key: z.string().optional().meta({
    description: "Its private key (default: ATLAS_KEY)",
    placeholder: "file",
  }),
  token_file: z.string().optional().meta({
    description: "The worker's token (default: the text in ATLAS_TOKEN)",
    placeholder: "file",
  }),
  device: z
    .string()
    .default("auto")
    .meta({ description: "auto (a GPU if there is one), cpu, cuda, cuda:1", placeholder: "name" }),
  threads: z.int().positive().optional().describe("CPU threads of the worker"),
  detach_on_interrupt: z
    .boolean()
    .default(false)
    .describe("Ctrl-C twice leaves the run going on a worker that outlives it, for atlas attach"),
  runs: z.string().default("runs").meta({ description: "Folder of the run folders", placeholder: "dir" }),
  json: z.boolean().default(false).describe("Print the result document, and nothing else, on stdout"),
  log_level: z
    .enum(["debug", "info", "warning"])
    .optional()
    .describe(
      "The least that is told on stderr: debug (the log of a local worker too), info (default), or warning",
    ),
  quiet: z
    .boolean()
    .default(false)
    .describe("No progress, only warnings and the result: as --log-level warning"),
  debug: z
    .boolean()
    .default(false)
    .describe("Show the worker's log, as --log-level debug does, and where an error came from"),
});
