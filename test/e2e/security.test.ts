/**
 * A worker that listens beyond its machine: who gets in, who does not, and what they are told. Real
 * processes throughout.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer } from "node:tls";
import { expect } from "chai";
import { curveKeyPair, Dealer, Subscriber } from "zeromq";
import type { AtlasError } from "../../src/errors.js";
import { WorkerServiceService } from "../../src/gen/atlas/v1/worker.js";
import { Rpc } from "../../src/rpc/index.js";
import { curveOptions } from "../../src/tensor/plane.js";
import { type Credentials, connectWorker } from "../../src/worker/index.js";
import { type Keys, makeKeys } from "../../src/worker/keys.js";
import { readAccess } from "../../src/worker/remote.js";
import { rejection } from "../unit/worker/rejection.js";
import { atlas, complaint, finish, json, LONG, sharedWorker, startBackground } from "./atlas.js";

const TINY = [
  ..."pde --layout=2 --N=8 --architecture=strided_cnn --task=discover_algebra".split(" "),
  ..."--solver=atlasd --epochs=1 --solver.evaluation=2 --predictor_lr=0.01".split(" "),
  ..."--evidence=none --device=cpu --threads=1 --fixed-seed".split(" "),
];

/** The first that comes of a socket's attempts to be let in. */
async function endOfHandshake({ events }: Dealer | Subscriber): Promise<string> {
  for await (const { type } of events) if (type.startsWith("handshake")) return type;
  return "none";
}

describe("a worker on the network", function () {
  this.timeout(LONG);
  let dir: string;
  let keys: string;
  let port: string;
  let where: { cwd: string; env: NodeJS.ProcessEnv };
  let shown: Required<Credentials>;
  /** Of other authorities that the worker trusts as it does its own. */
  let valid: (key: keyof Keys) => string;
  let expired: (key: keyof Keys) => string;
  const file = (name: string) => join(keys, name);
  /** The files of other keys. */
  async function write(name: string, what: Partial<Keys>): Promise<(key: keyof Keys) => string> {
    const path = (key: keyof Keys) => join(dir, `${name}-${key}`);
    for (const [key, text] of Object.entries(what)) writeFileSync(path(key as keyof Keys), text);
    return path;
  }

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-security-"));
    keys = join(dir, "keys");
    where = { cwd: dir, env: { XDG_STATE_HOME: join(dir, "state") } };
    shown = {
      ...{ ca: file("ca.pem"), cert: file("client.pem"), key: file("client-key.pem") },
      tokenFile: file("token"),
    };
    const made = await atlas(
      ["worker", "keygen", "--host", "gpu-box,192.0.2.7", "--out", "keys"],
      where,
    );
    expect(made.code, made.stderr).to.equal(0);
    valid = await write("valid", await makeKeys({ hosts: [] }));
    expired = await write(
      "expired",
      await makeKeys({ hosts: [], days: 1, notBefore: new Date("2020-01-01") }),
    );
    const authorities = [file("ca.pem"), valid("ca"), expired("ca")].map((path) =>
      readFileSync(path, "utf8"),
    );
    writeFileSync(join(dir, "trusted.pem"), authorities.join(""));
    const { address } = await startBackground(
      [
        ..."--host 0.0.0.0 --device cpu --threads 1".split(" "),
        ...["--data-root", dir, "--token-file", "keys/token", "--tls-client-ca", "trusted.pem"],
        ...["--tls-cert", "keys/server.pem", "--tls-key", "keys/server-key.pem"],
      ],
      where,
    );
    port = /^grpcs:\/\/localhost:(\d+)$/.exec(address)![1]!;
  });
  after(async () => {
    await atlas(["worker", "stop"], where);
    rmSync(dir, { recursive: true, force: true });
  });

  it("computes the same to the byte as a local one", async () => {
    const env = {
      ...{
        ATLAS_WORKER: `grpcs://127.0.0.1:${port}`,
        ATLAS_TOKEN: readFileSync(file("token"), "utf8"),
      },
      ...{ ATLAS_CA: shown.ca, ATLAS_CERT: shown.cert, ATLAS_KEY: shown.key },
    };
    const [here, there] = await Promise.all([
      finish([...TINY, "--worker=local"], join(dir, "here"), {
        ...where,
        env: { ...where.env, ...env },
      }),
      finish(TINY, join(dir, "there"), { ...where, env: { ...where.env, ...env } }),
    ]);
    expect({ ...there.result, timings: {} }).to.deep.equal({ ...here.result, timings: {} });
    const checkpoints = readdirSync(join(here.path, "checkpoints"));
    expect(checkpoints).to.include.members(readdirSync(join(there.path, "checkpoints")));
    const sizes = checkpoints.map((name) => {
      const bytes = readFileSync(join(here.path, "checkpoints", name));
      expect(bytes.equals(readFileSync(join(there.path, "checkpoints", name))), name).to.equal(
        true,
      );
      return bytes.byteLength;
    });
    expect(Math.max(...sizes)).to.be.above(64 * 1024, "which goes over the tensor plane");
    for (const run of [here, there])
      for (const name of ["config.json", "events.jsonl", "result.json"])
        expect(readFileSync(join(run.path, name), "utf8")).not.to.contain(env.ATLAS_TOKEN);
  });

  it("says what it is, and nothing secret; and answers no ZeroMQ client without keys", async () => {
    const { ca, cert, key, tokenFile } = shown;
    const credentials = ["--ca", ca, "--cert", cert, "--key", key, "--token-file", tokenFile];
    const info = await json<{ address: string; dataPlane: Record<"tensors" | "metrics", string> }>(
      ["worker", "info", ...credentials], // of the one in the background
      where,
    );
    expect(info.address).to.equal(`grpcs://localhost:${port}`);
    const open = ["tensors", "metrics", "maxFrameBytes", "acceptsParts", "acceptsFiles"];
    expect(info.dataPlane).to.have.keys(...open);
    const { tensors, metrics } = info.dataPlane;
    const here = (endpoint: string) => endpoint.replace("0.0.0.0", "127.0.0.1");
    const address = { address: `127.0.0.1:${port}`, secure: true };
    const rpc = new Rpc(address.address, await readAccess(address, shown));
    const { dataPlane } = await rpc
      .call(WorkerServiceService.describe, {})
      .finally(() => rpc.close());
    const keys = curveOptions(dataPlane?.curve) ?? expect.fail("no keys");
    const others = curveKeyPair();
    const cases: [what: string, keys: object, letIn: boolean][] = [
      ["its keys", keys, true],
      ["no keys", {}, false],
      [
        "keys of another",
        { ...keys, curvePublicKey: others.publicKey, curveSecretKey: others.secretKey },
        false,
      ],
    ];
    for (const [what, options, letIn] of cases) {
      // Silence is waited for where it is expected only.
      const timeout = letIn ? LONG : 500;
      const dealer = new Dealer({
        linger: 0,
        receiveTimeout: timeout,
        sendTimeout: timeout,
        ...options,
      });
      const feed = new Subscriber({ linger: 0, ...options });
      try {
        const ends = Promise.all([dealer, feed].map((socket) => endOfHandshake(socket)));
        dealer.connect(here(tensors));
        feed.connect(here(metrics));
        // Which error it is depends on whether the connection's end is seen before what is said of
        // it.
        for (const end of await ends)
          expect(end, what).to.match(letIn ? /^handshake$/ : /^handshake:error:/);
        await dealer.send([Buffer.alloc(8), "GET", "ticket", ""]).catch(() => {});
        const answer = await dealer.receive().then(
          ([, status]) => String(status),
          (error: { code: string }) => error.code,
        );
        expect(answer, what).to.equal(letIn ? "ERR" : "EAGAIN");
      } finally {
        dealer.close();
        feed.close();
      }
    }
  });

  it("turns away, in one line, whoever lacks something that it asks for", async () => {
    const other = await write("other", await makeKeys({ hosts: [] }));
    const TOKEN = /^the token is missing or wrong/;
    const CERTIFICATE = /^cannot reach .*: it ends the connection; .* certificate, give one /;
    const AUTHORITY = /^cannot reach .* by no authority that .*; give the certificate of its /;
    const here = `grpcs://127.0.0.1:${port}`;
    const cases: [what: string, worker: string, given: Credentials, code: number, says: RegExp][] =
      [
        ["a wrong token", here, { ...shown, tokenFile: other("token") }, 2, TOKEN],
        ["no token", here, { ...shown, tokenFile: undefined }, 2, TOKEN],
        [
          "a plaintext client",
          here.replace("s:", ":"),
          {},
          1,
          /ends the connection; if it uses TLS, write grpcs:/,
        ],
        [
          "a token in the open",
          "grpc://gpu-box:1",
          { tokenFile: shown.tokenFile },
          2,
          /would go .* unencrypted/,
        ],
        [
          "no client certificate",
          here,
          { ...shown, cert: undefined, key: undefined },
          1,
          CERTIFICATE,
        ],
        [
          "another's",
          here,
          { ...shown, cert: other("client"), key: other("clientKey") },
          1,
          CERTIFICATE,
        ],
        [
          "an expired certificate",
          here,
          { ...shown, cert: expired("client"), key: expired("clientKey") },
          1,
          CERTIFICATE,
        ],
        ["another authority", here, { ...shown, ca: other("ca") }, 1, AUTHORITY],
        ["the system's authorities", here, { ...shown, ca: undefined }, 1, AUTHORITY],
        [
          "a local worker",
          "local",
          shown,
          2,
          /^an authority's certificate is for a worker that is already running; /,
        ],
        [
          "half a certificate",
          here,
          { ...shown, key: undefined },
          2,
          /certificate is given without its private key; give both/,
        ],
        [
          "a key of another",
          here,
          { ...shown, key: file("server-key.pem") },
          2,
          /server-key\.pem does not belong to .*client\.pem/,
        ],
        [
          "a certificate that is none",
          here,
          { ...shown, ca: shown.tokenFile },
          2,
          /token is not a certificate/,
        ],
        [
          "a missing file",
          here,
          { ...shown, ca: file("none.pem") },
          2,
          /cannot read .*none\.pem: it does not exist/,
        ],
      ];
    // 127.0.0.2 is this machine too, on Linux only; the certificate does not say so.
    if (process.platform === "linux")
      cases.push([
        "another host",
        `grpcs://127.0.0.2:${port}`,
        shown,
        1,
        /its certificate is for another host/,
      ]);
    for (const [what, worker, given, code, says] of cases) {
      const error = (await rejection(connectWorker({ worker, ...given }))) as AtlasError;
      expect(`${error.message}; ${error.remedy}`, what).to.match(says);
      expect(error.exitCode, what).to.equal(code);
    }
    // The command line says with which flags.
    const ask = ["worker", "info", "--worker", here];
    const mine = ["--cert", shown.cert, "--key", shown.key];
    expect(complaint(await atlas([...ask, "--ca", shown.ca], where), 1)).to.match(
      /it ends the connection; .*--cert and --key\)?$/,
    );
    expect(complaint(await atlas(ask, where), 1)).to.match(/by no authority .*--ca\)?$/);
    expect(complaint(await atlas([...ask, "--ca", shown.ca, ...mine], where), 2)).to.match(
      /^error: the token is missing or wrong; give .*--token-file FILE, or ATLAS_TOKEN$/,
    );
    // It has not suffered; and it is their date that made it refuse the expired ones.
    for (const given of [shown, { ...shown, cert: valid("client"), key: valid("clientKey") }])
      await (await connectWorker({ worker: here, ...given })).close();
  });

  it("is not believed when its certificate has expired", async () => {
    const [cert, key] = [readFileSync(expired("server")), readFileSync(expired("serverKey"))];
    const server = createServer({ cert, key, ALPNProtocols: ["h2"] });
    await new Promise<void>((resolve) =>
      server.on("tlsClientError", () => {}).listen(0, "127.0.0.1", resolve),
    );
    const worker = `grpcs://localhost:${(server.address() as AddressInfo).port}`;
    const error = (await rejection(connectWorker({ worker, ca: expired("ca") }))) as AtlasError;
    server.close();
    expect(error.exitCode).to.equal(1);
    expect(error.message).to.match(/^cannot reach .*: its certificate has expired$/);
  });

  it("is not found where a worker without TLS listens, which does not suffer", async () => {
    const plain = await connectWorker({ worker: await sharedWorker() });
    try {
      const worker = plain.address.replace("grpc:", "grpcs:");
      const error = (await rejection(connectWorker({ worker, ...shown }))) as AtlasError;
      expect(`${error.message}; ${error.remedy}`).to.match(
        /^cannot reach .*: it does not .*TLS; .*grpc:\/\/.*grpcs:\/\//,
      );
      await (await plain.openSession()).close();
    } finally {
      await plain.close();
    }
  });

  it("has its keys made once, and for their owner's eyes", async () => {
    const mode = (name: string) => statSync(join(keys, name)).mode & 0o777;
    for (const name of ["ca-key.pem", "server-key.pem", "client-key.pem", "token"])
      expect(mode(name)).to.equal(0o600);
    expect(mode(".")).to.equal(0o700);
    const before = readFileSync(file("token"), "utf8");
    const again = ["worker", "keygen", "--host", "gpu-box", "--out", "keys"];
    expect(complaint(await atlas(again, where), 2)).to.match(
      /keys\/ca-key\.pem exists already; .*--force$/,
    );
    expect(readFileSync(file("token"), "utf8")).to.equal(before);
    expect(complaint(await atlas(["worker", "keygen", "--host", "a b"], where), 2)).to.match(
      /neither a host name nor/,
    );
    const here = ["worker", "keygen", "--host", "gpu-box", "--out", ".", "--force"];
    expect(complaint(await atlas(here, where), 2)).to.match(
      / holds other files \(.*\); choose another/,
    );
  });

  it("does not listen without TLS and a token", async () => {
    const state = { ...where, env: { XDG_STATE_HOME: join(dir, "other") } };
    const start = ["worker", "start", "--host", "0.0.0.0", "--token-file", file("token")];
    expect(complaint(await atlas(start, state), 2)).to.match(
      /needs TLS and a token: give --tls-cert, --tls-key \(/,
    );
  });
});
