/**
 * Errors a user can act on. The CLI prints `message` (and `remedy`) as one clear line and exits with `exitCode`: 2 for the
 * user's mistakes, 1 for ours and the machine's, 130 on Ctrl-C. Anything that is not an `AtlasError` is a bug of ours.
 */
export class AtlasError extends Error {
  readonly exitCode: number = 1;
  constructor(
    message: string,
    /** What the user can do about it. Whoever passes the error on may know more. */
    public remedy?: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** The user asked for something that cannot be done as written: a flag, a file, a value. */
export class UsageError extends AtlasError {
  override readonly exitCode = 2;
}

/** A file that is missing, unreadable, damaged, or not what it should be. */
export class FileError extends AtlasError {
  override readonly exitCode: number = 2;
}

/** The disk, or what the user may use of it, is full. */
export class NoSpaceError extends FileError {
  override readonly exitCode = 1;
}

/** Something that must be installed first is not there, or could not be installed. */
export class SetupError extends AtlasError {}

/** A server on the network that could not be reached, or sent something else than it should. */
export class NetworkError extends AtlasError {}

/** The worker could not be started or reached, or speaks another protocol version. */
export class WorkerUnavailable extends AtlasError {}

/** The worker process ended while it was needed. */
export class WorkerDied extends AtlasError {
  constructor(
    message: string,
    /** The last lines it wrote to stderr. */
    readonly stderrTail: string,
    remedy?: string,
  ) {
    super(message, remedy);
  }
}

/** A call that the worker refused. */
export class RpcError extends AtlasError {
  constructor(
    message: string,
    /** "invalid_input", "not_found", "not_ready", "limit_exceeded", "diverged", "out_of_memory", "unauthenticated", "internal". */
    readonly code: string,
    readonly field: string,
    readonly expected: string,
    remedy?: string,
    options?: ErrorOptions,
  ) {
    super(message, remedy, options);
  }
  override readonly exitCode: number = 1;
}

/** A call that the worker refused because of what the user asked for. */
export class RpcUsageError extends RpcError {
  override readonly exitCode = 2;
}

/** The run was stopped by Ctrl-C or a signal; what was finished is kept. */
export class Interrupted extends AtlasError {
  override readonly exitCode = 130;
}
