import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { addressesOf, type FetchOptions, fetchRecord } from "../../../src/data/fetch.js";
import { toptagging } from "../../../src/data/toptagging.js";
import {
  FileError,
  Interrupted,
  NetworkError,
  NoSpaceError,
  UsageError,
} from "../../../src/errors.js";
import { rejection } from "../worker/rejection.js";
import { answer, cut, type FileServer, recordOf, serve, status } from "./server.js";

const bytes = (n: number, seed: number) =>
  Buffer.from(Array.from({ length: n }, (_, i) => (i * i + seed) % 251));
const FILES = { "train.h5": bytes(300_000, 1), "test.h5": bytes(1000, 2) };

describe("fetching published files", () => {
  let dir: string;
  let server: FileServer;
  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-fetch-"));
    server = await serve(FILES);
  });
  afterEach(async () => {
    await server.close();
    rmSync(dir, { recursive: true, force: true });
  });
  const fetchAll = (options: FetchOptions = {}, host = server.host) =>
    fetchRecord(recordOf(host, FILES), dir, { pauseMs: 1, ...options });
  const contents = (name: string) => readFileSync(join(dir, name));
  const expectAll = () => {
    expect(readdirSync(dir).sort()).to.deep.equal(["test.h5", "train.h5"]);
    for (const [name, expected] of Object.entries(FILES))
      expect(contents(name).equals(expected)).to.equal(true);
  };

  it("puts them there, and says how far it is", async () => {
    const seen = new Map<string, [number, number]>();
    const onBytes = (file: string, done: number, total: number) =>
      void seen.set(file, [done, total]);
    const fetched = await fetchAll({ onBytes });
    expectAll();
    expect(Object.fromEntries(seen)).to.deep.equal({
      "train.h5": [300_000, 300_000],
      "test.h5": [1000, 1000],
    });
    expect(fetched[1]).to.include({ path: join(dir, "test.h5"), bytes: 1000 });
    expect(server.ranges).to.deep.equal([undefined, undefined]);
  });

  it("leaves files alone that are there already and right", async () => {
    await fetchAll();
    server.ranges.length = 0;
    await fetchAll();
    expect(server.ranges).to.deep.equal([]);
  });

  it("refuses to overwrite other files of these names, unless forced", async () => {
    writeFileSync(join(dir, "test.h5"), "my own");
    const error = await rejection(fetchAll());
    expect(error).to.be.instanceOf(FileError).and.include({ elsewhere: true, overwritable: true });
    expect(error.message).to.match(/test\.h5 exists already, .*it has 6 bytes/);
    expect(server.ranges).to.deep.equal([]);
    writeFileSync(join(dir, "test.h5"), bytes(1000, 3));
    expect((await rejection(fetchAll())).message).to.match(
      /\(it has the MD5 sum [0-9a-f]{32}, not [0-9a-f]{32}\)/,
    );
    await fetchAll({ force: true });
    expectAll();
  });

  it("goes on where a connection was cut, again and again", async () => {
    server.faults.push(cut(100_000), cut(100_000), cut(50_000));
    const lines: string[] = [];
    await fetchAll({ attempts: 2, onProgress: (line) => lines.push(line) });
    expectAll();
    const [first, ...further] = server.ranges;
    expect(first).to.equal(undefined);
    expect(further.slice(0, 3)).to.deep.equal(["bytes=100000-", "bytes=200000-", "bytes=250000-"]);
    expect(lines[0]).to.match(/^train\.h5: the connection was cut; trying again/);
  });

  it("goes on where another process left off", async () => {
    writeFileSync(join(dir, "train.h5.partial"), FILES["train.h5"].subarray(0, 123_456));
    await fetchAll();
    expectAll();
    expect(server.ranges[0]).to.equal("bytes=123456-");
  });

  it("takes a file that had come wholly", async () => {
    writeFileSync(join(dir, "train.h5.partial"), FILES["train.h5"]);
    await fetchAll();
    expectAll();
    expect(server.ranges).to.have.length(1);
  });

  it("starts again when the server knows no ranges", async () => {
    writeFileSync(join(dir, "train.h5.partial"), FILES["train.h5"].subarray(0, 1234));
    server.faults.push((request, response, all) =>
      answer(request, response, all, { ranges: false }),
    );
    await fetchAll();
    expectAll();
  });

  it("starts again when what was there was damaged, or is too long", async () => {
    writeFileSync(join(dir, "train.h5.partial"), bytes(1234, 5));
    writeFileSync(join(dir, "test.h5.partial"), bytes(1234, 5));
    await fetchAll();
    expectAll();
    expect(server.ranges).to.deep.equal(["bytes=1234-", undefined, undefined]);
  });

  it("keeps nothing that has the wrong checksum", async () => {
    const other = bytes(300_000, 9);
    const wrong = (...[request, response]: Parameters<typeof answer>) =>
      answer(request, response, other);
    server.faults.push(wrong, wrong);
    const error = await rejection(fetchAll());
    expect(error).to.be.instanceOf(NetworkError);
    expect(error.message).to.match(/has the MD5 sum [0-9a-f]{32}, not [0-9a-f]{32}, .*thrown away/);
    expect(readdirSync(dir)).to.deep.equal([]);
  });

  it("says that a file is not there, without trying again", async () => {
    const record = recordOf(server.host, { "gone.h5": bytes(10, 0) });
    const error = await rejection(fetchRecord(record, dir));
    expect(error).to.be.instanceOf(NetworkError);
    expect(error.message).to.match(
      /^cannot fetch http:.*gone\.h5\?download=1: the server says 404 Not Found$/,
    );
    expect((error as NetworkError).remedy).to.contain(
      `the files of https://records.example/1 into ${dir} by hand`,
    );
    expect(server.ranges).to.have.length(1);
  });

  it("tries a server again that is busy, but not for ever", async () => {
    server.faults.push(status(503), status(429));
    await fetchAll();
    expectAll();
    rmSync(join(dir, "test.h5"));
    server.faults.push(status(503), status(503), status(503));
    expect((await rejection(fetchAll({ attempts: 3 }))).message).to.contain("the server says 503");
  });

  it("keeps what has come when it gives up", async () => {
    server.faults.push(cut(1000), cut(0), cut(0));
    expect((await rejection(fetchAll({ attempts: 2 }))).message).to.contain(
      "the connection was cut",
    );
    expect(contents("train.h5.partial")).to.have.length(1000);
  });

  it("refuses another file, a truncated one, and a web page", async () => {
    server.faults.push(status(200, { "Content-Length": "5" }, "short"));
    expect((await rejection(fetchAll())).message).to.contain(
      "the server has a file of 5 bytes, not the published one of 300000",
    );
    server.faults.push(status(200, { "Content-Type": "text/html; charset=utf-8" }, "<p>Log in"));
    expect((await rejection(fetchAll())).message).to.contain("a web page came");
    const chunked: (typeof server.faults)[0] = (_, response, all) => {
      response.writeHead(200).write(all.subarray(0, 5000));
      setTimeout(() => response.end(), 10);
    };
    server.faults.push(chunked);
    const lines: string[] = [];
    await fetchAll({ onProgress: (line) => lines.push(line) });
    expect(lines).to.deep.equal(["train.h5: it ended after 5000 of 300000 bytes; trying again"]);
    expectAll();
  });

  it("gives up a connection on which nothing comes", async () => {
    server.faults.push(
      (_, response) => void response.writeHead(200, { "Content-Length": 300_000 }).write("x"),
    );
    const lines: string[] = [];
    await fetchAll({ stallMs: 200, onProgress: (line) => lines.push(line) });
    expect(lines[0]).to.contain("nothing came for 0.2 s");
  });

  it("says in one line that there is no network", async () => {
    const { host } = server;
    await server.close();
    const lines: string[] = [];
    const error = await rejection(fetchAll({ onProgress: (line) => lines.push(line) }, host));
    expect(error).to.be.instanceOf(NetworkError);
    expect(error.message).to.match(/: the connection is refused$/);
    expect(lines).to.deep.equal([]);
    server = await serve(FILES);
  });

  it("stops when told to, and goes on from there", async () => {
    const stop = new AbortController();
    server.faults.push((_, response, all) => {
      response.writeHead(200, { "Content-Length": all.length }).write(all.subarray(0, 5000));
    });
    const onBytes = () => stop.abort();
    expect(await rejection(fetchAll({ signal: stop.signal, onBytes }))).to.be.instanceOf(
      Interrupted,
    );
    expect(contents("train.h5.partial")).to.have.length(5000);
    await fetchAll();
    expectAll();
    expect(server.ranges).to.include("bytes=5000-");
  });

  it("says that a folder cannot be written to, and that the disk is too small", async () => {
    writeFileSync(join(dir, "file"), "");
    const record = recordOf(server.host, FILES);
    const error = (await rejection(fetchRecord(record, join(dir, "file/x")))) as FileError;
    expect(error).to.be.instanceOf(FileError);
    expect(error.message).to.match(/cannot write .*file\/x: a part of its path is a file/);
    expect(error.elsewhere).to.equal(true);
    const huge = { ...record, files: [{ ...record.files[0]!, bytes: 1e18 }] };
    expect(await rejection(fetchRecord(huge, join(dir, "new")))).to.be.instanceOf(NoSpaceError);
  });

  it("does not let two work in one folder", async () => {
    mkdirSync(join(dir, "d"));
    server.faults.push(
      (request, response, all) => void setTimeout(() => answer(request, response, all), 300),
    );
    const record = recordOf(server.host, FILES);
    const two = [1, 2].map(() => fetchRecord(record, join(dir, "d")));
    const refused = (await Promise.allSettled(two)).filter((end) => end.status === "rejected"); // either may be first
    expect(refused).to.have.length(1);
    expect(refused[0]!.reason).to.be.instanceOf(UsageError);
  });
});

describe("fetching from mirrors", () => {
  let dir: string;
  let servers: FileServer[];
  const lines: string[] = [];
  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-fetch-"));
    servers = await Promise.all([serve(FILES), serve(FILES)]);
    lines.length = 0;
  });
  afterEach(async () => {
    await Promise.all(servers.map((server) => server.close()));
    rmSync(dir, { recursive: true, force: true });
  });
  const fetchAll = (options: FetchOptions = {}) =>
    fetchRecord(
      recordOf(
        servers.map(({ host }) => host),
        FILES,
      ),
      dir,
      { pauseMs: 1, attempts: 2, onProgress: (line) => lines.push(line), ...options },
    );
  const expectAll = () => {
    expect(readdirSync(dir).sort()).to.deep.equal(["test.h5", "train.h5"]);
    for (const [name, expected] of Object.entries(FILES))
      expect(readFileSync(join(dir, name)).equals(expected)).to.equal(true);
  };
  const url = (i: number, name = "train.h5") =>
    `${servers[i]!.host}/records/1/files/${name}?download=1`;
  const wrong = (...[request, response]: Parameters<typeof answer>) =>
    answer(request, response, bytes(300_000, 9));

  it("asks the second only when the first fails", async () => {
    await fetchAll();
    expectAll();
    expect(servers[1]!.ranges).to.deep.equal([]);
    expect(lines).to.deep.equal([]);
  });

  it("goes on with the next for all files, and says so once", async () => {
    const [first] = servers as [FileServer];
    first.faults.push(status(403));
    await fetchAll();
    expectAll();
    expect(first.ranges).to.have.length(1);
    expect(lines).to.deep.equal([
      `cannot fetch ${url(0)}: the server says 403 Forbidden; trying ${url(1)}`,
    ]);
  });

  it("comes back to the first when the second has not all", async () => {
    servers[0]!.faults.push(status(404));
    servers[1]!.faults.push(answer, status(404));
    await fetchAll();
    expectAll();
    expect(lines[1]).to.equal(
      `cannot fetch ${url(1, "test.h5")}: the server says 404 Not Found; trying ${url(0, "test.h5")}`,
    );
  });

  it("goes on from where the first was cut off, or could no longer be reached", async () => {
    servers[0]!.faults.push(cut(100_000), cut(0), cut(0));
    await fetchAll();
    expectAll();
    expect(servers[1]!.ranges).to.deep.equal(["bytes=100000-", undefined]);
    rmSync(join(dir, "train.h5"));
    writeFileSync(join(dir, "train.h5.partial"), FILES["train.h5"].subarray(0, 1234));
    lines.length = 0;
    await servers[0]!.close();
    await fetchAll();
    expectAll();
    expect(servers[1]!.ranges[2]).to.equal("bytes=1234-");
    expect(
      lines.filter((line) => line.includes("the connection is refused; trying")),
    ).to.have.length(1);
    servers[0] = await serve({});
  });

  it("takes a file from the second that came wrong from the first", async () => {
    servers[0]!.faults.push(wrong, wrong);
    await fetchAll();
    expectAll();
    expect(servers[1]!.ranges[0]).to.equal(undefined); // nothing of the wrong one is kept
    expect(lines.at(-1)).to.match(/has the MD5 sum [0-9a-f]{32}, not .*; trying http:/);
  });

  it("makes up for a first half that came wrong", async () => {
    const half = (...[request, response]: Parameters<typeof answer>) =>
      answer(request, response, bytes(300_000, 9), { cutAfter: 150_000 });
    servers[0]!.faults.push(half, status(404));
    await fetchAll();
    expectAll();
    expect(servers[1]!.ranges).to.deep.equal(["bytes=150000-", undefined, undefined]);
  });

  it("names all that was tried when none has it", async () => {
    servers[0]!.faults.push(status(403));
    servers[1]!.faults.push(wrong, wrong);
    const error = (await rejection(fetchAll())) as NetworkError;
    expect(error).to.be.instanceOf(NetworkError);
    expect(error.message).to.match(
      /^cannot fetch http:\S+: the server says 403 Forbidden, nor http:\S+: .*MD5 sum /,
    );
    expect(error.remedy).to.contain(`the files of https://records.example/1 into ${dir} by hand`);
    servers[0]!.faults.push(status(404));
    servers[1]!.faults.push(status(404));
    expect((await rejection(fetchAll())).message).to.equal(
      `cannot fetch ${url(0)} or ${url(1)}: the server says 404 Not Found`,
    );
  });

  it("asks no other one when it is stopped", async () => {
    const stop = new AbortController();
    servers[0]!.faults.push((request, response, all) => {
      stop.abort();
      status(404)(request, response, all);
    });
    expect(await rejection(fetchAll({ signal: stop.signal }))).to.be.instanceOf(Interrupted);
    expect(await rejection(fetchAll({ signal: stop.signal }))).to.be.instanceOf(Interrupted);
    expect(servers[1]!.ranges).to.deep.equal([]);
  });
});

describe("the Top Quark Tagging Reference Dataset", () => {
  const mirror = process.env.ATLAS_DATA_HOST;
  afterEach(() => {
    if (mirror === undefined) delete process.env.ATLAS_DATA_HOST;
    else process.env.ATLAS_DATA_HOST = mirror;
  });

  it("is at Zenodo, or on a mirror", () => {
    delete process.env.ATLAS_DATA_HOST;
    const record = toptagging.record!;
    expect(addressesOf(record)[2]).to.deep.equal([
      "https://zenodo.org/records/2603256/files/test.h5?download=1",
    ]);
    process.env.ATLAS_DATA_HOST = "http://mirror.example/zenodo/";
    expect(addressesOf(record)[2]).to.deep.equal([
      "http://mirror.example/zenodo/records/2603256/files/test.h5?download=1",
    ]);
    process.env.ATLAS_DATA_HOST = "mirror";
    expect(() => addressesOf(record)).to.throw(UsageError, 'ATLAS_DATA_HOST is "mirror"');
  });
});
