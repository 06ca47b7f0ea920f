/** The rule by which evidence becomes a verdict (METHOD 2.13). It knows nothing of experiments. */
import { type Interval, interval, NORMAL, ofSizes } from "../algebra/interval.js";
import type { EvidenceMeasured, SkillLost, Verdict } from "../result.js";

/**
 * The limits of the rule. They were chosen by hand, with the problems of `npm run calibrate` and
 * some tests in view (METHOD 2.13).
 */
export const LIMITS = {
  /** The largest share of the output's spread by which the predictor may break a symmetry … */
  broken: 0.35,
  /** … and together with what the predictor does not explain, which can hide a breaking. */
  hidden: 0.5,
  /** The largest skill lost, in units of what the best other direction loses. */
  contrast: 0.5,
  /** Skill that an exact symmetry may seem to lose, in units of what the predictor lacks … */
  bias: 0.4,
  /** … and in the same units, times how much stranger moved samples are to it. */
  drift: 0.6,
  /** Skill that a generator off by 6° loses, in units of what other directions lose. */
  angle: 0.01,
  /** Skill lost that is never told from none: 3 % of the output's spread … */
  least: 1e-3,
  /** … and the least that is, 1 % of it, if another direction of the span loses far less: */
  fine: 1e-4,
  /** in units of what that direction loses. */
  above: 10,
  /** The largest difference from the nearest training samples, in units of unmoved samples'. */
  reach: 4,
  /** The largest disagreement of refits, in units of that at unmoved samples. */
  disagreement: 4,
  /** The fewest scenes that judge. */
  scenes: 20,
} as const;

/** The limits of the rule. */
export type Limits = Readonly<Record<keyof typeof LIMITS, number>>;

/** Sizes up to this factor apart count as one. */
const LARGER = 1.2;
/** A smaller size is at most this share of the largest size … */
const SMALLER = 0.7;
/** … and more than this. Smaller moves say little. */
export const SMALLEST = 0.15;

/** Share of a planted breaking below which a predictor cannot show one. */
const HIDDEN = 0.1;

/** Whether the predictor is asked about inputs like those that it knows. */
export function inReach(at: SkillLost, limits: Limits = LIMITS): boolean {
  return strangeness(at) <= (byRefits(at) ? limits.disagreement : limits.reach);
}

/** How much less the predictor knows of moved samples: 1 for as much. */
function strangeness(at: SkillLost): number {
  return (byRefits(at) ? at.disagreement : at.reach) ?? 1;
}

function byRefits({ disagreement, refits = [] }: SkillLost): boolean {
  return refits.length > 1 && typeof disagreement === "number";
}

/**
 * The skill that an exact symmetry may seem to lose.
 *
 * @param lacking the share of the targets' variance that the predictor does not explain
 */
export function allowance(at: SkillLost, lacking: number, limits: Limits = LIMITS): number {
  const strange = Math.max(0, strangeness(at) - 1);
  return Math.max(limits.least, lacking * (limits.bias + limits.drift * strange));
}

/**
 * The share of a planted breaking that a predictor shows, along all directions of a span together.
 *
 * @param own what each direction costs without the breaking, at several sizes
 * @param planted what it costs with it
 * @param size the size that is judged
 * @returns null if the moves hardly change the breaking
 */
export function recoveredShare(
  own: readonly (readonly SkillLost[])[],
  planted: readonly (readonly SkillLost[])[],
  size: number,
): number | null {
  const near = (sizes: readonly SkillLost[]) =>
    ofSizes(sizes).toSorted(
      (a, b) => Math.abs((a.size ?? 0) - size) - Math.abs((b.size ?? 0) - size),
    )[0];
  let [shown, all] = [0, 0];
  for (const [i, sizes] of planted.entries()) {
    const [before, after] = [near(own[i]!), near(sizes)];
    if (before === undefined || after === undefined) continue;
    shown += (after.lost ?? Number.NaN) - interval(before).value;
    all += after.planted ?? Number.NaN;
  }
  return all > 0 && Number.isFinite(shown) ? Math.min(1, shown / all) : null;
}

/** What is left to be told once the intervals are known. */
export interface Weighed {
  verdict: Verdict;
  reason: string;
  size: number;
  /** Number of that size among those that were measured; -1 for none. */
  index: number;
  /** Number of the largest size in reach, before smaller ones were tried. */
  largest: number;
  lost: Interval;
  elsewhere: number | null;
  broken: { low: number; high: number };
  /** Whether other directions lose far more. */
  stands: boolean;
  /** Least skill lost that would have been told from none. */
  noticed: number;
  /** Number of other directions that are not compared with, since they may be symmetries too. */
  undecided: number;
  /** Whether another direction may lose less than this one surely does. */
  missed: boolean;
}

/** What combinations of a span's directions lose, by the number of the size, if it was measured. */
export type Combined = ReadonlyMap<
  number,
  {
    lost: readonly SkillLost[];
    /** Whether all of them have moves of that size. */
    all: boolean;
  }
>;

/** Tells the share of a breaking that would be shown by moves of a size; null if unknown. */
export type Recovery = (size: number) => number | null;

/**
 * Weigh what a span's directions lose against what other directions lose.
 *
 * A span is judged at the largest size in reach. If it holds only approximately there, or if that
 * cannot be told, but it is a symmetry of smaller moves, it is called a symmetry with the smaller
 * size. It is none if half a turn is surely broken.
 *
 * @param inside what each direction of the span loses, at one or more sizes
 * @param outside what each other direction loses
 * @param lacking the share of the targets' variance that the predictor does not explain
 * @param recovery what planted breakings show; left out if none were planted
 * @param openly whether to compare with other directions that are surely broken alone, if these are
 *   at least half of all others
 * @param combined what combinations of the span's directions lose, too
 */
export function weigh(
  inside: readonly (readonly SkillLost[])[],
  outside: readonly (readonly SkillLost[])[],
  lacking: number,
  limits: Limits = LIMITS,
  recovery?: Recovery,
  openly = false,
  combined: Combined = new Map(),
): Weighed {
  const [own, others] = [inside.map(ofSizes), outside.map(ofSizes)];
  const all = [...inside, ...[...combined.values()].map(({ lost }) => lost)].flat();
  const turns = all.filter(({ halfTurn }) => halfTurn);
  const atSizes = weighSizes(own, others, lacking, limits, recovery, openly, combined);
  return weighTurns(atSizes, turns, lacking, limits);
}

/** Weigh moves of given sizes, from the largest size in reach to smaller ones. */
function weighSizes(
  inside: readonly (readonly SkillLost[])[],
  outside: readonly (readonly SkillLost[])[],
  lacking: number,
  limits: Limits,
  recovery: Recovery | undefined,
  openly: boolean,
  combined: Combined,
): Weighed {
  const whole = weighAtLargest(inside, outside, lacking, limits, recovery, openly, combined);
  let now = whole;
  while (["approximate", "cannot tell"].includes(now.verdict) && Number.isFinite(now.size)) {
    const { size } = now;
    const less = inside.map((sizes) => sizes.filter((at) => (at.size ?? 0) < SMALLER * size));
    if (!less.every((sizes) => (sizes.at(-1)?.size ?? 0) > SMALLEST)) break;
    now = weighAtLargest(less, outside, lacking, limits, recovery, openly, combined);
  }
  return now.verdict === "symmetry" ? { ...now, largest: whole.index } : whole;
}

/** Weigh as at the largest size in reach, or by half turns where these surely cost too much. */
function weighTurns(
  now: Weighed,
  turns: readonly SkillLost[],
  lacking: number,
  limits: Limits,
): Weighed {
  const broken = (at: SkillLost) => {
    const { low, high } = interval(at);
    const bias = allowance(at, lacking, limits);
    return { low: Math.sqrt(Math.max(0, low - bias)), high: Math.sqrt(Math.max(0, high + bias)) };
  };
  const worst = turns
    .filter((at) => inReach(at, limits) && Number.isFinite(interval(at).low))
    .toSorted((a, b) => broken(b).low - broken(a).low)[0];
  if (now.verdict === "none" || worst === undefined || broken(worst).low <= limits.broken)
    return now;
  const size = worst.size ?? Number.NaN;
  const found = { size, lost: interval(worst), broken: broken(worst) };
  return { ...now, ...found, verdict: "none", reason: "" };
}

/** Weigh at the largest size in reach. */
function weighAtLargest(
  inside: readonly (readonly SkillLost[])[],
  outside: readonly (readonly SkillLost[])[],
  lacking: number,
  limits: Limits,
  recovery: Recovery | undefined,
  openly: boolean,
  combined: Combined,
): Weighed {
  const reaches = (at: SkillLost) => inReach(at, limits);
  const most = inside.length === 0 ? 0 : Math.min(...inside.map((sizes) => sizes.length));
  const bySize = Array.from({ length: most }, (_, i) => [
    ...inside.map((sizes) => sizes[i]!),
    ...ofSizes(combined.get(i)?.lost ?? []),
  ]);
  const index = bySize.findLastIndex(
    (at, i) => at.every(reaches) && combined.get(i)?.all !== false,
  );
  const nothing = { value: Number.NaN, low: Number.NaN, high: Number.NaN };
  const untold = (reason: string, size = Number.NaN, lost = nothing): Weighed => ({
    verdict: "cannot tell",
    reason,
    size,
    index,
    largest: index,
    lost,
    elsewhere: null,
    broken: { low: Number.NaN, high: Number.NaN },
    stands: false,
    noticed: Number.NaN,
    undecided: 0,
    missed: false,
  });
  if (most === 0) return untold("the moves change no input");
  const reached = bySize[index];
  if (reached === undefined)
    return untold("moved samples lie far from all data, and there the predictor only guesses");
  const size = Math.min(...reached.map((at) => at.size ?? Number.NaN));
  const intervals = reached.map(interval);
  const worst = (key: keyof Interval) => Math.max(...intervals.map((each) => each[key]));
  const lost = { value: worst("value"), low: worst("low"), high: worst("high") };
  if (!Object.values(lost).every(Number.isFinite))
    return untold("nothing is left to compare", size, lost);
  const earlier = bySize.slice(0, index).flatMap((at) => at.filter(reaches));
  const falls = earlier.some(
    (at) => interval(at).low > Math.max(lost.high, allowance(at, lacking, limits)),
  );
  const floor = Math.max(...reached.slice(0, inside.length).map((at) => Math.abs(at.floor ?? 0)));
  if (floor > limits.broken ** 2 / 3 && floor > lost.high / 2)
    return untold("the grid is too coarse: interpolation alone loses as much", size, lost);
  /** What moves of the span up to a size may lose. */
  const highest = (most: number) => {
    const upTo = inside.map((sizes) =>
      sizes.filter((at) => (at.size ?? 0) <= LARGER * most).at(-1),
    );
    const each = upTo.map((at) => (at === undefined ? lost.high : interval(at).high));
    const together = reached.slice(inside.length).filter((at) => (at.size ?? 0) <= LARGER * most);
    return Math.max(0, ...each, ...together.map((at) => interval(at).high));
  };
  // Others are compared at the size that is judged. Where they are out of reach there, they count
  // with what they lose by the largest smaller move in reach. Small moves lose in proportion to
  // their size, by which a direction of larger moves alone is scaled.
  const all = outside.flatMap((sizes) => {
    const alike = sizes.filter((at) => (at.size ?? Number.NaN) <= LARGER * size);
    const judged = alike.filter(reaches).at(-1) ?? alike[0] ?? sizes.find(reaches) ?? sizes[0];
    if (judged === undefined) return [];
    const larger = alike.length === 0 ? size / (judged.size ?? Number.NaN) : 1;
    const least = interval(judged).low * larger;
    if (!Number.isFinite(least)) return [];
    const upper = highest(Math.min(size, judged.size ?? size));
    const broken = interval(judged).low > allowance(judged, lacking, limits);
    return [{ least: Math.max(0, least), contrast: upper / Math.max(0, least), broken }];
  });
  const decided = all.filter(({ broken }) => broken);
  const others = openly && 2 * decided.length >= all.length ? decided : all;
  const elsewhere = others.length === 0 ? null : Math.min(...others.map(({ least }) => least));
  const inexact = limits.angle * (elsewhere ?? lost.high);
  // Where one direction of the span loses next to nothing, the predictor shows what others lose.
  const best = Math.min(...intervals.map(({ high }) => high));
  const least = Math.min(limits.least, Math.max(limits.fine, limits.above * best));
  const told = { ...limits, least };
  const sure = reached.map((at) => interval(at).low - allowance(at, lacking, told) - inexact);
  const low = Math.sqrt(Math.max(0, ...sure));
  // What the predictor does not explain can hide a breaking as well as feign one. How much it
  // hides, planted breakings tell.
  const share = recovery?.(size) ?? null;
  const seen = reached.map((at) => {
    const most = interval(at).high;
    if (share === null) return most + allowance(at, lacking, limits);
    return Math.max(most, limits.least) / Math.max(share, 1e-9);
  });
  const high = Math.sqrt(Math.max(0, ...seen));
  const shown = share === null ? Math.sqrt(Math.max(0, lost.high)) : high;
  const halves = reached.map((at) => {
    const { value, high } = interval(at);
    return 2 * (high - value) + allowance(at, lacking, limits) + inexact;
  });
  const noticed = Math.max(...halves);
  const contrast = elsewhere === null ? 0 : Math.max(lost.high, 0) / elsewhere;
  const stands = contrast <= limits.contrast;
  // What is broken is told from what does not hold at all by moves of the same size.
  const standsAlike = others.every(({ contrast }) => contrast <= limits.contrast);
  // If another direction may lose less than this one surely does, the search missed the best one.
  const missed = elsewhere !== null && elsewhere < lost.low;
  const undecided = all.length - others.length;
  const found = {
    size,
    index,
    largest: index,
    lost,
    elsewhere,
    broken: { low, high },
    stands,
    noticed,
    undecided,
    missed,
  };
  if (falls)
    return { ...found, verdict: "none", reason: "larger moves cost less: the group is finite" };
  if (low === 0 && shown <= limits.broken && high <= limits.hidden && stands)
    return { ...found, verdict: "symmetry", reason: "" };
  if (low > 0 && low <= limits.broken && standsAlike)
    return { ...found, verdict: "approximate", reason: "" };
  if (low > 0 && !missed) return { ...found, verdict: "none", reason: "" };
  const hidden = share !== null && share < HIDDEN;
  const reason = hidden
    ? `a planted breaking was learnt to ${inPercent(Math.max(0, share))} only`
    : stands
      ? `a breaking of up to ${inPercent(high)} of the output's spread cannot be excluded`
      : "other directions lose as little skill";
  return { ...found, verdict: "cannot tell", reason };
}

/** Factor by which what neighbours tell of the part that can still be learnt may be too little. */
const SURE = 2;

/**
 * The share of the targets' variance that a predictor could still learn: at most what it does not
 * explain, and at most what neighbouring samples tell from noise.
 */
export function lackingOf({
  skill,
  learnable,
}: Pick<EvidenceMeasured, "skill" | "learnable">): number {
  const unexplained = Math.max(0, 1 - (skill ?? 0));
  return Math.min(unexplained, SURE * (learnable ?? Number.POSITIVE_INFINITY));
}

/** Why nothing can be told from these data and this predictor at all; undefined if it can. */
export function hopeless(
  { skill, skillError, scenes, targets }: Omit<EvidenceMeasured, "directions" | "matrices">,
  limits: Limits = LIMITS,
): string | undefined {
  if (scenes < limits.scenes)
    return `only ${scenes} scenes judge, and at least ${limits.scenes} are needed`;
  if (skill === null) return "the predictor's skill could not be measured";
  if (targets && skill - NORMAL * (skillError ?? 0) <= 0)
    return "the predictor has no skill: a constant predicts as well";
  return undefined;
}

/** Write a share in percent, with two digits. */
export function inPercent(share: number): string {
  const shown = 100 * share;
  return `${Math.abs(shown) < 0.05 ? "0" : shown < 100 ? shown.toPrecision(2) : Math.round(shown)} %`;
}

/** What a direction loses at a middle size, by which directions are sorted. */
export function lostAt(sizes: readonly SkillLost[]): number {
  const judged = sizes[Math.min(1, sizes.length - 1)];
  return judged?.lost ?? Number.POSITIVE_INFINITY;
}
