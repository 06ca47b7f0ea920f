/** One tensor to the worker and back: over the tensor plane, over gRPC in one message and in chunks, and over a plain TCP socket. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Client, credentials } from "@grpc/grpc-js";
import { ensureVenv } from "../../src/setup/venv.js";
import { newTicket, TensorPlane } from "../../src/tensor/plane.js";
import { Tensor } from "../../src/tensor/tensor.js";
import { connectWorker } from "../../src/worker/index.js";
import { median } from "./statistics.js";

const MIB = 2 ** 20;
const CHUNK = MIB;
const SIZES = [1, 16, 128];
const ROUNDS = 5;

export interface Transport {
  mebibytes: number;
  /** Bytes there and bytes back, over the time of both. */
  gigabytesPerSecond: { zeromq: number; grpc: number; grpcChunks: number; tcp: number };
}

/** Throughput of each way at each size, timed in turns. */
export async function measureTransport(sizes: readonly number[] = SIZES): Promise<Transport[]> {
  const worker = await connectWorker({ device: "cpu" });
  const echo = await Echo.start();
  try {
    const session = await worker.openSession({ label: "bench", device: "cpu" });
    const plane = new TensorPlane(worker.info.dataPlane!.tensors);
    const zeromq = async (bytes: Buffer) => {
      const ticket = newTicket(session.id);
      await plane.put(ticket, Tensor.fromBytes("uint8", [bytes.byteLength], bytes));
      return (await plane.get(ticket)).bytes;
    };
    const ways = { zeromq, grpc: echo.unary, grpcChunks: echo.chunks, tcp: echo.tcp };
    const found: Transport[] = [];
    for (const mebibytes of sizes) {
      const bytes = Buffer.alloc(mebibytes * MIB, 7);
      bytes.writeUInt32LE(mebibytes, 0);
      const seconds = {
        zeromq: [] as number[],
        grpc: [] as number[],
        grpcChunks: [] as number[],
        tcp: [] as number[],
      };
      for (let round = 0; round <= ROUNDS; round++)
        for (const [name, way] of Object.entries(ways) as [
          keyof typeof ways,
          (b: Buffer) => Promise<Uint8Array>,
        ][]) {
          const start = performance.now();
          const back = await way(bytes);
          const took = (performance.now() - start) / 1000;
          if (back.byteLength !== bytes.byteLength || Buffer.compare(back, bytes) !== 0)
            throw new Error(`${name} did not give back what it was given`);
          if (round > 0) seconds[name].push(took); // the first is warm-up
        }
      const rate = (times: number[]) => (2 * bytes.byteLength) / median(times) / 1e9;
      found.push({
        mebibytes,
        gigabytesPerSecond: {
          zeromq: rate(seconds.zeromq),
          grpc: rate(seconds.grpc),
          grpcChunks: rate(seconds.grpcChunks),
          tcp: rate(seconds.tcp),
        },
      });
    }
    plane.close();
    return found;
  } finally {
    echo.stop();
    await worker.close();
  }
}

const same = (bytes: Buffer) => bytes;

/** The other end of what the tensor plane is measured beside: echo.py. */
class Echo {
  private readonly client: Client;
  private constructor(
    private readonly child: ChildProcess,
    grpcPort: number,
    private readonly tcpPort: number,
  ) {
    this.client = new Client(`127.0.0.1:${grpcPort}`, credentials.createInsecure(), {
      "grpc.max_send_message_length": -1,
      "grpc.max_receive_message_length": -1,
      "grpc.enable_http_proxy": 0,
    });
  }

  static async start(): Promise<Echo> {
    const { python } = await ensureVenv();
    const child = spawn(python, [fileURLToPath(new URL("echo.py", import.meta.url))], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    const [line] = (await once(createInterface(child.stdout), "line")) as [string];
    const { grpc, tcp } = JSON.parse(line) as { grpc: number; tcp: number };
    return new Echo(child, grpc, tcp);
  }

  stop(): void {
    this.client.close();
    this.child.stdin?.end();
    this.child.kill();
  }

  unary = (bytes: Buffer): Promise<Buffer> =>
    new Promise((resolve, reject) => {
      this.client.makeUnaryRequest("/bench.Echo/Unary", same, same, bytes, (error, answer) =>
        error ? reject(error) : resolve(answer!),
      );
    });

  chunks = async (bytes: Buffer): Promise<Buffer> => {
    const call = this.client.makeBidiStreamRequest<Buffer, Buffer>("/bench.Echo/Chunks", same, same);
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
