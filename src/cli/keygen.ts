/** `atlas worker keygen`: the files with which a worker can listen beyond its own machine. */
import { isIP } from "node:net";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { z } from "zod";
import { UsageError } from "../errors.js";
import { flagsOf } from "../experiment/flags.js";
import type { Keys } from "../worker/keys.js";
import { addCommonOptions, givenValues } from "./options.js";

const Keygen = z.object({
  host: z.string().meta({
    description: "Names and addresses under which the worker is reached from elsewhere, with commas between",
    placeholder: "names",
  }),
  out: z
    .string()
    .default("atlas-keys")
    .meta({ description: "Folder for them, which has nothing else in it", placeholder: "dir" }),
  days: z.int().min(1).max(3650).default(825).describe("For how long the certificates are valid"),
  force: z.boolean().default(false).describe("Replace those that are there already, all or none"),
});
const KEYGEN = flagsOf(Keygen);

export function register(worker: Command): void {
  const keygen = worker
    .command("keygen")
    .description(
      "Make the certificates, keys and token with which a worker and its clients trust each other",
    );
  for (const { field, option } of KEYGEN) keygen.addOption(option.makeOptionMandatory(field === "host"));
  addCommonOptions(keygen, ["debug"])
    .addHelpText(
      "after",
      "\nExamples:\n  atlas worker keygen --host gpu-box,192.168.1.7\n  atlas worker keygen --host gpu.example.org --out keys --days 90",
    )
    .action(async () => {
      const { host, out, days, force } = Keygen.parse(givenValues(keygen, KEYGEN));
      const hosts = parseHosts(host);
      const folder = resolve(out);
      const { KEY_FILES, makeKeys, writeKeys } = await import("../worker/keys.js");
      await writeKeys(folder, await makeKeys({ hosts, days }), { force });
      process.stdout.write(`${instructions(out, hosts[0]!, KEY_FILES).join("\n")}\n`);
    });
}

/** @throws UsageError for what is neither a host name nor an IP address */
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
    "give names like gpu-box,192.168.1.7",
  );
}

function instructions(out: string, host: string, files: Record<keyof Keys, string>): string[] {
  const at = (what: keyof Keys) => join(out, files[what]);
  return [
    `for the worker's machine  ${(["server", "serverKey", "ca", "token"] as const).map(at).join(" ")}`,
    `for each client           ${(["ca", "client", "clientKey", "token"] as const).map(at).join(" ")}`,
    `to be kept elsewhere      ${at("caKey")}, which signs further certificates and is needed by neither`,
    "there                     atlas worker start --host 0.0.0.0 --port 50051 --tls-cert server.pem --tls-key server-key.pem " +
      "--tls-client-ca ca.pem --token-file token",
    `here                      atlas worker info --worker grpcs://${host.includes(":") ? `[${host}]` : host.replace("*", "NAME")}:50051 ` +
      `--ca ${at("ca")} --cert ${at("client")} --key ${at("clientKey")} --token-file ${at("token")}`,
  ];
}
