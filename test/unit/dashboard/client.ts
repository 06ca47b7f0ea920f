/** Asking a dashboard as its page does, and as others might. */
import { request } from "node:http";

/** An answer of the server. */
export interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  text: string;
}

/** Ask for a path. Header names may be any, as a browser would not allow. */
export function ask(
  url: string,
  path: string,
  { headers = {}, method = "GET", body }: { headers?: object; method?: string; body?: string } = {},
): Promise<Answer> {
  const { port } = new URL(url);
  return new Promise((resolve, reject) => {
    const asked = request(
      { host: "127.0.0.1", port, path, method, headers: { ...headers }, agent: false },
      (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (part: string) => {
          text += part;
        });
        response.on("end", () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, text }),
        );
      },
    );
    asked.on("error", reject).end(body);
  });
}

/** The header with the token of a dashboard's address. */
export const bearer = (url: string) => ({
  Authorization: `Bearer ${new URLSearchParams(new URL(url).hash.slice(1)).get("token")}`,
});

/** Ask with the token for JSON. */
export async function json<T>(url: string, path: string): Promise<T> {
  const { status, text } = await ask(url, path, { headers: bearer(url) });
  if (status !== 200) throw new Error(`${path}: ${status} ${text}`);
  return JSON.parse(text) as T;
}

/** A message of the stream. */
export interface Message {
  event: string;
  id?: Record<string, number>;
  data: {
    id?: string;
    runs?: string[];
    from?: number;
    to?: number;
    summary?: { status: string };
    events?: [number, { type: string; epoch?: number; message?: string }][];
  };
}

/** Read a stream, which keeps its cursor. */
export class Reader {
  readonly messages: Message[] = [];
  readonly cursor: Record<string, number>;
  private close: () => void = () => {};
  /** Settled when the connection has ended. */
  ended: Promise<void> = Promise.resolve();

  constructor(cursor: Record<string, number> = {}) {
    this.cursor = { ...cursor };
  }

  /** Open the stream: with the cursor, or from now on. */
  async open(url: string, { fresh = false } = {}): Promise<void> {
    const { port } = new URL(url);
    await new Promise<void>((resolve, reject) => {
      const asked = request(
        {
          host: "127.0.0.1",
          port,
          path: "/api/events",
          method: "POST",
          headers: bearer(url),
          agent: false,
        },
        (response) => {
          if (response.statusCode !== 200) return reject(new Error(String(response.statusCode)));
          let rest = "";
          response.setEncoding("utf8").on("data", (part: string) => {
            const parts = `${rest}${part}`.split("\n\n");
            rest = parts.pop() ?? "";
            for (const whole of parts) this.take(whole);
          });
          this.ended = new Promise((done) => response.on("close", () => done()));
          response.on("error", () => {});
          resolve();
        },
      );
      this.close = () => asked.destroy();
      asked.on("error", reject);
      asked.end(JSON.stringify(fresh ? {} : { cursor: this.cursor }));
    });
  }

  /** Close the connection. */
  async stop(): Promise<void> {
    this.close();
    await this.ended;
  }

  /** The events of a run that came, in their order. */
  eventsOf(run: string) {
    return this.messages.flatMap(({ data }) => (data.id === run ? (data.events ?? []) : []));
  }

  /** The epochs of a run that came. */
  epochsOf(run: string): number[] {
    return this.eventsOf(run).flatMap(([, { epoch }]) => (epoch === undefined ? [] : [epoch]));
  }

  private take(whole: string): void {
    const fields = Object.fromEntries(
      whole.split("\n").map((line) => {
        const at = line.indexOf(":");
        return [line.slice(0, at), line.slice(at + 1).trim()];
      }),
    );
    if (fields.data === undefined) return;
    const id = fields.id === undefined ? undefined : JSON.parse(fields.id);
    this.messages.push({ event: fields.event ?? "", id, data: JSON.parse(fields.data) });
    Object.assign(this.cursor, id);
  }
}
