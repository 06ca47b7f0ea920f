import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expect } from "chai";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

/** A Python that answers what the set-up asks at once, and writes down what that was: its venvs hold empty folders for packages. */
const FAKE_PYTHON = `#!/bin/sh
venv=$(dirname "$0")/..
case "$*" in
  *ensurepip*) echo "atlas \${FAKE_VERSION:-3 11 4}"; echo venv; exit ;;
  *base_prefix*) exit ;; # is it sound?
  *"-m venv "*) echo venv >> "$FAKE_LOG"
    for folder; do :; done
    mkdir -p "$folder/bin"; cp "$0" "$folder/bin/python"; touch "$folder/pyvenv.cfg" ;;
  *"-m pip config list") ;;
  *"-m pip "*) echo pip >> "$FAKE_LOG"
    [ -n "$FAKE_PIP_ERROR" ] && { echo "ERROR: $FAKE_PIP_ERROR" >&2; exit 1; }
    [ -n "$FAKE_PIP_HANGS" ] && { touch "$FAKE_PIP_HANGS"; exec sleep 60; }
    for module in torch numpy safetensors zmq grpc grpc_tools google/protobuf; do mkdir -p "$venv/site/$module"; done ;;
  *sysconfig*) echo "atlas 3.11 2.13.0 $ATLAS_VENV/site" ;;
esac
`;

interface Outcome {
  code: number | null;
  lines: string[];
  stdout: string;
}

describe("set-up", () => {
  let dir: string;
  let venv: string;
  let bin: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-setup-"));
    venv = join(dir, "venv");
    bin = join(dir, "bin");
    mkdirSync(bin);
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const environment = (extra: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => ({
    ...process.env,
    ATLAS_PYTHON: undefined,
    ATLAS_TORCH: undefined,
    ATLAS_VENV: venv,
    FAKE_LOG: join(dir, "log"),
    ...extra,
  });
  const command = [join(ROOT, "src/setup/run.mjs"), "setup"];
  const setUp = (extra?: NodeJS.ProcessEnv): Outcome => {
    const { status, stderr, stdout } = spawnSync(process.execPath, command, {
      env: environment(extra),
      encoding: "utf8",
    });
    return { code: status, lines: stderr.trim().split("\n"), stdout };
  };
  /** Set up with PYTHIA 8 and FastJet. */
  const setUpJets = (extra?: NodeJS.ProcessEnv): Outcome => {
    const program = `import { ensurePython } from ${JSON.stringify(join(ROOT, "src/setup/python.mjs"))};
      const onProgress = (line) => console.error("set-up: " + line);
      await ensurePython({ extras: ["jets"], onProgress }).catch((error) => {
        console.error("error: " + error.message);
        process.exitCode = 1;
      });`;
    const { status, stderr, stdout } = spawnSync(
      process.execPath,
      ["--input-type=module", "--eval", program],
      {
        env: environment(extra),
        encoding: "utf8",
      },
    );
    return { code: status, lines: stderr.trim().split("\n"), stdout };
  };
  const fakePython = (name = "python"): string => {
    const path = join(bin, name);
    writeFileSync(path, FAKE_PYTHON);
    chmodSync(path, 0o755);
    return path;
  };
  /** What the fake Python was asked to do. */
  const done = (): string[] =>
    existsSync(join(dir, "log")) ? readFileSync(join(dir, "log"), "utf8").trim().split("\n") : [];
  const error = ({ lines }: Outcome): string => {
    const errors = lines.filter((line) => !line.startsWith("set-up: "));
    expect(errors, lines.join("\n")).to.have.length(1);
    return errors[0]!;
  };
  const state = (): unknown =>
    (JSON.parse(readFileSync(join(venv, ".atlas-setup.json"), "utf8")) as { state: unknown }).state;

  it("makes the venv once, and does nothing the second time", () => {
    const ATLAS_PYTHON = fakePython();
    const first = setUp({ ATLAS_PYTHON });
    expect(first.code, first.lines.join("\n")).to.equal(0);
    expect(first.stdout).to.equal("");
    expect(done()).to.deep.equal(["venv", "pip"]);
    const second = setUp({ ATLAS_PYTHON });
    expect(second).to.deep.equal({
      code: 0,
      lines: ["set-up: everything is in place"],
      stdout: "",
    });
    expect(done()).to.deep.equal(["venv", "pip"]);
    expect(readdirSync(venv).filter((name) => name.startsWith(".atlas-lock"))).to.deep.equal([]);
  });

  it("says that there is no Python", () => {
    const outcome = setUp({ PATH: bin });
    expect(outcome.code).to.equal(1);
    expect(error(outcome)).to.match(
      /^error: there is no Python on the PATH; install Python 3\.10 or newer/,
    );
  });

  it("says that Python is too old, and which one it found", () => {
    fakePython("python3");
    const outcome = setUp({ PATH: `${bin}`, FAKE_VERSION: "3 8 10" });
    expect(outcome.code).to.equal(1);
    expect(error(outcome)).to.match(
      /^error: Atlas needs Python 3\.10 or newer .*python3 is Python 3\.8\.10; install/,
    );
  });

  it("says that ATLAS_PYTHON is no Python, rather than take another", () => {
    const outcome = setUp({ ATLAS_PYTHON: join(dir, "nowhere") });
    expect(outcome.code).to.equal(1);
    expect(error(outcome)).to.match(/^error: ATLAS_PYTHON is .*nowhere, which does not run/);
  });

  it("refuses an ATLAS_TORCH that is no requirement", () => {
    const outcome = setUp({ ATLAS_PYTHON: fakePython(), ATLAS_TORCH: "2.9.1" });
    expect(outcome.code).to.equal(1);
    expect(error(outcome)).to.match(/ATLAS_TORCH is "2\.9\.1"; write it as .*torch==2\.9\.1/);
  });

  it("remembers another PyTorch that was asked for", () => {
    const ATLAS_PYTHON = fakePython();
    expect(setUp({ ATLAS_PYTHON, ATLAS_TORCH: "torch==2.9.1" }).code).to.equal(0);
    const file = readFileSync(join(venv, ".atlas-requirements.txt"), "utf8");
    expect(file)
      .to.match(/^torch==2\.9\.1$/m)
      .and.match(/^numpy==/m);
    expect(setUp({ ATLAS_PYTHON }).lines).to.deep.equal(["set-up: everything is in place"]);
    expect(setUp({ ATLAS_PYTHON, ATLAS_TORCH: "" }).code).to.equal(0); // back to the pinned one
    expect(done()).to.deep.equal(["venv", "pip", "pip"]);
  });

  it("makes anew a venv whose making was killed, and ends what it left running", async () => {
    const ATLAS_PYTHON = fakePython();
    const hangs = join(dir, "pip-hangs");
    const killed = spawn(process.execPath, command, {
      env: environment({ ATLAS_PYTHON, FAKE_PIP_HANGS: hangs }),
      stdio: "ignore",
    });
    await until(() => existsSync(hangs) && lockOf(venv)?.child !== undefined);
    const pip = lockOf(venv)!.child!.pid;
    await kill(killed);
    expect(state()).to.equal("building");
    const outcome = setUp({ ATLAS_PYTHON });
    expect(outcome.code, outcome.lines.join("\n")).to.equal(0);
    expect(outcome.lines.join("\n")).to.contain("incomplete; making it again");
    expect(done()).to.deep.equal(["venv", "pip", "venv", "pip"]);
    await until(() => !isAlive(pip));
  });

  it("makes anew a venv that has lost a package", () => {
    const ATLAS_PYTHON = fakePython();
    setUp({ ATLAS_PYTHON });
    rmSync(join(venv, "site/torch"), { recursive: true });
    expect(setUp({ ATLAS_PYTHON }).code).to.equal(0);
    expect(done()).to.deep.equal(["venv", "pip", "venv", "pip"]);
  });

  it("makes anew a venv whose Python is gone", () => {
    const ATLAS_PYTHON = fakePython();
    mkdirSync(join(venv, "bin"), { recursive: true });
    writeFileSync(join(venv, "pyvenv.cfg"), "");
    expect(setUp({ ATLAS_PYTHON }).code).to.equal(0);
    expect(done()).to.deep.equal(["venv", "pip"]);
  });

  it("goes on from what is there after pip failed without a network", () => {
    const ATLAS_PYTHON = fakePython();
    const FAKE_PIP_ERROR =
      "Could not find a version that satisfies the requirement torch==2.13.0 (from versions: none)";
    const outcome = setUp({ ATLAS_PYTHON, FAKE_PIP_ERROR });
    expect(outcome.code).to.equal(1);
    expect(error(outcome)).to.match(
      /^error: pip could not fetch .*torch==2\.13\.0.*is there a network\?; check the network/,
    );
    expect(state()).to.equal("incomplete");
    expect(setUp({ ATLAS_PYTHON }).code).to.equal(0);
    expect(done()).to.deep.equal(["venv", "pip", "pip"]);
  });

  it("keeps a venv in use when its update fails", () => {
    const ATLAS_PYTHON = fakePython();
    setUp({ ATLAS_PYTHON });
    const outcome = setUp({
      ATLAS_PYTHON,
      ATLAS_TORCH: "torch==99",
      FAKE_PIP_ERROR: "No space left on device",
    });
    expect(outcome.code).to.equal(1);
    expect(error(outcome)).to.match(/no space is left on the disk; free some/);
    expect(setUp({ ATLAS_PYTHON }).lines).to.deep.equal(["set-up: everything is in place"]);
  });

  it("adds what only some commands need when it is asked for, once, and says under which licence", () => {
    const ATLAS_PYTHON = fakePython();
    setUp({ ATLAS_PYTHON });
    const first = setUpJets({ ATLAS_PYTHON });
    expect(first.code, first.lines.join("\n")).to.equal(0);
    expect(first.lines[0]).to.match(/^set-up: .*PYTHIA 8 and FastJet, .*GNU GPL; .*optional/);
    expect(first.lines[1]).to.match(/^set-up: installing PYTHIA 8 and FastJet \(pip\)/);
    expect(setUpJets({ ATLAS_PYTHON })).to.deep.equal({ code: 0, lines: [""], stdout: "" });
    expect(setUp({ ATLAS_PYTHON }).lines).to.deep.equal(["set-up: everything is in place"]);
    expect(done()).to.deep.equal(["venv", "pip", "pip"]);
  });

  it("keeps a venv in use when what only some commands need cannot be had", () => {
    const ATLAS_PYTHON = fakePython();
    setUp({ ATLAS_PYTHON });
    const outcome = setUpJets({
      ATLAS_PYTHON,
      FAKE_PIP_ERROR: "No matching distribution found for pythia8mc==8.317.2",
    });
    expect(outcome.code).to.equal(1);
    expect(error(outcome)).to.match(
      /^error: pip found no pythia8mc==8\.317\.2 for this Python and platform/,
    );
    expect(setUp({ ATLAS_PYTHON }).lines).to.deep.equal(["set-up: everything is in place"]);
    expect(setUpJets({ ATLAS_PYTHON }).code).to.equal(0);
  });

  it("knows that a venv made anew has lost what was added", () => {
    const ATLAS_PYTHON = fakePython();
    setUpJets({ ATLAS_PYTHON });
    rmSync(join(venv, "site/torch"), { recursive: true });
    setUp({ ATLAS_PYTHON });
    expect(setUpJets({ ATLAS_PYTHON }).lines.join("\n")).to.contain(
      "installing PYTHIA 8 and FastJet",
    );
    expect(done()).to.deep.equal(["venv", "pip", "venv", "pip", "pip"]);
  });

  it("names the folder that cannot be written to", () => {
    writeFileSync(join(dir, "file"), "");
    const outcome = setUp({ ATLAS_PYTHON: fakePython(), ATLAS_VENV: join(dir, "file/venv") });
    expect(outcome.code).to.equal(1);
    expect(error(outcome)).to.match(
      /^error: cannot make the Python environment in .*file\/venv: .*is a file.*; set ATLAS_VENV/,
    );
  });

  it("does not touch a folder that holds other things", () => {
    mkdirSync(venv);
    writeFileSync(join(venv, "thesis.tex"), "precious");
    const outcome = setUp({ ATLAS_PYTHON: fakePython() });
    expect(outcome.code).to.equal(1);
    expect(error(outcome)).to.match(
      /holds other things \(thesis\.tex\); set ATLAS_VENV to an empty or new folder/,
    );
    expect(readdirSync(venv)).to.deep.equal(["thesis.tex"]);
  });

  it("is done once when two start at the same time", async () => {
    const ATLAS_PYTHON = fakePython();
    const both = [0, 1].map(() =>
      spawn(process.execPath, command, { env: environment({ ATLAS_PYTHON }), stdio: "ignore" }),
    );
    const codes = await Promise.all(
      both.map(async (child) => (await once(child, "close"))[0] as number),
    );
    expect(codes).to.deep.equal([0, 0]);
    expect(done()).to.deep.equal(["venv", "pip"]);
  });

  it("says which scripts there are", () => {
    const { status, stderr } = spawnSync(process.execPath, [command[0]!, "tset"], {
      encoding: "utf8",
    });
    expect(status).to.equal(2);
    expect(stderr).to.match(/unknown script "tset"; choose one of atlas, demo/);
  });
});

interface Lock {
  child?: { pid: number };
}

function lockOf(venv: string): Lock | undefined {
  try {
    return JSON.parse(readFileSync(join(venv, ".atlas-lock"), "utf8")) as Lock;
  } catch {
    return undefined;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ");
  } catch {
    return false;
  }
}

async function kill(child: ChildProcess): Promise<void> {
  const closed = once(child, "close");
  child.kill("SIGKILL");
  await closed;
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 200; i++) {
    if (condition()) return;
    await sleep(50);
  }
  throw new Error("it did not happen within 10 s");
}
