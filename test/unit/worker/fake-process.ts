/**
 * A worker process without Python: `fake-process.ts MODE serve … --parent-stdin`, put in place of
 * the interpreter by {@link fakePython}.
 */
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { PROTOCOL_VERSION } from "../../../src/worker/worker.js";
import { FakeWorker } from "./fake-worker.js";

/**
 * "dying" never ends epoch 3, and dies with an error on SIGUSR2; "stubborn" ends for nothing but
 * SIGKILL.
 */
export type Mode = "obedient" | "dying" | "stubborn";

/** Write a script that takes the place of `python`. */
export function fakePython(path: string, mode: Mode): string {
  const command = [
    process.execPath,
    "--import",
    import.meta.resolve("tsx"),
    fileURLToPath(import.meta.url),
    mode,
  ];
  writeFileSync(path, `#!/bin/sh\nexec ${command.map((c) => `'${c}'`).join(" ")} "$@"\n`, {
    mode: 0o755,
  });
  return path;
}

async function main(mode: Mode, args: string[]): Promise<void> {
  const child = spawn("sleep", ["1000"], { stdio: "ignore" });
  console.error(`child ${child.pid}`);
  console.log("a line that is not for us");
  const fake = await FakeWorker.start();
  if (mode === "dying") {
    fake.onEpoch = (epoch) => {
      if (epoch === 3) fake.epochMs = Number.POSITIVE_INFINITY;
    };
    process.on("SIGUSR2", () => {
      process.stderr.write(
        "Traceback (most recent call last):\n  File ...\nRuntimeError: out of σ\n",
      );
      process.kill(process.pid, "SIGKILL");
    });
  }
  if (mode === "stubborn") process.on("SIGTERM", () => console.error("no"));
  else if (args.includes("--parent-stdin"))
    process.stdin.on("end", () => process.exit(child.kill() ? 0 : 1)).resume();
  const ready = {
    event: "ready",
    address: fake.address,
    protocol_version: PROTOCOL_VERSION,
    pid: process.pid,
  };
  console.log(JSON.stringify(ready));
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  await main(process.argv[2] as Mode, process.argv.slice(3));
