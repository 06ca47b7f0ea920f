/** A fresh clone under hostile environments, as far as Node and its package managers go. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { LONG } from "../e2e/atlas.js";
import { complaint, makeClone, run, works } from "./clone.js";

const MANAGERS = { yarn: "yarn@1.22.22", pnpm: "pnpm@9.15.9", bun: "bun@1.4.5" };
const RUNS = ["run", "-s", "atlas", "--", "runs"];

describe("a fresh clone, before any Python", function () {
  this.timeout(LONG);
  let dir: string;
  let clone: string;
  let count = 0;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-clones-"));
  });
  beforeEach(() => {
    clone = join(dir, `clone-${count++}`);
    makeClone(clone);
  });
  afterEach(() => rmSync(clone, { recursive: true, force: true }));
  after(() => rmSync(dir, { recursive: true, force: true }));

  it("works with NODE_ENV=production and other variables of Node and npm", async () => {
    const env = {
      ...{ NODE_ENV: "production", NODE_PATH: dir, npm_config_omit: "dev optional" },
      ...{ npm_config_production: "true", npm_config_legacy_peer_deps: "true" },
      ...{ npm_config_install_strategy: "linked", npm_config_engine_strict: "true" },
      ...{ npm_config_ignore_scripts: "false", FORCE_COLOR: "1" },
    };
    const twice = async () => run(["npm", ...RUNS], clone, env);
    works(await twice(), await twice());
  });

  it("works with an .npmrc that is meant for servers", async () => {
    const userconfig = join(dir, "npmrc");
    writeFileSync(
      userconfig,
      "omit=dev\nomit[]=optional\npackage-lock=false\ninstall-strategy=nested\nbefore=2001-01-01\n" +
        "dry-run=true\njson=true\ncolor=always\nloglevel=silly\n",
    );
    const twice = async () => run(["npm", ...RUNS], clone, { npm_config_userconfig: userconfig });
    works(await twice(), await twice());
  });

  it("works without a home, with an umask and an activated environment", async () => {
    const env = { HOME: join(dir, "no-home"), VIRTUAL_ENV: dir, CDPATH: dir, LC_ALL: "C" };
    const command = ["sh", "-c", `umask 077; npm ${RUNS.join(" ")}`];
    const twice = async () => run(command, clone, env);
    works(await twice(), await twice());
  });

  /** Get a package manager. @returns the command, undefined if it cannot be had */
  const manager = async (name: keyof typeof MANAGERS): Promise<string[] | undefined> => {
    const folder = join(dir, name);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "package.json"), "{}");
    await run(["npm", "install", "--no-audit", "--no-fund", MANAGERS[name]], folder);
    const command = join(folder, "node_modules/.bin", name);
    return (await run([command, "--version"], folder)).code === 0 ? [command] : undefined;
  };

  for (const name of ["yarn", "pnpm", "bun"] as const)
    it(`works with ${name}`, async function () {
      const command = await manager(name);
      if (command === undefined) {
        process.stderr.write(`integration: ${MANAGERS[name]} could not be had\n`);
        return this.skip();
      }
      const args = name === "bun" ? ["run", "--silent"] : name === "yarn" ? ["-s"] : ["run", "-s"];
      const twice = async () => run([...command, ...args, "atlas", "runs"], clone);
      works(await twice(), await twice());
      if (name !== "bun") return;
      const itself = await run([...command, "--bun", "run", "--silent", "atlas", "runs"], clone);
      expect(complaint(itself)).to.match(/this is Bun, but Atlas needs Node/);
    });
});
