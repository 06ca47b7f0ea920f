/** The steps of a metric, as many as a screen shows, however many there were. */

/** A point of a curve. The value is null where it was no finite number. */
export type StepPoint = [at: number, value: number | null];

/** What is kept of some steps in a row. */
interface Bucket {
  count: number;
  /** The first step without a finite value. */
  broken?: StepPoint;
  least?: [at: number, value: number];
  largest?: [at: number, value: number];
}

/**
 * A ring of buckets with the least and the largest value of equally many steps each. When all
 * buckets are full, each takes the contents of two, so that the memory stays the same and the curve
 * still begins with the first step. No extreme value is lost.
 */
export class StepRing {
  private buckets: Bucket[] = [];
  /** Number of steps that a bucket takes. */
  private width = 1;
  private last: StepPoint | undefined;

  /** @param most number of buckets; {@link points} has at most three points of each, and one */
  constructor(private readonly most = 150) {}

  /**
   * Add a step. A step before the last one begins the curve again: it is computed once more.
   *
   * @param at place of the step, in epochs
   */
  add(at: number, value: number): void {
    if (this.last !== undefined && at < this.last[0]) this.clear();
    let bucket = this.buckets.at(-1);
    if (bucket === undefined || bucket.count >= this.width) {
      if (this.buckets.length >= this.most) this.merge();
      bucket = { count: 0 };
      this.buckets.push(bucket);
    }
    const finite = Number.isFinite(value);
    include(
      bucket,
      finite
        ? { count: 1, least: [at, value], largest: [at, value] }
        : { count: 1, broken: [at, null] },
    );
    this.last = [at, finite ? value : null];
  }

  /** The points that stand for all steps, in order: the extremes, the gaps, and the last step. */
  get points(): StepPoint[] {
    const points = new Map<number, number | null>();
    for (const { broken, least, largest } of this.buckets) {
      const own = [broken, least, largest].filter((point) => point !== undefined);
      for (const [at, value] of own.sort(([a], [b]) => a - b)) points.set(at, value);
    }
    if (this.last) points.set(...this.last);
    return [...points];
  }

  private clear(): void {
    [this.buckets, this.width, this.last] = [[], 1, undefined];
  }

  private merge(): void {
    const merged: Bucket[] = [];
    for (const [i, bucket] of this.buckets.entries())
      if (i % 2 === 0) merged.push(bucket);
      else include(merged.at(-1)!, bucket);
    this.buckets = merged;
    this.width *= 2;
  }
}

/** Put the contents of a later bucket into one. */
function include(bucket: Bucket, { count, broken, least, largest }: Bucket): void {
  bucket.count += count;
  bucket.broken ??= broken;
  if (least && (bucket.least === undefined || least[1] < bucket.least[1])) bucket.least = least;
  if (largest && (bucket.largest === undefined || largest[1] > bucket.largest[1]))
    bucket.largest = largest;
}
