/**
 * `npm run calibrate -- FILE`: problems of known truth, what `discover` says of them, and how often
 * it is wrong. FILE holds what was said, one line for each problem.
 */
import { spawn } from "node:child_process";
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { discover } from "../../src/discover.js";
import { Progress } from "../../src/experiment/progress.js";
import { lostAt } from "../../src/method/rule.js";
import { LocalPool } from "../../src/pool/local.js";
import type { AlgebraEvidence } from "../../src/result.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { readArguments, refuse } from "../benchmark-parts.js";

/** What was said of a problem, and what is true. */
interface Line {
  kind: string;
  seed: number;
  /** Number of its generators; 0 without a symmetry. */
  generators: number;
  breaking: number;
  noise: number;
  skill: number | null;
  verdict: AlgebraEvidence["verdict"];
  words: string;
  symmetries: number;
  /** Bounds of the breaking, in units of the output's spread. */
  low: number | null;
  high: number | null;
  /**
   * The worst breaking of what was found, or of the best direction, in the same units, at the size
   * that was judged.
   */
  truth: number;
  seconds: number;
  /** What judged, by which a changed rule can be tried. */
  evidence: AlgebraEvidence;
}

/** How a problem ended. */
interface Grade {
  line: Line;
  /** Whether the statement is false. */
  wrong: boolean;
  /** Whether a symmetry that is there was not told, or not all of it. */
  missed: boolean;
}

const isExact = ({ generators, breaking }: Line) => generators > 0 && breaking === 0;

function grade(line: Line): Grade {
  const { verdict, truth, low, high, symmetries, generators } = line;
  const exact = isExact(line);
  const wrong =
    (verdict === "symmetry" && truth > high!) ||
    (verdict === "approximate" && (truth < low! || truth > high!)) ||
    (verdict === "none" && exact);
  return { line, wrong, missed: exact && (verdict !== "symmetry" || symmetries < generators) };
}

/** Exact upper bound of a rate, one-sided 95 % (Clopper & Pearson 1934), by bisection. */
function upper(wrong: number, all: number): number {
  if (wrong >= all) return 1;
  const atMost = (p: number) => {
    let term = (1 - p) ** all;
    let sum = term;
    for (let i = 0; i < wrong; i++) {
      term *= ((all - i) / (i + 1)) * (p / (1 - p));
      sum += term;
    }
    return sum;
  };
  let [low, high] = [wrong / all, 1];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (atMost(middle) > 0.05) low = middle;
    else high = middle;
  }
  return high;
}

function print(title: string, grades: readonly Grade[]): void {
  const count = (test: (g: Grade) => boolean, of = grades) => of.filter(test).length;
  const rate = (some: number, all: number) => `${some} of ${all} (at most ${(100 * upper(some, all)).toFixed(1)} %)`; // biome-ignore format: one line
  const exact = grades.filter(({ line }) => isExact(line));
  const none = grades.filter(({ line }) => line.generators === 0);
  const untold = count(({ line }) => line.verdict === "cannot tell", exact);
  const missed = count(({ missed, line }) => missed && line.verdict !== "cannot tell", exact);
  const feigned = count(({ line }) => line.verdict === "symmetry", none);
  console.log(
    `${title}: false statements ${rate(
      count(({ wrong }) => wrong),
      grades.length,
    )}; exact ` +
      `symmetries: missed ${rate(missed, exact.length)}, untold ${untold}; without symmetry: ` +
      `said to have one ${rate(feigned, none.length)}`,
  );
  const bounded = grades.filter(({ line: { low, high } }) => low !== null && high !== null);
  const covered = count(
    ({ line: { low, high, truth } }) => low! <= truth && truth <= high!,
    bounded,
  );
  console.log(`  bounds that hold the true breaking: ${covered} of ${bounded.length}`);
  for (const kind of [...new Set(grades.map(({ line }) => line.kind))]) {
    const own = grades.filter(({ line }) => line.kind === kind);
    const verdicts = ["symmetry", "approximate", "none", "cannot tell"].map(
      (verdict) => `${count(({ line }) => line.verdict === verdict, own)} ${verdict}`,
    );
    const told = own
      .filter(({ wrong, missed }) => wrong || missed)
      .map(({ line, wrong }) => `${wrong ? "false" : "missed"}: seed ${line.seed}`);
    console.log(`  ${[kind.padEnd(18) + verdicts.join(", "), ...told].join("; ")}`);
  }
}

/** The Python program that makes the problems; one question at a time. */
class Problems {
  private readonly child;
  private readonly answers;
  private last: Promise<unknown> = Promise.resolve();

  constructor(python: string) {
    const script = fileURLToPath(new URL("calibrate.py", import.meta.url));
    this.child = spawn(python, [script], { stdio: ["pipe", "pipe", "inherit"] });
    this.answers = createInterface(this.child.stdout)[Symbol.asyncIterator]();
  }

  ask<T>(question: object): Promise<T> {
    const answer = this.last.then(async () => {
      this.child.stdin.write(`${JSON.stringify(question)}\n`);
      const { value, done } = await this.answers.next();
      if (done) throw new Error("the program that makes the problems has ended");
      return JSON.parse(value) as T;
    });
    this.last = answer.catch(() => {});
    return answer;
  }

  close(): void {
    this.child.stdin.end();
  }
}

async function solve(
  problems: Problems,
  kind: string,
  seed: number,
  slot: Awaited<ReturnType<LocalPool["acquire"]>>,
): Promise<Line> {
  const folder = mkdtempSync(join(tmpdir(), "atlas-calibrate-"));
  const begun = performance.now();
  try {
    const made = await problems.ask<
      Pick<Line, "generators" | "breaking" | "noise"> & { type: string }
    >(
      // biome-ignore format: one line
      { do: "make", kind, seed, folder },
    );
    const { type, ...known } = made;
    const { result } = await discover(
      {
        task: "discover_algebra",
        inputs: join(folder, "inputs.npy"),
        targets: join(folder, "targets.npy"),
        ...(type !== "" && { targets_as: type }),
      },
      { runs: folder, seed, slot: slot.run, progress: new Progress({ quiet: true }) },
    );
    const { evidence, symmetryCount: symmetries } = result.algebra!;
    const { verdict, words, size, lost: cost, broken, skill, approximate, directions } = evidence!;
    const near = (at: number | null) => Math.abs(Math.log((at ?? 1) / (size ?? 1)));
    const count = symmetries + (verdict === "approximate" ? approximate : 0);
    // Where nothing was found, the bounds are those of the best direction that was judged: the
    // generator that loses least, or one between the others.
    const generators = directions.slice(0, result.algebra!.generators.length);
    const told = directions.filter(({ sizes }) => sizes.some(({ lost }) => lost === cost.value));
    const best = (told.length > 0 ? told : generators)
      .toSorted((a, b) => lostAt(a.sizes) - lostAt(b.sizes))
      .slice(0, 1);
    const inside = count > 0 ? directions.slice(0, count) : best;
    const judged = inside.flatMap(({ direction, sizes }) => {
      const [at] = [...sizes].sort((a, b) => near(a.size) - near(b.size));
      return at === undefined ? [] : [{ direction, length: at.length }];
    });
    const truths = await problems.ask<(number | null)[][]>({
      ...{ do: "truth", kind, seed },
      directions: judged.map(({ direction }) => direction),
      lengths: judged.map(({ length }) => [length]),
    });
    if (truths.flat().includes(null)) throw new Error(`${kind} ${seed}: its truth is not known`);
    const truth = Math.sqrt(Math.max(0, ...truths.flat().map((x) => x!)));
    const { low, high } = broken;
    const seconds = (performance.now() - begun) / 1000;
    const said = { skill, verdict, words, symmetries, low, high, truth };
    return { kind, seed, ...known, ...said, seconds, evidence: evidence! };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const USAGE = `
Usage: npm run calibrate -- [FILE] [options]

Solve problems of known truth, and print how often discover is wrong. FILE holds what was said, one
line for each problem (default: calibration.jsonl); a calibration that was broken off goes on.

Options:
  --kinds A,B     Kinds of problems; a name that is none lists them (default: all)
  --seeds N       So many of each kind; or a list, such as 0,1,5 (default: 5)
  --pool local:N  Solve N at a time (default: local:2)
  --no-run        Only grade what FILE holds`;

const { values, positionals } = readArguments(USAGE, {
  allowPositionals: true,
  options: {
    seeds: { type: "string", default: "5" },
    kinds: { type: "string", default: "" },
    pool: { type: "string", default: "local:2" },
    "no-run": { type: "boolean", default: false },
  },
});
const [file = "calibration.jsonl"] = positionals;
const read = () =>
  (existsSync(file) ? readFileSync(file, "utf8") : "")
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Line);
const { python } = await ensureVenv();
const problems = new Problems(python);
const groups = await problems.ask<Record<string, string[]>>({ do: "kinds" });
if (!values["no-run"]) {
  const known = Object.values(groups).flat();
  const kinds = values.kinds === "" ? known : values.kinds.split(",");
  for (const kind of kinds)
    if (!known.includes(kind)) refuse(`there is no kind ${kind}; there are ${known.join(", ")}`);
  const done = new Set(read().map(({ kind, seed }) => `${kind} ${seed}`));
  const given = values.seeds.split(",").map(Number);
  if (!given.every((seed) => Number.isInteger(seed) && seed >= 0))
    refuse(`--seeds ${values.seeds} is no number of seeds, and no list of seeds`);
  const seeds = given.length > 1 ? given : Array.from({ length: given[0]! }, (_, seed) => seed);
  const queue = seeds
    .flatMap((seed) => kinds.map((kind) => ({ kind, seed })))
    .filter(({ kind, seed }) => !done.has(`${kind} ${seed}`));
  const pool = LocalPool.open(values.pool, { worker: { device: "cpu" } });
  const { signal } = new AbortController();
  const work = async () => {
    const slot = await pool.acquire(signal);
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const line = await solve(problems, next.kind, next.seed, slot);
      appendFileSync(file, `${JSON.stringify(line)}\n`);
      const { wrong, missed } = grade(line);
      const mark = wrong ? " FALSE" : missed ? " missed" : "";
      console.log(
        `${next.kind} ${next.seed}: ${line.words} (truth ${line.truth.toFixed(3)})${mark}`,
      );
    }
  };
  try {
    await Promise.all(Array.from({ length: Number(values.pool.split(":")[1] ?? 1) }, work));
  } finally {
    await pool.close();
    problems.close();
  }
}
problems.close(); // again, where nothing was run
const lines = read();
for (const [name, kinds] of Object.entries(groups)) {
  const own = lines.filter(({ kind }) => kinds.includes(kind));
  if (own.length > 0) print(`${name} kinds`, own.map(grade));
}
