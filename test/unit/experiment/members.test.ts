import { resolve } from "node:path";
import { expect } from "chai";
import { UsageError } from "../../../src/errors.js";
import { joinMembers, resolveMembers, splitMembers } from "../../../src/experiment/members.js";

const there =
  (...files: string[]) =>
  (file: string) =>
    files.includes(file);

describe("files with the names of arrays in them", () => {
  it("are split where the file's name ends", () => {
    const cases: [text: string, file: string, members: string[], files?: string[]][] = [
      ["x.npy", "x.npy", []],
      ["storms.nc:T,U,V", "storms.nc", ["T", "U", "V"]],
      ["jets.h5:/x", "jets.h5", ["/x"]],
      ["a:b.h5:x", "a:b.h5", ["x"]],
      ["a:b.h5:x", "a:b.h5", ["x"], ["a:b.h5"]],
      ["odd:name", "odd:name", [], ["odd:name"]],
      ["data:x:y", "data", ["x:y"], ["data"]],
      ["unknown:x", "unknown", ["x"]],
      ["C:\\data\\x.npz:traj", "C:\\data\\x.npz", ["traj"]],
      ["storms.zarr:T, -V", "storms.zarr", ["T", "-V"]],
    ];
    for (const [text, file, members, files = []] of cases)
      expect(splitMembers(text, there(...files)), text).to.deep.equal({ file, members });
  });

  it("must name arrays after a colon", () => {
    for (const text of ["x.npz:", "x.npz:a,,b"])
      expect(() => splitMembers(text, there())).to.throw(UsageError, /names no array/);
  });

  it("are absolute where the worker sees this machine's files", () => {
    expect(resolveMembers("x.npz:a,b", "spawned")).to.equal(`${resolve("x.npz")}:a,b`);
    expect(resolveMembers("absent.npz:a", "remote")).to.equal("absent.npz:a");
    expect(joinMembers({ file: "x", members: [] })).to.equal("x");
  });
});
