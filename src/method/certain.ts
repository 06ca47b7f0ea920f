/** What is certain enough of a result to be used elsewhere: generators and components. */
import type { SquareMatrix } from "../algebra/index.js";
import type { AlgebraResult, CosetResult, GroupResult, Verdict } from "../result.js";

/**
 * Select the generators of a result that are a symmetry. If some of them are one of larger moves,
 * these are taken, since a whole group is built from them. Where there is no other symmetry, those
 * that hold approximately are taken.
 *
 * @returns also what a user should know of them, in sentences
 */
export function certainGenerators({
  generators,
  symmetryCount,
  evidence: { approximate = 0, lasting, size = null } = {} as AlgebraResult["evidence"] & object,
}: Pick<AlgebraResult, "generators" | "symmetryCount" | "evidence">): {
  generators: SquareMatrix[];
  approximate: boolean;
  notes: string[];
} {
  if (symmetryCount === 0) {
    const [isOne, holds] = approximate === 1 ? ["", "holds"] : ["s", "hold"];
    const notes =
      approximate > 0 ? [`its ${approximate} generator${isOne} ${holds} approximately`] : [];
    return { generators: generators.slice(0, approximate), approximate: approximate > 0, notes };
  }
  const count = lasting?.generators ?? symmetryCount;
  const few = symmetryCount - count;
  const most = (size ?? Number.NaN).toPrecision(2);
  return {
    generators: generators.slice(0, count),
    approximate: false,
    notes: [
      ...(few > 0 ? [leftOut(few, `only for moves up to a size of ${most}`)] : []),
      ...(approximate > 0 ? [leftOut(approximate, "only approximately")] : []),
    ],
  };
}

/** Say that generators are left out, and how the symmetry would hold with them. */
function leftOut(count: number, how: string): string {
  const [what, them] =
    count === 1 ? ["one generator is", "it"] : [`${count} generators are`, "them"];
  return `${what} left out: with ${them}, the symmetry holds ${how}`;
}

/** A matrix outside of the identity component. */
export interface CertainComponent {
  name: string;
  matrix: SquareMatrix;
  /** Its verdict; "not judged" in a run without evidence. */
  verdict: Verdict | "not judged";
}

/**
 * Select the components of a result that hold, exactly or approximately. Those of which the data
 * cannot tell are left out. All elements of a finite group are components, if none is in doubt.
 */
export function certainComponents({
  cosets = [],
  cosetSearch: { undecided = 0 } = {},
  group,
}: {
  cosets?: readonly Pick<CosetResult, "name" | "matrix" | "evidence">[];
  cosetSearch?: { undecided?: number };
  group?: GroupResult;
}): { components: CertainComponent[]; leftOut: number } {
  const verdictOf = ({ evidence }: Pick<CosetResult, "evidence">) =>
    evidence?.verdict ?? "not judged";
  const kept = cosets.filter((coset) => verdictOf(coset) !== "cannot tell");
  const leftOut = cosets.length - kept.length + undecided;
  const named = kept.filter(({ name }) => name !== "identity");
  if (leftOut > 0 || !group?.finite || !group.resolved || group.elements.length < 2)
    return {
      components: named.map((coset) => ({ ...coset, verdict: verdictOf(coset) })),
      leftOut,
    };
  const verdict = weakest(named.map(verdictOf));
  const elements = group.elements.slice(1);
  const nameOf = (i: number) => `element ${i + 1} of ${group.name}`;
  return {
    components: elements.map((matrix, i) => ({ name: nameOf(i), matrix, verdict })),
    leftOut,
  };
}

/** Find what can be said of all. */
export function weakest(verdicts: readonly CertainComponent["verdict"][]) {
  for (const one of ["not judged", "cannot tell", "none", "approximate"] as const)
    if (verdicts.includes(one)) return one;
  return "symmetry";
}

/** Say that components were left out. */
export function saidOf(leftOut: number): string {
  return (
    `${leftOut} component${leftOut === 1 ? " is" : "s are"} left out: the data could not tell ` +
    `whether ${leftOut === 1 ? "it is a symmetry" : "they are symmetries"}`
  );
}
