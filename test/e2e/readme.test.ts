/**
 * What the documents say is true: their commands and examples run, and what they link to is there.
 *
 * Changed for speed only: experiments get {@link FAST}'s flags and share a worker, and a free port
 * stands in for the one that is named. `npm run demo` and the like are not run from within the
 * tests, which are one of them; that they exist, and that `atlas demo` does, is checked.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { expect } from "chai";
import { execa } from "execa";
import { ensureVenv } from "../../src/setup/venv.js";
import { writeNpy } from "../../src/tensor/index.js";
import { apart, atlas, LONG, ROOT, sharedWorker } from "./atlas.js";
import { waves } from "./waves.js";

const SEARCH = "--solver.starts 1 --solver.steps 2 --solver.evaluation 2";
const FAST: readonly [commands: RegExp, flags: string][] = [
  // So few samples decide nothing by themselves.
  [/^pde .*--task/, "--N 8 --epochs 1 --evidence none"],
  [/^pde .*--task discover(_algebra)?(?!.*paper) /, `--algebra-epochs 1 ${SEARCH}`],
  [/^pde .*--task discover(_cosets)? /, "--candidates 4 --max-components 4 --coset_solver.steps 4"],
  [/^own-data |^discover .*--targets /, "--epochs 1"],
  [/^(discover|own-data) (?!.*_cosets )/, `--algebra-epochs 1 ${SEARCH}`],
  [/^(discover|own-data) (?!.*_algebra )/, "--candidates 2 --coset_solver.steps 2"],
  [/^(discover|own-data) /, "--worker local --device cpu"],
  [/^train /, "--samples 40 --pairs 1 --epochs 1"],
  [/^audit /, "--worker local --device cpu --samples 8"],
  [/^data toptagging /, "--generate 60"],
  [/^data climate /, "--generate 2"],
  [/^climate /, "--N 2 --test 1 --stride 8 --epochs 1"],
  [/^climate .*discover /, `--cgnet-n 1 --cgnet-width 4 ${SEARCH}`],
  [/^climate .*downstream/, "--resolution 3 --levels 3"],
  [/^mnist /, "--digits sklearn --epochs 1 --batch-size 8"],
  [/^mnist (?!.*compare)/, "--N 8"],
  [/^mnist .*compare/, "--samples 8 --pairs 1 --test 4"],
  [/^mnist .*--task discover /, `--algebra-epochs 1 ${SEARCH}`],
  [/^mnist .*liegan/, "--seeds 1"],
  [/^mnist .*downstream/, "--test 4"],
  [/^toptagging /, "--N 30 --constituents 4 --epochs 1"],
  [/^toptagging .*(discover|discover_cosets) /, "--candidates 4"],
];

const EXPERIMENTS = new Set(
  "pde toptagging mnist climate probe own-data discover train audit".split(" "),
);

/** Of this repository. */
const DOCUMENTS = [
  "README.md",
  "experiments/README.md",
  "src/worker/README.md",
  "src/method/README.md",
  "src/dashboard/README.md",
  "src/pool/README.md",
  "proto/README.md",
  "test/bench/README.md",
  "py-worker/atlas_worker/METHOD.md",
  ".github/CONTRIBUTING.md",
  ".github/CHANGELOG.md",
];
const textOf = (document: string) => readFileSync(join(ROOT, document), "utf8");
const fenced = (document: string, language: string) =>
  [...textOf(document).matchAll(/^```(\S*)\n([\s\S]*?)^```$/gm)]
    .filter((m) => m[1] === language)
    .map((m) => m[2]!);
const isExperiment = (code: string) => code.includes("defineExperiment");
/** Every command once, in the order of the documents. */
const commands = new Set(
  DOCUMENTS.flatMap((document) => fenced(document, "sh"))
    .flatMap((block) => block.trim().split("\n"))
    .map((command) => command.trim()),
);

/** The words of a command line, as a shell splits them. */
const wordsOf = (line: string) =>
  [...line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map((m) => m[1] ?? m[2] ?? m[3]!);

describe("the documents", function () {
  this.timeout(LONG); // experiments run, and what makes jets may have to be installed
  let dir: string;
  let port: number;
  let env: NodeJS.ProcessEnv;
  let shared: string;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-readme-"));
    writeFileSync(join(dir, "inputs.npy"), writeNpy(waves(0)));
    writeFileSync(join(dir, "targets.npy"), writeNpy(waves(0.1)));
    const { python } = await ensureVenv();
    const predictor = `
import torch
net = torch.nn.Conv2d(1, 1, 3, padding=1)
torch.jit.trace(net, torch.zeros(2, 1, 29, 29)).save("predictor.pt")
import numpy
for name, source in ("wind", "inputs"), ("flow", "targets"):
    field = numpy.load(source + ".npy")
    numpy.save(name, numpy.concatenate([field, field[::-1]], 1))
import h5py, xarray
x = numpy.random.default_rng(0).normal(size=(200, 2, 3)).astype("f4")
with h5py.File("pairs.h5", "w") as h: h.update({"x": x, "y": (x[:, 0] * x[:, 1]).sum(1)})
fields = numpy.random.default_rng(0).normal(size=(4, 24, 40, 40)).astype("f4")
names = dict(zip(["T", "U", "V", "RAIN"], [(("time", "lat", "lon"), f) for f in fields]))
lines = {"lat": numpy.linspace(40, 1, 40), "lon": numpy.arange(40.0)}
t = numpy.arange(9) * 0.4 + numpy.arange(100)[:, None]
turn = [numpy.cos(t), numpy.sin(t), -numpy.sin(t), numpy.cos(t)]
numpy.save("orbits", numpy.stack(turn, 2))
xarray.Dataset(names, lines).to_netcdf("storms.nc", engine="scipy")`;
    execFileSync(python, ["-W", "ignore", "-c", predictor], { cwd: dir });
    port = await freePort();
    shared = await sharedWorker();
    env = { XDG_STATE_HOME: join(dir, "state"), XDG_CACHE_HOME: join(dir, "cache") };
  });
  after(async () => {
    await atlas(["worker", "stop"], { cwd: dir, env }); // should a test before its own have failed
    rmSync(dir, { recursive: true, force: true });
  });

  it("have commands in fenced blocks of kinds that are tested here", () => {
    const kinds = DOCUMENTS.flatMap((document) =>
      [...textOf(document).matchAll(/^```(\S+)$/gm)].map((m) => m[1]),
    );
    expect([...new Set(kinds)].sort()).to.deep.equal(["bibtex", "sh", "text", "ts"]);
    expect([...commands]).to.include.members(["npm run demo", "npm test"]);
  });

  for (const command of commands)
    it(command, async () => {
      const { scripts } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as {
        scripts: Record<string, string>;
      };
      const script = /^npm (?:run )?([a-z]+)$/.exec(command)?.[1];
      if (script !== undefined) {
        expect(scripts).to.have.property(script);
        if (script === "demo") expect((await atlas(["demo", "--help"])).code).to.equal(0);
        return;
      }
      const [, line, file] = /^npm run -s atlas -- ([^>]*?)(?: > (\S+))?$/.exec(command) ?? [];
      expect(line, `a command that this test knows: ${command}`).to.be.a("string");
      const words = wordsOf(line!.replaceAll("50051", String(port)));
      const fast = FAST.flatMap(([which, flags]) => (which.test(line!) ? flags.split(" ") : []));
      const computes = EXPERIMENTS.has(words[0]!) || words[1] === "inspect";
      const here = computes && !/--worker/.test([line, ...fast].join(" "));
      const at = here ? ["--worker", shared] : [];
      const { code, stdout, stderr } = await atlas([...words, ...fast, ...at], { cwd: dir, env });
      expect(code, stderr).to.equal(0);
      expect(stdout).not.to.equal("");
      if (file?.endsWith(".json")) expect(JSON.parse(stdout)).to.have.property("algebra");
    });

  it("have an experiment of one's own that runs", async () => {
    const [example] = fenced("experiments/README.md", "ts").filter(isExperiment);
    writeFileSync(join(dir, "waves.ts"), example!);
    const run = ["./waves.ts", "--N", "20", "--worker", shared, "--json"];
    const { code, stdout, stderr } = await apart(run, { cwd: dir, env });
    expect(code, stderr).to.equal(0);
    expect(JSON.parse(stdout).notes).to.deep.equal(["20 samples"]);
  });

  it("have scripts of ten lines that find symmetries", async () => {
    const scripts = fenced("experiments/README.md", "ts").filter((code) => !isExperiment(code));
    expect(scripts).to.have.length(4);
    for (const code of scripts) expect(code.trimEnd().split("\n").length).to.be.at.most(10);
    const index = JSON.stringify(join(ROOT, "src/index.ts"));
    const search = { "solver.starts": 1, "solver.steps": 2, "solver.evaluation": 2 };
    const fast = { task: "discover_algebra", epochs: 1, algebra_epochs: 1, ...search };
    const options = { seed: 0, worker: { address: shared } };
    const library = `export * from ${index};
      import { discover as whole, Progress } from ${index};
      const progress = new Progress({ quiet: true });
      export const discover = (input) => whole(
        { ...input, ...${JSON.stringify(fast)} }, { ...${JSON.stringify(options)}, progress });`;
    writeFileSync(join(dir, "library.mts"), library);
    const names = scripts.map((code, i) => {
      writeFileSync(join(dir, `${i}.mts`), code.replace('"atlas-symmetry"', '"./library.mts"'));
      return `./${i}.mts`;
    });
    const all = names.map((name) => `await import("${name}");`).join("\n");
    writeFileSync(join(dir, "all.mts"), all);
    const { exitCode, stdout, stderr } = await execa(
      process.execPath,
      ["--import", import.meta.resolve("tsx"), join(dir, "all.mts")],
      { cwd: dir, env, reject: false },
    );
    expect(exitCode, stderr).to.equal(0);
    expect(stdout).to.match(/chart at \(\d+, \d+\): \w+, error 0\.\d+/);
  });

  it("link to what is there", () => {
    for (const document of DOCUMENTS) {
      const targets = [...textOf(document).matchAll(/\]\(([^)]+)\)/g)].map((m) => m[1]!);
      for (const target of targets.filter((t) => !t.startsWith("https://"))) {
        const [path, anchor] = target.split("#");
        const file = path === "" ? join(ROOT, document) : join(ROOT, dirname(document), path!);
        expect(existsSync(file), `${document} links to ${target}`).to.equal(true);
        if (anchor === undefined) continue;
        const headings = [...readFileSync(file, "utf8").matchAll(/^#+ (.*)$/gm)];
        const anchors = headings.map((m) => anchorOf(m[1]!));
        expect(anchors, `${document} links to ${target}`).to.include(anchor);
      }
    }
  });
});

/** The anchor that GitHub gives a heading. */
function anchorOf(heading: string): string {
  const text = heading.toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, "");
  return text.replaceAll(" ", "-");
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() =>
        resolve(typeof address === "object" && address !== null ? address.port : 0),
      );
    });
  });
}
