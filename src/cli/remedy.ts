/**
 * What the command line adds to the remedies of errors: its flags, which the lower layers do not
 * know.
 */
import { blocksOf } from "../blocks.js";
import { AtlasError, FileError, RpcError, type SettingName } from "../errors.js";

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

/** The flags of settings that errors are about. */
const FLAGS: Readonly<Record<SettingName, string>> = {
  worker: "--worker",
  localWorker: "--worker local",
  backgroundWorker: "--worker ADDRESS, atlas worker stop",
  ca: "--ca",
  cert: "--cert",
  key: "--key",
  clientCertificate: "--cert and --key",
  tokenFile: "--token-file",
  port: "--port",
  processes: "--processes",
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
  if (error.reason === "UNAUTHENTICATED")
    return "give the token of the worker: --token-file FILE, or ATLAS_TOKEN";
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
