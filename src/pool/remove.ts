/** Remove runs and sweeps that nothing needs any more. */
import { rename, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { UsageError } from "../errors.js";
import { explainFileSystem, TEMPORARY_SUFFIX } from "../run/atomic.js";
import { listRuns, type Run } from "../run/folder.js";
import { acquireLock, lockHolder } from "../run/lock.js";
import { listSweeps, type Sweep } from "./folder.js";

/** What is to be removed. */
export interface RemovalRequest {
  /** Ids of runs and sweeps. */
  wanted?: ReadonlySet<string>;
  /** Or all that were created before a time, in milliseconds. */
  before?: number;
}

/** What can be removed, and what cannot, with the reasons. */
export interface Removal {
  runs: Run[];
  sweeps: Sweep[];
  kept: { id: string; why: string }[];
}

/**
 * Find out which runs and sweeps can be removed: not those that are running, nor those that a run
 * or a sweep which stays refers to.
 */
export async function removable(
  runsDir: string,
  { wanted = new Set(), before }: RemovalRequest,
): Promise<Removal> {
  const { runs } = await listRuns(runsDir);
  const { sweeps } = await listSweeps(runsDir);
  const isWanted = (id: string, created: string) =>
    before === undefined ? wanted.has(id) : Date.parse(created) < before;
  const kept: Removal["kept"] = [];
  const gone = new Set<string>();
  for (const run of runs) {
    if (!isWanted(run.id, run.config.created)) continue;
    const holder = await lockHolder(run.path);
    if (holder) kept.push({ id: run.id, why: `process ${holder.pid} is working in it` });
    else gone.add(run.id);
  }
  const goneSweeps = new Set<string>();
  for (const sweep of sweeps) {
    const own = sweep.file.runs.filter(({ id }) => runs.some((run) => run.id === id));
    const whole = own.every(({ id }) => gone.has(id));
    if (!isWanted(sweep.id, sweep.file.created)) continue;
    if (await sweep.isRunning()) kept.push({ id: sweep.id, why: "a process works in it" });
    else if (!whole) kept.push({ id: sweep.id, why: "some of its runs stay" });
    else goneSweeps.add(sweep.id);
  }
  // A run that stays keeps what it refers to, which keeps what that refers to.
  for (let changed = true; changed; ) {
    changed = false;
    const keep = (id: string, why: string, from: Set<string>) => {
      if (!from.delete(id)) return;
      kept.push({ id, why });
      changed = true;
    };
    for (const sweep of sweeps) {
      if (goneSweeps.has(sweep.id)) {
        const stays = sweep.file.runs.find(({ id }) => kept.some((one) => one.id === id));
        if (stays) keep(sweep.id, `its run ${stays.id} stays`, goneSweeps);
      }
      if (goneSweeps.has(sweep.id)) continue;
      for (const { id } of sweep.file.runs) keep(id, `it is part of sweep ${sweep.id}`, gone);
      const text = JSON.stringify([sweep.file.config, sweep.file.cells]);
      for (const id of [...gone])
        if (text.includes(id)) keep(id, `sweep ${sweep.id} refers to it`, gone);
    }
    for (const run of runs) {
      if (gone.has(run.id)) continue;
      const text = JSON.stringify(run.config.config);
      for (const id of [...gone])
        if (text.includes(id)) keep(id, `run ${run.id} refers to it`, gone);
    }
  }
  return {
    runs: runs.filter(({ id }) => gone.has(id)),
    sweeps: sweeps.filter(({ id }) => goneSweeps.has(id)),
    kept,
  };
}

/**
 * Remove a run.
 *
 * @throws UsageError if a process has begun to work in it
 */
export async function removeRun({ path }: Run): Promise<void> {
  await removeFolder(path);
}

/** Remove a sweep's own folder. @throws UsageError if a process has begun to work in it */
export async function removeSweep({ path }: Sweep): Promise<void> {
  await removeFolder(path);
}

/** Remove a folder with a lock. It disappears in one step, so that no half of it is ever found. */
async function removeFolder(path: string): Promise<void> {
  const folder = resolve(path);
  if (dirname(folder) === folder) throw new UsageError(`${folder} is no run`, "check the path");
  const lock = await acquireLock(folder);
  const aside = join(dirname(folder), `.${process.pid}-${Date.now()}${TEMPORARY_SUFFIX}`);
  try {
    await rename(folder, aside);
  } catch (error) {
    await lock.release();
    throw explainFileSystem(error, "remove", folder);
  }
  try {
    // First what makes it a run or a sweep, so that nobody takes the rest for one.
    for (const name of ["config.json", "sweep.json"]) await rm(join(aside, name), { force: true });
    await rm(aside, { recursive: true, force: true });
  } catch (error) {
    throw explainFileSystem(error, "remove", aside);
  }
}
