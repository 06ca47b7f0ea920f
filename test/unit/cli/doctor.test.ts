import { expect } from "chai";
import { platformCheck } from "../../../src/cli/doctor.js";

describe("the platform that atlas doctor finds", () => {
  for (const [platform, arch, glibc, tested] of [
    ["linux", "x64", "2.36", true],
    ["linux", "arm64", "2.17", false],
    ["darwin", "arm64", undefined, false],
  ] as const)
    it(`is good on ${platform} ${arch}`, () => {
      const { status, detail, remedy } = platformCheck(platform, arch, glibc);
      expect({ status, remedy }).to.deep.equal({ status: "ok", remedy: undefined });
      expect(detail)
        .to.contain(arch)
        .and.contain(glibc ?? "");
      expect(detail.includes("not tested")).to.equal(!tested);
    });

  for (const [platform, arch, glibc, advice] of [
    ["linux", "x64", undefined, "--worker docker"],
    ["linux", "arm64", undefined, "--worker docker"],
    ["linux", "riscv64", "2.36", "another machine"],
    ["darwin", "x64", undefined, "another machine"],
    ["win32", "x64", undefined, "WSL 2"],
    ["freebsd", "x64", undefined, "another machine"],
  ] as const)
    it(`is of no use on ${platform} ${arch}${platform === "linux" && !glibc ? " with musl" : ""}`, () => {
      const { status, detail, remedy } = platformCheck(platform, arch, glibc);
      expect(status).to.equal("missing");
      expect(detail).to.contain(arch);
      expect(remedy).to.contain(advice);
    });
});
