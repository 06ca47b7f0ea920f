/** Describe where on the fields a symmetry holds, for a terminal. */
import type { ChartMap, MappedChart } from "../result.js";

const SIGNS: Readonly<Record<MappedChart["state"], string>> = {
  holds: ".",
  broken: "#",
  constant: "o",
};
/** The widest map that is drawn on a terminal. */
const WIDEST = 40;

/** Describe a map of charts: a line of words, and below it a sketch if the charts make a grid. */
export function describeChartMap({ charts, window }: ChartMap): string[] {
  const count = (state: MappedChart["state"]) => charts.filter((c) => c.state === state).length;
  const holding = charts.filter((c) => c.state === "holds").map((c) => c.error);
  const range = (errors: readonly number[]) => {
    const [least, most] = [Math.min(...errors), Math.max(...errors)].map((e) => e.toPrecision(2));
    return least === most ? `${least}` : `${least} to ${most}`;
  };
  if (charts.length === 1) {
    const { error, low, high } = charts[0]!;
    return [
      `error ${error.toPrecision(2)} (95 %: ${low.toPrecision(2)} to ${high.toPrecision(2)})`,
    ];
  }
  const parts = [
    `the symmetry holds on ${holding.length} of ${charts.length}` +
      (holding.length > 0 ? ` (error ${range(holding)})` : ""),
    ...(count("broken") > 0
      ? [`broken on ${count("broken")} (#; ${range(errorsOf(charts, "broken"))})`]
      : []),
    ...(count("constant") > 0
      ? [`cannot tell on ${count("constant")} (o: some of the input never varies)`]
      : []),
    `windows of ${2 * window + 1} pixels`,
  ];
  const rows = [...new Set(charts.map((c) => c.row))].sort((a, b) => a - b);
  const cols = [...new Set(charts.map((c) => c.col))].sort((a, b) => a - b);
  if (holding.length === charts.length) return [parts.join(", ")];
  if (rows.length * cols.length !== charts.length || cols.length > WIDEST)
    return [parts.join(", ")];
  const at = new Map(charts.map((c) => [`${c.row},${c.col}`, SIGNS[c.state]]));
  const sketch = rows.map((row) => cols.map((col) => at.get(`${row},${col}`) ?? " ").join(" "));
  return [parts.join(", "), ...sketch];
}

function errorsOf(charts: readonly MappedChart[], state: MappedChart["state"]): number[] {
  return charts.filter((c) => c.state === state).map((c) => c.error);
}
