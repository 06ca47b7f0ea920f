/** A network between a client and a server that can be cut. */
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";

/**
 * How: "silent" as where packets are dropped, so that nobody is told and what was sent arrives once
 * the network is back (a new connection is accepted, as by the near end of a tunnel, and goes no
 * further); "reset" as where the connections are ended, and new ones refused.
 */
export type Cut = "silent" | "reset";

/** Passes on what is sent to `port` of one address of this machine to the same port of another. */
export class Link {
  private readonly sockets = new Set<Socket>();
  /** Those that came in silence. */
  private readonly waiting = new Set<Socket>();
  private cutBy: Cut | undefined;

  private constructor(
    private readonly server: Server,
    private readonly to: { host: string; port: number },
  ) {
    server.on("connection", (client) => this.join(client));
  }

  static async between(from: string, to: string, port: number): Promise<Link> {
    const server = createServer({ pauseOnConnect: true });
    await once(server.listen(port, from), "listening");
    return new Link(server, { host: to, port });
  }

  cut(how: Cut): void {
    this.cutBy = how;
    for (const socket of this.sockets)
      if (how === "silent") socket.pause();
      else socket.resetAndDestroy();
  }

  restore(): void {
    this.cutBy = undefined;
    for (const socket of this.sockets) socket.resume();
    for (const client of this.waiting) if (!client.destroyed) this.join(client);
    this.waiting.clear();
  }

  close(): void {
    this.server.close();
    for (const socket of [...this.sockets, ...this.waiting]) socket.destroy();
  }

  private join(client: Socket): void {
    if (this.cutBy === "reset") {
      client.resetAndDestroy();
      return;
    }
    if (this.cutBy === "silent") {
      client.on("error", () => client.destroy());
      this.waiting.add(client);
      return;
    }
    const server = connect(this.to);
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      this.sockets.add(from);
      from.setNoDelay(true);
      // Not pipe(), which resumes a socket as it likes.
      from.on("data", (data) => to.write(data));
      from.on("end", () => to.end());
      from.on("error", () => to.destroy());
      from.on("close", () => {
        this.sockets.delete(from);
        to.destroy();
      });
      from.resume();
    }
  }
}
