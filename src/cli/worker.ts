/**
 * `atlas worker start|info|keygen|stop`: a worker in the background, and what any worker can do.
 */
import { resolve } from "node:path";
import { type Command, Option } from "commander";
import { z } from "zod";
import { UsageError } from "../errors.js";
import { flagsOf } from "../experiment/flags.js";
import { Progress } from "../experiment/progress.js";
import { connectWorker, type WorkerInfo } from "../worker/index.js";
import { LOG_FORMATS, LOG_LEVELS, LOOPBACK } from "../worker/process.js";
import * as keygen from "./keygen.js";
import { addCommonOptions, commonOptions, givenValues } from "./options.js";
import { namingFlag } from "./remedy.js";

const port = z.int().min(1).max(65535).optional();
const file = z.string().optional();
const Start = z.object({
  host: z
    .string()
    .default(LOOPBACK)
    .meta({
      description:
        "Address to listen on; any but the loopback interface (0.0.0.0, [::]: all) needs TLS and " +
        "a token",
      placeholder: "address",
    }),
  port: port.describe("Port to listen on (default: a free one)"),
  tensor_port: port.describe("Port of the tensor plane (default: a free one)"),
  metrics_port: port.describe("Port of the live metrics (default: a free one)"),
  tls_cert: file.meta({
    description: "Certificate in PEM (make one with: atlas worker keygen)",
    placeholder: "file",
  }),
  tls_key: file.meta({ description: "Private key of the certificate", placeholder: "file" }),
  tls_client_ca: file.meta({
    description: "Authority of the clients' certificates (default: clients need none)",
    placeholder: "file",
  }),
  token_file: file.meta({
    description: "File with the token that clients must send (default: the token in ATLAS_TOKEN)",
    placeholder: "file",
  }),
  data_root: z.string().optional().meta({
    description:
      "Folder with all data files; relative paths start there (default: the current folder)",
    placeholder: "dir",
  }),
  lease: z
    .int()
    .min(1)
    .max(7 * 24 * 3600)
    .optional()
    .meta({
      description:
        "Time to keep the session of a client that is gone, after its last job (default: 600)",
      placeholder: "seconds",
    }),
  log_level: z
    .enum(LOG_LEVELS)
    .optional()
    .describe("Least level of logged messages (default: info)"),
  log_format: z
    .enum(LOG_FORMATS)
    .optional()
    .describe("Format of the log: text (default), or json with an object in each line"),
});
const START = flagsOf(Start);

/** Add the command to `program`. */
export function register(program: Command): void {
  const worker = program
    .command("worker")
    .helpCommand("help [command]", "Show help, as --help does")
    .description("Start, inspect and stop a worker in the background");

  const start = worker
    .command("start")
    .description("Start a worker in the background, which runs then use with --worker");
  for (const flag of START) start.addOption(flag.option);
  addCommonOptions(start, ["device", "threads", "quiet", "debug"])
    .addHelpText(
      "after",
      `
Examples:
  atlas worker start
  atlas worker start --port 50051 --threads 2`,
    )
    .action(async () => {
      const given = Start.parse(givenValues(start, START));
      const path = (name?: string) => (name === undefined ? undefined : resolve(name));
      const { device, threads, ...options } = commonOptions(start);
      const progress = new Progress(options);
      const { startDetachedWorker } = await import("../worker/detached.js");
      const settings = {
        host: given.host.replace(/^\[(.*)\]$/, "$1"),
        port: given.port,
        tensorPort: given.tensor_port,
        metricsPort: given.metrics_port,
        tlsCert: path(given.tls_cert),
        tlsKey: path(given.tls_key),
        tlsClientCa: path(given.tls_client_ca),
        tokenFile: path(given.token_file),
        dataRoot: resolve(given.data_root ?? "."),
        lease: given.lease,
        logLevel: given.log_level,
        logFormat: given.log_format,
        device,
        threads,
        onLog: (line: string) => progress.info(line),
      };
      const { address, pid, log } = await namingFlag("XDG_STATE_HOME=DIR", () =>
        startDetachedWorker(settings),
      );
      process.stdout.write(
        `${[`address  ${address}`, `process  ${pid}`, `log      ${log}`].join("\n")}\n`,
      );
      progress.info(`use it with: --worker ${address}; stop it with: atlas worker stop`);
    });

  const info = worker
    .command("info")
    .description("Show the versions, devices, limits and blocks of a worker")
    .addOption(
      new Option("--worker <where>", "grpc(s)://HOST:PORT (default: the worker in the background)"),
    )
    .addOption(new Option("--json", "Print only JSON on stdout"));
  addCommonOptions(info, ["ca", "cert", "key", "token_file", "debug"])
    .addHelpText(
      "after",
      `
Examples:
  atlas worker info
  atlas worker info --worker grpc://127.0.0.1:50051 --json`,
    )
    .action(async () => {
      const given: unknown = info.getOptionValue("worker");
      const address = typeof given === "string" ? given : await backgroundAddress();
      const { ca, cert, key, token_file: tokenFile } = commonOptions(info);
      const connected = await connectWorker({ worker: address, ca, cert, key, tokenFile });
      try {
        if (info.getOptionValue("json") === true)
          process.stdout.write(
            `${JSON.stringify({ address: connected.address, ...connected.info }, null, 2)}\n`,
          );
        else process.stdout.write(`${describe(connected.address, connected.info).join("\n")}\n`);
      } finally {
        await connected.close();
      }
    });

  keygen.register(worker);

  const stop = worker.command("stop").description("Stop the worker in the background");
  addCommonOptions(stop, ["debug"])
    .addHelpText("after", "\nA run on this worker is interrupted. It can be resumed.")
    .action(async () => {
      const { stopDetachedWorker } = await import("../worker/detached.js");
      const stopped = await stopDetachedWorker();
      process.stdout.write(
        stopped ? "the worker is stopped\n" : "no worker runs in the background\n",
      );
    });
}

async function backgroundAddress(): Promise<string> {
  const { detachedWorker } = await import("../worker/detached.js");
  const running = await detachedWorker();
  if (running) return running.address;
  throw new UsageError(
    "no worker runs in the background",
    "start one with: atlas worker start, or name another with --worker grpc://HOST:PORT",
  );
}

function describe(address: string, info: WorkerInfo): string[] {
  const { limits, dataPlane } = info;
  const lines = [
    `address    ${address}`,
    `version    ${info.workerVersion} (protocol ${info.protocolVersion})`,
    `process    ${info.pid}, ${info.threads} CPU thread${info.threads === 1 ? "" : "s"}`,
    `versions   ${Object.entries(info.versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(", ")}`,
    ...(info.machine
      ? [
          `machine    ${info.machine.processor}, ${info.machine.cores} cores`,
          `blas       ${info.machine.blas}`,
        ]
      : []),
    ...info.devices.map((d) => {
      const memory =
        d.memoryTotalBytes > 0
          ? `, ${gib(d.memoryFreeBytes)} of ${gib(d.memoryTotalBytes)} GiB free`
          : "";
      const load = `, ${d.sessions} session${d.sessions === 1 ? "" : "s"}, ${d.waiting} waiting`;
      return `device     ${d.name}${d.description === "" ? "" : `  ${d.description}`}${memory}${load}`;
    }),
  ];
  if (dataPlane) lines.push(`tensors    ${dataPlane.tensors}`, `metrics    ${dataPlane.metrics}`);
  if (limits) {
    const tensor = `tensors of ${gib(limits.maxTensorBytes)} GiB`;
    const kept = `${gib(limits.maxSessionTicketBytes)} GiB kept for a session`;
    lines.push(`limits     ${limits.maxSessions} sessions, ${tensor}, ${kept}`);
  }
  for (const type of new Set(info.blocks.map((block) => block.type))) {
    const kinds = info.blocks.filter((block) => block.type === type).map(({ kind }) => kind);
    lines.push(`blocks     ${type}: ${kinds.join(", ")}`);
  }
  return lines;
}

function gib(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(1);
}
