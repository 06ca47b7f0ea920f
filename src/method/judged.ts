/** What directions lose, measured no further than the rule needs (METHOD 2.13). */
import { ofSizes } from "../algebra/interval.js";
import type { SquareMatrix } from "../algebra/linalg.js";
import type { EvidenceMeasured, SkillLost } from "../result.js";
import type { EvidenceOptions } from "../worker/index.js";
import { inReach, SMALLEST, type Weighed } from "./rule.js";

/** Samples (times charts) that judge what was found, and what it is compared with. */
export const MANY = 1500;
export const FEW = 400;

/** Measures what moves along directions lose. */
export type Ask = (
  directions: SquareMatrix[],
  options: Pick<EvidenceOptions, "samples" | "sizes" | "halfTurns">,
) => Promise<EvidenceMeasured>;

/**
 * What the generators and the other directions lose.
 *
 * All sizes of the generators are measured on few samples. The sizes by which they are judged are
 * measured on many. Others are measured at the size with which they are compared, and at smaller
 * ones where these may decide.
 */
export class Judged {
  /** What each generator loses at each size. */
  own: SkillLost[][] = [];
  /** What each other direction loses at the sizes that were measured, in order. */
  others: SkillLost[][] = [];
  /** Number of the size with which others are compared: the largest in reach of any generator. */
  private at = 0;
  /** Numbers of the generators' sizes that were measured on many samples. */
  private readonly refined = new Set<number>();
  /** For each other direction, the number of the smallest size that was measured. */
  private smallest: number[] = [];

  /**
   * @param halfTurns whether half turns along the generators are judged, too
   */
  constructor(
    private readonly generators: readonly SquareMatrix[],
    private readonly rest: readonly SquareMatrix[],
    private readonly sizes: readonly number[],
    private readonly halfTurns: boolean,
    private readonly ask: Ask,
  ) {}

  /** Measure what is needed in any case. @returns what many samples say of the predictor */
  async begin(): Promise<EvidenceMeasured> {
    const { generators, rest, sizes, halfTurns } = this;
    const few = await this.ask([...generators], { sizes: [...sizes], samples: FEW });
    const reach = () =>
      Math.max(0, ...this.own.map((each) => ofSizes(each).findLastIndex((at) => inReach(at))));
    this.own = few.directions;
    const from = reach();
    const larger = { sizes: sizes.slice(from), samples: MANY, halfTurns };
    const many = await this.ask([...generators], larger);
    this.own = few.directions.map((each, i) => [...each.slice(0, from), ...many.directions[i]!]);
    for (let index = from; index < sizes.length; index++) this.refined.add(index);
    this.at = reach();
    if (rest.length === 0) return many;
    const compared = { sizes: sizes.slice(this.at, this.at + 1), samples: FEW };
    this.others = (await this.ask([...rest], compared)).directions;
    this.smallest = rest.map(() => this.at);
    await this.fill((each) => !each.some((at) => inReach(at)), 0);
    return many;
  }

  /**
   * Measure what a judgement turned out to need.
   *
   * @returns whether anything was measured, so that it has to be made again
   */
  async measureFor({ verdict, index }: Weighed): Promise<boolean> {
    const untold = verdict === "approximate" || verdict === "cannot tell";
    if ((untold || index !== this.at) && (await this.fill())) return true;
    // Smaller sizes may decide where the largest does not.
    const smaller = [...this.sizes.keys()].filter((i) => i < this.at && i >= this.least);
    const rough = untold ? smaller : index < 0 ? [] : [index];
    let measured = false;
    for (const each of rough) measured = (await this.refine(each)) || measured;
    return measured;
  }

  /**
   * Measure the generators at a size on many samples.
   *
   * @param index number of the size
   * @returns whether anything was measured
   */
  async refine(index: number): Promise<boolean> {
    if (this.refined.has(index)) return false;
    this.refined.add(index);
    const asked = { sizes: this.sizes.slice(index, index + 1), samples: MANY };
    const { directions } = await this.ask([...this.generators], asked);
    for (const [i, [found]] of directions.entries())
      if (found !== undefined) this.own[i]![index] = found;
    return true;
  }

  /**
   * Measure smaller sizes of other directions.
   *
   * @param which tells of which directions, by what is known of them
   * @param from number of the smallest size; by default that of the smallest that is ever judged
   * @returns whether anything was measured
   */
  async fill(
    which: (sizes: readonly SkillLost[]) => boolean = () => true,
    from = this.least,
  ): Promise<boolean> {
    let measured = false;
    for (const to of new Set(this.smallest)) {
      const missing = [...this.rest.keys()].filter(
        (i) => this.smallest[i] === to && from < to && which(this.others[i]!),
      );
      if (missing.length === 0) continue;
      const { directions } = await this.ask(
        missing.map((i) => this.rest[i]!),
        { sizes: this.sizes.slice(from, to), samples: FEW },
      );
      for (const [j, i] of missing.entries()) {
        this.others[i] = [...directions[j]!, ...this.others[i]!];
        this.smallest[i] = from;
      }
      measured = true;
    }
    return measured;
  }

  /** Number of the smallest size that is ever judged in the place of a larger one. */
  private get least(): number {
    return this.sizes.findIndex((size) => size > SMALLEST);
  }

  /** All directions with what they lose, the generators first. */
  tried(): { direction: SquareMatrix; sizes: SkillLost[] }[] {
    const of = (directions: readonly SquareMatrix[], lost: SkillLost[][]) =>
      directions.map((direction, i) => ({ direction, sizes: lost[i] ?? [] }));
    return [...of(this.generators, this.own), ...of(this.rest, this.others)];
  }
}
