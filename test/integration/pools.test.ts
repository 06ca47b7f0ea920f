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
import { createServer } from "node:net";
import { hostname, tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { execa } from "execa";
import type { SweepSummary } from "../../src/pool/index.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { apart, ends, essence, json, LONG, ROOT, runs, start, until } from "../e2e/atlas.js";

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

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
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
  const workers = () =>
    execFileSync("ps", ["-A", "-o", "pid=,command="], { encoding: "utf8" })
      .split("\n")
      .filter((line) => line.trim().split(/\s+/)[1]?.startsWith(join(cwd, "atlas")))
      .map((line) => Number(line.trim().split(/\s+/)[0]));

  /** A sweep on a pool is killed with -9 and resumed; it ends with the bits of the local one. */
  async function survives(pool: string, more: NodeJS.ProcessEnv, folder: string): Promise<void> {
    const env = { ...more, ATLAS_REMOTE: join(cwd, "atlas"), ATLAS_POOL_FOLDER: join(cwd, "pool") };
    const sweep = start(["sweep", ...GIVEN, "--pool", pool, "--runs", folder], { cwd, env });
    let over = false;
    sweep.done.finally(() => {
      over = true;
    });
    await until(
      () => over || (existsSync(join(cwd, folder)) && runsIn(folder).some(began)),
      "a run has a checkpoint",
    );
    if (over) expect.fail((await sweep.done).stderr);
    const before = workers();
    expect(before).to.not.deep.equal([]);
    sweep.kill("SIGKILL");
    await sweep.done;
    const resumed = await apart(["resume", idIn(folder), "--runs", folder], { cwd, env });
    expect(resumed.code, resumed.stderr).to.equal(0);
    const all = runsIn(folder);
    expect(all).to.have.length(6);
    for (const [i, run] of all.entries())
      expect(essence(run)).to.equal(essence(runsIn("local")[i]!));
    const summary = await json<SweepSummary>(["show", idIn(folder), "--runs", folder], { cwd });
    expect(summary.cells[0]!.agree).to.equal(6);
    // The leases of the killed one end, and then its workers.
    for (const pid of before) await ends(pid);
    await until(() => workers().length === 0, "no worker stays");
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

  it("take jobs of a Ray cluster", async function () {
    const venv = join(ROOT, "node_modules/.cache/ray");
    const ray = join(venv, "bin/ray");
    if (!existsSync(ray)) {
      const { python } = await ensureVenv();
      await execa(python, ["-m", "venv", venv], { reject: false });
      const install = ["-m", "pip", "install", "-q", "ray[default]==2.60.0"];
      await execa(join(venv, "bin/python"), install, { reject: false, timeout: 170_000 });
    }
    if (!existsSync(ray)) without(this, "Ray (pip install ray)");
    const [dashboard, gcs] = [await freePort(), await freePort()];
    const folder = mkdtempSync("/tmp/atlas-ray-"); // Ray's sockets need short paths
    const head = [
      ...["start", "--head", "--block", "--num-cpus=2", "--object-store-memory=100000000"],
      ...["--dashboard-host=127.0.0.1", `--dashboard-port=${dashboard}`, `--port=${gcs}`],
      ...["--disable-usage-stats", `--temp-dir=${folder}`],
    ];
    const process_ = spawn(ray, head, { stdio: "ignore", detached: true });
    cleanUps.push(async () => {
      if (process_.pid !== undefined) process.kill(-process_.pid, "SIGKILL");
      if (process_.pid !== undefined) await until(() => !runs(process_.pid!), "Ray ends");
      rmSync(folder, { recursive: true, force: true });
    });
    const url = `http://127.0.0.1:${dashboard}`;
    const serves = async () =>
      (await fetch(`${url}/api/version`).catch(() => undefined))?.status === 200;
    for (let tries = 0; tries < 400 && !(await serves()); tries++) await sleep(300);
    await survives(`ray:${url}`, {}, "on-ray");
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
