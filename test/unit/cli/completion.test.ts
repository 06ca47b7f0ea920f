import { spawnSync } from "node:child_process";
import { expect } from "chai";
import { Command } from "commander";
import { register } from "../../../src/cli/completion.js";
import { COMMON_FLAGS } from "../../../src/cli/options.js";
import { COMMANDS } from "../../../src/cli/program.js";
import { UsageError } from "../../../src/errors.js";
import { flagsOf } from "../../../src/experiment/flags.js";
import { builtinExperiments, loadExperiment } from "../../../src/experiment/load.js";
import { rejection } from "../worker/rejection.js";

/** What `atlas completion SHELL` prints. */
async function script(shell: string): Promise<string> {
  const program = new Command("atlas");
  register(
    program,
    Object.values(COMMANDS).map(({ load }) => load),
  );
  const { write } = process.stdout;
  let printed = "";
  process.stdout.write = (text) => {
    printed += String(text);
    return true;
  };
  try {
    await program.parseAsync(["completion", shell], { from: "user" });
  } finally {
    process.stdout.write = write;
  }
  return printed;
}

/** What bash offers. */
const SHOW = `echo "\${COMPREPLY[@]}"`;
const has = (shell: string) => spawnSync(shell, ["-c", "true"]).status === 0;

describe("the completion of command lines", () => {
  const scripts: Record<string, string> = {};
  before(async () => {
    for (const shell of ["bash", "zsh", "fish"]) scripts[shell] = await script(shell);
  });

  for (const shell of ["bash", "zsh", "fish"]) {
    it(`has every command, task and flag for ${shell}`, async () => {
      const lines = scripts[shell]!.split("\n");
      for (const { name, path } of builtinExperiments()) {
        const line = lines.find((l) => new RegExp(`^ +"${name}"\\)|_from ${name}"`).test(l));
        expect(line, name).to.be.a("string");
        const words = line!.split(/["\s;()]+/);
        const { tasks } = await loadExperiment(path);
        for (const task of Object.values(tasks)) expect(words, name).to.include(task.name);
        const flags = Object.values(tasks).flatMap((task) => flagsOf(task));
        const shown = new Set(flags.filter(({ hidden }) => !hidden).map((flag) => flag.name));
        for (const flag of flags.filter(({ positional }) => !positional))
          expect(words.includes(`--${flag.name}`), `${name} --${flag.name}`).to.equal(
            shown.has(flag.name),
          );
        for (const flag of COMMON_FLAGS) expect(words).to.include(`--${flag.name}`);
      }
      for (const command of ["doctor", "completion"])
        expect(lines.filter((l) => new RegExp(`\\b${command}\\b`).test(l))).to.have.length.above(1);
    });

    it(`is a script that ${shell} can read`, function () {
      if (!has(shell)) return this.skip();
      const option = shell === "fish" ? "--no-execute" : "-n";
      const { status, stderr } = spawnSync(shell, [option], { input: scripts[shell] });
      expect(status, String(stderr)).to.equal(0);
      const damaged = `${scripts[shell]}\nif (`;
      expect(spawnSync(shell, [option], { input: damaged }).status).to.not.equal(0);
    });
  }

  it("completes in bash what is typed", function () {
    if (!has("bash")) return this.skip();
    const completed = (...typed: string[]) => {
      const words = ["atlas", ...typed].map((word) => `'${word}'`).join(" ");
      const ask = `COMP_WORDS=(${words}); COMP_CWORD=${typed.length}; _atlas`;
      const { stdout, stderr } = spawnSync("bash", [], {
        input: `${scripts.bash}\n${ask}\n${SHOW}`,
      });
      expect(String(stderr)).to.equal("");
      return String(stdout).trim().split(" ");
    };
    expect(completed("pd")).to.deep.equal(["pde"]);
    expect(completed("doc")).to.deep.equal(["doctor"]);
    expect(completed("pde", "--task", "discover_")).to.have.members([
      "discover_algebra",
      "discover_cosets",
    ]);
    expect(completed("pde", "--sol")).to.deep.equal(["--solver"]);
    expect(completed("resume", "--wor")).to.deep.equal(["--worker"]);
    expect(completed("doctor", "--sol")).to.deep.equal([""]);
    expect(completed("runs", "--dev")).to.deep.equal([""]);
    expect(completed("worker", "st")).to.have.members(["start", "stop"]);
    expect(completed("worker", "start", "--po")).to.deep.equal(["--port"]);
    expect(completed("worker", "stop", "--po")).to.deep.equal([""]);
    expect(completed("data", "mnist", "--fe")).to.deep.equal(["--fetch"]);
    expect(completed("completion", "z")).to.deep.equal(["zsh"]);
    expect(completed("help", "clim")).to.deep.equal(["climate"]);
    expect(completed("probe", "rot")).to.deep.equal(["rotation"]);
    expect(completed("probe", "--na")).to.deep.equal([""]);
    expect(completed("prob")).to.deep.equal(["probe"]);
  });

  it("is for no other shell, and says so", async () => {
    const error = await rejection(script("bahs"));
    expect(error).to.be.instanceOf(UsageError);
    expect(error.message).to.contain("did you mean bash?");
    expect((await rejection(script("toString"))).name).to.equal("UsageError");
  });
});
