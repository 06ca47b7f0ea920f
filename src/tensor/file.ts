/** Reads files of any size, in parts. Node reads no more than 2 GiB at a time. */
import { constants } from "node:buffer";
import { type FileHandle, open } from "node:fs/promises";
import { FileError } from "../errors.js";
import type { TensorSource } from "./tensor.js";

/** Bytes that are read at a time. */
const PART = 64 * 2 ** 20;

/** Do some work with an open file. @throws file-system errors */
export async function withFile<T>(
  path: string,
  work: (file: FileHandle, size: number) => Promise<T>,
): Promise<T> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    return await work(file, size);
  } finally {
    await file.close();
  }
}

/**
 * Read part of an open file.
 *
 * @throws FileError if the file ends before `into` is full
 */
export async function readInto(
  file: FileHandle,
  into: Uint8Array,
  from: number,
  name: string,
): Promise<void> {
  for (let at = 0; at < into.byteLength; ) {
    const length = Math.min(PART, into.byteLength - at);
    const { bytesRead } = await file.read(into, at, length, from + at);
    if (bytesRead === 0)
      throw new FileError(
        `${name} is truncated: it ends at byte ${from + at}`,
        "write or download the file again",
      );
    at += bytesRead;
  }
}

/** The bytes of a file, which are read when they are sent. */
export class FileBytes implements TensorSource {
  readonly dtype = "uint8";
  readonly shape: readonly number[];

  constructor(
    private readonly path: string,
    readonly byteLength: number,
  ) {
    this.shape = [byteLength];
  }

  async *parts(most: number): AsyncIterable<Uint8Array> {
    const { path, byteLength } = this;
    for (let at = 0; at < byteLength; at += most) {
      const bytes = Buffer.allocUnsafeSlow(Math.min(most, byteLength - at));
      await withFile(path, (file) => readInto(file, bytes, at, path));
      yield bytes;
    }
  }
}

/** Read a whole file into memory, also one beyond 2 GiB. @throws file-system errors, FileError */
export function readWhole(path: string): Promise<Buffer> {
  return withFile(path, async (file, size) => {
    if (!(await file.stat()).isFile()) return file.readFile(); // a pipe tells no size
    if (size > constants.MAX_LENGTH)
      throw new FileError(
        `${path} has ${size} bytes, more than the ${constants.MAX_LENGTH} that Node.js ` +
          `${process.version} holds at once`,
        "give a smaller file",
      );
    const bytes = Buffer.allocUnsafeSlow(size);
    await readInto(file, bytes, 0, path);
    return bytes;
  });
}
