/**
 * Write TensorBoard's event files: TFRecord frames around `tensorflow.Event` messages. The package
 * `tensorboard` would bring a dozen others, and four messages are enough.
 *
 * Formats: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto and
 * tensorflow/core/framework/summary.proto.
 */
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

/** A value under a tag. */
export type Shown =
  /** A number, which TensorBoard keeps as a 32-bit float. */
  | { tag: string; scalar: number }
  /** A text in Markdown. */
  | { tag: string; text: string };

/** Values of one moment. */
export interface TensorBoardEvent {
  time: Date;
  /** Position on the horizontal axis. */
  step: number;
  shown: readonly Shown[];
}

/** Encode an event file. TensorBoard reads files with "tfevents" in their names. */
export function encodeEvents(events: readonly TensorBoardEvent[]): Buffer {
  const start = new BinaryWriter()
    .uint32(tag(1, WireType.Bit64))
    .double(seconds(events[0]?.time ?? new Date()))
    .uint32(tag(3, WireType.LengthDelimited))
    .string("brain.Event:2");
  return Buffer.concat([frame(start.finish()), ...events.map((event) => frame(encode(event)))]);
}

/** Encode a `tensorflow.Event` with a summary. */
function encode({ time, step, shown }: TensorBoardEvent): Uint8Array {
  const writer = new BinaryWriter()
    .uint32(tag(1, WireType.Bit64))
    .double(seconds(time))
    .uint32(tag(2, WireType.Varint))
    .int64(step)
    .uint32(tag(5, WireType.LengthDelimited))
    .fork();
  for (const one of shown) {
    writer.uint32(tag(1, WireType.LengthDelimited)).fork();
    writer.uint32(tag(1, WireType.LengthDelimited)).string(one.tag);
    if ("scalar" in one) writer.uint32(tag(2, WireType.Bit32)).float(one.scalar);
    else writeText(writer, one.text);
    writer.join();
  }
  return writer.join().finish();
}

/** Encode a text as torch.utils.tensorboard does: a tensor of one string, and a plug-in's name. */
function writeText(writer: BinaryWriter, text: string): void {
  const DT_STRING = 7;
  writer
    .uint32(tag(8, WireType.LengthDelimited)) // tensor
    .fork()
    .uint32(tag(1, WireType.Varint))
    .int32(DT_STRING)
    .uint32(tag(2, WireType.LengthDelimited)) // shape
    .fork()
    .uint32(tag(2, WireType.LengthDelimited)) // dimension
    .fork()
    .uint32(tag(1, WireType.Varint))
    .int64(1)
    .join()
    .join()
    .uint32(tag(8, WireType.LengthDelimited)) // string_val
    .string(text)
    .join()
    .uint32(tag(9, WireType.LengthDelimited)) // metadata
    .fork()
    .uint32(tag(1, WireType.LengthDelimited)) // plugin_data
    .fork()
    .uint32(tag(1, WireType.LengthDelimited))
    .string("text")
    .join()
    .join();
}

function tag(field: number, type: WireType): number {
  return (field << 3) | type;
}

function seconds(time: Date): number {
  return time.getTime() / 1000;
}

/** Frame data: length (8 bytes), its checksum, the data, their checksum; all little-endian. */
function frame(data: Uint8Array): Buffer {
  const head = Buffer.alloc(12);
  head.writeBigUInt64LE(BigInt(data.length));
  head.writeUInt32LE(maskedChecksum(head.subarray(0, 8)), 8);
  const foot = Buffer.alloc(4);
  foot.writeUInt32LE(maskedChecksum(data));
  return Buffer.concat([head, data, foot]);
}

/**
 * Compute CRC-32C (Castagnoli; Node's own CRC is another one), "masked" as in TFRecord, because
 * data may hold checksums themselves.
 */
function maskedChecksum(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) crc = CRC_TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  crc = ~crc;
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});
