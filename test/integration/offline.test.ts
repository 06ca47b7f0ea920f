/** Atlas where there is no network but loopback: a Linux namespace without any other interface. */
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { execa } from "execa";
import { MAIN } from "../../src/setup/node.mjs";
import { LONG } from "../e2e/atlas.js";

/** Brings up loopback, shows that nothing else can be reached, and runs a command. */
const ALONE = `
import fcntl, os, socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", 0x41))  # SIOCSIFFLAGS: up, running
try:
    s.connect(("192.0.2.1", 9))
    sys.exit("there is a network")
except OSError:
    os.execvp(sys.argv[1], sys.argv[1:])
`;

describe("without a network", function () {
  this.timeout(LONG);
  let dir: string;
  before(async function () {
    dir = mkdtempSync(join(tmpdir(), "atlas-offline-"));
    const { exitCode, stderr } = await alone(["true"]);
    if (exitCode === 0) return;
    process.stderr.write(`integration: without a namespace that has no network: ${stderr}\n`);
    this.skip();
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const alone = (command: string[]) =>
    execa("unshare", ["--net", "--map-root-user", "python3", "-c", ALONE, ...command], {
      cwd: dir,
      env: { XDG_STATE_HOME: join(dir, "state") },
      reject: false,
    });

  it("a run, its report and its dashboard work", async () => {
    const run = await alone([
      ...[process.execPath, MAIN, "pde", "--task", "discover", "--N", "16", "--epochs", "1"],
      ...["--algebra-epochs", "1", "--solver.starts", "1", "--solver.steps", "2"],
      ...["--candidates", "2", "--coset_solver.steps", "2", "--dashboard"],
    ]);
    expect(run.exitCode, run.stderr).to.equal(0);
    expect(run.stderr).to.match(/^dashboard http:\/\/127\.0\.0\.1:/m);
    const [id = ""] = readdirSync(join(dir, "runs"));
    expect(existsSync(join(dir, "runs", id, "report.html"))).to.equal(true);
    const report = await alone([process.execPath, MAIN, "report", "latest"]);
    expect(report.exitCode, report.stderr).to.equal(0);
  });
});
