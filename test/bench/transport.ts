/**
 * Tensors to the worker and back: over the tensor plane, encrypted and not; beside it over gRPC,
 * with TLS and without, in one message and in chunks, and over a plain TCP socket.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Client, credentials } from "@grpc/grpc-js";
import { WorkerServiceService } from "../../src/gen/atlas/v1/worker.js";
import { Rpc } from "../../src/rpc/index.js";
import { ensureVenv } from "../../src/setup/venv.js";
import { newTicket, TensorPlane } from "../../src/tensor/plane.js";
import { Tensor } from "../../src/tensor/tensor.js";
import { PROTOCOL_VERSION } from "../../src/worker/index.js";
import { reachableEndpoint } from "../../src/worker/remote.js";
import { type Guarded, startGuarded, withCertificate } from "../workers.js";
import { median } from "./statistics.js";

const MIB = 2 ** 20;
const CHUNK = MIB;
const MEBIBYTES = [1, 16, 128];
/** So many at once, over the tensor plane only. */
const CROWD = 16;
const ROUNDS = 5;

type Way = (bytes: Buffer) => Promise<Uint8Array>;

export interface Transport {
  mebibytes: number;
  /** Each with a tensor of its own, at the same time. */
  clients: number;
  /** Bytes there and bytes back of all clients, over the time of all. */
  gigabytesPerSecond: Record<string, number>;
}

/** Throughput of each way at each size, timed in turns. */
export async function measureTransport(sizes: readonly number[] = MEBIBYTES): Promise<Transport[]> {
  const workers: Guarded[] = [];
  const planes: TensorPlane[] = [];
  const echo = await Echo.start();
  try {
    const ways: Record<"zeromq" | "curve", Way[]> = { zeromq: [], curve: [] };
    for (const [name, guard] of [
      ["zeromq", "plain"],
      ["curve", "encrypted"],
    ] as const) {
      const worker = await startGuarded(guard);
      workers.push(worker);
      const { sessionId, connectPlane } = await openPlane(worker);
      for (let i = 0; i < CROWD; i++) {
        const plane = connectPlane();
        planes.push(plane);
        ways[name].push(async (bytes) => {
          const ticket = newTicket(sessionId);
          await plane.put(ticket, Tensor.fromBytes("uint8", [bytes.byteLength], bytes));
          return (await plane.get(ticket)).bytes;
        });
      }
    }
    const beside: Record<string, Way[]> = {
      ...{ grpc: [echo.unary(echo.plain)], grpcTls: [echo.unary(echo.tls)] },
      ...{ grpcChunks: [echo.chunks], tcp: [echo.tcp] },
    };
    const found: Transport[] = [];
    for (const mebibytes of sizes) {
      const [zeromq, curve] = [ways.zeromq.slice(0, 1), ways.curve.slice(0, 1)];
      found.push(await inTurns(mebibytes, { zeromq, curve, ...beside }));
      found.push(await inTurns(mebibytes, ways));
    }
    return found;
  } finally {
    for (const plane of planes) plane.close();
    for (const worker of workers) await worker.close();
    echo.stop();
  }
}

async function openPlane({ address, access }: Guarded) {
  const rpc = new Rpc(address, access);
  try {
    const open = { label: "bench", device: "cpu", protocolVersion: PROTOCOL_VERSION };
    const { sessionId } = await rpc.call(WorkerServiceService.openSession, open);
    const { dataPlane } = await rpc.call(WorkerServiceService.describe, {});
    const { tensors = "", ...options } = dataPlane ?? {};
    const connectPlane = () =>
      new TensorPlane(reachableEndpoint(tensors, address), undefined, options);
    return { sessionId, connectPlane };
  } finally {
    rpc.close();
  }
}

/** One tensor of each client of a way, then those of the next way, and so on. */
async function inTurns(mebibytes: number, ways: Record<string, Way[]>): Promise<Transport> {
  const bytes = Buffer.alloc(mebibytes * MIB, 7);
  bytes.writeUInt32LE(mebibytes, 0);
  const rates: Record<string, number[]> = {};
  for (let round = 0; round <= ROUNDS; round++)
    for (const [name, clients] of Object.entries(ways)) {
      const start = performance.now();
      const answers = await Promise.all(clients.map((way) => way(bytes)));
      const took = (performance.now() - start) / 1000;
      for (const back of answers)
        if (Buffer.compare(back, bytes) !== 0)
          throw new Error(`${name} did not give back what it was given`);
      if (round === 0) continue; // warm-up
      rates[name] ??= [];
      rates[name].push((2 * bytes.byteLength * clients.length) / took / 1e9);
    }
  const middle = Object.entries(rates).map(([name, all]) => [name, median(all)] as const);
  const [clients = 0] = Object.values(ways).map((all) => all.length);
  return { mebibytes, clients, gigabytesPerSecond: Object.fromEntries(middle) };
}

const same = (bytes: Buffer) => bytes;

/** The other end of what the tensor plane is measured beside: echo.py. */
class Echo {
  private constructor(
    private readonly child: ChildProcess,
    readonly plain: Client,
    readonly tls: Client,
    private readonly tcpPort: number,
  ) {}

  static start(): Promise<Echo> {
    return withCertificate(async ({ tls, tlsCert, tlsKey }) => {
      const { python } = await ensureVenv();
      const child = spawn(
        python,
        [fileURLToPath(new URL("echo.py", import.meta.url)), tlsCert, tlsKey],
        {
          stdio: ["pipe", "pipe", "inherit"],
        },
      );
      const [line] = (await once(createInterface(child.stdout), "line")) as [string];
      const ports = JSON.parse(line) as { grpc: number; tls: number; tcp: number };
      const options = {
        ...{ "grpc.max_send_message_length": -1, "grpc.max_receive_message_length": -1 },
        ...{ "grpc.enable_http_proxy": 0, "grpc.ssl_target_name_override": "localhost" },
      };
      const plain = new Client(`127.0.0.1:${ports.grpc}`, credentials.createInsecure(), options);
      const secure = credentials.createFromSecureContext(tls);
      return new Echo(
        child,
        plain,
        new Client(`127.0.0.1:${ports.tls}`, secure, options),
        ports.tcp,
      );
    });
  }

  stop(): void {
    this.plain.close();
    this.tls.close();
    this.child.stdin?.end();
    this.child.kill();
  }

  unary = (client: Client) => (bytes: Buffer) =>
    new Promise<Buffer>((resolve, reject) => {
      client.makeUnaryRequest("/bench.Echo/Unary", same, same, bytes, (error, answer) =>
        error ? reject(error) : resolve(answer!),
      );
    });

  chunks = async (bytes: Buffer): Promise<Buffer> => {
    const call = this.plain.makeBidiStreamRequest<Buffer, Buffer>("/bench.Echo/Chunks", same, same);
    const whole = Buffer.allocUnsafe(bytes.byteLength);
    let at = 0;
    call.on("data", (chunk: Buffer) => {
      at += chunk.copy(whole, at);
    });
    const ended = once(call, "end");
    for (let from = 0; from < bytes.byteLength; from += CHUNK)
      if (!call.write(bytes.subarray(from, from + CHUNK))) await once(call, "drain");
    call.end();
    await ended;
    return whole.subarray(0, at);
  };

  tcp = async (bytes: Buffer): Promise<Buffer> => {
    const whole = Buffer.allocUnsafe(bytes.byteLength);
    let at = 0;
    const socket = connect({
      port: this.tcpPort,
      host: "127.0.0.1",
      noDelay: true,
      onread: {
        buffer: Buffer.allocUnsafe(MIB),
        callback: (count, chunk) => {
          at += Buffer.from(chunk.buffer, chunk.byteOffset, count).copy(whole, at);
          if (at === whole.byteLength) socket.end();
          return true;
        },
      },
    });
    const closed = once(socket, "close");
    const head = Buffer.alloc(8);
    head.writeBigUInt64BE(BigInt(bytes.byteLength));
    socket.write(head);
    socket.write(bytes);
    await closed;
    return whole.subarray(0, at);
  };
}
