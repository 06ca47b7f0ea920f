/** Bytes that no client of ours would send, to every method and every port of a worker. */
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { status } from "@grpc/grpc-js";
import { expect } from "chai";
import { Dealer } from "zeromq";
import { JobServiceService } from "../../src/gen/atlas/v1/job.js";
import { ObjectServiceService } from "../../src/gen/atlas/v1/objects.js";
import { DataType, type Tensor, TensorHeader } from "../../src/gen/atlas/v1/tensor.js";
import {
  type CurveKeys,
  type DescribeResponse,
  OpenSessionResponse,
  WorkerServiceService,
} from "../../src/gen/atlas/v1/worker.js";
import { Status } from "../../src/gen/google/rpc/status.js";
import { errorFromStatus } from "../../src/rpc/index.js";
import { curveOptions, newTicket } from "../../src/tensor/plane.js";
import { reachableEndpoint } from "../../src/worker/remote.js";
import { PROTOCOL_VERSION } from "../../src/worker/worker.js";
import { residentMiB } from "../bench/load.js";
import type { Guard, Guarded } from "../workers.js";
import { type Answer, Caller } from "./caller.js";
import { checkWell, PLATES, withWorker } from "./worker.js";

/** Cases on one session; then it is closed, and with it all that was made. */
const BATCH = 1_000;
const AT_ONCE = 16;
/** Of the messages, how many come with a token that is wrong or with none. */
const STRANGERS = 0.2;
/** Of the cases, how many are frames of the tensor plane. */
const FRAMES = 0.25;
const CONNECTIONS = 1_000;
/**
 * What no call may end in, beside what strangers may not get: a mistake of the worker's own, or no
 * answer.
 */
const FAULTS = [
  "INTERNAL",
  ...["UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "INTERNAL"].map((code) => `gRPC ${code}`),
];
/** Hexadecimal digits of a request that are shown. */
const SHOWN = 2_000;
const ANSWER_MS = 60_000;
/** Memory is looked at so many times. */
const LOOKS = 10;
/**
 * In the second half of the cases it may grow by so much; in the first, libraries are loaded and
 * allocators' caches fill.
 */
const GROWTH_MIB = 64;
/**
 * So many more files may be open afterwards than before, after so long at the most: connections end
 * in their own time.
 */
const GROWTH_FILES = 8;
const CLOSED_MS = 15_000;

export interface Fuzzed {
  cases: number;
  /** How many of the calls ended how: by the worker's reason, or else by a code of gRPC. */
  calls: Record<string, number>;
  frames: Record<string, number>;
  connections: number;
  /**
   * Calls that ended as none may, each with the first request, in hexadecimal, that met it; and
   * memory or open files that are not bounded.
   */
  faults: Record<string, string>;
  seconds: number;
  /** Resident memory of the worker in MiB: before, {@link LOOKS} times on the way, and after. */
  memory: number[];
  /** Files, connections among them, that the worker has open: before, and after. */
  files: [number, number];
}

/**
 * @param seed of all that is made up
 * @param guard an encrypted worker is spoken to by those who have its keys, with the token or
 * without, and gets noise from those who have none
 * @throws when a message to the tensor plane is not answered as it should be, or the worker is not
 * well afterwards
 */
export async function measureFuzz(cases: number, seed: number, guard: Guard): Promise<Fuzzed> {
  return withWorker(async (local) => {
    const random = new Random(seed);
    await checkWell(local);
    const memory = [await checkWell(local)];
    const before = openFiles(local.pid);
    const start = performance.now();
    const calls: Record<string, number> = {};
    const frames: Record<string, number> = {};
    const faults = new Map<string, string>(); // with the first request that met each
    for (let done = 0; done < cases; done += BATCH) {
      if (done >= (memory.length * cases) / LOOKS) memory.push(residentMiB(local.pid));
      const batch = Math.min(BATCH, cases - done);
      const few = Math.round(FRAMES * batch);
      const caller = new Caller(local.address, local.token, local.access.tls);
      try {
        const target = await prepare(caller, local.address);
        await fuzzCalls(caller, target, random, batch - few, calls, faults);
        await fuzzFrames(target, random, few, frames);
        await caller.call(WorkerServiceService.closeSession, target);
      } finally {
        caller.close();
      }
    }
    await fuzzConnections(local, random);
    const seconds = (performance.now() - start) / 1000;
    memory.push(await checkWell(local));
    const growth = memory.at(-1)! - memory[LOOKS / 2]!;
    if (growth > GROWTH_MIB)
      faults.set("memory", `grows by ${Math.round(growth)} MiB in the second half of the cases`);
    const until = performance.now() + CLOSED_MS;
    while (openFiles(local.pid) > before + GROWTH_FILES && performance.now() < until)
      await sleep(500);
    const after = openFiles(local.pid);
    if (after > before + GROWTH_FILES) faults.set("files", `${after} are open, ${before} before`);
    return {
      cases,
      calls,
      frames,
      connections: CONNECTIONS,
      faults: Object.fromEntries(faults),
      ...{ seconds, memory, files: [before, after] },
    };
  }, guard);
}

interface Request {
  path: string;
  streams: boolean;
  value: unknown;
  /** @throws when the value has no place in the message */
  serialize(value: unknown): Buffer;
}

/** A session with something in it, and proper requests to it, which are then spoilt. */
interface Target {
  sessionId: string;
  plane: { endpoint: string; curve: CurveKeys | undefined };
  requests: Request[];
}

async function prepare(caller: Caller, address: string): Promise<Target> {
  const open = { label: "fuzz", device: "cpu", protocolVersion: PROTOCOL_VERSION };
  const { sessionId } = await caller.call(WorkerServiceService.openSession, open);
  const { dataPlane }: DescribeResponse = await caller.call(WorkerServiceService.describe, {});
  const tensor = (shape: number[]) => {
    const elements = Buffer.alloc(8 * shape.reduce((a, b) => a * b, 1));
    return {
      dtype: DataType.DATA_TYPE_FLOAT64,
      shape,
      data: { $case: "inline" as const, inline: elements },
    };
  };
  const { seed: _, ...source } = PLATES;
  const charts = [{ row: 16, col: 16 }];
  const planar = { kind: "planar", params: { charts, r_in: 6, r_out: 4 } };
  const inputs = {
    dataset: "dataset-1",
    atlas: "atlas-1",
    predictor: "predictor-1",
    seed: 1,
    epochs: 1,
    groupAlgebra: undefined,
  };
  const architecture = { kind: "reference_cnn", params: { width: 4 } };
  const training = { kind: "supervised", params: { batch_size: 4 } };
  const grassmann = { kind: "grassmann", params: {} };
  const multistart = { kind: "multistart", params: { candidates: 2, max_components: 1 } };
  const arrays = { inputs: tensor([2, 1, 4, 4]), targets: tensor([2, 1, 4, 4]) };
  const specs = [
    { $case: "dataset" as const, dataset: { source, seed: 0, tensors: {} } },
    { $case: "atlas" as const, atlas: { action: planar } },
    { $case: "predictor" as const, predictor: { ...inputs, architecture, training, tensors: {} } },
    { $case: "algebra" as const, algebra: { ...inputs, solver: grassmann, k: 1 } },
    {
      $case: "cosets" as const,
      cosets: {
        ...inputs,
        solver: multistart,
        identityAlgebra: tensor([1, 2, 2]),
        matrices: undefined,
      },
    },
    {
      $case: "dataset" as const,
      dataset: { source: { kind: "arrays", params: {} }, seed: 0, tensors: arrays },
    },
  ];
  const creations = specs.map((spec) => ({ sessionId, spec, requestId: "" }));
  const advance = { untilEpoch: undefined, snapshotEvery: 1, requestId: "" };
  const [W, O, J] = [WorkerServiceService, ObjectServiceService, JobServiceService];
  for (const creation of creations) {
    const made = await caller.call(O.createObject, creation);
    const handle = made.object?.handle ?? "";
    if (!["dataset-1", "predictor-1"].includes(handle)) continue;
    const { job } = await caller.call(J.startJob, { sessionId, handle, ...advance });
    const watched = J.watchJob.requestSerialize({
      sessionId,
      jobId: job?.jobId ?? "",
      afterSequence: 0,
    });
    await caller.send(J.watchJob.path, watched, { streams: true });
  }
  const it = (handle: string) => ({ sessionId, handle });
  const job = { sessionId, jobId: "job-1" };
  const samples = {
    $case: "samples" as const,
    samples: { start: 0, count: 1, dataset: undefined },
  };
  const equivariance = {
    ...it("predictor-1"),
    atlas: "atlas-1",
    dataset: undefined,
    samples: 1,
    seed: 0,
  };
  const ticket: Tensor = {
    dtype: DataType.DATA_TYPE_UINT8,
    shape: [8],
    data: { $case: "ticket", ticket: newTicket(sessionId) },
  };
  const of = <R>(
    method: { path: string; requestSerialize(value: R): Buffer; responseStream: boolean },
    ...values: R[]
  ): Request[] =>
    values.map((value) => ({
      path: method.path,
      streams: method.responseStream,
      value,
      serialize: (value) => method.requestSerialize(value as R),
    }));
  return {
    sessionId,
    plane: {
      endpoint: reachableEndpoint(dataPlane?.tensors ?? "", address),
      curve: dataPlane?.curve,
    },
    requests: [
      ...of(W.describe, {}),
      ...of(W.openSession, open),
      ...of(W.renewLease, { sessionId }),
      ...of(W.closeSession, { sessionId: sessionId.slice(1) }),
      ...of(O.createObject, ...creations),
      ...of(O.deleteObject, it("algebra-1")),
      ...of(O.listObjects, { sessionId }),
      ...of(O.getSnapshot, it("predictor-1")),
      ...of(
        O.restoreSnapshot,
        { ...it("predictor-1"), snapshot: ticket },
        { ...it("predictor-1"), snapshot: tensor([3]) },
      ),
      ...of(O.loadWeights, { ...it("predictor-1"), weights: ticket }),
      ...of(O.readDataset, { ...it("dataset-1"), start: 0, count: 1 }),
      ...of(O.predict, { ...it("predictor-1"), input: samples, classes: false }),
      ...of(O.scorePredictor, { ...it("predictor-1"), dataset: "dataset-1" }),
      ...of(O.measureEquivariance, { ...equivariance, matrices: tensor([1, 2, 2]) }),
      ...of(O.getAlgebra, it("algebra-1")),
      ...of(O.getCosets, it("cosets-1")),
      ...of(O.compareComponents, { basis: tensor([1, 2, 2]), matrices: tensor([2, 2, 2]) }),
      ...of(
        J.startJob,
        { ...it("algebra-1"), ...advance },
        { ...it("predictor-1"), ...advance, untilEpoch: 1 },
      ),
      ...of(J.getJob, job),
      ...of(J.listJobs, { sessionId }),
      ...of(J.watchJob, { ...job, afterSequence: 0 }),
      ...of(J.cancelJob, job),
    ],
  };
}

async function fuzzCalls(
  caller: Caller,
  { requests }: Target,
  random: Random,
  count: number,
  tally: Record<string, number>,
  faults: Map<string, string>,
): Promise<void> {
  let left = count;
  const one = async () => {
    while (left-- > 0) {
      const proper = random.pick(requests);
      const { path, streams } = proper;
      const request = spoilRequest(proper, random);
      const stranger = random.fraction() < STRANGERS;
      const token = stranger ? random.pick(["", "wrong", "Bearer"]) : undefined;
      const answer = await caller.send(path, request, { streams, token });
      const how = verdict(answer);
      add(tally, how);
      if (stranger ? how !== "UNAUTHENTICATED" : FAULTS.includes(how)) {
        const whose = stranger ? " for a stranger" : "";
        const what = `${path}${whose}: ${status[answer.code]} ${answer.text}`;
        if (!faults.has(what)) faults.set(what, request.toString("hex").slice(0, SHOWN));
      }
      if (path === WorkerServiceService.openSession.path && answer.message !== undefined) {
        const { sessionId } = OpenSessionResponse.decode(answer.message);
        await caller.call(WorkerServiceService.closeSession, { sessionId });
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
}

/**
 * Noise; the proper bytes with changes; or, most often, a message with changed fields, which gets
 * further.
 */
function spoilRequest({ value, serialize }: Request, random: Random): Buffer {
  const kind = random.below(10);
  if (kind === 0) return random.bytes(random.below(200));
  if (kind > 2)
    try {
      return serialize(random.spoilFields(value));
    } catch {} // a negative number, say, where the message has room for none
  return random.spoil(serialize(value));
}

/** The worker's reason for what is wrong, else gRPC's code. */
function verdict({ code, text, refusal }: Answer): string {
  if (refusal !== undefined) return refusal.reason;
  // So gRPC itself says, for Python, that bytes are no message of the method's type.
  if (code === status.INTERNAL && /deserializing request/.test(text)) return "not a message";
  return code === status.OK ? "OK" : `gRPC ${status[code]}`;
}

/**
 * Messages to the tensor plane. Those with a request id are answered, whatever else is in them; the
 * others are dropped.
 */
async function fuzzFrames(
  { plane, sessionId }: Target,
  random: Random,
  count: number,
  tally: Record<string, number>,
): Promise<void> {
  const dealer = new Dealer({ linger: 0, receiveTimeout: ANSWER_MS, ...curveOptions(plane.curve) });
  try {
    dealer.connect(plane.endpoint);
    const ticket = newTicket(sessionId);
    const header = {
      dtype: DataType.DATA_TYPE_FLOAT32,
      shape: [2, 2],
      byteLength: 16,
      fileName: "",
    };
    const put = (offset: number, more: boolean, bytes: number) => [
      "PUT",
      ticket,
      TensorHeader.encode({ ...header, offset, fileName: "", more }).finish(),
      Buffer.alloc(bytes),
    ];
    const proper = [put(0, false, 16), put(0, true, 8), put(8, false, 8), ["GET", ticket, ""]].map(
      (frames) => frames.map((frame) => Buffer.from(frame)),
    );
    let lastId = 0n;
    let left = count;
    while (left > 0) {
      const waiting = new Set<string>();
      for (let i = 0; i < AT_ONCE && left > 0; i++, left--) {
        const frames = random.spoilList(random.pick(proper));
        if (random.below(10) === 0) {
          await dealer.send(frames.length === 0 ? [Buffer.alloc(0)] : frames);
          // A frame of 8 bytes in the first place is an id.
          if (frames[0]?.length === 8) waiting.add(frames[0].toString("hex"));
          else add(tally, "dropped");
        } else {
          const id = Buffer.alloc(8);
          id.writeBigUInt64BE(++lastId);
          await dealer.send([id, ...frames]);
          waiting.add(id.toString("hex"));
        }
      }
      while (waiting.size > 0) {
        const [id, state, refusal] = await dealer.receive();
        expect(waiting.delete(id?.toString("hex") ?? ""), "an answer to a request").to.equal(true);
        const how =
          String(state) === "OK"
            ? "OK"
            : errorFromStatus(Status.decode(refusal ?? Buffer.alloc(0))).reason;
        expect(how).to.not.equal("INTERNAL");
        add(tally, how);
      }
    }
  } finally {
    dealer.close();
  }
}

/** Connections to every port on which nobody speaks HTTP/2, TLS or ZMTP, or not for long. */
async function fuzzConnections(local: Guarded, random: Random): Promise<void> {
  const { tls } = local.access;
  const caller = new Caller(local.address, local.token, tls);
  const { dataPlane } = await caller.call(WorkerServiceService.describe, {});
  caller.close();
  const { tensors = "", metrics = "" } = dataPlane ?? {};
  const doors = [local.address, tensors, metrics].map((address) => {
    const [, path] = /^ipc:\/\/(.*)$/.exec(address) ?? [];
    return path === undefined
      ? { host: "127.0.0.1", port: Number(address.split(":").at(-1)) }
      : { path };
  });
  const openings = [HTTP2_OPENING, await tlsOpening(), zmtpOpening("NULL"), zmtpOpening("CURVE")];
  for (let i = 0; i < CONNECTIONS; i++) {
    // Anyone may trust the authority, or not ask who signed; what comes next is for HTTP/2 to read.
    const within = tls !== undefined && random.below(5) === 0;
    const socket = within
      ? connectTls({
          ...doors[0]!,
          secureContext: tls,
          servername: "localhost",
          ALPNProtocols: ["h2"],
        })
      : connect(random.pick(doors));
    socket.on("error", () => {}); // it may be ended at any time
    await once(socket, within ? "secureConnect" : "connect");
    const opening = within ? HTTP2_OPENING : random.pick(openings);
    const noise = random.bytes(1 + random.below(5_000));
    socket.write(random.pick([noise, random.spoil(opening), Buffer.concat([opening, noise])]));
    await sleep(5);
    socket.destroy();
  }
}

/** HTTP/2's preface, empty SETTINGS, and the beginning of HEADERS (RFC 9113). */
const HTTP2_OPENING = Buffer.concat([
  Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
  Buffer.from("000000040000000000", "hex"),
  Buffer.from("000040010400000001", "hex"),
]);

/** A proper ClientHello. */
async function tlsOpening(): Promise<Buffer> {
  const server = createServer();
  await once(server.listen(0, "127.0.0.1"), "listening");
  const client = connectTls({
    port: (server.address() as AddressInfo).port,
    ALPNProtocols: ["h2"],
  });
  client.on("error", () => {}); // it is not answered
  const [socket] = (await once(server, "connection")) as [Socket];
  const [hello] = (await once(socket, "data")) as [Buffer];
  client.destroy();
  socket.destroy();
  server.close();
  return hello;
}

/**
 * The greeting of a ZeroMQ client, and its first command as long as CURVE's is, with nothing in it
 * (ZeroMQ RFCs 23 and 26).
 */
function zmtpOpening(mechanism: string): Buffer {
  const greeting = [
    "ff00000000000000007f",
    "0300",
    Buffer.from(mechanism).toString("hex").padEnd(40, "0"),
  ];
  const hello = ["04c8", Buffer.from("\x05HELLO").toString("hex"), "0100", "00".repeat(192)];
  return Buffer.from([...greeting, "00".repeat(32), ...hello].join(""), "hex");
}

function openFiles(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

function add(tally: Record<string, number>, what: string): void {
  tally[what] = (tally[what] ?? 0) + 1;
}

const FEARED_NUMBERS = [
  ...[0, 1, -1, 0.5, 7, 1e5, 2 ** 31 - 1, 2 ** 31, 2 ** 32, Number.MAX_SAFE_INTEGER, 1e300],
  ...[Number.NaN, Number.POSITIVE_INFINITY],
];
const FEARED_STRINGS = [
  ...[
    "",
    "../../../../etc/passwd",
    "/dev/zero",
    "file:///etc/passwd",
    "os:system",
    "\0",
    "%s%n{0}",
    "😀",
  ],
  ...[
    "dataset-1",
    "atlas-1",
    "predictor-1",
    "algebra-1",
    "cosets-1",
    "cpu",
    "cuda:99",
    "x".repeat(100_000),
  ],
];

/** Without these a message is only refused at the door, as many others are. */
const KEPT = ["$case", "sessionId"];

/** Numbers that a seed determines (mulberry32), and what is made of them. */
class Random {
  constructor(private state: number) {}

  fraction(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from 0 to n - 1. */
  below(n: number): number {
    return Math.floor(this.fraction() * n);
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.below(256)));
  }

  /**
   * Bytes with up to four changes: bits, whole bytes, numbers as they are feared, pieces left out,
   * doubled, or put in.
   */
  spoil(bytes: Buffer): Buffer {
    let spoilt = Buffer.from(bytes);
    for (let changes = this.below(5); changes > 0; changes--) {
      const at = this.below(spoilt.length + 1);
      const until = Math.min(spoilt.length, at + this.below(9));
      const [head, piece, tail] = [
        spoilt.subarray(0, at),
        spoilt.subarray(at, until),
        spoilt.subarray(until),
      ];
      const other = this.pick([
        () => Buffer.alloc(0),
        () => Buffer.concat([piece, piece]),
        () => this.bytes(piece.length),
        () => this.bytes(this.below(20)),
        () => Buffer.from(piece.map((byte) => byte ^ (1 << this.below(8)))),
        // The largest varint, -1 as an int64; and NaN, infinity and -0 as a double.
        () =>
          this.pick(
            [
              "ffffffffffffffffff01",
              "000000000000f87f",
              "000000000000f07f",
              "0000000000000080",
            ].map((hex) => Buffer.from(hex, "hex")),
          ),
      ])();
      spoilt = Buffer.concat([head, other, tail]);
    }
    return spoilt;
  }

  /**
   * A copy of a message of which some fields, but for {@link KEPT}, have other values, of their
   * type or not.
   */
  spoilFields<T>(value: T): T;
  spoilFields(value: unknown): unknown {
    if (this.below(12) === 0)
      return this.pick<() => unknown>([
        () => this.pick(FEARED_NUMBERS),
        () => this.pick(FEARED_STRINGS),
        () => undefined,
        () => [],
      ])();
    if (typeof value === "number" && this.below(4) === 0) return this.pick(FEARED_NUMBERS);
    if (typeof value === "string" && this.below(6) === 0) return this.pick(FEARED_STRINGS);
    if (value instanceof Buffer) return this.below(4) === 0 ? this.spoil(value) : value;
    if (Array.isArray(value)) return value.map((item) => this.spoilFields(item));
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, field]) => [
        key,
        KEPT.includes(key) ? field : this.spoilFields(field),
      ]),
    );
  }

  /** A list with up to three changes: items spoilt, left out, doubled, swapped, or put in. */
  spoilList(list: readonly Buffer[]): Buffer[] {
    const spoilt = [...list];
    for (let changes = this.below(4); changes > 0; changes--) {
      const at = this.below(spoilt.length);
      const item = spoilt[at] ?? Buffer.alloc(0);
      spoilt.splice(
        at,
        this.below(2),
        ...this.pick([
          () => [],
          () => [this.spoil(item)],
          () => [item, item],
          () => [this.bytes(this.below(100))],
          () => spoilt.splice(this.below(spoilt.length), 1),
        ])(),
      );
    }
    return spoilt;
  }
}
