import { once } from "node:events";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "chai";
import { climate } from "../../../src/data/climate.js";
import { HDF5, type PublishedListing } from "../../../src/data/dataset.js";
import { type FetchOptions, fetchRecord } from "../../../src/data/fetch.js";
import { FileError, Interrupted, NetworkError, NoSpaceError } from "../../../src/errors.js";
import { rejection } from "../worker/rejection.js";
import { cut, type FileServer, serve, status } from "./server.js";

const PATH = "/project/ClimateNet/climatenet_new";
const hdf5 = (bytes: number, fill: number) =>
  Buffer.concat([HDF5.signature, Buffer.alloc(bytes - HDF5.signature.length, fill)]);
const page = (...links: string[]) =>
  Buffer.from(
    `<html><a href="?C=N;O=D">Name</a> <a href="/project/">Parent</a>${links.map((link) => `<A class='x' href="${link}">f</A>`).join("\n")}`,
  );
const FILES = {
  "train/data-1996-06-09-01-1_0.nc": hdf5(3000, 1),
  "train/data-1996-06-09-01-1_1.nc": hdf5(2000, 2),
  "test/data-2011-06-01-01-1_0.nc": hdf5(1000, 3),
};
const NAMES = Object.keys(FILES);

describe("fetching files that only index pages list", () => {
  let dir: string;
  let server: FileServer;
  let files: Record<string, Buffer>;
  const lines: string[] = [];
  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-listing-"));
    files = {
      // Beside the files: others, the same again, elsewhere, out of the folder, and names that are paths.
      [`${PATH}/train/`]: page(
        "data-1996-06-09-01-1_0.nc",
        `${PATH}/train/data-1996-06-09-01-1_1.nc`,
        "./data-1996-06-09-01-1_0.nc",
        "readme.txt",
        "https://elsewhere.example/data-1999-01-01-01-1_0.nc",
        "../data-1999-01-01-01-1_0.nc",
        "..%2fdata-1999-01-01-01-1_0.nc",
        "sub/data-1999-01-01-01-1_0.nc",
        "data-1999-01-01-01-1_0.nc.exe",
      ),
      [`${PATH}/test/`]: page("data-2011-06-01-01-1_0.nc"),
      ...Object.fromEntries(
        Object.entries(FILES).map(([name, contents]) => [`${PATH}/${name}`, contents]),
      ),
    };
    server = await serve(files);
    lines.length = 0;
  });
  afterEach(async () => {
    await server.close();
    rmSync(dir, { recursive: true, force: true });
  });
  const fetchAll = (options: FetchOptions = {}) =>
    fetchRecord({ ...climate.listing!, mirrors: [server.host] } satisfies PublishedListing, dir, {
      pauseMs: 1,
      attempts: 2,
      onProgress: (line) => lines.push(line),
      ...options,
    });
  const expectAll = () => {
    const found = readdirSync(dir, { recursive: true, withFileTypes: true }).filter((e) =>
      e.isFile(),
    );
    expect(found).to.have.length(NAMES.length);
    for (const [name, contents] of Object.entries(FILES))
      expect(readFileSync(join(dir, name)).equals(contents), name).to.equal(true);
  };
  /** The requests that were for more than a page or a length. */
  const fetches = () => server.ranges.filter((range) => range !== "bytes=0-0").length - 2;

  it("puts those of the right names, and no others, into their folders", async () => {
    const fetched = await fetchAll();
    expectAll();
    expect(fetched.map(({ path, bytes }) => [path, bytes])).to.have.deep.members(
      NAMES.map((name) => [join(dir, name), FILES[name as keyof typeof FILES].length]),
    );
    expect(lines[0]).to.match(/\/train\/ has 2 files, not 398 /);
  });

  it("leaves alone those that are there, goes on with those that were cut off, and starts again with a damaged one", async () => {
    await fetchAll();
    rmSync(join(dir, "test"), { recursive: true });
    truncateSync(join(dir, NAMES[0]!), 1234);
    renamePartial(NAMES[0]!);
    renamePartial(NAMES[1]!);
    writeFileSync(join(dir, `${NAMES[1]}.partial`), "no HDF5");
    server.ranges.length = 0;
    await fetchAll();
    expectAll();
    expect(server.ranges).to.include("bytes=1234-").and.include("bytes=7-");
    expect(lines.at(-1)).to.contain(`${NAMES[1]} came damaged`).and.contain("HDF5");
    server.ranges.length = 0;
    await fetchAll();
    expect(fetches()).to.equal(0);
  });
  const renamePartial = (name: string) => {
    const path = join(dir, name);
    writeFileSync(`${path}.partial`, readFileSync(path));
    rmSync(path);
  };

  it("keeps a file of the user's own, unless forced", async () => {
    const path = join(dir, NAMES[0]!);
    mkdirSync(dirname(path));
    for (const [contents, why] of [
      ["my own", "it has 6 bytes, not 3000"],
      ["x".repeat(3000), "signature of HDF5"],
    ] as const) {
      writeFileSync(path, contents);
      const error = await rejection(fetchAll());
      expect(error).to.be.instanceOf(FileError);
      expect(error.message).to.contain("exists already").and.contain(why);
    }
    await fetchAll({ force: true });
    expectAll();
  });

  it("refuses a folder whose other files would be mixed with them, even if forced", async () => {
    const others = ["data-2000-01-04-01-1_0.nc", "data-2000-01-05-01-1_0.nc"].map((name) =>
      join(dir, "test", name),
    );
    mkdirSync(join(dir, "test"));
    for (const path of others) writeFileSync(path, hdf5(1000, 4));
    writeFileSync(join(dir, "test", "notes.txt"), "");
    for (const force of [false, true]) {
      const error = await rejection(fetchAll({ force }));
      expect(error).to.be.instanceOf(FileError);
      expect(error.message).to.contain(`${others[0]} is not one of the files of ClimateNet`);
      expect(error).to.include({ elsewhere: true, overwritable: undefined });
    }
    for (const path of others) rmSync(path);
    await fetchAll(); // a file of another name is nobody's weather
  });

  it("fetches again, if forced, what only its length and header speak for, and says so if not", async () => {
    await fetchAll();
    const damaged = hdf5(3000, 9);
    writeFileSync(join(dir, NAMES[0]!), damaged);
    lines.length = 0;
    await fetchAll();
    expect(readFileSync(join(dir, NAMES[0]!)).equals(damaged)).to.equal(true);
    expect(lines.at(-1)).to.match(/^3 files exist already \(.*length.*header.*forced/);
    await fetchAll({ force: true });
    expectAll();
  });

  it("hangs up on all other questions when one is not answered", async () => {
    let hungUp: Promise<unknown> | undefined;
    server.faults.push(
      (_, response) => void response.end(files[`${PATH}/train/`]),
      (_, response) => {
        hungUp = once(response, "close"); // without an answer
      },
      status(404),
    );
    expect((await rejection(fetchAll())).message).to.match(/the server says 404 Not Found$/);
    expect(await Promise.race([hungUp, sleep(2000, "still asking")])).not.to.equal("still asking");
  });

  it("stops when told to, and goes on from there", async () => {
    const stop = new AbortController();
    const onBytes = () => stop.abort();
    expect(await rejection(fetchAll({ signal: stop.signal, onBytes }))).to.be.instanceOf(
      Interrupted,
    );
    await fetchAll();
    expectAll();
  });

  it("asks again a server that is busy", async () => {
    server.faults.push(status(503), cut(10));
    await fetchAll({ attempts: 3 });
    expectAll();
  });

  it("says in one line what it could not have", async () => {
    files[`${PATH}/test/`] = page("other.nc");
    const empty = await rejection(fetchAll());
    expect(empty).to.be.instanceOf(NetworkError);
    expect(empty.message).to.match(/test\/: its index page lists no files of this data set$/);
    delete files[`${PATH}/${NAMES[1]}`];
    expect((await rejection(fetchAll())).message).to.match(
      /_1\.nc: the server says 404 Not Found$/,
    );
    delete files[`${PATH}/train/`];
    expect((await rejection(fetchAll())).message).to.match(
      /train\/: the server says 404 Not Found$/,
    );
    await server.close();
    expect((await rejection(fetchAll())).message).to.match(/train\/: the connection is refused$/);
    server = await serve({});
    expect(readdirSync(dir)).to.deep.equal([]);
  });

  it("asks how much there is before it begins", async () => {
    server.faults.push(
      (_, response) => void response.end(files[`${PATH}/train/`]),
      (_, response) =>
        void response.writeHead(206, { "Content-Range": "bytes 0-0/1000000000000000000" }).end("x"),
    );
    expect(await rejection(fetchAll())).to.be.instanceOf(NoSpaceError);
    expect(fetches()).to.equal(0);
  });
});
