/** A small network on the loopback interface: a proxy, and a server with an authority of its own. */
import { once } from "node:events";
import { createServer as createHttp, type RequestListener } from "node:http";
import { createServer as createHttps } from "node:https";
import { type AddressInfo, connect, type Server, type Socket } from "node:net";
import { makeKeys } from "../../src/worker/keys.js";

export interface Listening {
  port: number;
  close(): Promise<void>;
}

async function listen(server: Server): Promise<Listening> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket)).on("error", () => {});
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    async close() {
      server.close();
      for (const socket of sockets) socket.destroy();
      await once(server, "close");
    },
  };
}

export interface Proxy extends Listening {
  /** What it was asked to connect to: "host:port". */
  asked: string[];
}

/**
 * Start a proxy that opens tunnels (CONNECT) for clients.
 *
 * @param options.login "user:password" that clients must give
 * @param options.refuse status with which it refuses all of them
 * @param options.to where all tunnels lead, in place of where clients want to go
 */
export async function startProxy({
  login,
  refuse,
  to,
}: {
  login?: string;
  refuse?: number;
  to?: number;
} = {}): Promise<Proxy> {
  const asked: string[] = [];
  const server = createHttp((_, response) => void response.writeHead(501).end());
  server.on("connect", (request, client: Socket) => {
    client.on("error", () => {});
    const wanted = `Basic ${Buffer.from(login ?? "").toString("base64")}`;
    const status =
      login !== undefined && request.headers["proxy-authorization"] !== wanted ? 407 : refuse;
    if (status !== undefined) return void client.end(`HTTP/1.1 ${status} No\r\n\r\n`);
    asked.push(request.url!);
    const { hostname, port } = new URL(`http://${request.url}`);
    const far = to === undefined ? connect(Number(port || 80), hostname) : connect(to, "127.0.0.1");
    far.on("error", () => client.destroy());
    far.on("connect", () => {
      client.write("HTTP/1.1 200 Connected\r\n\r\n");
      far.pipe(client).pipe(far);
    });
  });
  return { ...(await listen(server)), asked };
}

/** Start a server over TLS. @returns it, and the certificate of the authority that signed its own */
export async function startSecure(
  hosts: readonly string[],
  listener: RequestListener,
): Promise<Listening & { ca: string }> {
  const { ca, server: cert, serverKey: key } = await makeKeys({ hosts });
  return { ...(await listen(createHttps({ cert, key }, listener))), ca };
}

/** A port on which nothing listens. */
export async function deadPort(): Promise<number> {
  const { port, close } = await listen(createHttp());
  await close();
  return port;
}
