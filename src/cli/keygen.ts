/** `atlas worker keygen`: the files with which a worker can listen beyond its own machine. */
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { isIP } from "node:net";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { z } from "zod";
import { FileError, UsageError } from "../errors.js";
import { flagsOf } from "../experiment/flags.js";
import { explainFileSystem, writeFileAtomic } from "../run/atomic.js";
import type { Keys } from "../worker/keys.js";
import { addCommonOptions, givenValues } from "./options.js";

const Keygen = z.object({
  host: z.string().meta({
    description: "Names and addresses under which the worker is reached from elsewhere, with commas between",
    placeholder: "names",
  }),
  out: z.string().default("atlas-keys").meta({ description: "Folder to write them to", placeholder: "dir" }),
  days: z.int().min(1).max(3650).default(825).describe("For how long the certificates are valid"),
  force: z.boolean().default(false).describe("Replace files that are there already"),
});
const KEYGEN = flagsOf(Keygen);

/** File name by what it holds; all but the certificates are for their owner's eyes only. */
const FILES: Record<keyof Keys, string> = {
  ca: "ca.pem",
  caKey: "ca-key.pem",
  server: "server.pem",
  serverKey: "server-key.pem",
  client: "client.pem",
  clientKey: "client-key.pem",
  token: "token",
};
const PUBLIC: readonly (keyof Keys)[] = ["ca", "server", "client"];

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
      const { makeKeys } = await import("../worker/keys.js");
      await writeKeys(folder, await makeKeys({ hosts, days }), force);
      process.stdout.write(`${instructions(out, hosts[0]!).join("\n")}\n`);
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

/** @throws FileError when one of the files is there already, unless `force`; none is then written */
async function writeKeys(folder: string, keys: Keys, force: boolean): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 }).catch((error) => {
    throw explainFileSystem(error, "create", folder);
  });
  const present = Object.values(FILES)
    .map((name) => join(folder, name))
    .find((path) => existsSync(path));
  if (present !== undefined && !force)
    throw new FileError(
      `${present} is there already`,
      "choose another folder with --out, or replace it with --force",
    );
  for (const [what, name] of Object.entries(FILES) as [keyof Keys, string][])
    await writeFileAtomic(join(folder, name), keys[what], undefined, PUBLIC.includes(what) ? 0o644 : 0o600);
}

function instructions(out: string, host: string): string[] {
  const at = (what: keyof Keys) => join(out, FILES[what]);
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
