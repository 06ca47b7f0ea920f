/** The progress line, as a terminal shows it. */
import { expect } from "chai";
import { Progress } from "../../../src/experiment/progress.js";

/** A terminal that shows one line: what was written over it, and what is left of it. */
class Terminal {
  isTTY = true;
  /** Lines that stay. */
  readonly kept: string[] = [];
  /** The line that is drawn. */
  line = "";
  writes = 0;

  constructor(public columns: number) {}

  write(text: string): boolean {
    this.writes++;
    const esc = "\u001b";
    const plain = text.replaceAll(new RegExp(`${esc}\\[\\d*m`, "g"), "");
    for (const part of plain.split(new RegExp(`(\r|\n|${esc}\\[2?K)`))) {
      if (part === "\n") {
        this.kept.push(this.line);
        this.line = "";
      } else if (part === "\r") this.column = 0;
      else if (part === `${esc}[2K`) this.line = "";
      else if (part === `${esc}[K`) this.line = this.line.slice(0, this.column);
      else {
        this.line =
          this.line.slice(0, this.column) + part + this.line.slice(this.column + part.length);
        this.column += part.length;
      }
      if (part === "\n") this.column = 0;
    }
    return true;
  }

  private column = 0;
}

const position = (epoch: number, step: number) => ({
  stage: "predictor",
  epoch,
  totalEpochs: 12,
  step,
  stepsInEpoch: 40,
  metrics: { loss: 0.123456, accuracy: 0.5 },
});

/** Draw two steps, so far apart that the second is drawn. */
async function draw(terminal: Terminal, live?: boolean): Promise<Progress> {
  const progress = new Progress({ out: terminal as unknown as NodeJS.WriteStream, live });
  progress.step(position(2, 10));
  await new Promise((done) => setTimeout(done, 120));
  progress.step(position(2, 30));
  return progress;
}

describe("progress on a terminal", () => {
  it("is one line with a bar, the metrics, and the time left", async () => {
    const terminal = new Terminal(120);
    const progress = await draw(terminal, true);
    expect(terminal.line).to.match(
      /^predictor {2}\[#{5}-{15}\] {2}epoch 3\/12 {2}step 30\/40 {2}loss 0\.1235 .* left$/,
    );
    expect(terminal.writes).to.equal(2); // each drawing is one write
    progress.info("a word");
    expect(terminal.kept).to.deep.equal(["a word"]);
    expect(terminal.line).to.equal("");
  });

  it("leaves out what matters least where it is narrow, and never wraps", async () => {
    for (let columns = 10; columns <= 120; columns++) {
      const terminal = new Terminal(columns);
      await drawAtOnce(terminal);
      expect(terminal.line.length, terminal.line).to.be.below(columns);
      if (columns > 24) expect(terminal.line).to.match(/^predictor.* epoch 3\/12/);
    }
  });

  it("is plain lines where there is no terminal", async () => {
    const pipe = Object.assign(new Terminal(80), { isTTY: false });
    const progress = await draw(pipe);
    progress.epoch(position(3, 40), 4.2);
    expect(pipe.kept).to.have.length(1);
    expect(pipe.kept[0]).to.match(/^predictor {2}3\/12 {2}loss .* 4\.2 s$/);
    expect(pipe.line).to.equal("");
  });
});

async function drawAtOnce(terminal: Terminal): Promise<void> {
  new Progress({ out: terminal as unknown as NodeJS.WriteStream, live: true }).step(
    position(2, 30),
  );
}
