/** `atlas worker keygen`: make the files that a worker needs to listen beyond its own machine. */
import { isIP } from "node:net";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { z } from "zod";
import { UsageError } from "../errors.js";
import { flagsOf } from "../experiment/flags.js";
import type { Keys } from "../worker/keys.js";
import { addCommonOptions, givenValues } from "./options.js";
import { namingFlag } from "./remedy.js";

const Keygen = z.object({
  host: z.string().meta({
    description: "Host names and addresses of the worker's machine, separated by commas",
    placeholder: "names",
  }),
  out: z
    .string()
    .default("atlas-keys")
    .meta({ description: "Folder for the files; it may hold nothing else", placeholder: "dir" }),
  days: z.int().min(1).max(3650).default(825).describe("Days that the certificates are valid"),
  force: z.boolean().default(false).describe("Replace all files in the folder"),
});
const KEYGEN = flagsOf(Keygen);

/** Add the command to `worker`. */
export function register(worker: Command): void {
  const keygen = worker
    .command("keygen")
    .description("Make certificates, keys and a token for a worker on another machine");
  for (const { field, option } of KEYGEN)
    keygen.addOption(option.makeOptionMandatory(field === "host"));
  addCommonOptions(keygen, ["debug"])
    .addHelpText(
      "after",
      `
Examples:
  atlas worker keygen --host gpu-box,192.168.1.7
  atlas worker keygen --host gpu.example.org --out keys --days 90`,
    )
    .action(async () => {
      const { host, out, days, force } = Keygen.parse(givenValues(keygen, KEYGEN));
      const hosts = parseHosts(host);
      const folder = resolve(out);
      const { KEY_FILES, makeKeys, writeKeys } = await import("../worker/keys.js");
      const keys = await makeKeys({ hosts, days });
      await namingFlag("--out DIR", () => writeKeys(folder, keys, { force }));
      process.stdout.write(`${instructions(out, hosts[0]!, KEY_FILES).join("\n")}\n`);
    });
}

/** @throws UsageError if a part is neither a host name nor an IP address */
function parseHosts(text: string): string[] {
  const hosts = text.split(",").map((host) => host.trim().replace(/^\[(.*)\]$/, "$1"));
  const wrong = hosts.find(
    (host) =>
      isIP(host) === 0 &&
      (/^[\d.]+$/.test(host) || !/^(\*\.)?[a-z\d]([\w-]*(\.[a-z\d][\w-]*)*)\.?$/i.test(host)),
  );
  if (wrong === undefined) return hosts;
  throw new UsageError(
    `--host ${text}: ${JSON.stringify(wrong)} is neither a host name nor an address`,
    "give names and addresses, for example gpu-box,192.168.1.7",
  );
}

function instructions(out: string, host: string, files: Record<keyof Keys, string>): string[] {
  const at = (what: keyof Keys) => join(out, files[what]);
  const there = [
    "atlas worker start --host 0.0.0.0 --port 50051",
    "--tls-cert server.pem --tls-key server-key.pem --tls-client-ca ca.pem --token-file token",
  ];
  const name = host.includes(":") ? `[${host}]` : host.replace("*", "NAME");
  const here = [
    `atlas worker info --worker grpcs://${name}:50051 --ca ${at("ca")}`,
    `--cert ${at("client")} --key ${at("clientKey")} --token-file ${at("token")}`,
  ];
  return [
    "for the worker's machine  " +
      `${(["server", "serverKey", "ca", "token"] as const).map(at).join(" ")}`,
    "for each client           " +
      `${(["ca", "client", "clientKey", "token"] as const).map(at).join(" ")}`,
    `keep in a safe place      ${at("caKey")} (signs further certificates; neither machine ` +
      "needs it)",
    `on the worker's machine   ${there.join(" ")}`,
    `on a client               ${here.join(" ")}`,
  ];
}
