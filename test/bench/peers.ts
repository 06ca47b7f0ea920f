/**
 * `npm run bench -- peers --checkout DIR …`: other methods' published code beside ours, on the same
 * data, in turns, with as many threads. None of that code is in this repository: the user has a
 * clone of it. Both answers are compared with the truth.
 */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { execa } from "execa";
import { grassmannDistance, type SquareMatrix } from "../../src/algebra/index.js";
import { Result } from "../../src/result.js";
import { ensureCompiled, MAIN } from "../../src/setup/node.mjs";
import { ensureVenv } from "../../src/setup/venv.js";
import { n, type Part, part, type Row } from "../benchmark-parts.js";
import { median } from "./statistics.js";

/** What the user says. */
export interface PeerOptions {
  /** Clones of published code. */
  checkouts: readonly string[];
  /** A Python that has the packages which that code imports (default: one is made). */
  python?: string;
  /** Folder of train.h5, for the jets. */
  jets?: string;
  /** Number of plates (default 1,000). */
  samples?: number;
  /** Epochs of the published code (default: as its README says). */
  epochs?: number;
  /** Threads of each (default 1). */
  threads?: number;
  /** How often each is run (default 1). */
  turns?: number;
}

/** A program that was run. */
interface Trial {
  seconds: number;
  /** Largest resident memory of its processes together. */
  peakBytes: number;
  /** Answers in the order in which they were printed, with the seconds until then. */
  answers: { seconds: number; distance: number }[];
}

/** Both methods on one problem. */
export interface Comparison {
  problem: string;
  theirs: Trial[];
  ours: Trial[];
}

/** A problem that a checkout has. */
interface Problem {
  name: string;
  /** File of the checkout by which it is known. */
  file: string;
  truth: readonly SquareMatrix[];
  /** The truth in the coordinates of our command, if they differ. */
  ours?: readonly SquareMatrix[];
  /** What else the problem needs; undefined if nothing is missing. */
  lacks?(options: PeerOptions): string | undefined;
  /** Write the data, and return the published command, with its folder `work`. */
  prepare(at: Place): Promise<{ published: readonly string[]; atlas: readonly string[] }>;
}

/** Where a problem is worked on. */
interface Place {
  checkout: string;
  /** A folder of its own. */
  work: string;
  options: PeerOptions;
  /** Run a program of theirs or ours in their Python. */
  run(args: readonly string[]): Promise<unknown>;
}

const TURN: SquareMatrix = [
  [0, -1],
  [1, 0],
];

/** Make a matrix of zeros with some other entries. */
function matrix(size: number, entries: readonly (readonly [number, number, number])[]) {
  const zeros = Array.from({ length: size }, () => Array<number>(size).fill(0));
  for (const [i, j, value] of entries) zeros[i]![j] = value;
  return zeros;
}

const pairs = (size: number) =>
  Array.from({ length: size }, (_, i) => Array.from({ length: i }, (_, j) => [i, j])).flat() as [
    number,
    number,
  ][];
/** The rotations of a space; or with a sign of −1, rotations and boosts: the first is time. */
const turns = (size: number, time = false) =>
  pairs(size).map(([i, j]) =>
    matrix(size, [
      [i, j, 1],
      [j, i, time && j === 0 ? 1 : -1],
    ]),
  );
const one = (size: number) =>
  matrix(
    size,
    Array.from({ length: size }, (_, i) => [i, i, 1] as const),
  );

/** The charts of the published experiment on the heat equation, in pixels of 128 × 128. */
const CHARTS = [0.15, 0.325, 0.5, 0.675, 0.85]
  .flatMap((v) => [0.15, 0.325, 0.5, 0.675, 0.85].map((u) => [u, v] as const))
  .filter(([u, v]) => v > 0.6 || u > 0.4)
  .map(([u, v]) => `${Math.trunc(u * 128)},${Math.trunc(v * 128)}`);

const ALGEBRA = ["discover", "--task", "discover_algebra", "--evidence", "none"];
const ARRAYS = ["--inputs", "inputs.npy", "--targets", "targets.npy"];
const PEER = resolve(import.meta.dirname, "peer.py");

const PROBLEMS: readonly Problem[] = [
  {
    name: "heat on a plate",
    file: "experiment_pde.py",
    truth: [TURN],
    async prepare({ checkout, work, options: { samples = 1000, epochs = 10 }, run }) {
      await mkdir(join(work, "predictors"));
      await run([PEER, "plates", checkout, work, String(samples)]);
      const task = ["--task", "discover_algebra", "--fixed_seed"];
      const sizes = ["--epochs", String(epochs), "--N", String(samples)];
      const charts = ["--charts", CHARTS.join(" "), "--r-in", "14", "--r-out", "10"];
      return {
        published: [PEER, "run", join(checkout, "experiment_pde.py"), ...task, ...sizes],
        atlas: [...ALGEBRA, ...ARRAYS, ...charts, "--k", "1"],
      };
    },
  },
  {
    name: "top tagging",
    file: "experiment_toptagging.py",
    truth: [...turns(4, true), one(4)],
    lacks: ({ jets }) =>
      jets && existsSync(join(jets, "train.h5"))
        ? undefined
        : "give --jets FOLDER (atlas data toptagging --generate 24000 --out FOLDER)",
    async prepare({ checkout, work, options: { jets, epochs = 10 } }) {
      for (const folder of ["predictors", "data"]) await mkdir(join(work, folder));
      await symlink(resolve(jets!), join(work, "data/top-tagging"));
      const task = ["--task", "discover_algebra", "--fixed_seed", "--epochs", String(epochs)];
      const own = ["toptagging", "--task", "discover_algebra", "--data", "data/top-tagging"];
      return {
        published: [PEER, "run", join(checkout, "experiment_toptagging.py"), ...task],
        atlas: [...own, "--N", "0", "--k", "7"],
      };
    },
  },
  {
    name: "two bodies",
    file: "main_lagan.py",
    truth: [
      matrix(
        8,
        [0, 2, 4, 6].flatMap((i) => [[i, i + 1, -1] as const, [i + 1, i, 1] as const]),
      ),
    ],
    ours: [TURN],
    async prepare({ checkout, work, options: { epochs = 100 }, run }) {
      await symlink(join(checkout, "data"), join(work, "data"));
      await run([PEER, "bodies", checkout, work, "0"]);
      const search = ["--g_init", "2*2_factorization", "--lamda", "1", "--sigma_init", "1"];
      const save = ["--num_epochs", String(epochs), "--save_path", work];
      return {
        published: [PEER, "run", join(checkout, "main_lagan.py"), ...search, ...save],
        atlas: [...ALGEBRA, ...ARRAYS, "--inputs-as", "4V", "--targets-as", "4V"],
      };
    },
  },
  {
    name: "O(5)",
    file: "o5_regression.ipynb",
    truth: turns(5),
    async prepare({ checkout, work }) {
      return {
        published: [PEER, "o5", checkout, work, "0"],
        atlas: [...ALGEBRA, ...ARRAYS],
      };
    },
  },
];

/** The parts of the benchmark: one for each problem that a checkout has. */
export function peerParts(options: PeerOptions): Record<string, Part> {
  const parts: Record<string, Part> = {};
  for (const problem of PROBLEMS) {
    const checkout = options.checkouts.find((folder) => existsSync(join(folder, problem.file)));
    if (checkout === undefined) continue;
    const name = problem.name.replaceAll(" ", "-");
    const lacks = problem.lacks?.(options);
    parts[name] =
      lacks === undefined
        ? part(() => compare(problem, resolve(checkout), options), comparisonRows)
        : async () => ({ found: { lacks }, rows: [[problem.name, "left out", lacks]] });
  }
  return parts;
}

async function compare(
  problem: Problem,
  checkout: string,
  options: PeerOptions,
): Promise<Comparison> {
  await ensureCompiled((line) => void process.stderr.write(`set-up: ${line}\n`));
  const python = options.python ?? (await peerPython());
  const { threads = 1, turns = 1 } = options;
  const work = await mkdtemp(join(tmpdir(), "atlas-peers-"));
  const env = {
    ...{ OMP_NUM_THREADS: String(threads), MKL_NUM_THREADS: String(threads) },
    ...{ PYTHONDONTWRITEBYTECODE: "1", PYTHONUNBUFFERED: "1", CUDA_VISIBLE_DEVICES: "" },
  };
  try {
    const run = (args: readonly string[]) => execa(python, args, { cwd: work, env });
    const { published, atlas } = await problem.prepare({ checkout, work, options, run });
    const found: Comparison = { problem: problem.name, theirs: [], ours: [] };
    const theirs = async () => {
      found.theirs.push(await observe([python, ...published], work, env, problem.truth));
    };
    const ours = async () => {
      const more = ["--seed", "0", "--threads", String(threads), "--device", "cpu", "--json"];
      const args = [process.execPath, MAIN, ...atlas, ...more, "--quiet"];
      found.ours.push(await observe(args, work, { NO_COLOR: "1" }, problem.ours ?? problem.truth));
    };
    // The first turn is always theirs, since the data of a notebook are made by it.
    for (let turn = 0; turn < turns; turn++)
      for (const method of turn % 2 === 0 ? [theirs, ours] : [ours, theirs]) await method();
    return found;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Run a program, watch its memory, and grade the generators that it prints. */
async function observe(
  [command, ...args]: readonly string[],
  cwd: string,
  env: NodeJS.ProcessEnv,
  truth: readonly SquareMatrix[],
): Promise<Trial> {
  const start = performance.now();
  const child = execa(command!, args, { cwd, env, stdin: "ignore", stderr: "pipe" });
  let peakBytes = 0;
  const watch = setInterval(async () => {
    peakBytes = Math.max(peakBytes, await residentBytes(child.pid!));
  }, 500);
  const answers: Trial["answers"] = [];
  let text = "";
  child.stdout.on("data", (data: Buffer) => {
    text += String(data);
    const seconds = (performance.now() - start) / 1000;
    const all = generatorsIn(text, truth[0]!.length);
    for (const basis of all.slice(answers.length))
      answers.push({ seconds, distance: distanceFrom(truth, basis) });
  });
  try {
    await child;
  } finally {
    clearInterval(watch);
  }
  if (answers.length === 0) throw new Error(`no generators in what ${args[0]} printed`);
  return { seconds: (performance.now() - start) / 1000, peakBytes, answers };
}

/** Compute the Grassmann distance; a dimension too many or too few counts as a right angle. */
export function distanceFrom(
  truth: readonly SquareMatrix[],
  basis: readonly SquareMatrix[],
): number {
  const missing = Math.abs(truth.length - basis.length);
  return Math.hypot(grassmannDistance(basis, truth), Math.sqrt(missing) * (Math.PI / 2));
}

/** Find all bases that a program has printed, as tensors of PyTorch or as JSON. */
export function generatorsIn(text: string, size: number): SquareMatrix[][] {
  const json = text.trimStart();
  if (json.startsWith("{") || json.startsWith("[[[")) {
    try {
      const value: unknown = JSON.parse(json);
      return [Array.isArray(value) ? value : Result.parse(value).algebra!.generators];
    } catch {
      return []; // it is not complete yet
    }
  }
  const found: SquareMatrix[][] = [];
  for (const [, body = ""] of text.matchAll(/tensor\(([\s\d.,e+\-[\]]+)[),]/g)) {
    const numbers = body.match(/-?\d[\d.]*(?:e[+-]?\d+)?/g)?.map(Number) ?? [];
    const count = numbers.length / size ** 2;
    if (!Number.isInteger(count) || count === 0) continue;
    const rows = Array.from({ length: count * size }, (_, i) =>
      numbers.slice(i * size, (i + 1) * size),
    );
    found.push(Array.from({ length: count }, (_, i) => rows.slice(i * size, (i + 1) * size)));
  }
  return found;
}

/** Sum the resident memory of a process and of all that it has started. */
async function residentBytes(root: number): Promise<number> {
  const { stdout } = await execa("ps", ["-A", "-o", "pid=,ppid=,rss="], { reject: false });
  const rows = (stdout ?? "").split("\n").map((line) => line.trim().split(/\s+/).map(Number));
  const family = new Set([root]);
  for (let before = 0; before < family.size; ) {
    before = family.size;
    for (const [pid, parent] of rows) if (family.has(parent!)) family.add(pid!);
  }
  return rows.reduce((sum, [pid, , rss]) => (family.has(pid!) ? sum + 1024 * rss! : sum), 0);
}

/**
 * Make a Python with the worker's packages, PyTorch among them, and what the published code imports
 * beside these.
 */
async function peerPython(): Promise<string> {
  const folder = resolve(import.meta.dirname, "../../node_modules/.cache/peers");
  const python = join(folder, "bin/python");
  if (existsSync(join(folder, "complete"))) return python;
  const { python: own } = await ensureVenv();
  const site = ["-c", "import site; print(site.getsitepackages()[0])"];
  await execa(own, ["-m", "venv", folder]);
  const [{ stdout: there }, { stdout: here }] = [await execa(own, site), await execa(python, site)];
  await writeFile(join(here, "worker.pth"), `${there}\n`);
  const version = ["-c", "import torch; print(torch.__version__.split('+')[0])"];
  const { stdout: torch } = await execa(own, version);
  const packages = ["einops", "tqdm", "scipy", "scikit-image", "matplotlib"];
  const install = ["-m", "pip", "install", "-q", ...packages, `torch==${torch}`];
  await execa(python, install);
  // Some of the published code was written for NumPy 1. The worker's own stays as it is.
  await execa(python, [...install.slice(0, 4), "--ignore-installed", "numpy<2", "pandas<3"]);
  await writeFile(join(folder, "complete"), "");
  return python;
}

function comparisonRows({ problem, theirs, ours }: Comparison): Row[] {
  const gib = (bytes: number) => `${n(bytes / 2 ** 30)} GiB`;
  const last = ({ answers }: Trial) => answers.at(-1)!.distance;
  const about = (who: string, trials: readonly Trial[], more: string): Row => [
    `${problem}, ${who}`,
    `${n(median(trials.map(({ seconds }) => seconds)))} s`,
    [
      `${n(median(trials.map(last)))} rad from the truth`,
      `peak memory ${gib(Math.max(...trials.map(({ peakBytes }) => peakBytes)))}`,
      more,
    ].join(", "),
  ];
  const time = median(ours.map(({ seconds }) => seconds));
  const { answers } = theirs[0]!;
  const then = answers.findLast(({ seconds }) => seconds <= time);
  const first = answers[0]!;
  return [
    about(
      "published code",
      theirs,
      then === undefined
        ? `first answer after ${n(first.seconds)} s: ${n(first.distance)} rad`
        : `after ${n(time)} s: ${n(then.distance)} rad`,
    ),
    about("Atlas", ours, `with the start of its worker`),
  ];
}
