/** What to type for the arrays in a file: which of them may be inputs and targets, and why. */
import type { FileMember } from "../worker/index.js";

const TARGETS =
  /^(y|targets?|labels?|class(es)?|outputs?|out|response|energy|rain\w*|precip\w*|pr|tp)$/i;
/** Names of columns that number the rows. */
const COUNTERS = /^(id|index|row|no|unnamed: \d+)$/i;
const INPUTS = /^(x|inputs?|data|features|points|traj|trajectories)$/i;
/** Largest number of classes that whole numbers are taken for. */
const CLASSES = 1000;

/** Arrays that may be inputs and targets. */
export interface Advice {
  inputs: string[];
  targets: string[];
  /** Whether the targets look like class labels. */
  classes: boolean;
  /** Why these. */
  reason: string;
}

/** The last part of a name, without its groups. */
const bare = (name: string) => name.split(/[/.]/).at(-1) ?? name;

/** Choose inputs and targets among the arrays of a file. @returns undefined if it has none */
export function advise(members: readonly FileMember[]): Advice | undefined {
  const found = members.filter((m) => m.numbers && !m.coordinate && m.partOf === "" && !m.problem);
  const [first, ...others] = found;
  if (first === undefined) return undefined;
  if (others.length === 0) return adviseTable(first, members);
  const named = found.find(({ name }) => TARGETS.test(bare(name)));
  const smallest = found.toSorted((a, b) => size(a) - size(b))[0]!;
  const names = new Set(found.map(({ name }) => name.toLowerCase()));
  const free = found.filter(({ name }) => !isComponent(name.toLowerCase(), names));
  const last = free.at(-1) ?? found.at(-1)!;
  const tells = named ?? (found.some((m) => size(m) > size(smallest)) ? smallest : last);
  const rest = found.filter((m) => m !== tells && samples(m) === samples(tells));
  const inputs = rest.find(({ name }) => INPUTS.test(bare(name)));
  const largest = rest.toSorted((a, b) => size(b) - size(a))[0];
  if (largest === undefined)
    return {
      inputs: [(inputs ?? found.find((m) => m !== tells) ?? first).name],
      targets: [],
      classes: false,
      reason: "no other array has as many samples",
    };
  // Fields of the same axes are channels of one.
  const joined = rest.filter((m) => m.dims.length > 1 && same(m, largest));
  const chosen = inputs ? [inputs] : joined.length > 1 ? joined : [largest];
  const why = named
    ? "is named as one"
    : size(tells) < size(largest)
      ? "is the smallest"
      : "is the last";
  return {
    inputs: chosen.map(({ name }) => name),
    targets: [tells.name],
    classes: areClasses(tells),
    reason: `${tells.name} may be the target: it ${why}`,
  };
}

function adviseTable(table: FileMember, members: readonly FileMember[]): Advice {
  const { columns } = table;
  const like = columns.filter((name) => TARGETS.test(bare(name)));
  // Beside x and z, y is a coordinate.
  const space = ["x", "z"].every((axis) => columns.some((name) => bare(name) === axis));
  const named = like.find((name) => bare(name) !== "y") ?? (space ? undefined : like[0]);
  const counters = columns.filter((name) => COUNTERS.test(bare(name)));
  // Columns of numbers among others of text are joined, and have the names of all as theirs.
  const among = table.name === columns.join(",") && columns.length > 1;
  if (named === undefined || columns.length < 2)
    return {
      inputs: among
        ? columns.filter((name) => !counters.includes(name))
        : table.name === ""
          ? []
          : [table.name],
      targets: [],
      classes: false,
      reason:
        columns.length < 2
          ? "the file holds one array; targets are in another file, or there are none"
          : "no column is named as the target: if one is, take it out of the inputs; " +
            "targets may be in another file, or there are none",
    };
  const prefix = among || table.name === "" ? "" : `${table.name}/`;
  const at = table.numbers?.names.indexOf(named) ?? -1;
  const column = members.find(({ name }) => name === `${prefix}${named}`);
  return {
    inputs: columns
      .filter((name) => name !== named && !counters.includes(name))
      .map((name) => `${prefix}${name}`),
    targets: [`${prefix}${named}`],
    classes:
      /int|bool|^[|<>]?[iub]\d/.test(column?.dtype ?? "") &&
      (table.numbers?.maxima[at] ?? Number.POSITIVE_INFINITY) < CLASSES,
    reason:
      `the column ${named} may be the target: it is named as one` +
      (counters.length > 0 ? `; ${counters.join(", ")} may count the rows, and is left out` : ""),
  };
}

function areClasses({ numbers, dtype, layout }: FileMember): boolean {
  const integers = /int|bool|^[|<>]?[iub]\d/.test(dtype);
  const { whole = false, minimum = -1, maximum = CLASSES } = numbers ?? {};
  return integers && whole && minimum >= 0 && maximum < CLASSES && layout?.axes === "n";
}

function samples({ shape, layout }: FileMember): number {
  const at = layout?.axes.split(",").indexOf("n") ?? -1;
  return shape[Math.max(0, at)] ?? 1;
}

/** Whether a name is that of a component of a vector whose other component is there too. */
function isComponent(name: string, names: ReadonlySet<string>): boolean {
  return ["uv", "vu", "xy", "yx"].some(
    ([one, other]) => name.includes(one!) && names.has(name.replace(one!, other!)),
  );
}

const size = ({ shape }: FileMember) => shape.reduce((product, n) => product * n, 1);

const same = (a: FileMember, b: FileMember) =>
  a.shape.join() === b.shape.join() && a.dims.join() === b.dims.join();
