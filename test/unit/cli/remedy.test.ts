import { expect } from "chai";
import { nameField, namingFlag, remedyOf } from "../../../src/cli/remedy.js";
import { AtlasError, FileError, RpcError, RpcUsageError, UsageError } from "../../../src/errors.js";
import type { Task } from "../../../src/experiment/define.js";
import { builtinExperiments, loadExperiment } from "../../../src/experiment/load.js";
import { explainFileSystem } from "../../../src/run/atomic.js";
import { rejection } from "../worker/rejection.js";

/** The remedy of an error that work under `--out DIR` ends with. */
async function named(error: unknown, flag: string | undefined = "--out DIR"): Promise<unknown> {
  const thrown = await rejection(namingFlag(flag, () => Promise.reject(error)));
  expect(thrown).to.equal(error);
  return (thrown as AtlasError).remedy;
}

const system = (code: string) => Object.assign(new Error("it failed"), { code });

describe("remedies on the command line", () => {
  it("name the flag that sets a field of the request, or leave the field out", async () => {
    const tasks = async (name: string) => {
      const { path } = builtinExperiments().find((experiment) => experiment.name === name)!;
      return (await loadExperiment(path)).tasks;
    };
    const [jets, pde, digits] = [
      (await tasks("toptagging")).discover,
      (await tasks("pde")).discover,
      (await tasks("mnist")).discover,
    ];
    const data = (await tasks("own-data")).discover;
    const cases: [field: string, task: Task | undefined, said: string][] = [
      ["dataset.source.params.path", jets, " (--data)"],
      ["dataset.source.params.samples", jets, " (--N)"],
      ["dataset.source.params.key", jets, " (--table)"],
      ["dataset.source.params.items", jets, " (--constituents)"],
      ["dataset.source.params.path", digits, " (--data)"],
      ["dataset.tensors.inputs", data, " (--inputs)"],
      ["dataset.tensors.targets.shape", data, ""],
      ["predictor.training.params.batch_size", pde, " (--batch-size)"],
      ["predictor.architecture.params.width", pde, " (--architecture.width)"],
      ["algebra.solver.params.threshold", pde, " (--threshold)"],
      ["algebra.k", pde, " (--k)"],
      ["atlas.action.params.charts[0]", pde, ""],
      ["dataset.source.params.path", undefined, ""],
      ["handle", pde, ""],
    ];
    for (const [field, task, said] of cases) {
      const error = new RpcUsageError(`it is wrong (${field})`, "INVALID_INPUT", field);
      expect(nameField(error, task), field).to.equal(error);
      expect(error.message, field).to.equal(`it is wrong${said}`);
      nameField(error);
      expect(error.message, field).to.equal(`it is wrong${said}`);
    }
  });

  it("name the flag of the folder where another would do, once", async () => {
    const error = explainFileSystem(system("EROFS"), "write", "/x");
    expect(await named(error)).to.match(/another folder with --out DIR$/);
    expect(await named(error, "--runs DIR")).to.match(/another folder with --out DIR$/);
    expect(await named(explainFileSystem(system("EACCES"), "list", "/x"))).to.match(
      /read permission.*with --out DIR$/,
    );
  });

  it("name it nowhere else", async () => {
    for (const error of [
      explainFileSystem(system("ENOSPC"), "write", "/x"),
      explainFileSystem(system("EACCES"), "read", "/x"),
      new UsageError("no", "give another"),
    ])
      expect(await named(error)).to.not.contain("--");
    expect(await named(new Error("a bug"))).to.equal(undefined);
  });

  it("name --force where files may be overwritten, beside the folder's flag or alone", async () => {
    const details = { elsewhere: true, overwritable: true };
    const both = () => new FileError("there", "choose another, or overwrite it", details);
    expect(await named(both())).to.match(/overwrite it, with --out DIR or --force$/);
    const alone = new FileError("there", "overwrite it", { overwritable: true });
    expect(await named(alone)).to.equal("overwrite it with --force");
  });

  it("leave the folder to who knows its flag", async () => {
    const error = new FileError("full", "choose another folder", { elsewhere: true });
    await rejection(namingFlag(undefined, () => Promise.reject(error)));
    expect(await named(error)).to.contain("--out DIR");
  });

  it("say what a program or a damaged run is still good for", () => {
    const reasons = { executes_code: "--trust-code", damaged_config: "--reuse-predictor" } as const;
    for (const [reason, flag] of Object.entries(reasons)) {
      const error = new FileError("x", "first");
      error.reason = reason as keyof typeof reasons;
      expect(remedyOf(error)).to.match(new RegExp(`^first; .*${flag}`));
    }
    expect(remedyOf(new FileError("x"))).to.equal(undefined);
  });

  it("say how to be let in by a worker, and how to have it execute code", () => {
    expect(remedyOf(new RpcUsageError("x", "UNAUTHENTICATED"))).to.contain("--token-file");
    const field = "predictor.architecture.kind";
    const refused = (at: string, expected: string) =>
      remedyOf(new RpcUsageError("x", "INVALID_INPUT", at, expected, "as it says"));
    expect(refused(field, "a worker that executes code")).to.match(
      /^as it says; .*ATLAS_TRUST_CODE/,
    );
    expect(refused(field, "one of mlp, pixels")).to.equal("as it says");
    expect(refused("predictor.epochs", "a number")).to.equal("as it says");
    expect(remedyOf(new RpcError("x", "INTERNAL"))).to.contain("--debug");
    expect(remedyOf(new RpcError("x", "NOT_READY"))).to.equal(undefined);
    expect(remedyOf(new AtlasError("x", "y"))).to.equal("y");
  });
});
