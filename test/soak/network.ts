/** The network between a run and its worker is cut in the middle of it. Real processes; Linux, where all of 127.0.0.0/8 is this machine. */
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { atlas, complaint, type Done, epochs, essence, json, only, start, until } from "../e2e/atlas.js";
import { type Cut, Link } from "./link.js";

/** A predictor of many epochs, by one job; then a short search. */
const RUN = [
  ..."pde --task=discover_cosets --identity=so(2) --candidates=2 --atlas=2 --N=8 --batch_size=4".split(" "),
  ..."--epochs=120 --fixed-seed --device=cpu".split(" "),
];
const WORKER = "127.0.0.1";
const FRONT = "127.0.0.2";
/** The same address, written so that it is not taken for one of this machine: connections to others are watched by pings. */
const ELSEWHERE = "127.2";

/** A run does not end for a cut of so long. */
const PATIENCE_SECONDS = 30;

export interface Outage {
  how: Cut;
  /** For how long the network was cut. */
  seconds: number;
  /** From its return to the next line of the run's log; of a run that had ended, to its end by the attaching that it asked for. */
  backAfter: number;
  attached: boolean;
  epochs: number;
}

/** @throws when a run does not end with the result of one that is not disturbed, every epoch of it logged once */
export async function measureOutages(cuts: readonly { how: Cut; seconds: number }[]): Promise<Outage[]> {
  const dir = mkdtempSync(join(tmpdir(), "atlas-soak-"));
  const where = { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state") } };
  const links: Link[] = [];
  try {
    const flags = ["--device", "cpu", "--threads", "1", "--data-root", dir];
    const { stdout, stderr } = await atlas(["worker", "start", ...flags], where);
    const port = /^address +\S+:(\d+)$/m.exec(stdout)?.[1] ?? expect.fail(stderr);
    const worker = `grpc://${WORKER}:${port}`;
    const { dataPlane } = await json<{ dataPlane: Record<"tensors" | "metrics", string> }>(
      ["worker", "info", "--worker", worker],
      where,
    );
    for (const address of [worker, dataPlane.tensors, dataPlane.metrics])
      links.push(await Link.between(FRONT, WORKER, Number(address.split(":").at(-1))));

    const runs = join(dir, "undisturbed");
    succeeded(await atlas([...RUN, "--worker", worker, "--runs", runs], where));
    const undisturbed = only(runs);
    const found: Outage[] = [];
    for (const [i, { how, seconds }] of cuts.entries()) {
      const runs = join(dir, `runs-${i}`);
      const process = start([...RUN, "--worker", `grpc://${ELSEWHERE}:${port}`, "--runs", runs], where);
      await process.says(/^predictor +\d+\//m);
      const run = only(runs);
      for (const link of links) link.cut(how);
      await sleep(1000 * seconds);
      const log = join(run, "events.jsonl");
      const size = statSync(log).size;
      const restored = performance.now();
      for (const link of links) link.restore();
      const moves = until(() => statSync(log).size > size, "the run goes on", 120_000).then(
        () => (performance.now() - restored) / 1000,
      );
      moves.catch(() => {}); // it is looked at after what may be wrong otherwise
      const ended = await process.done;
      const attached = ended.code !== 0;
      if (attached) {
        expect(seconds, complaint(ended, 1)).to.be.above(PATIENCE_SECONDS);
        expect(complaint(ended, 1)).to.match(/once it can be reached, .*: atlas attach \S+; else/);
        succeeded(await atlas(["attach", run], where));
      }
      const backAfter = attached ? (performance.now() - restored) / 1000 : await moves;
      expect(essence(run)).to.equal(essence(undisturbed));
      expect(epochs(run)).to.deep.equal(epochs(undisturbed));
      found.push({ how, seconds, backAfter, attached, epochs: epochs(run).length });
    }
    return found;
  } finally {
    for (const link of links) link.close();
    await atlas(["worker", "stop"], where);
    rmSync(dir, { recursive: true, force: true });
  }
}

function succeeded({ code, stderr }: Done): void {
  expect(code, stderr.trimEnd().split("\n").at(-1)).to.equal(0);
}
