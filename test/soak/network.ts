/**
 * The network between a run and its worker is cut in the middle of it. Real processes; Linux, where
 * all of 127.0.0.0/8 is this machine.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { complaint, type Done, epochs, json, until } from "../e2e/atlas.js";
import { type Cut, Link } from "./link.js";
import { Ground, goOn, repeated, SHORT_RUN } from "./runs.js";

const WORKER = "127.0.0.1";
const FRONT = "127.0.0.2";
/**
 * The same address, written so that it is not taken for one of this machine: connections to others
 * are watched by pings.
 */
const ELSEWHERE = "127.2";

/** A run does not end for a cut of so long, and does when it has lasted for so long. */
const PATIENCE_SECONDS = { least: 30, most: 150 };

export interface Outage {
  how: Cut;
  /** For how long the network was cut. */
  seconds: number;
  /** From the cut until the run gave up, if it did, and said how to go on. */
  gaveUpAfter?: number;
  /**
   * From the network's return to the next epoch in the run's log; where it had given up, by the
   * attaching that it asked for.
   */
  backAfter: number;
  epochs: number;
}

/**
 * @throws when a run does not end with the result of one that is not disturbed, every epoch of it
 * logged once
 */
export function measureOutages(cuts: readonly { how: Cut; seconds: number }[]): Promise<Outage[]> {
  const links: Link[] = [];
  return Ground.lend(async (ground) => {
    const { address: worker, port } = await ground.startWorker();
    const { dataPlane } = await json<{ dataPlane: Record<"tensors" | "metrics", string> }>(
      ["worker", "info", "--worker", worker],
      ground.where,
    );
    for (const address of [worker, dataPlane.tensors, dataPlane.metrics])
      links.push(await Link.between(FRONT, WORKER, Number(address.split(":").at(-1))));

    const wanted = await ground.undisturbed([...SHORT_RUN, "--worker", worker]);
    const found: Outage[] = [];
    for (const { how, seconds } of cuts) {
      const args = [...SHORT_RUN, "--worker", `grpc://${ELSEWHERE}:${port}`];
      const trains = (run: string) => epochs(run).some((epoch) => epoch.startsWith("predictor"));
      const { process, run } = await ground.begin(args, trains);
      for (const link of links) link.cut(how);
      const cut = performance.now();
      let ended: Done | undefined;
      let gaveUpAfter: number | undefined;
      const end = process.done.then((done) => {
        ended = done;
        if (done.code !== 0) gaveUpAfter = (performance.now() - cut) / 1000;
        return done;
      });
      await sleep(1000 * seconds);
      const known = epochs(run).length;
      const restored = performance.now();
      for (const link of links) link.restore();
      await until(
        () => ended !== undefined || epochs(run).length > known,
        "the run goes on",
        120_000,
      );
      let backAfter = (performance.now() - restored) / 1000;
      const done = await end;
      if (gaveUpAfter !== undefined) {
        const hint = complaint(done, 1);
        expect(seconds, hint).to.be.above(PATIENCE_SECONDS.least);
        expect(gaveUpAfter, hint).to.be.below(PATIENCE_SECONDS.most);
        expect(hint).to.match(/once it can be reached, .*: atlas attach \S+; /);
        const gone = await goOn(ground, run, { stderr: done.stderr, hint }, restored);
        expect(gone.by).to.deep.equal(["attach"]);
        backAfter = gone.backAfter;
      }
      expect(epochs(run)).to.deep.equal(epochs(wanted));
      expect(repeated(run, wanted)).to.equal(0);
      found.push({ how, seconds, gaveUpAfter, backAfter, epochs: epochs(run).length });
    }
    return found;
  }).finally(() => {
    for (const link of links) link.close();
  });
}
