/**
 * Bad input and broken surroundings: one clear line that names the thing and the remedy, the right
 * exit code, and nothing lost.
 */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { execaSync } from "execa";
import { ensureVenv } from "../../src/setup/venv.js";
import { Tensor, writeNpy, writeSafetensors } from "../../src/tensor/index.js";
import { PROTOCOL_VERSION } from "../../src/worker/index.js";
import { FakeWorker } from "../unit/worker/fake-worker.js";
import { atlas, complaint, type Done, LONG, mountTmpfs, refuses, sharedWorker } from "./atlas.js";

const TINY = [
  "pde",
  "--layout=2",
  "--N=4",
  "--epochs=1",
  "--device=cpu",
  "--threads=1",
  "--solver=atlasd",
  "--evidence=none",
];
const COSETS = ["pde", "--task", "discover_cosets", "--identity"];

/** A .npy file of one matrix, [1, n, n]. */
const matrices = (...rows: number[][]) => writeNpy(Tensor.from([rows]));

describe("bad input", function () {
  this.timeout(LONG);
  let dir: string;
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  let address: string;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-bad-"));
    where = { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state") } };
    address = await sharedWorker();
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  const refused = (cases: [args: string[], line: RegExp][], code?: number) =>
    refuses(cases, where, code);
  const file = (name: string, contents: string | Uint8Array) => {
    writeFileSync(join(dir, name), contents);
    return name;
  };

  it("commands, experiments and flags that do not exist", () =>
    refused([
      [
        ["pdee"],
        /^error: unknown command or experiment "pdee" \(did you mean pde\?\); .*pde, .*run, /,
      ],
      [
        ["help", "shwo"],
        /^error: unknown command or experiment "shwo" \(did you mean show\?\); choose/,
      ],
      [
        ["pde", "--tsk", "x"],
        /^error: unknown option '--tsk' \(Did you mean --task\?\); see --help$/,
      ],
      [["pde", "extra"], /^error: too many arguments for 'pde'.* got 1; see --help$/],
      [["worker", "stat"], /^error: unknown command 'stat' \(Did you mean start\?\); see --help$/],
      [["run"], /^error: missing required argument 'file'; see --help$/],
      [["run", "none.ts"], /^error: there is no experiment file none\.ts; check the path$/],
      [
        ["run", file("empty.ts", "export {};")],
        /^error: empty\.ts has no experiment as its default export; write: /,
      ],
      [
        ["run", file("broken.ts", "const = 1;")],
        /^error: broken\.ts cannot be loaded: .*; run again with --debug/,
      ],
    ]));

  it("asks a command that needs a subcommand for one", async () => {
    for (const command of ["worker", "checkpoint"]) {
      const { code, stdout, stderr } = await atlas([command]);
      expect({ code, stdout }).to.deep.equal({ code: 2, stdout: "" });
      expect(stderr)
        .to.match(new RegExp(`^Usage: atlas ${command} .*Commands:`, "s"))
        .and.not.contain("error");
    }
  });

  it("values that a flag does not take", () =>
    refused([
      [
        ["pde", "--task", "discover_algbra"],
        /^error: .* no task "discover_algbra" \(did you mean discover_algebra\?\); choose /,
      ],
      [["pde", "--layout", "3"], /^error: --layout 3: expected one of 1, 2; see --help$/],
      ...["0", "-1", "NaN", "1.5"].map((value): [string[], RegExp] => [
        ["pde", `--epochs=${value}`],
        new RegExp(`^error: --epochs ${value}: expected a whole number of at least 1; see --help$`),
      ]),
      [["pde", "--epochs"], /^error: option '--epochs <number>' argument missing; see --help$/],
      [
        ["pde", "--predictor-lr", "-1"],
        /^error: --predictor-lr is -1: expected a number of at least 0; see: atlas blocks$/,
      ],
      ...["NaN", "4294967296"].map((value): [string[], RegExp] => [
        ["pde", "--seed", value],
        new RegExp(
          `^error: --seed ${value}: expected .*at least 0 and at most 4294967295; see --help$`,
        ),
      ]),
      [
        ["pde", "--k", "5"],
        /^error: --k 5: expected a whole number of at least 1 and at most 4; see --help$/,
      ],
      [
        ["pde", "--preset", "thorogh"],
        /^error: unknown preset "thorogh" \(did you mean thorough\?\); choose/,
      ],
      [
        ["pde", "--task", "discover_cosets"],
        /^error: no finished run .* algebra .*; .*--task discover_algebra, or give --identity /,
      ],
      [
        [...COSETS, "so(2)", "--k", "2"],
        /^error: --k has no effect with --task discover_cosets; leave it out; .*discover_algebra$/,
      ],
      [
        ["climate", "--task", "downstream_baseline", "--background_weight", "1"],
        /^error: --background-weight has no effect with --task downstream_baseline; .*discover$/,
      ],
      [
        ["worker", "start", "--port", "70000"],
        /^error: --port 70000: expected .* at most 65535; see --help$/,
      ],
    ]));

  it("predictors that are missing or are none", async () => {
    const { python } = await ensureVenv();
    const script = `
import os, pickle, torch
class Code:
    def __reduce__(self):
        return os.system, ("touch executed",)
torch.save({"x": Code()}, "code.pt")
torch.save({"w": torch.ones(3)}, "whole.pt")
data = open("whole.pt", "rb").read()
open("cut.pt", "wb").write(data[: len(data) // 2])
`;
    execFileSync(python, ["-W", "ignore", "-c", script], {
      cwd: dir,
      stdio: ["ignore", "ignore", "inherit"],
    });
    const weights = writeSafetensors(new Map([["w", Tensor.from([1, 2, 3], "float32")]]));
    file("other.safetensors", weights);
    file("cut.safetensors", weights.subarray(0, -5));
    const reuse = (source?: string) => [
      ...TINY,
      `--worker=${address}`,
      "--reuse_predictor",
      ...(source === undefined ? [] : [source]),
    ];
    await refused([
      [
        reuse("none.pt"),
        /^error: --reuse-predictor none\.pt: there is no such file; check the path$/,
      ],
      [reuse("none"), /^error: no run "none" in .*runs; list them with: atlas runs/],
      [
        reuse(),
        /^error: no finished run in .*runs has a predictor .*; leave out --reuse-predictor/,
      ],
      [reuse("cut.safetensors"), /^error: .*cut\.safetensors is (damaged|truncated).*;/],
      [reuse("cut.pt"), /^error: .*cut\.pt is damaged or truncated.*;/],
      [
        reuse("code.pt"),
        /^error: .*code\.pt was not loaded, .* would execute code .*; save only its weights/,
      ],
      [reuse("other.safetensors"), /^error: .*(weight|tensor).*;/],
      [reuse("whole.pt"), /^error: .*(weight|tensor).*;/],
    ]);
    expect(existsSync(join(dir, "executed"))).to.equal(false);
  });

  it("identity components that are missing, misshapen or none", () =>
    refused([
      [
        [...COSETS, "none.npy"],
        /^error: --identity none\.npy: there is no such file; check the path$/,
      ],
      [
        [...COSETS, "so(3)"],
        /^error: --identity so\(3\): no run "so\(3\)" in .*; .* one of so\(2\)/,
      ],
      [
        [...COSETS, file("large.npy", matrices([0, -1, 0], [1, 0, 0], [0, 0, 0]))],
        /^error: --identity large\.npy: its matrices are 3x3; give a basis of shape \[k, 2, 2\]$/,
      ],
      [
        [...COSETS, file("ragged.json", "[[[0, -1], [1]]]")],
        /^error: --identity ragged\.json: .*; give a basis/,
      ],
      [
        [...COSETS, file("flat.npy", writeNpy(Tensor.from([1, 2])))],
        /^error: .*flat\.npy holds no basis .*; give/,
      ],
      [
        [...COSETS, file("infinite.json", "[[[0, -1e999], [1, 0]]]")],
        /^error: .*infinite\.json.*; give/,
      ],
      [
        [...COSETS, file("nan.npy", matrices([0, Number.NaN], [1, 0]))],
        /^error: .*nan\.npy.*; give/,
      ],
      [
        [...COSETS, file("words.json", '{"hello": 1}')],
        /^error: .*words\.json holds no basis of a Lie algebra; give/,
      ],
      [[...COSETS, file("torn.json", "[[[0, ")], /^error: .*torn\.json is not JSON: .*; give/],
      [[...COSETS, file("torn.npy", matrices([0, 1]).subarray(0, -3))], /^error: .*torn\.npy.*;/],
    ]));

  it("runs that are not there", () =>
    refused([
      [["resume", "none"], /^error: no run "none" in .*runs; list them with: atlas runs/],
      [["show", "none"], /^error: no run "none" in .*runs; list them with: atlas runs/],
      [["show"], /^error: there are no runs in .*runs; start one: atlas pde$/],
    ]));

  it("workers that are nonsense, out of reach, or of another protocol version", async () => {
    await refused([
      [
        [...TINY, "--worker", "nonsense"],
        /^error: "nonsense" is not the address of a worker; give local, .*\(--worker\)$/,
      ],
      [
        [...TINY, "--worker", "grpc://host:99999"],
        /^error: "grpc:\/\/host:99999" is not the address/,
      ],
    ]);
    const other = await FakeWorker.start();
    other.protocolVersion = PROTOCOL_VERSION + 1;
    try {
      await refused(
        [
          [
            [...TINY, "--worker", "grpc://127.0.0.1:1"],
            /^error: cannot reach the worker at 127\.0\.0\.1:1: nothing listens .*; check the /,
          ],
          [
            [...TINY, "--worker", `grpc://${other.address}`],
            new RegExp(
              `^error: .* ${PROTOCOL_VERSION + 1}, .* ${PROTOCOL_VERSION}; update this package$`,
            ),
          ],
        ],
        1,
      );
    } finally {
      await other.stop();
    }
  });

  it("devices that are not there", () =>
    refused([
      [
        [...TINY, "--device", "cuda:7"],
        /^error: this worker has no device 'cuda:7': --device takes auto, cpu/,
      ],
      [
        [...TINY, "--device", "toaster", "--worker", address],
        /^error: this worker has no device 'toaster'.*; expected: auto, cpu.*; choose one/,
      ],
    ]));

  it("a port in use", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    try {
      const state = { XDG_STATE_HOME: join(dir, "no-worker") };
      const done = await atlas(["worker", "start", "--port", String(port)], { env: state });
      expect(complaint(done, 2)).to.match(
        new RegExp(`^error: port ${port} is in use; .*--port\\)$`),
      );
    } finally {
      server.close();
    }
  });

  describe("a run folder", () => {
    const run = (runs: string, ...more: string[]): Promise<Done> =>
      atlas(
        [...TINY, "--task=discover_algebra", `--worker=${address}`, "--runs", runs, ...more],
        where,
      );

    it("with a file in its place", async () => {
      file("occupied", "mine");
      expect(complaint(await run("occupied"), 2)).to.match(
        /^error: cannot create .*occupied.*; choose another folder with --runs DIR$/,
      );
      expect(complaint(await run("occupied/runs"), 2)).to.match(
        /^error: cannot create .*: a part of its path is a file.*; .* folder with --runs DIR$/,
      );
      expect(readFileSync(join(dir, "occupied"), "utf8")).to.equal("mine");
    });

    /** A file system of our own, mounted while `work` runs; skipped where that is not permitted. */
    async function mounted(
      test: Mocha.Context,
      options: string,
      work: (path: string) => Promise<void>,
    ) {
      const path = join(dir, "mounted");
      mkdirSync(path, { recursive: true });
      const unmount = mountTmpfs(path, options);
      if (!unmount) return test.skip();
      try {
        await work(path);
      } finally {
        unmount();
      }
    }

    it("that is read-only", function () {
      return mounted(this, "ro", async (path) => {
        expect(complaint(await run(path), 2)).to.match(
          /^error: cannot create .* read-only file system; .* folder with --runs DIR$/,
        );
      });
    });

    it("that is full, and later is not", function () {
      return mounted(this, "size=64k", async (path) => {
        expect(complaint(await run(path), 1)).to.match(
          /^error: cannot write .*: no space is left .*; free some.*: atlas resume \S+$/,
        );
        execaSync("mount", ["-o", "remount,size=64m", path]);
        const [id, ...others] = readdirSync(path);
        expect(others).to.deep.equal([]);
        const resumed = await atlas(["resume", id!, "--runs", path], where);
        expect(resumed.code, resumed.stderr).to.equal(0);
        expect(readdirSync(join(path, id!))).to.include.members(["result.json", "report.html"]);
      });
    });

    it("whose report cannot be written still gets its result, and a warning", async () => {
      const first = await run("reports", "--json", "--fixed_seed");
      expect(first.code, first.stderr).to.equal(0);
      const path = join(dir, "reports", readdirSync(join(dir, "reports"))[0]!);
      rmSync(join(path, "result.json"));
      rmSync(join(path, "report.html"));
      mkdirSync(join(path, "report.html/in-the-way"), { recursive: true });
      const { code, stdout, stderr } = await atlas(["resume", path, "--json"], where);
      expect(code, stderr).to.equal(0);
      expect(stderr).to.match(
        /^warning: the report could not be written: cannot write .*report\.html: it is a folder/m,
      );
      const essence = (text: string) => ({ ...(JSON.parse(text) as object), timings: undefined });
      expect(essence(stdout)).to.deep.equal(essence(first.stdout));
    });
  });
});
