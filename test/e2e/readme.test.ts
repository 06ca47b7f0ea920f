/**
 * README is true: its commands and its library example run, and what it links to is there.
 *
 * Changed for speed only: experiments get {@link FAST}'s flags and share a worker, and a free port stands in for the one that README names. `npm run demo` and the like are
 * not run from within the tests, which are one of them; that they exist, and that `atlas demo` does, is checked.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { execa } from "execa";
import { Tensor, writeNpy } from "../../src/tensor/index.js";
import { atlas, ROOT } from "./atlas.js";

const FAST: readonly [commands: RegExp, flags: string][] = [
  [/^pde .*--task/, "--N 32 --epochs 1"],
  [/^pde .*--task discover_algebra(?!.*paper)/, "--algebra-epochs 1"],
  [/^pde .*--task discover /, "--algebra-epochs 1 --candidates 4 --keep 4"],
  [/^own-data /, "--epochs 1"],
  [/^data toptagging /, "--generate 60"],
  [/^data climate /, "--generate 2"],
  [/^climate /, "--N 2 --test 1 --stride 8 --epochs 1"],
  [/^climate .*discover /, "--cgnet-n 1 --cgnet-width 4"],
  [/^climate .*downstream/, "--resolution 3 --levels 3"],
  [/^mnist /, "--digits sklearn --N 8 --epochs 1 --batch-size 8"],
  [/^mnist .*--task discover /, "--algebra-epochs 1"],
  [/^mnist .*liegan/, "--seeds 1"],
  [/^mnist .*downstream/, "--test 4"],
  [/^toptagging /, "--N 30 --constituents 4 --epochs 1"],
  [/^toptagging .*(discover|discover_cosets) /, "--candidates 4"],
];

const README = readFileSync(join(ROOT, "README.md"), "utf8");
const fenced = (language: string) =>
  [...README.matchAll(/^```(\S*)\n([\s\S]*?)^```$/gm)].filter((m) => m[1] === language).map((m) => m[2]!);
const commands = fenced("sh").flatMap((block) => block.trim().split("\n"));

describe("README", function () {
  this.timeout(300_000); // experiments run, and what makes jets is installed
  let dir: string;
  let port: number;
  let shared: string;
  const env = () => ({ XDG_STATE_HOME: join(dir, "state"), ATLAS_WORKER: shared }); // a worker in the background that is ours alone
  const apart = () => ({ XDG_STATE_HOME: join(dir, "shared"), XDG_CACHE_HOME: join(dir, "cache") });
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "atlas-readme-"));
    const waves = (phase: number) =>
      Tensor.from(
        Array.from({ length: 24 }, (_, s) => [
          Array.from({ length: 64 }, (_, r) =>
            Array.from({ length: 64 }, (_, c) => Math.sin(0.2 * r + s + phase) + Math.cos(0.15 * c - 2 * s)),
          ),
        ]),
        "float32",
      );
    writeFileSync(join(dir, "inputs.npy"), writeNpy(waves(0)));
    writeFileSync(join(dir, "targets.npy"), writeNpy(waves(0.1)));
    port = await freePort();
    const { stdout, stderr } = await atlas(["worker", "start"], { cwd: dir, env: apart() });
    shared = /^address +(\S+)$/m.exec(stdout)?.[1] ?? expect.fail(stderr);
  });
  after(async () => {
    await atlas(["worker", "stop"], { cwd: dir, env: env() }); // should a test before its own have failed
    await atlas(["worker", "stop"], { cwd: dir, env: apart() });
    rmSync(dir, { recursive: true, force: true });
  });

  it("has commands in fenced blocks of kinds that are tested here", () => {
    const kinds = new Set([...README.matchAll(/^```(\S+)$/gm)].map((m) => m[1]));
    expect([...kinds].sort()).to.deep.equal(["sh", "text", "ts"]);
    expect(commands).to.include.members(["npm run demo", "npm test"]);
  });

  for (const command of commands)
    it(command, async () => {
      const { scripts } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as {
        scripts: Record<string, string>;
      };
      const script = /^npm (?:run )?([a-z]+)$/.exec(command)?.[1];
      if (script !== undefined) {
        expect(scripts).to.have.property(script);
        if (script === "demo") expect((await atlas(["demo", "--help"])).code).to.equal(0);
        return;
      }
      const [, line, file] = /^npm run -s atlas -- ([^>]*?)(?: > (\S+))?$/.exec(command) ?? [];
      expect(line, `a command that this test knows: ${command}`).to.be.a("string");
      const words = line!.replaceAll("50051", String(port)).split(" ");
      const fast = FAST.flatMap(([which, flags]) => (which.test(line!) ? flags.split(" ") : []));
      const { code, stdout, stderr } = await atlas([...words, ...fast], { cwd: dir, env: env() });
      expect(code, stderr).to.equal(0);
      expect(stdout).not.to.equal("");
      if (file?.endsWith(".json")) expect(JSON.parse(stdout)).to.have.property("algebra");
    });

  it("has a library example of twenty lines that has the right types and runs", async () => {
    const [example, ...others] = fenced("ts");
    expect(others).to.deep.equal([]);
    expect(example!.split("\n").filter((line) => line !== "")).to.have.length.at.most(20);
    const file = join(dir, "example.mts");
    writeFileSync(file, example!);
    const config = {
      extends: join(ROOT, "tsconfig.json"),
      compilerOptions: {
        paths: { "atlas-symmetry": [join(ROOT, "src/index.ts")] },
        typeRoots: [join(ROOT, "node_modules/@types")],
        types: ["node"],
      },
      include: ["example.mts"],
    };
    const tsconfig = join(dir, "tsconfig.json");
    writeFileSync(tsconfig, JSON.stringify(config));
    const tsc = join(ROOT, "node_modules/typescript/bin/tsc");
    execFileSync(process.execPath, [tsc, "-p", tsconfig], { stdio: ["ignore", "inherit", "inherit"] });
    const { stdout } = await execa(process.execPath, ["--import", import.meta.resolve("tsx"), file], {
      cwd: dir,
      env: { TSX_TSCONFIG_PATH: tsconfig },
    });
    expect(stdout)
      .to.match(/^1 0\.\d+$/m)
      .and.contain("name:");
  });

  it("links to what is there", () => {
    const targets = [...README.matchAll(/\]\(([^)]+)\)/g)].map((m) => m[1]!);
    expect(targets.filter((t) => !t.startsWith("https://") && !existsSync(join(ROOT, t)))).to.deep.equal([]);
  });
});

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject).listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}
