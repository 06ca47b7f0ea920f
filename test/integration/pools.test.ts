/**
 * Pools on real third parties of this machine: an sshd, a Ray head, and Slurm on one node. Each is
 * made at first need. What cannot be had is said, and its tests are skipped.
 */
import { execFileSync, spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { execa } from "execa";
import type { SweepSummary } from "../../src/pool/index.js";
import {
  apart,
  complaint,
  ends,
  essence,
  json,
  LONG,
  logged,
  ROOT,
  start,
  until,
} from "../e2e/atlas.js";
import { ensureRay, freePort, pidsOf, startRayHead } from "../ray.js";

const SMALL = ["--samples", "1024", "--candidates", "24", "--coset-epochs", "4"];
const GIVEN = ["probe", "rotation", ...SMALL, "--seed", "0..5", "--threads", "1"];

/** Debian's package of a program. @returns whether it is there now */
async function have(program: string, debian: string): Promise<boolean> {
  const found = () => execa("sh", ["-c", `command -v ${program}`], { reject: false, env: PATHS });
  if (!(await found()).failed) return true;
  if (userInfo().uid !== 0) return false;
  await execa("apt-get", ["install", "-y", "--no-install-recommends", debian], {
    ...{ reject: false, env: { DEBIAN_FRONTEND: "noninteractive" }, timeout: 150_000 },
  });
  return !(await found()).failed;
}

const PATHS = { PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

function without(context: Mocha.Context, what: string): never {
  process.stderr.write(`integration: without ${what}\n`);
  return context.skip() as never;
}

describe("pools", function () {
  this.timeout(LONG);
  let cwd = "";
  const cleanUps: (() => unknown)[] = [];
  before(async () => {
    cwd = mkdtempSync(join(tmpdir(), "atlas-pools-"));
    symlinkSync(ROOT, join(cwd, "atlas"));
    const local = ["sweep", ...GIVEN, "--pool", "local:1", "--runs", "local"];
    const { code, stderr } = await apart(local, { cwd });
    expect(code, stderr).to.equal(0);
  });
  after(async () => {
    for (const cleanUp of cleanUps.reverse()) await cleanUp();
    rmSync(cwd, { recursive: true, force: true });
  });

  const runsIn = (folder: string) =>
    readdirSync(join(cwd, folder))
      .filter((name) => name !== "sweeps")
      .sort()
      .map((name) => join(cwd, folder, name));
  const idIn = (folder: string) => readdirSync(join(cwd, folder, "sweeps"))[0]!;
  const began = (run: string) => existsSync(join(run, "checkpoints/algebra.safetensors"));
  /** The workers of this test, whose Python is found by a path of its own. */
  const workers = () => pidsOf((program) => program.startsWith(join(cwd, "atlas")));
  const where = (more: NodeJS.ProcessEnv = {}) => ({
    cwd,
    env: { ...more, ATLAS_REMOTE: join(cwd, "atlas"), ATLAS_POOL_FOLDER: join(cwd, "pool") },
  });

  /** Start or resume a sweep, and wait until the runs of its folder are as they should be. */
  async function begin(
    args: readonly string[],
    folder: string,
    reached: (runs: string[]) => boolean,
    env?: NodeJS.ProcessEnv,
  ) {
    const sweep = start([...args, "--runs", folder], where(env));
    let over = false;
    sweep.done.finally(() => {
      over = true;
    });
    await until(
      () => over || (existsSync(join(cwd, folder)) && reached(runsIn(folder))),
      "the sweep computes",
    );
    if (over) expect.fail((await sweep.done).stderr);
    return sweep;
  }

  /** A sweep has ended with the bits of the local one, has done no run twice, and left nothing. */
  async function isComplete(folder: string, before: readonly number[]): Promise<void> {
    const all = runsIn(folder);
    expect(all).to.have.length(6);
    for (const [i, run] of all.entries()) {
      expect(essence(run)).to.equal(essence(runsIn("local")[i]!));
      for (const once of ["started", "finished"])
        expect(logged(run, once), `${once} ${run}`).to.have.length(1);
    }
    const summary = await json<SweepSummary>(["show", idIn(folder), "--runs", folder], { cwd });
    expect(summary.cells[0]!.agree).to.equal(6);
    // The leases of the killed one end, and then its workers.
    for (const pid of before) await ends(pid);
    await until(() => workers().length === 0, "no worker stays");
  }

  /** A sweep on a pool is killed with -9 and resumed. */
  async function survives(pool: string, env: NodeJS.ProcessEnv, folder: string): Promise<void> {
    const args = ["sweep", ...GIVEN, "--pool", pool];
    const sweep = await begin(args, folder, (runs) => runs.some(began), env);
    const before = workers();
    expect(before).to.not.deep.equal([]);
    sweep.kill("SIGKILL");
    await sweep.done;
    const resumed = await apart(["resume", idIn(folder), "--runs", folder], where(env));
    expect(resumed.code, resumed.stderr).to.equal(0);
    await isComplete(folder, before);
  }

  it("take workers on other machines over ssh", async function () {
    if (!(await have("sshd", "openssh-server"))) without(this, "an sshd (openssh-server)");
    const folder = join(cwd, "ssh");
    mkdirSync(folder, { mode: 0o700 });
    for (const key of ["host", "user"])
      execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", join(folder, key)]);
    const port = await freePort();
    if (userInfo().uid === 0) mkdirSync("/run/sshd", { recursive: true });
    const lines = {
      sshd: [
        ...[`Port ${port}`, "ListenAddress 127.0.0.1", `HostKey ${folder}/host`],
        ...[`AuthorizedKeysFile ${folder}/user.pub`, "StrictModes no", "UsePAM no"],
        ...["PasswordAuthentication no", "PidFile none"],
      ],
      ssh: [
        ...[
          "Host hostA hostB",
          "HostName 127.0.0.1",
          `Port ${port}`,
          `User ${userInfo().username}`,
        ],
        ...[`IdentityFile ${folder}/user`, "IdentitiesOnly yes", "StrictHostKeyChecking no"],
        ...[`UserKnownHostsFile ${folder}/known`, "LogLevel ERROR"],
      ],
    };
    for (const [name, text] of Object.entries(lines))
      writeFileSync(join(folder, `${name}.conf`), `${text.join("\n")}\n`);
    const { stdout: sshd } = await execa("sh", ["-c", "command -v sshd"], { env: PATHS });
    const daemon = spawn(sshd, ["-D", "-f", join(folder, "sshd.conf")], { stdio: "ignore" });
    cleanUps.push(() => daemon.kill());
    const env = { ATLAS_SSH_CONFIG: join(folder, "ssh.conf") };
    const answers = () =>
      execa("ssh", ["-F", env.ATLAS_SSH_CONFIG, "hostA", "true"], { reject: false });
    for (let tries = 0; tries < 100 && (await answers()).failed; tries++) await sleep(100);
    await survives("ssh:hostA,hostB", env, "over-ssh");
  });

  it("take jobs of a Ray cluster, whose workers, clients and raylet are killed", async function () {
    const ray = await ensureRay();
    if (ray === undefined) without(this, "Ray (pip install ray)");
    const newHead = async () => {
      const head = await startRayHead(ray);
      cleanUps.push(head.stop);
      return head;
    };
    const head = await newHead();
    const folder = "on-ray";
    const resume = (pool: string) => ["resume", idIn(folder), "--pool", pool];

    const args = ["sweep", ...GIVEN, "--pool", `ray:${head.url}`];
    const sweep = await begin(args, folder, (runs) => runs.some(began));
    const before = workers();
    process.kill(before[0]!, "SIGKILL");
    await sweep.says(/slot \d is lost, run \S+ goes on in another/);
    sweep.kill("SIGKILL");
    await sweep.done;

    const goesOn = (run: string) => logged(run, "resumed").length > 0;
    const resumed = await begin(resume(`ray:${head.url}`), folder, (runs) => runs.some(goesOn));
    before.push(...workers());
    process.kill(head.raylet, "SIGKILL"); // and the head ends with it
    const said = complaint(await resumed.done, 1);
    expect(said).to.match(/the Ray cluster at \S+ cannot be reached.*atlas resume \S+ \(--pool\)/);
    await ends(head.pid);
    await until(() => workers().length === 0, "no worker outlives its raylet");

    const another = await newHead();
    const last = await apart([...resume(`ray:${another.url}`), "--runs", folder], where());
    expect(last.code, last.stderr).to.equal(0);
    await isComplete(folder, before);
  });

  it("take jobs of Slurm", async function () {
    const there = (await have("slurmctld", "slurm-wlm")) && userInfo().uid === 0;
    if (!there) without(this, "Slurm (slurm-wlm, as root)");
    const folder = join(cwd, "slurm");
    for (const name of ["spool", "state"]) mkdirSync(join(folder, name), { recursive: true });
    const [controller, node] = [await freePort(), await freePort()];
    const name = hostname();
    const conf = join(folder, "slurm.conf");
    writeFileSync(
      conf,
      [
        ...["ClusterName=atlas", `SlurmctldHost=${name}(127.0.0.1)`, "AuthType=auth/munge"],
        ...[`SlurmctldPort=${controller}`, `SlurmdPort=${node}`, "SlurmUser=root"],
        ...[`SlurmdSpoolDir=${folder}/spool`, `StateSaveLocation=${folder}/state`],
        ...[`SlurmctldPidFile=${folder}/ctld.pid`, `SlurmdPidFile=${folder}/d.pid`],
        ...["ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none", "MpiDefault=none"],
        ...["SelectType=select/cons_tres", "SelectTypeParameters=CR_CPU", "ReturnToService=2"],
        `NodeName=${name} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN`,
        `PartitionName=main Nodes=${name} Default=YES MaxTime=INFINITE State=UP`,
        "",
      ].join("\n"),
    );
    const env = { ...PATHS, SLURM_CONF: conf };
    await execa("sh", ["-c", "munge -n | unmunge || { mkdir -p /run/munge; munged --force; }"], {
      ...{ reject: false, env },
    });
    const daemons = [
      spawn("slurmctld", ["-D", "-f", conf], { env: { ...process.env, ...env }, stdio: "ignore" }),
      spawn("slurmd", ["-D", "-f", conf, "-N", name], {
        ...{ env: { ...process.env, ...env }, stdio: "ignore" },
      }),
    ];
    for (const daemon of daemons) {
      daemon.on("error", () => {});
      cleanUps.push(() => daemon.kill("SIGKILL"));
    }
    const idle = async () =>
      /idle/.test((await execa("sinfo", { reject: false, env })).stdout ?? "");
    let ready = false;
    for (let tries = 0; tries < 100 && !ready; tries++) {
      ready = await idle();
      await sleep(200);
    }
    if (!ready) without(this, "Slurm (its daemons did not start)");
    await survives("slurm:main", env, "on-slurm");
  });
});
