/**
 * A session without a worker, for testing what the orchestrator does: an object's state after an
 * epoch is a hash of its state before, its seed, and the state of everything it depends on at that
 * moment. So any difference in what was computed when shows in the final state.
 */
import { createHash } from "node:crypto";
import type { StageSession } from "../../../src/experiment/context.js";
import type { EvidenceMeasured, SkillLost } from "../../../src/result.js";
import { Tensor } from "../../../src/tensor/index.js";
import type {
  AdvanceOptions,
  Epoch,
  EvidenceOptions,
  MotionFrames,
  MotionOptions,
  RemoteObject,
} from "../../../src/worker/index.js";

type ObjectType = RemoteObject["type"];

interface State {
  hash: string;
  epoch: number;
  dependencies: string[];
}

export class FakeSession {
  readonly states = new Map<string, State>();
  /** What is known of objects, by type; of datasets once they are made. */
  facts: Partial<Record<ObjectType, Record<string, unknown>>> = {};
  /** Of datasets, once they are made. */
  shapes: RemoteObject["shapes"];
  /** Every object that was made, in order. */
  readonly made: { type: ObjectType; options: Record<string, unknown> }[] = [];
  /** Every epoch done, in order: "predictor 1". */
  readonly log: string[] = [];
  /** Die (or be interrupted) when this many epochs have been told of. */
  failAfter = Number.POSITIVE_INFINITY;
  onFail: () => Error = () => new Error("killed");

  /** The skill lost along a direction: little along rotations, much along others. */
  lostAlong = ([[a = 0, b = 0] = [], [c = 0, d = 0] = []]: number[][]): number =>
    Math.abs(a) + Math.abs(d) + Math.abs(b + c) < 1e-6 ? 0.001 : 0.5;

  private readonly objects: RemoteObject[] = [];
  private readonly jobs = new Map<string, Epoch[]>();
  private created = 0;
  private told = 0;

  /** As another process finds it, after the one before was killed. */
  attach(): void {
    this.created = this.told = 0;
    this.failAfter = Number.POSITIVE_INFINITY;
  }

  async moveSample(_: RemoteObject, { lengths }: MotionOptions): Promise<MotionFrames> {
    const frames = Tensor.zeros("float32", [lengths.length, 1, 4, 4]);
    return { inputs: frames, predicted: frames, expected: frames, classes: false, apart: [] };
  }

  async measureEvidence(
    _: RemoteObject,
    { directions = [], matrices = [], sizes = [] }: EvidenceOptions = {},
  ): Promise<EvidenceMeasured> {
    const at = (lost: number, size: number): SkillLost => ({
      ...{ length: 1, size, lost, error: 0.001, floor: 0, reach: 1 },
    });
    return {
      ...{ skill: 0.9, skillError: 0.01, scenes: 100, heldOut: true, targets: true },
      directions: directions.map((direction) =>
        sizes.map((size) => at(this.lostAlong(direction as number[][]), size)),
      ),
      matrices: matrices.map(() => at(0.001, 1)),
    };
  }

  private create(
    type: ObjectType,
    options: Record<string, unknown>,
    totalEpochs: number,
  ): RemoteObject {
    const before = this.objects[this.created++];
    if (before) return { ...before, epoch: this.state(before).epoch };
    const handle = `${type}-${this.states.size}`;
    const dependencies = Object.values(options).flatMap((v) =>
      typeof v === "object" && v !== null && "handle" in v ? [String(v.handle)] : [],
    );
    this.states.set(handle, {
      hash: hash(type, JSON.stringify(options.seed)),
      epoch: 0,
      dependencies,
    });
    this.made.push({ type, options });
    const facts = type === "dataset" ? {} : (this.facts[type] ?? {});
    const object = { handle, type, kind: "fake", epoch: 0, totalEpochs, facts };
    this.objects.push(object);
    return object;
  }

  createDataset = async (o: Record<string, unknown>) => this.create("dataset", o, 1);
  readonly createAtlas = async (o: Record<string, unknown>) => this.create("atlas", o, 0);
  readonly createPredictor = async (o: Record<string, unknown>) =>
    this.create("predictor", o, Number(o.epochs));
  readonly createAlgebra = async (o: Record<string, unknown>) =>
    this.create("algebra", o, Number(o.epochs));
  readonly createCosets = async (o: Record<string, unknown>) =>
    this.create("cosets", o, Number(o.epochs));

  readonly list = async (): Promise<RemoteObject[]> =>
    [...this.states].map(([handle, { epoch }]) => {
      const type = handle.split("-")[0] as ObjectType;
      return {
        handle,
        type,
        kind: "fake",
        epoch,
        totalEpochs: epoch,
        facts: this.facts[type] ?? {},
        shapes: type === "dataset" ? this.shapes : undefined,
      };
    });

  state(object: RemoteObject): State {
    return this.states.get(object.handle)!;
  }

  async snapshot(object: RemoteObject): Promise<{ bytes: Uint8Array; epoch: number }> {
    const { hash, epoch } = this.state(object);
    return { bytes: Buffer.from(JSON.stringify({ hash, epoch })), epoch };
  }

  async restore(object: RemoteObject, bytes: Uint8Array): Promise<void> {
    Object.assign(this.state(object), JSON.parse(Buffer.from(bytes).toString()));
  }

  async loadWeights(object: RemoteObject, bytes: Uint8Array): Promise<void> {
    this.state(object).hash = hash(Buffer.from(bytes).toString());
  }

  async countShared(): Promise<number> {
    return 0;
  }

  /** One job does all epochs, whoever watches; of snapshots only the last can be had later. */
  private async work(object: RemoteObject, options: AdvanceOptions): Promise<Epoch[]> {
    const events: Epoch[] = [];
    const state = this.state(object);
    while (state.epoch < (options.untilEpoch ?? object.totalEpochs)) {
      state.hash = hash(state.hash, ...state.dependencies.map((d) => this.states.get(d)!.hash));
      state.epoch++;
      this.log.push(`${object.type} ${state.epoch}`);
      events.push({
        epoch: state.epoch,
        totalEpochs: object.totalEpochs,
        metrics: { loss: Number.parseInt(state.hash.slice(0, 8), 16) },
        seconds: 1,
        job: { id: `job-${options.requestId}`, sequence: events.length + 1 },
        snapshot: options.snapshotEvery ? (await this.snapshot(object)).bytes : undefined,
      });
    }
    return events;
  }

  async advance(object: RemoteObject, options: AdvanceOptions = {}): Promise<void> {
    const request = String(options.requestId);
    const before = this.jobs
      .get(request)
      ?.map((e, i, all) => (i < all.length - 1 ? { ...e, snapshot: undefined } : e));
    const events = before ?? (await this.work(object, options));
    this.jobs.set(request, events);
    for (const event of events) {
      if (event.job.sequence <= (options.known?.get(event.job.id) ?? 0)) continue;
      options.signal?.throwIfAborted();
      if (this.told >= this.failAfter) throw this.onFail();
      this.told++;
      await options.onEpoch?.(event);
    }
  }

  /** As the code under test sees it. */
  get session(): StageSession {
    return this as unknown as StageSession;
  }
}

function hash(...parts: string[]): string {
  return createHash("sha256").update(parts.join("|")).digest("hex");
}
