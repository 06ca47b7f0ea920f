/**
 * What the command line adds to the remedies of errors: its flags, which the lower layers do not
 * know.
 */
import { blocksOf } from "../blocks.js";
import { AtlasError, FileError, RpcError, type SettingName } from "../errors.js";
import { paramFlag } from "../experiment/choice.js";
import type { Task } from "../experiment/define.js";
import { flagName } from "../experiment/names.js";

/**
 * Do some work, and add flags to the remedies of its errors: the flag of the work's folder if
 * another folder would help, and --force if files may be overwritten.
 *
 * @param folder "--runs DIR"; undefined if no flag names the folder
 */
export async function namingFlag<T>(
  folder: string | undefined,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw nameFlag(error, folder);
  }
}

/**
 * Add flags to the remedy of an error, as {@link namingFlag} does.
 *
 * @returns the same error
 */
export function nameFlag(error: unknown, folder: string | undefined): unknown {
  if (!(error instanceof AtlasError)) return error;
  const flags: string[] = [];
  if (error.elsewhere && folder !== undefined) flags.push(folder);
  if (error.overwritable) flags.push("--force");
  if (flags.length === 0) return error;
  // With both: "choose another folder, or overwrite it, with --out DIR or --force".
  error.remedy = `${error.remedy}${flags.length > 1 ? "," : ""} with ${flags.join(" or ")}`;
  error.elsewhere = false; // so that no caller adds the flags again
  error.overwritable = false;
  return error;
}

/** Fields of a config for parameters that have other names in the worker's datasets. */
const DATA_FIELDS: Readonly<Record<string, string>> = {
  path: "data",
  samples: "N",
  files: "N",
  items: "constituents",
  key: "table",
  source: "digits",
};

/**
 * Replace the field of the worker's request, which an error's message ends with, by the flag that
 * sets it. Without such a flag the field is left out, because it says nothing to users.
 *
 * @param task the task whose flags the user may have given; undefined if it is not known
 * @returns the same error
 */
export function nameField(error: unknown, task?: Task): unknown {
  if (!(error instanceof RpcError) || error.field === "") return error;
  const flag = task && flagFor(error.field, task);
  const where = flag === undefined ? "" : ` (--${flag})`;
  error.message = error.message.replace(` (${error.field})`, where);
  return error;
}

/** Find the flag of a task that sets a field of a request to the worker. */
function flagFor(field: string, { config, choices }: Task): string | undefined {
  const [, block, param] = /^(.+)\.params\.(\w+)/.exec(field) ?? [];
  const owner = choices.find(({ type }) => CHOSEN[block ?? ""]?.includes(type));
  if (owner && param !== undefined) return paramFlag(owner, param).replace(/^--/, "");
  const names =
    block === "dataset.source"
      ? [DATA_FIELDS[param!], param]
      : [param, OTHERS[field], field.split(".").at(-1)];
  return names
    .filter((name) => name !== undefined && Object.hasOwn(config, name))
    .map((name) => flagName(name!))[0];
}

/** Types of blocks by the field of a request that holds them. */
const CHOSEN: Readonly<Record<string, readonly string[]>> = {
  "predictor.architecture": ["architecture"],
  "predictor.training": ["training"],
  "algebra.solver": ["algebra_solver", "data_solver"],
  "cosets.solver": ["coset_solver"],
};
/** Fields of a config for other fields of requests. */
const OTHERS: Readonly<Record<string, string>> = {
  "algebra.epochs": "algebra_epochs",
  "cosets.epochs": "coset_epochs",
  "cosets.identity_algebra": "identity",
  "predictor.tensors.algebra": "identity",
  "predictor.tensors.metric": "identity",
  "predictor.architecture": "predictor",
  "predictor.tensors.program": "predictor",
  weights: "reuse_predictor",
  "predictor.dataset": "data",
};

/** The flags of settings that errors are about. */
const FLAGS: Readonly<Record<SettingName, string>> = {
  worker: "--worker",
  pool: "--pool",
  localWorker: "--worker local",
  backgroundWorker: "--worker ADDRESS, atlas worker stop",
  ca: "--ca",
  cert: "--cert",
  key: "--key",
  clientCertificate: "--cert and --key",
  tokenFile: "--token-file",
  port: "--port",
  processes: "--processes",
  ranks: "--ranks",
};

/**
 * Write the remedy of an error as the command line prints it: with flags, and with its own advice.
 */
export function remedyOf(error: AtlasError): string | undefined {
  const { remedy, setting } = error;
  const own = remedy && setting ? `${remedy} (${FLAGS[setting]})` : remedy;
  const parts = [own, furtherRemedy(error)].filter((part) => part !== undefined);
  return parts.length === 0 ? undefined : parts.join("; ");
}

/** Say what the command line can do about an error, whatever the command. */
function furtherRemedy(error: AtlasError): string | undefined {
  if (error instanceof FileError)
    switch (error.reason) {
      case "executes_code":
        return "or use the program as it is: atlas discover --predictor FILE --trust-code";
      case "weights_key":
        return "use --weights-key ENTRY";
      case "damaged_config":
        return "its checkpoints can still be used with --reuse-predictor FILE";
      default:
        return undefined;
    }
  if (!(error instanceof RpcError)) return undefined;
  if (error.reason === "INTERNAL") return "a local worker's log is printed with --debug";
  if (error.reason === "UNAUTHENTICATED")
    return "give the token of the worker: --token-file FILE, or ATLAS_TOKEN";
  if (error.field === "ranks") return "their flags are --ranks and --threads";
  if (error.field === "predictor.architecture.params.output_key")
    return "name the output with --output-key NAME|INDEX";
  if (wantsTrust(error))
    return (
      "if you trust the author, start the worker with ATLAS_TRUST_CODE=1 " +
      "(a local worker: --trust-code)"
    );
  return undefined;
}

/**
 * Whether a worker refuses an architecture because it is code. If the worker does not know the
 * kind, it expects other kinds.
 */
function wantsTrust({ reason, field, expected }: RpcError): boolean {
  if (reason !== "INVALID_INPUT" || field !== "predictor.architecture.kind") return false;
  const words = expected.split(/[\s,]+/);
  return !Object.keys(blocksOf("architecture")).some((kind) => words.includes(kind));
}
