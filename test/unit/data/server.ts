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
  const range = ranges ? /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? "") : null;
  const [start, end] = [Number(range?.[1] ?? 0), Number(range?.[2] || contents.length - 1)];
  const rest = contents.subarray(start, end + 1);
  response.writeHead(range ? 206 : 200, {
    "Content-Length": rest.length,
    ...(range && { "Content-Range": `bytes ${start}-${end}/${contents.length}` }),
  });
  if (cutAfter >= rest.length) response.end(rest);
  else response.write(rest.subarray(0, cutAfter), () => setTimeout(() => response.destroy(), 200));
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

/** @param files by name, or by path; a path that ends with a slash is a web page */
export async function serve(files: Record<string, Buffer>): Promise<FileServer> {
  const ranges: FileServer["ranges"] = [];
  const faults: Fault[] = [];
  const server = createServer((request, response) => {
    ranges.push(request.headers.range);
    const { pathname } = new URL(request.url!, "http://x");
    const contents = files[pathname] ?? files[pathname.split("/").at(-1)!];
    const fault = faults.shift();
    if (pathname.endsWith("/")) response.setHeader("Content-Type", "text/html; charset=utf-8");
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
