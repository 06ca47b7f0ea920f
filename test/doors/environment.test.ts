/** What the user's shell has set decides nothing that it should not. */
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect } from "chai";
import { execa } from "execa";
import { execute } from "../../src/setup/common.mjs";
import { earlierContracts } from "../../src/setup/contract.mjs";
import {
  childEnvironment,
  ISOLATED,
  NPM_OPTIONS,
  npmCommand,
  pipEnvironment,
  pipListEnvironment,
} from "../../src/setup/environment.mjs";
import { networkTrouble } from "../../src/setup/network.mjs";
import { venvFolder, venvPython } from "../../src/setup/python.mjs";
import { apart, atlas, complaint, LONG, ROOT } from "../e2e/atlas.js";
import { deadPort, type Listening, startProxy, startSecure } from "./network.js";

/** Variables, and what children get of them: the same, nothing, or another value. */
const VARIABLES: [name: string, value: string, child: "kept" | "dropped" | { is: string }][] = [
  ...[
    ...["PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONSAFEPATH", "PYTHONINSPECT"],
    ...["PYTHONWARNINGS", "PYTHONPLATLIBDIR", "PYTHONEXECUTABLE", "PYTHONBREAKPOINT"],
    ...["PYTHONOPTIMIZE", "PYTHONUSERBASE", "PYTHONHASHSEED", "PYTHONVERBOSE", "PYTHONDEVMODE"],
    ...["PYTHONCASEOK", "PYTHON_COLORS", "PYTHON_GIL", "__PYVENV_LAUNCHER__", "VIRTUAL_ENV"],
    ...["_PIP_RUNNING_IN_SUBPROCESS", "PYTEST_ADDOPTS", "MYPYPATH", "RUFF_CONFIG"],
    ...["NODE_ENV", "NODE_PATH", "NODE_PRESERVE_SYMLINKS", "MOCHA_OPTIONS", "BIOME_BINARY"],
    ...["TSX_TSCONFIG_PATH", "ESBUILD_BINARY_PATH", "DEBUG", "FORCE_COLOR"],
    ...["npm_config_omit", "npm_config_only", "NPM_CONFIG_PRODUCTION", "npm_config_global"],
    ...["npm_config_dry_run", "NPM_CONFIG_DRY-RUN", "npm_config_package_lock"],
    ...["npm_config_legacy_peer_deps", "npm_config_workspace", "npm_config_install_links"],
    ...["npm_config_before", "npm_config_loglevel", "npm_config_json", "npm_config_os"],
    ...["npm_config_install_strategy", "npm_config_version", "npm_config_local_prefix"],
    ...["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"],
    ...["GIT_NAMESPACE", "GIT_PREFIX", "GIT_TRACE", "GIT_TRACE_SETUP", "GIT_LITERAL_PATHSPECS"],
    ...["GIT_EXTERNAL_DIFF", "DOCKER_DEFAULT_PLATFORM", "PODMAN_USERNS"],
  ].map((name): [string, string, "dropped"] => [name, "1", "dropped"]),
  ...[
    ...["PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_PRELOAD", "LD_LIBRARY_PATH"],
    ...["HTTPS_PROXY", "https_proxy", "NO_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"],
    ...["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "NETRC"],
    ...["PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHON_KEYRING_BACKEND", "PYTHON"],
    ...["npm_config_registry", "npm_config_cafile", "npm_config_https_proxy", "npm_config_cache"],
    ...["npm_config_userconfig", "npm_config_ignore_scripts", "npm_config_//host/:_authToken"],
    ...["npm_config_build_from_source", "npm_config_strict_ssl", "npm_config_offline"],
    ...["OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "XDG_CACHE_HOME", "CONDA_PREFIX"],
    ...["DOCKER_HOST", "DOCKER_CONTEXT", "CONTAINER_HOST", "GIT_SSL_CAINFO", "GIT_CONFIG_COUNT"],
    ...["GIT_CEILING_DIRECTORIES", "PIP_INDEX_URL", "ATLAS_DATA_HOST", "NODE_USE_ENV_PROXY"],
  ].map((name): [string, string, "kept"] => [name, "x", "kept"]),
  ["PYTHONUTF8", "0", { is: "1" }],
  ["PYTHONIOENCODING", "latin-1", { is: "utf-8" }],
  ["PYTHONNOUSERSITE", "", { is: "1" }],
  ["npm_config_registry", "https://registry.yarnpkg.com", "dropped"], // Yarn sets it by itself
  ["NODE_OPTIONS", "--require /no/such.js", "dropped"],
  ["NODE_OPTIONS", "--inspect-brk=0 --conditions=development --import ./x.mjs", "dropped"],
  [
    "NODE_OPTIONS",
    '-r "/a b.js" --max-old-space-size=99 --use_openssl_ca --tls-min-v1.2 --loader x',
    { is: "--max-old-space-size=99 --use_openssl_ca --tls-min-v1.2" },
  ],
];

describe("the environment of a child", () => {
  for (const [name, value, child] of VARIABLES) {
    const shown = typeof child === "string" ? child : `set to ${child.is}`;
    it(`has ${name}=${value} ${shown}`, () => {
      const expected = child === "kept" ? value : child === "dropped" ? undefined : child.is;
      expect(childEnvironment({}, { from: { [name]: value } })[name]).to.equal(expected);
    });
  }

  it("has the authorities of Python and curl also for Node", () => {
    const from = { SSL_CERT_FILE: "/ca.pem" };
    expect(childEnvironment({}, { from }).NODE_EXTRA_CA_CERTS).to.equal("/ca.pem");
    const own = { ...from, NODE_EXTRA_CA_CERTS: "/own.pem" };
    expect(childEnvironment({}, { from: own }).NODE_EXTRA_CA_CERTS).to.equal("/own.pem");
  });

  it("has colours only where the user reads its output", () => {
    const from = { FORCE_COLOR: "1" };
    expect(childEnvironment({}, { from })).to.include({ NO_COLOR: "1" });
    expect(childEnvironment({}, { from, forUser: true })).to.include(from);
  });
});

describe("npm", () => {
  it("is npm itself, whatever runs the script", () => {
    const cases: [path: string | undefined, command: string[]][] = [
      [undefined, ["npm"]],
      ["/lib/npm/bin/npm-cli.js", [process.execPath, "/lib/npm/bin/npm-cli.js"]],
      ["/lib/npm/bin/npx-cli.js", [process.execPath, "/lib/npm/bin/npm-cli.js"]],
      ["/lib/yarn/bin/yarn.js", ["npm"]],
      ["/lib/pnpm/bin/pnpm.cjs", ["npm"]],
      ["/bin/bun", ["npm"]],
    ];
    for (const [npm_execpath, command] of cases)
      expect(npmCommand({ npm_execpath })).to.deep.equal(command);
  });

  /** Settings as they are in files: each would keep npm ci from what it is for. */
  const FILES: string[] = [
    "production=true\nglobal=true\npackage-lock=false\nglobal-style=true\nbefore=2001-01-01",
    "omit[]=optional\nomit[]=dev\ndry-run=true\ninstall-strategy=linked\nos=plan9\ncpu=vax",
    "only=production\npackage-lock-only=true\nmin-release-age=9999\nengine-strict=true",
    "omit=dev\njson=true\ncolor=always\nloglevel=silly\nlegacy-peer-deps=true\nforce=true",
  ];

  it("installs all of the lock file, whatever files of settings say", async function () {
    this.timeout(LONG);
    const dir = mkdtempSync(join(tmpdir(), "atlas-npm-"));
    try {
      for (const name of ["dev", "part"]) {
        mkdirSync(join(dir, name));
        writeFileSync(join(dir, name, "package.json"), JSON.stringify({ name, version: "1.0.0" }));
        execFileSync("npm", ["pack", `./${name}`], { cwd: dir, stdio: "ignore" });
      }
      const project = join(dir, "project");
      mkdirSync(project);
      const manifest = {
        ...{ name: "p", version: "1.0.0", engines: { node: ">=1" } },
        devDependencies: { dev: "file:../dev-1.0.0.tgz" },
        optionalDependencies: { part: "file:../part-1.0.0.tgz" },
      };
      writeFileSync(join(project, "package.json"), JSON.stringify(manifest));
      const env = childEnvironment();
      execFileSync("npm", ["install", "--package-lock-only", "--offline"], { cwd: project, env });
      const userconfig = join(dir, "npmrc");
      const [command, ...first] = npmCommand({});
      for (const text of FILES) {
        writeFileSync(userconfig, `${text}\n`);
        const { code, lines } = await execute(command, [...first, "ci", ...NPM_OPTIONS], {
          cwd: project,
          env: childEnvironment({ npm_config_userconfig: userconfig, npm_config_offline: "true" }),
        });
        expect(code, `${text}: ${lines.join("\n")}`).to.equal(0);
        for (const name of ["dev", "part"])
          expect(
            readFileSync(join(project, "node_modules", name, "package.json"), "utf8"),
            text,
          ).to.contain(name);
      }
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });
});

describe("pip", function () {
  this.timeout(LONG);
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-pip-"));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  /** The settings with which pip installs, by name. */
  const settings = async (file: string, variables: NodeJS.ProcessEnv = {}) => {
    const path = join(dir, "pip.conf");
    writeFileSync(path, file);
    const python = venvPython(venvFolder());
    const clean = Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !name.startsWith("PIP_")),
    );
    const from = { ...clean, XDG_CONFIG_DIRS: dir, HOME: dir, PIP_CONFIG_FILE: path, ...variables };
    const list = [...ISOLATED, "-m", "pip", "config", "list"];
    const { code, lines } = await execute(python, list, { env: pipListEnvironment(python, from) });
    expect(code, lines.join("\n")).to.equal(0);
    const made = pipEnvironment(lines, from);
    return Object.fromEntries(Object.entries(made).filter(([name]) => name.startsWith("PIP_")));
  };

  const ALWAYS = { PIP_CONFIG_FILE: "/dev/null", PIP_NO_COLOR: "1" };

  it("takes from files only where packages come from", async () => {
    const file = `[global]
index-url = https://a:b%40c@index.example/simple
cert = /ca.pem
quiet = 3
log = /no/such/folder/log
python = /no/such/python
timeout = 7
user = true
require-virtualenv = true
proxy = http://proxy.example:3128
[install]
extra-index-url =
    https://one.example/simple
    https://two.example/é
find-links = /wheels with'quote
target = /elsewhere
prefix = /elsewhere
root = /elsewhere
src = /elsewhere
no-deps = true
no-binary = :all:
only-binary = :all:
require-hashes = true
dry-run = true
report = /elsewhere/report
constraint = /no/such/file
requirement = /no/such/file
editable = /no/such/folder
ignore-installed = true
pre = true
platform = plan9
timeout = 8
[download]
timeout = 9
cert = /no/such/cert
`;
    const found = await settings(file);
    const urls = found.PIP_EXTRA_INDEX_URL?.trim().split(/\s+/);
    expect(urls).to.deep.equal(["https://one.example/simple", "https://two.example/é"]);
    const { PIP_INDEX_URL: index, PIP_EXTRA_INDEX_URL: _, ...others } = found;
    expect(index).to.match(/^https:\/\/a:b%40c@index\.example\/simple$/);
    expect(others).to.deep.equal({
      ...ALWAYS,
      PIP_CERT: "/ca.pem",
      PIP_TIMEOUT: "8",
      PIP_PROXY: "http://proxy.example:3128",
      PIP_FIND_LINKS: "/wheels with'quote",
      PIP_ONLY_BINARY: ":all:",
    });
  });

  it("takes the same from variables, which count more than files", async () => {
    const found = await settings("[global]\nindex-url = https://file.example\n", {
      ...{ PIP_INDEX_URL: "https://variable.example", PIP_CERT: "/ca.pem", PIP_USER: "1" },
      ...{ PIP_TARGET: "/t", PIP_QUIET: "3", PIP_PYTHON: "/no/such", PIP_DRY_RUN: "1" },
      ...{ PIP_LOG: "/no/such/log", PIP_NO_INDEX: "1", PIP_TRUSTED_HOST: "a b" },
    });
    expect(found).to.deep.equal({
      ...ALWAYS,
      PIP_INDEX_URL: "https://variable.example",
      PIP_CERT: "/ca.pem",
      PIP_NO_INDEX: "1",
      PIP_TRUSTED_HOST: "a b",
    });
  });
});

describe("pip and npm behind a proxy and an authority of its own", function () {
  this.timeout(LONG);
  let dir: string;
  let server: Listening & { ca: string };
  const files = new Map<string, Buffer>();
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-own-"));
    server = await startSecure(["index.example", "registry.example"], (request, response) => {
      const found = files.get(decodeURIComponent(request.url!));
      if (request.url!.endsWith("/")) response.setHeader("Content-Type", "text/html");
      response.writeHead(found === undefined ? 404 : 200).end(found);
    });
    writeFileSync(join(dir, "ca.pem"), server.ca);
  });
  after(async () => {
    await server.close();
    rmSync(dir, { recursive: true, force: true });
  });
  const shell = (more: NodeJS.ProcessEnv): NodeJS.ProcessEnv => {
    const own = Object.entries(process.env).filter(
      ([name]) => !/proxy$|^(PIP_|SSL_|NODE_EXTRA|REQUESTS_CA|CURL_CA|npm_)/i.test(name),
    );
    return { ...Object.fromEntries(own), ...more };
  };

  for (const certificates of ["PIP_CERT", "REQUESTS_CA_BUNDLE"])
    it(`pip finds the index with ${certificates}`, async () => {
      const wheels = join(dir, "wheels");
      writeFileSync(join(dir, "requirements.txt"), "torch==1.2.3\n");
      const script = join(ROOT, "test/integration/stub_wheels.py");
      const python = venvPython(venvFolder());
      execFileSync(python, [script, join(dir, "requirements.txt"), wheels]);
      const wheel = "torch-1.2.3+stub-py3-none-any.whl";
      files.set("/simple/torch/", Buffer.from(`<a href="/${wheel}">${wheel}</a>`));
      files.set(`/${wheel}`, readFileSync(join(wheels, wheel)));
      const proxy = await startProxy({ to: server.port });
      const from = shell({
        ...{ HTTPS_PROXY: `http://127.0.0.1:${proxy.port}`, PIP_NO_CACHE_DIR: "1" },
        ...{ PIP_INDEX_URL: "https://index.example/simple", [certificates]: join(dir, "ca.pem") },
        PIP_CONFIG_FILE: "/dev/null",
      });
      const pip = [...ISOLATED, "-m", "pip"];
      const list = await execute(python, [...pip, "config", "list"], {
        env: pipListEnvironment(python, from),
      });
      const { code, lines } = await execute(
        python,
        [...pip, "download", "--no-deps", "--dest", dir, "torch==1.2.3"],
        { env: pipEnvironment(list.lines, from) },
      );
      expect(code, lines.join("\n")).to.equal(0);
      expect(new Set(proxy.asked)).to.deep.equal(new Set(["index.example:443"]));
      await proxy.close();
    });

  for (const certificates of ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "npm_config_cafile"])
    it(`npm finds the registry with ${certificates}`, async () => {
      const [name, version] = ["part", "1.0.0"];
      writeFileSync(join(dir, "package.json"), JSON.stringify({ name, version }));
      execFileSync("npm", ["pack"], { cwd: dir, stdio: "ignore" });
      const tarball = readFileSync(join(dir, "part-1.0.0.tgz"));
      const url = "https://registry.example/part/-/part-1.0.0.tgz";
      const dist = { tarball: url, shasum: createHash("sha1").update(tarball).digest("hex") };
      const packument = { name, "dist-tags": { latest: version }, versions: {} };
      packument.versions = { [version]: { name, version, dist } };
      files.set("/part", Buffer.from(JSON.stringify(packument)));
      files.set("/part/-/part-1.0.0.tgz", tarball);
      const proxy = await startProxy({ to: server.port });
      const from = shell({
        ...{ https_proxy: `http://127.0.0.1:${proxy.port}`, [certificates]: join(dir, "ca.pem") },
        ...{ npm_config_registry: "https://registry.example", npm_config_userconfig: "/dev/null" },
        ...{
          npm_config_globalconfig: join(dir, "none"),
          npm_config_cache: join(dir, certificates),
        },
      });
      const [command, ...first] = npmCommand({});
      const { code, lines } = await execute(command, [...first, "pack", "part@1.0.0"], {
        cwd: dir,
        env: childEnvironment({}, { from }),
      });
      expect(code, lines.join("\n")).to.equal(0);
      expect(proxy.asked).to.include("registry.example:443");
      await proxy.close();
    });
});

describe("trouble on the network", () => {
  const pip = "WARNING: Retrying … 'NewConnectionError('…: [Errno 111] Connection refused')'";
  const CASES: [said: string, env: NodeJS.ProcessEnv, what: RegExp | undefined][] = [
    [pip, {}, /is there a network/],
    ["ProxyError('Cannot connect to proxy.'", {}, /^the proxy cannot be used/],
    [
      `ProxyError('Cannot connect to proxy.', ${pip}`,
      { HTTPS_PROXY: "http://me:secret@proxy.example:3128/" },
      /^the proxy http:\/\/proxy\.example:3128 \(HTTPS_PROXY\) cannot be used/,
    ],
    ["Tunnel connection failed: 407 Proxy Auth", { PIP_PROXY: "p:1" }, /p:1 \(PIP_PROXY\) wants/],
    [
      "code ECONNREFUSED\nreason: connect ECONNREFUSED 10.0.0.7:3128",
      { https_proxy: "http://proxy.example:3128" },
      /proxy\.example:3128 \(https_proxy\)/,
    ],
    ["getaddrinfo ENOTFOUND proxy.example", { HTTP_PROXY: "proxy.example:8080" }, /HTTP_PROXY/],
    [
      "getaddrinfo ENOTFOUND registry.example",
      { HTTPS_PROXY: "http://proxy.example:8080" },
      /is there a network/,
    ],
    ["code SELF_SIGNED_CERT_IN_CHAIN", {}, /certificate/],
    ["SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", {}, /certificate/],
    ["Downloading certifi-1.whl (407 kB)", {}, undefined],
    ["ERROR: No matching distribution found for torch==99", {}, undefined],
  ];
  for (const [said, env, what] of CASES)
    it(`is ${what ?? "not seen"} in: ${said.slice(0, 60)}`, () => {
      const before = { ...process.env };
      try {
        for (const name of Object.keys(process.env))
          if (/proxy/i.test(name)) delete process.env[name];
        Object.assign(process.env, env);
        const found = networkTrouble(said, "CERT")?.what;
        if (what === undefined) expect(found).to.equal(undefined);
        else expect(found).to.match(what).and.not.contain("secret");
      } finally {
        for (const name of Object.keys(env)) delete process.env[name];
        Object.assign(process.env, before);
      }
    });
});

describe("a shell that has set much", function () {
  this.timeout(LONG);
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-shell-"));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  it("does not reach Python, whose modules are its own", async () => {
    for (const name of ["json", "torch", "numpy", "grpc"])
      writeFileSync(join(dir, `${name}.py`), 'raise SystemExit("not mine")\n');
    const env = {
      ...{ PYTHONHOME: "/usr", PYTHONPATH: dir, PYTHONSAFEPATH: "1", PYTHONINSPECT: "1" },
      ...{ PYTHONWARNINGS: "error", PYTHONOPTIMIZE: "2", PYTHONSTARTUP: join(dir, "json.py") },
      ...{ PYTHONHASHSEED: "?", PYTHONMALLOC: "?", PYTHONIOENCODING: "utf-16" },
    };
    const { code, stdout, stderr } = await apart(["doctor", "--json"], { cwd: dir, env });
    expect({ code, stderr }, stdout).to.deep.equal({ code: 0, stderr: "" });
    expect(JSON.parse(stdout)).to.include({ usable: true });
  });

  it("is named by doctor where it keeps Python from its libraries", async function () {
    if (process.platform !== "linux") return this.skip();
    writeFileSync(join(dir, "libc10.so"), "no library");
    const { code, stdout } = await apart(["doctor", "--json"], { env: { LD_LIBRARY_PATH: dir } });
    expect(code).to.equal(1);
    const { checks } = JSON.parse(stdout) as { checks: { name: string; remedy?: string }[] };
    expect(checks.find(({ name }) => name === "torch")?.remedy).to.equal("unset LD_LIBRARY_PATH");
  });

  it("may have any locale and debug messages, for paths of any letters", async () => {
    const path = join(dir, "é☃.npy");
    writeFileSync(path, "no array");
    const args = ["checkpoint", "inspect", path, "--json"];
    const locale = { LC_ALL: "C", PYTHONUTF8: "0", PYTHONCOERCECLOCALE: "0" };
    const line = complaint(await apart(args, { env: { ...locale, DEBUG: "*" } }), 2);
    expect(line).to.contain("é☃.npy is no PyTorch");
  });

  it("does not choose the repository of the contract, as a hook's does", async () => {
    const before = await earlierContracts(dir);
    const hook = {
      GIT_DIR: dir,
      GIT_WORK_TREE: dir,
      GIT_INDEX_FILE: join(dir, "i"),
      GIT_TRACE: "1",
    };
    Object.assign(process.env, hook);
    try {
      expect(await earlierContracts(dir)).to.deep.equal(before);
    } finally {
      for (const name of Object.keys(hook)) delete process.env[name];
    }
  });

  for (const runtime of ["bun", "deno"])
    it(`is told in one line that ${runtime} is not Node`, () => {
      const run = pathToFileURL(join(ROOT, "src/setup/run.mjs")).href;
      const program = `Object.defineProperty(process.versions, "${runtime}", { value: "1.0" });
        await import(${JSON.stringify(run)});`;
      const { status, stdout, stderr } = spawnSync(
        process.execPath,
        ["--input-type=module", "--eval", program],
        { encoding: "utf8" },
      );
      expect({ status, stdout }).to.deep.equal({ status: 1, stdout: "" });
      expect(stderr).to.match(/^error: this is (Bun|Deno), but Atlas needs Node .*npm.*\n$/);
    });
});

describe("--fetch", function () {
  this.timeout(LONG);
  const contents = Buffer.from("some data");
  let dir: string;
  let server: Listening & { ca: string };
  let ca: string;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-proxy-"));
    server = await startSecure(["data.example"], (_, response) => void response.end(contents));
    ca = join(dir, "ca.pem");
    writeFileSync(ca, server.ca);
  });
  after(async () => {
    await server.close();
    rmSync(dir, { recursive: true, force: true });
  });

  /** Fetch a file in a process of its own. @returns "ok", or the message and the remedy */
  const fetched = async (url: string, env: NodeJS.ProcessEnv): Promise<string> => {
    const record = {
      ...{ title: "t", doi: "d", licence: "l", page: "https://page.example", mirrors: [url] },
      files: [
        {
          ...{ name: "file", path: "/file", bytes: contents.length },
          md5: createHash("md5").update(contents).digest("hex"),
        },
      ],
    };
    const module = pathToFileURL(join(ROOT, "dist/src/data/fetch.js")).href;
    const program = `import { fetchRecord } from ${JSON.stringify(module)};
      const options = { pauseMs: 1, attempts: 1 };
      await fetchRecord(${JSON.stringify(record)}, ${JSON.stringify(mkdtempSync(join(dir, "out-")))}, options).then(
        () => console.log("ok"), (error) => console.log(error.message + "; " + error.remedy));`;
    const clean = Object.fromEntries(
      Object.entries(process.env).filter(
        ([name]) => !/proxy$|^(SSL_CERT|NODE_EXTRA|REQUESTS_CA|CURL_CA)/i.test(name),
      ),
    );
    const { stdout, stderr } = await execa(
      process.execPath,
      ["--input-type=module", "--eval", program],
      { env: { ...clean, ...env }, extendEnv: false, reject: false },
    );
    expect(stderr).to.not.match(/Error/);
    return stdout;
  };

  const CERTIFICATES = ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"];
  for (const certificates of CERTIFICATES)
    it(`goes through the proxy, with the authority in ${certificates}`, async () => {
      const proxy = await startProxy({ to: server.port, login: "me:p@ss" });
      const address = `me:p%40ss@127.0.0.1:${proxy.port}`;
      const cases: NodeJS.ProcessEnv[] = [
        { HTTPS_PROXY: `http://${address}` },
        { https_proxy: address },
        { ALL_PROXY: `http://${address}`, NO_PROXY: "other.example,localhost" },
      ];
      for (const env of cases)
        expect(await fetched("https://data.example", { ...env, [certificates]: ca })).to.equal(
          "ok",
        );
      expect(proxy.asked).to.deep.equal(cases.map(() => "data.example:443"));
      await proxy.close();
    });

  it("goes past the proxy where NO_PROXY says so, in any case", async () => {
    const dead = await deadPort();
    for (const name of ["NO_PROXY", "no_proxy"])
      for (const value of ["localhost", "x.example, localhost", `localhost:${server.port}`, "*"])
        expect(
          await fetched(`https://localhost:${server.port}`, {
            ...{ HTTPS_PROXY: `http://127.0.0.1:${dead}`, [name]: value, SSL_CERT_FILE: ca },
          }),
          `${name}=${value}`,
        ).to.equal("ok");
  });

  it("says which proxy or certificate is in the way, and keeps passwords to itself", async () => {
    const dead = await deadPort();
    const [closed, guarded] = [
      await startProxy({ refuse: 403 }),
      await startProxy({ login: "a:b" }),
    ];
    const cases: [NodeJS.ProcessEnv, RegExp][] = [
      [
        { HTTPS_PROXY: `http://me:secret@127.0.0.1:${dead}` },
        new RegExp(
          `proxy http://127\\.0\\.0\\.1:${dead} \\(HTTPS_PROXY\\) cannot be used: .*refused; check that`,
        ),
      ],
      [
        { https_proxy: "http://no.invalid:1" },
        /no\.invalid:1 \(https_proxy\) cannot be used: its name/,
      ],
      [{ HTTPS_PROXY: `http://127.0.0.1:${closed.port}` }, /\(HTTPS_PROXY\) refuses .*403/],
      [
        { HTTPS_PROXY: `http://127.0.0.1:${guarded.port}` },
        /wants a user name and a password; write/,
      ],
      [{ HTTPS_PROXY: "ftp://me:secret@x" }, /^HTTPS_PROXY does not name .*; write it as/],
      [{}, /name is not known/],
    ];
    for (const [env, line] of cases)
      expect(await fetched("https://data.invalid", env))
        .to.match(line)
        .and.not.contain("secret");
    expect(await fetched(`https://localhost:${server.port}`, {})).to.match(
      /certificate is not accepted .*; if your network has an authority .*NODE_EXTRA_CA_CERTS/,
    );
    await Promise.all([closed.close(), guarded.close()]);
  });

  it("is refused by the command line with a proxy that is none", async () => {
    const args = ["data", "toptagging", "--fetch", "--out", join(dir, "jets")];
    expect(complaint(await atlas(args, { env: { HTTPS_PROXY: "::" } }), 2)).to.match(
      /^error: HTTPS_PROXY does not name a proxy/,
    );
  });
});
