/**
 * An error that the user can act on. The command line prints `message` and `remedy` in one line and
 * exits with `exitCode`: 2 for mistakes in the command or the input, 130 for Ctrl-C, and 1 for all
 * other faults. An error of any other class is a bug in Atlas.
 */
export class AtlasError extends Error {
  readonly exitCode: number = 1;
  /** Whether another folder would help. The command line then adds the flag of the folder. */
  elsewhere?: boolean;
  /** Whether overwriting a file would help. The command line then adds the flag for it. */
  overwritable?: boolean;
  /** The setting that the remedy is about. The command line then adds the flag of the setting. */
  setting?: SettingName;
  constructor(
    message: string,
    /** What the user can do. A caller that knows more may change it. */
    public remedy?: string,
    options: ErrorDetails = {},
  ) {
    super(message, options);
    this.name = new.target.name;
    this.elsewhere = options.elsewhere;
    this.overwritable = options.overwritable;
    this.setting = options.setting;
  }
}

/** Details of an error beside its message and its remedy. */
export interface ErrorDetails extends ErrorOptions {
  elsewhere?: boolean;
  overwritable?: boolean;
  setting?: SettingName;
}

/** A setting of the user that an error can be about. */
export type SettingName =
  | "worker"
  | "pool"
  | "localWorker"
  | "backgroundWorker"
  | "ca"
  | "cert"
  | "key"
  | "clientCertificate"
  | "tokenFile"
  | "port"
  | "processes"
  | "ranks";

/** The user asked for something that cannot be done as written, for example with a wrong flag. */
export class UsageError extends AtlasError {
  override readonly exitCode = 2;
}

/** A file is missing, unreadable, damaged, or of the wrong kind. */
export class FileError extends AtlasError {
  override readonly exitCode: number = 2;
  /**
   * Why the file cannot be used: it is a program, an entry of it must be named, or it is a run's
   * config that cannot be read.
   */
  reason?: "executes_code" | "weights_key" | "damaged_config";
}

/** The disk is full, or the user's quota is used up. */
export class NoSpaceError extends FileError {
  override readonly exitCode = 1;
}

/** Required software is missing or could not be installed. */
export class SetupError extends AtlasError {}

/** A server could not be reached, or sent something unexpected. */
export class NetworkError extends AtlasError {}

/** The worker could not be started or reached, or it speaks another version of the protocol. */
export class WorkerUnavailable extends AtlasError {}

/** The worker's process ended while it was needed. */
export class WorkerDied extends AtlasError {
  constructor(
    message: string,
    /** The last lines that the worker wrote to stderr. */
    readonly stderrTail: string,
    remedy?: string,
  ) {
    super(message, remedy);
  }
}

/** Why the worker refused a call: a name of `ErrorReason` in proto/atlas/v1/error.proto. */
export type ErrorReason =
  | "INVALID_INPUT"
  | "FILE_MISSING"
  | "NOT_FOUND"
  | "NOT_READY"
  | "LIMIT_EXCEEDED"
  | "OUT_OF_MEMORY"
  | "DIVERGED"
  | "UNAUTHENTICATED"
  | "CANCELLED"
  | "INTERNAL"
  | "RANK_LOST";

/** The worker refused a call. */
export class RpcError extends AtlasError {
  constructor(
    message: string,
    readonly reason: ErrorReason,
    /**
     * Dotted path of the wrong field of the request, for example "dataset.params". May be empty.
     */
    readonly field: string = "",
    /** What the worker accepts in this field. May be empty. */
    readonly expected: string = "",
    remedy?: string,
    options?: ErrorOptions,
  ) {
    super(message, remedy, options);
  }
  override readonly exitCode: number = 1;

  /** @deprecated The former form of `reason`, in lower case. */
  get code(): string {
    return this.reason.toLowerCase();
  }
}

/** The worker refused a call because of a mistake of the user. */
export class RpcUsageError extends RpcError {
  override readonly exitCode = 2;
}

/** Ctrl-C or a signal stopped the run. Finished work is kept. */
export class Interrupted extends AtlasError {
  override readonly exitCode = 130;
}
