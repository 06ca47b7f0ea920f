/** Train networks with and without a symmetry on the same samples, and compare them (METHOD 5.6). */
import { z } from "zod";
import { meanInterval, ratioInterval } from "../algebra/index.js";
import type { Block } from "../blocks.js";
import { UsageError } from "../errors.js";
import { chooseLater, settle } from "../experiment/choice.js";
import type { Context } from "../experiment/context.js";
import { whole } from "../experiment/define.js";
import type { Comparison } from "../result.js";
import { Tensor } from "../tensor/index.js";
import type { RemoteObject } from "../worker/index.js";
import { alike, epochsOf, pick } from "./arms.js";
import type { OwnLoss, ownAtlas } from "./own.js";
import { HELD_OUT, ownFit } from "./own.js";
import { type ArmGroup, EXACT } from "./symmetry.js";

type Size = Comparison["sizes"][number];
type Arm = Size["arms"][number];

/** Numbers of samples to compare at, unless the user gives others. */
const SAMPLES = [100, 1000, 10_000];
/** The networks in the order of tables. */
const ORDER: readonly Arm["arm"][] = ["none", "augmented", "found", "exact", "wrong"];
/** What a network with a wrong symmetry leaves over what none leaves, from which on it is wrong. */
const HURTS = 1.5;
/** Hidden layers of the network without a symmetry. */
const LAYERS = 3;

/** Make the config fields of numbers of samples, and of the times that each network is trained. */
export const pairedFields = (pairs: number, usual: string) => ({
  samples: z
    .string()
    .optional()
    .refine((text) => text === undefined || samplesOf(text) !== undefined, {
      message: "expected whole numbers, as in 100,1000",
    })
    .meta({
      description: `Numbers of samples to train with (default: ${usual})`,
      placeholder: "numbers",
    }),
  pairs: whole(pairs, "Trainings of each network, on the same samples as the others"),
});

/** Make the config fields of a comparison. */
export const comparisonFields = () => ({
  ...pairedFields(5, "100,1000,10000 that fit"),
  augment: z
    .boolean()
    .default(false)
    .describe("Also train the network without a symmetry on samples moved by the group"),
  ...chooseLater("network", "architecture", {
    description: "Network with a symmetry",
    kinds: ["equivariant_mlp", "steerable_unet"],
  }),
  ...chooseLater("baseline", "architecture", {
    description: "Network without (default: mlp or, of fields, unet of as many parameters)",
    kinds: [
      ...(["mlp", "polynomial", "quadratic", "particle_graph", "particle_flow"] as const),
      ...(["unet", "convnet"] as const),
    ],
    omit: ["kernel"],
  }),
  epochs: z.int().positive().optional().meta({
    description: "Passes over the data (default: by the number of samples)",
    placeholder: "number",
  }),
  ...chooseLater("training", "training", {
    description: "Training recipe",
    kinds: ["supervised"],
  }),
});

/** Config of {@link comparisonFields}. */
export interface ComparisonConfig {
  samples?: string;
  pairs: number;
  augment?: boolean;
  network?: string;
  baseline?: string;
  epochs?: number;
}

/** Read numbers such as "100,1000". @returns undefined if they are none */
export function samplesOf(text: string): number[] | undefined {
  const numbers = text.split(",").map((part) => Number(part.trim()));
  return numbers.every((n) => Number.isInteger(n) && n > 0) ? numbers : undefined;
}

/** Choose the numbers of samples. @throws UsageError if there are too few samples */
function sizesOf({ samples }: ComparisonConfig, available: number): number[] {
  const most = Math.floor((1 - HELD_OUT.test) * available);
  const given = samples === undefined ? undefined : samplesOf(samples)!;
  const over = given?.find((n) => n > most);
  if (over !== undefined)
    throw new UsageError(
      `--samples ${over}: of ${available} samples ${available - most} are for the test`,
      `give at most ${most}`,
    );
  const fitting = given ?? SAMPLES.filter((n) => n <= most);
  if (fitting.length > 0) return [...new Set(fitting)].sort((a, b) => a - b);
  return [most];
}

/**
 * Train a network without a symmetry and one for each group, `pairs` times at each number of
 * samples. In a repeat all networks have the same samples and the same test.
 *
 * @param given the groups; of several wrong ones, one is taken
 */
export async function compareArms(
  ctx: Context,
  c: ComparisonConfig,
  {
    dataset,
    atlas,
    charts,
    loss,
  }: {
    dataset: RemoteObject;
    atlas: RemoteObject;
    charts: ReturnType<typeof ownAtlas>;
    loss: OwnLoss;
  },
  given: readonly ArmGroup[],
): Promise<Comparison> {
  const [available = 0, ...sample] = dataset.shapes!.inputs;
  const planar = charts.kind === "planar";
  let fixed: RemoteObject | undefined;
  /** The same space with outputs that do not move. */
  const withStillOutputs = async () => {
    const params = { ...charts.params, targets_as: undefined };
    fixed ??= await ctx.atlas({ ...charts, params } as typeof charts);
    return fixed;
  };

  const trained: Train = async (name, network, samples, repeat) => {
    const { group, moves } = network;
    const seed = ctx.seedFor(repeat);
    const fit = ownFit(
      { epochs: c.epochs, ...trainingOf(c) },
      [samples, ...sample],
      charts,
      loss,
      seed,
    );
    const training = withSamples(fit.training, samples);
    const { batch_size = 1 } = training.params as { batch_size?: number };
    const architecture = group
      ? symmetric(c, group, planar)
      : baseline(c, network.parameters, planar);
    const predictor = await ctx.within(name).predictor({
      dataset,
      atlas: group?.still ? await withStillOutputs() : atlas,
      architecture,
      training: moves ? moving(training) : training,
      epochs: planar ? (c.epochs ?? epochsOf(samples, batch_size)) : fit.epochs,
      seed: seed % 2 ** 31,
      tensors:
        (group && tensorsOf(group, { planar })) ??
        (moves && tensorsOf(moves, { prefix: "augment_" })),
    });
    const { skill = Number.NaN } = await ctx.within(name).advance("train", predictor);
    const seconds = ctx.timings[`${name}-train`] ?? 0;
    const parameters = Number(predictor.facts.parameters);
    return { skills: [skill], seconds, parameters, architecture };
  };
  return comparePairs(ctx, c, sizesOf(c, available), given, trained);
}

/** What came of the training of one network. */
export interface Trained {
  /** Skill in each test. 1 is perfect, and what is missing to 1 is what the network leaves. */
  skills: readonly number[];
  seconds: number;
  parameters: number;
  architecture: Block<"architecture">;
}

/**
 * Trains one network on some samples. In a repeat all networks have the same samples.
 *
 * @param name of the training
 */
export type Train = (
  name: string,
  network: Network,
  samples: number,
  repeat: string,
) => Promise<Trained>;

/**
 * Train a network without a symmetry and one for each group, `pairs` times with each number of
 * samples, and compare them.
 *
 * @param given the groups; of several wrong ones, one is taken
 * @param tests names of the tests, if there are several; the first one judges what is wrong
 */
export async function comparePairs(
  ctx: Context,
  c: Pick<ComparisonConfig, "pairs" | "augment">,
  counts: readonly number[],
  given: readonly ArmGroup[],
  trained: Train,
  tests: readonly (string | undefined)[] = [undefined],
): Promise<Comparison> {
  const told = new Map<string, string>();
  const groups = await withWrong(ctx, given, (name, network) =>
    trained(`pilot-${name}`, network, counts[0]!, "pilot"),
  );
  const sizes: Size[] = [];
  for (const samples of counts) {
    const rows = new Map<string, { skills: number[][]; seconds: number; parameters: number }>();
    for (let repeat = 0; repeat < c.pairs; repeat++) {
      let parameters = 0;
      for (const { arm, group, moves } of armsOf(c, groups)) {
        const name = `${arm}-${samples}-${repeat}`;
        const network = { group, moves, parameters };
        const one = await trained(name, network, samples, `repeat ${repeat}`);
        told.set(arm, one.architecture.kind);
        if (arm === groups[0]?.arm) parameters = one.parameters;
        const row = rows.get(arm) ?? { skills: tests.map(() => []), seconds: 0, parameters: 0 };
        row.parameters = one.parameters;
        for (const [i, skills] of row.skills.entries()) skills.push(one.skills[i]!);
        row.seconds += one.seconds / c.pairs;
        rows.set(arm, row);
      }
    }
    for (const [i, test] of tests.entries()) {
      const arms = [...rows].map(([arm, { skills, ...row }]) => ({
        ...{ arm: arm as Arm["arm"], skills: skills[i]!, ...row },
      }));
      sizes.push({ ...sized(samples, arms), test });
    }
  }
  const drawn = `none, but samples are moved by ${groups[0]?.called}`;
  const symmetryOf = (arm: string) =>
    groups.find((group) => group.arm === arm)?.called ?? (arm === "augmented" ? drawn : "none");
  const order = ORDER.filter((arm) => told.has(arm));
  return {
    repeats: c.pairs,
    arms: order.map((arm) => ({ arm, architecture: told.get(arm)!, symmetry: symmetryOf(arm) })),
    sizes,
  };
}

/** What a network to train has, beside the samples. */
export interface Network {
  /** The group that it commutes with, if any. */
  group?: ArmGroup;
  /** The group by which its samples are moved, if any. */
  moves?: ArmGroup;
  /** Number of parameters that a network without a group should have. */
  parameters: number;
}

/**
 * Keep one of the groups that may be wrong: the first whose network is worse than one without a
 * symmetry, in one training of each on samples drawn for this alone. Another algebra need not be
 * wrong: the data may have more symmetries than were found, or not tell the difference.
 */
async function withWrong(
  ctx: Context,
  groups: readonly ArmGroup[],
  train: (name: string, network: Network) => Promise<Pick<Trained, "skills" | "parameters">>,
): Promise<ArmGroup[]> {
  const right = groups.filter(({ arm }) => arm !== "wrong");
  const candidates = groups.filter(({ arm }) => arm === "wrong");
  if (candidates.length === 0) return right;
  let none: number | undefined;
  const tried: { group: ArmGroup; ratio: number }[] = [];
  for (const [i, group] of candidates.entries()) {
    const { skills, parameters } = await train(`wrong-${i}`, { group, parameters: 0 });
    none ??= left((await train("none", { parameters })).skills[0]!);
    tried.push({ group, ratio: left(skills[0]!) / none });
    if (!(tried.at(-1)!.ratio < HURTS)) break;
  }
  const [worst] = tried.sort((a, b) => b.ratio - a.ratio);
  const { group, ratio } = worst!;
  const others = tried.filter((each) => each !== worst).map((each) => each.group.called);
  const rest = others.length === 0 ? "" : ` (${others.join(", ")}: less)`;
  ctx.note(
    `the wrong symmetry, ${group.called}, left ${ratio.toPrecision(2)} times what none leaves in ` +
      `a training beforehand${rest}` +
      (ratio > 1 ? "" : "; so nothing tells that it is wrong for these data"),
  );
  return [...right, group];
}

/** The share of the variance, or of the error of a constant, that a network leaves. */
const left = (skill: number) => Math.max(1 - skill, 1e-12);

/** List the networks to train: those with a group first, which tell the number of parameters. */
function armsOf({ augment }: Pick<ComparisonConfig, "augment">, groups: readonly ArmGroup[]) {
  const plain = { arm: "none" as const, group: undefined, moves: undefined };
  const [first] = groups;
  return [
    ...groups.map((group) => ({ arm: group.arm, group, moves: undefined })),
    plain,
    ...(augment && first ? [{ ...plain, arm: "augmented" as const, moves: first }] : []),
  ];
}

/** Let a training move its samples by elements of a group, by angles of about 1 radian. */
function moving({ params, ...rest }: Block<"training">): Block<"training"> {
  return { ...rest, params: { ...params, augment: 1 } } as Block<"training">;
}

/** Fields of the training recipe that a comparison sets. @see refuseGiven */
export const SET_BY_COMPARISON = ["samples", "augment", "test", "split_seed"].map(
  (name) => `training.${name}`,
);

/** The fields of the training recipe that the user gave. */
function trainingOf(c: ComparisonConfig): object {
  return Object.fromEntries(Object.entries(c).filter(([field]) => /^training(\.|$)/.test(field)));
}

function withSamples({ kind, params }: Block<"training">, samples: number): Block<"training"> {
  if (kind !== "supervised")
    throw new UsageError(`--training ${kind}: networks are compared by targets`, "leave it out");
  return { kind, params: { ...params, samples } };
}

function symmetric(
  c: ComparisonConfig,
  { accuracy }: ArmGroup,
  planar: boolean,
): Block<"architecture"> {
  const kind = planar ? "steerable_unet" : "equivariant_mlp";
  return settle(c, pick(comparisonFields(), "network"), "architecture", kind, {
    equivariant_mlp: { accuracy: Math.min(accuracy, 0.3), coordinates: accuracy > EXACT },
  });
}

/** Make the network without a symmetry: by default with about as many parameters. */
function baseline(c: ComparisonConfig, parameters: number, planar: boolean): Block<"architecture"> {
  const fields = pick(comparisonFields(), "baseline");
  const sameSize = alike(c, parameters, "width");
  return settle(c, fields, "architecture", planar ? "unet" : "mlp", {
    mlp: { ...sameSize, layers: LAYERS, activation: "silu" },
    particle_graph: alike(c, parameters, "hidden"),
    particle_flow: sameSize,
    unet: sameSize,
  });
}

function tensorsOf(
  { basis, components }: ArmGroup,
  { prefix = "", planar = false }: { prefix?: string; planar?: boolean },
): Record<string, Tensor> {
  const n = basis[0]?.length ?? components[0]!.length;
  const tensor = (matrices: readonly number[][][]) =>
    new Tensor("float64", [matrices.length, n, n], Float64Array.from(matrices.flat(2)));
  const algebra = { [`${prefix}algebra`]: tensor(basis) };
  return planar ? algebra : { ...algebra, [`${prefix}components`]: tensor(components) };
}

/** Compare the networks that were trained with one number of samples. */
function sized(
  samples: number,
  arms: readonly { arm: Arm["arm"]; skills: number[]; seconds: number; parameters: number }[],
): Size {
  const leftBy = (arm: string) => arms.find((each) => each.arm === arm)?.skills.map(left);
  const none = leftBy("none")!;
  const rows = [...arms]
    .sort((a, b) => ORDER.indexOf(a.arm) - ORDER.indexOf(b.arm))
    .map((row) => ({
      ...row,
      seconds: Math.round(row.seconds * 100) / 100,
      skill: ended(meanInterval(row.skills)),
      ratio: ended(ratioInterval(leftBy(row.arm)!, none)),
    }));
  const [found, exact] = [leftBy("found"), leftBy("exact")];
  const foundOverExact = found && exact && ended(ratioInterval(found, exact));
  return { samples, arms: rows, foundOverExact, words: wordsOf(rows, foundOverExact) };
}

/** The interval of one value has no ends. */
function ended({ value, low, high }: { value: number; low: number; high: number }) {
  const finite = (x: number) => (Number.isFinite(x) ? x : null);
  return Number.isFinite(high)
    ? { value: finite(value), low: finite(low), high: finite(high) }
    : { value: finite(value), low: null, high: null };
}

const CALLED = {
  none: "no symmetry",
  augmented: "a training with moved samples",
  found: "the found symmetry",
  exact: "the exact symmetry",
  wrong: "a wrong symmetry",
} as const;

function wordsOf(rows: readonly Arm[], foundOverExact: Size["foundOverExact"]): string[] {
  if (rows[0]!.skills.length < 2)
    return ["one training of each network does not tell which is better: give --pairs 5"];
  const words: string[] = [];
  for (const { arm, ratio } of rows) {
    if (arm === "none") continue;
    words.push(`${CALLED[arm]} is ${verdictOf(ratio)} than none`);
  }
  if (foundOverExact) {
    const { low, high } = foundOverExact;
    const same = low === null || high === null || (low <= 1 && high >= 1);
    words.push(
      same
        ? "the found and the exact one cannot be told apart"
        : `the found one is ${low > 1 ? "worse" : "better"} than the exact one`,
    );
  }
  return words;
}

function verdictOf({ low, high }: Arm["ratio"]): string {
  if (high !== null && high < 1) return "better";
  if (low !== null && low > 1) return "worse";
  return "neither clearly better nor worse";
}
