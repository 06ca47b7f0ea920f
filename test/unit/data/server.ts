/** A server of files on the loopback interface, whose faults are chosen. */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { PublishedRecord } from "../../../src/data/dataset.js";

export interface FileServer {
  host: string;
  /** The Range header of each request, in turn. */
  ranges: (string | undefined)[];
  /** What is done with the next requests instead of answering them well; the first is the first's. */
  faults: Fault[];
  close(): Promise<void>;
}

export type Fault = (request: IncomingMessage, response: ServerResponse, contents: Buffer) => void;

/** Answer well, as a server with or without ranges does. */
export function answer(
  { headers }: IncomingMessage,
  response: ServerResponse,
  contents: Buffer,
  { ranges = true, cutAfter = Infinity } = {},
): void {
  const start = ranges ? Number(/^bytes=(\d+)-$/.exec(headers.range ?? "")?.[1] ?? 0) : 0;
  const rest = contents.subarray(start);
  response.writeHead(start > 0 ? 206 : 200, {
    "Content-Length": rest.length,
    ...(start > 0 && { "Content-Range": `bytes ${start}-${contents.length - 1}/${contents.length}` }),
  });
  if (cutAfter >= rest.length) response.end(rest);
  else response.write(rest.subarray(0, cutAfter), () => setTimeout(() => response.destroy(), 20));
}

/** Cut the connection after some bytes. */
export const cut =
  (bytes: number): Fault =>
  (request, response, contents) =>
    answer(request, response, contents, { cutAfter: bytes });

export const status =
  (code: number, headers: Record<string, string> = {}, body = "no"): Fault =>
  (_, response) =>
    void response.writeHead(code, headers).end(body);

export async function serve(files: Record<string, Buffer>): Promise<FileServer> {
  const ranges: FileServer["ranges"] = [];
  const faults: Fault[] = [];
  const server = createServer((request, response) => {
    ranges.push(request.headers.range);
    const contents = files[new URL(request.url!, "http://x").pathname.split("/").at(-1)!];
    const fault = faults.shift();
    if (contents === undefined) response.writeHead(404).end("no such file");
    else if (fault) fault(request, response, contents);
    else answer(request, response, contents);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    host: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ranges,
    faults,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/** A record of these files, which are at each of some hosts. */
export function recordOf(hosts: string | string[], files: Record<string, Buffer>): PublishedRecord {
  return {
    title: "Some files",
    doi: "10.0/0",
    licence: "none",
    mirrors: [hosts].flat(),
    page: "https://records.example/1",
    files: Object.entries(files).map(([name, contents]) => ({
      name,
      path: `/records/1/files/${name}?download=1`,
      bytes: contents.length,
      md5: createHash("md5").update(contents).digest("hex"),
    })),
  };
}
