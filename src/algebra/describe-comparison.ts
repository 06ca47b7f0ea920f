/** Describe a comparison of networks with and without a symmetry, for a terminal. */
import { formatNumber, formatSeconds } from "../format.js";
import type { Comparison } from "../result.js";

type Between = Comparison["sizes"][number]["arms"][number]["skill"];

/** Length of the longest name of a network. */
const ARM = "augmented".length;
const HEAD = ["symmetry", "parameters", "time", "skill", "left unexplained, over none"] as const;

/** Write a number with its 95 % interval: "0.31 [0.27, 0.36]". */
export function between({ value, low, high }: Between, digits = 2): string {
  const write = (x: number) =>
    Math.abs(x) < 1 ? x.toFixed(digits + 1) : x.toPrecision(digits + 1);
  if (value === null) return "–";
  return low === null || high === null
    ? write(value)
    : `${write(value)} [${write(low)}, ${write(high)}]`;
}

/** Name a number of samples, and the test if there are several. */
export const namedSize = ({ samples, test }: Comparison["sizes"][number]) =>
  `${samples} samples${test === undefined ? "" : `, tested with ${test}`}`;

/** Make the rows of a table for one number of samples, the head first. */
export function comparisonRows({ arms }: Comparison["sizes"][number]): string[][] {
  return [
    [...HEAD],
    ...arms.map(({ arm, parameters, seconds, skill, ratio }) => [
      arm,
      formatNumber(parameters),
      formatSeconds(seconds),
      between(skill),
      arm === "none" ? "1" : between(ratio),
    ]),
  ];
}

/** Describe a comparison in lines: what was compared, then a table for each number of samples. */
export function describeComparison({ arms, repeats, sizes }: Comparison): string[] {
  const lines = arms.map(
    ({ arm, architecture, symmetry }) => `${arm.padEnd(ARM)} ${architecture}: ${symmetry}`,
  );
  for (const size of sizes) {
    const rows = comparisonRows(size);
    const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
    const times = repeats === 1 ? "once" : `${repeats} times, 95 % intervals`;
    lines.push(`trained with ${namedSize(size)}, ${times}:`);
    for (const row of rows)
      lines.push(
        `  ${row
          .map((cell, i) => cell.padEnd(widths[i]!))
          .join("  ")
          .trimEnd()}`,
      );
    lines.push(...size.words);
  }
  return lines;
}
