/** The options of every run. */
import { z } from "zod";

/** The options of every experiment's command. Other commands have some of them. */
export const Common = z.object({
  seed: z
    .int()
    .min(0)
    .max(2 ** 32 - 1)
    .optional()
    .describe("Seed of all randomness (default: random, and recorded)"),
  repeat: z
    .int()
    .positive()
    .optional()
    .describe("Run N seeds, from S to S+N-1 (--seed gives S), as a small sweep"),
  fixed_seed: z.boolean().default(false).describe("Use seed 0, unless --seed is given"),
  worker: z
    .string()
    .default(process.env.ATLAS_WORKER || "local")
    .meta({
      description: "Worker: local, docker, docker:IMAGE, grpc://HOST:PORT or grpcs://HOST:PORT",
      placeholder: "where",
    }),
  pool: z.string().optional().meta({
    description: "Where several runs compute, for example local:2 (default: one worker)",
    placeholder: "pool",
  }),
  ca: z.string().optional().meta({
    description: "Authority of the worker's certificate (default: ATLAS_CA, else the system's)",
    placeholder: "file",
  }),
  cert: z.string().optional().meta({
    description: "Client certificate, for a worker that requires one (default: ATLAS_CERT)",
    placeholder: "file",
  }),
  key: z.string().optional().meta({
    description: "Private key of the client certificate (default: ATLAS_KEY)",
    placeholder: "file",
  }),
  token_file: z.string().optional().meta({
    description: "File with the worker's token (default: the token in ATLAS_TOKEN)",
    placeholder: "file",
  }),
  device: z.string().default("auto").meta({
    description: "Device: auto (a GPU if there is one), cpu, cuda, cuda:1",
    placeholder: "name",
  }),
  threads: z.int().positive().optional().describe("CPU threads of the worker"),
  ranks: z
    .int()
    .min(1)
    .max(1024)
    .optional()
    .describe("Processes, or GPUs, that share each training (default: 1)"),
  trust_code: z
    .boolean()
    .default(false)
    .describe("Allow code that the run names: a predictor's program, an experiment, an image"),
  detach_on_interrupt: z
    .boolean()
    .default(false)
    .describe("Let Ctrl-C twice leave the job running on its worker (then: atlas attach)"),
  runs: z.string().default("runs").meta({ description: "Folder of the runs", placeholder: "dir" }),
  tags: z.string().optional().meta({
    description: "Words to find the run by, with commas between: paper,final",
    placeholder: "words",
  }),
  dashboard: z
    .boolean()
    .default(false)
    .describe("Show the run on a live page (as atlas dashboard)"),
  mlflow: z.string().optional().meta({
    description: "MLflow server that is told of the run, such as http://127.0.0.1:5000",
    placeholder: "address",
  }),
  json: z.boolean().default(false).describe("Print only the result, as JSON, on stdout"),
  log_level: z
    .enum(["debug", "info", "warning"])
    .optional()
    .describe("Messages on stderr: debug (with a local worker's log), info (default), or warning"),
  quiet: z
    .boolean()
    .default(false)
    .describe("Print only warnings and the result (as --log-level warning)"),
  debug: z
    .boolean()
    .default(false)
    .describe("Print the worker's log and the origin of errors (as --log-level debug)"),
});
