/** The worker that is put to the test, and whether it is well. */
import { expect } from "chai";
import { residentMiB } from "../bench/load.js";
import { connectTo, type Guard, type Guarded, startGuarded } from "../workers.js";

/** Give a worker of one thread that asks for a token, and end it afterwards. */
export async function withWorker<T>(
  use: (local: Guarded) => Promise<T>,
  guard: Guard = "plain",
): Promise<T> {
  const local = await startGuarded(guard, "error");
  try {
    return await use(local);
  } finally {
    await local.close();
  }
}

/**
 * A client that comes now is served, as many sessions as the worker has are free, and its process
 * is the one it was.
 *
 * @returns its resident memory in MiB
 */
export async function checkWell(local: Guarded): Promise<number> {
  expect(local.gone.aborted, "the worker has ended").to.equal(false);
  const worker = await connectTo(local);
  try {
    const max = worker.info.limits?.maxSessions ?? 0;
    const [session, ...others] = await Promise.all(
      Array.from({ length: max }, () => worker.openSession({ device: "cpu" })),
    );
    await Promise.all(others.map((other) => other.close()));
    const made = await session!.createDataset(PLATES);
    await session!.advance(made);
    expect((await session!.readDataset(made, { start: 0, count: 1 })).inputs.shape[0]).to.equal(1);
  } finally {
    await worker.close();
  }
  return residentMiB(local.pid);
}

/** What a small job makes. */
export const PLATES = {
  kind: "heat_equation",
  params: { samples: 4, side: 32, steps: 5 },
  seed: 0,
} as const;
