/**
 * The verdict on a symmetry, from the skill that a predictor loses on held-out data (METHOD 2.13).
 */
import { z } from "zod";
import { nearestInIdentityComponent } from "../algebra/components.js";
import {
  blocksOf,
  embed,
  type Factor,
  type Frame,
  inward,
  linearCoordinates,
  outward,
  unitsIn,
} from "../algebra/factors.js";
import { analyseAlgebra, namedAlgebra } from "../algebra/index.js";
import { ofSizes } from "../algebra/interval.js";
import {
  combine,
  expm,
  invert,
  logm,
  multiply,
  norm,
  type SquareMatrix,
} from "../algebra/linalg.js";
import { closure, frame, project } from "../algebra/span.js";
import type { Context } from "../experiment/context.js";
import type {
  AlgebraEvidence,
  AlgebraMeasured,
  AlgebraResult,
  CosetResult,
  EvidenceMeasured,
  Judgement,
  Limit,
  SkillLost,
} from "../result.js";
import type { EvidenceOptions } from "../worker/index.js";
import { noneBetween } from "./between.js";
import type { SolverInputs } from "./data.js";
import {
  type Agreement,
  agrees,
  compareFits,
  fitOnly,
  fitsOf,
  limitsOf,
  measurePlanted,
  type Search,
  unitOf,
} from "./full.js";
import { FEW, Judged, MANY } from "./judged.js";
import {
  type Combined,
  hopeless,
  inPercent,
  inReach,
  LIMITS,
  lackingOf,
  lostAt,
  recoveredShare,
  type Weighed,
  weigh,
} from "./rule.js";

/** Sizes of the moves at which generators are judged. */
const SIZES = [0.05, 0.2, 0.5] as const;
/** One more, where a test tells whether the predictor knows inputs that are moved so far. */
const LARGE = 1;
/** Size of the moves that lead away from a component, … */
const FAR = 1;
/** … or a smaller one, for directions that do not lead so far. */
const LESS_FAR = [0.5, 0.2] as const;
/** Factor by which moves are larger, if fewer generators are a symmetry of these, too. */
const FURTHER = 1.5;
/** Most that a bracket of such generators may lead out of their span. */
const CLOSED = 0.2;

/** Shares of the way between two components at which the skill lost is measured. */
const BETWEEN = [0.3, 0.5, 0.7] as const;
/** Most components that lose less, the nearest ones, to which such ways lead. */
const NEIGHBOURS = 3;

/** How findings are judged: on held-out data, or by the relative error. */
export type EvidenceKind = "quick" | "full" | "none";

/** Make the config field that says how much evidence is measured. */
export const evidenceField = () =>
  z
    .enum(["quick", "full", "none"])
    .default("quick")
    // Runs that were begun before this field end as they were begun.
    .meta({
      description: "Held-out data judge (full: refits; none: not)",
      before: "none",
    });

/** How an algebra is judged. */
export interface JudgeOptions {
  /** How much evidence is measured (default "quick"). */
  kind?: EvidenceKind;
  /** Searches again with another fit. */
  search?: Search;
  /** Whether {@link widened} will ask which other directions are not surely broken. */
  wider?: boolean;
}

/**
 * Judge an algebra by the skill that its generators lose on held-out data (METHOD 2.13).
 *
 * The generators are sorted by what they lose. The symmetries are the most generators, counted from
 * the first, whose span passes: each of them, and combinations of them.
 */
export async function judgeAlgebra(
  ctx: Context,
  inputs: SolverInputs,
  measured: AlgebraMeasured,
  { kind = "quick", search, wider = false }: JudgeOptions = {},
): Promise<AlgebraResult> {
  const { predictor, atlas, others: judges, fit } = inputs;
  const full = kind === "full" && fitOnly(inputs) === undefined ? fit : undefined;
  if (kind === "full" && full === undefined) ctx.note(`--evidence full: ${fitOnly(inputs)}`);
  const fits = full && (await fitsOf(ctx, full));
  const options = { dataset: judges, atlas, seed: ctx.seed };
  // Moves have natural lengths in coordinates in which components are of the same size.
  const natural = linearCoordinates(measured);
  const generators = unitsIn(measured.generators, natural);
  const rest = complement(measured, generators, inputs.unused?.rest);
  if (generators.length + rest.length === 0) return analyseAlgebra(measured);
  const tested = atlas.kind === "vectors" || fits !== undefined;
  const sizes = tested ? [...SIZES, LARGE] : SIZES;
  const ask = (directions: SquareMatrix[], more: Partial<EvidenceOptions>) =>
    ctx.timed("evidence", () =>
      ctx.session.measureEvidence(predictor, {
        ...options,
        directions,
        sizes,
        ...more,
        refits: fits?.refits,
      }),
    );
  const judged = new Judged(generators, rest, sizes, tested, ask);
  const own = await judged.begin();
  const lacking = lackingOf(own);
  const order = generators
    .map((_, i) => i)
    .sort((a, b) => lostAt(judged.own[a]!) - lostAt(judged.own[b]!));
  const first = (k: number) => order.slice(0, k);
  const sorted = () => order.map((i) => judged.own[i]!);
  const reason = hopeless(own);
  const moves = { ...options, directions: generators, sizes, samples: FEW };
  const planted = fits === undefined ? [] : await measurePlanted(ctx, fits, moves);
  /** What the first k generators show of each planted breaking. */
  const shown = (k: number) =>
    planted.map((each) => ({ ...each, directions: first(k).map((i) => each.directions[i]!) }));
  const weighed = (k: number, openly = false, combined?: Combined) =>
    weigh(
      sorted().slice(0, k),
      [
        // A generator that cannot be judged says nothing against the others.
        ...sorted()
          .slice(k)
          .filter((sizes) => sizes.some((at) => inReach(at))),
        ...judged.others,
      ],
      lacking,
      LIMITS,
      fits && ((size) => recoveredShare(sorted(), shown(k)[1]!.directions, size)),
      openly,
      combined,
    );
  /** Weigh the first k generators, and combinations of them, measured as far as that needs. */
  const weighedTogether = async (k: number, openly = false): Promise<Weighed> => {
    const chosen = first(k).map((i) => generators[i]!);
    const mixed = k === 1 ? [] : combinations(chosen, measured);
    const combined = new Map<number, { lost: SkillLost[]; all: boolean }>();
    for (;;) {
      const now = weighed(k, openly, combined);
      if (await judged.measureFor(now)) continue;
      const holds = now.verdict === "symmetry" || now.verdict === "approximate";
      // A smaller size is judged only if the combinations do not rule the larger one out.
      const missing = [now.largest, now.index].find((index) => !combined.has(index));
      if (!holds || mixed.length === 0 || missing === undefined) return now;
      const at = { sizes: sizes.slice(missing, missing + 1), samples: FEW, halfTurns: tested };
      const { directions } = await ask(mixed, at);
      const all = directions.every((each) => ofSizes(each).length > 0);
      combined.set(missing, { lost: directions.flat(), all });
    }
  };
  let symmetries = 0;
  let approximate = 0;
  let plausible = 0;
  let likely: Weighed | undefined;
  let nearly: Weighed | undefined;
  let best = generators.length === 0 ? undefined : weighed(1);
  for (let k = generators.length; k > 0 && reason === undefined; k--) {
    const now = await weighedTogether(k);
    if (k === 1 && approximate === 0) best = now;
    if (now.verdict === "approximate" && approximate === 0) {
      approximate = k;
      nearly = best = now;
    }
    const standsOut = now.stands && now.elsewhere !== null;
    if (now.verdict === "cannot tell" && standsOut && plausible === 0) {
      plausible = k;
      likely = now;
    }
    if (now.verdict !== "symmetry") continue;
    symmetries = k;
    best = now;
    break;
  }
  // If some other directions are undecided, it is compared with those that are surely broken.
  const openly = symmetries + approximate === 0 && best?.verdict === "cannot tell";
  for (let k = generators.length; openly && k > 0 && reason === undefined; k--) {
    const now = await weighedTogether(k, openly);
    if (now.verdict !== "symmetry") continue;
    symmetries = k;
    best = now;
    break;
  }
  // The search may have missed the best direction. If it lies between others that all lose much, it
  // is found from these.
  let between: Awaited<ReturnType<typeof noneBetween>>;
  const nothing = symmetries + approximate + plausible === 0 && reason === undefined;
  if (best?.missed && nothing && measured.coordinates === undefined) {
    await judged.fill(() => true, 0);
    await judged.refine(0);
    const smallest = { sizes: sizes.slice(0, 1), samples: FEW };
    between = await noneBetween(
      judged.tried(),
      lacking,
      async (all) => (await ask(all, smallest)).directions.map(([at]) => at),
      async (one) => (await ask([one], { samples: MANY })).directions[0] ?? [],
    );
    best = between?.weighed ?? best;
  }
  if (wider) await judged.fill((sizes) => weigh([sizes], [], lacking).verdict !== "none");
  let lasting: (Weighed & { generators: number }) | undefined;
  for (let k = symmetries - 1; k > 0 && lasting === undefined; k--) {
    const further = (now: Weighed) =>
      now.verdict === "symmetry" && now.size > FURTHER * (best?.size ?? now.size);
    const chosen = first(k).map((i) => generators[i]!);
    if (!further(weighed(k, openly)) || closure(chosen).max > CLOSED) continue;
    const now = await weighedTogether(k, openly);
    if (further(now)) lasting = { ...now, generators: k };
  }
  // The solver's order stays where its first generators are the symmetries.
  const count = symmetries > 0 ? symmetries : approximate;
  const counts = lasting === undefined ? [count] : [count, lasting.generators];
  const inOrder = counts.every((k) => first(k).every((i) => i < k));
  const kept = inOrder ? generators.map((_, i) => i) : order;
  const result = analyseAlgebra({
    ...measured,
    ...sortedBy(kept, measured),
    symmetryCount: symmetries,
  });
  if (symmetries + approximate === 0 && likely !== undefined) {
    const name = nameOf(analyseAlgebra({ ...result, symmetryCount: plausible }));
    best = { ...likely, reason: `${name} may hold, but ${likely.reason}` };
  }
  const told: Weighed = {
    ...(best ?? weigh([], [], lacking)),
    ...(reason !== undefined && { verdict: "cannot tell" as const, reason }),
    ...(generators.length === 0 && { verdict: "none" as const, reason: measured.explanation }),
  };
  const extra = Math.max(0, approximate - symmetries);
  const span = analyseAlgebra({ ...result, symmetryCount: count });
  const limits =
    full && count > 0
      ? limitsOf(sorted(), shown(count), told.size, told.noticed, unitOf(full))
      : undefined;
  const chosen = first(count).map((i) => generators[i]!);
  const agreement =
    full && fits && search && count > 0
      ? await compareFits(ctx, full, fits, search, chosen, measured.coordinates)
      : undefined;
  const nearby = { ...measured, ...sortedBy(order, measured), symmetryCount: approximate };
  const more = [
    ...(symmetries > 0 && extra > 0 && nearly !== undefined
      ? [`${nameOf(analyseAlgebra(nearby))} holds approximately: ${describeBroken(nearly)}`]
      : []),
    ...(lasting === undefined
      ? []
      : [describeLasting(lasting, { ...measured, ...sortedBy(order, measured) })]),
    ...(told.verdict === "symmetry" ? describeUndecided(told) : []),
    ...describeLimits(limits ?? []),
    ...describeAgreement(agreement),
  ];
  const stated = describe(told, own, nameOf(span), generators.length + rest.length);
  const words = [stated, ...more].join(". ");
  const { skill, skillError, scenes, heldOut: held, targets } = own;
  const tried = judged.tried();
  const evidence: AlgebraEvidence = {
    ...judgement(told, words),
    skill,
    skillError,
    scenes,
    heldOut: held,
    targets,
    approximate: extra,
    plausible: Math.max(0, plausible - Math.max(symmetries, approximate)),
    lasting: lasting && { generators: lasting.generators, size: lasting.size },
    refitSkills: own.refitSkills?.length ? own.refitSkills : undefined,
    limits,
    refitAngles: agreement?.refits,
    coordinateAngles: agreement?.systems,
    directions: [
      ...kept.map((i) => tried[i]!),
      ...(between ? [{ direction: between.direction, sizes: [...between.sizes] }] : []),
      ...tried.slice(generators.length),
    ],
  };
  return { ...result, explanation: `${words}; ${measured.explanation}`, evidence };
}

/**
 * Add to the generators the other directions that are not surely broken. Where the spectrum has no
 * clear gap, the solver proposes too few.
 *
 * @param judged the result of {@link judgeAlgebra}
 * @returns undefined if there are none
 */
export function widened(
  measured: AlgebraMeasured,
  { evidence }: AlgebraResult,
): AlgebraMeasured | undefined {
  if (evidence === undefined || hopeless(evidence) !== undefined) return undefined;
  const lacking = lackingOf(evidence);
  const more = evidence.directions
    .slice(measured.generators.length)
    .flatMap(({ direction, sizes }) => {
      const { broken } = weigh([sizes], [], lacking);
      const entry = measured.spectrum?.find((each) => each.direction === direction);
      return broken.low === 0 && entry !== undefined ? [entry] : [];
    });
  if (more.length === 0) return undefined;
  return {
    ...measured,
    generators: [...measured.generators, ...more.map(({ direction }) => direction)],
    losses: [...measured.losses, ...more.map(({ loss }) => loss)],
    relativeErrors: [...measured.relativeErrors, ...more.map((each) => each.relativeError)],
    explanation: `${measured.explanation}; ${more.length} more are not surely broken`,
  };
}

/** Name a span, or count its generators if no name fits. */
function nameOf({ identified: { name }, symmetryCount: count }: AlgebraResult): string {
  if (name !== "unidentified") return name;
  return count === 1 ? "the generator" : `the span of ${count} generators`;
}

function judgement({ verdict, size, lost, elsewhere, broken }: Weighed, words: string): Judgement {
  return { verdict, words, size, lost, elsewhere, broken };
}

/**
 * Judge components by the skill lost at their matrices. Those that are certainly none become
 * undefined.
 *
 * @param algebra basis of the Lie algebra of the identity component; k may be 0
 * @param where how the matrices are to be understood
 * @returns hopeless: why nothing can be told, if so
 */
export async function judgeCosets(
  ctx: Context,
  inputs: SolverInputs,
  cosets: readonly CosetResult[],
  algebra: readonly SquareMatrix[],
  kind: EvidenceKind = "quick",
  where: Frame = {},
): Promise<{ judged: (CosetResult | undefined)[]; hopeless: string | undefined }> {
  const { predictor, atlas, others: judges, fit } = inputs;
  if (cosets.length === 0) {
    const options = { dataset: judges, atlas, samples: MANY, seed: ctx.seed };
    return {
      judged: [],
      hopeless: hopeless(await ctx.session.measureEvidence(predictor, options)),
    };
  }
  const full = kind === "full" && fitOnly(inputs) === undefined ? fit : undefined;
  const refits = full && (await fitsOf(ctx, full)).refits;
  const n = cosets[0]!.matrix.length;
  const outside = complementOf(algebra, n, where, inputs.unused?.rest);
  const ask = (more: EvidenceOptions) =>
    ctx.timed("evidence", () =>
      ctx.session.measureEvidence(predictor, {
        ...{ dataset: judges, atlas, seed: ctx.seed, refits, samples: FEW },
        ...more,
      }),
    );
  const found = await ask({ matrices: cosets.map(({ matrix }) => matrix), samples: MANY });
  const away: SkillLost[][] = [];
  let left = outside;
  for (const size of [FAR, ...LESS_FAR]) {
    if (left.length === 0) break;
    const { directions } = await ask({ directions: left, sizes: [size] });
    away.push(...directions.filter((sizes) => sizes.length > 0));
    left = left.filter((_, i) => directions[i]!.length === 0);
  }
  const reason = hopeless(found);
  const lacking = lackingOf(found);
  // A component lies as far from the identity as it does, so sizes are not compared; of the
  // directions, reach is not either.
  const moved = away.map((sizes) => sizes.map((each) => ({ ...each, size: 1, reach: null })));
  const weighed = found.matrices.map((at) => weigh([[{ ...at, size: 1 }]], moved, lacking));
  const between =
    reason === undefined
      ? await measureBetween(ctx, inputs, cosets, weighed, algebra, where)
      : new Map<number, number>();
  const judged = cosets.map((coset, i) => {
    const now = weighed[i]!;
    const told = reason === undefined ? now : { ...now, verdict: "cannot tell" as const, reason };
    // A component of its own loses far less than what lies between it and a better one.
    const most = between.get(i);
    const own = most === undefined || !(now.lost.high > LIMITS.contrast * most);
    // A matrix that surely loses skill is no symmetry, whatever directions lose.
    if (
      told.verdict === "none" ||
      (told.verdict === "approximate" && !own) ||
      (reason === undefined && now.verdict === "cannot tell" && now.broken.low > 0)
    )
      return undefined;
    const words = describe(told, found, coset.name, 0);
    const size = found.matrices[i]!.size;
    return { ...coset, evidence: { ...judgement(told, words), size } };
  });
  return { judged, hopeless: reason };
}

/**
 * Measure what is lost between each component that holds approximately and those that lose less.
 *
 * All matrices of a component hold, so the way begins at the one that is nearest.
 *
 * @param weighed the verdicts on the components
 * @param algebra basis of the Lie algebra of the identity component; k may be 0
 * @param where how the matrices are to be understood
 * @returns the most skill lost on a way, least of all ways, by the number of the component. A
 *   component has no entry if no other loses less, or if no path leads there.
 */
async function measureBetween(
  ctx: Context,
  { predictor, atlas, others }: SolverInputs,
  cosets: readonly CosetResult[],
  weighed: readonly Weighed[],
  algebra: readonly SquareMatrix[],
  { factors, coordinates }: Frame,
): Promise<Map<number, number>> {
  const basis = inward(algebra, coordinates);
  const matrices = inward(
    cosets.map(({ matrix }) => matrix),
    coordinates,
  );
  // Those that may hold. Each is compared only with those before it, so one of several equals stays.
  const order = [...weighed.keys()]
    .filter((i) => weighed[i]!.verdict === "approximate" || weighed[i]!.broken.low === 0)
    .sort((i, j) => weighed[i]!.lost.value - weighed[j]!.lost.value);
  const ways = order.flatMap((i, place) =>
    weighed[i]!.verdict !== "approximate"
      ? []
      : order
          .slice(0, place)
          .flatMap((better) => wayBetween(matrices[better]!, matrices[i]!, basis, factors) ?? [])
          .sort((a, b) => a.distance - b.distance)
          .slice(0, NEIGHBOURS)
          .map(({ points }) => ({ i, points })),
  );
  const between = new Map<number, number>();
  if (ways.length === 0) return between;
  const points = ways.flatMap((way) => way.points);
  const found = await ctx.timed("evidence", () =>
    ctx.session.measureEvidence(predictor, {
      dataset: others,
      atlas,
      matrices: outward(points, coordinates),
      samples: MANY,
      seed: ctx.seed,
    }),
  );
  for (const [at, { i }] of ways.entries()) {
    const along = found.matrices.slice(at * BETWEEN.length, (at + 1) * BETWEEN.length);
    const most = Math.max(...along.map(({ lost }) => lost ?? Number.NaN));
    if (!Number.isNaN(most)) between.set(i, Math.min(most, between.get(i) ?? most));
  }
  return between;
}

/**
 * Find points between a component and a matrix.
 *
 * @param from a matrix of the component
 * @param basis of the Lie algebra of the identity component
 * @returns the points, and how far the matrix is from the component; undefined if no path leads
 *   from there to the matrix
 */
function wayBetween(
  from: SquareMatrix,
  to: SquareMatrix,
  basis: readonly SquareMatrix[],
  factors: readonly Factor[] | undefined,
): { points: SquareMatrix[]; distance: number } | undefined {
  const apart = multiply(invert(from), to);
  const { element, distance } = nearestInIdentityComponent(apart, basis, factors);
  const way = logm(multiply(invert(element), apart));
  if (way === undefined) return undefined;
  const point = (share: number) =>
    multiply(from, element, expm(combine([share], [way], way.length)));
  return { points: BETWEEN.map(point), distance };
}

/** Put the verdict in words. */
function describe(
  { verdict, reason, lost, elsewhere, broken, size }: Weighed,
  { skill, heldOut, targets }: EvidenceMeasured,
  name: string,
  directions: number,
): string {
  const what = targets ? `of the predictor's skill (${(skill ?? 0).toFixed(2)})` : "of its output";
  const cost = `${inPercent(lost.value)} [${inPercent(lost.low)}, ${inPercent(lost.high)}] ${what}`;
  const move = directions > 0 ? `; moves of size ${size.toPrecision(2)} cost ${cost}` : "";
  const other =
    elsewhere === null || directions === 0
      ? ""
      : `, other directions at least ${inPercent(elsewhere)}`;
  const seen = heldOut ? "" : ", on the data that it was fitted to";
  const tail = `${move}${other}${directions > 0 ? seen : ""}`;
  switch (verdict) {
    case "symmetry":
      return (
        `${name}: not broken by more than ${inPercent(broken.high)} of the output's spread, ` +
        `as far as the predictor sees${tail}`
      );
    case "approximate":
      return `${name} holds approximately: ${describeBroken({ broken })}${tail}`;
    case "none":
      return reason === ""
        ? `no symmetry: the best direction is broken by at least ` +
            `${inPercent(broken.low)} of the output's spread${tail}`
        : reason;
    case "cannot tell":
      return `cannot tell: ${reason}`;
  }
}

function describeBroken({ broken }: Pick<Weighed, "broken">): string {
  return `broken by ${inPercent(broken.low)} to ${inPercent(broken.high)} of the output's spread`;
}

/** Say that further directions may be symmetries. */
function describeUndecided({ undecided }: Weighed): string[] {
  if (undecided === 0) return [];
  const some = undecided === 1 ? "One other direction" : `${undecided} other directions`;
  return [
    `${some} may be ${undecided === 1 ? "a symmetry" : "symmetries"} too: the data cannot tell`,
  ];
}

/** Say which generators are a symmetry of larger moves than all of them are. */
function describeLasting(
  { generators, size, broken }: Weighed & { generators: number },
  measured: AlgebraMeasured,
): string {
  const name = nameOf(analyseAlgebra({ ...measured, symmetryCount: generators }));
  return (
    `${name} alone also holds for moves of size ${size.toPrecision(2)}: not broken by more than ` +
    inPercent(broken.high)
  );
}

/** Say above which sizes breakings would have been seen. */
export function describeLimits(limits: readonly Limit[]): string[] {
  const seen = limits.filter(({ above }) => above !== null);
  if (limits.length === 0) return [];
  const [first, ...rest] = seen;
  if (first === undefined) return ["No breaking that was planted would have been seen"];
  const length = ({ length, unit }: Limit) =>
    unit === "pixels"
      ? `one that changes within ${length} pixel${length === 1 ? "" : "s"}`
      : `one that changes over ${length} of the inputs' spread`;
  const roughest = limits.at(-1)!;
  const unseen = roughest.above === null ? [`${length(roughest)}: not at all`] : [];
  const others = [...rest.map((each) => `${length(each)}: ${inPercent(each.above!)}`), ...unseen];
  const brackets = others.length === 0 ? "" : ` (${others.join("; ")})`;
  return [`A smooth breaking above ${inPercent(first.above!)} would have been seen${brackets}`];
}

/** Say whether other coordinates give the same answer. */
export function describeAgreement(agreement: Agreement | undefined): string[] {
  if (agreement === undefined) return [];
  const { systems, refits } = agreement;
  const spread = `${Math.max(0, ...refits).toFixed(1)}°`;
  if (systems === undefined)
    return [`Refits agree within ${spread}; other coordinates: not tested`];
  const angle = `${Math.max(0, ...systems).toFixed(1)}°`;
  return agrees(agreement)
    ? [`Same answer in ${systems.length} other coordinate systems, within ${angle}`]
    : [
        `Other coordinate systems give answers up to ${angle} away, where refits differ by ` +
          `${spread}: the network's own axes matter`,
      ];
}

/** The directions of the spectrum that are not in the span of the generators. */
function complement(
  { spectrum, coordinates, factors }: AlgebraMeasured,
  generators: readonly SquareMatrix[],
  everything?: readonly SquareMatrix[],
): SquareMatrix[] {
  const span = frame(inward(generators, coordinates));
  const outside = (spectrum ?? [])
    .map(({ direction }) => direction)
    .filter((direction) => norm(project(inward([direction], coordinates)[0]!, span)) < 0.7);
  if (outside.length > 0) return outside;
  const n = generators[0]?.length;
  return n === undefined ? [] : complementOf(generators, n, { coordinates, factors }, everything);
}

/**
 * A basis of the directions that are orthogonal to a span.
 *
 * @param where coordinates in which they are orthogonal, and the groups whose product acts
 * @param everything in which they are sought; by default the algebra of that product, or gl(n)
 */
function complementOf(
  span: readonly SquareMatrix[],
  n: number,
  { coordinates, factors }: Frame,
  everything: readonly SquareMatrix[] = algebraOf(factors, n),
): SquareMatrix[] {
  const known = frame(inward(span, coordinates));
  const all = frame([...known, ...inward(everything, coordinates)]);
  return outward(all.slice(known.length), coordinates);
}

/** A basis of the algebra of a product of groups; of gl(n) if there is none. */
function algebraOf(factors: readonly Factor[] | undefined, n: number): SquareMatrix[] {
  if (factors === undefined || factors.length === 0) return namedAlgebra(`gl(${n})`, n) ?? [];
  return blocksOf(factors, n).flatMap((block) => {
    const zeros = Array.from({ length: block.size }, () => Array<number>(block.size).fill(0));
    // An affine block has a row of zeros below.
    return zeros.slice(0, block.n).flatMap((row, i) =>
      row.map((_, j) => {
        const one = zeros.map((each, k) => each.map((_, l) => Number(k === i && l === j)));
        return embed(one, block.start, n);
      }),
    );
  });
}

/** Twice as many combinations as there are generators, spread over the span, always the same. */
function combinations(generators: readonly SquareMatrix[], where: Frame): SquareMatrix[] {
  const span = frame(inward(generators, where.coordinates));
  const n = generators[0]!.length;
  const mixed = Array.from({ length: 2 * span.length }, (_, row) => {
    // Weights spread evenly over the directions, by multiples of an irrational angle.
    const weights = span.map((_, i) => Math.cos((row + 1) * (i + 1) * 2.399963 + i));
    return combine(weights, span, n);
  });
  return unitsIn(outward(mixed, where.coordinates), linearCoordinates(where));
}

function sortedBy(order: readonly number[], measured: AlgebraMeasured) {
  return {
    generators: order.map((i) => measured.generators[i]!),
    losses: order.map((i) => measured.losses[i]!),
    relativeErrors: order.map((i) => measured.relativeErrors[i]!),
  };
}
