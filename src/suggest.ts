/**
 * Find the candidate that a mistyped word most likely meant.
 *
 * @returns the candidate with the smallest edit distance, if that is small for the word's length
 */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  if (word.length < 3) return undefined;
  let best: string | undefined;
  let least = Math.floor(word.length * 0.4) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < least) {
      least = distance;
      best = candidate;
    }
  }
  return best;
}

/**
 * Count the insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`.
 */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      let least = Math.min(
        last[j]! + 1,
        row[j - 1]! + 1,
        last[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1),
      );
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        least = Math.min(least, beforeLast[j - 2]! + 1);
      row.push(least);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length]!;
}

/** Characters of the longest list of names that {@link choices} gives whole. */
const LONGEST = 100;
/** Number of names that it gives of a longer list. */
const FEW = 8;

/** Write a list of choices; of a long list, those that are nearest to a word. */
export function choices(word: string, names: readonly string[]): string {
  const all = names.join(", ");
  if (all.length <= LONGEST) return all;
  const distance = new Map(
    names.map((n) => [n, editDistance(word.toLowerCase(), n.toLowerCase())]),
  );
  const near = [...names].sort((a, b) => distance.get(a)! - distance.get(b)!).slice(0, FEW);
  return `${near.join(", ")} (or another of ${names.length})`;
}

/** Suggest a candidate: " (did you mean grassmann?)", or "" if none is near. */
export function suggestion(word: string, candidates: readonly string[]): string {
  const best = nearest(word, candidates);
  return best === undefined ? "" : ` (did you mean ${best}?)`;
}
