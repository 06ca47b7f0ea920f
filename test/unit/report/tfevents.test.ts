import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { expect } from "chai";
import fc from "fast-check";
import { encodeEvents } from "../../../src/report/tfevents.js";

/** What tensorboard 2.20's own RecordWriter makes of the events of the first test. */
const THEIRS =
  "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c4c000000" +
  "00000000f5d4a2a009000000000000f83f10032a3f0a150a0e707265646963746f722f6c6f7373150000803e" +
  "0a260a0873657474696e67734210080712041202080142067365656420334a080a060a047465787432cc7393";

describe("TensorBoard event files", () => {
  it("are bit for bit those of TensorBoard's own writer", () => {
    const shown = [
      { tag: "predictor/loss", scalar: 0.25 },
      { tag: "settings", text: "seed 3" },
    ];
    const bytes = encodeEvents([{ time: new Date(1500), step: 3, shown }]);
    expect(bytes.toString("hex")).to.equal(THEIRS);
  });

  it("give every scalar back, in frames whose lengths add up", () => {
    const scalar = fc.record({
      tag: fc.string({ unit: "grapheme" }),
      scalar: fc.float({ noNaN: true }),
    });
    const event = fc.record({
      time: fc.date({ min: new Date(0), max: new Date(2 ** 42), noInvalidDate: true }),
      step: fc.nat(),
      shown: fc.array(scalar, { maxLength: 4 }),
    });
    fc.assert(
      fc.property(fc.array(event, { maxLength: 4 }), (events) => {
        const [, ...back] = framesOf(encodeEvents(events)).map(decode);
        expect(back).to.deep.equal(
          events.map(({ time, step, shown }) => ({
            time: time.getTime() / 1000,
            step,
            shown: shown.map((one) => [one.tag, one.scalar]),
          })),
        );
      }),
      { numRuns: 50 },
    );
  });
});

function framesOf(bytes: Buffer): Buffer[] {
  const frames: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at));
    frames.push(bytes.subarray(at + 12, at + 12 + length));
    at += 12 + length + 4;
    expect(at).to.be.at.most(bytes.length);
  }
  return frames;
}

/** The fields of an Event that hold scalars. */
function decode(bytes: Uint8Array) {
  const event = { time: 0, step: 0, shown: [] as [string, number][] };
  fields(bytes, (field, reader) => {
    if (field === 1) event.time = reader.double();
    else if (field === 2) event.step = Number(reader.int64());
    else if (field === 5)
      fields(reader.bytes(), (_, values) => {
        const one: [string, number] = ["", 0];
        fields(values.bytes(), (part, value) => {
          if (part === 1) one[0] = value.string();
          else one[1] = value.float();
        });
        event.shown.push(one);
      });
    else reader.skip(WireType.LengthDelimited);
  });
  return event;
}

function fields(bytes: Uint8Array, take: (field: number, reader: BinaryReader) => void): void {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) take(reader.tag()[0], reader);
}
